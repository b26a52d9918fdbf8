//! The control thread gives up what it needs no more (`sandbox/`), once everything is open and attached. As root it keeps what
//! root owns, and loses the way past the permissions of files: what that makes unreachable is told at once, not when it is needed.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::Daemon;
use crate::sandbox::{self, Part};

impl Daemon {
    /// The last step of the start.
    pub(super) fn give_up_rights(&self) {
        if !self.configuration.director.sandbox {
            return;
        }
        sandbox::enter(Part::Control);
        if let Some(file) = &self.file {
            tell_unreachable(file, Access::READ_OK, "be read again at SIGHUP");
        }
        let state_dir = &self.configuration.director.state_dir;
        tell_unreachable(
            state_dir,
            Access::WRITE_OK | Access::EXEC_OK,
            "be written, so that what tools change is lost",
        );
    }
}

fn tell_unreachable(path: &Path, access: Access, purpose: &str) {
    if let Err(error) = accessat(CWD, path, access, AtFlags::EACCESS) {
        tracing::warn!(
            "{} can't {purpose}: {error}; the director has given up the right to pass over permissions: let its own user have \
             access, or set director.sandbox = false",
            path.display()
        );
    }
}
