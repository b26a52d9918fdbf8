//! What `xlvs status` shows: gathered by the control thread, sent as JSON, printed as text by the client. Names and units
//! of the JSON are an interface that others may rely on.

mod text;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_s: u64,
    /// Counts the service tables that were published.
    pub(crate) epoch: u64,
    pub(crate) interfaces: Vec<InterfaceStatus>,
    pub(crate) services: Vec<ServiceStatus>,
    /// Services that were removed and still have connections.
    #[serde(default)]
    pub(crate) leaving: Vec<LeavingService>,
    /// All services together.
    #[serde(default)]
    pub(crate) rates: RatesStatus,
    /// Settings that have another value than their default.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, u32>,
    pub(crate) connections: ConnectionsStatus,
    /// What other directors are told, and tell.
    #[serde(default)]
    pub(crate) sync: SyncStatus,
    pub(crate) workers: Vec<WorkerStatus>,
    /// Frames not forwarded, by reason; reasons without a frame are left out.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) memory: MemoryStatus,
    #[serde(default)]
    pub(crate) takeover: TakeoverStatus,
}

/// Upgrades in place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TakeoverStatus {
    /// How this director began, if it took over.
    pub(crate) from: Option<TakenOver>,
    /// How often another process began to take over from it and did not come to serve.
    pub(crate) failed: u64,
    /// Why, the last time.
    pub(crate) last_failure: Option<String>,
}

/// Whom a director took over from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TakenOver {
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) at_unix_ms: u64,
    /// For how long nobody forwarded, in milliseconds.
    pub(crate) pause_ms: u64,
}

/// One of the director's interfaces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InterfaceStatus {
    pub(crate) name: String,
    /// `up`, `down` or `missing`; the other facts of one that is missing are its last ones, but for its queues, of which there is
    /// none.
    #[serde(default)]
    pub(crate) state: String,
    /// What is wrong with its steering program.
    #[serde(default)]
    pub(crate) trouble: Option<String>,
    pub(crate) index: u32,
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    pub(crate) driver: String,
    /// `native` or `generic`.
    pub(crate) xdp_mode: String,
    pub(crate) zero_copy: bool,
    pub(crate) queues: u32,
    /// Frames that the steering program gave to a worker, and left to the kernel.
    pub(crate) redirected: u64,
    pub(crate) passed: u64,
}

/// Connections, packets and bytes a second, averaged as the kernel does.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RatesStatus {
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A virtual service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    /// Its name: `tcp 192.0.2.10:80`, `mark 7`, `mark 7 (IPv6)`.
    pub(crate) service: String,
    /// `tcp`, `udp` or `sctp`; protocol, address and port of a mark's service are null.
    pub(crate) protocol: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) mark: Option<u32>,
    /// `ipv4` or `ipv6`.
    pub(crate) family: String,
    pub(crate) scheduler: String,
    #[serde(default)]
    pub(crate) scheduler_flags: Vec<String>,
    pub(crate) persistence: Option<PersistenceStatus>,
    #[serde(default)]
    pub(crate) one_packet: bool,
    /// `finish`, `drop` or `reset`, if it is set.
    pub(crate) drain: Option<String>,
    pub(crate) slow_start_s: Option<u64>,
    /// `file` or `tool`.
    pub(crate) owner: String,
    pub(crate) served: bool,
    /// Why it is not served.
    pub(crate) reason: Option<String>,
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) rates: RatesStatus,
    pub(crate) destinations: Vec<DestinationStatus>,
    /// Destinations that were removed and still have connections.
    #[serde(default)]
    pub(crate) leaving: Vec<DestinationStatus>,
    /// What the weights of its servers must sum to, and do; of services with checks or a sorry server.
    #[serde(default)]
    pub(crate) quorum: Option<QuorumStatus>,
    /// The server that serves alone while the quorum is not reached.
    #[serde(default)]
    pub(crate) sorry_server: Option<DestinationStatus>,
}

/// The quorum of a service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct QuorumStatus {
    pub(crate) needed: u32,
    pub(crate) hysteresis: u32,
    /// What the weights of the servers that are up sum to.
    pub(crate) weights: u64,
    pub(crate) reached: bool,
    /// What follows where it is lost.
    pub(crate) lost: Option<String>,
}

/// What health checks say of a destination.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct HealthStatus {
    /// Since when it is up or down: milliseconds of Unix time, and seconds from then to now.
    pub(crate) since_unix_ms: u64,
    pub(crate) for_s: u64,
    /// Whether a check has had no result yet.
    pub(crate) waiting: bool,
    /// The weight that it is served with, where its checks tell another one than it was given.
    pub(crate) weight: Option<u32>,
    /// Why a check failed last, and when it first did so; also while it is up again.
    pub(crate) last_failure: Option<String>,
    pub(crate) last_failure_unix_ms: Option<u64>,
}

/// How clients keep to their destinations.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PersistenceStatus {
    pub(crate) timeout_s: u64,
    /// Which clients count as one: of an IPv4 service.
    pub(crate) netmask: Option<Ipv4Addr>,
    /// Of an IPv6 service.
    pub(crate) prefix: Option<u8>,
}

/// A removed service that still has connections.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeavingService {
    pub(crate) service: String,
    pub(crate) destinations: Vec<DestinationStatus>,
}

/// A destination.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DestinationStatus {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// As it was given; while slow start runs, its share is less.
    pub(crate) weight: u32,
    #[serde(default)]
    pub(crate) ramping: bool,
    /// `route`; destinations of another method are never picked.
    #[serde(default)]
    pub(crate) forwarding: String,
    /// `present`, or what becomes of its connections: `finishing`, `removed` (their packets are dropped), `ending` (they
    /// are reset, or scheduled anew).
    #[serde(default)]
    pub(crate) standing: String,
    pub(crate) active: u32,
    pub(crate) inactive: u32,
    /// Templates of persistent clients.
    #[serde(default)]
    pub(crate) persistent: u32,
    /// 0 is none.
    #[serde(default)]
    pub(crate) upper_threshold: u32,
    #[serde(default)]
    pub(crate) lower_threshold: u32,
    #[serde(default)]
    pub(crate) overloaded: bool,
    pub(crate) connections: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) rates: RatesStatus,
    pub(crate) interface: Option<String>,
    pub(crate) mac: Option<String>,
    /// `resolved`, `local` (it is this host), `incomplete`, `failed`, `unusable` or `unknown`.
    pub(crate) neighbor: String,
    /// What is wrong with an unusable one.
    pub(crate) reason: Option<String>,
    /// `up`, `down` or `unchecked`.
    #[serde(default)]
    pub(crate) health: String,
    /// Of one that is checked.
    #[serde(default)]
    pub(crate) checks: Option<HealthStatus>,
}

/// The connection table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConnectionsStatus {
    pub(crate) live: u32,
    pub(crate) limit: u32,
    /// Dropped by `drop_entry`, templates included.
    #[serde(default)]
    pub(crate) dropped: u64,
    /// Made to go in a full table, templates included.
    #[serde(default)]
    pub(crate) displaced: u64,
    /// Packets that were sent on without a connection, as there was no room for one.
    #[serde(default)]
    pub(crate) stateless_packets: u64,
    /// How they outlive the director.
    #[serde(default)]
    pub(crate) kept: KeptStatus,
}

/// The file that connections outlive the director in.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct KeptStatus {
    /// Where it is; null if they end with the director.
    pub(crate) place: Option<String>,
    /// Whether those of a former run are still being found.
    pub(crate) restoring: bool,
    /// Connections and templates of the former run that went on; null if there was no file.
    pub(crate) connections: Option<u32>,
    pub(crate) templates: Option<u32>,
    /// Records that were left out.
    pub(crate) lost: u32,
    /// What is wrong, or was at the start.
    pub(crate) messages: Vec<String>,
}

/// Connection synchronisation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SyncStatus {
    /// The daemons that run.
    pub(crate) daemons: Vec<SyncDaemonStatus>,
    /// Messages sent, entries in them, and messages that the kernel did not take.
    pub(crate) sent_messages: u64,
    pub(crate) sent_entries: u64,
    pub(crate) not_sent: u64,
    /// Entries for which there was no room; told later.
    pub(crate) overflows: u64,
    /// Messages received; entries that were new, that were known, and that go elsewhere here and stayed.
    pub(crate) received_messages: u64,
    pub(crate) learned: u64,
    pub(crate) refreshed: u64,
    pub(crate) kept: u64,
    /// How far it is with all of the others' connections; null without a key to ask for them.
    #[serde(default)]
    pub(crate) catch_up: Option<CatchUpStatus>,
    /// Messages and entries that were not used, by reason.
    pub(crate) dropped: BTreeMap<String, u64>,
}

/// Bulk resynchronisation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct CatchUpStatus {
    /// All came and were learned, or no peer has answered.
    pub(crate) ready: bool,
    /// In words.
    pub(crate) progress: String,
    /// Connections and templates that came the last time.
    pub(crate) entries: u64,
}

/// A sync daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SyncDaemonStatus {
    /// `master` or `backup`.
    pub(crate) role: String,
    pub(crate) interface: String,
    pub(crate) id: u8,
    pub(crate) group: IpAddr,
    pub(crate) port: u16,
    pub(crate) ttl: u8,
    /// The longest message, in bytes.
    pub(crate) max_length: usize,
    /// Its messages are authenticated.
    #[serde(default)]
    pub(crate) authenticated: bool,
}

/// A worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    pub(crate) worker: usize,
    pub(crate) core: usize,
    pub(crate) queue: u32,
    pub(crate) received: u64,
    pub(crate) forwarded: u64,
    /// Handed to this host, as the real server that it is.
    #[serde(default)]
    pub(crate) to_host: u64,
    pub(crate) dropped: u64,
    /// ICMP errors sent in answer to dropped frames.
    #[serde(default)]
    pub(crate) answered: u64,
    /// `running`; `stalled`: it does not serve its queue, which is to be opened again; `stopped`: its queue can't be opened.
    #[serde(default)]
    pub(crate) state: String,
    /// What is wrong with one that is not running, for how long that has been known, and why it could not be put right yet.
    #[serde(default)]
    pub(crate) trouble: Option<String>,
    #[serde(default)]
    pub(crate) trouble_ms: u64,
    #[serde(default)]
    pub(crate) failure: Option<String>,
    /// How often its queue was opened again, what for the last time, and how long ago that was.
    #[serde(default)]
    pub(crate) reopened: u32,
    #[serde(default)]
    pub(crate) reopened_for: Option<String>,
    #[serde(default)]
    pub(crate) reopened_s: u64,
}

/// What was sized from the configuration.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemoryStatus {
    /// UMEM and rings of all workers, in bytes.
    pub(crate) umem_and_rings: usize,
}

/// A MAC address as people write it.
pub(crate) fn mac(address: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (at, byte) in address.into_iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if at == 0 { "" } else { ":" });
    }
    text
}
