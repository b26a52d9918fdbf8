//! UDP: a datagram that no ICMP error comes back for. Hosts send about one such error a second to each peer: silence soon
//! after one says nothing. A reply can be asked for, and compared.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;

use super::{Target, hex, plain};
use crate::health::plan::{Way, Ways};
use crate::health::spec::{ReplyRule, UdpProbe};
use crate::health::state::Outcome;

/// How long an ICMP error may take where no reply is needed: servers are on the director's own network.
const ERROR_LIMIT: Duration = Duration::from_secs(1);
/// How long after an ICMP error silence is no success.
const DOUBT: Duration = Duration::from_secs(5);

/// The most bytes of a reply.
const MOST: usize = 65_535;

/// When the last ICMP error came.
pub(super) type LastError = Mutex<Option<Instant>>;

/// A socket to a server, which is told of all ICMP errors.
pub(super) async fn connect(target: Target) -> Result<UdpSocket, String> {
    let any: SocketAddr = match target.address {
        std::net::IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        std::net::IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| plain(&error))?;
    let told = match target.address {
        std::net::IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        std::net::IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    };
    told.map_err(|error| plain(&error.into()))?;
    socket.connect(target.socket()).await.map_err(|error| plain(&error))?;
    Ok(socket)
}

/// Sends a datagram, and waits for a reply or an error.
pub(super) async fn send(
    probe: &UdpProbe,
    target: Target,
    ways: &Ways,
    timeout: Duration,
    last_error: &LastError,
) -> Outcome {
    // Its silence would count as success.
    if target.address == target.server && ways.get(&target.server) == Some(&Way::Failed) {
        return Err("answers neither ARP nor neighbour discovery".to_owned());
    }
    let socket = connect(target).await?;
    socket.send(&probe.send).await.map_err(|error| unreachable(&error))?;
    if let Some(rule) = &probe.reply {
        let mut reply = vec![0; MOST];
        let length = socket.recv(&mut reply).await.map_err(|error| unreachable(&error))?;
        return judge(rule, &reply[..length]);
    }
    let mut reply = [0; 1];
    let received = socket.recv(&mut reply);
    // Half of the time at most, so that this is over before the check's own limit.
    let heard = tokio::time::timeout(ERROR_LIMIT.min(timeout / 2), received).await;
    let mut last_error = last_error.lock().unwrap_or_else(PoisonError::into_inner);
    match heard {
        Ok(Err(error)) => {
            *last_error = Some(Instant::now());
            Err(unreachable(&error))
        }
        Ok(Ok(_)) => Ok(()),
        Err(_silent) if last_error.is_some_and(|at| at.elapsed() < DOUBT) => Err(PORT_UNREACHABLE.to_owned()),
        Err(_silent) => Ok(()),
    }
}

/// Whether a reply is as it must be.
fn judge(rule: &ReplyRule, reply: &[u8]) -> Outcome {
    /// The most bytes that are shown.
    const SHOWN: usize = 16;
    let (least, most) = rule.length;
    if !(usize::from(least)..=usize::from(most)).contains(&reply.len()) {
        return Err(format!("answered {} bytes, expected {least} to {most}", reply.len()));
    }
    let same = rule.begins.iter().zip(reply).all(|(expected, byte)| byte & expected.mask == expected.value);
    if same {
        return Ok(());
    }
    let more = if reply.len() > SHOWN { "…" } else { "" };
    Err(format!("answered other bytes than expected: {}{more}", hex(&reply[..reply.len().min(SHOWN)])))
}

const PORT_UNREACHABLE: &str = "port unreachable";

/// An ICMP error in plain words.
pub(super) fn unreachable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => PORT_UNREACHABLE.to_owned(),
        _ => plain(error),
    }
}
