//! The file operations of the state, each one step that can fail or be the last before a power cut. Tests put a disk in their
//! place that does so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::damage::Damage;

/// The largest file that is written or read, in bytes: some millions of destinations.
pub(super) const MAX_BYTES: u64 = 256 << 20;
/// The most files of one name that are kept aside.
pub(super) const MAX_ASIDE: u32 = 9;

/// The steps.
pub(crate) trait Disk: std::fmt::Debug {
    /// Makes a new empty file, mode 0600, in place of one that may be there.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes to the end of a file.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()>;
    /// Has a file's content on disk.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Gives a file another's name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Has a directory's names on disk.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Disk for System {
    fn create(&self, path: &Path) -> io::Result<File> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Writes a file whole, in place of another or none: after a power cut, there is the former or this one.
pub(super) fn replace(disk: &impl Disk, path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let file = disk.create(&new)?;
    disk.write(&file, bytes)?;
    disk.sync(&file)?;
    disk.rename(&new, path)?;
    disk.sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Makes the directory, for its owner alone, if there is none.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The content of a file that nobody else can have written; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Damage> {
    // Without O_NONBLOCK, a FIFO would be waited on.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(Damage::NotAFile),
        opened => opened?,
    };
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(Damage::NotAFile);
    }
    trust(facts.uid(), facts.mode(), rustix::process::geteuid().as_raw())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Damage::TooLarge);
    }
    Ok(Some(bytes))
}

/// Whether nobody else than root and the director's user, `me`, can have written a file.
pub(super) fn trust(owner: u32, mode: u32, me: u32) -> Result<(), Damage> {
    if owner != 0 && owner != me {
        return Err(Damage::Owner { uid: owner });
    }
    if mode & 0o022 != 0 {
        return Err(Damage::Mode { mode: mode & 0o777 });
    }
    Ok(())
}

/// Gives a file the name `NAME.damaged-N`, with the first N from 1 that is free; when all up to `most` are taken, in place of
/// the oldest. `keep` leaves it under its own name too.
pub(crate) fn set_aside(path: &Path, keep: bool, most: u32) -> io::Result<PathBuf> {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let mut oldest = None;
    let mut free = None;
    for aside in (1..=most).map(name) {
        match std::fs::symlink_metadata(&aside) {
            Ok(facts) => {
                let age = (facts.ctime(), facts.ctime_nsec());
                if oldest.as_ref().is_none_or(|(its, _)| age < *its) {
                    oldest = Some((age, aside));
                }
            }
            Err(_) => {
                free = Some(aside);
                break;
            }
        }
    }
    let aside = match (free, oldest) {
        (Some(free), _) => free,
        (None, Some((_, oldest))) => {
            std::fs::remove_file(&oldest)?;
            oldest
        }
        (None, None) => name(1),
    };
    if keep {
        std::fs::hard_link(path, &aside)?
    } else {
        std::fs::rename(path, &aside)?
    }
    Ok(aside)
}
