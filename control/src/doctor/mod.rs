//! `xlvs doctor`: looks at a director or a real server for what commonly breaks direct routing, and says what to do.
//!
//! ```text
//! host (netlink), proc, wire (packet sockets), kernel::link ─→ facts ─→ director/, real_server/ ─→ finding
//! ```
//! Invariants: nothing is changed, apart from neighbour entries that a director without a daemon needs to know its real
//! servers, which are gone again afterwards; every question has a deadline; checks are functions of facts. A check that can't
//! be made says so: no finding is left out because it could not be looked at.
//!
//! Time: about two seconds, and four with real servers to be resolved; 20 ms more for each 50 VIPs or real servers.

mod director;
mod finding;
mod host;
mod plan;
mod proc;
mod real_server;
mod rules;
mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

pub(crate) use finding::{Check, Report};
pub(crate) use real_server::Vip;

use host::{Host, Interface};
use plan::Plan;
use wire::Segment;

use crate::config::Configuration;
use crate::status::Status;

/// Why nothing can be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    /// Netlink does not answer.
    #[error("the kernel's network state can't be read: {0}")]
    Netlink(#[from] io::Error),
    /// There is no VIP on lo, and none was named.
    #[error(
        "no VIP is on lo, and none was named: name those that this real server is to take (xlvs doctor --real-server VIP...)"
    )]
    NoVip,
}

/// The VIPs that this host seems to be a real server of: addresses on lo that are not loopback addresses.
///
/// # Errors
/// When netlink does not answer.
pub(crate) async fn vips_on_lo() -> Result<Vec<Vip>, DoctorError> {
    Ok(on_lo(&Host::read().await?))
}

fn on_lo(host: &Host) -> Vec<Vip> {
    let on_lo = host.addresses.iter().filter(|one| host.is_loopback(one.interface));
    let addresses: BTreeSet<IpAddr> =
        on_lo.map(|one| one.net.addr()).filter(|ip| !ip.is_loopback()).collect();
    addresses.into_iter().map(|address| Vip { address, port: None }).collect()
}

/// Looks at this host as the director that a daemon says it is.
///
/// # Errors
/// When netlink does not answer.
pub(crate) async fn running_director(status: &Status) -> Result<Report, DoctorError> {
    let host = Host::read().await?;
    Ok(look_at_director(&Plan::of_status(status, &host), &host).await)
}

/// Looks at this host as the director that a configuration makes of it.
///
/// # Errors
/// When netlink does not answer.
pub(crate) async fn configured_director(configuration: &Configuration) -> Result<Report, DoctorError> {
    let host = Host::read().await?;
    Ok(look_at_director(&Plan::of_configuration(configuration), &host).await)
}

async fn look_at_director(plan: &Plan, host: &Host) -> Report {
    let mut findings = director::check(plan, host).await;
    findings.extend(director::left_out(plan));
    Report::new(findings)
}

/// Looks at this host as a real server of these VIPs (of those on lo, if none is named).
///
/// # Errors
/// When netlink does not answer, or there is no VIP.
pub(crate) async fn real_server(vips: Vec<Vip>) -> Result<Report, DoctorError> {
    let host = Host::read().await?;
    let vips = if vips.is_empty() { on_lo(&host) } else { vips };
    if vips.is_empty() {
        return Err(DoctorError::NoVip);
    }
    Ok(Report::new(real_server::check(&host, &vips).await))
}

/// An interface as one that asks on its wire; never from a VIP.
fn segment(host: &Host, interface: &Interface, vips: &BTreeSet<IpAddr>) -> Option<Segment> {
    let own = host.addresses.iter().filter(|one| {
        one.interface == interface.index
            && !one.tentative
            && !one.duplicate
            && !vips.contains(&one.net.addr())
    });
    let mut segment = Segment { name: interface.name.clone(), mac: interface.mac?, v4: None, v6: None };
    for address in own {
        match address.net.addr() {
            IpAddr::V4(ip) => segment.v4 = segment.v4.or(Some(ip)),
            IpAddr::V6(ip) => segment.v6 = segment.v6.or(Some(ip)),
        }
    }
    Some(segment)
}

/// Runs questions on a segment beside the runtime, unless there are none.
async fn ask<Questions, Answers>(
    segment: Option<Segment>,
    questions: Questions,
    act: impl FnOnce(&Segment, Questions) -> io::Result<Answers> + Send + 'static,
) -> Option<io::Result<Answers>>
where
    Questions: IntoIterator + Clone + Send + 'static,
    Answers: Send + 'static,
{
    questions.clone().into_iter().next()?;
    let segment = segment?;
    let asked = tokio::task::spawn_blocking(move || act(&segment, questions)).await;
    Some(asked.unwrap_or_else(|error| Err(io::Error::other(error))))
}
