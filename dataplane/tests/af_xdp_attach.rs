//! Attaching, adopting and detaching the steering program on veth, under traffic. Needs root.
//!
//! The client sends UDP to the director's address, where no socket listens, and nothing else is on the wire: so each
//! frame that the program leaves to the kernel is counted as passed, and answered with an ICMP error that the client sees
//! as a refused connection.
#![allow(clippy::unwrap_used)]

mod namespace;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use namespace::{Lab, Wires, inside, run};
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::af_xdp::{
    AfXdpError, AfXdpPort, Attached, PortConfig, PortInterface, RequestedMode, Steering, SteeringCounters,
    XdpMode, detach_interface,
};
use xlvs_dataplane::port::steering_rule::SteeringRule;

const PATIENCE: Duration = Duration::from_secs(10);

fn rule(first_port: u16, last_port: u16) -> SteeringRule {
    SteeringRule::new("10.0.0.2/32".parse().unwrap(), Protocol::Udp, first_port..=last_port)
}

/// Loads and attaches, with the rule that port 80 is served.
fn start(lab: &Lab, mode: RequestedMode) -> Result<(Steering, Attached), AfXdpError> {
    let interface = lab.right(0);
    inside(&lab.director, || {
        let mut steering = Steering::load(interface)?;
        steering.apply(&[rule(80, 80)].into())?;
        let attached = steering.attach(mode)?;
        Ok((steering, attached))
    })
}

fn anew(mode: XdpMode) -> Attached {
    Attached { mode, adopted: false, fallback: None }
}

fn adopted(mode: XdpMode) -> Attached {
    Attached { mode, adopted: true, fallback: None }
}

fn client(lab: &Lab, port: u16) -> UdpSocket {
    let socket = inside(&lab.client, || UdpSocket::bind("10.0.0.1:0").unwrap());
    socket.connect(("10.0.0.2", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// Whether the kernel, not the director, gets what is sent to this port.
fn kernel_answers(lab: &Lab, port: u16) -> bool {
    let socket = client(lab, port);
    socket.send(b"?").unwrap();
    loop {
        match socket.recv(&mut [0; 1]).map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionRefused) => return true,
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(ErrorKind::Interrupted) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Sends to port 80 while `work` runs; returns how many frames were sent.
fn under_traffic(lab: &Lab, work: impl FnOnce(&AtomicU64)) -> u64 {
    let socket = client(lab, 80);
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // A refusal is the kernel's answer to an earlier frame; the counters tell.
                if socket.send(b"frame").is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&done);
        work(&sent);
    });
    sent.into_inner()
}

fn wait_for_frames(sent: &AtomicU64, more: u64) {
    let until = sent.load(Ordering::Relaxed) + more;
    let deadline = Instant::now() + PATIENCE;
    while sent.load(Ordering::Relaxed) < until {
        assert!(Instant::now() < deadline, "the client does not get its frames sent");
        std::thread::yield_now();
    }
}

/// The counters once they add up to `frames`.
fn settled(steering: &Steering, frames: u64) -> SteeringCounters {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counters = steering.counters().unwrap();
        if counters.passed + counters.dropped_no_socket + counters.redirected >= frames
            || Instant::now() > deadline
        {
            return counters;
        }
        std::thread::yield_now();
    }
}

fn pin_directory(lab: &Lab) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(format!("/run/netns/{}", lab.director)).unwrap().ino();
    PathBuf::from(format!("/sys/fs/bpf/xlvs/v1-{inode}-{}", lab.right(0).index))
}

#[test]
fn a_clean_exit_gives_the_services_back_to_the_kernel() {
    for (requested, mode) in [
        (RequestedMode::Auto, XdpMode::Native),
        (RequestedMode::Native, XdpMode::Native),
        (RequestedMode::Generic, XdpMode::Generic),
    ] {
        let lab = Lab::new(Wires::default());
        assert!(kernel_answers(&lab, 80));
        let (steering, attached) = start(&lab, requested).unwrap();
        assert_eq!(attached, anew(mode));
        assert!(pin_directory(&lab).join(mode.name()).exists());
        assert!(!kernel_answers(&lab, 80), "without a socket a served frame leaked to the kernel");
        assert!(kernel_answers(&lab, 81));
        inside(&lab.director, || steering.detach()).unwrap();
        assert!(kernel_answers(&lab, 80));
        assert!(!pin_directory(&lab).exists());
    }
}

#[test]
fn after_a_crash_services_stay_with_us_until_the_operator_detaches() {
    let lab = Lab::new(Wires::default());
    let index = lab.right(0).index;
    let (steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    drop(steering);
    assert!(!kernel_answers(&lab, 80));
    assert!(kernel_answers(&lab, 81));
    assert!(inside(&lab.director, || detach_interface(index)).unwrap());
    assert!(kernel_answers(&lab, 80));
    assert!(!inside(&lab.director, || detach_interface(index)).unwrap());
}

#[test]
fn a_successor_takes_over_without_a_gap() {
    for (requested, mode) in
        [(RequestedMode::Auto, XdpMode::Native), (RequestedMode::Generic, XdpMode::Generic)]
    {
        let lab = Lab::new(Wires::default());
        let mut counters = SteeringCounters::default();
        let mut current = None;
        let sent = under_traffic(&lab, |sent| {
            // Until it is attached nothing is ours.
            let (steering, _) = start(&lab, requested).unwrap();
            current = Some(steering);
            wait_for_frames(sent, 1000);
            for _ in 0..5 {
                drop(current.take());
                wait_for_frames(sent, 1000);
                let (steering, attached) = start(&lab, requested).unwrap();
                assert_eq!(attached, adopted(mode));
                wait_for_frames(sent, 1000);
                counters = steering.counters().unwrap();
                assert_eq!((counters.passed, counters.redirected), (0, 0), "frames leaked to the kernel");
                assert!(counters.dropped_no_socket >= 1000);
                current = Some(steering);
            }
        });
        assert!(sent > 10_000);
        inside(&lab.director, || current.unwrap().detach()).unwrap();
    }
}

#[test]
fn a_port_that_stays_served_has_no_gap_while_rules_change() {
    let lab = Lab::new(Wires::default());
    let sets: [BTreeSet<SteeringRule>; 4] = [
        [rule(80, 80)].into(),
        [rule(70, 90)].into(),
        [rule(0, 65535)].into(),
        [rule(80, 90), rule(443, 443)].into(),
    ];
    let (mut steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    let mut changes = 0;
    let sent = under_traffic(&lab, |sent| {
        while changes < 200 || sent.load(Ordering::Relaxed) < 100_000 {
            changes += 1;
            steering.apply(&sets[changes % sets.len()]).unwrap();
        }
    });
    assert_eq!(
        settled(&steering, sent),
        SteeringCounters { redirected: 0, passed: 0, dropped_no_socket: sent },
        "{changes} changes"
    );
    inside(&lab.director, || steering.detach()).unwrap();
}

/// Every one of these sets serves port 80 of 10.0.0.2: by its own rule, by that of one of several networks, or by a range.
/// Each is exchanged for each other.
#[test]
fn an_address_that_stays_served_has_no_gap_while_networks_change() {
    let lab = Lab::new(Wires::default());
    let rule =
        |network: &str, first, last| SteeringRule::new(network.parse().unwrap(), Protocol::Udp, first..=last);
    let sets: [BTreeSet<SteeringRule>; 6] = [
        [rule("10.0.0.2/32", 80, 80)].into(),
        [rule("10.0.0.0/8", 80, 80)].into(),
        [rule("10.0.0.0/24", 70, 90), rule("10.0.0.2/31", 81, 81)].into(),
        [rule("0.0.0.0/0", 0, 65535), rule("10.0.0.0/20", 443, 443), rule("10.0.0.2/32", 81, 81)].into(),
        [rule("10.0.0.0/30", 80, 80), rule("10.0.0.0/8", 81, 81), rule("10.0.0.128/25", 82, 82)].into(),
        [rule("10.0.0.0/16", 80, 90), rule("10.0.0.0/28", 1, 2), rule("10.0.0.0/29", 3, 3)].into(),
    ];
    let (mut steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    let sent = under_traffic(&lab, |sent| {
        let mut rounds = 0;
        while rounds < 3 || sent.load(Ordering::Relaxed) < 100_000 {
            rounds += 1;
            for (from, to) in (0..sets.len()).flat_map(|from| (0..sets.len()).map(move |to| (from, to))) {
                steering.apply(&sets[from]).unwrap();
                steering.apply(&sets[to]).unwrap();
            }
        }
    });
    assert_eq!(
        settled(&steering, sent),
        SteeringCounters { redirected: 0, passed: 0, dropped_no_socket: sent }
    );
    inside(&lab.director, || steering.detach()).unwrap();
}

#[test]
fn a_registered_socket_gets_the_frames_and_takes_itself_out_when_closed() {
    let lab = Lab::new(Wires::default());
    let (mut steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    let config = PortConfig {
        interfaces: vec![PortInterface { name: "right0".to_owned(), queues: 1, mtu: 1500 }],
        queue: 0,
        frame_size: 2048,
        frames: 512,
        ring_size: 64,
        huge_pages: false,
    };
    let port = inside(&lab.director, || AfXdpPort::open(&config)).unwrap();
    for socket in port.sockets() {
        steering.register(socket.queue, socket.fd).unwrap();
    }
    let socket = client(&lab, 80);
    socket.send(b"1").unwrap();
    assert_eq!(settled(&steering, 1), SteeringCounters { redirected: 1, ..SteeringCounters::default() });
    drop(port);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = steering.counters().unwrap();
        socket.send(b"2").unwrap();
        let after = settled(&steering, before.redirected + before.dropped_no_socket + 1);
        if after.dropped_no_socket > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{after:?}");
    }
    assert_eq!(steering.counters().unwrap().passed, 0);
    inside(&lab.director, || steering.detach()).unwrap();
}

#[test]
fn a_link_left_in_another_mode_is_replaced() {
    let lab = Lab::new(Wires::default());
    drop(start(&lab, RequestedMode::Generic).unwrap());
    let (steering, attached) = start(&lab, RequestedMode::Native).unwrap();
    assert_eq!(attached, anew(XdpMode::Native));
    drop(steering);
    let (steering, attached) = start(&lab, RequestedMode::Generic).unwrap();
    assert_eq!(attached, anew(XdpMode::Generic));
    drop(steering);
    // No gap for the sake of a better mode; but the operator is told.
    let (steering, attached) = start(&lab, RequestedMode::Auto).unwrap();
    assert_eq!((attached.mode, attached.adopted), (XdpMode::Generic, true));
    assert!(attached.fallback.unwrap().contains("xlvs detach right0"));
    inside(&lab.director, || steering.detach()).unwrap();
    let (steering, attached) = start(&lab, RequestedMode::Auto).unwrap();
    assert_eq!(attached, anew(XdpMode::Native));
    inside(&lab.director, || steering.detach()).unwrap();
}

#[test]
fn a_dead_link_of_a_recreated_interface_is_replaced() {
    let lab = Lab::new(Wires::default());
    let index = lab.right(0).index;
    let recreate = || {
        run(&format!("ip -n {} link del right0", lab.director));
        lab.add_pair(0);
    };
    let (steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    recreate();
    assert_eq!(lab.right(0).index, index);
    assert!(pin_directory(&lab).join("native").exists());
    // Both with and without the old process still there.
    let (second, attached) = start(&lab, RequestedMode::Auto).unwrap();
    assert_eq!(attached, anew(XdpMode::Native));
    drop((steering, second));
    recreate();
    assert!(!inside(&lab.director, || detach_interface(index)).unwrap(), "it was gone with its interface");
    assert!(!pin_directory(&lab).exists());
    let (third, attached) = start(&lab, RequestedMode::Auto).unwrap();
    assert_eq!(attached, anew(XdpMode::Native));
    inside(&lab.director, || third.detach()).unwrap();
}

#[test]
fn a_program_of_somebody_else_is_reported_and_left_alone() {
    let lab = Lab::new(Wires::default());
    let object = concat!(env!("OUT_DIR"), "/steering.bpf.o");
    for mode in ["xdpdrv", "xdpgeneric"] {
        run(&format!("ip -n {} link set right0 {mode} obj {object} sec xdp.frags", lab.director));
        for requested in [RequestedMode::Auto, RequestedMode::Native, RequestedMode::Generic] {
            let error = start(&lab, requested).err().unwrap();
            assert!(matches!(error, AfXdpError::ProgramInTheWay { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("`ip link set right0 xdp off`"), "{text}");
            assert!(text.contains("`xlvs detach right0`"), "{text}");
        }
        run(&format!("ip -n {} link set right0 {mode} off", lab.director));
    }
    let (steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    inside(&lab.director, || steering.detach()).unwrap();
}

#[test]
fn where_native_mode_is_impossible_auto_is_generic_and_says_why() {
    let lab = Lab::new(Wires { queues: 2, ..Wires::default() });
    // The client's end sends on two queues, the director's receives on one.
    run(&format!("ip netns exec {} ethtool -L right0 rx 1 tx 2", lab.director));
    let error = start(&lab, RequestedMode::Native).err().unwrap();
    assert!(matches!(error, AfXdpError::Attach { mode: "native", .. }), "{error}");
    assert!(error.to_string().contains("the other end has more TX queues"), "{error}");
    let (steering, attached) = start(&lab, RequestedMode::Auto).unwrap();
    assert_eq!((attached.mode, attached.adopted), (XdpMode::Generic, false));
    assert_eq!(attached.fallback.unwrap(), error.to_string());
    assert!(!kernel_answers(&lab, 80));
    inside(&lab.director, || steering.detach()).unwrap();
}

#[test]
fn an_interface_that_is_gone_is_named() {
    let lab = Lab::new(Wires::default());
    let interface = lab.right(0);
    run(&format!("ip -n {} link del right0", lab.director));
    let error =
        inside(&lab.director, || Steering::load(interface).unwrap().attach(RequestedMode::Auto).unwrap_err());
    assert!(matches!(&error, AfXdpError::NoSuchInterface { interface } if interface == "right0"), "{error}");
}

#[test]
fn the_pins_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new(Wires::default());
    let (steering, _) = start(&lab, RequestedMode::Auto).unwrap();
    for path in [PathBuf::from("/sys/fs/bpf/xlvs"), pin_directory(&lab)] {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            path.display()
        );
    }
    inside(&lab.director, || steering.detach()).unwrap();
}
