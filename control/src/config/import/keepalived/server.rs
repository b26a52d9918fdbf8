//! `virtual_server` with its `real_server`s, read key by key.

use std::net::IpAddr;

use xlvs_dataplane::flow::{Family, Protocol};

use super::block::{Block, Notes, number};
use super::checker::{self, Around, Check, Common};
use super::group;
use super::words::{Node, Word};
use crate::config::address;
use crate::config::error::Position;
use crate::config::file::{At, Raw};
use crate::config::names::{Choice, SchedulerFlag, SchedulerName};

/// How frames get to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Nat,
    Direct,
    Tunnel,
}

impl Method {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Direct => "DR",
            Self::Tunnel => "TUN",
        }
    }
}

/// A virtual server, but for what names it.
pub(super) struct Virtual<'n> {
    pub(super) node: &'n Node,
    pub(super) scheduler: Raw<SchedulerName>,
    pub(super) flags: Vec<(SchedulerFlag, Position)>,
    pub(super) one_packet: Raw<bool>,
    pub(super) method: Raw<Method>,
    /// In seconds.
    pub(super) persistence_timeout: Raw<u32>,
    pub(super) granularity: Raw<String>,
    pub(super) protocol: Raw<Protocol>,
    pub(super) family: Raw<Family>,
    pub(super) quorum: Raw<u32>,
    pub(super) hysteresis: Raw<u32>,
    pub(super) sorry_server: Raw<(IpAddr, Option<u16>)>,
    pub(super) sorry_method: Raw<Method>,
    pub(super) inhibit: Raw<bool>,
    pub(super) servers: Vec<Server<'n>>,
}

/// A real server.
pub(super) struct Server<'n> {
    pub(super) node: &'n Node,
    pub(super) address: At<IpAddr>,
    pub(super) port: Option<At<u16>>,
    pub(super) weight: Raw<u32>,
    pub(super) method: Raw<Method>,
    pub(super) upper: Raw<u32>,
    pub(super) lower: Raw<u32>,
    pub(super) inhibit: Raw<bool>,
    pub(super) checks: Vec<Check>,
    /// Whether it is down until its first success.
    pub(super) alpha: bool,
}

const METHOD: &str = "DR, NAT or TUN";
const SERVER: &str = "ADDRESS [PORT]";

/// Reads a virtual server.
pub(super) fn read<'n>(node: &'n Node, notes: &mut Notes) -> Virtual<'n> {
    let mut block = Block::new("virtual_server", node.nodes());
    let common = Common::read(&mut block, notes);
    let scheduler =
        block.word(notes, &["lvs_sched", "lb_algo"], &names::<SchedulerName>(), SchedulerName::named);
    let flags = flags(&mut block, &scheduler, notes);
    let virtualhost = block.text(notes, &["virtualhost"]);
    let weight = block.number(notes, &["weight"], 0..=2_147_483_647);
    let its = Virtual {
        node,
        flags,
        one_packet: block.flag(notes, &["ops"]),
        method: block.read(notes, &["lvs_method", "lb_kind"], METHOD, method),
        persistence_timeout: block.read(
            notes,
            &["persistence_timeout"],
            "nothing (6 minutes), or a whole number from 1 to 2678400",
            |words| match words {
                [] => Some(360),
                [word] => number(&word.text, 1..=2_678_400),
                _ => None,
            },
        ),
        granularity: block.word(
            notes,
            &["persistence_granularity"],
            "an IPv4 netmask, or a prefix length of IPv6",
            |word| {
                let right = word.parse::<std::net::Ipv4Addr>().is_ok() || number(word, 1..=128_u8).is_some();
                right.then(|| word.to_owned())
            },
        ),
        protocol: block.word(notes, &["protocol"], "TCP, UDP or SCTP", |word| {
            Protocol::named(&word.to_ascii_lowercase())
        }),
        family: block.word(notes, &["ip_family"], "inet or inet6", group::family),
        quorum: block.number(notes, &["quorum"], 1..=2_147_483_647),
        hysteresis: block.number(notes, &["hysteresis"], 0..=2_147_483_647),
        sorry_server: block.read(notes, &["sorry_server"], SERVER, server_name),
        sorry_method: block.read(notes, &["sorry_server_lvs_method"], METHOD, method),
        inhibit: block.flag(notes, &["inhibit_on_failure"]),
        servers: Vec::new(),
        scheduler,
    };
    block.lose(notes, &["quorum_up", "quorum_down"], "no program is run");
    block.lose(notes, &["smtp_alert"], "no mail is sent");
    block.lose(notes, &["nat_mask"], "it is an old word that NAT was set up with");
    block.lose(notes, &["persistence_engine"], "clients are told apart by their addresses");
    block.lose(notes, &["sorry_server_inhibit", "ha_suspend", "omega", "snmp_name"], "");
    let within = Within {
        common: &common,
        virtualhost: virtualhost.get().map(|host| host.value.as_str()),
        weight: &weight,
    };
    let servers = block.all(&["real_server"]).filter_map(|node| server(node, &within, notes)).collect();
    block.finish(notes);
    Virtual { servers, ..its }
}

/// A choice's names, for messages.
fn names<T: Choice>() -> String {
    let names: Vec<&str> = T::ALL.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// The flags of `sh` and `mh`, by their own names or the kernel's numbers.
fn flags(
    block: &mut Block<'_>,
    scheduler: &Raw<SchedulerName>,
    notes: &mut Notes,
) -> Vec<(SchedulerFlag, Position)> {
    let mut flags: Vec<(SchedulerFlag, Position)> = Vec::new();
    for (name, flag) in <SchedulerFlag as Choice>::ALL {
        flags.extend(block.flag(notes, &[*name]).at().map(|at| (*flag, at)));
    }
    let numbered = match scheduler.or(SchedulerName::Wlc) {
        SchedulerName::Sh => Some((SchedulerFlag::ShFallback, SchedulerFlag::ShPort)),
        SchedulerName::Mh => Some((SchedulerFlag::MhFallback, SchedulerFlag::MhPort)),
        _ => None,
    };
    match numbered {
        Some((first, second)) => {
            for (name, flag) in [("flag-1", first), ("flag-2", second)] {
                let at = block.flag(notes, &[name]).at();
                flags.extend(at.filter(|_| !flags.iter().any(|(its, _)| *its == flag)).map(|at| (flag, at)));
            }
        }
        None => block.lose(notes, &["flag-1", "flag-2"], "the scheduler knows no flags"),
    }
    block.lose(notes, &["flag-3"], "no scheduler knows it");
    flags
}

fn method(words: &[Word]) -> Option<Method> {
    match words.first()?.text.as_str() {
        "NAT" if words.len() == 1 => Some(Method::Nat),
        "DR" if words.len() == 1 => Some(Method::Direct),
        "TUN" => Some(Method::Tunnel),
        _ => None,
    }
}

/// `ADDRESS [PORT]`.
fn server_name(words: &[Word]) -> Option<(IpAddr, Option<u16>)> {
    let port = match words {
        [_] => None,
        [_, port] => Some(number(&port.text, 0..=u16::MAX).filter(|port| *port > 0)?),
        _ => return None,
    };
    Some((address::parse(&words.first()?.text).ok()?, port))
}

/// What a virtual server says for its real servers.
struct Within<'v> {
    common: &'v Common,
    virtualhost: Option<&'v str>,
    weight: &'v Raw<u32>,
}

fn server<'n>(node: &'n Node, within: &Within<'_>, notes: &mut Notes) -> Option<Server<'n>> {
    let mut block = Block::new("real_server", node.nodes());
    let name = server_name(node.arguments());
    if name.is_none() {
        Block::new("", &[]).refuse(notes, node, "", SERVER);
    }
    let place = |index: usize| node.arguments().get(index).map_or_else(|| node.at(), |word| word.at);
    let port = name.and_then(|(_, port)| port);
    let common = Common::read(&mut block, notes).within(within.common);
    let virtualhost = block.text(notes, &["virtualhost"]);
    let weight = block.number(notes, &["weight"], 0..=2_147_483_647);
    let mut its = Server {
        node,
        address: At { value: name.map_or(IpAddr::from([0, 0, 0, 0]), |(address, _)| address), at: place(0) },
        port: port.map(|value| At { value, at: place(1) }),
        weight: if weight.at().is_some() { weight } else { within.weight.clone() },
        method: block.read(notes, &["lvs_method", "lb_kind"], METHOD, method),
        upper: block.number(notes, &["uthreshold"], 0..=2_147_483_647),
        lower: block.number(notes, &["lthreshold"], 0..=2_147_483_647),
        inhibit: block.flag(notes, &["inhibit_on_failure"]),
        checks: Vec::new(),
        alpha: false,
    };
    block.lose(notes, &["notify_up", "notify_down"], "no program is run");
    block.lose(notes, &["smtp_alert"], "no mail is sent");
    block.lose(notes, &["snmp_name"], "");
    let host = virtualhost.get().map(|host| host.value.as_str()).or(within.virtualhost);
    let around = Around { common: &common, virtualhost: host, port };
    its.checks =
        block.all(&checker::KEYWORDS).flat_map(|node| checker::checks(node, &around, notes)).collect();
    if its.weight.or(1) == 0
        && let Some(dynamic) = its.checks.iter().find(|check| check.tells_weight())
    {
        notes.lose(dynamic.at, "misc_dynamic has no effect here: a server of weight 0 stays quiesced");
    }
    its.alpha = its.checks.iter().any(|check| check.alpha);
    block.finish(notes);
    name.map(|_| its)
}
