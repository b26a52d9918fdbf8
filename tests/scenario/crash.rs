//! The daemon is killed and started again. Until it is back, frames of its services are dropped and answered by nobody;
//! everything else passes; afterwards new connections work at once.
//!
//! ```text
//!   client (curl × 20, a session with the director's port 22) ── bridge ── director
//!                                                                  └──── rs1 rs2 rs3
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xlvs_tests::{Capture, Config, Daemon, Lab};

/// TCP segments with RST set that come out of the director: as an AF_XDP frame they would carry a client's address, so
/// the VIP as source marks those that the director's kernel made.
const KERNELS_RESETS: &str = "ether src 02:00:00:00:00:02 and \
    ((src host 10.0.0.100 and tcp[tcpflags] & tcp-rst != 0) or (src host fd00::100 and ip6[6] == 6 and ip6[53] & 4 != 0))";

/// How long the daemon may be away, by the issue's own measure.
const OUTAGE: Duration = Duration::from_secs(2);

#[test]
fn after_a_kill_new_connections_work_at_once_and_nobody_is_reset() {
    let lab = Lab::with_web(&[]);
    let config = Config::web(&lab, &["rs1", "rs2", "rs3"]);
    let mut daemon = Daemon::start(&lab, &config);
    let vips = [lab.v4("vip"), lab.v6("vip")];
    // On the bridge's side of the link: a capture in the director does not see what AF_XDP sends.
    let mut resets = Capture::start(&lab, "switch", "director-eth0", KERNELS_RESETS);

    // Twenty downloads of 20 MiB, slow enough to be in the middle of it; whether they survive is not asked here.
    let downloads: Vec<_> = (0..20)
        .map(|n| {
            let url = xlvs_tests::lab::url(vips[n % 2], "/download");
            lab.spawn("client", &["curl", "-s", "-m", "60", "--limit-rate", "3M", "-o", "/dev/null", &url])
        })
        .collect();
    xlvs_tests::until("all downloads are under way", Duration::from_secs(10), || {
        let active = |vip| daemon.service(vip, 80)["connections"].as_u64().unwrap();
        vips.map(active) == [10, 10]
    });

    let session = Session::open(&lab);
    let killed = Instant::now();
    daemon.kill();
    // A new connection in the outage waits for the daemon rather than being refused.
    let curl = |vip| {
        let url = xlvs_tests::lab::url(vip, "/");
        lab.spawn("client", &["curl", "-sS", "-m", "15", "-w", "%{http_code}", "-o", "/dev/null", &url])
    };
    let waiting = vips.map(curl);
    let refusal = lab
        .inside("client", || TcpStream::connect_timeout(&(vips[0], 80).into(), Duration::from_millis(500)));
    assert_eq!(
        refusal.unwrap_err().kind(),
        std::io::ErrorKind::TimedOut,
        "in the outage nobody answers for the VIP"
    );
    assert!(lab.xdp_on("eth0").is_some(), "the program stays and drops");
    let _ = lab.exec("client", &["ping", "-c", "1", "-W", "1", &vips[0].to_string()]).ok();

    daemon.respawn();
    daemon.wait_ready(true);
    let away = killed.elapsed();
    assert!(away < OUTAGE, "it was away for {away:?}");
    for vip in vips {
        lab.get(vip, "/", 1).unwrap();
        let answers = lab.get_many(vip, 30);
        assert!(!answers.contains_key("failed"), "{vip}: {answers:?}");
    }
    for curl in waiting {
        assert_eq!(curl.finish(Duration::from_secs(20)).ok().stdout, "200");
    }

    session.close();
    drop(downloads);
    // Frames behind it show that the capture is not lagging: a ping's answer is long past when it returns.
    let resets = resets.frames();
    assert!(resets.is_empty(), "the director's kernel reset connections: {resets:02x?}");
}

/// A line of text every 20 ms to a listener of the director's kernel and back, as an operator's ssh would.
struct Session<'a> {
    stop: &'a AtomicBool,
    client: std::thread::JoinHandle<Duration>,
}

impl Session<'_> {
    fn open(lab: &Lab) -> Self {
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let listener = lab.inside("director", || TcpListener::bind("0.0.0.0:22").unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 16];
            while let Ok(n @ 1..) = stream.read(&mut line) {
                if stream.write_all(&line[..n]).is_err() {
                    break;
                }
            }
        });
        let vip = lab.v4("vip");
        let mut stream = lab.inside("client", || TcpStream::connect((vip, 22)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let client = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            let mut line = [0; 16];
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                stream.write_all(b"are you there?\n.").unwrap();
                stream.read_exact(&mut line).unwrap();
                longest = longest.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            longest
        });
        Self { stop, client }
    }

    /// No answer may have taken as long as a lost frame takes to be sent again and then some.
    #[track_caller]
    fn close(self) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.client.join().unwrap();
        assert!(
            longest < Duration::from_secs(1),
            "the session with the director itself stood still for {longest:?}"
        );
    }
}

/// Without a daemon to come back, an operator takes the program off by hand; then the kernel has the port again.
#[test]
pub(super) fn detach_cleans_up_after_a_kill() {
    let lab = Lab::with_web(&[]);
    let mut daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2", "rs3"]));
    let vip = lab.v4("vip");
    lab.get(vip, "/", 5).unwrap();
    daemon.kill();
    assert!(lab.xdp_on("eth0").is_some(), "the program outlives the daemon");
    let xlvs = xlvs_tests::lab::xlvs();
    let xlvs = xlvs.to_str().unwrap();
    let _ = lab.exec("director", &[xlvs, "detach", "eth0"]).ok();
    assert_eq!(lab.xdp_on("eth0"), None);
    let refused =
        lab.inside("client", || TcpStream::connect_timeout(&(vip, 80).into(), Duration::from_secs(2)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);

    // And a new daemon finds nothing in its way.
    daemon.respawn();
    daemon.wait_ready(true);
    lab.get(vip, "/", 5).unwrap();
}
