//! Floods: thirty seconds of SYNs from addresses that nobody has, datagrams from any port, and noise. The connection table is full
//! all the while; known connections lose nothing, clients get through, and memory stays where it is.
//!
//! ```text
//!   client (flood, downloads, numbered datagrams, requests) ── bridge ── director
//!                                                                └─────── rs1 rs2
//! ```
//! The flood has a core of its own, the director's worker the other; with two cores, everything else shares both. What the director
//! loses beyond a forwarder that looks at nothing, at a rate that neither can keep up with, `xlvs-bench flood` measures.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use xlvs_tests::flood::{noise, spoofed};
use xlvs_tests::live::LiveNoise;
use xlvs_tests::raw::RawSender;
use xlvs_tests::{
    Config, Daemon, Download, Downloads, Flood, Lab, Numbered, Service, Traffic, until, within,
};

const LIMIT: u64 = 16_384;
const NUMBERED: u16 = 9000;
/// Of addresses, ports and noise.
const SEED: u64 = 7;
/// Datagrams a second.
const RATE: u32 = 500;
/// Frames of noise a second, where the sender's core manages so many.
const NOISE: u32 = 1_200_000;
const DOWNLOADS: usize = 20;
/// They last for 32 s at their rate, the first 13 of which pass until the stream has used all its ports and the flood begins.
const DOWNLOAD: Download = Download { bytes: 16 << 20, rate: "512k", limit_s: 120 };
/// Frames that may wait for the worker. A host that others use, too, takes its core away for 50 ms and more now and then, or half of
/// its time; what comes meanwhile has to wait somewhere. At 250,000 a second this is 130 ms.
const RING: u32 = 32_768;
/// What memory may grow by, in KiB, while the table is full.
const MEMORY_KIB: u64 = 8 << 10;
/// The director does not wait for the rest of the machine, as one does not that has cores of its own.
const FIRST: [&str; 3] = ["nice", "-n", "-20"];
/// Of 1000 packets of known connections, so many may be lost.
const LOST_PER_MILLE: f64 = 1.0;

pub(super) fn v4(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(address) = address else { panic!("{address} is no IPv4 address") };
    address
}

fn macs(lab: &Lab) -> [[u8; 6]; 2] {
    [lab.mac("client", "eth0"), lab.mac("director", "eth0")]
}

/// Web and numbered datagrams, in a small table; the worker on the first core.
fn config(lab: &Lab) -> Config {
    let mut config = Config::web(lab, &["rs1", "rs2"]);
    let servers = ["rs1", "rs2"].map(|server| (lab.v4(server), 1));
    config.services.push(Service::udp(lab.v4("vip"), NUMBERED, servers));
    config.services.push(Service::udp(lab.v4("vip"), NUMBERED + 1, servers));
    config
        .with(&format!("max_connections = {LIMIT}"))
        .with("queues = 1")
        .with("cores = [0]")
        .with(&format!("ring_size = {RING}"))
}

fn start(lab: &Lab) -> Daemon<'_> {
    let mut daemon = Daemon::start(lab, &config(lab));
    let _ = daemon.stop();
    daemon.wrap(&FIRST);
    daemon.respawn();
    daemon.wait_ready(true);
    daemon
}

fn connections(daemon: &Daemon<'_>, name: &str) -> u64 {
    daemon.status()["connections"][name].as_u64().unwrap()
}

fn flooded(udp: bool, time: Duration) {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = start(&lab);
    let vip = lab.v4("vip");
    let stream = Numbered::start(&lab, &["rs1", "rs2"], SocketAddr::new(vip, NUMBERED), RATE);
    let downloads = Downloads::start(&lab, &[vip], DOWNLOADS, DOWNLOAD);
    within("downloads are under way, and each stream has its connections", Duration::from_secs(20), || {
        let live = connections(&daemon, "live");
        if live >= 64 + DOWNLOADS as u64 { Ok(()) } else { Err(live) }
    });

    let port = if udp { NUMBERED + 1 } else { 80 };
    let sender = RawSender::on(&lab, "client", "eth0");
    let flood = Flood::start(sender, 1, SEED, spoofed(macs(&lab), (v4(vip), port), udp));
    let begin = Instant::now();
    until("the table is full", Duration::from_secs(10), || connections(&daemon, "stateless_packets") > 0);
    let memory = daemon.memory_kib();
    let traffic = Traffic::start(&lab, &xlvs_tests::lab::url(vip, "/"), 2, 20);
    let mut most = 0;
    while begin.elapsed() < time {
        most = most.max(connections(&daemon, "live"));
        std::thread::sleep(Duration::from_millis(250));
    }
    let (frames, took) = flood.finish();
    let grown = daemon.memory_kib().saturating_sub(memory);
    let requests = traffic.finish();
    let (sent, lost) = stream.stop();
    let failed = requests.iter().filter(|request| request.answer.is_err()).count();
    let status = daemon.status();
    println!(
        "{frames} frames in {took:?}: {:.0} a second; of {sent} numbered datagrams {lost} were lost; {failed} of {} requests \
         failed; at most {most} connections; memory grew by {grown} KiB\n{:#}\n{:#}",
        frames as f64 / took.as_secs_f64(),
        requests.len(),
        status["connections"],
        status["drops"],
    );
    downloads.complete();
    assert!(lost as f64 * 1000.0 <= f64::from(sent) * LOST_PER_MILLE, "{lost} of {sent} were lost");
    assert!(most <= LIMIT, "{most} connections");
    assert!(grown < MEMORY_KIB, "memory grew by {grown} KiB");
    assert!(connections(&daemon, "displaced") > 0);
    assert!(failed * 10 <= requests.len(), "{failed} of {} requests failed", requests.len());
    assert!(daemon.log().contains("the table is full, with 16384 connections"), "{}", daemon.log());
    // Nobody has to wait until all of it has expired.
    lab.get(vip, "/", 5).unwrap();
}

#[test]
fn thirty_seconds_of_spoofed_syns_lose_no_known_connection_a_packet() {
    flooded(false, Duration::from_secs(30));
}

#[test]
fn datagrams_from_any_port_lose_no_known_connection_a_packet() {
    flooded(true, Duration::from_secs(8));
}

/// What an interface has received, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// By the driver.
    received: u64,
    /// By the steering program: given to a worker, left to the kernel, or lost as nobody was there.
    redirected: u64,
    passed: u64,
    no_socket: u64,
    /// By the workers, and lost on the way to them.
    taken: u64,
    lost: u64,
    /// What became of those.
    forwarded: u64,
    to_host: u64,
    dropped: u64,
}

impl Counted {
    /// What the steering program has seen.
    fn steered(&self) -> u64 {
        self.redirected + self.passed + self.no_socket
    }
}

fn counted(lab: &Lab, daemon: &Daemon<'_>) -> Counted {
    let received = lab.counted("director", "eth0", "rx", "packets");
    let status = daemon.status();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let (interface, worker, drops) = (&status["interfaces"][0], &status["workers"][0], &status["drops"]);
    let lost =
        ["receive_ring_full", "fill_ring_empty", "receive_dropped", "receive_overlong", "receive_unread"];
    Counted {
        received,
        redirected: number(&interface["redirected"]),
        passed: number(&interface["passed"]),
        no_socket: number(&drops["no_socket"]),
        taken: number(&worker["received"]),
        lost: lost.iter().map(|name| number(&drops[*name])).sum(),
        forwarded: number(&worker["forwarded"]),
        to_host: number(&worker["to_host"]),
        dropped: number(&worker["dropped"]),
    }
}

/// A counter of the switch's port to the director, for frames that the kernel was given whole: none but the noise.
fn on_wire(lab: &Lab, name: &str) -> u64 {
    let shown = lab.exec("switch", &["ethtool", "-S", "director-eth0"]).ok().stdout;
    let line = format!("tx_queue_0_{name}:");
    let value = shown.lines().find_map(|shown| shown.trim().strip_prefix(&line));
    value.unwrap_or_else(|| panic!("no {line} in {shown}")).trim().parse().unwrap()
}

#[test]
fn noise_is_counted_to_the_last_frame_and_no_request_fails() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = start(&lab);
    let vip = lab.v4("vip");
    // What came before there was a steering program, only the driver knows.
    let (earlier, _) = within("the wire is quiet", Duration::from_secs(20), || {
        let earlier =
            [(); 2].map(|()| counted(&lab, &daemon)).map(|it| it.received.wrapping_sub(it.steered()));
        if earlier[0] == earlier[1] { Ok(earlier[0]) } else { Err(format!("{earlier:?}")) }
    });
    let traffic = Traffic::start(&lab, &xlvs_tests::lab::url(vip, "/"), 2, 20);
    traffic.wait(5);
    let services = [(6, 80), (6, 80), (6, 80), (17, NUMBERED), (17, NUMBERED + 1)];
    let kinds = noise(macs(&lab), v4(vip), &services, SEED);
    let flood = LiveNoise::towards_director(&lab, 1, SEED, &kinds, NOISE);
    let before = traffic_goes_on(&traffic, Duration::from_secs(8));
    let (frames, took) = flood.finish();
    let requests = traffic.finish();
    assert!(before > 0);
    let failed: Vec<_> = requests.iter().filter(|request| request.answer.is_err()).collect();
    // The driver's counters and the others are read one after the other: until nothing comes any more.
    let (counted, _) = within("all counters agree", Duration::from_secs(20), || {
        let it = counted(&lab, &daemon);
        let agree = it.received == earlier.wrapping_add(it.steered())
            && it.redirected == it.taken + it.lost
            && it.taken == it.forwarded + it.to_host + it.dropped;
        if agree { Ok(it) } else { Err(format!("{it:#?}")) }
    });
    let [accepted, refused] = ["xdp_xmit", "xdp_xmit_errors"].map(|name| on_wire(&lab, name));
    println!(
        "{frames} frames in {took:?}: {:.0} a second; {refused} found no room on the wire, {:.0} a second came and {:.0} were taken up; {} requests, {} failed; \
         {counted:?}\n{:#}",
        frames as f64 / took.as_secs_f64(),
        counted.received as f64 / took.as_secs_f64(),
        counted.taken as f64 / took.as_secs_f64(),
        requests.len(),
        failed.len(),
        daemon.status()["drops"],
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(frames, accepted + refused, "{accepted} were taken by the wire, {refused} were not");
    assert!(counted.dropped > 1000 && counted.forwarded > 1000 && counted.passed > 1000, "{counted:?}");
}

/// Lets requests run for a time; how many there were.
fn traffic_goes_on(traffic: &Traffic, time: Duration) -> usize {
    let begin = Instant::now();
    let mut requests = 0;
    while begin.elapsed() < time {
        traffic.wait(2);
        requests += 2;
    }
    requests
}
