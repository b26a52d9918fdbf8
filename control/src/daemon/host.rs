//! The way to the director's own host: opened when the first destination is one of the host's own addresses, and kept until the end.

use super::Daemon;
use crate::kernel::{HostDevice, NeighborState};
use crate::registry::Way;

/// The daemon's end of it.
#[derive(Debug, Default)]
pub(super) struct HostPath {
    device: Option<HostDevice>,
    /// Why there is none, as it was told last.
    failure: Option<String>,
}

impl HostPath {
    pub(super) const fn device(&self) -> Option<&HostDevice> {
        self.device.as_ref()
    }

    /// Why there is no device although one is needed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The way of a destination that is the host.
    pub(super) const fn way(&self) -> Way {
        match self.device {
            Some(_) => Way::Host,
            None => Way::Unknown,
        }
    }

    /// Opens it, if it is not; whether it is new.
    fn open(&mut self) -> bool {
        if self.device.is_some() {
            return false;
        }
        match HostDevice::open() {
            Ok((device, warnings)) => {
                let name = device.name();
                tracing::info!("destinations that are this host get their packets by {name}");
                for warning in warnings {
                    tracing::warn!("{name}: {warning}; this host may drop what comes by {name}");
                }
                (self.device, self.failure) = (Some(device), None);
                true
            }
            Err(error) => {
                let failure = error.to_string();
                if self.failure.as_ref() != Some(&failure) {
                    tracing::error!("{failure}");
                }
                self.failure = Some(failure);
                false
            }
        }
    }
}

impl Daemon {
    /// Before a publication: opens the way to the host if a destination is there.
    pub(super) fn open_host_path(&mut self) {
        if self.host.device.is_none() && self.kernel.any_neighbor(&NeighborState::Local) {
            self.host.open();
        }
    }

    /// Once a second: makes a device anew that somebody deleted, and tries again where none could be had.
    pub(super) fn keep_host_path(&mut self) {
        if let Some(gone) = self.host.device.take_if(|device| !device.is_there()) {
            tracing::error!("{} was deleted: packets for this host were lost; it is made anew", gone.name());
            self.dirty = true;
            self.host.open();
        } else if self.host.failure.is_some() {
            self.dirty |= self.host.open();
        }
    }
}
