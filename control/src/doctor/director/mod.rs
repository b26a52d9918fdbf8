//! The checks of a director, in the network namespace where doctor runs.
//!
//! Facts are gathered here; each check is a function of them.

mod interface;
mod machine;
mod own_host;
mod queues;
mod server;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::finding::{Check, Finding};
use super::host::{Host, Interface};
use super::plan::Plan;
use super::proc::Setting;
use super::wire::{self, Reach};
use super::{ask, segment};
use crate::kernel::{Kernel, Link, NeighborState, link};

/// How long real servers may take to be resolved, when no daemon has done that.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// A director's interface that can be looked at.
struct Port<'host> {
    interface: &'host Interface,
    link: Link,
}

/// Looks at everything.
pub(super) async fn check(plan: &Plan, host: &Host) -> Vec<Finding> {
    let mut findings = machine::check(plan);
    let mut ports = Vec::new();
    for name in &plan.interfaces {
        let link = link::find(name).await;
        findings.push(interface::present(name, host.interface(name), &link));
        if let (Some(interface), Ok(link)) = (host.interface(name), link) {
            ports.push(Port { interface, link });
        }
    }
    for Port { interface, link } in &ports {
        findings.push(interface::program(interface, plan, interface::pinned(interface.index)));
        let generic = interface.xdp == Some("generic") || plan.wants_generic;
        findings.extend(interface::offloads(&link.name, link::offload_faults(link, generic)));
        findings.push(queues::served(link, plan.queues));
        findings.push(queues::interrupts(&link.name, &queues::read_interrupts(&link.name), plan));
    }
    findings.extend(interface::mtus(&ports.iter().map(|port| port.interface).collect::<Vec<_>>()));
    findings.extend(queues::cores(plan));
    findings.extend(own_host::check(plan, host));
    let states = servers(plan).await;
    match &states {
        Ok(states) => {
            for &address in &plan.servers {
                findings.push(server::resolved(address, states.get(&address), host));
                let own = wire::own_address_to(address);
                findings.extend(server::source(address, own, &plan.vip_addresses(), host));
            }
        }
        Err(error) => findings.extend(
            plan.servers.iter().map(|server| Finding::failed(Check::Server, server, "CAP_NET_ADMIN", error)),
        ),
    }
    let states = states.unwrap_or_default();
    findings.extend(vips(plan, host, &ports, &states).await);
    findings.extend(mtu_to_servers(plan, host, &ports, &states).await);
    findings
}

/// Where the VIPs are, and who answers for them.
async fn vips(
    plan: &Plan,
    host: &Host,
    ports: &[Port<'_>],
    servers: &BTreeMap<IpAddr, NeighborState>,
) -> Vec<Finding> {
    let addresses = plan.vip_addresses();
    let names: Vec<&str> = ports.iter().map(|port| port.interface.name.as_str()).collect();
    let mut findings: Vec<Finding> = plan
        .vips
        .iter()
        .map(|(&address, vip)| vip::local(address, vip, host, names.first().copied()))
        .collect();
    for Port { interface, .. } in ports {
        let here = |address: &&IpAddr| host.is_on_link(interface.index, **address);
        let here: BTreeSet<IpAddr> = addresses.iter().filter(here).copied().collect();
        for &address in &here {
            let ignore = Setting::read(&interface.name, "arp_ignore").unwrap_or_default();
            findings.extend(vip::answered(address, interface, ignore, host));
        }
        let asked = here.clone();
        let answers =
            ask(segment(host, interface, &addresses), asked, |segment, asked| wire::claims(segment, &asked));
        match answers.await {
            None => {}
            Some(Err(error)) => findings.extend(
                here.iter().map(|address| Finding::failed(Check::VipClaimed, address, "CAP_NET_RAW", &error)),
            ),
            Some(Ok(claims)) => {
                for address in here {
                    let machines = claims.get(&address);
                    findings.push(vip::claimed(address, &interface.name, machines, host, servers));
                }
            }
        }
    }
    findings
}

/// What is known of the real servers: by the daemon, or by asking for them.
async fn servers(plan: &Plan) -> io::Result<BTreeMap<IpAddr, NeighborState>> {
    if let Some(daemon) = &plan.daemon {
        return Ok(daemon.servers.clone());
    }
    if plan.servers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let failed = |error: crate::kernel::KernelError| match error.is_missing_privilege() {
        true => io::Error::from(io::ErrorKind::PermissionDenied),
        false => io::Error::other(error),
    };
    let mut kernel = Kernel::open(&plan.interfaces).await.map_err(failed)?;
    let known = wait_for(&mut kernel, &plan.servers).await.map_err(failed);
    let states = plan.servers.iter().map(|&server| (server, kernel.neighbor(server))).collect();
    kernel.close().await;
    known.map(|()| states)
}

/// Waits until each real server has answered or has not, or the time is over.
async fn wait_for(kernel: &mut Kernel, servers: &BTreeSet<IpAddr>) -> Result<(), crate::kernel::KernelError> {
    kernel.set_wanted(servers.clone())?;
    let deadline = Instant::now() + RESOLVE_LIMIT;
    let pending = |kernel: &Kernel| {
        let is_pending = |state| matches!(state, NeighborState::Unknown | NeighborState::Incomplete);
        servers.iter().any(|&server| is_pending(kernel.neighbor(server)))
    };
    while pending(kernel) {
        match tokio::time::timeout_at(deadline, kernel.next()).await {
            Ok(event) => drop(event?),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Whether the largest frame that comes in reaches each real server.
async fn mtu_to_servers(
    plan: &Plan,
    host: &Host,
    ports: &[Port<'_>],
    servers: &BTreeMap<IpAddr, NeighborState>,
) -> Vec<Finding> {
    let Some(mtu) = ports.iter().map(|port| port.interface.mtu).min() else { return Vec::new() };
    let mut findings = Vec::new();
    for Port { interface, .. } in ports {
        let here: BTreeMap<IpAddr, [u8; 6]> = servers
            .iter()
            .filter_map(|(&address, state)| match state {
                NeighborState::Resolved { interface: index, mac } if *index == interface.index => {
                    Some((address, *mac))
                }
                _ => None,
            })
            .collect();
        let segment = segment(host, interface, &plan.vip_addresses());
        let asked = here.clone();
        let answers = ask(segment, asked, move |segment, asked| wire::reaches(segment, mtu, &asked)).await;
        match answers {
            None => {}
            Some(Err(error)) => findings.extend(
                here.keys().map(|address| Finding::failed(Check::ServerMtu, address, "CAP_NET_RAW", &error)),
            ),
            Some(Ok(reaches)) => {
                let reach = |address: &IpAddr| reaches.get(address).copied().unwrap_or(Reach::Silent);
                findings.extend(here.keys().map(|address| server::reached(*address, mtu, reach(address))));
            }
        }
    }
    findings
}

/// The subject of what concerns the machine as a whole.
const HOST: &str = "host";

/// Says so when there are more VIPs or real servers than are asked for.
pub(super) fn left_out(plan: &Plan) -> Option<Finding> {
    (plan.vips.len() > wire::MOST_ADDRESSES || plan.servers.len() > wire::MOST_MACHINES).then(|| {
        let found = format!(
            "{} VIPs and {} real servers: the first {} and {} of an interface are asked for",
            plan.vips.len(),
            plan.servers.len(),
            wire::MOST_ADDRESSES,
            wire::MOST_MACHINES
        );
        Finding::unknown(Check::VipClaimed, HOST, found)
    })
}
