//! The director's configuration: from a TOML file to values that can't be wrong.
//!
//! `text ─ file (keys as written, each checked alone) ─ resolve (defaults, keys against each other) ─ Configuration`
//!
//! Invariants: a [`Configuration`] only comes out of this module, so whoever holds one need not check it again. A file
//! is taken whole or not at all; all its errors are reported together, in the order of its lines. Nothing here looks at
//! the machine: whether an interface exists or has the queues is found out at the start.

pub(crate) mod address;
mod error;
mod file;
mod import;
mod names;
mod resolve;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::destination::Thresholds;
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::overload::SourceRate;
use xlvs_dataplane::service::{Persistence, ServiceKey};
use xlvs_dataplane::settings::Settings;

use crate::health::spec::{HealthSpec, ServerHealthSpec};
pub(crate) use crate::registry::Drain;
use crate::registry::MarkSpec;
use crate::synchronization::spec::{SyncRole, SyncSpec};
use error::Findings;
pub(crate) use error::{ConfigErrors, Finding};
pub(crate) use import::Format;
pub(crate) use import::marks::{MarksFrom, of_director};
pub(crate) use import::{
    Converted, Role, text_to_keepalived_vrrp, text_to_toml, to_keepalived_vrrp, to_toml,
};
pub(crate) use names::{
    ConnectionsFile, FrameSize, GroupName, HashFlags, IdlePolicy, InterfaceName, MarkSource, SchedulerName,
    VipMode, WhenFull, XdpMode,
};

/// Where the daemon listens and its clients call, unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/xlvs/xlvs.sock";
/// Where the daemon keeps what is to survive it, unless told otherwise.
pub(crate) const DEFAULT_STATE_DIR: &str = "/var/lib/xlvs";
/// The most interfaces of one director. With it, the largest rings still find enough frames in the largest UMEM.
pub(crate) const MAX_INTERFACES: usize = 16;
/// The most directors whose messages are listened to by name.
pub(crate) const MAX_SYNC_PEERS: usize = 64;
/// The largest file that is read, in bytes; it holds far more services than a director serves.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Everything a director is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// The director itself: its interfaces, workers and memory.
    pub(crate) director: DirectorConfig,
    /// How long an idle connection is remembered.
    pub(crate) timeouts: Timeouts,
    /// What changes how packets are treated.
    pub(crate) settings: Settings,
    /// Which other directors are told of connections, and listened to.
    pub(crate) sync: SyncConfig,
    /// What puts marks on packets, in the file's order: of all that match a packet, the last one counts.
    pub(crate) marks: Vec<MarkConfig>,
    /// The host's own rules, behind the file's. Nothing here asks the host: the daemon fills them in if `director.marks` says so.
    pub(crate) host_marks: Vec<MarkSpec>,
    /// The virtual services, in the file's order; no two have the same key.
    pub(crate) services: Vec<ServiceConfig>,
    /// What is allowed but hardly meant, a line each, ready to print (`FILE:LINE:COLUMN: …`).
    pub(crate) warnings: Vec<String>,
}

/// Connection synchronisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncConfig {
    /// The daemons that the file starts.
    pub(crate) daemons: BTreeMap<SyncRole, SyncSpec>,
    /// Whose messages count, all if it is empty; and who is asked for all connections.
    pub(crate) peers: BTreeSet<IpAddr>,
    /// The directors' common key, by which they give each other all connections.
    pub(crate) key_file: Option<PathBuf>,
    /// By it, messages of the daemons are authenticated, too; there is one then.
    pub(crate) authenticate: bool,
    /// What that goes by, besides.
    pub(crate) id: u8,
    pub(crate) port: u16,
}

/// The director itself. Most of it is fixed at the start, see [`Configuration::restart_needed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectorConfig {
    /// 1 to [`MAX_INTERFACES`], no two the same.
    pub(crate) interfaces: Vec<InterfaceName>,
    /// Served queues per interface, from 0; `None`: all active receive queues.
    pub(crate) queues: Option<NonZeroU32>,
    /// The core of worker 0, 1, …, no two the same; `None`: spread over the allowed cores.
    pub(crate) cores: Option<Vec<usize>>,
    /// What a worker does without frames.
    pub(crate) idle: IdlePolicy,
    /// How the XDP program is attached.
    pub(crate) xdp_mode: XdpMode,
    /// When a VIP is served, for services that don't say.
    pub(crate) vip: VipMode,
    /// Where mark rules come from.
    pub(crate) marks: MarkSource,
    /// The size of a UMEM frame.
    pub(crate) frame_size: FrameSize,
    /// UMEM frames per worker, a power of two, at least 2 × `ring_size` × interfaces.
    pub(crate) frames: u32,
    /// Descriptors of each ring, a power of two.
    pub(crate) ring_size: u32,
    /// Whether the UMEM is of huge pages.
    pub(crate) huge_pages: bool,
    /// Whether the daemon gives up the rights that it needs no more once it has started, see [`crate::sandbox`].
    pub(crate) sandbox: bool,
    /// The most connections remembered at a time.
    pub(crate) max_connections: u32,
    /// What becomes of new flows when there are so many.
    pub(crate) when_full: WhenFull,
    /// How many connections one source may open; `None`: as many as it likes.
    pub(crate) source_rate: Option<SourceRate>,
    /// The daemon's socket; short enough for a socket's address.
    pub(crate) socket: PathBuf,
    /// Whose users may do on the socket what the daemon's own user may.
    pub(crate) socket_group: Option<GroupName>,
    /// Whose users may ask on the socket, and change nothing.
    pub(crate) socket_read_group: Option<GroupName>,
    /// The directory of what survives the daemon.
    pub(crate) state_dir: PathBuf,
    /// Where connections outlive it.
    pub(crate) connections_file: ConnectionsFile,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceConfig {
    /// Protocol, VIP (a unicast address) and port, or mark. Port 0 only with persistence.
    pub(crate) key: ServiceKey,
    /// How a destination is picked for a new connection.
    pub(crate) scheduler: SchedulerName,
    /// How `sh` and `mh` hash; none is set for others.
    pub(crate) scheduler_flags: HashFlags,
    /// Whether a client keeps to one destination, and how.
    pub(crate) persistence: Option<Persistence>,
    /// Each UDP datagram is scheduled by itself; only for UDP and marks.
    pub(crate) one_packet: bool,
    /// What becomes of the connections of a destination that leaves or fails.
    pub(crate) drain: Option<Drain>,
    /// How long the weight of a destination that comes takes to its full value.
    pub(crate) slow_start: Option<Duration>,
    /// When the VIP is served (the director's `vip`, if the service does not say).
    pub(crate) vip: VipMode,
    /// How its servers are checked, and what follows.
    pub(crate) health: HealthSpec,
    /// The real servers; of the VIP's family, no two the same, none the VIP.
    pub(crate) destinations: Vec<DestinationConfig>,
    /// The line of its `[[service]]`, from 1, for later messages.
    pub(crate) line: u32,
}

/// A rule that puts a mark on packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkConfig {
    /// The transport protocol; `None` is all three.
    pub(crate) protocol: Option<Protocol>,
    /// Where the packet goes; truncated to the network.
    pub(crate) destination: IpNet,
    /// The ports it goes to, first and last, the first not above the last; empty is all of them.
    pub(crate) ports: Vec<(u16, u16)>,
    /// Where it comes from; of the destination's family.
    pub(crate) source: Option<IpNet>,
    /// The interface that it comes in on: one of the director's.
    pub(crate) interface: Option<InterfaceName>,
    /// Its mark.
    pub(crate) mark: NonZeroU32,
    /// The line of its `[[mark]]`, from 1.
    pub(crate) line: u32,
}

/// A real server's entry in one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DestinationConfig {
    /// The real server, a unicast address.
    pub(crate) address: IpAddr,
    /// Its share; 0 is quiesced. At most 2147483647, as the kernel.
    pub(crate) weight: u32,
    /// How many connections it is given, each at most 2147483647; `lower` is not above `upper`.
    pub(crate) thresholds: Thresholds,
    /// How it is checked, where that differs from the service.
    pub(crate) health: ServerHealthSpec,
    /// The line of its `[[service.destination]]`, from 1, for later messages.
    pub(crate) line: u32,
}

/// What the command line says and the file therefore need not; it wins over the file, also at a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Instead of `interface` or `interfaces`, unless empty.
    pub(crate) interfaces: Vec<InterfaceName>,
    /// Instead of `socket`.
    pub(crate) socket: Option<PathBuf>,
    /// Instead of `socket_group`.
    pub(crate) socket_group: Option<GroupName>,
    /// Instead of `socket_read_group`.
    pub(crate) socket_read_group: Option<GroupName>,
    /// Instead of `state_dir`.
    pub(crate) state_dir: Option<PathBuf>,
    /// Instead of `connections_file`.
    pub(crate) connections_file: Option<ConnectionsFile>,
    /// Instead of `marks`.
    pub(crate) marks: Option<MarksFrom>,
    /// What conditions in keepalived.conf are compared with.
    pub(crate) config_id: String,
}

/// Reads a file, of xlvs's own format or Piranha's, and what the command line names besides.
///
/// # Errors
/// When one can't be read or is wrong; all that is wrong with it is reported.
pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Configuration, ConfigErrors> {
    let (name, text, format) = read_file(path)?;
    let mut configuration = match format {
        Format::Toml => parse(&name, &text, overrides)?,
        Format::LvsCf => import::lvs_cf(&name, &text, overrides)?,
        Format::Keepalived => {
            let message = "is keepalived's: let keepalived itself drive the director (xlvs wrap -- keepalived -n -l), or \
                           convert its virtual servers (xlvs convert FILE --to toml)";
            return Err(ConfigErrors::of_file(&name, message.to_owned()));
        }
    };
    import::marks::add(&name, overrides.marks.as_ref(), &mut configuration)?;
    Ok(configuration)
}

/// Reads a file of any format that is known, to tell what is wrong with it.
///
/// # Errors
/// As [`load`], but for what only another program or a conversion can use.
pub(crate) fn check(path: &Path, overrides: &Overrides) -> Result<Configuration, ConfigErrors> {
    match read_file(path)? {
        (name, text, Format::Keepalived) => import::keepalived(&name, path, &text, overrides),
        _ => load(path, overrides),
    }
}

/// The name, text and format of a file.
fn read_file(path: &Path) -> Result<(String, String, Format), ConfigErrors> {
    let name = path.display().to_string();
    let text = String::from_utf8(read_bytes(path)?);
    let lossy = text
        .as_ref()
        .map_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned(), Clone::clone);
    let format = Format::of(path, &lossy);
    match text {
        // Comments of older formats may be in older encodings.
        Err(error) if format == Format::Toml => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            let message = format!("is no text: line {line} has bytes that are not UTF-8, as TOML has to be");
            Err(ConfigErrors::of_file(&name, message))
        }
        _ => Ok((name, lossy, format)),
    }
}

/// The bytes of a file, unless they are too many.
fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigErrors> {
    let unreadable = |message: String| ConfigErrors::of_file(&path.display().to_string(), message);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(format!(
            "is larger than {} MiB, the most that is read",
            MAX_FILE_BYTES >> 20
        )));
    }
    Ok(bytes)
}

/// Reads the text of a file called `name` in messages.
///
/// # Errors
/// When it is wrong; all that is wrong is reported.
pub(crate) fn parse(name: &str, text: &str, overrides: &Overrides) -> Result<Configuration, ConfigErrors> {
    let (configuration, findings) = read(text, overrides);
    findings.finish(name, configuration)
}

/// Reads a text; what is wrong in it is in the findings.
fn read(text: &str, overrides: &Overrides) -> (Configuration, Findings) {
    let (raw, mut findings) = file::read(text);
    let configuration = resolve::resolve(&raw, overrides, &mut findings);
    (configuration, findings)
}

impl Configuration {
    /// The configuration without a file: defaults, and no service.
    ///
    /// # Errors
    /// When the interfaces are none, too many, or one is named twice.
    pub(crate) fn for_interfaces(overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let mut configuration = parse("command line", "", overrides)?;
        import::marks::add("command line", overrides.marks.as_ref(), &mut configuration)?;
        Ok(configuration)
    }

    /// The keys of `[director]` that differ in `new` and take effect only at the next start. All else (services,
    /// destinations, marks, timeouts, settings, `vip`, `marks`, `when_full`, `new_per_source`) can change while frames flow.
    #[must_use]
    pub(crate) fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        let (old, new) = (&self.director, &new.director);
        [
            ("interfaces", old.interfaces != new.interfaces),
            ("queues", old.queues != new.queues),
            ("cores", old.cores != new.cores),
            ("idle", old.idle != new.idle),
            ("xdp_mode", old.xdp_mode != new.xdp_mode),
            ("frame_size", old.frame_size != new.frame_size),
            ("frames", old.frames != new.frames),
            ("ring_size", old.ring_size != new.ring_size),
            ("huge_pages", old.huge_pages != new.huge_pages),
            ("sandbox", old.sandbox != new.sandbox),
            ("max_connections", old.max_connections != new.max_connections),
            ("socket", old.socket != new.socket),
            ("socket_group", old.socket_group != new.socket_group),
            ("socket_read_group", old.socket_read_group != new.socket_read_group),
            ("state_dir", old.state_dir != new.state_dir),
            ("connections_file", old.connections_file != new.connections_file),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}
