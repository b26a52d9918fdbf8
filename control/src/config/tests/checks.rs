//! Health checks: what each key means, and what is wrong with one.

use super::*;
use crate::health::spec::{
    CheckSpec, DnsProbe, HttpProbe, OnFailure, Pattern, Probe, ProgramProbe, RecordType, SendExpectProbe,
    StartState, TlsProbe, UdpProbe, VipProbe,
};

/// A file with a service of these lines (from line 5 on) and a destination.
fn file(service: &str) -> String {
    format!(
        "director.interface = \"a\"\n[[service]]\naddress = \"192.0.2.1\"\nport = 80\n{service}\n[[service.destination]]\naddress = \"192.0.2.2\"\n"
    )
}

/// The checks of the full file's first service.
fn checks() -> Vec<CheckSpec> {
    read(FULL).unwrap().services[0].health.checks.to_vec()
}

fn check(probe: Probe, port: u16) -> CheckSpec {
    let two = Duration::from_secs(2);
    CheckSpec {
        probe,
        interval: two,
        timeout: two,
        retry: two,
        rise: 1,
        reentry: Duration::ZERO,
        fall: 1,
        jitter: 100,
        address: None,
        port,
    }
}

#[test]
fn each_key_of_a_check_is_taken() {
    let text = |text: &str| text.to_owned();
    let https = HttpProbe {
        path: text("/health?x=1"),
        host: Some(text("www.example")),
        status: vec![(200, 200), (204, 299), (301, 301)],
        body: Some(Pattern::Plain(text("text"))),
        tls: Some(TlsProbe { sni: Some(text("sni.example")), verify: true }),
    };
    let http = HttpProbe {
        path: text("/"),
        host: None,
        status: vec![(200, 299)],
        body: Some(Pattern::Regex(text("^ok$"))),
        tls: None,
    };
    let smtp = |send: &str, expect| SendExpectProbe { send: text(send), expect: Some(expect) };
    let words = ["/bin/true", "%h", "%p", "%%"].map(str::to_owned).to_vec();
    let expected = [
        CheckSpec {
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
            retry: Duration::ZERO,
            rise: 2,
            reentry: Duration::from_millis(1500),
            fall: 3,
            jitter: 250,
            address: Some("192.0.2.200".parse().unwrap()),
            ..check(Probe::Http(https), 8443)
        },
        check(Probe::Http(http), 80),
        check(Probe::SendExpect(smtp("quit\r\n", Pattern::Plain(text("220")))), 80),
        check(Probe::SendExpect(smtp("", Pattern::Regex(text("^(220|230)")))), 80),
        check(Probe::Dns(DnsProbe { name: text("example.com"), record: RecordType::A }), 80),
        check(Probe::Udp(UdpProbe { send: String::new(), require_reply: true }), 80),
        check(Probe::Program(ProgramProbe { command: words, expect_output: Some(text("OK")) }), 80),
    ];
    assert_eq!(checks(), expected);
    let service = &read(FULL).unwrap().services[0];
    let health = &service.health;
    assert_eq!((health.quorum, health.hysteresis), (3, 2));
    assert_eq!(health.sorry_server, Some("192.0.2.99".parse().unwrap()));
    assert_eq!((health.on_failure, health.start), (OnFailure::Quiesce, StartState::Up));
    let [own, other] = [&service.destinations[0].health, &service.destinations[1].health];
    assert_eq!((own.on_failure, own.start), (Some(OnFailure::Remove), Some(StartState::Down)));
    let probes: Vec<&Probe> = own.checks.as_ref().unwrap().iter().map(|check| &check.probe).collect();
    assert_eq!(probes, [&Probe::Ping, &Probe::Vip(VipProbe { tcp: false })], "the service is UDP's");
    assert_eq!((&other.checks, other.on_failure, other.start), (&None, None, None));
}

#[test]
fn what_is_not_said_has_its_default() {
    let services = read(&file("check = [{ type = \"https\", host = \"a.example:8443\" }, { type = \"https\", host = \"[2001:db8::1]\" },\n\
        { type = \"send-expect\", expect = \"*\" }, { type = \"dns\" }, { type = \"vip\" }, { type = \"tcp\", interval_s = 5, timeout_s = 6 }]"))
    .unwrap()
    .services;
    let checks = &services[0].health.checks;
    let sni = |at: usize| match &checks[at].probe {
        Probe::Http(HttpProbe { tls: Some(tls), .. }) => (tls.sni.clone(), tls.verify),
        other => panic!("{other:?}"),
    };
    assert_eq!(sni(0), (Some("a.example".to_owned()), false));
    assert_eq!(sni(1), (None, false), "an address is no name to ask for");
    assert_eq!(
        checks[2].probe,
        Probe::SendExpect(SendExpectProbe { send: String::new(), expect: Some(Pattern::Any) })
    );
    assert_eq!(checks[3].probe, Probe::Dns(DnsProbe { name: ".".to_owned(), record: RecordType::Soa }));
    assert_eq!((&checks[4].probe, checks[4].port), (&Probe::Vip(VipProbe { tcp: true }), 80));
    assert_eq!(checks[5].retry, Duration::from_secs(5), "the interval");
    let none =
        read(&file("[[service.check]]\ntype = \"tcp\"").replace(".2\"\n", ".2\"\ncheck = []\n")).unwrap();
    assert_eq!(
        none.services[0].destinations[0].health.checks.as_deref(),
        Some(&[][..]),
        "not checked at all"
    );
}

#[test]
fn what_is_wrong_with_a_check_is_told() {
    let seconds = "allowed: seconds from 0.1 to 3600";
    let rows = [
        ("{}", "5:10: service.check.type: found nothing, allowed: \"tcp\", \"http\", \"https\", \"send-expect\", \"dns\", \"udp\", \"ping\", \"program\" or \"vip\"".to_owned()),
        ("{ type = \"smtp\" }", "5:19: service.check.type: found \"smtp\", allowed: \"tcp\", \"http\", \"https\", \"send-expect\", \"dns\", \"udp\", \"ping\", \"program\" or \"vip\"".to_owned()),
        ("{ type = \"tcp\", interval_s = 0.05 }", format!("5:39: service.check.interval_s: found 0.05, {seconds}")),
        ("{ type = \"tcp\", timeout_s = nan }", format!("5:38: service.check.timeout_s: found nan, {seconds}")),
        ("{ type = \"tcp\", timeout_s = \"2\" }", format!("5:38: service.check.timeout_s: found \"2\" (string), {seconds}")),
        ("{ type = \"tcp\", rise = 0 }", "5:33: service.check.rise: found 0, allowed: a whole number from 1 to 1000".to_owned()),
        ("{ type = \"tcp\", reentry_s = -1 }", "5:38: service.check.reentry_s: found -1, allowed: seconds from 0 to 2678400".to_owned()),
        ("{ type = \"tcp\", jitter = 1.5 }", "5:35: service.check.jitter: found 1.5, allowed: a share from 0 to 1".to_owned()),
        ("{ type = \"tcp\", path = \"/\" }", "5:33: service.check.path: found with type tcp, allowed: only for http, https".to_owned()),
        ("{ type = \"http\", sni = \"a\" }", "5:33: service.check.sni: found with type http, allowed: only for https".to_owned()),
        ("{ type = \"ping\", port = 1 }", "5:34: service.check.port: found with type ping, allowed: only for tcp, http, https, send-expect, dns, udp, program, vip".to_owned()),
        ("{ type = \"http\", path = \"x\" }", "5:34: service.check.path: found \"x\", allowed: visible ASCII that begins with /".to_owned()),
        ("{ type = \"http\", status = [99] }", "5:37: service.check.status: found 99, allowed: a status from 100 to 999, or a range such as \"200-299\"".to_owned()),
        ("{ type = \"http\", status = [\"300-200\"] }", "5:37: service.check.status: found \"300-200\" (the first above the last), allowed: a status from 100 to 999, or a range such as \"200-299\"".to_owned()),
        ("{ type = \"http\", body = \"a\", body_regex = \"b\" }", "5:52: service.check.body_regex: found beside body (line 5), allowed: at most one of both".to_owned()),
        ("{ type = \"send-expect\", expect_regex = \"(\" }", "5:49: service.check.expect_regex: found \"(\" (not well-formed), allowed: a regular expression".to_owned()),
        ("{ type = \"dns\", name = \"a..b\" }", "5:33: service.check.name: found \"a..b\", allowed: a domain name of ASCII, such as \"example.com\", or \".\"".to_owned()),
        ("{ type = \"program\" }", "5:10: service.check.command: found nothing, allowed: a program's absolute path and its arguments, such as [\"/usr/bin/check\", \"%h\", \"%p\"]".to_owned()),
        ("{ type = \"program\", command = [\"check\"] }", "5:41: service.check.command: found \"check\", allowed: a program's absolute path and its arguments, such as [\"/usr/bin/check\", \"%h\", \"%p\"]".to_owned()),
        ("{ type = \"program\", command = [\"/c\", \"%x\"] }", "5:47: service.check.command: found %x, allowed: %h (the server's address), %p (the port) and %% (a percent sign)".to_owned()),
        ("{ type = \"vip\", address = \"192.0.2.1\" }", "5:36: service.check.address: found with type vip, allowed: only for a mark's service (others have their own VIP)".to_owned()),
        ("{ type = \"tcp\", prot = 1 }", "5:26: service.check.prot: found an unknown key (did you mean port?)".to_owned()),
    ];
    for (check, expected) in rows {
        let found = errors(&file(&format!("check = [{check}]")));
        assert!(found.starts_with(&format!("f:{expected}")), "{check}:\n{found}\nexpected f:{expected}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
    let many = vec!["{ type = \"tcp\" }"; 17].join(", ");
    assert!(
        errors(&file(&format!("check = [{many}]")))
            .contains("service.check: found 17 checks, allowed: at most 16")
    );
}

#[test]
fn what_is_wrong_with_a_quorum_or_a_sorry_server_is_told() {
    for (lines, expected) in [
        (
            "quorum = 2\nhysteresis = 2",
            "f:6:14: service.hysteresis: found 2, allowed: less than the quorum, 2",
        ),
        ("hysteresis = 1", "f:5:14: service.hysteresis: found 1, allowed: less than the quorum, 1"),
        ("quorum = 0", "f:5:10: service.quorum: found 0, allowed: a whole number from 1 to 2147483647"),
        (
            "sorry_server = { address = \"192.0.2.2\" }",
            "f:5:28: service.sorry_server.address: found 192.0.2.2, allowed: one that is not a destination of the service (line 6)",
        ),
        (
            "sorry_server = { address = \"192.0.2.1\" }",
            "f:5:28: service.sorry_server.address: found 192.0.2.1, which is the service's own, allowed: a server's",
        ),
        (
            "sorry_server = { address = \"2001:db8::1\" }",
            "f:5:28: service.sorry_server.address: found 2001:db8::1, allowed: an IPv4 address, as the service's (line 3)",
        ),
        (
            "sorry_server = {}",
            "f:5:16: service.sorry_server.address: found nothing, allowed: a unicast IPv4 or IPv6 address",
        ),
        (
            "on_failure = \"stop\"",
            "f:5:14: service.on_failure: found \"stop\", allowed: \"remove\" or \"quiesce\"",
        ),
        ("start = true", "f:5:9: service.start: found true (boolean), allowed: \"down\" or \"up\""),
    ] {
        assert_eq!(errors(&file(lines)), expected);
    }
}

#[test]
fn a_marks_service_says_whom_and_where_to_ask() {
    let of_mark = |check: &str| {
        format!(
            "director.interface = \"a\"\nmark = [{{ mark = 1, destination = \"10.0.0.1\" }}]\n[[service]]\nmark = 1\ncheck = [{check}]\ndestination = []\n"
        )
    };
    let port = "f:5:10: service.check.port: found nothing, allowed: the port to ask, as type tcp needs one and the service has none";
    assert_eq!(errors(&of_mark("{ type = \"tcp\" }")), port);
    let vip =
        "f:5:10: service.check.address: found nothing, allowed: the VIP to ask, as the service is a mark's";
    assert_eq!(errors(&of_mark("{ type = \"vip\" }")), vip);
    let both = "{ type = \"vip\", address = \"10.0.0.1\" }, { type = \"vip\", address = \"10.0.0.1\", port = 21 }, { type = \"ping\" }";
    let checks = read(&of_mark(both)).unwrap().services[0].health.checks.clone();
    let probes: Vec<(&Probe, u16)> = checks.iter().map(|check| (&check.probe, check.port)).collect();
    let vip = |tcp| Probe::Vip(VipProbe { tcp });
    assert_eq!(probes, [(&vip(false), 0), (&vip(true), 21), (&Probe::Ping, 0)]);
}
