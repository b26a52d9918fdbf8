//! A client whose daemon doesn't do as it should, or says no.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recv,
    send, socket_with,
};
use xlvs_control::adm::backend::Kernel;
use xlvs_control::adm::model::{Family, Service, ServiceId, ServiceSettings, Timeouts};
use xlvs_control::api::ipvs::{Access, Client, Peer};

use crate::memory::{pair, serve};
use crate::table::Memory;

fn service(scheduler: &str) -> Service {
    let id = ServiceId::Mark { mark: std::num::NonZeroU32::MIN, family: Family::V4 };
    Service {
        id,
        settings: ServiceSettings { scheduler: scheduler.to_owned(), ..ServiceSettings::new(Family::V4) },
    }
}

/// Asks for the timeouts; the daemon takes the request and does this.
fn ask(limit: Duration, daemon: impl FnOnce(OwnedFd) + Send) -> Result<Timeouts, Errno> {
    let (ours, theirs) = pair();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            recv(&theirs, &mut [0; 8192], RecvFlags::empty()).unwrap();
            daemon(theirs);
        });
        Client::new(ours, limit).unwrap().timeouts()
    })
}

const LONG: Duration = Duration::from_secs(20);

fn say(socket: &OwnedFd, bytes: &[u8]) {
    send(socket, bytes, SendFlags::NOSIGNAL).unwrap();
}

/// An NLMSG_ERROR for a sequence number.
fn error(sequence: u32, code: i32) -> Vec<u8> {
    let mut bytes = [20_u32.to_ne_bytes(), [2, 0, 0, 0], sequence.to_ne_bytes(), [0; 4]].concat();
    bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    bytes.extend(code.to_ne_bytes());
    bytes
}

#[test]
fn a_daemon_that_fails_is_told_apart_from_one_that_refuses() {
    assert_eq!(ask(LONG, drop), Err(Errno::CONNRESET));
    assert_eq!(ask(LONG, |socket| say(&socket, &error(1, -1))), Err(Errno::PERM));
    // What is no errno.
    for code in [1, i32::MIN, -4096, i32::MAX] {
        assert_eq!(ask(LONG, move |socket| say(&socket, &error(1, code))), Err(Errno::BADMSG), "{code}");
    }
    // Success without an answer, no message at all, a message of nothing known.
    assert_eq!(ask(LONG, |socket| say(&socket, &error(1, 0))), Err(Errno::BADMSG));
    assert_eq!(ask(LONG, |socket| say(&socket, b"rubbish")), Err(Errno::BADMSG));
    let mut unknown = error(1, 0);
    unknown[4..6].copy_from_slice(&0x1234_u16.to_ne_bytes());
    assert_eq!(ask(LONG, |socket| say(&socket, &unknown)), Err(Errno::BADMSG));
    assert_eq!(ask(LONG, |socket| say(&socket, &[0; 70_000])), Err(Errno::MSGSIZE));
}

#[test]
fn answers_to_what_was_asked_before_are_passed_over() {
    let late = |socket: OwnedFd| {
        say(&socket, &error(0, -1));
        say(&socket, &error(1, -17));
    };
    assert_eq!(ask(LONG, late), Err(Errno::EXIST));
}

#[test]
fn a_daemon_that_says_nothing_is_waited_for_no_longer_than_the_limit() {
    let begin = Instant::now();
    let (ours, _theirs) = pair();
    let result = Client::new(ours, Duration::from_millis(50)).unwrap().timeouts();
    assert_eq!(result, Err(Errno::TIMEDOUT));
    assert!(begin.elapsed() < LONG);
}

#[test]
fn a_daemon_that_takes_nothing_is_waited_for_no_longer_than_the_limit() {
    let (ours, _theirs) = pair();
    let full = || send(&ours, &[0; 64], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::AGAIN);
    assert!((0..100_000).any(|_| full()), "the socket takes all");
    let result = Client::new(ours.try_clone().unwrap(), Duration::from_millis(50)).unwrap().flush();
    assert_eq!(result, Err(Errno::TIMEDOUT));
}

#[test]
fn names_that_nothing_can_have_are_not_sent() {
    let (ours, theirs) = pair();
    drop(theirs);
    let mut client = Client::new(ours, LONG).unwrap();
    assert_eq!(client.add_service(&service("averylongscheduler")), Err(Errno::NOENT));
    let with_engine = |engine: &str| {
        let mut service = service("rr");
        service.settings.engine = Some(engine.to_owned());
        service
    };
    assert_eq!(client.edit_service(&with_engine("a\0b")), Err(Errno::NOENT));
    assert_eq!(client.add_service(&with_engine("sip")), Err(Errno::CONNRESET));
}

#[test]
fn a_path_is_connected_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xlvs.sock");
    assert_eq!(Client::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    let listener =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    let mut table = Memory::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            serve(&accept(&listener).unwrap(), &mut table, Peer { port: 0, access: Access::Full });
        });
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.add_service(&service("rr")), Ok(()));
        assert_eq!(client.add_service(&service("rr")), Err(Errno::EXIST));
        assert_eq!(client.timeouts().unwrap().tcp_s, 900);
    });
    assert_eq!(table.services.len(), 1);
    drop(listener);
    assert_eq!(Client::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
