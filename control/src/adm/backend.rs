//! What a command needs of whoever holds the table: the daemon behind its socket, or a test's memory. Errors are the
//! kernel's numbers, and [`explain`] says what ipvsadm says of them.

use std::net::SocketAddr;

use rustix::io::Errno;

use super::grammar::{Change, DestinationCommand};
use super::model::{
    ConnectionRow, DaemonRow, Role, Service, ServiceId, ServiceRow, SyncDaemon, Timeouts, Totals,
};

/// A table of virtual services as the kernel's interface has it. Lists come in the table's own order, destinations newest
/// first; each call stands for itself, so a list may be older than the next.
pub trait Kernel {
    /// Adds a service; `EXIST` if it is there, `NOENT` if there is no such scheduler or persistence engine.
    ///
    /// # Errors
    /// As said, or `INVAL`.
    fn add_service(&mut self, service: &Service) -> Result<(), Errno>;
    /// Changes a service; `SRCH` if it isn't there, `NOENT` as above.
    ///
    /// # Errors
    /// As said, or `INVAL`.
    fn edit_service(&mut self, service: &Service) -> Result<(), Errno>;
    /// Removes a service and its destinations; `SRCH` if it isn't there.
    ///
    /// # Errors
    /// As said.
    fn delete_service(&mut self, id: ServiceId) -> Result<(), Errno>;
    /// Removes all services.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn flush(&mut self) -> Result<(), Errno>;
    /// Zeroes the counters of one service or of all; `SRCH` if it isn't there.
    ///
    /// # Errors
    /// As said.
    fn zero(&mut self, id: Option<ServiceId>) -> Result<(), Errno>;
    /// Adds a destination; `SRCH` without the service, `EXIST` if it is there.
    ///
    /// # Errors
    /// As said, or `INVAL`.
    fn add_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno>;
    /// Changes a destination; `SRCH` without the service, `NOENT` without the destination.
    ///
    /// # Errors
    /// As said, or `INVAL`.
    fn edit_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno>;
    /// Removes a destination; `SRCH` without the service, `NOENT` without the destination.
    ///
    /// # Errors
    /// As said.
    fn delete_destination(&mut self, service: ServiceId, address: SocketAddr) -> Result<(), Errno>;
    /// Sets the timeouts that aren't 0.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno>;
    /// Starts a connection sync daemon; `EXIST` if one has the role, `NODEV` without the interface.
    ///
    /// # Errors
    /// As said, or `INVAL`.
    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno>;
    /// Stops a connection sync daemon; `SRCH` if none has the role.
    ///
    /// # Errors
    /// As said.
    fn stop_daemon(&mut self, role: Role) -> Result<(), Errno>;

    /// Makes changes in their order, each whatever became of those before; how each went. Who can do several at once cheaper than
    /// one by one does so here.
    fn make(&mut self, changes: &[Change]) -> Vec<Result<(), Errno>> {
        changes.iter().map(|change| change.make(self)).collect()
    }

    /// The size of the connection table, for the first line of lists.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn connection_table_size(&mut self) -> Result<u32, Errno>;
    /// All services with their destinations.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn services(&mut self) -> Result<Vec<ServiceRow>, Errno>;
    /// One service with its destinations; `SRCH` if it isn't there.
    ///
    /// # Errors
    /// As said.
    fn service(&mut self, id: ServiceId) -> Result<ServiceRow, Errno>;
    /// All connections and connection templates.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn connections(&mut self) -> Result<Vec<ConnectionRow>, Errno>;
    /// The timeouts.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn timeouts(&mut self) -> Result<Timeouts, Errno>;
    /// The connection sync daemons.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn daemons(&mut self) -> Result<Vec<DaemonRow>, Errno>;
    /// All traffic.
    ///
    /// # Errors
    /// When the table can't be reached.
    fn totals(&mut self) -> Result<Totals, Errno>;
}

impl Change {
    fn make(&self, kernel: &mut (impl Kernel + ?Sized)) -> Result<(), Errno> {
        match self {
            Self::AddService(service) => kernel.add_service(service),
            Self::EditService(service) => kernel.edit_service(service),
            Self::DeleteService(id) => kernel.delete_service(*id),
            Self::Flush => kernel.flush(),
            Self::Zero(id) => kernel.zero(*id),
            Self::AddDestination(destination) => kernel.add_destination(destination),
            Self::EditDestination(destination) => kernel.edit_destination(destination),
            Self::DeleteDestination { service, address } => kernel.delete_destination(*service, *address),
            Self::SetTimeouts(timeouts) => kernel.set_timeouts(*timeouts),
            Self::StartDaemon(daemon) => kernel.start_daemon(daemon),
            Self::StopDaemon(role) => kernel.stop_daemon(*role),
        }
    }

    /// What it is to messages.
    pub(super) const fn operation(&self) -> Operation {
        match self {
            Self::AddService(_) => Operation::AddService,
            Self::EditService(_) => Operation::EditService,
            Self::DeleteService(_) | Self::Zero(_) => Operation::NamedService,
            Self::AddDestination(_) => Operation::AddDestination,
            Self::EditDestination(_) | Self::DeleteDestination { .. } => Operation::NamedDestination,
            Self::StartDaemon(_) => Operation::StartDaemon,
            Self::StopDaemon(_) => Operation::StopDaemon,
            Self::Flush | Self::SetTimeouts(_) => Operation::Whole,
        }
    }
}

/// What failed, as far as messages tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adding a service.
    AddService,
    /// Changing one.
    EditService,
    /// Removing, zeroing or listing one.
    NamedService,
    /// Adding a destination.
    AddDestination,
    /// Changing or removing one.
    NamedDestination,
    /// Starting a connection sync daemon.
    StartDaemon,
    /// Stopping one.
    StopDaemon,
    /// Anything that needs no name.
    Whole,
}

/// What ipvsadm says of an error.
#[must_use]
pub fn explain(operation: Operation, error: Errno) -> String {
    let text = match (operation, error) {
        (Operation::AddService, Errno::EXIST) => "Service already exists",
        (Operation::AddService | Operation::EditService, Errno::NOENT) => {
            "Scheduler or persistence engine not found"
        }
        (Operation::EditService | Operation::NamedService, Errno::SRCH) => "No such service",
        (Operation::AddDestination | Operation::NamedDestination, Errno::SRCH) => "Service not defined",
        (Operation::AddDestination, Errno::EXIST) => "Destination already exists",
        (Operation::NamedDestination, Errno::NOENT) => "No such destination",
        (Operation::StartDaemon, Errno::EXIST) => "Daemon has already run",
        (Operation::StopDaemon, Errno::SRCH) => "No daemon is running",
        (_, Errno::PERM) => "Permission denied (you must be root)",
        (_, Errno::NOMEM) => "Memory allocation problem",
        (_, Errno::INVAL) => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        (_, Errno::OPNOTSUPP) => "Operation not supported with IPv6",
        (_, Errno::AFNOSUPPORT) => "Operation not supported with specified address family",
        (_, other) => {
            let text = std::io::Error::from(other).to_string();
            return match text.split_once(" (os error ") {
                Some((text, _)) => text.to_owned(),
                None => text,
            };
        }
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_their_operation_or_the_systems() {
        for (operation, error, text) in [
            (Operation::AddService, Errno::EXIST, "Service already exists"),
            (Operation::EditService, Errno::EXIST, "File exists"),
            (Operation::Whole, Errno::SRCH, "No such process"),
            (Operation::StartDaemon, Errno::NODEV, "No such device"),
            (Operation::NamedDestination, Errno::SRCH, "Service not defined"),
        ] {
            assert_eq!(explain(operation, error), text);
        }
    }
}
