//! Questions on the wire: who answers for an address, and how large a packet reaches a machine.
//!
//! Live traffic never notices: requests for an address are what any host asks, from this host's own address; echo requests
//! go to one machine, with a TTL of 1. Bounds: [`MOST_ADDRESSES`] addresses and [`MOST_MACHINES`] machines on an interface, asked
//! [`TRIES`] times in steps of [`STEP`], [`BURST`] frames at a time; the rest is left out, and said to be.

mod frame;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use frame::{Answer, Asker};
use socket::Wire;

/// The most addresses that are asked for on an interface.
pub(super) const MOST_ADDRESSES: usize = 2000;
/// The most machines that are asked for an echo on an interface.
pub(super) const MOST_MACHINES: usize = 500;
const TRIES: u32 = 2;
/// How long each try is waited for at least.
const STEP: Duration = Duration::from_millis(500);
/// Frames that are sent at a time, with [`PAUSE`] between.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
/// The smallest packet that every path carries.
const SMALL_BYTES: usize = 128;

/// Who asks on an interface.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    /// Own addresses, one of each family, that may be asked from.
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

impl Segment {
    fn asker(&self, wanted: IpAddr) -> Option<Asker> {
        let address = match wanted {
            // Without an own address: as hosts do that look whether one is free.
            IpAddr::V4(_) => IpAddr::V4(self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => IpAddr::V6(self.v6?),
        };
        Some(Asker { mac: self.mac, address })
    }
}

/// Asks on a segment for addresses: the machines that answer for each. An address that can't be asked for is left out.
///
/// # Errors
/// Without CAP_NET_RAW, or when the interface is gone or down.
pub(super) fn claims(
    segment: &Segment,
    addresses: &BTreeSet<IpAddr>,
) -> io::Result<BTreeMap<IpAddr, BTreeSet<[u8; 6]>>> {
    let wire = Wire::open(&segment.name)?;
    let asked = addresses.iter().take(MOST_ADDRESSES);
    let frames: BTreeMap<IpAddr, Vec<u8>> =
        asked.filter_map(|&wanted| Some((wanted, frame::who_has(segment.asker(wanted)?, wanted)?))).collect();
    let mut claims: BTreeMap<IpAddr, BTreeSet<[u8; 6]>> =
        frames.keys().map(|&wanted| (wanted, BTreeSet::new())).collect();
    for _ in 0..TRIES {
        exchange(&wire, frames.values(), |answer| {
            if let Answer::Has { mac, address } = answer
                && let Some(machines) = claims.get_mut(&address)
            {
                machines.insert(mac);
            }
        })?;
    }
    Ok(claims)
}

/// How large a packet reaches a machine and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The whole MTU.
    Whole,
    /// A small packet only.
    SmallOnly,
    /// It answers no echo request at all.
    Silent,
}

/// Sends each machine a small and a large echo request.
///
/// # Errors
/// Without CAP_NET_RAW, or when the interface is gone or down.
pub(super) fn reaches(
    segment: &Segment,
    mtu: u32,
    machines: &BTreeMap<IpAddr, [u8; 6]>,
) -> io::Result<BTreeMap<IpAddr, Reach>> {
    let wire = Wire::open(&segment.name)?;
    let id = std::process::id() as u16;
    let sizes = [SMALL_BYTES, mtu as usize];
    let mut came: BTreeMap<IpAddr, [bool; 2]> = BTreeMap::new();
    let mut frames = Vec::new();
    for (&address, &mac) in machines.iter().take(MOST_MACHINES) {
        let Some(own) = own_address_to(address) else { continue };
        let asker = Asker { mac: segment.mac, address: own };
        for (sequence, bytes) in sizes.into_iter().enumerate() {
            frames.extend(frame::echo(asker, mac, address, (id, sequence as u16), bytes));
        }
        came.insert(address, [false; 2]);
    }
    for _ in 0..TRIES {
        exchange(&wire, frames.iter(), |answer| {
            if let Answer::Echo { from, id: of, sequence } = answer
                && of == id
                && let Some(came) = came.get_mut(&from)
                && let Some(came) = came.get_mut(usize::from(sequence))
            {
                *came = true;
            }
        })?;
    }
    let reach = |came: [bool; 2]| match came {
        [_, true] => Reach::Whole,
        [true, false] => Reach::SmallOnly,
        [false, false] => Reach::Silent,
    };
    Ok(came.into_iter().map(|(address, came)| (address, reach(came))).collect())
}

/// The address that this host speaks to another from.
pub(super) fn own_address_to(server: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing; the port is of no matter.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((server, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Sends frames in bursts and takes in what comes meanwhile, and for a [`STEP`] after the last.
fn exchange<'frame>(
    wire: &Wire,
    frames: impl Iterator<Item = &'frame Vec<u8>>,
    mut take: impl FnMut(Answer),
) -> io::Result<()> {
    let frames: Vec<&Vec<u8>> = frames.collect();
    let mut bursts = frames.chunks(BURST).peekable();
    while let Some(burst) = bursts.next() {
        for frame in burst {
            wire.send(frame)?;
        }
        let deadline = Instant::now() + if bursts.peek().is_some() { PAUSE } else { STEP };
        while let Some(answer) = wire.next(deadline)? {
            take(answer);
        }
    }
    Ok(())
}
