//! A table that is behind the daemon's socket: each call is a request and its answers, and waits for them. Requests of one
//! call may share a datagram. What the daemon refuses comes back as its errno; so does a socket that fails:
//! `TIMEDOUT` when nothing comes for the limit, `CONNRESET` when the daemon hangs up, `BADMSG` for what can't be understood.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{
    Emitable, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader,
};
use netlink_packet_generic::GenlFamily;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use super::convert::{daemon, destination, service};
use super::frame::{self, Address, HEADER_BYTES};
use super::listing::Listing;
use super::message::{Attributes, Command, Ipvs};
use super::{IPVS_FAMILY_ID, Name};
use crate::adm::backend::Kernel;
use crate::adm::grammar::{Change, DestinationCommand};
use crate::adm::model::{
    ConnectionRow, DaemonRow, DestinationRow, Role, Service, ServiceId, ServiceRow, SyncDaemon, Timeouts,
    Totals, Traffic,
};
use crate::api;

/// How long the daemon may take for each datagram, unless another limit is given.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Room for an answer's datagram; the daemon's have at most 8 KiB.
const BUFFER_BYTES: usize = 64 << 10;
/// The most bytes that may answer a call: those of millions of connections.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// Of the last request.
    sequence: u32,
    buffer: Vec<u8>,
}

/// A request to be, and whether it asks for a list.
struct Request<F> {
    payload: F,
    is_list: bool,
}

/// What answers a request.
enum Answer<'a> {
    /// A message of its: command and attributes.
    Message(u8, &'a [u8]),
    /// Its end: it is done, or refused.
    End(Result<(), Errno>),
}

impl Client {
    /// Connects to a daemon's socket.
    ///
    /// # Errors
    /// When nobody listens there, or this user may not ask.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_LIMIT))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket, ANSWER_LIMIT)
    }

    /// Asks over a socket that is connected to a daemon; no datagram may take longer than the limit, which isn't zero.
    ///
    /// # Errors
    /// When the limit can't be set.
    pub fn new(socket: OwnedFd, limit: Duration) -> io::Result<Self> {
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends requests, and takes the messages that answer them, each with the number of its request. After the first error no
    /// more are sent.
    fn ask<F: GenlFamily + Emitable + std::fmt::Debug>(
        &mut self,
        requests: impl IntoIterator<Item = Request<F>>,
        mut take: impl FnMut(usize, u8, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.send_all(requests, |number, answer| match answer {
            Answer::Message(command, payload) => take(number, command, payload),
            Answer::End(ended) => ended,
        })
    }

    /// Sends requests, as many in a datagram as fit, and takes what answers them, each with the number of its request. After
    /// the first answer that can't be taken no more are sent.
    fn send_all<F: GenlFamily + Emitable + std::fmt::Debug>(
        &mut self,
        requests: impl IntoIterator<Item = Request<F>>,
        mut take: impl FnMut(usize, Answer<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut datagram = Vec::new();
        let (mut number, mut pending) = (0, 0);
        let mut bytes_left = MAX_ANSWER_BYTES;
        for Request { payload, is_list } in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let to = Address { sequence: self.sequence, port: 0 };
            let flags = NLM_F_REQUEST | if is_list { NLM_F_DUMP } else { NLM_F_ACK };
            let message = to.message(payload, flags);
            if datagram.len() + message.len() > api::MAX_REQUEST_DATAGRAM {
                self.exchange(&datagram, number - pending..number, &mut bytes_left, &mut take)?;
                datagram.clear();
                pending = 0;
            }
            datagram.extend_from_slice(&message);
            number += 1;
            pending += 1;
        }
        self.exchange(&datagram, number - pending..number, &mut bytes_left, &mut take)
    }

    /// Sends a datagram with the requests of these numbers and takes all their answers.
    fn exchange(
        &mut self,
        datagram: &[u8],
        numbers: std::ops::Range<usize>,
        bytes_left: &mut usize,
        take: &mut impl FnMut(usize, Answer<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some(first) = frame::header(datagram).map(|header| header.sequence_number) else { return Ok(()) };
        match send(&self.socket, datagram, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE) => return Err(Errno::CONNRESET),
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            Err(error) => return Err(error),
        }
        let mut result = Ok(());
        let mut pending = numbers.len();
        while pending > 0 {
            let length = self.receive()?;
            *bytes_left = bytes_left.checked_sub(length).ok_or(Errno::MSGSIZE)?;
            for message in frame::split(&self.buffer[..length]) {
                let header = frame::header(message).ok_or(Errno::BADMSG)?;
                let number = numbers.start + header.sequence_number.wrapping_sub(first) as usize;
                if !numbers.contains(&number) {
                    // Of a call that gave up waiting.
                    continue;
                }
                let answer = match end(&header, message) {
                    Some(ended) => {
                        pending = pending.saturating_sub(1);
                        Answer::End(ended)
                    }
                    None => {
                        let (command, payload) = frame::generic(message).ok_or(Errno::BADMSG)?;
                        Answer::Message(command, payload)
                    }
                };
                if result.is_ok() {
                    result = take(number, answer);
                }
            }
        }
        result
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        loop {
            return match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Ok((_, 0)) => Err(Errno::CONNRESET),
                Ok((_, length)) if length > self.buffer.len() => Err(Errno::MSGSIZE),
                Ok((_, length)) => Ok(length),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Err(Errno::TIMEDOUT),
                Err(error) => Err(error),
            };
        }
    }

    /// Has a change made.
    fn order(&mut self, change: &Change) -> Result<(), Errno> {
        let payload = order(change)?;
        self.ask([Request { payload, is_list: false }], |_, _, _| Ok(()))
    }

    /// Asks for one message.
    fn one(&mut self, command: Command, attributes: Attributes) -> Result<Ipvs, Errno> {
        let mut answer = None;
        let payload = Ipvs::new(command, attributes);
        self.ask([Request { payload, is_list: false }], |_, command, payload| {
            answer = Some(understood(Ipvs::read(command, payload))?);
            Ok(())
        })?;
        answer.ok_or(Errno::BADMSG)
    }

    /// Asks for the destinations of services, given by their names.
    fn destinations(&mut self, services: &[ServiceId]) -> Result<Vec<Vec<DestinationRow>>, Errno> {
        let mut lists = vec![Vec::new(); services.len()];
        let requests = services.iter().map(|&id| Request {
            payload: Ipvs::new(Command::GetDestination, of_service(id)),
            is_list: true,
        });
        self.ask(requests, |number, command, payload| {
            let attributes = understood(Ipvs::read(command, payload))?.into_attributes().destination;
            let family = services[number].family();
            let row = destination::from_list(&attributes.ok_or(Errno::BADMSG)?, family);
            lists[number].push(understood(row)?);
            Ok(())
        })?;
        Ok(lists)
    }

    fn listing(&mut self, request: Listing, mut take: impl FnMut(Listing)) -> Result<(), Errno> {
        self.ask([Request { payload: request, is_list: true }], |_, command, payload| {
            take(understood(Listing::read(command, payload))?);
            Ok(())
        })
    }
}

/// How a request ended, if this message is its end.
fn end(header: &NetlinkHeader, message: &[u8]) -> Option<Result<(), Errno>> {
    match header.message_type {
        NLMSG_DONE => Some(Ok(())),
        NLMSG_ERROR => {
            Some(match ErrorBuffer::new_checked(&message[HEADER_BYTES..]).map(|error| error.code()) {
                Ok(None) => Ok(()),
                Ok(Some(code)) => Err(errno(code.get())),
                Err(_) => Err(Errno::BADMSG),
            })
        }
        IPVS_FAMILY_ID | api::FAMILY_ID => None,
        _ => Some(Err(Errno::BADMSG)),
    }
}

/// The errno of an answer's code, which is negative.
fn errno(code: i32) -> Errno {
    match code {
        -4095..0 => Errno::from_raw_os_error(-code),
        _ => Errno::BADMSG,
    }
}

/// Whatever is wrong with an answer, the errno isn't one of the daemon's.
fn understood<T>(answer: Result<T, Errno>) -> Result<T, Errno> {
    answer.map_err(|_| Errno::BADMSG)
}

fn of_service(id: ServiceId) -> Attributes {
    Attributes { service: Some(service::name(id)), ..Attributes::default() }
}

fn listed_service(answer: Ipvs) -> Result<(Service, Traffic), Errno> {
    let attributes = answer.into_attributes().service.ok_or(Errno::BADMSG)?;
    understood(service::from_list(&attributes))
}

/// The attributes of a service, unless its scheduler or persistence engine has a name that none can have.
fn whole_service(service: &Service) -> Result<Attributes, Errno> {
    let settings = &service.settings;
    let engine_fits = settings.engine.as_deref().is_none_or(|name| Name::<16>::new(name).is_some());
    if Name::<15>::new(&settings.scheduler).is_none() || !engine_fits {
        return Err(Errno::NOENT);
    }
    Ok(Attributes { service: Some(service::whole(service)), ..Attributes::default() })
}

fn whole_destination(command: &DestinationCommand) -> Attributes {
    let destination = Some(destination::whole(command.address, &command.settings));
    Attributes { destination, ..of_service(command.service) }
}

/// The message that has a change made, unless it can't be.
fn order(change: &Change) -> Result<Ipvs, Errno> {
    let (command, attributes) = match change {
        Change::AddService(service) => (Command::NewService, whole_service(service)?),
        Change::EditService(service) => (Command::SetService, whole_service(service)?),
        Change::DeleteService(id) => (Command::DelService, of_service(*id)),
        Change::Flush => (Command::Flush, Attributes::default()),
        Change::Zero(id) => (Command::Zero, id.map(of_service).unwrap_or_default()),
        Change::AddDestination(destination) => (Command::NewDestination, whole_destination(destination)),
        Change::EditDestination(destination) => (Command::SetDestination, whole_destination(destination)),
        Change::DeleteDestination { service, address } => {
            let destination = Some(destination::name(*address));
            (Command::DelDestination, Attributes { destination, ..of_service(*service) })
        }
        Change::SetTimeouts(Timeouts { tcp_s, tcp_fin_s, udp_s }) => {
            let (tcp_s, tcp_fin_s, udp_s) = (Some(*tcp_s), Some(*tcp_fin_s), Some(*udp_s));
            (Command::SetConfig, Attributes { tcp_s, tcp_fin_s, udp_s, ..Attributes::default() })
        }
        Change::StartDaemon(daemon) => {
            if Name::<15>::new(&daemon.interface).is_none() {
                return Err(Errno::NODEV);
            }
            let daemon = Some(daemon::whole(daemon));
            (Command::NewDaemon, Attributes { daemon, ..Attributes::default() })
        }
        Change::StopDaemon(role) => {
            let daemon = Some(daemon::name(*role));
            (Command::DelDaemon, Attributes { daemon, ..Attributes::default() })
        }
    };
    Ok(Ipvs::new(command, attributes))
}

impl Kernel for Client {
    fn add_service(&mut self, service: &Service) -> Result<(), Errno> {
        self.order(&Change::AddService(service.clone()))
    }

    fn edit_service(&mut self, service: &Service) -> Result<(), Errno> {
        self.order(&Change::EditService(service.clone()))
    }

    fn delete_service(&mut self, id: ServiceId) -> Result<(), Errno> {
        self.order(&Change::DeleteService(id))
    }

    fn flush(&mut self) -> Result<(), Errno> {
        self.order(&Change::Flush)
    }

    fn zero(&mut self, id: Option<ServiceId>) -> Result<(), Errno> {
        self.order(&Change::Zero(id))
    }

    fn add_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        self.order(&Change::AddDestination(*destination))
    }

    fn edit_destination(&mut self, destination: &DestinationCommand) -> Result<(), Errno> {
        self.order(&Change::EditDestination(*destination))
    }

    fn delete_destination(&mut self, service: ServiceId, address: SocketAddr) -> Result<(), Errno> {
        self.order(&Change::DeleteDestination { service, address })
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        self.order(&Change::SetTimeouts(timeouts))
    }

    fn start_daemon(&mut self, daemon: &SyncDaemon) -> Result<(), Errno> {
        self.order(&Change::StartDaemon(daemon.clone()))
    }

    fn stop_daemon(&mut self, role: Role) -> Result<(), Errno> {
        self.order(&Change::StopDaemon(role))
    }

    /// Sends as many in a datagram as fit: the daemon keeps those of one by one write to its disk.
    fn make(&mut self, changes: &[Change]) -> Vec<Result<(), Errno>> {
        // What can't be asked for is refused here, in its place.
        let orders: Vec<_> = changes.iter().map(order).collect();
        let mut results: Vec<_> = orders.iter().map(|order| order.as_ref().err().copied().map(Err)).collect();
        let sent: Vec<usize> = (0..orders.len()).filter(|&at| orders[at].is_ok()).collect();
        let requests = orders.into_iter().flatten().map(|payload| Request { payload, is_list: false });
        let done = self.send_all(requests, |number, answer| {
            if let Answer::End(ended) = answer {
                results[sent[number]] = Some(ended);
            }
            Ok(())
        });
        // Whatever became of those that got no answer, it is not known.
        let unanswered = done.err().unwrap_or(Errno::BADMSG);
        results.into_iter().map(|result| result.unwrap_or(Err(unanswered))).collect()
    }

    fn connection_table_size(&mut self) -> Result<u32, Errno> {
        let info = self.one(Command::GetInfo, Attributes::default())?.as_info();
        info.and_then(|info| info.connection_table_size).ok_or(Errno::BADMSG)
    }

    fn services(&mut self) -> Result<Vec<ServiceRow>, Errno> {
        let mut services = Vec::new();
        let payload = Ipvs::new(Command::GetService, Attributes::default());
        self.ask([Request { payload, is_list: true }], |_, command, payload| {
            services.push(listed_service(understood(Ipvs::read(command, payload))?)?);
            Ok(())
        })?;
        let ids: Vec<_> = services.iter().map(|(service, _)| service.id).collect();
        let rows = services.into_iter().zip(self.destinations(&ids)?);
        Ok(rows
            .map(|((service, traffic), destinations)| ServiceRow { service, traffic, destinations })
            .collect())
    }

    fn service(&mut self, id: ServiceId) -> Result<ServiceRow, Errno> {
        let (service, traffic) = listed_service(self.one(Command::GetService, of_service(id))?)?;
        let destinations = self.destinations(&[id])?.pop().unwrap_or_default();
        Ok(ServiceRow { service, traffic, destinations })
    }

    fn connections(&mut self) -> Result<Vec<ConnectionRow>, Errno> {
        let mut rows = Vec::new();
        self.listing(Listing::GetConnections, |answer| {
            if let Listing::Connection(row) = answer {
                rows.push(*row);
            }
        })?;
        Ok(rows)
    }

    fn timeouts(&mut self) -> Result<Timeouts, Errno> {
        let attributes = self.one(Command::GetConfig, Attributes::default())?.into_attributes();
        match (attributes.tcp_s, attributes.tcp_fin_s, attributes.udp_s) {
            (Some(tcp_s), Some(tcp_fin_s), Some(udp_s)) => Ok(Timeouts { tcp_s, tcp_fin_s, udp_s }),
            _ => Err(Errno::BADMSG),
        }
    }

    fn daemons(&mut self) -> Result<Vec<DaemonRow>, Errno> {
        let mut rows = Vec::new();
        let payload = Ipvs::new(Command::GetDaemon, Attributes::default());
        self.ask([Request { payload, is_list: true }], |_, command, payload| {
            let attributes = understood(Ipvs::read(command, payload))?.into_attributes().daemon;
            rows.push(understood(daemon::from_list(&attributes.ok_or(Errno::BADMSG)?))?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn totals(&mut self) -> Result<Totals, Errno> {
        let mut totals = Totals::default();
        self.listing(Listing::GetTotals, |answer| match answer {
            Listing::Total(traffic) => totals.traffic = traffic,
            Listing::Worker(counters) => totals.workers.push(counters),
            _ => {}
        })?;
        Ok(totals)
    }
}
