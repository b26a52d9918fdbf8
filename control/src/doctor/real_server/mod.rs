//! The checks of a real server, in the network namespace where doctor runs: does it take what comes for the VIP, keep silent
//! about it, and does it have a way to clients?
//!
//! Facts are gathered here; each check is a function of them.

mod arp;
mod filter;
mod listen;
mod vip;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::finding::{Check, Finding};
use super::host::Host;
use super::proc::{self, Setting};
use super::segment;
use super::{rules, wire};

/// A VIP, and the port of its service if it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

/// Looks at everything.
pub(super) async fn check(host: &Host, vips: &[Vip]) -> Vec<Finding> {
    let addresses: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.address).collect();
    let mut findings = Vec::new();
    for &address in &addresses {
        findings.extend(vip::check(address, host));
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        for interface in host.segments() {
            let read = |name| Setting::read(&interface.name, name);
            findings.extend(arp::ignore(&interface.name, read("arp_ignore")));
            findings.extend(arp::announce(&interface.name, read("arp_announce")));
        }
        let strict = host.segments().filter(|interface| {
            // 2 is loose, and larger: it wins over a 1 of `all`.
            Setting::read(&interface.name, "rp_filter").is_some_and(|setting| setting.effective() == 1)
        });
        let strict: BTreeSet<u32> = strict.map(|interface| interface.index).collect();
        findings.extend(way::rp_filter(host, &strict));
    }
    findings.push(filter::check(&addresses.iter().copied().collect::<Vec<_>>(), &rules::of_host()));
    let answers = answers(host, &addresses).await;
    for is_ipv4 in [true, false] {
        if let Some(&vip) = addresses.iter().find(|vip| vip.is_ipv4() == is_ipv4) {
            findings.push(way::reply_route(host, is_ipv4, vip, &answers));
        }
    }
    findings.extend(claimed(host, &addresses, &answers));
    findings.extend(listen::check(vips, &proc::listeners()));
    findings
}

/// Who answers for the VIPs, by VIP; without those that nobody here asks ARP for.
type Answers = Result<BTreeMap<IpAddr, BTreeSet<[u8; 6]>>, std::io::ErrorKind>;

async fn answers(host: &Host, vips: &BTreeSet<IpAddr>) -> Answers {
    let mut all = BTreeMap::new();
    for interface in host.segments() {
        let here = vips.iter().copied().filter(|vip| host.is_on_link(interface.index, *vip)).collect();
        let segment = segment(host, interface, vips);
        if let Some(claims) = super::ask(segment, here, |segment, here| wire::claims(segment, &here)).await {
            all.extend(claims.map_err(|error| error.kind())?);
        }
    }
    Ok(all)
}

/// Exactly one machine is to answer for a VIP, and that is another one.
fn claimed(host: &Host, vips: &BTreeSet<IpAddr>, answers: &Answers) -> Vec<Finding> {
    match answers {
        Err(std::io::ErrorKind::PermissionDenied) => {
            vips.iter().map(|vip| Finding::not_permitted(Check::VipClaimed, vip, "CAP_NET_RAW")).collect()
        }
        Err(kind) => {
            let unknown =
                |vip| Finding::unknown(Check::VipClaimed, vip, format!("nobody can be asked: {kind}"));
            vips.iter().map(unknown).collect()
        }
        Ok(answers) => answers.iter().map(|(vip, machines)| vip::claimed(*vip, machines, host)).collect(),
    }
}
