//! Two directors back each other up by VRRP, as keepalived, unmodified, does it; meanwhile requests go on. Open connections are not
//! carried over to the other director: requests under way while the VIP moves may fail, all others may not.
//!
//! ```text
//!                   ┌── director  .2  (xlvs run; xlvs wrap -- keepalived, priority 150)
//!   client .5 ── bridge              VIP .100: wherever VRRP puts it
//!                   ├── director2 .3  (xlvs run; xlvs wrap -- keepalived, priority 100)
//!                   └── rs1 .11, rs2 .12, rs3 .13
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use xlvs_tests::daemon::list;
use xlvs_tests::keepalived::Advert;
use xlvs_tests::traffic::{Outage, none_refused, only_failed_in};
use xlvs_tests::{Capture, Config, Daemon, Keepalived, Lab, Traffic, until, within};

pub(super) const PLAN: &str = "
    client    eth0 lan 10.0.0.5/24
    director  eth0 lan 10.0.0.2/24
    director2 eth0 lan 10.0.0.3/24
    rs1       eth0 lan 10.0.0.11/24
    rs2       eth0 lan 10.0.0.12/24
    rs3       eth0 lan 10.0.0.13/24
    vip 10.0.0.100
";
pub(super) const SERVERS: [&str; 3] = ["rs1", "rs2", "rs3"];
const DIRECTORS: [&str; 2] = ["director", "director2"];

/// VRRP's own time until a silent master is replaced, three adverts and a skew below one; and two seconds for loaded machines.
pub(super) const TAKEOVER: Duration = Duration::from_secs(3 + 1 + 2);
/// Seconds after which curl gives up: a SYN that was lost in the takeover is repeated within.
const CURL_LIMIT_S: u32 = 15;

/// keepalived's configuration of a director: both alike, but for the priority.
pub(super) fn configuration(lab: &Lab, role: &str) -> String {
    let (state, priority) = if role == "director" { ("MASTER", 150) } else { ("BACKUP", 100) };
    let vip = lab.v4("vip");
    let mut text = format!(
        "global_defs {{\n router_id {role}\n}}\n\
         vrrp_instance VI_1 {{\n state {state}\n interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int 1\n \
         authentication {{\n  auth_type PASS\n  auth_pass 1111\n }}\n virtual_ipaddress {{\n  {vip}\n }}\n}}\n\
         virtual_server {vip} 80 {{\n delay_loop 1\n lb_algo rr\n lb_kind DR\n protocol TCP\n"
    );
    for server in SERVERS {
        let check = "TCP_CHECK {\n  connect_timeout 1\n  retry 1\n  delay_before_retry 1\n }";
        writeln!(text, " real_server {} 80 {{\n  weight 1\n  {check}\n }}", lab.v4(server)).unwrap();
    }
    text + "}\n"
}

/// A director of the pair.
pub(super) struct Director<'lab> {
    lab: &'lab Lab,
    role: &'static str,
    configuration: fn(&Lab, &str) -> String,
    pub(super) daemon: Daemon<'lab>,
    pub(super) keepalived: Option<Keepalived>,
}

impl<'lab> Director<'lab> {
    fn start(
        lab: &'lab Lab,
        role: &'static str,
        file: &Config,
        configuration: fn(&Lab, &str) -> String,
    ) -> Self {
        let mut daemon = Daemon::launch(lab, role, file);
        daemon.wait_ready(true);
        let mut director = Self { lab, role, configuration, daemon, keepalived: None };
        director.start_keepalived();
        director
    }

    pub(super) fn start_keepalived(&mut self) {
        let text = (self.configuration)(self.lab, self.role);
        self.keepalived = Some(Keepalived::start(self.lab, self.role, &self.daemon, &text));
    }

    fn address(&self) -> IpAddr {
        self.lab.v4(self.role)
    }

    fn has_vip(&self) -> bool {
        let addresses =
            self.lab.exec(self.role, &["ip", "-4", "-o", "address", "show", "dev", "eth0"]).ok().stdout;
        addresses.contains(&format!(" {}/32 ", self.lab.v4("vip")))
    }

    /// Waits until its daemon serves, or would serve, by exactly these real servers, whose neighbours it knows.
    pub(super) fn served_by(&self, servers: &[&str]) {
        let wanted: BTreeSet<String> = servers.iter().map(|server| self.lab.v4(server).to_string()).collect();
        within("keepalived's servers are the director's", Duration::from_secs(20), || {
            let status = self.daemon.try_status()?;
            let resolved: BTreeSet<String> = list(&status, "services")
                .iter()
                .flat_map(|service| list(service, "destinations"))
                .filter(|destination| destination["neighbor"] == "resolved")
                .map(|destination| destination["address"].as_str().unwrap_or_default().to_owned())
                .collect();
            if resolved == wanted { Ok(()) } else { Err(format!("{}: {resolved:?}", self.role)) }
        });
    }

    fn is_served(&self) -> bool {
        list(&self.daemon.status(), "services").iter().all(|service| service["served"] == true)
    }

    fn log(&self) -> String {
        self.keepalived.as_ref().map(Keepalived::log).unwrap_or_default()
    }
}

/// Both directors, with what is seen of them on the wire.
pub(super) struct Pair<'lab> {
    lab: &'lab Lab,
    pub(super) directors: [Director<'lab>; 2],
    /// Adverts that reach the backup, and its own.
    adverts: Capture,
    /// ARP that reaches the client.
    arp: Capture,
}

impl<'lab> Pair<'lab> {
    /// Starts both; the first holds the VIP, and both have all servers.
    fn start(lab: &'lab Lab) -> Self {
        Self::start_with(lab, &Config::empty(), configuration)
    }

    /// The same with another file for the directors, and another configuration for their keepaliveds.
    pub(super) fn start_with(lab: &'lab Lab, file: &Config, configuration: fn(&Lab, &str) -> String) -> Self {
        let adverts = Capture::start(lab, "director2", "eth0", "ip proto 112");
        let arp = Capture::start(lab, "client", "eth0", "arp");
        let directors = DIRECTORS.map(|role| Director::start(lab, role, file, configuration));
        let pair = Self { lab, directors, adverts, arp };
        until("the first director has the VIP, alone", Duration::from_secs(15), || pair.holder() == Some(0));
        pair.directors.iter().for_each(|director| director.served_by(&SERVERS));
        until("it is served", Duration::from_secs(5), || pair.directors[0].is_served());
        assert!(!pair.directors[1].is_served(), "the backup serves what it doesn't hold");
        pair
    }

    /// The director that alone has the VIP.
    pub(super) fn holder(&self) -> Option<usize> {
        let has = self.directors.each_ref().map(Director::has_vip);
        (has[0] != has[1]).then_some(usize::from(has[1]))
    }

    fn adverts(&mut self) -> Vec<Advert> {
        self.adverts.frames().iter().filter_map(Advert::of).collect()
    }

    /// Waits until a director announces itself after `since`; the times of its first advert and of its first gratuitous ARP
    /// for the VIP, by which the client learns of it.
    pub(super) fn takes_over(
        &mut self,
        which: usize,
        since: SystemTime,
        limit: Duration,
    ) -> (SystemTime, SystemTime) {
        let director = &self.directors[which];
        let (IpAddr::V4(address), IpAddr::V4(vip)) = (director.address(), self.lab.v4("vip")) else {
            panic!()
        };
        let mac = self.lab.mac(director.role, "eth0");
        let what = format!("{} takes over", director.role);
        let (times, _) = within(&what, limit, || {
            let missing = |what: &str| format!("no {what}; its keepalived's log:\n{}", director.log());
            let is_its =
                |advert: &Advert| advert.at >= since && advert.from == address && advert.priority > 0;
            let adverts = self.adverts.frames();
            let advert =
                adverts.iter().filter_map(Advert::of).find(is_its).ok_or_else(|| missing("advert"))?;
            let is_about = |bytes: &[u8]| bytes[6..12] == mac && bytes[28..32] == vip.octets();
            let arp = self.arp.frames().into_iter().find(|frame| frame.at >= since && is_about(&frame.bytes));
            Ok::<_, String>((advert.at, arp.ok_or_else(|| missing("ARP"))?.at))
        });
        println!("{what} after {} ms", times.1.duration_since(since).unwrap().as_millis());
        times
    }
}

/// Who answers so many requests, others going on beside them; "failed" if one was not answered.
fn answering(lab: &Lab, count: usize) -> BTreeSet<String> {
    lab.get_many(lab.v4("vip"), count).into_keys().collect()
}

/// The longest silence between adverts of a director, from `since` on.
fn longest_gap(adverts: &[Advert], from: Ipv4Addr, since: SystemTime) -> Duration {
    let times: Vec<SystemTime> = adverts
        .iter()
        .filter(|advert| advert.from == from && advert.at >= since)
        .map(|advert| advert.at)
        .collect();
    assert!(times.len() > 2, "{adverts:?}");
    times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap()).max().unwrap()
}

#[test]
fn a_masters_death_moves_the_vip_and_its_return_moves_it_back_while_requests_go_on() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let mut pair = Pair::start(&lab);
    let url = xlvs_tests::lab::url(lab.v4("vip"), "/");
    let traffic = Traffic::start(&lab, &url, 4, CURL_LIMIT_S);
    let mut outages = Vec::new();
    let mut outage = |what: &str, from, until| outages.push(Outage { what: what.to_owned(), from, until });

    // keepalived alone dies: the address stays at the old director too, which goes on serving until clients are told of the new one.
    let begin = SystemTime::now();
    pair.directors[0].keepalived.take().unwrap().kill();
    let (advert, arp) = pair.takes_over(1, begin, TAKEOVER);
    outage("the master's keepalived is killed", advert, arp);
    until("the backup serves", Duration::from_secs(5), || pair.directors[1].is_served());

    // Its return, with all that the dead one left in place.
    let begin = SystemTime::now();
    pair.directors[0].start_keepalived();
    let (advert, arp) = pair.takes_over(0, begin, TAKEOVER);
    outage("its keepalived returns", advert, arp);
    until("the first director has the VIP, alone", TAKEOVER, || pair.holder() == Some(0));
    pair.directors[0].served_by(&SERVERS);

    // Meanwhile a real server dies and returns, for both directors.
    let begin = SystemTime::now();
    let _ = lab.exec("rs2", &["ip", "link", "set", "eth0", "down"]).ok();
    pair.directors.iter().for_each(|director| director.served_by(&["rs1", "rs3"]));
    outage("rs2 is dead, and its check has not said so", begin, SystemTime::now());

    // The whole director dies, its daemon too; frames for the VIP are dropped there until the other one has it.
    let begin = SystemTime::now();
    pair.directors[0].daemon.kill();
    pair.directors[0].keepalived.take().unwrap().kill();
    let (_, arp) = pair.takes_over(1, begin, TAKEOVER);
    outage("the master's daemon and keepalived are killed", begin, arp);
    assert_eq!(
        answering(&lab, 10),
        BTreeSet::from(["rs1".to_owned(), "rs3".to_owned()]),
        "rs2 is out there too"
    );

    let _ = lab.exec("rs2", &["ip", "link", "set", "eth0", "up"]).ok();
    pair.directors[1].served_by(&SERVERS);

    let begin = SystemTime::now();
    pair.directors[0].daemon.respawn();
    pair.directors[0].daemon.wait_ready(false);
    pair.directors[0].start_keepalived();
    let (advert, arp) = pair.takes_over(0, begin, TAKEOVER);
    outage("the first director returns", advert, arp);
    until("the first director has the VIP, alone", TAKEOVER, || pair.holder() == Some(0));
    pair.directors[0].served_by(&SERVERS);

    traffic.wait(40);
    let requests = traffic.finish();
    only_failed_in(&outages, &requests);
    none_refused(&requests);
}

#[test]
fn a_master_that_is_stopped_hands_the_vip_over_at_once() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let mut pair = Pair::start(&lab);
    let url = xlvs_tests::lab::url(lab.v4("vip"), "/");
    let traffic = Traffic::start(&lab, &url, 4, CURL_LIMIT_S);
    traffic.wait(40);
    // keepalived takes its services and the address with it, and says that it leaves.
    let begin = SystemTime::now();
    pair.directors[0].keepalived.take().unwrap().stop();
    let (_, arp) = pair.takes_over(1, begin, TAKEOVER);
    assert!(arp.duration_since(begin).unwrap() < Duration::from_secs(2), "it need not be missed first");
    assert_eq!(pair.holder(), Some(1));
    assert_eq!(answering(&lab, 12), SERVERS.map(str::to_owned).into());
    traffic.wait(40);
    let what = "the master's keepalived is stopped".to_owned();
    only_failed_in(&[Outage { what, from: begin, until: arp }], &traffic.finish());
}

#[test]
fn a_restart_of_the_masters_daemon_misses_no_advert_and_moves_nothing() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let mut pair = Pair::start(&lab);
    let IpAddr::V4(master) = lab.v4("director") else { panic!() };
    // The backup's own adverts of its start, if it was the first, are over.
    let since = SystemTime::now();
    let count = |pair: &mut Pair<'_>| pair.adverts().iter().filter(|advert| advert.at >= since).count();
    // A clean end, and a sudden one; each time away for a while in which keepalived's checks and adverts are due.
    for sudden in [false, true] {
        if sudden {
            pair.directors[0].daemon.kill()
        } else {
            drop(pair.directors[0].daemon.stop())
        }
        let before = count(&mut pair);
        until("adverts go on without a daemon", Duration::from_secs(10), || count(&mut pair) >= before + 5);
        pair.directors[0].daemon.respawn();
        pair.directors[0].daemon.wait_ready(true);
        let before = count(&mut pair);
        until("adverts go on with the new daemon", Duration::from_secs(10), || {
            count(&mut pair) >= before + 3
        });
        pair.directors[0].served_by(&SERVERS);
        assert_eq!(lab.get_many(lab.v4("vip"), 9).get("failed"), None);
    }
    // keepalived still drives the new daemon.
    let _ = lab.exec("rs2", &["ip", "link", "set", "eth0", "down"]).ok();
    pair.directors[0].served_by(&["rs1", "rs3"]);

    let adverts = pair.adverts();
    let senders: BTreeSet<Ipv4Addr> =
        adverts.iter().filter(|advert| advert.at >= since).map(|advert| advert.from).collect();
    assert_eq!(senders, BTreeSet::from([master]), "the backup never took over");
    let gap = longest_gap(&adverts, master, since);
    println!("longest silence between adverts: {} ms", gap.as_millis());
    assert!(gap < Duration::from_secs(3), "{gap:?} without an advert");
    assert_eq!(pair.holder(), Some(0));
    assert!(!pair.directors[1].log().split("Startup complete").last().unwrap().contains("MASTER STATE"));
}
