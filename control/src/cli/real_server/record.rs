//! What `up` has done in one network namespace: a file in `/run/xlvs`, which does not outlive the boot.
//!
//! Invariants: one process at a time holds a record (a lock on the directory, waited for 10 seconds at most); the file
//! is replaced whole; a record without a VIP has no file. The file's name carries the namespace's cookie, which no other
//! namespace of this boot ever has, because several namespaces share `/run`; the record names the boot. Nothing in it is
//! believed without a look at what it says of: an address that is not on lo is not up, a sysctl that has not our value is
//! not ours.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use xlvs_dataplane::port::af_xdp::namespace::cookie;

use super::sysctl::Former;
use super::{Failure, failed};

/// Where the records are.
pub(super) const DIRECTORY: &str = "/run/xlvs";
/// The version of the file's layout.
const FORMAT: u32 = 1;
/// How often, and how long apart, the lock is tried.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What was done for one VIP.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VipRecord {
    /// The address was not on lo before.
    pub(super) address_added: bool,
    /// The host route was not there before.
    pub(super) route_added: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    boot_id: String,
    former_sysctls: Former,
    vips: BTreeMap<IpAddr, VipRecord>,
}

/// The record of this network namespace, locked as long as it lives.
#[derive(Debug)]
pub(super) struct Record {
    /// The sysctls' values before the first VIP.
    pub(super) sysctls: Former,
    /// The VIPs that are up.
    pub(super) vips: BTreeMap<IpAddr, VipRecord>,
    path: PathBuf,
    boot_id: String,
    _lock: File,
}

/// The number of the network namespace's file: goes to another one when the namespace is gone.
fn inode() -> Result<u64, Failure> {
    let metadata = std::fs::metadata("/proc/self/ns/net")
        .map_err(|error| failed("/proc/self/ns/net can't be read", error))?;
    Ok(metadata.ino())
}

impl Record {
    /// Locks and reads the record; a new one if there is none.
    pub(super) fn open() -> Result<Self, Failure> {
        std::fs::create_dir_all(DIRECTORY)
            .map_err(|error| failed(&format!("{DIRECTORY} can't be made"), error))?;
        let lock = lock(Path::new(DIRECTORY))?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| failed("/proc/sys/kernel/random/boot_id can't be read", error))?
            .trim()
            .to_owned();
        // Kernels before 5.14 have no cookie.
        let namespace = cookie().map_or_else(|_| inode(), Ok)?;
        let path = Path::new(DIRECTORY).join(format!("real-server-{namespace}.json"));
        let mut record = Self { sysctls: Former::new(), vips: BTreeMap::new(), path, boot_id, _lock: lock };
        match std::fs::read(&record.path) {
            Ok(bytes) => {
                let stored: Stored =
                    serde_json::from_slice(&bytes).map_err(|error| record.damaged(&error))?;
                if stored.format != FORMAT {
                    return Err(record.damaged(&format!("found format {}, known: {FORMAT}", stored.format)));
                }
                // One of an earlier boot speaks of a namespace that is gone.
                if stored.boot_id == record.boot_id {
                    record.sysctls = stored.former_sysctls;
                    record.vips = stored.vips;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&format!("{} can't be read", record.path.display()), error)),
        }
        Ok(record)
    }

    /// Whether nothing has been done.
    pub(super) fn is_new(&self) -> bool {
        self.sysctls.is_empty() && self.vips.is_empty()
    }

    /// Replaces the file, whole.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let cannot = |error| failed(&format!("{} can't be written", self.path.display()), error);
        let stored = Stored {
            format: FORMAT,
            boot_id: self.boot_id.clone(),
            former_sysctls: self.sysctls.clone(),
            vips: self.vips.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&stored).map_err(|error| cannot(error.into()))?;
        text.push(b'\n');
        // The lock makes us the only writer of this name.
        let new = self.path.with_extension("json.new");
        File::create(&new)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, &self.path))
            .map_err(cannot)
    }

    /// Removes the file.
    pub(super) fn forget(&mut self) -> Result<(), Failure> {
        self.sysctls.clear();
        self.vips.clear();
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed(&format!("{} can't be removed", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }

    fn damaged(&self, found: &dyn std::fmt::Display) -> Failure {
        Failure::Runtime(format!(
            "{path} is no record of ours: {found}; look at `ip address show lo`, then remove the file",
            path = self.path.display()
        ))
    }
}

fn lock(directory: &Path) -> Result<File, Failure> {
    let cannot = |error| failed(&format!("{} can't be locked", directory.display()), error);
    let file = File::open(directory).map_err(cannot)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
    }
    Err(Failure::Runtime(format!(
        "{} is locked by another `xlvs real-server`; wait for it, or end it",
        directory.display()
    )))
}
