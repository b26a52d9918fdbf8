//! The file that connections outlive the director in: found or made, and never believed where it can't be. The daemon serves in any
//! case; without a file, connections end with it.
//!
//! Rules: the file belongs to the director's user or root, its mode is 600, it is locked for as long as a director uses it. One that
//! can't be used is set aside as `….damaged-1` (at most [`MAX_ASIDE`] are kept, as they take memory) and a new one begun; one that
//! another director uses stays where it is. A new file gets its name when it is complete.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::restore::Found;
use xlvs_dataplane::connection::store::{Boot, Store, Unusable};
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::HashSeed;

use crate::config::ConnectionsFile;
use crate::registry::Registry;
use crate::state::files;

/// The most files that are kept aside.
const MAX_ASIDE: u32 = 2;
/// How long a predecessor that was killed may take to be gone.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// By what name the service manager knows the file.
const NAME: &str = "xlvs-connections";
/// File systems in memory, by their numbers in `statfs`.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Why a file is not used; reads on behind its name.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("is not a regular file")]
    NotAFile,
    #[error(
        "belongs to the user {uid}, so that its content can't be trusted: it has to belong to the director's user or root"
    )]
    Owner { uid: u32 },
    #[error("may be read or written by others (mode {mode:03o}): its mode has to be 600")]
    Mode { mode: u32 },
    #[error("is used by another director")]
    Locked,
    #[error(transparent)]
    Content(#[from] Unusable),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Content(error.into())
    }
}

/// Where connections are kept, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    store: Option<Arc<Store>>,
    /// Held as long as this lives, where it is not the store's own file.
    lock: Option<File>,
    /// There was a file, and this is what was found in it.
    found: Option<Found>,
    /// As people read it.
    place: Option<String>,
    /// What people should know, ready to print; nothing if all is well.
    pub(crate) messages: Vec<String>,
}

impl Connections {
    /// Finds or makes the file.
    pub(crate) fn open(place: &ConnectionsFile, now: Now) -> Self {
        let mut connections = Self::default();
        let opened = match place {
            ConnectionsFile::Nowhere => return connections,
            ConnectionsFile::ServiceManager => connections.of_service_manager(now),
            ConnectionsFile::At(path) => connections.at(path, now),
        };
        match opened {
            Ok(store) => {
                connections.store = Some(Arc::new(store));
                connections.place = Some(place.to_string());
            }
            Err(message) => {
                connections.messages.push(format!("{message}; connections end with this director"));
            }
        }
        connections
    }

    /// Goes on with a predecessor's file, which it has locked, by `lock` if that is another.
    ///
    /// # Errors
    /// When it can't be used.
    pub(crate) fn inherit(
        place: &ConnectionsFile,
        file: File,
        lock: Option<File>,
        now: Now,
    ) -> Result<Self, String> {
        let opened = boot().map_err(Refused::from).and_then(|boot| {
            trust(&file)?;
            Ok(Store::open(file, boot, now)?)
        });
        let store = opened.map_err(|refused| format!("{place} {refused}"))?;
        Ok(Self {
            store: Some(Arc::new(store)),
            lock,
            found: Some(Found::default()),
            place: Some(place.to_string()),
            messages: Vec::new(),
        })
    }

    /// The file, and its lock if that is another, for a successor; nothing if connections end with this director.
    pub(crate) fn files(&self) -> Option<(&File, Option<&File>)> {
        Some((self.store.as_ref()?.file(), self.lock.as_ref()))
    }

    fn at(&mut self, path: &Path, now: Now) -> Result<Store, String> {
        let file = path.display();
        let boot = boot().map_err(|error| format!("{BOOT_ID} can't be read: {error}"))?;
        if let Some(directory) = path.parent() {
            files::make_directory(directory)
                .map_err(|error| format!("{} can't be made: {error}", directory.display()))?;
        }
        match find(path, boot, now) {
            Ok(Some(store)) => {
                self.found = Some(Found::default());
                return Ok(store);
            }
            Ok(None) => {}
            Err(Refused::Locked) => return Err(format!("{file} {}", Refused::Locked)),
            Err(refused) => {
                let aside = files::set_aside(path, false, MAX_ASIDE)
                    .map_err(|error| format!("{file} {refused}, and can't be set aside: {error}"))?;
                let aside = aside.display();
                self.messages.push(format!(
                    "{file} {refused}; it is now {aside}, and the director starts without connections"
                ));
            }
        }
        let store = make(path, boot, now).map_err(|error| format!("{file} can't be made: {error}"))?;
        let kind = rustix::fs::fstatfs(store.file()).map(|facts| facts.f_type);
        if kind.is_ok_and(|kind| !IN_MEMORY.contains(&kind)) {
            self.messages.push(format!(
                "{file} is on a disk, which may hold packets up while it is written: director.connections_file should name a place \
                 in memory, such as in /dev/shm"
            ));
        }
        Ok(store)
    }

    fn of_service_manager(&mut self, now: Now) -> Result<Store, String> {
        let boot = boot().map_err(|error| format!("{BOOT_ID} can't be read: {error}"))?;
        let said = |error| format!("the service manager's file descriptors can't be read: {error}");
        let given = sd_notify::listen_fds_with_names().map_err(said)?.find(|(_, name)| name == NAME);
        if let Some((number, _)) = given {
            let opened = Self::reopened(number).and_then(|file| Ok(Store::open(file, boot, now)?));
            match opened {
                Ok(store) => {
                    self.found = Some(Found::default());
                    return Ok(store);
                }
                Err(Refused::Locked) => {
                    return Err(format!("the service manager's file {}", Refused::Locked));
                }
                Err(refused) => self.messages.push(format!(
                    "the service manager's file {refused}; it is given up, and the director starts without connections"
                )),
            }
            let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(NAME)]);
        }
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Err("there is no service manager that could keep the file of connections (NOTIFY_SOCKET is not set): \
                        director.connections_file has to name a file"
                .to_owned());
        }
        let failed = |error| format!("the service manager can't be given the file of connections: {error}");
        let store = Store::nameless(NAME, boot, now).map_err(failed)?;
        // Not the one that the manager gets: a lock is held by all who have the same one.
        let own = Self::reopened(std::os::fd::AsRawFd::as_raw_fd(store.file()));
        self.lock = Some(own.map_err(|refused| format!("the new file of connections {refused}"))?);
        let stored = [NotifyState::FdStore, NotifyState::FdName(NAME)];
        sd_notify::notify_with_fds(&stored, &[std::os::fd::AsFd::as_fd(store.file())]).map_err(failed)?;
        Ok(store)
    }

    /// A file that is open, opened once more and locked.
    fn reopened(number: i32) -> Result<File, Refused> {
        let file = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{number}"))?;
        trust(&file)?;
        lock(&file)?;
        Ok(file)
    }

    /// Tells an empty registry what the former director's numbers stand for.
    pub(crate) fn remember(&self, registry: &mut Registry) {
        if let Some(store) = &self.store {
            registry.remember(store.kept());
        }
    }

    /// The tables of an empty population.
    ///
    /// # Errors
    /// When the file can't be mapped.
    pub(crate) fn tables(&self, population: Arc<Population>, seed: HashSeed) -> io::Result<ConnectionTables> {
        let again = Arc::clone(&population);
        Ok(match &self.store {
            None => ConnectionTables {
                v4: Arc::new(ConnectionTable::new(population, seed)),
                v6: Arc::new(ConnectionTable::new(again, seed)),
            },
            Some(store) => ConnectionTables {
                v4: Arc::new(ConnectionTable::kept_in(store, population, seed)?),
                v6: Arc::new(ConnectionTable::kept_in(store, again, seed)?),
            },
        })
    }

    /// Takes notice of what was found in the file.
    pub(crate) fn note(&mut self, found: Found) {
        let Some(its) = &mut self.found else { return };
        *its = found;
        let lost = |count: u32, why: &str| (count > 0).then(|| format!("{count} {why}"));
        let lost: Vec<String> = [
            lost(found.damaged, "damaged record(s)"),
            lost(found.unplaced, "connection(s) of destinations that nobody knows any more"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let (Some(place), false) = (&self.place, lost.is_empty()) {
            self.messages.push(format!("left out of {place}: {}", lost.join(", ")));
        }
    }

    /// Whether there is everything that a former director knew.
    pub(crate) fn are_whole(&self) -> bool {
        self.found.is_some_and(|found| found.is_whole())
    }

    /// What was found in the file of a former director.
    pub(crate) fn found(&self) -> Option<Found> {
        self.found
    }

    /// Where they are kept, as people read it.
    pub(crate) fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// Writes down what the registry's numbers stand for; before any worker has a table with new ones. At the latest each
    /// second, for where schedulers have come to.
    pub(crate) fn keep(&mut self, registry: &Registry, now: Now) {
        let Some(store) = &self.store else { return };
        store.set_seen(now);
        let mut used = vec![false; store.ids_used() as usize];
        let mut failed = None;
        for (id, kept) in registry.kept() {
            if let Some(used) = used.get_mut(id.0 as usize) {
                *used = true;
            }
            failed = failed.or(store.keep(id, &kept).err());
        }
        let gone = (0..).zip(used).filter(|(_, used)| !used);
        gone.for_each(|(id, _)| store.forget(xlvs_dataplane::destination::DestinationId(id)));
        if let Some(error) = failed {
            let message = format!("connections of some destinations will not outlive the director: {error}");
            if !self.messages.contains(&message) {
                tracing::error!("{message}");
                self.messages.push(message);
            }
        }
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which start of the machine this is.
fn boot() -> io::Result<Boot> {
    let text = std::fs::read_to_string(BOOT_ID)?;
    let digits: String = text.trim().chars().filter(|&digit| digit != '-').collect();
    u128::from_str_radix(&digits, 16).map(Boot).map_err(io::Error::other)
}

/// The store in a file that is there.
fn find(path: &Path, boot: Boot, now: Now) -> Result<Option<Store>, Refused> {
    // Without O_NONBLOCK, a FIFO would be waited on.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => {
            return Err(Refused::NotAFile);
        }
        opened => opened?,
    };
    trust(&file)?;
    lock(&file)?;
    Ok(Some(Store::open(file, boot, now)?))
}

/// Whether nobody else can have written a file, or can read it.
fn trust(file: &File) -> Result<(), Refused> {
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(Refused::NotAFile);
    }
    if facts.uid() != 0 && facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refused::Owner { uid: facts.uid() });
    }
    // A file without a name has a mode that nobody can open it by.
    if facts.mode() & 0o077 != 0 && facts.nlink() > 0 {
        return Err(Refused::Mode { mode: facts.mode() & 0o777 });
    }
    Ok(())
}

fn lock(file: &File) -> Result<(), Refused> {
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(Refused::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

fn make(path: &Path, boot: Boot, now: Now) -> io::Result<Store> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    file.try_lock().map_err(io::Error::from)?;
    let store = Store::create(file, boot, now)?;
    std::fs::rename(&new, path)?;
    Ok(store)
}
