//! The table in memory again, but reached as a daemon's is: by a client, over a socket, through the dispatcher. The tests
//! of the command line run over it unchanged.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::grammar::{Change, DestinationCommand};
use xlvs_control::adm::model::{
    ConnectionRow, DaemonRow, Role, Service, ServiceId, ServiceRow, SyncDaemon, Timeouts, Totals,
};
use xlvs_control::api::ipvs::{Access, Client, Peer, handle};

pub use crate::table::{Live, counters};

/// The peer that may do everything.
pub const ROOT: Peer = Peer { port: 0, access: Access::Full };

pub fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Answers until the client hangs up.
pub fn serve(socket: &OwnedFd, kernel: &mut dyn Kernel, peer: Peer) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((_, length)) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) else { return };
        if length == 0 {
            return;
        }
        for datagram in handle(&buffer[..length], kernel, peer) {
            if send(socket, &datagram, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Memory(crate::table::Memory);

impl Memory {
    pub fn new() -> Self {
        Self(crate::table::Memory::new())
    }

    /// A call over a socket of its own.
    pub fn over<T>(&mut self, call: impl FnOnce(&mut Client) -> T) -> T {
        let (ours, theirs) = pair();
        std::thread::scope(|scope| {
            scope.spawn(move || serve(&theirs, &mut self.0, ROOT));
            call(&mut Client::new(ours, Duration::from_secs(20)).unwrap())
        })
    }
}

impl Deref for Memory {
    type Target = crate::table::Memory;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Kernel for Memory {
    fn add_service(&mut self, service: &Service) -> Result<(), Errno> {
        self.over(|client| client.add_service(service))
    }

    fn edit_service(&mut self, service: &Service) -> Result<(), Errno> {
        self.over(|client| client.edit_service(service))
    }

    fn delete_service(&mut self, id: ServiceId) -> Result<(), Errno> {
        self.over(|client| client.delete_service(id))
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.over(Client::flush)
    }

    fn zero(&mut self, id: Option<ServiceId>) -> Result<(), Errno> {
        self.over(|client| client.zero(id))
    }

    fn add_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        self.over(|client| client.add_destination(destination))
    }

    fn edit_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        self.over(|client| client.edit_destination(destination))
    }

    fn delete_destination(&mut self, service: ServiceId, address: SocketAddr) -> Result<(), Errno> {
        self.over(|client| client.delete_destination(service, address))
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        self.over(|client| client.set_timeouts(timeouts))
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno> {
        self.over(|client| client.start_daemon(daemon))
    }

    fn stop_daemon(&mut self, role: Role) -> Result<(), Errno> {
        self.over(|client| client.stop_daemon(role))
    }

    fn make(&mut self, changes: &[Change]) -> Vec<Result<(), Errno>> {
        self.over(|client| client.make(changes))
    }

    fn connection_table_size(&mut self) -> Result<u32, Errno> {
        self.over(Client::connection_table_size)
    }

    fn services(&mut self) -> Result<Vec<ServiceRow>, Errno> {
        self.over(Client::services)
    }

    fn service(&mut self, id: ServiceId) -> Result<ServiceRow, Errno> {
        self.over(|client| client.service(id))
    }

    fn connections(&mut self) -> Result<Vec<ConnectionRow>, Errno> {
        self.over(Client::connections)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Errno> {
        self.over(Client::timeouts)
    }

    fn daemons(&mut self) -> Result<Vec<DaemonRow>, Errno> {
        self.over(Client::daemons)
    }

    fn totals(&mut self) -> Result<Totals, Errno> {
        self.over(Client::totals)
    }
}
