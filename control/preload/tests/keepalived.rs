//! Debian's keepalived, unmodified, with the library in it: its checks program the daemon, its VRRP and routes are the
//! kernel's, and the daemon may go away and come back while it runs.
#![allow(clippy::unwrap_used)]

mod kit;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kit::daemon::{DEL_DEST, Daemon, NEW_DEST, NEW_SERVICE};
use kit::namespace::{Namespace, Running};
use kit::program::library;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
/// Between adverts. A backup takes over when it has heard none for three times as long.
const ADVERT: Duration = Duration::from_millis(400);

const CONFIGURATION: &str = "
global_defs {
  router_id test
  vrrp_version 3
}
vrrp_instance ONE {
  interface ka0
  state MASTER
  virtual_router_id 51
  priority 200
  advert_int 0.4
  virtual_ipaddress {
    192.0.2.10/32
  }
}
virtual_server 192.0.2.10 80 {
  delay_loop 1
  lvs_sched rr
  lvs_method DR
  protocol TCP
  real_server 192.0.2.11 80 {
    weight 3
    TCP_CHECK {
      connect_timeout 1
      retry 0
      delay_before_retry 1
    }
  }
}
";

/// keepalived in a namespace, the daemon that it drives, the server that it checks, and a listener to its adverts.
struct Scene {
    keepalived: Running,
    adverts: Running,
    server: Option<TcpListener>,
    daemon: Daemon,
    namespace: Namespace,
}

impl Scene {
    /// All up, and the first adverts heard.
    fn new() -> Self {
        let scene = Self::start(Daemon::started(), Namespace::new());
        scene.daemon.wait_for("the service and its server", |daemon| daemon.table() == (1, 1));
        scene.wait_for("three adverts", |scene| scene.adverts_seen().len() >= 3);
        scene
    }

    fn start(daemon: Daemon, namespace: Namespace) -> Self {
        namespace.ip("addr add 192.0.2.1/24 dev ka0");
        namespace.ip("addr add 192.0.2.11/32 dev lo");
        let server = Some(namespace.listen(SERVER, 80));
        let file = |name: &str| daemon.folder().join(name);
        std::fs::write(file("keepalived.conf"), CONFIGURATION).unwrap();
        let mut command = namespace.inside("tcpdump");
        command.args(["-i", "ka1", "-n", "-tt", "--immediate-mode", "-l", "vrrp"]);
        let output = std::fs::File::create(file("adverts")).unwrap();
        let adverts = Running(command.stdout(output).stderr(Stdio::null()).spawn().unwrap());
        let mut command = namespace.inside("keepalived");
        command.args(["-n", "-l", "-D", "-f"]).arg(file("keepalived.conf"));
        command
            .arg("-p")
            .arg(file("pid"))
            .arg("-c")
            .arg(file("pid.checkers"))
            .arg("-r")
            .arg(file("pid.vrrp"));
        command.env("LD_PRELOAD", library()).env("XLVS_SOCKET", daemon.socket());
        let log = std::fs::File::create(file("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let keepalived = Running(command.spawn().unwrap());
        Self { keepalived, adverts, server, daemon, namespace }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }

    /// The lines of the log since `before`, as another log gave it.
    fn log_since(&self, before: &str) -> String {
        self.log()[before.len()..].to_owned()
    }

    /// When adverts were heard, in seconds.
    fn adverts_seen(&self) -> Vec<f64> {
        let text = std::fs::read_to_string(self.file("adverts")).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.split_once(' ')?.0.parse().ok()).collect()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "not within 20 s: {what}\n{}\n{:?}",
                self.log(),
                self.daemon.state()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// No backup would have taken over.
    #[track_caller]
    fn adverts_never_missed(&self) {
        let seen = self.adverts_seen();
        let gap = seen.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(gap < 3.0 * ADVERT.as_secs_f64(), "{gap} s without an advert: {seen:?}\n{}", self.log());
    }
}

#[test]
fn checks_program_the_daemon_and_vrrp_the_kernel() {
    let mut scene = Scene::new();
    assert_eq!(scene.daemon.changes(), [NEW_SERVICE, NEW_DEST]);
    scene.wait_for("the VIP on its interface", |scene| {
        scene.namespace.ip("addr show dev ka0").contains("192.0.2.10/32")
    });
    scene.server = None;
    scene.daemon.wait_for("the server out", |daemon| daemon.table() == (1, 0));
    scene.server = Some(scene.namespace.listen(SERVER, 80));
    scene.daemon.wait_for("the server in", |daemon| daemon.table() == (1, 1));
    assert_eq!(scene.daemon.changes(), [NEW_SERVICE, NEW_DEST, DEL_DEST, NEW_DEST]);
    scene.adverts_never_missed();
    scene.namespace.ip("link set ka1 down");
    scene.wait_for("the kernel's news of a lost carrier", |scene| {
        scene.log().contains("(ONE) Entering FAULT STATE")
    });
    assert!(scene.keepalived.is_alive() && scene.adverts.is_alive());
}

#[test]
fn a_restart_of_the_daemon_is_not_noticed() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        scene.daemon.stop();
        scene.daemon.start();
        scene.server = None;
        scene.daemon.wait_for("the server out", |daemon| daemon.table() == (1, 0));
        scene.daemon.stop();
        scene.daemon.start();
        scene.server = Some(scene.namespace.listen(SERVER, 80));
        scene.daemon.wait_for("the server in", |daemon| daemon.table() == (1, 1));
    }
    assert!(!scene.log().contains("IPVS"), "{}", scene.log());
    scene.adverts_never_missed();
    assert!(scene.keepalived.is_alive());
}

#[test]
fn what_fails_while_the_daemon_is_down_is_tried_again() {
    let mut scene = Scene::new();
    let before = scene.log();
    scene.daemon.stop();
    scene.server = None;
    let refused = "IP_VS_SO_SET_DELDEST(1160) error: Resource temporarily unavailable";
    scene.wait_for("two refused changes", |scene| scene.log_since(&before).matches(refused).count() >= 2);
    assert_eq!(scene.log_since(&before).matches("no xlvs daemon answers on").count(), 1, "{}", scene.log());
    assert!(
        !scene.log_since(&before).contains("Lost quorum"),
        "it believes that it was done: {}",
        scene.log()
    );
    scene.daemon.start();
    scene.daemon.wait_for("the server out", |daemon| daemon.table() == (1, 0));
    scene.adverts_never_missed();
    assert!(scene.keepalived.is_alive());
}

#[test]
fn without_the_daemon_it_ends_and_says_why() {
    let (daemon, namespace) = (Daemon::stopped(), Namespace::new());
    let mut scene = Scene::start(daemon, namespace);
    scene.wait_for("the cause", |scene| scene.log().contains("no xlvs daemon answers on"));
    scene.wait_for("the end", |scene| scene.log().contains("Stopped Keepalived"));
    let code = scene.keepalived.0.wait().unwrap().code();
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
}
