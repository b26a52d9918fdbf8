//! A director as the captures' kernel was: packets, changes and time go in; what came out, the connection and the counts are
//! looked at. Time is simulated, a millisecond a packet.

use std::sync::Arc;
use std::time::Duration;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::director::{ConnectionTables, Director};
use xlvs_dataplane::flow::{FlowKey, HashSeed};
use xlvs_dataplane::packet::{Key, Packet};
use xlvs_dataplane::scheduler::NewFlow;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::service::table::ServiceTable;

use crate::answer::Outcome;
use crate::line::Counts;
use crate::network;
use crate::registry::{Change, Registry};

/// The director and all that it works on.
pub struct Machine {
    director: Director,
    connections: ConnectionTables,
    registry: Registry,
    services: Arc<ServiceTable>,
    now: Now,
}

/// A connection as the table has it.
#[derive(Debug)]
pub struct Connection {
    pub state: State,
    /// The real server's address.
    pub server: std::net::IpAddr,
    /// Milliseconds.
    pub remaining: u64,
}

impl Machine {
    /// A director without services, whose servers are behind ordinary Ethernet.
    pub fn new() -> Self {
        Self::with_mtu(network::MTU)
    }

    /// A director without services, with this MTU on the way to all servers.
    pub fn with_mtu(mtu: u32) -> Self {
        let (population, seed) = (Arc::new(Population::new(4096)), HashSeed([0x5eed, 0x600d]));
        let connections = ConnectionTables {
            v4: Arc::new(ConnectionTable::new(Arc::clone(&population), seed)),
            v6: Arc::new(ConnectionTable::new(population, seed)),
        };
        let services = Arc::new(ServiceTable::default());
        let (counters, now) = (Arc::new(WorkerCounters::default()), Now(5_000_000));
        let mut director = Director::new(Arc::clone(&services), &connections, counters, 0, now);
        // The kernel answered dozens of a client's packets within a line: its icmp_ratelimit was 0.
        director.lift_answer_limit();
        Self { director, connections, registry: Registry::new(mtu), services, now }
    }

    /// Changes the service table.
    pub fn change(&mut self, change: &Change) {
        self.services = Arc::new(self.registry.apply(change));
        self.director.install(Arc::clone(&self.services));
    }

    /// Lets each service's scheduler pick this often for clients that nobody looks at.
    pub fn serve_others(&self, connections: u32) {
        for service in self.services.services() {
            let Some(vip) = service.key.vip() else { continue };
            let virtual_address = std::net::SocketAddr::new(vip, service.key.port());
            let flow = NewFlow { client: virtual_address, virtual_address, now: self.now };
            for _ in 0..connections {
                let _ = service.scheduler.pick(&service.destinations, &flow);
            }
        }
    }

    /// Hands the director a frame; returns what became of it.
    pub fn send(&mut self, frame: &mut [u8]) -> Outcome {
        self.sleep(Duration::from_millis(1));
        let verdict = self.director.process(frame, self.now);
        Outcome::new(verdict, frame, self.director.answer())
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        self.now = self.now.after(time);
        while self.director.expire(self.now, 1024) {}
    }

    /// The connection that a frame belongs to.
    pub fn connection(&self, frame: &[u8]) -> Option<Connection> {
        match Packet::parse(frame, frame.len()).ok()?.key {
            Key::V4(key) => self.look_up(&self.connections.v4, &key),
            Key::V6(key) => self.look_up(&self.connections.v6, &key),
        }
    }

    fn look_up<const WORDS: usize>(
        &self,
        table: &ConnectionTable<WORDS>,
        key: &FlowKey<WORDS>,
    ) -> Option<Connection> {
        let (slot, word) = table.find(key, table.hash(key))?;
        let record = table.record(slot)?;
        Some(Connection {
            state: word.state(),
            server: self.address(record.destination()),
            remaining: record.deadline().0.saturating_sub(self.now.0),
        })
    }

    fn address(&self, id: DestinationId) -> std::net::IpAddr {
        self.services.destination(id).expect("the destination of a live connection").address
    }

    /// Weights and counts of a service's destinations, by server.
    pub fn counts(&self, key: &ServiceKey) -> Counts {
        let service = self.services.service(key).expect("a service to count");
        let count = |one: &Arc<_>| {
            let one: &xlvs_dataplane::destination::Destination = one;
            let number = network::server_of_mac(network::path(one.address, network::MTU).destination_mac);
            (number.unwrap(), [one.weight, one.counters.active(), one.counters.inactive()])
        };
        service.destinations.iter().map(count).collect()
    }
}
