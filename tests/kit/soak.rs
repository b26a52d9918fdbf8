//! Hours in short: operations, faults and traffic in a random order, and what has to hold after each of them. A run has a seed,
//! which is printed and gives the same order again.
//!
//! After each step: downloads that were under way before it have come to their end, both VIPs answer from the servers that are
//! configured, connections stay within their bound, nobody panicked, and the daemon has not grown since it last started.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::frame::Ends;
use crate::raw::RawSender;
use crate::{Config, Daemon, Download, Downloads, Lab, within};

const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];
/// So few that half-open connections fill the table now and then.
const CONNECTIONS: u64 = 16_384;
/// Each takes two seconds.
const DOWNLOAD: Download = Download { bytes: 2 << 20, rate: "1M", limit_s: 50 };
/// Downloads across each step, of both VIPs in turn.
const DOWNLOADS: usize = 4;
/// Requests of each VIP after each step.
const REQUESTS: usize = 12;
/// How long a step's consequences may take.
const SETTLED: Duration = Duration::from_secs(20);
/// What a daemon may grow by while it runs: connections, half-open ones included, and buffers of its tools.
const GROWTH_KIB: u64 = 24 << 10;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A server comes into the file or leaves it.
    Toggle,
    /// A server gets another weight in the file.
    Weigh,
    /// A tool adds a service and takes it away.
    Tool,
    /// `kill -9`, and another start.
    Kill,
    /// A clean end, and another start.
    Restart,
    /// The director's interface goes down and up.
    Link,
    /// Connections that never get beyond their first segment.
    HalfOpen,
    /// Frames of random bytes for the VIPs.
    Noise,
    /// Nothing but traffic.
    Rest,
}

const STEPS: [Step; 9] = [
    Step::Toggle,
    Step::Weigh,
    Step::Tool,
    Step::Kill,
    Step::Restart,
    Step::Link,
    Step::HalfOpen,
    Step::Noise,
    Step::Rest,
];

/// What a run was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Steps.
    pub steps: usize,
    /// Downloads that were under way in one, and requests after it.
    pub answered: usize,
    /// The most that a daemon has grown by, in KiB.
    pub growth_kib: u64,
}

struct Soak<'lab> {
    lab: &'lab Lab,
    daemon: Daemon<'lab>,
    config: Config,
    noise: RawSender,
    random: ChaCha8Rng,
    /// The memory in use some time after the daemon's start.
    memory_kib: Option<u64>,
    summary: Summary,
}

/// Runs for so long, and panics where something does not hold.
#[must_use]
pub fn run(length: Duration, seed: u64) -> Summary {
    println!("seed {seed}");
    let lab = Lab::with_web(&[]);
    for role in ["director", "client"] {
        // A link that goes down takes its IPv6 addresses along otherwise.
        let keep = "net.ipv6.conf.eth0.keep_addr_on_down=1";
        let _ = lab.exec(role, &["sysctl", "-qw", keep]).ok();
    }
    let config = Config::web(&lab, &SERVERS).with(&format!("max_connections = {CONNECTIONS}"));
    let daemon = Daemon::start(&lab, &config);
    let noise = RawSender::on(&lab, "client", "eth0");
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut soak =
        Soak { lab: &lab, daemon, config, noise, random, memory_kib: None, summary: Summary::default() };
    let begin = Instant::now();
    while begin.elapsed() < length {
        // Each of them before any comes again, so that a short run has seen all.
        let mut steps = STEPS;
        for at in (1..steps.len()).rev() {
            steps.swap(at, soak.random.random_range(0..=at));
        }
        for step in steps {
            println!("{:5.0} s: {step:?}", begin.elapsed().as_secs_f64());
            soak.step(step);
        }
    }
    let ended = soak.daemon.stop();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    soak.summary
}

impl Soak<'_> {
    fn vips(&self) -> [IpAddr; 2] {
        [self.lab.v4("vip"), self.lab.v6("vip")]
    }

    fn step(&mut self, step: Step) {
        // Who ends the director for good has the host answer for the VIP: with resets.
        let count = if step == Step::Restart { 0 } else { DOWNLOADS };
        let downloads = Downloads::start(self.lab, &self.vips(), count, DOWNLOAD);
        within("downloads are under way", SETTLED, || match self.connected() {
            some if some == count => Ok(()),
            some => Err(some),
        });
        self.act(step);
        self.check(step);
        downloads.complete_across(&format!("{step:?}"));
        self.summary.answered += count;
        self.summary.steps += 1;
    }

    /// The client's connections to the VIPs.
    fn connected(&self) -> usize {
        let list = self.lab.exec("client", &["ss", "-Htn", "state", "established", "dport", "=", ":80"]).ok();
        list.stdout.lines().count()
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Toggle => {
                let server = *SERVERS.choose(&mut self.random).unwrap();
                for (service, address) in
                    self.config.services.iter_mut().zip([self.lab.v4(server), self.lab.v6(server)])
                {
                    let before = service.destinations.len();
                    service.destinations.retain(|(destination, _)| *destination != address);
                    if service.destinations.len() == before {
                        service.destinations.push((address, 1));
                    } else if service.destinations.is_empty() {
                        service.destinations.push((address, 2));
                    }
                }
                self.daemon.reload(&self.config);
            }
            Step::Weigh => {
                for service in &mut self.config.services {
                    let weights = service.destinations.iter_mut().map(|(_, weight)| weight);
                    weights.for_each(|weight| *weight = self.random.random_range(1..4));
                }
                self.daemon.reload(&self.config);
            }
            Step::Tool => {
                let service = format!("-u {}:{}", self.vips()[0], self.random.random_range(5000..6000_u16));
                let _ = self.daemon.ipvsadm(&format!("-A {service} -s wlc")).ok();
                let server = self.lab.v4("rs1");
                let _ = self.daemon.ipvsadm(&format!("-a {service} -r {server} -g")).ok();
                let _ = self.daemon.ipvsadm(&format!("-D {service}")).ok();
            }
            Step::Kill => {
                self.daemon.kill();
                self.start();
            }
            Step::Restart => {
                let ended = self.daemon.stop();
                assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
                self.start();
            }
            Step::Link => {
                for state in ["down", "up"] {
                    let _ = self.lab.exec("director", &["ip", "link", "set", "eth0", state]).ok();
                }
            }
            Step::HalfOpen => {
                let ends = self.ends();
                let first = self.random.random_range(1024..60_000_u16);
                for port in first..first + 4000 {
                    let source = (self.lab.v4("client"), port);
                    self.noise.send(&Ends { source, ..ends }.syn(&[]));
                }
            }
            Step::Noise => {
                let plain = self.ends().syn(&[]);
                for _ in 0..4000 {
                    let mut frame = plain.clone();
                    for _ in 0..self.random.random_range(1..6) {
                        // The MACs stay, so that it comes to the director.
                        let at = self.random.random_range(12..frame.len());
                        frame[at] = self.random.random();
                    }
                    frame.truncate(self.random.random_range(15..=frame.len()));
                    self.noise.send(&frame);
                }
            }
            Step::Rest => {}
        }
    }

    fn start(&mut self) {
        self.daemon.respawn();
        self.daemon.wait_ready(true);
        self.memory_kib = None;
    }

    /// From a port of the client's that no program has to the service.
    fn ends(&self) -> Ends {
        Ends {
            source_mac: self.lab.mac("client", "eth0"),
            destination_mac: self.lab.mac("director", "eth0"),
            source: (self.lab.v4("client"), 1),
            destination: (self.vips()[0], 80),
        }
    }

    fn check(&mut self, step: Step) {
        let wanted: BTreeSet<String> = {
            let of = |server: &&&str| {
                let address = self.lab.v4(server);
                self.config.services[0].destinations.iter().any(|(destination, _)| *destination == address)
            };
            SERVERS.iter().filter(of).map(|server| (*server).to_owned()).collect()
        };
        for vip in self.vips() {
            within(&format!("{vip} answers from {wanted:?} after {step:?}"), SETTLED, || {
                let answers = self.lab.get_many(vip, REQUESTS);
                let names: BTreeSet<String> = answers.keys().cloned().collect();
                if names == wanted { Ok(()) } else { Err(format!("{answers:?}")) }
            });
            self.summary.answered += REQUESTS;
        }
        let status = self.daemon.status();
        let live = status["connections"]["live"].as_u64().unwrap();
        assert!(live <= CONNECTIONS, "{live} connections after {step:?}");
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "after {step:?}: {log}");
        let memory = self.daemon.memory_kib();
        let before = *self.memory_kib.get_or_insert(memory);
        let growth = memory.saturating_sub(before);
        assert!(growth <= GROWTH_KIB, "grown from {before} KiB to {memory} KiB, last by {step:?}");
        self.summary.growth_kib = self.summary.growth_kib.max(growth);
    }
}
