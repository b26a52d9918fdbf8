//! Workers: one that stands still, and rings that are wedged.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use xlvs_tests::fault::threads;
use xlvs_tests::{Daemon, Lab, Ring, Service, Stopped, damage, within};

use super::{SOON, answered_again, downloads, told, web, worker};

/// From a fault to its being found, with what a status request takes on a busy machine.
const FOUND: Duration = Duration::from_millis(1500);
const NAME: &str = "xlvs-worker-0";

/// Connections end when their time is over, whoever had their timers.
#[track_caller]
fn all_connections_end(daemon: &Daemon<'_>) {
    within("all connections have ended", Duration::from_secs(20), || {
        match daemon.status()["connections"]["live"].as_u64() {
            Some(0) => Ok(()),
            live => Err(format!("{live:?}")),
        }
    });
}

#[test]
fn a_worker_that_stands_still_is_replaced_and_flows_go_on() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    lab.get(vip, "/", 5).unwrap();
    assert_eq!(worker(&daemon, 0)["state"], "running");
    let counted = worker(&daemon, 0)["received"].as_u64().unwrap();
    let downloads = downloads(&lab, &daemon);

    let since = Instant::now();
    let stopped = Stopped::thread(daemon.pid(), NAME);
    within("it is found", FOUND, || {
        let worker = worker(&daemon, 0);
        let is_found = worker["state"] == "stalled" || worker["reopened"].as_u64() > Some(0);
        if is_found { Ok(()) } else { Err(worker.to_string()) }
    });
    println!("found after {} ms", since.elapsed().as_millis());
    answered_again(&lab, vip, since);
    let its = worker(&daemon, 0);
    assert_eq!((&its["state"], &its["reopened"]), (&"running".into(), &1.into()), "{its:#}");
    assert!(its["reopened_for"].as_str().unwrap().starts_with("has stood still for "), "{its:#}");
    assert!(its["received"].as_u64().unwrap() > counted, "it goes on counting: {its:#}");
    let text = daemon.client(&["status"]).ok().stdout;
    assert!(text.contains("its queue was opened again 1 time(s), the last one "), "{text}");
    told(&daemon, &[("WARN", "worker 0 has stood still for "), ("INFO", "worker 0 serves queue 0 after ")]);
    downloads.complete();

    // A reload is done by the workers that there are.
    let began = Instant::now();
    let mut config = web(&lab);
    config.services[0].destinations.pop();
    let mut daemon = daemon;
    daemon.reload(&config);
    assert!(began.elapsed() < SOON);
    assert_eq!(lab.get(vip, "/", 5), Ok("rs1".to_owned()));

    // It comes to life again, and finds that it is not needed.
    assert_eq!(threads(daemon.pid(), NAME).len(), 2);
    drop(stopped);
    within("there is one worker", SOON, || match threads(daemon.pid(), NAME).len() {
        1 => Ok(()),
        more => Err(more),
    });
    told(&daemon, &[("INFO", "the former worker 0 has come to life again, and has ended")]);
    let answers = lab.get_many(vip, 20);
    assert_eq!(answers.get("rs1"), Some(&20), "{answers:?}");
    all_connections_end(&daemon);
    let log = daemon.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn of_two_workers_the_other_one_goes_on_while_one_is_replaced_again_and_again() {
    let lab = Lab::with_web(&["--servers", "2", "--queues", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    let downloads = downloads(&lab, &daemon);
    let mut stopped = Vec::new();
    for times in 1..=3 {
        let newest = *threads(daemon.pid(), NAME).iter().max().unwrap();
        let since = Instant::now();
        stopped.push(Stopped::numbered(newest));
        within("it is replaced", Duration::from_secs(5), || match &worker(&daemon, 0)["reopened"] {
            reopened if *reopened == times => Ok(()),
            reopened => Err(reopened.to_string()),
        });
        println!("replaced after {} ms", since.elapsed().as_millis());
        assert_eq!(worker(&daemon, 1)["reopened"], 0);
    }
    lab.get(vip, "/", 3).unwrap();
    downloads.complete();
    drop(stopped);
    within("there is one worker of the queue", SOON, || match threads(daemon.pid(), NAME).len() {
        1 => Ok(()),
        more => Err(more),
    });
    lab.get(vip, "/", 3).unwrap();
    all_connections_end(&daemon);
}

#[test]
fn frames_that_found_no_room_on_their_way_to_a_worker_are_told_once() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let mut config = web(&lab).with("ring_size = 64");
    let to = (lab.v4("vip"), 9000);
    config.services.push(Service::udp(to.0, to.1, [(lab.v4("rs1"), 1)]));
    let daemon = Daemon::start(&lab, &config);
    let client = lab.inside("client", || UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    // The client knows the VIP's MAC from then on.
    lab.get(to.0, "/", 5).unwrap();
    let lost = || daemon.drops().get("fill_ring_empty").copied().unwrap_or_default();
    let came = || lab.counted("director", "eth0", "rx", "packets");
    for times in 1..=2 {
        let before = lost();
        let stopped = Stopped::thread(daemon.pid(), NAME);
        let first = came();
        for _ in 0..200 {
            client.send_to(b"lost", to).unwrap();
        }
        within("all have come", SOON, || match came() - first {
            200.. => Ok(()),
            fewer => Err(fewer),
        });
        drop(stopped);
        within("frames were lost", SOON, || match lost() - before {
            136.. => Ok(()),
            fewer => Err(format!("{fewer} the {times}. time")),
        });
    }
    told(
        &daemon,
        &[("WARN", "frames were lost, as 64 (director.ring_size, up to 32768) waited already for a worker")],
    );
    // The daemon looks once a second.
    daemon.two_seconds_pass();
    assert_eq!(daemon.log().matches("frames were lost").count(), 1, "{}", daemon.log());
}

#[test]
fn a_process_that_was_stopped_as_a_whole_accuses_no_worker() {
    use nix::sys::signal::Signal;
    let lab = Lab::with_web(&["--servers", "2"]);
    let mut daemon = Daemon::start(&lab, &web(&lab));
    daemon.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(2)); // the span of the stop
    daemon.signal(Signal::SIGCONT);
    lab.get(lab.v4("vip"), "/", 5).unwrap();
    // Some looks later.
    daemon.two_seconds_pass();
    assert_eq!(worker(&daemon, 0)["reopened"], 0, "{}", daemon.log());
}

#[test]
fn a_wedged_receive_ring_is_opened_again() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    wedged(&lab, &daemon, Ring::Fill, "gets no frames while the kernel drops them");
}

#[test]
fn a_wedged_transmit_ring_is_opened_again() {
    let lab = Lab::with_web(&["--servers", "2"]);
    // One that sleeps has the kernel send by that, whatever the ring says.
    let daemon = Daemon::start(&lab, &web(&lab).with("idle = \"busy\""));
    wedged(&lab, &daemon, Ring::Transmit, "has frames on a transmit ring that are not sent");
}

#[track_caller]
fn wedged(lab: &Lab, daemon: &Daemon<'_>, ring: Ring, what: &str) {
    let vip = lab.v4("vip");
    lab.get(vip, "/", 5).unwrap();
    let downloads = downloads(lab, daemon);
    let since = Instant::now();
    damage(daemon.pid(), ring);
    // The clients' segments that are sent again show it.
    answered_again(lab, vip, since);
    let its = worker(daemon, 0);
    assert_eq!((&its["state"], &its["reopened"]), (&"running".into(), &1.into()), "{its:#}");
    assert_eq!(its["reopened_for"].as_str().map(|reason| reason.contains(what)), Some(true), "{its:#}");
    told(daemon, &[("WARN", what), ("INFO", "worker 0 serves queue 0 after ")]);
    downloads.complete();
}
