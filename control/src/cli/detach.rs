//! `xlvs detach`: the steering program of a daemon that is gone for good, taken off an interface.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use xlvs_dataplane::port::af_xdp::detach_interface;

use super::Failure;
use crate::config::InterfaceName;

/// Detaches what a daemon left on `interface`; says so if there was nothing.
pub(super) fn detach(interface: &InterfaceName) -> Result<(), Failure> {
    let index = index_of(interface)?;
    let detached = detach_interface(index).map_err(|error| {
        let message = format!("{interface}: the steering program stays: {error}");
        if error.is_missing_privilege() { Failure::Privilege(message) } else { Failure::Runtime(message) }
    })?;
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
