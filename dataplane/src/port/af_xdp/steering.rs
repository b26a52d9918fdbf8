//! The steering program of one interface, seen from user space: loading it, and its maps. Lives on the control thread.
//!
//! Invariants:
//! - The maps belong to the loaded program and are not pinned: a successor brings its own, filled before it replaces the
//!   program of the pinned link in one step.
//! - A change of the rules adds before it removes, and lets the program's runs that are under way end in between: they may
//!   have looked for the old entry already, or not yet for the new one.
//! - The set of networks that is in force is not touched. Another set is a new generation, entered beside it and then put in
//!   force at once: entries of networks hide each other, so there would be no order in which to change them one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use rustix::io::Errno;
use rustix::thread::MembarrierCommand;

use super::error::AfXdpError;
use super::steering_keys::{
    Generation, NO_NETWORKS, Network, NetworkData, PortKey, RangeData, SteeringKeys, VipKey,
};
use crate::port::steering_rule::SteeringRule;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steering.bpf.o"));
pub(super) const PROGRAM: &str = "xlvs_steering";

/// Flag of a map update, kernel ABI: change the value in place.
const BPF_F_LOCK: u64 = 4;

/// Far longer than the program runs for a frame.
const PROGRAM_LIMIT: Duration = Duration::from_millis(10);

/// The interface whose frames are steered.
#[derive(Clone, Debug)]
pub struct SteeredInterface {
    /// Its name, for messages.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Its MAC address: frames to others are not ours.
    pub mac: [u8; 6],
}

/// What the program has counted since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteeringCounters {
    /// Frames given to a socket.
    pub redirected: u64,
    /// Frames left to the kernel.
    pub passed: u64,
    /// Frames of ours that were dropped because their queue has no socket.
    pub dropped_no_socket: u64,
}

/// What the program does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringVerdict {
    /// It is the kernel's.
    Pass,
    /// It is ours, and goes to the socket of its queue.
    Redirect,
    /// It is ours, and its queue has no socket.
    Drop,
}

/// The steering program of one interface.
pub struct Steering {
    pub(super) interface: SteeredInterface,
    pub(super) program: Ebpf,
    pub(super) link: Option<FdLink>,
    sockets: XskMap<MapData>,
    /// Values are a lock of the kernel's, and the flags.
    vips: HashMap<MapData, VipKey, [u32; 2]>,
    networks: LpmTrie<MapData, NetworkData, Network>,
    networks_in_force: Array<MapData, u32>,
    ports: HashMap<MapData, PortKey, u8>,
    ranges: LpmTrie<MapData, RangeData, u8>,
    interfaces: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    /// What the maps hold, also when a change has failed half-way.
    installed: SteeringKeys,
    /// The generation in force, and the rules that it holds.
    generation: Generation,
    network_rules: BTreeSet<SteeringRule>,
}

impl Steering {
    /// Loads the program, with no rules, and attaches nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses it, or the interface's MAC address can't be set.
    pub fn load(interface: SteeredInterface) -> Result<Self, AfXdpError> {
        let doing = "loading the steering program";
        let mut program = EbpfLoader::new().load(OBJECT).map_err(|error| AfXdpError::bpf(doing, error))?;
        xdp_program(&mut program)?.load().map_err(|error| AfXdpError::bpf(doing, error))?;
        let mut steering = Self {
            sockets: map(&mut program, "xsks")?,
            vips: map(&mut program, "vips")?,
            networks: map(&mut program, "networks")?,
            networks_in_force: map(&mut program, "networks_in_force")?,
            ports: map(&mut program, "ports")?,
            ranges: map(&mut program, "ranges")?,
            interfaces: map(&mut program, "interfaces")?,
            counters: map(&mut program, "counters")?,
            installed: SteeringKeys::default(),
            generation: NO_NETWORKS,
            network_rules: BTreeSet::new(),
            link: None,
            program,
            interface,
        };
        steering.set_mac(steering.interface.mac)?;
        Ok(steering)
    }

    /// The interface.
    #[must_use]
    pub fn interface(&self) -> &SteeredInterface {
        &self.interface
    }

    /// Gives the frames of a queue to a socket, which has to be bound to that queue. When the socket is closed, the
    /// kernel takes it out again by itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn register(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), AfXdpError> {
        self.sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| {
            AfXdpError::bpf(format!("registering the socket of {} queue {queue}", self.interface.name), error)
        })
    }

    /// Gives a queue's frames to nobody from now on, or from a moment later: they are counted as `no_socket`. Nothing changes for a queue
    /// without a socket.
    pub fn unregister(&mut self, queue: u32) {
        // There is no other way to fail than that there is none.
        let _ = self.sockets.unset(queue);
    }

    /// Brings the maps to exactly these rules, while frames come in. Blocks for some milliseconds when it removes ports or
    /// changes networks. After an error they hold old and new rules; a later call repairs that.
    ///
    /// No frame that is served before and after is missed. Runs of the program that find no VIP go on to the networks in
    /// force, so new VIPs are there before these change, and old ones until after that.
    ///
    /// # Errors
    /// When there are too many rules (nothing is changed then), or the kernel refuses.
    pub fn apply(&mut self, rules: &BTreeSet<SteeringRule>) -> Result<(), AfXdpError> {
        let network_rules: BTreeSet<_> = rules.iter().filter(|rule| rule.is_network()).copied().collect();
        let generation = match self.generation {
            current if network_rules == self.network_rules => current,
            _ if network_rules.is_empty() => NO_NETWORKS,
            1 => 2,
            _ => 1,
        };
        let wanted = SteeringKeys::compile(rules, generation)?;

        if generation == self.generation {
            self.add(&wanted)?;
        } else {
            // What an earlier call has left there when it failed must not come into force.
            let left = self.installed.networks_of(generation);
            if !left.is_empty() {
                let_programs_end()?;
                self.remove(&left)?;
            }
            self.add(&wanted)?;
            let_programs_end()?;
            self.networks_in_force.set(0, u32::from(generation), 0).map_err(change_failed)?;
            self.generation = generation;
            self.network_rules = network_rules;
        }
        let mut stale = self.installed.difference(&wanted);
        self.remove_vips(&std::mem::take(&mut stale.vips))?;
        if !stale.is_empty() {
            let_programs_end()?;
            self.remove(&stale)?;
        }
        Ok(())
    }

    /// Adds what is missing, and changes the flags of VIPs: first what new rules look up, then the addresses, that lead
    /// there.
    fn add(&mut self, wanted: &SteeringKeys) -> Result<(), AfXdpError> {
        for key in &wanted.ports {
            if !self.installed.ports.contains(key) {
                self.ports.insert(key, 1, 0).map_err(change_failed)?;
                self.installed.ports.insert(*key);
            }
        }
        for key in &wanted.ranges {
            if !self.installed.ranges.contains(key) {
                self.ranges.insert(&key.key(), 1, 0).map_err(change_failed)?;
                self.installed.ranges.insert(*key);
            }
        }
        for (key, network) in &wanted.networks {
            if self.installed.networks.get(key) != Some(network) {
                self.networks.insert(&key.key(), network, 0).map_err(change_failed)?;
                self.installed.networks.insert(*key, *network);
            }
        }
        for (vip, flags) in &wanted.vips {
            if self.installed.vips.get(vip) != Some(flags) {
                self.vips.insert(vip, [0, *flags], BPF_F_LOCK).map_err(change_failed)?;
                self.installed.vips.insert(*vip, *flags);
            }
        }
        Ok(())
    }

    fn remove_vips(&mut self, vips: &BTreeMap<VipKey, u32>) -> Result<(), AfXdpError> {
        for vip in vips.keys() {
            self.vips.remove(vip).map_err(change_failed)?;
            self.installed.vips.remove(vip);
        }
        Ok(())
    }

    /// Removes networks and ports that no run of the program can come to any more.
    fn remove(&mut self, stale: &SteeringKeys) -> Result<(), AfXdpError> {
        for key in stale.networks.keys() {
            self.networks.remove(&key.key()).map_err(change_failed)?;
            self.installed.networks.remove(key);
        }
        for key in &stale.ports {
            self.ports.remove(key).map_err(change_failed)?;
            self.installed.ports.remove(key);
        }
        for key in &stale.ranges {
            self.ranges.remove(&key.key()).map_err(change_failed)?;
            self.installed.ranges.remove(key);
        }
        Ok(())
    }

    /// Tells the program that the interface has another MAC address now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), AfXdpError> {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&mac);
        self.interfaces.set(0, u64::from_ne_bytes(bytes), 0).map_err(|error| {
            AfXdpError::bpf(format!("setting the MAC address of {}", self.interface.name), error)
        })?;
        self.interface.mac = mac;
        Ok(())
    }

    /// What the program has counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<SteeringCounters, AfXdpError> {
        let read = |index| {
            self.counters
                .get(&index, 0)
                .map(|values| values.iter().sum())
                .map_err(|error| AfXdpError::bpf("reading the steering counters", error))
        };
        Ok(SteeringCounters { redirected: read(0)?, passed: read(1)?, dropped_no_socket: read(2)? })
    }

    /// Asks the kernel to run the program over a frame that came in on queue 0. The frame goes nowhere, but is counted.
    ///
    /// # Errors
    /// When the kernel refuses, as it does for frames shorter than an Ethernet header.
    pub fn explain(&self, frame: &[u8]) -> Result<SteeringVerdict, AfXdpError> {
        let doing = "a test run of the steering program";
        let program: &Xdp = self
            .program
            .program(PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| AfXdpError::failed(doing, "the object holds no such program"))?;
        let run = program
            .test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
            .map_err(|error| AfXdpError::bpf(doing, error))?;
        match run.return_value {
            1 => Ok(SteeringVerdict::Drop),
            2 => Ok(SteeringVerdict::Pass),
            4 => Ok(SteeringVerdict::Redirect),
            action => Err(AfXdpError::failed(doing, format!("it returned the XDP action {action}"))),
        }
    }
}

fn change_failed(error: MapError) -> AfXdpError {
    AfXdpError::bpf("changing the steering rules", error)
}

/// Waits until no program runs that was running when this was called: an RCU grace period, some milliseconds.
fn let_programs_end() -> Result<(), AfXdpError> {
    match rustix::thread::membarrier(MembarrierCommand::Global) {
        Ok(()) => Ok(()),
        // Not there on CPUs that run without a tick (nohz_full). A program run takes microseconds and is not preempted.
        Err(Errno::INVAL | Errno::NOSYS) => {
            thread::sleep(PROGRAM_LIMIT);
            Ok(())
        }
        Err(error) => {
            Err(AfXdpError::failed("waiting for the steering program", std::io::Error::from(error)))
        }
    }
}

pub(super) fn xdp_program(program: &mut Ebpf) -> Result<&mut Xdp, AfXdpError> {
    program
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| AfXdpError::failed("loading the steering program", "the object holds no such program"))
}

fn map<M: TryFrom<aya::maps::Map, Error = MapError>>(
    program: &mut Ebpf,
    name: &str,
) -> Result<M, AfXdpError> {
    let doing = || format!("opening the steering map {name}");
    let map =
        program.take_map(name).ok_or_else(|| AfXdpError::failed(doing(), "the object holds no such map"))?;
    M::try_from(map).map_err(|error| AfXdpError::failed(doing(), error))
}
