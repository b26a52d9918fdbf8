//! `xlvs real-server`: a host made ready to answer for VIPs that a director sends it frames of, and its way back.
//!
//! It acts in the network namespace where it runs. Invariants: what is about to be changed is written to the record
//! (`record`) before it is changed, so that `down` finds it even after a crash; nothing is undone that was not done
//! here; the ARP sysctls are set before the first VIP appears and restored after the last one is gone, so that a VIP is
//! never answered for by ARP.
//!
//! IPv6 needs no sysctl: the kernel answers neighbour solicitations only for addresses of the interface asked on.

mod loopback;
mod record;
mod sysctl;

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::net::IpAddr;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use super::Failure;
use loopback::Loopback;
use record::{Record, VipRecord};

/// Takes VIPs on.
pub(super) fn up(vips: &[IpAddr]) -> Result<(), Failure> {
    let vips: BTreeSet<IpAddr> = vips.iter().copied().collect();
    in_namespace(async |record, loopback| {
        let done = take_on(record, loopback, &vips).await;
        if record.vips.is_empty() {
            // Nothing came up, so nothing is to stay.
            let released = release(record);
            return done.and(released);
        }
        done
    })
}

/// Gives VIPs back.
pub(super) fn down(vips: &[IpAddr]) -> Result<(), Failure> {
    let vips: BTreeSet<IpAddr> = vips.iter().copied().collect();
    in_namespace(async |record, loopback| {
        if record.is_new() {
            return vips.iter().try_for_each(|vip| super::print(not_up(*vip)));
        }
        for vip in &vips {
            give_back(record, loopback, *vip).await?;
        }
        if record.vips.is_empty() { release(record) } else { Ok(()) }
    })
}

/// Runs `act` with the record of this network namespace, locked, and its loopback interface.
fn in_namespace(
    act: impl AsyncFnOnce(&mut Record, &mut Loopback) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let held = capabilities(None).map_err(|error| failed("the capabilities can't be read", error.into()))?;
    if !held.effective.contains(CapabilitySet::NET_ADMIN) {
        return Err(needs("the addresses of lo can't be changed: CAP_NET_ADMIN is missing"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| failed("no event loop can be made", error))?;
    let mut record = Record::open()?;
    runtime.block_on(async {
        let mut loopback = Loopback::open().await?;
        act(&mut record, &mut loopback).await
    })
}

async fn take_on(
    record: &mut Record,
    loopback: &mut Loopback,
    vips: &BTreeSet<IpAddr>,
) -> Result<(), Failure> {
    if !loopback.is_up() {
        return Err(Failure::Runtime(
            "lo is down, and no VIP works on it; first run `ip link set lo up`".into(),
        ));
    }
    let addresses = loopback.addresses().await?;
    let routes =
        if vips.iter().any(IpAddr::is_ipv4) { loopback.host_routes().await? } else { BTreeSet::new() };
    sysctl::remember(&mut record.sysctls)?;
    record.save()?;
    sysctl::set()?;
    for vip in vips {
        let before = record.vips.get(vip).copied();
        let has_address = addresses.contains(vip);
        // The kernel makes the route of an IPv6 address itself.
        let has_route = vip.is_ipv6() || routes.contains(vip);
        let now = VipRecord {
            address_added: !has_address || before.is_some_and(|before| before.address_added),
            route_added: !has_route || before.is_some_and(|before| before.route_added),
        };
        record.vips.insert(*vip, now);
        record.save()?;
        if let Err(failure) = add(loopback, *vip, !has_address, !has_route).await {
            match before {
                Some(before) => record.vips.insert(*vip, before),
                None => record.vips.remove(vip),
            };
            record.save()?;
            return Err(failure);
        }
        let already = if has_address && has_route { " already" } else { "" };
        super::print(format!("{vip}: up on lo{already}\n"))?;
    }
    Ok(())
}

/// Adds what is missing of a VIP, all or nothing.
async fn add(loopback: &mut Loopback, vip: IpAddr, address: bool, route: bool) -> Result<(), Failure> {
    if address {
        loopback.add_address(vip).await?;
    }
    if let (true, IpAddr::V4(v4)) = (route, vip)
        && let Err(failure) = loopback.add_host_route(v4).await
    {
        if address {
            loopback.remove_address(vip).await?;
        }
        return Err(failure);
    }
    Ok(())
}

async fn give_back(record: &mut Record, loopback: &mut Loopback, vip: IpAddr) -> Result<(), Failure> {
    let Some(before) = record.vips.get(&vip).copied() else {
        return super::print(not_up(vip));
    };
    if let (true, IpAddr::V4(v4)) = (before.route_added, vip) {
        loopback.remove_host_route(v4).await?;
    }
    if before.address_added {
        loopback.remove_address(vip).await?;
    }
    record.vips.remove(&vip);
    record.save()?;
    let stays = if before.address_added { "" } else { "; it was on lo before `up` and stays there" };
    super::print(format!("{vip}: down{stays}\n"))
}

/// Undoes what was done for all VIPs together, and forgets it.
fn release(record: &mut Record) -> Result<(), Failure> {
    sysctl::restore(&record.sysctls)?;
    record.forget()
}

fn not_up(vip: IpAddr) -> String {
    format!("{vip}: not put up by `real-server up` here; nothing to do\n")
}

/// A failure to do something, as what it is: a missing privilege or a failure at run time.
fn failed(what: &str, error: Error) -> Failure {
    let message = format!("{what}: {error}");
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => needs(&message),
        _ if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => needs(&message),
        _ => Failure::Runtime(message),
    }
}

fn needs(what: &str) -> Failure {
    Failure::Privilege(format!(
        "{what}; run it as root, or with CAP_NET_ADMIN, a writable /proc/sys/net and the right to write {}",
        record::DIRECTORY
    ))
}
