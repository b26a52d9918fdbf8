//! Interfaces: down and up, deleted and made again, another MTU, more queues, and the VIP gone and back.

use std::time::{Duration, Instant};

use xlvs_tests::daemon::list;
use xlvs_tests::{Daemon, Lab, within};

use super::{SOON, answered_again, downloads, interface, shell, told, web, worker};

#[test]
fn a_link_that_goes_down_and_up_again_takes_no_flow_along() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    let downloads = downloads(&lab, &daemon);
    shell(&lab, "director", "ip link set eth0 down");
    within("it is told to be down", SOON, || match &interface(&daemon)["state"] {
        state if state == "down" => Ok(()),
        state => Err(state.to_string()),
    });
    let text = daemon.client(&["status"]).ok().stdout;
    assert!(text.contains("     down: its frames are lost until it is back"), "{text}");
    shell(&lab, "director", "ip link set eth0 up");
    answered_again(&lab, vip, Instant::now());
    assert_eq!(interface(&daemon)["state"], "up");
    assert_eq!(worker(&daemon, 0)["reopened"], 0, "its sockets have outlived it");
    told(&daemon, &[("WARN", "interface eth0 is down"), ("INFO", "interface eth0 is up")]);
    downloads.complete();
}

/// The director's interface as `scripts/lab.sh` makes it, with its cable plugged in last.
fn make_again(lab: &Lab) {
    let (namespace, mac) = (lab.fact("ns_director"), lab.fact("mac_director_eth0"));
    shell(
        lab,
        "switch",
        &format!(
            "ip link add director-eth0 numrxqueues 1 numtxqueues 1 type veth peer name eth0 netns {namespace} \
             address {mac} numrxqueues 1 numtxqueues 1
             ethtool -K director-eth0 tx off txvlan off >/dev/null"
        ),
    );
    let (v4, v6) = (lab.v4("vip"), lab.v6("vip"));
    shell(
        lab,
        "director",
        &format!(
            "ethtool -K eth0 tx off txvlan off >/dev/null
             ip link set eth0 up
             ip address add 10.0.0.2/24 dev eth0
             ip address add fd00::2/64 dev eth0 nodad
             ip address add {v4}/32 dev eth0
             ip address add {v6}/128 dev eth0 nodad preferred_lft 0"
        ),
    );
    shell(lab, "switch", "ip link set director-eth0 up; ip link set director-eth0 master br0");
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_served_again() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    let downloads = downloads(&lab, &daemon);
    let before = interface(&daemon)["index"].as_u64().unwrap();
    for times in 1..=2 {
        shell(&lab, "director", "ip link delete eth0");
        within("it is told to be missing", SOON, || match &interface(&daemon)["state"] {
            state if state == "missing" => Ok(()),
            state => Err(state.to_string()),
        });
        let text = daemon.client(&["status"]).ok().stdout;
        assert!(text.contains("     missing: its frames are lost until it is back"), "{text}");
        make_again(&lab);
        answered_again(&lab, vip, Instant::now());
        let its = interface(&daemon);
        assert_eq!((&its["state"], &its["trouble"]), (&"up".into(), &serde_json::Value::Null), "{its:#}");
        assert_ne!(its["index"], before, "{its:#}");
        assert!(lab.xdp_on("eth0").is_some());
        let its = worker(&daemon, 0);
        assert_eq!((&its["state"], &its["reopened"]), (&"running".into(), &times.into()), "{its:#}");
    }
    told(
        &daemon,
        &[
            ("WARN", "interface eth0 is gone: its frames are lost until it is back"),
            ("WARN", "interface eth0 was deleted and is there again"),
            ("INFO", "eth0: the steering program is attached again, XDP native"),
            ("INFO", "worker 0 serves queue 0 after "),
        ],
    );
    downloads.complete();
    let mut daemon = daemon;
    let ended = daemon.stop();
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    // Of the destinations, as long as there is no interface.
    assert!(errors.iter().all(|line| line.contains("has no route")), "{errors:#?}");
    assert_eq!(lab.xdp_on("eth0"), None, "a clean end takes it off the new one too");
}

#[test]
fn another_mtu_is_followed() {
    // veth itself drops what is larger than the MTU of who receives it, so that it is the servers' side that changes.
    let lab = Lab::with_web(&["--servers", "2", "--two-armed"]);
    let daemon = Daemon::start(&lab, &web(&lab).interfaces(&["eth0", "eth1"]));
    let file = lab.dir().join("upload");
    std::fs::write(&file, vec![7; 200_000]).unwrap();
    let (from, url) = (format!("@{}", file.display()), xlvs_tests::lab::url(lab.v4("vip"), "/"));
    let format = "%{http_code}";
    let line = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", format, "--data-binary", &from, &url];
    let upload = || assert_eq!(lab.exec("client", &line).ok().stdout, "200", "{}", daemon.log());
    let too_big = || daemon.drops().get("too_big").copied().unwrap_or(0);
    upload();
    assert_eq!(too_big(), 0);
    for (mtu, is_less) in [(1300, true), (1500, false)] {
        shell(&lab, "director", &format!("ip link set eth1 mtu {mtu}"));
        within("it is taken up", SOON, || match &daemon.status()["interfaces"][1]["mtu"] {
            its if *its == mtu => Ok(()),
            its => Err(its.to_string()),
        });
        // What the client remembers is of before.
        shell(&lab, "client", "ip route flush cache");
        let before = too_big();
        upload();
        // The client has to be told of the smaller one, as routers do it.
        assert_eq!(too_big() > before, is_less, "MTU {mtu}: {:?}", daemon.drops());
    }
    told(
        &daemon,
        &[
            ("INFO", "interface eth1 has MTU 1300, after 1500"),
            ("INFO", "interface eth1 has MTU 1500, after 1300"),
        ],
    );
}

#[test]
fn a_queue_that_is_added_gets_a_worker() {
    let lab = Lab::with_web(&["--servers", "2", "--queues", "2"]);
    let one = |role, name| shell(&lab, role, &format!("ethtool -L {name} rx 1 tx 1"));
    one("switch", "director-eth0");
    one("director", "eth0");
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    assert_eq!(list(&daemon.status(), "workers").len(), 1);
    let downloads = downloads(&lab, &daemon);
    // A veth receives on as many queues as its peer sends on, which must not be more.
    let since = Instant::now();
    shell(&lab, "director", "ethtool -L eth0 rx 2 tx 2");
    within("there is a second worker", Duration::from_secs(3), || {
        let status = daemon.status();
        let second = list(&status, "workers").get(1).map(|worker| worker["state"].clone());
        if second == Some("running".into()) { Ok(()) } else { Err(format!("{second:?}")) }
    });
    println!("a second worker after {} ms", since.elapsed().as_millis());
    shell(&lab, "switch", "ethtool -L director-eth0 rx 2 tx 2");
    answered_again(&lab, vip, Instant::now());
    let answers = lab.get_many(vip, 100);
    assert!(!answers.contains_key("failed"), "{answers:?}");
    let second = worker(&daemon, 1);
    assert!(second["received"].as_u64() > Some(0), "{second:#}");
    assert_eq!(interface(&daemon)["queues"], 2);
    assert_eq!(worker(&daemon, 0)["reopened"], 0, "the first one goes on as it was");
    told(
        &daemon,
        &[
            ("INFO", "interface eth0 has 2 queue(s), after 1"),
            ("INFO", "queue 1 is new, and gets a worker on core"),
            ("INFO", "worker 1 serves queue 1 after "),
        ],
    );
    downloads.complete();
    // What a later worker has forwarded is counted as any other's: all packets are in the service's count.
    let forwarded: u64 =
        [0, 1].iter().map(|&number| worker(&daemon, number)["forwarded"].as_u64().unwrap()).sum();
    assert_eq!(daemon.service(vip, 80)["packets"], forwarded, "{:#}", daemon.status());
}

#[test]
fn a_vip_that_goes_and_comes_back_is_served_again_and_flows_go_on() {
    let lab = Lab::with_web(&["--servers", "2"]);
    let daemon = Daemon::start(&lab, &web(&lab));
    let vip = lab.v4("vip");
    let downloads = downloads(&lab, &daemon);
    lab.vip("del", vip);
    within("it is not served", SOON, || match &daemon.service(vip, 80)["served"] {
        served if *served == false => Ok(()),
        served => Err(served.to_string()),
    });
    lab.vip("add", vip);
    answered_again(&lab, vip, Instant::now());
    assert_eq!(daemon.service(vip, 80)["served"], true);
    told(
        &daemon,
        &[("WARN", &format!("tcp {vip}:80 is not served: ")), ("INFO", &format!("tcp {vip}:80 is served"))],
    );
    downloads.complete();
}
