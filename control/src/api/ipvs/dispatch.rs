//! What the daemon answers. A message gets all its answers before the next one of its datagram is read; a list is
//! written piece by piece as it is taken, so what a client can make the daemon hold is one list.
//!
//! As the kernel does: success is acknowledged when it is asked for, failure always; a list ends with NLMSG_DONE and is
//! never acknowledged; a message that isn't a request is passed over. Unlike the kernel, what isn't a message at all gets
//! an EINVAL too, so that nobody waits for an answer in vain.

use std::fmt;

use netlink_packet_core::{NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader};
use netlink_packet_generic::constants::GENL_ID_CTRL;
use rustix::io::Errno;

use super::convert::service::Named;
use super::convert::{daemon, destination, service};
use super::frame::{self, Address};
use super::listing::{self, Listing};
use super::message::{Attributes, Command, Info, Ipvs};
use super::{IPVS_FAMILY_ID, IPVS_VERSION, MAX_ANSWER_BYTES, control};
use crate::adm::backend::Kernel;
use crate::adm::model::{Service, ServiceId, Timeouts};
use crate::api;

/// Message types below are netlink's own.
const FIRST_FAMILY: u16 = 16;
/// The longest timeout that the kernel takes, in seconds: its clock has 250 ticks a second, and 31 bits.
const MAX_TIMEOUT_S: u32 = i32::MAX as u32 / 250;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Ask; to change anything is refused with EPERM.
    ReadOnly,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The netlink port that answers carry; 0 for the one that each request carries.
    pub port: u32,
    /// What it may do.
    pub access: Access,
}

/// Whether a message of a datagram is for [`answer`]: of the families `IPVS` and `nlctrl`, and those of `XLVS` that list
/// what IPVS lists. What isn't a message is, too.
#[must_use]
pub fn handles(message: &[u8]) -> bool {
    let Some(header) = frame::header(message) else { return true };
    match header.message_type {
        api::FAMILY_ID => {
            frame::generic(message).is_none_or(|(command, _)| command >= listing::FIRST_COMMAND)
        }
        _ => true,
    }
}

/// Whether a message of a datagram asks for a list, whose length the message doesn't bound.
#[must_use]
pub fn lists(message: &[u8]) -> bool {
    frame::header(message).is_none_or(|header| frame::is_dump(&header))
}

/// The messages of a datagram, each for [`answer`]. What isn't a message comes whole as the last.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    frame::split(datagram)
}

/// The datagrams that answer a datagram.
pub fn handle<'a>(
    datagram: &'a [u8],
    kernel: &'a mut dyn Kernel,
    peer: Peer,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    messages(datagram).flat_map(move |message| answer(message, kernel, peer))
}

/// The datagrams that answer a message, of which there is none where none is due.
#[must_use]
pub fn answer(message: &[u8], kernel: &mut dyn Kernel, peer: Peer) -> Replies {
    let header = frame::header(message);
    let known = header.unwrap_or_else(|| frame::doubtful_header(message));
    let to = address(&known, peer);
    let result = match header {
        None => Err(Errno::INVAL),
        Some(header) if header.flags & NLM_F_REQUEST == 0 || header.message_type < FIRST_FAMILY => {
            Ok(Outcome::Changed)
        }
        Some(header) => serve(&header, message, kernel, peer.access, to),
    };
    let refused = |errno| to.acknowledge(&known, Some((errno, "")));
    match result {
        Err(errno) => Replies::single(refused(errno)),
        Ok(Outcome::List(rows)) => Replies { single: None, list: Some(List { rows, next: None, to }) },
        Ok(outcome) => {
            let ack = frame::wants_ack(&known).then(|| to.acknowledge(&known, None));
            match outcome {
                Outcome::Told(message) => Replies { single: Some((message, ack)), list: None },
                _ => Replies { single: ack.map(|ack| (ack, None)), list: None },
            }
        }
    }
}

/// What answers a message that can't be served, whatever it asks for: a table that is out of reach, a change that could not
/// be kept.
#[must_use]
pub fn refuse(message: &[u8], peer: Peer, errno: Errno) -> Replies {
    let known = frame::header(message).unwrap_or_else(|| frame::doubtful_header(message));
    Replies::single(address(&known, peer).acknowledge(&known, Some((errno, ""))))
}

fn address(request: &NetlinkHeader, peer: Peer) -> Address {
    let port = if peer.port == 0 { request.port_number } else { peer.port };
    Address { sequence: request.sequence_number, port }
}

/// How a request went.
enum Outcome {
    /// It is done, or there was nothing to do.
    Changed,
    /// This message answers it.
    Told(Vec<u8>),
    /// These messages do.
    List(Rows),
}

type Rows = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// The datagrams that answer a message. They need the table no more.
pub struct Replies {
    /// One, and the one after it.
    single: Option<(Vec<u8>, Option<Vec<u8>>)>,
    list: Option<List>,
}

struct List {
    rows: Rows,
    /// A message that didn't fit into the last datagram.
    next: Option<Vec<u8>>,
    to: Address,
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("single", &self.single).field("list", &self.list.is_some()).finish()
    }
}

impl Replies {
    fn single(datagram: Vec<u8>) -> Self {
        Self { single: Some((datagram, None)), list: None }
    }
}

impl Iterator for Replies {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some((datagram, after)) = self.single.take() {
            self.single = after.map(|after| (after, None));
            return Some(datagram);
        }
        let list = self.list.as_mut()?;
        let mut datagram = list.next.take().unwrap_or_default();
        for message in &mut list.rows {
            if !datagram.is_empty() && datagram.len() + message.len() > MAX_ANSWER_BYTES {
                list.next = Some(message);
                return Some(datagram);
            }
            datagram.extend_from_slice(&message);
        }
        let done = list.to.done();
        if datagram.len() + done.len() > MAX_ANSWER_BYTES {
            self.single = Some((done, None));
        } else {
            datagram.extend_from_slice(&done);
        }
        self.list = None;
        Some(datagram)
    }
}

fn serve(
    header: &NetlinkHeader,
    message: &[u8],
    kernel: &mut dyn Kernel,
    access: Access,
    to: Address,
) -> Result<Outcome, Errno> {
    let is_dump = frame::is_dump(header);
    let generic = frame::generic(message).ok_or(Errno::INVAL);
    match header.message_type {
        GENL_ID_CTRL => {
            let (command, payload) = generic?;
            if is_dump {
                return Ok(listed(control::families(command)?, move |row| to.message(row, NLM_F_MULTIPART)));
            }
            Ok(Outcome::Told(to.message(control::family(command, payload)?, 0)))
        }
        IPVS_FAMILY_ID => {
            let (command, payload) = generic?;
            let command = Command::from_number(command).ok_or(Errno::OPNOTSUPP)?;
            let attributes = || Ipvs::read(command.number(), payload).map(Ipvs::into_attributes);
            match (command, is_dump) {
                (Command::GetService | Command::GetDestination | Command::GetDaemon, true) => {
                    list(command, attributes(), kernel, to)
                }
                (Command::GetService | Command::GetConfig | Command::GetInfo, false) => {
                    Ok(Outcome::Told(to.message(tell(command, &attributes()?, kernel)?, 0)))
                }
                (Command::SetInfo | Command::GetDestination | Command::GetDaemon, _) | (_, true) => {
                    Err(Errno::OPNOTSUPP)
                }
                _ if access == Access::ReadOnly && !command.only_reads() => Err(Errno::PERM),
                _ => change(command, &attributes()?, kernel).map(|()| Outcome::Changed),
            }
        }
        api::FAMILY_ID => {
            let (command, payload) = generic?;
            match Listing::read(command, payload)? {
                Listing::GetConnections if is_dump => {
                    let rows = kernel.connections()?.into_iter().map(Box::new).map(Listing::Connection);
                    Ok(listed(rows, move |row| to.message(row, NLM_F_MULTIPART)))
                }
                Listing::GetTotals if is_dump => {
                    let totals = kernel.totals()?;
                    let workers = totals.workers.into_iter().map(Listing::Worker);
                    let rows = std::iter::once(Listing::Total(totals.traffic)).chain(workers);
                    Ok(listed(rows, move |row| to.message(row, NLM_F_MULTIPART)))
                }
                _ => Err(Errno::OPNOTSUPP),
            }
        }
        _ => Err(Errno::NOENT),
    }
}

fn listed<R, I>(rows: I, message: impl FnMut(R) -> Vec<u8> + Send + 'static) -> Outcome
where
    I: Iterator<Item = R> + Send + 'static,
{
    Outcome::List(Box::new(rows.map(message)))
}

/// Answers a request for a list.
fn list(
    command: Command,
    attributes: Result<Attributes, Errno>,
    kernel: &mut dyn Kernel,
    to: Address,
) -> Result<Outcome, Errno> {
    let message = move |command, attributes| to.message(Ipvs::new(command, attributes), NLM_F_MULTIPART);
    Ok(match command {
        Command::GetService => {
            let rows: Vec<_> = kernel.services()?.into_iter().map(|row| (row.service, row.traffic)).collect();
            listed(rows.into_iter(), move |(service, traffic)| {
                let service = Some(service::listed(&service, traffic));
                message(Command::NewService, Attributes { service, ..Attributes::default() })
            })
        }
        Command::GetDestination => {
            let id = attributes.and_then(|attributes| service::named(attributes.service.as_ref()));
            let rows = match id {
                Ok(Some(id)) => match kernel.service(id) {
                    Ok(row) => row.destinations,
                    Err(Errno::SRCH) => Vec::new(),
                    Err(error) => return Err(error),
                },
                // As the kernel: what names no service has no destinations.
                _ => Vec::new(),
            };
            listed(rows.into_iter(), move |row| {
                let destination = Some(destination::listed(&row));
                message(Command::NewDestination, Attributes { destination, ..Attributes::default() })
            })
        }
        _ => listed(kernel.daemons()?.into_iter(), move |row| {
            let daemon = Some(daemon::listed(row));
            message(Command::NewDaemon, Attributes { daemon, ..Attributes::default() })
        }),
    })
}

/// Answers a request for one thing.
fn tell(command: Command, attributes: &Attributes, kernel: &mut dyn Kernel) -> Result<Ipvs, Errno> {
    Ok(match command {
        Command::GetService => {
            let row = kernel.service(existing(service::named(attributes.service.as_ref())?)?)?;
            let service = Some(service::listed(&row.service, row.traffic));
            Ipvs::new(Command::NewService, Attributes { service, ..Attributes::default() })
        }
        Command::GetConfig => {
            let Timeouts { tcp_s, tcp_fin_s, udp_s } = kernel.timeouts()?;
            let (tcp_s, tcp_fin_s, udp_s) = (Some(tcp_s), Some(tcp_fin_s), Some(udp_s));
            Ipvs::new(Command::SetConfig, Attributes { tcp_s, tcp_fin_s, udp_s, ..Attributes::default() })
        }
        _ => Ipvs::info(Info {
            version: Some(IPVS_VERSION),
            connection_table_size: Some(kernel.connection_table_size()?),
        }),
    })
}

/// A service that there can't be isn't there.
fn existing(named: Named) -> Result<ServiceId, Errno> {
    named.ok_or(Errno::SRCH)
}

/// Makes a change.
fn change(command: Command, attributes: &Attributes, kernel: &mut dyn Kernel) -> Result<(), Errno> {
    match command {
        Command::Flush => return kernel.flush(),
        Command::SetConfig => return configure(attributes, kernel),
        Command::NewDaemon => return kernel.start_daemon(&daemon::command(attributes.daemon.as_ref())?),
        Command::DelDaemon => return kernel.stop_daemon(daemon::role(attributes.daemon.as_ref())?),
        Command::Zero if attributes.service.is_none() => return kernel.zero(None),
        _ => {}
    }
    let named = service::named(attributes.service.as_ref())?;
    match command {
        Command::NewService | Command::SetService => change_service(command, named, attributes, kernel),
        Command::DelService => kernel.delete_service(existing(named)?),
        Command::Zero => kernel.zero(Some(existing(named)?)),
        _ => change_destination(command, existing(named)?, attributes, kernel),
    }
}

fn change_service(
    command: Command,
    named: Named,
    attributes: &Attributes,
    kernel: &mut dyn Kernel,
) -> Result<(), Errno> {
    let attributes = attributes.service.as_ref().ok_or(Errno::INVAL)?;
    let is_new = command == Command::NewService;
    let id = named.ok_or(if is_new { Errno::INVAL } else { Errno::SRCH })?;
    let present = || kernel.service(id).map_or(0, |row| service::flags(&row.service.settings));
    let settings = service::settings(attributes, id.family(), present)?;
    let service = Service { id, settings };
    if is_new { kernel.add_service(&service) } else { kernel.edit_service(&service) }
}

fn change_destination(
    command: Command,
    service: ServiceId,
    attributes: &Attributes,
    kernel: &mut dyn Kernel,
) -> Result<(), Errno> {
    let attributes = attributes.destination.as_ref();
    let result =
        match command {
            Command::DelDestination => destination::named(attributes, service.family())
                .map(|address| kernel.delete_destination(service, address)),
            Command::NewDestination => destination::command(attributes, service)
                .map(|destination| kernel.add_destination(&destination)),
            _ => destination::command(attributes, service)
                .map(|destination| kernel.edit_destination(&destination)),
        };
    // That there is no such service comes before what is wrong with the destination.
    result.unwrap_or_else(|error| kernel.service(service).and(Err(error)))
}

fn configure(attributes: &Attributes, kernel: &mut dyn Kernel) -> Result<(), Errno> {
    let [tcp_s, tcp_fin_s, udp_s] =
        [attributes.tcp_s, attributes.tcp_fin_s, attributes.udp_s].map(Option::unwrap_or_default);
    if [tcp_s, tcp_fin_s, udp_s].iter().any(|&timeout_s| timeout_s > MAX_TIMEOUT_S) {
        return Err(Errno::INVAL);
    }
    kernel.set_timeouts(Timeouts { tcp_s, tcp_fin_s, udp_s })
}
