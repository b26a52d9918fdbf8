//! The direct-routing check: asks a real server for the VIP itself.
//!
//! ```text
//! director's own address, reserved port ── SYN or echo request, to the VIP, TTL 1 ──→ the server's MAC
//!                                      ←─ SYN-ACK or echo reply, from the VIP ─────── has the VIP
//!                                      ←─ ICMP time exceeded ───────────────────────── lacks it, and would forward
//!                                      ←─ nothing ──────────────────────────────────── lacks it
//! ARP request (neighbour solicitation) for the VIP, to that MAC only ──→ an answer: it steals the VIP
//! ```
//! Live traffic never notices: the source is the director's own address, which no virtual service has, and a port that a
//! socket of ours keeps from the host; a TTL of 1 is enough for a server that has the VIP and never gets past one that lacks
//! it; nothing is broadcast; a connection that was half opened is reset at once. Frames go out and come in by packet sockets,
//! beside the workers. The host itself takes no notice of the answers: they come from an address of its own, and the
//! reserving socket drops what reaches it.
//!
//! The director's own host, where it is a server, is not asked: it has the VIP if netlink says so.
//!
//! A server's first answer is waited for as long as the check's timeout; for an answer to ARP then [`ARP_GRACE`] at most.

mod frame;
mod port;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex;

use frame::{Answer, Question};
use port::Port;

use super::{Target, plain};
use crate::health::plan::{Hop, Way, Ways};
use crate::health::spec::VipProbe;
use crate::health::state::Outcome;

/// How long an answer to ARP is waited for once the VIP has answered; it was asked for first.
const ARP_GRACE: Duration = Duration::from_millis(100);

/// The ports that probes leave from and answers come to, by interface and source address.
#[derive(Debug)]
pub(crate) struct VipProber {
    ports: Mutex<HashMap<(String, IpAddr), Arc<Port>>>,
    more_rights: Option<Handle>,
}

impl VipProber {
    /// `more_rights` is of a runtime that may do what the calling thread may not.
    pub(super) fn new(more_rights: Option<Handle>) -> Self {
        Self { ports: Mutex::default(), more_rights }
    }

    /// Asks once.
    pub(super) async fn ask(&self, probe: VipProbe, target: Target, ways: &Ways) -> Outcome {
        let Target { server, address: vip, port } = target;
        let hop = match ways.get(&server) {
            Some(Way::To(hop)) => hop,
            Some(Way::Host(addresses)) => return held(addresses, vip),
            Some(Way::Failed) => return Err("answers neither ARP nor neighbour discovery".to_owned()),
            None => return Err("its MAC address is not known".to_owned()),
        };
        let source = own_address(server, vip)?;
        let here = self.port(hop, source).await?;
        let question = Question {
            source_mac: hop.source_mac,
            server_mac: hop.server_mac,
            source,
            vip,
            source_port: here.number(),
            port: probe.tcp.then_some(port),
            name: if probe.tcp { here.sequence() } else { rand::random() },
        };
        let mut answers = here.listen(hop.server_mac, vip);
        here.say(frame::who_has(&question)).await?;
        here.say(frame::question(&question)).await?;
        let mut vip_answered = false;
        loop {
            let answer = if vip_answered {
                match tokio::time::timeout(ARP_GRACE, answers.next()).await {
                    Ok(answer) => answer,
                    Err(_) => return Ok(()),
                }
            } else {
                answers.next().await
            };
            match answer.ok_or("the probe's socket is gone")? {
                Answer::Arp => return Err(arp_is_answered(vip)),
                Answer::SynAck { port, acknowledged, sequence }
                    if question.is_answered_by(port, acknowledged) =>
                {
                    here.say(frame::reset(&question, sequence)).await?;
                    vip_answered = true;
                }
                Answer::Refused { port, acknowledged } if question.is_answered_by(port, acknowledged) => {
                    return Err(format!("{vip} refuses connections to port {port}"));
                }
                Answer::Echo { name } if !probe.tcp && name == question.name => vip_answered = true,
                Answer::TimeExceeded => {
                    return Err(format!(
                        "lacks {vip}: it would forward the VIP's packets; run `xlvs real-server up {vip}` there"
                    ));
                }
                Answer::Unreachable => {
                    return Err(format!("answers packets to {vip} with ICMP: unreachable"));
                }
                // Of another probe, or of an earlier one.
                _ => {}
            }
        }
    }

    async fn port(&self, hop: &Hop, source: IpAddr) -> Result<Arc<Port>, String> {
        let mut ports = self.ports.lock().await;
        let name = (hop.interface.clone(), source);
        if let Some(port) = ports.get(&name).filter(|port| port.is_alive()) {
            return Ok(Arc::clone(port));
        }
        let reserved = match &self.more_rights {
            // Since 2026 the kernel asks for CAP_NET_ADMIN where TCP's segments are filtered.
            Some(runtime) => runtime
                .spawn(async move { port::reserve(source) })
                .await
                .map_err(|_| "the director is ending".to_owned())?,
            None => port::reserve(source),
        };
        let reserved =
            reserved.map_err(|error| format!("no port of {source} can be kept: {}", plain(&error)))?;
        let port = Port::open(&hop.interface, reserved)
            .map_err(|error| format!("no packet socket on {}: {}", hop.interface, plain(&error)))?;
        ports.insert(name, Arc::clone(&port));
        Ok(port)
    }
}

/// Of the director's own host nothing is asked: netlink tells what addresses it has.
fn held(addresses: &BTreeSet<IpAddr>, vip: IpAddr) -> Outcome {
    if addresses.contains(&vip) {
        return Ok(());
    }
    Err(format!(
        "this host lacks {vip}: what the director hands it for the VIP is dropped; run `xlvs real-server up {vip}` here"
    ))
}

/// What it means that nothing came back.
pub(super) fn unanswered(late: &str, vip: IpAddr) -> String {
    format!(
        "{late}: nothing at its MAC answers for {vip}; if it lacks the VIP, run `xlvs real-server up {vip}` there"
    )
}

fn arp_is_answered(vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(_) => format!(
            "answers ARP for {vip} and so steals the VIP's traffic: set arp_ignore=1 and arp_announce=2 there, as `xlvs \
             real-server up {vip}` does"
        ),
        IpAddr::V6(_) => format!(
            "answers neighbour discovery for {vip} and so steals the VIP's traffic: have the VIP on lo there, as `xlvs \
             real-server up {vip}` does"
        ),
    }
}

/// The address that the director sends from to a real server.
fn own_address(server: IpAddr, vip: IpAddr) -> Result<IpAddr, String> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing; the port is of no matter.
    let socket = std::net::UdpSocket::bind((any, 0)).map_err(|error| plain(&error))?;
    socket.connect((server, 9)).map_err(|error| plain(&error))?;
    let own = socket.local_addr().map_err(|error| plain(&error))?.ip();
    if own == vip {
        return Err(format!("the director has no other address than {vip} on the way to it; give it one"));
    }
    Ok(own)
}
