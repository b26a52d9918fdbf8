//! Between what directors tell each other, addresses, and what the tables know destinations by, their numbers.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::HashMap;
use xlvs_dataplane::connection::store::Identity;
use xlvs_dataplane::destination::DestinationId;
use xlvs_dataplane::flow::{Family, Flow, Protocol};
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::service::{FTP_PORT, ServiceKey};
use xlvs_dataplane::synchronization::Note;

use super::entry::{Entry, Method};

/// All destinations at one moment, those included that left and have connections.
#[derive(Debug, Default)]
pub struct Names {
    services: Arc<ServiceTable>,
    /// By service and real server: port and number of each.
    ids: HashMap<(ServiceKey, IpAddr), Vec<(u16, DestinationId)>>,
}

impl Names {
    /// The names of a table's destinations.
    pub fn new(services: Arc<ServiceTable>, named: impl Iterator<Item = (DestinationId, Identity)>) -> Self {
        let mut ids: HashMap<_, Vec<_>> = HashMap::default();
        for (id, Identity { service, real }) in named {
            ids.entry((service, real.ip())).or_default().push((real.port(), id));
        }
        Self { services, ids }
    }

    /// The table that they are of.
    #[must_use]
    pub fn services(&self) -> &Arc<ServiceTable> {
        &self.services
    }

    /// Whether a destination has a number now.
    #[must_use]
    pub fn knows(&self, Unknown(identity): &Unknown) -> bool {
        self.ids.contains_key(&(identity.service, identity.real.ip()))
    }

    /// The note of an entry, or who its destination is if that is not known.
    ///
    /// # Errors
    /// The destination.
    pub fn note(&self, entry: &Entry) -> Result<Note, Unknown> {
        let service = self.service_of(entry);
        let ids = self.ids.get(&(service, entry.real.ip()));
        let exactly = ids.and_then(|ids| ids.iter().find(|(port, _)| *port == entry.real.port()));
        let any = || ids.and_then(|ids| ids.first());
        let unknown = || {
            // As tools name destinations of marks.
            let port = if matches!(service, ServiceKey::Mark { .. }) { 0 } else { entry.real.port() };
            Unknown(Identity { service, real: SocketAddr::new(entry.real.ip(), port) })
        };
        let (_, destination) = exactly.or_else(any).ok_or_else(unknown)?;
        Ok(Note {
            flow: Flow {
                protocol: Protocol::from_number(entry.protocol),
                client: entry.client,
                virtual_address: entry.virtual_address,
                template: entry.state.is_template(),
            },
            destination: *destination,
            state: entry.state,
            mark: entry.mark,
            timeout_s: entry.timeout_s,
        })
    }

    /// The service that the entry is of, whether it is there or not.
    fn service_of(&self, entry: &Entry) -> ServiceKey {
        let virtual_address = entry.virtual_address;
        let of_mark = |mark| {
            let family = Family::of(virtual_address.ip());
            NonZeroU32::new(mark).map(|mark| ServiceKey::Mark { family, mark })
        };
        let Some(protocol) = Protocol::from_number(entry.protocol) else {
            let mark = match virtual_address.ip() {
                IpAddr::V4(address) => address.to_bits(),
                // The first four bytes.
                IpAddr::V6(address) => (address.to_bits() >> 96) as u32,
            };
            return of_mark(mark).unwrap_or_else(|| of_address(Protocol::Tcp, virtual_address));
        };
        let is_template = entry.state.is_template();
        let found = self.services.find(protocol, virtual_address, entry.mark);
        // A template of an FTP service is of no port.
        let ftp = || {
            let control = of_address(protocol, SocketAddr::new(virtual_address.ip(), FTP_PORT));
            let may_be = is_template && virtual_address.port() == 0 && protocol == Protocol::Tcp;
            may_be.then(|| self.services.service(&control)).flatten()
        };
        match found.or_else(ftp) {
            Some(service) => service.key,
            None => of_mark(entry.mark).unwrap_or_else(|| of_address(protocol, virtual_address)),
        }
    }
}

/// A destination that is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown(pub Identity);

const fn of_address(protocol: Protocol, address: SocketAddr) -> ServiceKey {
    ServiceKey::Address { protocol, address }
}

/// The entry of a connection that goes to a destination of the table.
#[must_use]
pub fn entry(services: &ServiceTable, note: &Note) -> Option<Entry> {
    let destination = services.destination(note.destination)?;
    // A message has one family an entry: a real server of the other one can't be named.
    let address = Some(destination.address).filter(|its| Family::of(*its) == note.flow.family())?;
    Some(Entry {
        protocol: note.flow.protocol.map_or(0, Protocol::number),
        client: note.flow.client,
        virtual_address: note.flow.virtual_address,
        real: SocketAddr::new(address, note.flow.virtual_address.port()),
        method: Method::DirectRoute,
        state: note.state,
        is_inactive: note.state.is_inactive(),
        mark: note.mark,
        timeout_s: note.timeout_s,
    })
}
