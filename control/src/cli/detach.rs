//! `xlvs detach`: the steering program of a daemon that is gone for good, taken off an interface.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::Failure;
use crate::config::InterfaceName;

/// Detaches what a daemon left on `interface`; says so if there was nothing.
pub(super) fn detach(interface: &InterfaceName) -> Result<(), Failure> {
    let index = index_of(interface)?;
    let detached = detach_index(index)
        .map_err(|error| Failure::Runtime(format!("{interface}: the steering program stays: {error}")))?;
    super::print(if detached {
        format!("{interface}: detached\n")
    } else {
        format!("{interface}: nothing of xlvs is attached\n")
    })
}

/// The kernel's index of an interface of this network namespace.
fn index_of(interface: &InterfaceName) -> Result<u32, Failure> {
    let failed = |error: Errno| Failure::Runtime(format!("{interface}: its index can't be found: {error}"));
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(failed)?;
    netdevice::name_to_index(&any, interface.as_str()).map_err(|error| match error {
        Errno::NODEV => Failure::Runtime(format!(
            "{interface}: no such interface in this network namespace; `ip link` lists them"
        )),
        error => failed(error),
    })
}

/// Takes the steering program off; false if there was none.
fn detach_index(_index: u32) -> Result<bool, std::io::Error> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}
