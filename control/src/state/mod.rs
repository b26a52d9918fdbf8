//! The state: what survives the daemon, in two files of the state directory.
//!
//! ```text
//! change → Operation::perform (registry) → Store::note ─ … ─ Store::commit → acknowledged
//!                                                              ├─ state.log  the operation, appended and synced
//!                                                              └─ state.json everything, when the journal is as long as it
//! start  → Store::open → Loaded::restore (empty registry) → Registry::apply (the file) → Store::save
//! ```
//! - `state.json` ([`snapshot`]) is the whole registry with the owner of each thing, replaced at once: a temporary file, synced,
//!   renamed, its directory synced. `state.log` ([`journal`]) has the operations since. Both are mode 0600, the directory that
//!   is made for them 0700. Each file has at most [`disk::MAX_BYTES`].
//! - A change is on disk before it is acknowledged. Changes that wait together are noted one by one and committed by one sync.
//! - Merge rule: the registry is put back as it was, whoever owned what, and then the file is read, as a reload does. So a start
//!   does what SIGHUP would have done: what the file declares is as the file says, what has left the file goes, what a tool added
//!   stays, also in a service of the file's. A tool's change to a thing of the file's lasts until the file is read, whether by
//!   SIGHUP or by a start. Destinations keep their order.
//! - A change that can't be kept is refused with EIO; it was made all the same, and runs until the daemon ends. Everything is
//!   written anew at the next commit, or [`Store::save`].
//! - A file that was cut, changed, or could have been written by others is set aside as `NAME.damaged-N`, and the director goes on
//!   from what is left: the configuration, or the operations before the damage. Entries that are refused are told one by one
//!   and left out, and a copy of the file they stood in is kept aside.
//! - One daemon a directory: it holds a lock on `lock`.

mod damage;
mod disk;
mod journal;
mod operation;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod texts;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) use damage::Damage;
pub(crate) use disk::{Disk, System};

/// What other files that outlive the director need too.
pub(crate) mod files {
    pub(crate) use super::disk::{make_directory, set_aside};
}

pub(crate) use operation::Operation;
use snapshot::{Content, Stamp};

use crate::registry::Registry;

const SNAPSHOT: &str = "state.json";
const JOURNAL: &str = "state.log";
const LOCK: &str = "lock";
/// A journal of fewer bytes is not yet folded into the state file, however small that is.
const JOURNAL_BYTES: u64 = 1 << 20;

/// Why the state can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another daemon has the directory.
    #[error(
        "another director{} keeps its state in {}: end it first, or give this one a directory of its own with --state-dir",
        by(.pid), .directory.display()
    )]
    InUse {
        /// The state directory.
        directory: PathBuf,
        /// Its process id as it wrote it, if it did.
        pid: String,
    },
    /// The directory can't be used.
    #[error(
        "the state directory can't be used: {}: {source}; --state-dir or director.state_dir gives another", .path.display()
    )]
    Directory {
        /// What of it.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// A file that can't be used can't be set aside either.
    #[error("{} {damage}, and can't be set aside: {source}; move it away", .path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
        /// Why it stays.
        source: io::Error,
    },
    /// A change was made that is not on disk.
    #[error(
        "the change was made, but is lost when the director ends, as it could not be written to {}: {source}",
        .path.display()
    )]
    NotKept {
        /// The file.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

fn by(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (process {pid})") }
}

/// What was found in the directory.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    content: Option<Content>,
    operations: Vec<Result<Operation, String>>,
    /// What people should know of it, ready to print; nothing if all is well.
    pub(crate) messages: Vec<String>,
}

impl Loaded {
    /// Puts everything into an empty registry. Returns what was refused and so left out.
    pub(crate) fn restore(&self, registry: &mut Registry) -> Vec<String> {
        let mut refused = self.content.as_ref().map(|content| content.restore(registry)).unwrap_or_default();
        for operation in &self.operations {
            let done = match operation {
                Ok(operation) => operation.perform(registry).map_err(|error| error.to_string()),
                Err(why) => Err(why.clone()),
            };
            refused.extend(done.err());
        }
        refused
    }
}

/// The state directory.
#[derive(Debug)]
pub(crate) struct Store<D = System> {
    disk: D,
    directory: PathBuf,
    /// Held as long as this lives.
    lock: File,
    /// The state file on disk, and its content's checksum and length.
    snapshot: Option<(Stamp, (u32, usize))>,
    /// The last generation that a state file had.
    generation: u64,
    /// The journal that follows it, once there is one, and its length in bytes.
    journal: Option<(File, u64)>,
    /// A journal of an earlier run follows it.
    inherited: bool,
    /// Lines that were noted and are not on disk.
    pending: Vec<u8>,
    /// The line that was noted last.
    last: Vec<u8>,
    /// Changes were made that are neither on disk nor pending.
    behind: bool,
}

impl Store<System> {
    /// Takes the directory, and reads what is there.
    ///
    /// # Errors
    /// When it can't be used, another daemon has it, or a damaged file can't be set aside.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Loaded), StateError> {
        Self::open_on(System, directory)
    }

    /// Takes the directory from a predecessor, whose lock this is, and reads what is there. Nothing is written before the first
    /// [`Store::save`] or [`Store::commit`].
    ///
    /// # Errors
    /// When it can't be used, or a damaged file can't be set aside.
    pub(crate) fn inherit(directory: &Path, lock: File) -> Result<(Self, Loaded), StateError> {
        Self::locked(System, directory, lock)
    }
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let failed = |source| StateError::Directory { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What another process wrote there is only told.
            let _ = file.take(16).read_to_string(&mut pid);
            let pid = pid.trim().to_owned();
            return Err(StateError::InUse { directory: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    sign(&file).map_err(failed)?;
    Ok(file)
}

/// Writes who this is into the lock's file.
fn sign(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

impl<D: Disk> Store<D> {
    fn open_on(disk: D, directory: &Path) -> Result<(Self, Loaded), StateError> {
        let failed = |source| StateError::Directory { path: directory.to_owned(), source };
        disk::make_directory(directory).map_err(failed)?;
        Self::locked(disk, directory, lock(directory)?)
    }

    fn locked(disk: D, directory: &Path, lock: File) -> Result<(Self, Loaded), StateError> {
        let failed = |source| StateError::Directory { path: directory.to_owned(), source };
        let mut loaded = Loaded::default();
        let mode = std::fs::metadata(directory).map_err(failed)?.mode();
        if mode & 0o022 != 0 {
            loaded.messages.push(format!(
                "{} may be written by others (mode {:03o}), who can take the director's state away: its mode should be 700",
                directory.display(),
                mode & 0o777
            ));
        }
        let mut store = Self {
            disk,
            directory: directory.to_owned(),
            lock,
            snapshot: None,
            generation: 0,
            journal: None,
            inherited: false,
            pending: Vec::new(),
            last: Vec::new(),
            behind: false,
        };
        store.load(&mut loaded)?;
        Ok((store, loaded))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn load(&mut self, loaded: &mut Loaded) -> Result<(), StateError> {
        let path = self.path(SNAPSHOT);
        let read = disk::read(&path).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(None) };
            let (content, text, stamp) = snapshot::open(&bytes)?;
            Ok(Some((content, stamp, sum(text))))
        });
        let stamp = match read {
            Ok(None) => None,
            Ok(Some((content, stamp, sum))) => {
                (self.snapshot, self.generation) = (Some((stamp, sum)), stamp.generation);
                loaded.content = Some(content);
                Some(stamp)
            }
            Err(damage) => {
                self.set_aside(SNAPSHOT, damage, "the director starts from its configuration", loaded)?;
                if self.path(JOURNAL).exists() {
                    self.set_aside(JOURNAL, Damage::Orphan, "its changes are not loaded", loaded)?;
                }
                return Ok(());
            }
        };
        let journal = disk::read(&self.path(JOURNAL)).map(|bytes| {
            // Without a state file there is none that a journal could follow.
            bytes.and_then(|bytes| journal::read(&bytes, stamp.unwrap_or_default()))
        });
        match journal {
            Ok(None) => {}
            Ok(Some(journal)) => {
                if journal.torn {
                    let path = self.path(JOURNAL).display().to_string();
                    let message =
                        format!("the last change in {path} is cut and left out: it was never acknowledged");
                    loaded.messages.push(message);
                }
                loaded.operations = journal.operations;
                self.inherited = true;
                if let Some(damage) = journal.damage {
                    let then = format!("{} change(s) before are loaded", loaded.operations.len());
                    self.set_aside(JOURNAL, damage, &then, loaded)?;
                }
            }
            Err(damage) => self.set_aside(JOURNAL, damage, "its changes are not loaded", loaded)?,
        }
        Ok(())
    }

    fn set_aside(
        &mut self,
        name: &str,
        damage: Damage,
        then: &str,
        loaded: &mut Loaded,
    ) -> Result<(), StateError> {
        let path = self.path(name);
        match disk::set_aside(&path, false, disk::MAX_ASIDE) {
            Ok(aside) => {
                let (path, aside) = (path.display(), aside.display());
                loaded.messages.push(format!("{path} {damage}; it is now {aside}, and {then}"));
                Ok(())
            }
            Err(source) => Err(StateError::Aside { path, damage, source }),
        }
    }

    /// Keeps copies of the files aside, as something that stands in them was refused and will not be written again. Returns
    /// where they are.
    pub(crate) fn keep_copies(&self) -> io::Result<Vec<PathBuf>> {
        let paths = [self.path(SNAPSHOT), self.path(JOURNAL)];
        paths
            .iter()
            .filter(|path| path.exists())
            .map(|path| disk::set_aside(path, true, disk::MAX_ASIDE))
            .collect()
    }

    /// The directory's lock, for a successor.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Notes that the directory is this director's again, after a successor may have had it, or from a predecessor: what is there now
    /// is written anew at the next occasion.
    pub(crate) fn own(&mut self) {
        (self.snapshot, self.journal) = (None, None);
        // It is only told.
        let _ = sign(&self.lock);
    }

    /// Whether changes were made that are not on disk.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Takes notice of an operation that was carried out, for the next commit.
    pub(crate) fn note(&mut self, operation: &Operation) {
        match journal::entry(operation) {
            // The same again, such as a weight that a health check repeats: there is nothing new to keep.
            Ok(line) if line == self.last => {}
            Ok(line) => {
                self.pending.extend_from_slice(&line);
                self.last = line;
            }
            Err(_) => self.behind = true,
        }
    }

    /// Has all that was noted on disk.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn commit(&mut self, registry: &Registry) -> Result<(), StateError> {
        if self.pending.is_empty() && !self.behind {
            return Ok(());
        }
        let Some((stamp, (_, bytes))) = self.snapshot.filter(|_| !self.behind) else {
            return self.save(registry);
        };
        let length = self.journal.as_ref().map_or(0, |(_, length)| *length) + self.pending.len() as u64;
        if self.inherited || length > JOURNAL_BYTES.max(bytes as u64) {
            return self.save(registry);
        }
        let pending = std::mem::take(&mut self.pending);
        let appended = self.append(stamp, &pending);
        self.kept(JOURNAL, appended)
    }

    fn append(&mut self, stamp: Stamp, lines: &[u8]) -> io::Result<()> {
        // After a failure the journal's end is unknown, and it is not written to again.
        let (file, length) = match self.journal.take() {
            Some((file, length)) => {
                self.disk.write(&file, lines)?;
                self.disk.sync(&file)?;
                (file, length + lines.len() as u64)
            }
            None => {
                let bytes = [journal::head(stamp)?, lines.to_vec()].concat();
                let file = disk::replace(&self.disk, &self.path(JOURNAL), &bytes)?;
                (file, bytes.len() as u64)
            }
        };
        self.journal = Some((file, length));
        Ok(())
    }

    /// Has everything on disk; writes nothing if it is there already.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn save(&mut self, registry: &Registry) -> Result<(), StateError> {
        let written = self.write(registry);
        self.kept(SNAPSHOT, written)
    }

    fn write(&mut self, registry: &Registry) -> io::Result<()> {
        self.last.clear();
        let content = snapshot::encode(&Content::gather(registry))?;
        let sum = sum(&content);
        let alone = self.journal.is_none() && !self.inherited && !self.behind;
        if alone && self.snapshot.is_some_and(|(_, its)| its == sum) {
            self.pending.clear();
            return Ok(());
        }
        self.generation += 1;
        let (file, stamp) = snapshot::seal(self.generation, &content);
        if file.len() as u64 > disk::MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        disk::replace(&self.disk, &self.path(SNAPSHOT), file.as_bytes())?;
        self.snapshot = Some((stamp, sum));
        // What there is of a journal follows the former one.
        (self.journal, self.inherited, self.behind) = (None, false, false);
        self.pending.clear();
        Ok(())
    }

    fn kept(&mut self, name: &str, done: io::Result<()>) -> Result<(), StateError> {
        done.map_err(|source| {
            (self.behind, self.journal) = (true, None);
            self.pending.clear();
            self.last.clear();
            StateError::NotKept { path: self.path(name), source }
        })
    }
}

/// Tells one content from another.
fn sum(content: &str) -> (u32, usize) {
    (crc32fast::hash(content.as_bytes()), content.len())
}
