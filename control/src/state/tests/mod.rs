//! The state as the daemon uses it: operations are carried out, noted and committed; then the directory is opened again and what
//! it gives is looked at.
#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod merge;
mod round_trip;
mod size;

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::scheduler::SchedulerName;

use super::*;
use crate::config::{self, Configuration, Overrides};
use crate::registry::{DestinationSpec, MarkSpec, ServiceSpec, TimeoutsChange, Way};
use xlvs_dataplane::service::ServiceKey;

/// The system's disk without waiting for it.
#[derive(Clone, Copy, Debug)]
struct Quick;

impl Disk for Quick {
    fn create(&self, path: &Path) -> io::Result<File> {
        System.create(path)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        System.write(file, bytes)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

fn registry() -> Registry {
    Registry::new(1, 7)
}

/// tcp 10.0.0.`host`:80.
fn service(host: u8) -> ServiceKey {
    record::key(&format!("tcp 10.0.0.{host}:80")).unwrap()
}

fn real(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, host], 80))
}

fn by(scheduler: SchedulerName) -> ServiceSpec {
    ServiceSpec { scheduler, ..ServiceSpec::default() }
}

fn weighing(weight: u32) -> DestinationSpec {
    DestinationSpec { weight, ..DestinationSpec::default() }
}

fn rule(mark: u32) -> MarkSpec {
    MarkSpec {
        mark: mark.try_into().unwrap(),
        protocol: None,
        destination: "10.0.0.100/32".parse().unwrap(),
        ports: vec![(80, 80), (8000, 8999)],
        source: None,
        interface: None,
    }
}

/// The configuration of a file with these lines.
fn file(text: &str) -> Configuration {
    let text = format!("[director]\ninterface = \"eth0\"\n{text}");
    config::parse("test.toml", &text, &Overrides::default()).unwrap()
}

/// A file's service 10.0.0.1:80 with these destinations, host and weight.
fn web(destinations: &[(u8, u32)]) -> String {
    let mut text = "[[service]]\naddress = \"10.0.0.1\"\nport = 80\nscheduler = \"mh\"\n".to_owned();
    for (host, weight) in destinations {
        text += &format!("[[service.destination]]\naddress = \"10.0.1.{host}\"\nweight = {weight}\n");
    }
    text
}

/// Everything that is kept of a registry.
fn kept(registry: &Registry) -> String {
    snapshot::encode(&Content::gather(registry)).unwrap()
}

/// What a scheduler walks.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    service: String,
    scheduler: SchedulerName,
    /// In their order: the real server, its weight and the weight before.
    destinations: Vec<(String, u32, u32)>,
}

fn lists(registry: &mut Registry) -> Vec<Listed> {
    let keys: Vec<ServiceKey> = registry.services().map(|(key, _)| *key).collect();
    let table = registry.table(Now(0), |_| Way::Unknown, |_| None);
    let list = |key: &ServiceKey| {
        let service = table.service(key).unwrap();
        let destinations = service.destinations.iter();
        let show = |one: &std::sync::Arc<xlvs_dataplane::destination::Destination>| {
            (one.address.to_string(), one.weight, one.counters.last_weight())
        };
        let destinations = destinations.map(show).collect();
        Listed { service: key.to_string(), scheduler: service.scheduler.name(), destinations }
    };
    keys.iter().map(list).collect()
}

/// Carries operations out, each one acknowledged before the next.
fn perform<D: Disk>(store: &mut Store<D>, registry: &mut Registry, operations: &[Operation]) {
    for operation in operations {
        operation.perform(registry).unwrap();
        store.note(operation);
        store.commit(registry).unwrap();
    }
}

fn open(directory: &Path) -> (Store<Quick>, Loaded) {
    Store::open_on(Quick, directory).unwrap()
}

/// What the next daemon begins with; nothing is to be wrong with it.
fn reopened(directory: &Path) -> Registry {
    let (_, loaded) = open(directory);
    assert_eq!(loaded.messages, [""; 0]);
    let mut registry = registry();
    assert_eq!(loaded.restore(&mut registry), [""; 0]);
    registry
}

/// A directory with a state file of one service, two destinations, a rule and a setting, and a journal of one operation.
fn small(directory: &TempDir) -> Registry {
    let (mut store, _) = open(directory.path());
    let mut registry = registry();
    perform(
        &mut store,
        &mut registry,
        &[
            Operation::AddService(service(1), by(SchedulerName::Wrr)),
            Operation::AddDestination(service(1), real(1), weighing(5)),
            Operation::AddDestination(service(1), real(2), weighing(1)),
            Operation::AddMark(rule(7)),
            Operation::SetSetting("sloppy_tcp".to_owned(), 1),
            Operation::SetTimeouts(TimeoutsChange { udp_s: Some(60), ..TimeoutsChange::default() }),
        ],
    );
    store.save(&registry).unwrap();
    perform(&mut store, &mut registry, &[Operation::AddDestination(service(1), real(3), weighing(2))]);
    registry
}
