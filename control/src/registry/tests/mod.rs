//! The registry driven as its users drive it: by the file's configurations and by tools' operations; what workers would see
//! is looked at.
#![allow(clippy::unwrap_used)]

mod counts;
mod file;
mod health;
mod leaving;
mod operations;
mod slow_start;
mod steering;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::destination::{Destination, Path, Standing, Thresholds};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::scheduler::{NewFlow, SchedulerName};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{Persistence, ServiceKey};

use super::*;
use crate::config::{self, Configuration, Overrides};

/// `tcp 10.0.0.100:80`.
fn web() -> ServiceKey {
    key("10.0.0.100:80")
}

fn key(address: &str) -> ServiceKey {
    let address = address.parse().unwrap();
    ServiceKey::Address { protocol: xlvs_dataplane::flow::Protocol::Tcp, address }
}

fn mark_key(mark: u32) -> ServiceKey {
    ServiceKey::Mark { family: xlvs_dataplane::flow::Family::V4, mark: mark.try_into().unwrap() }
}

/// The real server 10.0.0.`host`, port 80.
fn real(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn scheduled(scheduler: SchedulerName) -> ServiceSpec {
    ServiceSpec { scheduler, ..ServiceSpec::default() }
}

fn weighing(weight: u32) -> DestinationSpec {
    DestinationSpec { weight, ..DestinationSpec::default() }
}

fn persistent(seconds: u64) -> Option<Persistence> {
    let granularity = xlvs_dataplane::flow::Granularity::single(xlvs_dataplane::flow::Family::V4);
    Some(Persistence { timeout: Duration::from_secs(seconds), granularity })
}

/// A registry with `web` and these destinations, host and weight, added by a tool in this order.
fn registry(scheduler: SchedulerName, destinations: &[(u8, u32)]) -> Registry {
    let mut registry = Registry::new(1, 7);
    registry.add_service(web(), scheduled(scheduler)).unwrap();
    for &(host, weight) in destinations {
        registry.add_destination(&web(), real(host), weighing(weight)).unwrap();
    }
    registry
}

fn path() -> Path {
    Path { destination_mac: [2; 6], source_mac: [4; 6], egress: InterfaceSlot(0), mtu: 1500 }
}

/// The next table, with a way to each server.
fn table(registry: &mut Registry) -> ServiceTable {
    table_at(registry, 0, &[])
}

/// The next table at `now` in milliseconds, where these hosts have failed.
fn table_at(registry: &mut Registry, now: u64, failed: &[u8]) -> ServiceTable {
    let way = |address: IpAddr| {
        let failed = failed.iter().any(|&host| real(host).ip() == address);
        if failed { Way::Failed } else { Way::To(path()) }
    };
    registry.table(Now(now), way, |name| (name == "eth0").then_some(InterfaceSlot(0)))
}

/// Id, host and weight of the destinations that `web` picks from.
fn list(table: &ServiceTable) -> Vec<(u32, u8, u32)> {
    let show = |one: &Arc<Destination>| (one.id.0, host(one.address), one.weight);
    table.service(&web()).unwrap().destinations.iter().map(show).collect()
}

/// Host and weight of these.
fn weights(table: &ServiceTable) -> Vec<(u8, u32)> {
    list(table).into_iter().map(|(_, host, weight)| (host, weight)).collect()
}

fn host(address: IpAddr) -> u8 {
    let IpAddr::V4(v4) = address else { panic!("{address}") };
    v4.octets()[3]
}

/// The hosts that the next connections to `web` would go to; 0 for none.
fn picks(table: &ServiceTable, count: usize) -> Vec<u8> {
    let service = table.service(&web()).unwrap();
    let flow = NewFlow {
        client: ([192, 0, 2, 1], 1000).into(),
        virtual_address: ([10, 0, 0, 100], 80).into(),
        now: Now(0),
    };
    let pick = |_| {
        let position = service.scheduler.pick(&service.destinations, &flow);
        position.map_or(0, |position| host(service.destinations[position].address))
    };
    (0..count).map(pick).collect()
}

/// What the destination of this id is to its connections.
fn standing(table: &ServiceTable, id: u32) -> Option<Standing> {
    table.destination(DestinationId(id)).map(|destination| destination.standing)
}

/// The configuration of a file with these services.
fn configuration(services: &str) -> Configuration {
    let text = format!("[director]\ninterface = \"eth0\"\n{services}");
    config::parse("test.toml", &text, &Overrides::default()).unwrap()
}

/// The configuration of a file with `web`, by rr, and these destinations, host and weight.
fn file(destinations: &[(u8, u32)]) -> Configuration {
    let mut text = "[[service]]\naddress = \"10.0.0.100\"\nport = 80\nscheduler = \"rr\"\n".to_owned();
    for (host, weight) in destinations {
        text += &format!("[[service.destination]]\naddress = \"10.0.0.{host}\"\nweight = {weight}\n");
    }
    configuration(&text)
}

/// Hands a configuration over, of which nothing is refused.
fn apply(registry: &mut Registry, configuration: &Configuration) -> Changes {
    let (changes, refused) = registry.apply(configuration);
    assert_eq!(refused, []);
    changes
}
