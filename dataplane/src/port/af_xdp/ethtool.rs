//! What only the ethtool ioctl tells of an interface: its driver, its active queues, and the offloads that hide or
//! change frames before XDP sees them. A leaf: it knows interface names and nothing of sockets, rings or programs.
//!
//! The old ioctl rather than ethtool's netlink family: only the ioctl names the driver, every kernel with AF_XDP has it,
//! and it needs no privilege. All questions are about the network namespace of the thread that called [`Device::open`].
//! Cost: one system call each; never on the way of a frame.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const FLAG_RX_VLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// An interface, by its name, that can be asked.
#[derive(Debug)]
pub struct Device {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

/// Numbers of queues that are active now, and that the device could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Active receive queues. As the kernel counts them for AF_XDP: those that only receive, and the combined ones.
    pub rx: u32,
    /// Receive queues after `ethtool -L` to the device's limit.
    pub rx_limit: u32,
}

/// Offloads that matter to a director; `None` where the driver does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Checksums of sent frames are left to the device.
    pub tx_checksum: Option<bool>,
    /// The kernel merges received TCP segments.
    pub gro: Option<bool>,
    /// The device merges received TCP segments.
    pub lro: Option<bool>,
    /// The device strips VLAN tags from received frames.
    pub rx_vlan: Option<bool>,
}

/// A structure of linux/ethtool.h that an ethtool command reads and fills.
///
/// # Safety
/// The type is `repr(C)`, has no padding, begins with the command's `u32`, is valid for every bit pattern, and is as large
/// as what the kernel copies for that command.
unsafe trait Question {}

#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// version and fw_version.
    versions: [u8; 2 * 32],
    bus_info: [u8; 32],
    /// erom_version, reserved2 and five counters.
    rest: [u8; 32 + 12 + 5 * 4],
}

#[repr(C)]
#[derive(Default)]
struct ChannelInfo {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: struct ethtool_drvinfo: 196 bytes, u32 and bytes only (checked below).
unsafe impl Question for DriverInfo {}
// SAFETY: struct ethtool_channels: nine u32 (checked below).
unsafe impl Question for ChannelInfo {}
// SAFETY: struct ethtool_value: two u32, for all commands that `Device::value` is called with.
unsafe impl Question for Value {}

const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<ChannelInfo>() == 36);
const _: () = assert!(size_of::<Value>() == 8);

impl Device {
    /// Prepares questions about `interface`; whether it exists shows only in the answers (`ENODEV`).
    pub fn open(interface: &str) -> io::Result<Self> {
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || interface.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{interface:?} can't be an interface name: 1 to 15 bytes without NUL are allowed"),
            ));
        }
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, name })
    }

    /// The driver's name: `veth`, `virtio_net`, `ixgbe`, …
    pub fn driver(&self) -> io::Result<String> {
        Ok(text(&self.driver_info()?.driver))
    }

    /// Where it is on its bus: `0000:00:03.0`; empty for virtual interfaces.
    pub fn bus_info(&self) -> io::Result<String> {
        Ok(text(&self.driver_info()?.bus_info))
    }

    /// The queues. `Unsupported` where the driver has no notion of them.
    pub fn channels(&self) -> io::Result<Channels> {
        let mut info = ChannelInfo { command: ETHTOOL_GCHANNELS, ..ChannelInfo::default() };
        self.ask(&mut info)?;
        Ok(Channels {
            rx: info.rx.saturating_add(info.combined),
            rx_limit: info.max_rx.saturating_add(info.max_combined),
        })
    }

    /// The offloads, as far as the driver tells.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        let flags = self.value(ETHTOOL_GFLAGS).ok();
        let flag = |bit: u32| flags.map(|flags| flags & bit != 0);
        let boolean = |command: u32| self.value(command).ok().map(|value| value != 0);
        Offloads {
            tx_checksum: boolean(ETHTOOL_GTXCSUM),
            gro: boolean(ETHTOOL_GGRO),
            lro: flag(FLAG_LRO),
            rx_vlan: flag(FLAG_RX_VLAN),
        }
    }

    fn driver_info(&self) -> io::Result<DriverInfo> {
        let mut info = DriverInfo {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            versions: [0; 2 * 32],
            bus_info: [0; 32],
            rest: [0; 32 + 12 + 5 * 4],
        };
        self.ask(&mut info)?;
        Ok(info)
    }

    fn value(&self, command: u32) -> io::Result<u32> {
        let mut value = Value { command, data: 0 };
        self.ask(&mut value)?;
        Ok(value.data)
    }

    fn ask<Q: Question>(&self, question: &mut Q) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(question).cast() },
        };
        // SAFETY: `request` is a valid ifreq for the whole call, and its ifru_data points to a live, exclusively borrowed
        // structure of the size the kernel writes for its command (the contract of `Question`).
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                SIOCETHTOOL as libc::Ioctl,
                std::ptr::from_mut::<libc::ifreq>(&mut request),
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Device;

    #[test]
    fn a_name_that_cannot_be_an_interface_is_refused() {
        for name in ["", "a-name-of-16-char", "nul\0"] {
            let error = Device::open(name).unwrap_err().to_string();
            assert!(error.contains("1 to 15 bytes"), "{name:?}: {error}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_enodev() {
        let device = Device::open("xlvs-nowhere").unwrap();
        for error in [device.driver().unwrap_err(), device.channels().unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
        }
        assert_eq!(device.offloads(), super::Offloads::default());
    }
}
