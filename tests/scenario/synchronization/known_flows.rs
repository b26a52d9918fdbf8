//! A flow that one director knows goes to its server by any other, too.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use xlvs_tests::command::Running;
use xlvs_tests::daemon::list;
use xlvs_tests::ftp::{Client, Ftp, Transfers};
use xlvs_tests::named::{Asker, Caller};
use xlvs_tests::{Capture, Daemon, Download, Downloads, Lab, Named, Service, until, within};

use super::super::keepalived_pair::SERVERS;
use super::{DIRECTORS, PLAN, by, is_known_to, keyed, service, serving, start};

fn forwarded(daemon: &Daemon<'_>) -> u64 {
    let status = daemon.status();
    list(&status, "workers").iter().map(|worker| worker["forwarded"].as_u64().unwrap()).sum()
}

/// Sync messages that come to a director, for tshark.
struct Messages {
    tcpdump: Running,
    file: PathBuf,
}

impl Messages {
    fn start(lab: &Lab, role: &str) -> Self {
        let file = lab.dir().join("messages.pcap");
        let line = ["tcpdump", "-Z", "root", "-n", "-p", "-U", "-i", "eth0", "-w", file.to_str().unwrap()];
        let tcpdump = lab.spawn(role, &[&line[..], &["udp port 8848"]].concat());
        until("tcpdump listens", Duration::from_secs(10), || tcpdump.stderr().contains("listening on"));
        Self { tcpdump, file }
    }

    /// All of them are tshark's "ipvs" over this protocol, and it finds nothing wrong.
    #[track_caller]
    fn are_decoded(mut self, lab: &Lab, ip: &str) {
        self.tcpdump.signal(Signal::SIGINT);
        until("tcpdump has written all", Duration::from_secs(10), || self.tcpdump.has_ended());
        let fields =
            ["-T", "fields", "-e", "frame.protocols", "-e", "_ws.malformed", "-e", "_ws.expert.message"];
        let line = [&["tshark", "-n", "-r", self.file.to_str().unwrap()][..], &fields].concat();
        let done = lab.exec("client", &line).ok();
        let wanted = format!("eth:ethertype:{ip}:udp:ipvs");
        let (decoded, wrong): (Vec<&str>, Vec<&str>) =
            done.stdout.lines().partition(|line| line.trim_end() == wanted);
        println!("tshark decodes {} messages", decoded.len());
        assert!(decoded.len() > 5 && wrong.is_empty(), "{}: {wrong:#?}", decoded.len());
    }
}

/// Has the client's packets for these VIPs go by one director after the other, a hundred each.
#[track_caller]
fn go_by(lab: &Lab, vips: &[IpAddr], daemons: &[Daemon<'_>], order: &[usize]) {
    for &number in order {
        let before = forwarded(&daemons[number]);
        vips.iter().for_each(|vip| by(lab, DIRECTORS[number], *vip));
        until("its packets go by this one", Duration::from_secs(10), || {
            forwarded(&daemons[number]) >= before + 100
        });
    }
}

const PASSIVE: std::ops::RangeInclusive<u16> = 40_000..=40_100;
/// 24 s each.
const DOWNLOAD: Download = Download { bytes: 12 << 20, rate: "500K", limit_s: 90 };

#[test]
fn any_of_three_directors_forwards_any_packet_of_a_known_flow_to_its_server() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let _ftp = Ftp::start(&lab, &SERVERS, &PASSIVE);
    let services = vec![service(&lab, 80), service(&lab, 21).with("persistent_s = 300")];
    let sync = "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 9\n";
    let daemons: [_; 3] = start(&lab, &serving(services, sync));
    let messages = Messages::start(&lab, "director2");

    let vip = lab.v4("vip");
    by(&lab, "director", vip);
    let mut resets = Capture::resets(&lab);
    let (client, address) = (Client::CurlPassive, "10.0.0.5");
    let kept = client.fetch(&lab, address, &vip.to_string()).unwrap();
    let downloads = Downloads::start(&lab, &[vip], 12, DOWNLOAD);
    let ftp = Transfers::start(&lab, &[(client, address)], &vip.to_string());
    // Control and data of the FTP client beside the downloads.
    daemons.iter().for_each(|daemon| is_known_to(daemon, 12 + 2));
    let before = daemons.each_ref().map(forwarded);
    go_by(&lab, &[vip], &daemons, &[1, 2, 0, 2, 1]);
    assert_eq!(daemons[0].status()["drops"]["no_connection"], serde_json::Value::Null);
    downloads.complete_across("five changes of the director");
    assert_eq!(ftp.complete_across("five changes of the director"), std::slice::from_ref(&kept.0));
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
    let after = daemons.each_ref().map(forwarded);
    assert!(before.iter().zip(after).all(|(before, after)| after > before + 100), "{before:?} {after:?}");

    // The client's template went along: it keeps to its server, wherever it comes in.
    for director in DIRECTORS {
        by(&lab, director, vip);
        assert_eq!(client.fetch(&lab, address, &vip.to_string()).unwrap(), kept, "by {director}");
    }
    messages.are_decoded(&lab, "ip");
}

#[test]
fn directors_know_each_other_by_ipv6_alone_and_tell_of_connections_of_both_families() {
    let lab = Lab::plan(PLAN);
    lab.web(&[]);
    let vips: [IpAddr; 2] = [lab.v4("vip"), "fd00::100".parse().unwrap()];
    let servers = [11, 12, 13].map(|host| (format!("fd00::{host}").parse().unwrap(), 1));
    let services = vec![service(&lab, 80), Service::tcp(vips[1], 80, servers)];
    // What comes from a link's own group comes from the link's own addresses, which follow from the MACs.
    let links = ["fe80::ff:fe00:2", "fe80::ff:fe00:3"];
    let sync = format!(
        "[sync]\nrole = \"both\"\ninterface = \"eth0\"\nid = 9\ngroup = \"ff02::81\"\n{}",
        keyed(&lab, &links)
    );
    let config = serving(services, &sync).with("connections_file = \"none\"");
    let mut daemons: [_; 2] = start(&lab, &config);
    let messages = Messages::start(&lab, "director2");
    vips.iter().for_each(|vip| by(&lab, "director", *vip));
    let mut resets = Capture::resets_from(&lab, &vips);
    let downloads = Downloads::start(&lab, &vips, 12, DOWNLOAD);
    daemons.iter().for_each(|daemon| is_known_to(daemon, 12));
    // One that starts anew asks for them there, too.
    daemons[1].kill();
    daemons[1].respawn();
    let catch_up = |daemon: &Daemon<'_>| daemon.try_status().map(|status| status["sync"]["catch_up"].clone());
    within("it has caught up", Duration::from_secs(10), || match catch_up(&daemons[1])? {
        done if done["ready"] == true && done["entries"].as_u64() >= Some(12) => Ok(()),
        other => Err(other.to_string()),
    });
    is_known_to(&daemons[1], 12);
    go_by(&lab, &vips, &daemons, &[1, 0, 1]);
    downloads.complete_across("three changes of the director");
    assert_eq!(resets.frames().len(), 0, "nobody is reset");
    messages.are_decoded(&lab, "ipv6");
}

/// What `ipvsadm -lcn` lists: protocol, client, virtual end and destination of each.
fn listed(daemon: &Daemon<'_>) -> BTreeSet<[String; 4]> {
    let text = daemon.ipvsadm("-lcn").ok().stdout;
    let ends = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [words[0], words[3], words[4], words[5]].map(str::to_owned)
    };
    text.lines().skip(2).map(ends).collect()
}

#[test]
fn a_marks_connections_and_templates_are_told_and_one_packet_services_are_not() {
    const MARK: u32 = 5;
    const CLIENTS: [&str; 3] = ["10.0.0.5", "10.0.0.67", "10.0.0.68"];
    let lab = Lab::plan(PLAN);
    let vip = lab.v4("vip");
    let at = |port| SocketAddr::new(vip, port);
    let _marked = [7000, 7001].map(|port| Named::tcp(&lab, &SERVERS, at(port)));
    let _datagrams = Named::udp(&lab, &SERVERS, at(7053));
    let destinations = || SERVERS.map(|server| (lab.v4(server), 1));
    let services = vec![
        Service::mark(MARK, vip, destinations()).with("persistent_s = 300"),
        Service::udp(vip, 7053, destinations()).with("one_packet = true"),
    ];
    let tables = format!(
        "[sync]\nrole = \"both\"\ninterface = \"eth0\"\n\
         [[mark]]\nmark = {MARK}\ndestination = \"{vip}\"\nprotocol = \"tcp\"\nports = [7000, 7001]\n"
    );
    let daemons: [_; 2] = start(&lab, &serving(services, &tables));
    by(&lab, "director", vip);

    let asker = Asker::new(&lab, at(7053));
    let ask = |number: usize| asker.ask(format!("{number}").as_bytes(), Duration::from_secs(5)).unwrap();
    let answering: BTreeSet<String> = (0..60).map(ask).collect();
    assert_eq!(answering, SERVERS.map(str::to_owned).into(), "each datagram is scheduled by itself");
    let mut callers =
        CLIENTS.map(|client| Caller::connect(&lab, Some(client.parse().unwrap()), at(7000)).unwrap());
    for caller in &mut callers {
        (0..5).for_each(|_| caller.echo(b"hello").unwrap());
    }
    // Named by its mark alone the service is found: no connection would count for it otherwise.
    let active = |daemon: &Daemon<'_>| -> u64 {
        let service = daemon.mark_service(MARK, "ipv4");
        list(&service, "destinations").iter().map(|destination| destination["active"].as_u64().unwrap()).sum()
    };
    until("they are told", Duration::from_secs(10), || active(&daemons[1]) == CLIENTS.len() as u64);
    // A connection and a template of each; datagrams that came before them would have been told before them.
    let [here, there] = daemons.each_ref().map(listed);
    assert_eq!(here, there);
    assert_eq!(there.iter().filter(|[protocol, ..]| protocol == "TCP").count(), CLIENTS.len(), "{there:?}");
    assert_eq!(
        there.iter().filter(|[_, _, mark, _]| mark == "0.0.0.5:0").count(),
        CLIENTS.len(),
        "{there:?}"
    );
    assert_eq!(there.len(), 2 * CLIENTS.len(), "{there:?}");

    by(&lab, "director2", vip);
    for (client, caller) in CLIENTS.iter().zip(&mut callers) {
        caller.echo(b"still there").unwrap();
        let another = Caller::connect(&lab, Some(client.parse().unwrap()), at(7001)).unwrap();
        assert_eq!(another.server, caller.server, "{client} by the other director");
    }
}
