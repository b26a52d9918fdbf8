//! What the file says, key by key: each is read into a type that can't hold a wrong value, or reported.
//!
//! Keys that no longer mean anything here (how Piranha's programs talked to one another) are known and read past; those that
//! would mean something that the director can't do are refused.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use xlvs_dataplane::flow::Protocol;

use super::keys::{ADDRESS, Keys, Refused, bare, ipv4};
use super::tree::{Block, Kind};
use crate::config::error::Position;
use crate::config::file::{At, Raw};
use crate::config::names::{InterfaceName, SchedulerName};
use crate::config::source::{Source, plain};

/// The longest time of a key, in seconds: 31 days, as the kernel's timeouts.
const LONGEST_S: u32 = 2_678_400;
/// The longest time between two checks, in seconds.
const SLOWEST_CHECK_S: u32 = 3600;

/// The whole file.
#[derive(Debug)]
pub(in crate::config::import) struct LvsCf {
    pub(super) pair: Pair,
    /// `tcp_timeout`, `tcpfin_timeout` and `udp_timeout`; 0 leaves one as it is.
    pub(super) timeouts: [Raw<u32>; 3],
    pub(super) virtuals: Vec<Virtual>,
}

/// Two directors that back each other up.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) primary: Raw<Ipv4Addr>,
    pub(super) backup: Raw<Ipv4Addr>,
    pub(super) private: [Raw<Ipv4Addr>; 2],
    pub(super) backup_active: Raw<bool>,
    pub(super) heartbeat: Raw<bool>,
    pub(super) deadtime: Raw<u32>,
    /// Commands of a director that becomes active, and of one that becomes inactive.
    pub(super) commands: [Raw<String>; 2],
}

/// A virtual server.
#[derive(Debug)]
pub(super) struct Virtual {
    pub(super) name: String,
    pub(super) at: Position,
    pub(super) active: bool,
    pub(super) address: Raw<VirtualAddress>,
    /// The VIP's prefix length.
    pub(super) netmask: Raw<u8>,
    /// 0 is none.
    pub(super) fwmark: Raw<u32>,
    pub(super) port: Raw<u16>,
    pub(super) protocol: Raw<Protocol>,
    pub(super) scheduler: Raw<SchedulerName>,
    /// In seconds; 0 is not persistent.
    pub(super) persistent: Raw<u32>,
    pub(super) pmask: Raw<Ipv4Addr>,
    pub(super) check: CheckKeys,
    pub(super) quiesce_server: Raw<bool>,
    pub(super) sorry_server: Raw<SorryServer>,
    pub(super) servers: Vec<Server>,
}

/// How nanny finds out whether a server of a virtual server works.
#[derive(Debug)]
pub(super) struct CheckKeys {
    /// In seconds.
    pub(super) timeout: Raw<u32>,
    /// In seconds.
    pub(super) reentry: Raw<u32>,
    pub(super) send: Raw<String>,
    pub(super) expect: Raw<String>,
    pub(super) use_regex: Raw<bool>,
    pub(super) send_program: Raw<String>,
}

/// `VIP dev:alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VirtualAddress {
    pub(super) vip: Ipv4Addr,
    pub(super) device: InterfaceName,
    /// The label of the address, `dev:alias`, if it has one.
    pub(super) label: Option<String>,
}

/// `address` or `address:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SorryServer {
    pub(super) address: Ipv4Addr,
    pub(super) port: Option<u16>,
}

/// A real server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) at: Position,
    pub(super) active: bool,
    pub(super) address: Raw<Ipv4Addr>,
    pub(super) port: Raw<u16>,
    pub(super) weight: Raw<u32>,
}

impl Virtual {
    /// The mark, if it has one.
    pub(super) fn mark(&self) -> Option<NonZeroU32> {
        self.fwmark.get().and_then(|mark| NonZeroU32::new(mark.value))
    }
}

impl LvsCf {
    /// The virtual servers that are served.
    pub(super) fn active(&self) -> impl Iterator<Item = &Virtual> {
        self.virtuals.iter().filter(|its| its.active)
    }
}

/// Reads the file's blocks.
pub(super) fn read(source: &mut Source<'_>, root: &Block<'_>) -> LvsCf {
    let mut keys = Keys::new(root);
    keys.number(source, "serial_no", 0..=u32::MAX);
    let pair = pair(source, &mut keys);
    kind(source, root, &mut keys);
    synchronisation(source, &mut keys);
    let timeouts =
        ["tcp_timeout", "tcpfin_timeout", "udp_timeout"].map(|key| keys.number(source, key, 0..=LONGEST_S));
    for key in ["nat_router", "nat_nmask"] {
        if let Some(at) = keys.any(source, key).at() {
            let message =
                "found, which has no effect with network = direct: real servers answer by themselves";
            source.findings.warning(at, key, message.to_owned());
        }
    }
    for key in [
        "debug_level",
        "rsh_command",
        "sync",
        "ipvsadm",
        "reservation_conflict_action",
        "primary_shared",
        "backup_shared",
    ] {
        keys.any(source, key);
    }
    keys.finish(source);
    let mut virtuals = Vec::with_capacity(root.blocks.len());
    for block in &root.blocks {
        match block.kind {
            Kind::Virtual => virtuals.push(virtual_server(source, block)),
            Kind::Failover => {
                let message = format!(
                    "found the failover service {}, allowed: virtual servers; let keepalived or systemd start it",
                    plain(block.name)
                );
                source.findings.error(block.at, "failover", message);
            }
            // The shape's reading has told them.
            Kind::Server | Kind::Global | Kind::Unknown => {}
        }
    }
    LvsCf { pair, timeouts, virtuals }
}

fn pair(source: &mut Source<'_>, keys: &mut Keys<'_, '_>) -> Pair {
    let pair = Pair {
        primary: keys.address(source, "primary"),
        backup: keys.address(source, "backup"),
        private: ["primary_private", "backup_private"].map(|key| keys.address(source, key)),
        backup_active: keys.flag(source, "backup_active"),
        heartbeat: keys.flag(source, "heartbeat"),
        deadtime: keys.number(source, "deadtime", 1..=LONGEST_S),
        commands: ["active_cmd", "inactive_cmd"].map(|key| keys.line(source, key)),
    };
    keys.number(source, "heartbeat_port", 1..=u16::MAX);
    // How often is told by the dead time alone; VRRP watches the links of its interfaces by itself.
    keys.number(source, "keepalive", 1..=LONGEST_S);
    for key in ["hard_shutdown", "monitor_links"] {
        keys.flag(source, key);
    }
    if let (Raw::Is(At { value: true, at }), Raw::Absent) = (&pair.backup_active, &pair.backup) {
        let message = "found 1 without backup, allowed: only with the address of the other director";
        source.findings.missing(*at, "backup_active", message.to_owned());
    }
    pair
}

/// What kind of cluster it is: direct routing, by LVS.
fn kind(source: &mut Source<'_>, root: &Block<'_>, keys: &mut Keys<'_, '_>) {
    keys.read(source, "service", "lvs", |value| match bare(value) {
        "lvs" => Ok(()),
        "fos" => {
            Err(Some("failover services are not the director's: let keepalived or systemd start them".into()))
        }
        _ => Err(None),
    });
    const NETWORK: &str = "direct: the director only does direct routing, for which each real server has the VIP on lo (xlvs real-server up VIP)";
    let network = keys.read(source, "network", NETWORK, |value| match bare(value) {
        "direct" => Ok(()),
        "nat" => Err(Some("address translation".to_owned())),
        "tunnel" => Err(Some("IP in IP".to_owned())),
        _ => Err(None),
    });
    if let Raw::Absent = network {
        let message = format!("found nothing, which means nat, allowed: {NETWORK}");
        source.findings.missing(root.at, "network", message);
    }
}

/// The synchronisation of connections with the other director.
fn synchronisation(source: &mut Source<'_>, keys: &mut Keys<'_, '_>) {
    const ALLOWED: &str = "0";
    keys.read(source, "syncdaemon", ALLOWED, |value| match bare(value) {
        "0" => Ok(()),
        "1" => Err(Some(
            "connections are not synchronised with another director: after a takeover clients open new ones"
                .into(),
        )),
        _ => Err(None),
    });
    keys.read(source, "syncd_iface", InterfaceName::ALLOWED, |value| {
        bare(value).parse::<InterfaceName>().map_err(|_| None)
    });
    keys.number(source, "syncd_id", 0..=u8::MAX);
}

fn virtual_server(source: &mut Source<'_>, block: &Block<'_>) -> Virtual {
    let mut keys = Keys::new(block);
    let active = active(source, &mut keys, block);
    let address =
        keys.read(source, "address", "VIP DEVICE:ALIAS, such as 192.0.2.10 eth0:1", virtual_address);
    if let Raw::Absent = address {
        let message = "found nothing, allowed: VIP DEVICE:ALIAS, such as 192.0.2.10 eth0:1";
        source.findings.missing(block.at, "virtual.address", message.to_owned());
    }
    let mut read = Virtual {
        name: block.name.to_owned(),
        at: block.at,
        active,
        address,
        netmask: keys.netmask(source, "vip_nmask"),
        fwmark: keys.number(source, "fwmark", 0..=u32::MAX),
        port: keys.number(source, "port", 1..=u16::MAX),
        protocol: keys.read(source, "protocol", "tcp or udp", |value| match bare(value) {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            _ => Err(None),
        }),
        scheduler: keys.choice(source, "scheduler"),
        persistent: keys.number(source, "persistent", 0..=LONGEST_S),
        pmask: keys.read(source, "pmask", "a netmask such as 255.255.255.0", |value| {
            bare(value).parse().map_err(|_| None)
        }),
        check: CheckKeys {
            timeout: keys.number(source, "timeout", 1..=SLOWEST_CHECK_S),
            reentry: keys.number(source, "reentry", 0..=LONGEST_S),
            send: keys.text(source, "send"),
            expect: keys.text(source, "expect"),
            use_regex: keys.flag(source, "use_regex"),
            send_program: keys.text(source, "send_program"),
        },
        quiesce_server: keys.flag(source, "quiesce_server"),
        sorry_server: keys.read(
            source,
            "sorry_server",
            "a unicast IPv4 address, or ADDRESS:PORT",
            sorry_server,
        ),
        servers: Vec::with_capacity(block.blocks.len()),
    };
    load_monitor(source, &mut keys);
    keys.finish(source);
    for block in block.blocks.iter().filter(|block| block.kind == Kind::Server) {
        read.servers.push(server(source, block));
    }
    read
}

fn active(source: &mut Source<'_>, keys: &mut Keys<'_, '_>, block: &Block<'_>) -> bool {
    let active = keys.flag(source, "active");
    if let Raw::Absent = active {
        let key = format!("{}.active", block.kind.word());
        source.findings.warning(block.at, key, "found nothing, which is taken for 1".to_owned());
    }
    active.or(true)
}

/// `VIP dev:alias`.
fn virtual_address(value: &str) -> Result<VirtualAddress, Refused> {
    let mut words = bare(value).split_whitespace();
    let (Some(vip), Some(label), None) = (words.next(), words.next(), words.next()) else {
        return Err(None);
    };
    let vip = ipv4(vip)?;
    let (device, alias) =
        label.split_once(':').map_or((label, None), |(device, alias)| (device, Some(alias)));
    let device = device.parse().map_err(|_| Some(format!("the device is not {}", InterfaceName::ALLOWED)))?;
    // The kernel's IFNAMSIZ holds the label too.
    let is_label = |alias: &str| {
        label.len() <= 15 && !alias.is_empty() && alias.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    match alias {
        Some(alias) if !is_label(alias) => {
            Err(Some("the label DEVICE:ALIAS has 15 letters and digits at most".to_owned()))
        }
        alias => Ok(VirtualAddress { vip, device, label: alias.map(|_| label.to_owned()) }),
    }
}

fn sorry_server(value: &str) -> Result<SorryServer, Refused> {
    let value = bare(value);
    let Some((address, port)) = value.split_once([':', ' ']) else {
        return Ok(SorryServer { address: ipv4(value)?, port: None });
    };
    let port = port.trim().parse().ok().filter(|port| *port > 0);
    Ok(SorryServer { address: ipv4(address)?, port: Some(port.ok_or(Some("no port".to_owned()))?) })
}

/// Weights by the load of real servers: rup, ruptime and the like.
fn load_monitor(source: &mut Source<'_>, keys: &mut Keys<'_, '_>) {
    const LOAD: &str = "none: weights don't follow the load of real servers; scheduler = wlc comes near";
    keys.read(source, "load_monitor", LOAD, |value| if bare(value) == "none" { Ok(()) } else { Err(None) });
    keys.read(source, "client_monitor", "no client_monitor: nothing is run on real servers", |_| {
        Err::<(), _>(None)
    });
}

fn server(source: &mut Source<'_>, block: &Block<'_>) -> Server {
    let mut keys = Keys::new(block);
    let active = active(source, &mut keys, block);
    let address = keys.address(source, "address");
    if let Raw::Absent = address {
        source.findings.missing(block.at, "server.address", format!("found nothing, allowed: {ADDRESS}"));
    }
    let read = Server {
        name: block.name.to_owned(),
        at: block.at,
        active,
        address,
        port: keys.number(source, "port", 1..=u16::MAX),
        weight: keys.number(source, "weight", 0..=2_147_483_647),
    };
    keys.finish(source);
    read
}
