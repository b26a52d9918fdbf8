//! Why a file of the state can't be used. Such a file is set aside, never overwritten.

use std::io;

use super::disk::MAX_BYTES;

/// What is wrong with a file; reads on behind its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// The file system does not give it.
    #[error("can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A directory, a device, a symbolic link.
    #[error("is not a regular file")]
    NotAFile,
    /// Somebody else may have written it.
    #[error(
        "belongs to the user {uid}, so that its content can't be trusted: it has to belong to the director's user or root"
    )]
    Owner {
        /// Whose it is.
        uid: u32,
    },
    /// Others may have written it.
    #[error(
        "may be written by others (mode {mode:03o}), so that its content can't be trusted: its mode has to be 600"
    )]
    Mode {
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than what is ever written.
    #[error("is larger than {} MiB, the most that is read", MAX_BYTES >> 20)]
    TooLarge,
    /// It is not UTF-8.
    #[error("is damaged: it is no text")]
    NotText,
    /// It is cut, or something else altogether.
    #[error("is damaged: {0}")]
    Malformed(String),
    /// Another program's.
    #[error("is of version {found}, and this xlvs reads version {read}")]
    Version {
        /// Its version.
        found: u32,
        /// The one that can be read.
        read: u32,
    },
    /// It was changed by something else than the director.
    #[error("was changed since the director wrote it: its checksum does not match")]
    Checksum,
    /// A line of the journal, from 1, is not what was written.
    #[error("is damaged in line {line}: the changes from there on are not loaded")]
    Line {
        /// Which.
        line: usize,
    },
    /// The state file that a journal follows can't be used.
    #[error("has the changes since that file")]
    Orphan,
}
