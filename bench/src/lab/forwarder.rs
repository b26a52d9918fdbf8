//! What forwards in the lab. A forwarder runs from the moment it is made; [`Forwarder::finish`] stops it and says whether it has
//! done what was to be measured. Dropped early, it leaves nothing on the interfaces either.

use std::str::FromStr;

use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::port::af_xdp::{AfXdpPort, PortConfig, PortInterface};
use xlvs_dataplane::worker::IdlePolicy;

use super::{BACK, FRONT, Lab, MTU};

/// Memory of a worker's port: the daemon's defaults.
const FRAME_SIZE: u32 = 4096;
const FRAMES: u32 = 8192;
const RING_SIZE: u32 = 2048;

/// A running forwarder.
pub(crate) trait Forwarder {
    /// Its threads, as the kernel numbers them.
    fn threads(&self) -> &[u32] {
        &[]
    }

    /// Stops it.
    ///
    /// # Errors
    /// When frames did not take the way that was to be measured.
    fn finish(self: Box<Self>) -> Result<(), String>;
}

/// How many interfaces a forwarder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arms {
    /// Frames leave where they came in.
    One,
    /// Frames leave by another interface.
    Two,
}

impl Arms {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }

    /// Where frames leave.
    pub(crate) const fn egress(self) -> InterfaceSlot {
        match self {
            Self::One => InterfaceSlot(0),
            Self::Two => InterfaceSlot(1),
        }
    }

    /// The interfaces, by slot.
    pub(super) const fn interfaces(self) -> &'static [&'static str] {
        match self {
            Self::One => &[FRONT],
            Self::Two => &[FRONT, BACK],
        }
    }
}

impl FromStr for Arms {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::One, Self::Two].into_iter().find(|arms| arms.name() == name).ok_or("expected one or two")
    }
}

/// What a forwarder in user space does when nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle(pub(crate) IdlePolicy);

impl FromStr for Idle {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let policy =
            [IdlePolicy::Busy, IdlePolicy::Adaptive].into_iter().find(|policy| policy.name() == name);
        policy.map(Self).ok_or("expected busy or adaptive")
    }
}

/// A port for each queue, by queue. To be called inside the director's namespace.
pub(super) fn open_ports(lab: &Lab, arms: Arms) -> Result<Vec<AfXdpPort>, String> {
    let interface = |name: &&str| PortInterface { name: (*name).to_owned(), queues: lab.queues, mtu: MTU };
    let open = |queue| {
        AfXdpPort::open(&PortConfig {
            interfaces: arms.interfaces().iter().map(interface).collect(),
            queue,
            frame_size: FRAME_SIZE,
            frames: FRAMES,
            ring_size: RING_SIZE,
            huge_pages: false,
        })
    };
    (0..lab.queues).map(|queue| open(queue).map_err(|error| error.to_string())).collect()
}
