//! Where the steering program's link lives while no xlvs runs: pinned in bpffs. One directory for each interface of each
//! network namespace, holding a file named after the XDP mode of the link:
//! `/sys/fs/bpf/xlvs/v1-<inode of the network namespace>-<index of the interface>/native`.
//!
//! `v1` is the layout of this directory; it changes when an older xlvs could not make sense of a newer one's pins.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::attach::XdpMode;
use super::bpf_link::BpfLink;
use super::error::AfXdpError;

const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
const OURS: &str = "/sys/fs/bpf/xlvs";

/// The pins of one interface.
pub(super) struct PinDirectory {
    path: PathBuf,
}

impl PinDirectory {
    /// The directory for an interface of the calling thread's network namespace. Touches nothing.
    pub(super) fn of_interface(index: u32) -> Result<Self, AfXdpError> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")
            .map_err(|error| AfXdpError::failed("looking up the network namespace in /proc", error))?
            .ino();
        Ok(Self { path: Path::new(OURS).join(format!("v1-{namespace}-{index}")) })
    }

    /// Mounts bpffs if it is missing, and makes the directory, for us alone.
    pub(super) fn create(&self) -> Result<(), AfXdpError> {
        mount_bpffs()?;
        for path in [Path::new(OURS), &self.path] {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(unusable(path, error.to_string()));
                }
                _ => {}
            }
            let found = fs::symlink_metadata(path).map_err(|error| unusable(path, error.to_string()))?;
            let ours = found.is_dir()
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.permissions().mode() & 0o022 == 0;
            if !ours {
                return Err(unusable(
                    path,
                    "it is no directory that only this user can write; remove it".to_owned(),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn link_path(&self, mode: XdpMode) -> PathBuf {
        self.path.join(mode.name())
    }

    /// The pinned link of this mode, if there is one.
    pub(super) fn find(&self, mode: XdpMode) -> Result<Option<BpfLink>, AfXdpError> {
        let path = self.link_path(mode);
        match BpfLink::open(&c_path(&path)) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // A path outside bpffs: nothing was pinned, and the parent is no bpffs.
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => Ok(None),
            Err(error) => Err(AfXdpError::bpf(format!("opening the pinned link {}", path.display()), error)),
        }
    }

    /// Removes the pin of this mode; that there is none is fine.
    pub(super) fn remove(&self, mode: XdpMode) -> Result<(), AfXdpError> {
        let path = self.link_path(mode);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(AfXdpError::failed(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directory, if it is empty. The next start makes it anew, so that a failure does not matter.
    pub(super) fn tidy(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn unusable(path: &Path, reason: String) -> AfXdpError {
    AfXdpError::PinDirectory { path: path.display().to_string(), reason }
}

fn c_path(path: &Path) -> CString {
    // Our paths are built from constants and numbers, so they hold no zero byte; the empty path opens nothing.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn mount_bpffs() -> Result<(), AfXdpError> {
    let is_bpffs = || {
        rustix::fs::statfs(BPFFS)
            .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|t| t == BPFFS_MAGIC))
    };
    if is_bpffs() {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    match rustix::mount::mount("bpf", BPFFS, "bpf", flags, Some(c"mode=0700")) {
        Ok(()) => Ok(()),
        // Another director may have been quicker.
        Err(_) if is_bpffs() => Ok(()),
        Err(error) => Err(unusable(
            Path::new(BPFFS),
            format!(
                "no bpffs is mounted there, and mounting it fails ({error}); try `mount -t bpf bpf {BPFFS}` as root"
            ),
        )),
    }
}
