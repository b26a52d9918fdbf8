//! A daemon for tests: a table of services and destinations behind the protocol, that can be stopped, started again with
//! its table, made to hang up in the middle, and made silent.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::attribute::{attribute, attributes, find, framed, message, nest, u16_at, u32_at};

pub(crate) const IPVS: u16 = 0x4956;
pub(crate) const XLVS: u16 = 0x4958;
pub(crate) const CONTROL: u16 = 0x10;
pub(crate) const NEW_SERVICE: u8 = 1;
pub(crate) const GET_SERVICE: u8 = 4;
pub(crate) const NEW_DEST: u8 = 5;
pub(crate) const DEL_DEST: u8 = 7;
pub(crate) const GET_INFO: u8 = 15;
pub(crate) const FLUSH: u8 = 17;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const MULTI: u16 = 2;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

type Attributes = Vec<(u16, Vec<u8>)>;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) family: u16,
    pub(crate) command: u8,
    /// In the message's header.
    pub(crate) port: u32,
    /// As said by HELLO on this connection.
    pub(crate) hello: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) seen: Vec<Seen>,
    services: Vec<(Attributes, Vec<Attributes>)>,
    /// Connections are closed when this IPVS command comes, so many times; done first, or not.
    pub(crate) hang_up: Option<(u8, usize, bool)>,
    /// A dump is cut after its first message, once.
    pub(crate) cut_dump: bool,
    /// Requests of IPVS are not answered.
    pub(crate) silent: bool,
    /// What /proc/net/ip_vs_conn says.
    pub(crate) connections: String,
    clients: Vec<OwnedFd>,
}

/// A daemon that listens, or has stopped.
#[derive(Debug)]
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    running: Option<(OwnedFd, JoinHandle<()>)>,
}

impl Daemon {
    /// A daemon that does not listen yet.
    pub(crate) fn stopped() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), state: Arc::default(), running: None }
    }

    pub(crate) fn started() -> Self {
        let mut daemon = Self::stopped();
        daemon.start();
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("xlvs.sock")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The IPVS commands that came, the questions apart.
    pub(crate) fn changes(&self) -> Vec<u8> {
        let seen = self.state().seen.clone();
        let changes =
            seen.iter().filter(|seen| seen.family == IPVS && ![4, 8, 11, 13, 15].contains(&seen.command));
        changes.map(|seen| seen.command).collect()
    }

    /// The number of services and destinations.
    pub(crate) fn table(&self) -> (usize, usize) {
        let state = self.state();
        (state.services.len(), state.services.iter().map(|(_, destinations)| destinations.len()).sum())
    }

    pub(crate) fn start(&mut self) {
        let listener = self.listen();
        let accepting = listener.try_clone().unwrap();
        let state = Arc::clone(&self.state);
        let thread = std::thread::spawn(move || {
            while let Ok(client) = rustix::net::accept_with(&accepting, SocketFlags::CLOEXEC) {
                lock(&state).clients.push(client.try_clone().unwrap());
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&client, &state));
            }
        });
        self.running = Some((listener, thread));
    }

    /// Listens, and takes no notice of those who come, as long as what is returned lives.
    pub(crate) fn listen(&self) -> OwnedFd {
        let _ = std::fs::remove_file(self.socket());
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(self.socket()).unwrap()).unwrap();
        rustix::net::listen(&listener, 16).unwrap();
        listener
    }

    /// Ends as a killed daemon does: nobody listens, the connections are closed, the socket's file stays.
    pub(crate) fn stop(&mut self) {
        if let Some((listener, thread)) = self.running.take() {
            rustix::net::shutdown(&listener, Shutdown::Both).unwrap();
            drop(listener);
            thread.join().unwrap();
            for client in self.state().clients.drain(..) {
                let _ = rustix::net::shutdown(&client, Shutdown::Both);
            }
        }
    }

    /// Waits until what is asked holds.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within 20 s: {what}; {:?}", self.state());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The state, also after a test has failed with it in its hand.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: &OwnedFd, state: &Mutex<State>) {
    let mut hello = None;
    let mut buffer = vec![0; 64 << 10];
    while let Ok((length @ 1.., _)) = rustix::net::recv(client.as_fd(), &mut *buffer, RecvFlags::empty()) {
        let request = &buffer[..length];
        let (answers, hang_up) = answer(request, &mut hello, &mut lock(state));
        for answer in answers {
            if rustix::net::send(client, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
        if hang_up {
            let _ = rustix::net::shutdown(client, Shutdown::Both);
            return;
        }
    }
}

/// The answers to a request, and whether to hang up after them.
fn answer(request: &[u8], hello: &mut Option<u32>, state: &mut State) -> (Vec<Vec<u8>>, bool) {
    let (family, flags, sequence) = (u16_at(request, 4), u16_at(request, 6), u32_at(request, 8));
    let command = request[16];
    state.seen.push(Seen { family, command, port: u32_at(request, 12), hello: *hello });
    let top = attributes(&request[20..]);
    if family == XLVS && command == 7 {
        *hello = Some(u32_at(&find(&top, 12).unwrap(), 0));
    }
    let port = hello.unwrap_or(0);
    let error = |errno: i32| {
        let payload = [&(-errno).to_ne_bytes()[..], &request[..16]].concat();
        vec![framed(ERROR, 0, sequence, port, &payload)]
    };
    let dump = |command: u8, items: Vec<Vec<u8>>| {
        let mut answers: Vec<_> =
            items.iter().map(|item| message(family, MULTI, sequence, port, command, item)).collect();
        answers.push(framed(DONE, MULTI, sequence, port, &[0; 4]));
        answers
    };
    let reply = |command: u8, item: Vec<u8>| {
        let mut answers = vec![message(family, 0, sequence, port, command, &item)];
        if flags & ACK != 0 {
            answers.extend(error(0));
        }
        answers
    };
    match (family, command) {
        (XLVS, 7) => return (error(0), false),
        (XLVS, 8) => {
            let name = find(&top, 2).unwrap();
            let text = if name == b"ip_vs_conn\0" {
                state.connections.clone()
            } else {
                "IP Virtual Server\n".into()
            };
            let pieces = text.as_bytes().chunks(4000).map(|piece| attribute(1, piece)).collect();
            return (dump(3, pieces), false);
        }
        (CONTROL, 3) => {
            let ids = [
                attribute(1, &IPVS.to_ne_bytes()),
                attribute(2, b"IPVS\0"),
                attribute(3, &1_u32.to_ne_bytes()),
            ];
            return (reply(1, ids.concat()), false);
        }
        _ => {}
    }
    if state.silent {
        return (Vec::new(), false);
    }
    let (mut hang_up, mut cut) = (false, false);
    if let Some((wanted, times @ 1.., done)) = &mut state.hang_up
        && *wanted == command
    {
        *times -= 1;
        if !*done {
            return (Vec::new(), true);
        }
        hang_up = true;
    }
    let answers = match command {
        14 | GET_INFO => reply(
            14,
            [attribute(1, &0x0001_0201_u32.to_ne_bytes()), attribute(2, &4096_u32.to_ne_bytes())].concat(),
        ),
        13 => reply(12, (4..7_u16).flat_map(|kind| attribute(kind, &900_u32.to_ne_bytes())).collect()),
        GET_SERVICE => {
            let items =
                state.services.iter().map(|(service, _)| listed(1, service, 10, 12)).collect::<Vec<_>>();
            if flags & DUMP != 0 {
                let mut answers = dump(NEW_SERVICE, items);
                if std::mem::take(&mut state.cut_dump) {
                    answers.truncate(1);
                    (hang_up, cut) = (true, true);
                }
                answers
            } else {
                match position(state, &top) {
                    Some(index) => reply(NEW_SERVICE, items[index].clone()),
                    None => error(libc::ESRCH),
                }
            }
        }
        8 => {
            let items = position(state, &top).map(|index| {
                let destinations = &state.services[index].1;
                destinations.iter().map(|destination| listed(2, destination, 10, 12)).collect()
            });
            dump(NEW_DEST, items.unwrap_or_default())
        }
        11 => dump(9, Vec::new()),
        _ => match change(command, &top, state) {
            0 if flags & ACK == 0 => Vec::new(),
            errno => error(errno),
        },
    };
    if hang_up && !cut {
        // Done, but not said so.
        return (Vec::new(), true);
    }
    (answers, hang_up)
}

/// A service or destination with its counters, all 0.
fn listed(kind: u16, item: &Attributes, stats: u16, stats64: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> = item.iter().flat_map(|(kind, value)| attribute(*kind, value)).collect();
    if kind == 2 {
        bytes.extend((7..10).flat_map(|kind| attribute(kind, &[0; 4])));
    }
    let narrow =
        (1..=10).flat_map(|kind| attribute(kind, &[0; 8][..if kind == 4 || kind == 5 { 8 } else { 4 }]));
    bytes.extend(nest(stats, &narrow.collect::<Vec<_>>()));
    bytes.extend(nest(stats64, &(1..=10).flat_map(|kind| attribute(kind, &[0; 8])).collect::<Vec<_>>()));
    nest(kind, &bytes)
}

/// What tells a service from another: AF, PROTO, ADDR, PORT, FWMARK.
fn service_key(service: &Attributes) -> Attributes {
    service.iter().filter(|(kind, _)| (1..=5).contains(kind)).cloned().collect()
}

fn destination_key(destination: &Attributes) -> Attributes {
    destination.iter().filter(|(kind, _)| (1..=2).contains(kind)).cloned().collect()
}

fn position(state: &State, top: &Attributes) -> Option<usize> {
    let wanted = service_key(&attributes(&find(top, 1)?));
    state.services.iter().position(|(service, _)| service_key(service) == wanted)
}

/// Does a change; gives its errno.
fn change(command: u8, top: &Attributes, state: &mut State) -> i32 {
    let service = find(top, 1).map(|nested| attributes(&nested));
    let destination = find(top, 2).map(|nested| attributes(&nested));
    let index = position(state, top);
    match (command, index, service, destination) {
        (FLUSH, ..) => state.services.clear(),
        (12 | 16, ..) => {}
        (NEW_SERVICE, Some(_), ..) => return libc::EEXIST,
        (NEW_SERVICE, None, Some(service), _) => state.services.push((service, Vec::new())),
        (_, None, ..) => return libc::ESRCH,
        (2, Some(index), Some(service), _) => state.services[index].0 = service,
        (3, Some(index), ..) => drop(state.services.remove(index)),
        (5..=7, Some(index), _, Some(destination)) => {
            let destinations = &mut state.services[index].1;
            let key = destination_key(&destination);
            let known = destinations.iter().position(|known| destination_key(known) == key);
            match (command, known) {
                (NEW_DEST, Some(_)) => return libc::EEXIST,
                (NEW_DEST, None) => destinations.push(destination),
                (_, None) => return libc::ENOENT,
                (6, Some(known)) => destinations[known] = destination,
                (_, Some(known)) => drop(destinations.remove(known)),
            }
        }
        _ => return libc::EOPNOTSUPP,
    }
    0
}
