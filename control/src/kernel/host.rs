//! The device by which the director's own host is given the packets that are for it: a TUN device, which exists as long as the
//! daemon has it open.
//!
//! It takes IP packets, no frames: MAC addresses, VLAN tags and neighbours, which the host would judge a frame by, have done
//! their part when a packet gets here. It has no route, so that nothing is ever sent by it; what the kernel itself sends there
//! waits in the device's queue, where nobody reads it, and is dropped by the kernel beyond that.
//!
//! Names and numbers are of the thread's network namespace.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use tun_rs::{DeviceBuilder, Layer};
use xlvs_dataplane::port::host::HostPort;

/// Its name; the kernel numbers it, from 0.
const NAME: &str = "xlvs%d";
/// IPv4 takes packets by a device without an address only while no rp_filter is set at all. A loopback address on it, which is
/// the host's own anyway, does for that and is no way to anywhere.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 88, 76, 86);
/// Larger than any packet: the device never carries one, and what is handed to it is not measured by this.
const MTU: u16 = u16::MAX;
/// What it needs of its settings, below /proc/sys/net. Packets come in there whose sources are reached by other interfaces,
/// which a strict rp_filter drops; 2, a loose one, wins over an `all/rp_filter` of 1. What is for nobody here is not sent on.
/// It is nobody's link: no link-local address, no router.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("ipv4/conf", "rp_filter", "2"),
    ("ipv4/conf", "forwarding", "0"),
    ("ipv6/conf", "addr_gen_mode", "1"),
    ("ipv6/conf", "accept_ra", "0"),
];

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[error(
    "no TUN device can be had to hand this host its own packets: {source}; the director needs /dev/net/tun (modprobe tun; in a \
     container, the device has to be given to it) and CAP_NET_ADMIN"
)]
pub struct NoHostDevice {
    #[from]
    source: io::Error,
}

/// The device.
#[derive(Debug)]
pub struct HostDevice {
    name: String,
    index: u32,
    port: HostPort,
}

impl HostDevice {
    /// Makes the device. Settings that can't be made come as warnings: packets may still get through.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> Result<(Self, Vec<String>), NoHostDevice> {
        let device = DeviceBuilder::new()
            .name(NAME)
            .layer(Layer::L3)
            .mtu(MTU)
            .ipv4(ADDRESS, 32, None)
            .enable(false)
            .build_sync()?;
        device.set_nonblocking(true)?;
        let (name, index) = (device.name()?, device.if_index()?);
        // Before it is up, so that IPv6 begins with them.
        let warnings =
            SETTINGS.iter().filter_map(|&(kind, key, value)| set(kind, &name, key, value)).collect();
        device.enabled(true)?;
        let port = HostPort::new(device.as_fd().try_clone_to_owned()?);
        Ok((Self { name, index, port }, warnings))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What workers write to.
    #[must_use]
    pub const fn port(&self) -> &HostPort {
        &self.port
    }

    /// Whether it still exists: others may delete it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        let name = socket.and_then(|socket| netdevice::index_to_name(socket, self.index));
        name.is_ok_and(|name| name == self.name)
    }
}

/// Makes a setting; what is wrong if it can't be made. A kernel without IPv6 has none of its own.
fn set(kind: &str, name: &str, key: &str, value: &str) -> Option<String> {
    let file = Path::new("/proc/sys/net").join(kind).join(name).join(key);
    let current = match std::fs::read_to_string(&file) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("{} can't be read: {error}", file.display())),
    };
    if current.trim() == value {
        return None;
    }
    let error = std::fs::write(&file, value).err()?;
    Some(format!("{} is {} and can't be set to {value}: {error}", file.display(), current.trim()))
}
