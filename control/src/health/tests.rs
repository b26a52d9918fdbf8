//! The health thread as the control thread uses it: servers of the test's own on loopback addresses, real sockets and time.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::service::ServiceKey;

use super::plan::PlannedServer;
use super::spec::{CheckSpec, Pattern, Probe, ProgramProbe, ProgramSuccess, SendExpectProbe};
use super::*;

fn check(probe: Probe, port: u16) -> CheckSpec {
    let soon = Duration::from_millis(100);
    CheckSpec {
        probe,
        interval: soon,
        timeout: soon * 10,
        retry: soon,
        rise: 1,
        reentry: Duration::ZERO,
        fall: 1,
        jitter: 0,
        address: None,
        port,
    }
}

/// The server of this name, checked so.
fn server(last: u8, checks: &[CheckSpec]) -> PlannedServer {
    let service = ServiceKey::Address { protocol: Protocol::Tcp, address: "10.0.0.100:80".parse().unwrap() };
    let name = ServerName { service, real: SocketAddr::from(([127, 7, 7, last], 80)) };
    PlannedServer { name, checks: checks.into(), starts_up: false }
}

/// The next report: of whom, whether it is up, and why a check failed last.
fn next(thread: &mut HealthThread) -> (u8, bool, Option<String>) {
    let (name, report) = thread.reports.blocking_recv().unwrap();
    let SocketAddr::V4(real) = name.real else { panic!("{name:?}") };
    (real.ip().octets()[3], report.up, report.last_failure.map(|failure| failure.reason))
}

#[test]
fn only_news_are_told_and_what_did_not_change_is_not_asked_anew() {
    let listener = TcpListener::bind("127.7.7.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut thread = HealthThread::start(1, None).unwrap();
    let tcp = check(Probe::Tcp, port);
    thread.set_plan(Arc::new(vec![
        server(1, std::slice::from_ref(&tcp)),
        server(2, std::slice::from_ref(&tcp)),
    ]));
    let mut first = [next(&mut thread), next(&mut thread)];
    first.sort();
    let refused = format!("tcp, port {port}: connection refused");
    assert_eq!(first, [(1, true, None), (2, false, Some(refused.clone()))]);

    // Another check that fails is news; that the first one goes on to succeed is not.
    let banner = SendExpectProbe { send: String::new(), expect: Some(Pattern::Any) };
    let silent = CheckSpec { timeout: Duration::from_millis(100), ..check(Probe::SendExpect(banner), port) };
    let both = server(1, &[tcp.clone(), silent]);
    thread.set_plan(Arc::new(vec![both, server(2, std::slice::from_ref(&tcp))]));
    let (_, waits, _) = next(&mut thread);
    assert!(waits, "it stays up until the new check has failed");
    let late = format!("send-expect, port {port}: timed out after 0.1 s");
    assert_eq!(next(&mut thread), (1, false, Some(late.clone())));
    // Without that check it is up again, at once.
    thread.set_plan(Arc::new(vec![server(1, std::slice::from_ref(&tcp))]));
    assert_eq!(next(&mut thread), (1, true, Some(late)));
    drop(listener);
    assert_eq!(next(&mut thread), (1, false, Some(refused)));
    let again = TcpListener::bind(("127.7.7.1", port)).unwrap();
    let (who, up, _) = next(&mut thread);
    assert!(who == 1 && up);
    drop(again);
    thread.stop();
}

/// A program tells a weight by its exit code, and is heard again when that changes.
#[test]
fn the_weight_that_a_program_tells_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("code");
    let script = format!("exit $(cat {})", file.display());
    let mut thread = HealthThread::start(1, None).unwrap();
    let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let probe = Probe::Program(ProgramProbe { command, success: ProgramSuccess::ExitCodeAsWeight });
    // What is written in part is no code.
    let write = |code: &str| {
        let new = directory.path().join("new");
        std::fs::write(&new, code).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    write("20");
    thread.set_plan(Arc::new(vec![server(1, &[check(probe, 80)])]));
    let mut told = |code, up, weight| {
        write(code);
        let (_, report) = thread.reports.blocking_recv().unwrap();
        assert_eq!((report.up, report.weights.weight(5)), (up, weight), "{code}");
    };
    told("20", true, 18);
    told("3", true, 1);
    told("0", true, 5);
    told("1", false, 5);
    told("9", true, 7);
    thread.stop();
}
