//! Health checks: which keys a type of check has, the defaults, and what a service's checks know of the service.

use std::net::IpAddr;
use std::time::Duration;

use xlvs_dataplane::flow::{Family, Protocol};

use super::service::ServiceFamily;
use crate::config::address;
use crate::config::error::{Findings, Position};
use crate::config::file::{At, Raw, RawCheck, RawService, is_dns_name};
use crate::config::names::CheckType;
use crate::health::spec::{
    CheckSpec, Checks, DnsProbe, HealthSpec, HttpProbe, Pattern, Probe, ProgramProbe, SendExpectProbe,
    TlsProbe, UdpProbe, VipProbe,
};

/// How often and how long a server is asked, unless told otherwise.
const DEFAULT_TIME: Duration = Duration::from_secs(2);
/// How much intervals differ, unless told otherwise, in thousandths.
const DEFAULT_JITTER: u16 = 100;

/// The health rules of a service; `family` is its destinations', if it is known.
pub(super) fn health(
    service: &RawService,
    family: Option<&ServiceFamily>,
    findings: &mut Findings,
) -> HealthSpec {
    let quorum = service.quorum.or(1);
    if let Some(hysteresis) = service.hysteresis.get().filter(|hysteresis| hysteresis.value >= quorum)
        && !service.quorum.is_wrong()
    {
        let message = format!("found {}, allowed: less than the quorum, {quorum}", hysteresis.value);
        findings.error(hysteresis.at, "service.hysteresis", message);
    }
    HealthSpec {
        quorum,
        hysteresis: service.hysteresis.or(0),
        sorry_server: sorry_server(service, family, findings),
        checks: checks(&service.checks, service, findings),
        on_failure: service.on_failure.or_default(),
        start: service.start.or_default(),
    }
}

fn sorry_server(
    service: &RawService,
    family: Option<&ServiceFamily>,
    findings: &mut Findings,
) -> Option<IpAddr> {
    const KEY: &str = "service.sorry_server.address";
    let &At { value: server, at } = service.sorry_server.as_ref()?.address.get()?;
    if let Some(wanted) = family.filter(|wanted| wanted.family != Family::of(server)) {
        let ServiceFamily { family, because } = wanted;
        let message = format!("found {server}, allowed: an {} address, {because}", address::family(*family));
        findings.error(at, KEY, message);
    }
    if service.address.get().is_some_and(|vip| vip.value == server) {
        let message = format!("found {server}, which is the service's own, allowed: a server's");
        findings.error(at, KEY, message);
    }
    let its = |address: &Raw<IpAddr>| address.get().is_some_and(|address| address.value == server);
    if let Some(twin) = service.destinations.iter().find(|destination| its(&destination.address)) {
        let message = format!(
            "found {server}, allowed: one that is not a destination of the service (line {})",
            twin.at.line
        );
        findings.error(at, KEY, message);
    }
    Some(server)
}

/// The checks of a list of a service's.
pub(super) fn checks(raw: &[RawCheck], service: &RawService, findings: &mut Findings) -> Checks {
    raw.iter().filter_map(|check| resolve(check, service, findings)).collect()
}

fn resolve(raw: &RawCheck, service: &RawService, findings: &mut Findings) -> Option<CheckSpec> {
    // What is absent or wrong is reported already.
    let kind = raw.kind.get()?.value;
    refuse_foreign_keys(raw, kind, findings);
    let probe = match kind {
        CheckType::Tcp => Probe::Tcp,
        CheckType::Http => Probe::Http(http(raw, None, findings)),
        CheckType::Https => {
            let tls = TlsProbe { sni: sni(raw), verify: raw.verify.or(false) };
            Probe::Http(http(raw, Some(tls), findings))
        }
        CheckType::SendExpect => Probe::SendExpect(SendExpectProbe {
            send: raw.send.or_default(),
            expect: pattern(raw, ("expect", &raw.expect), ("expect_regex", &raw.expect_regex), findings)
                .map(|pattern| if pattern == Pattern::Plain("*".into()) { Pattern::Any } else { pattern }),
        }),
        CheckType::Dns => {
            Probe::Dns(DnsProbe { name: raw.name.or(".".to_owned()), record: raw.record.or_default() })
        }
        CheckType::Udp => {
            Probe::Udp(UdpProbe { send: raw.send.or_default(), require_reply: raw.require_reply.or(false) })
        }
        CheckType::Ping => Probe::Ping,
        CheckType::Program => Probe::Program(program(raw, findings)?),
        CheckType::Vip => Probe::Vip(vip(raw, service, findings)),
    };
    let port = port(raw, kind, &probe, service, findings);
    let interval = raw.interval_s.or(DEFAULT_TIME);
    Some(CheckSpec {
        probe,
        interval,
        timeout: raw.timeout_s.or(DEFAULT_TIME),
        retry: raw.retry_s.or(interval),
        rise: raw.rise.or(1),
        reentry: raw.reentry_s.or_default(),
        fall: raw.fall.or(1),
        jitter: raw.jitter.or(DEFAULT_JITTER),
        address: raw.address.get().map(|address| address.value),
        port,
    })
}

/// Reports keys that this type of check does not have.
fn refuse_foreign_keys(raw: &RawCheck, kind: CheckType, findings: &mut Findings) {
    use CheckType::{Dns, Http, Https, Program, SendExpect, Tcp, Udp, Vip};
    let keys: [(&str, Option<Position>, &[CheckType]); 16] = [
        ("port", raw.port.at(), &[Tcp, Http, Https, SendExpect, Dns, Udp, Program, Vip]),
        ("path", raw.url_path.at(), &[Http, Https]),
        ("host", raw.host.at(), &[Http, Https]),
        ("sni", raw.sni.at(), &[Https]),
        ("status", raw.status.at(), &[Http, Https]),
        ("body", raw.body.at(), &[Http, Https]),
        ("body_regex", raw.body_regex.at(), &[Http, Https]),
        ("verify", raw.verify.at(), &[Https]),
        ("send", raw.send.at(), &[SendExpect, Udp]),
        ("expect", raw.expect.at(), &[SendExpect]),
        ("expect_regex", raw.expect_regex.at(), &[SendExpect]),
        ("name", raw.name.at(), &[Dns]),
        ("record", raw.record.at(), &[Dns]),
        ("require_reply", raw.require_reply.at(), &[Udp]),
        ("command", raw.command.at(), &[Program]),
        ("expect_output", raw.expect_output.at(), &[Program]),
    ];
    for (key, at, kinds) in keys {
        if let Some(at) = at.filter(|_| !kinds.contains(&kind)) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let message = format!("found with type {}, allowed: only for {}", kind.name(), names.join(", "));
            findings.error(at, format!("{}.{key}", raw.path), message);
        }
    }
}

fn http(raw: &RawCheck, tls: Option<TlsProbe>, findings: &mut Findings) -> HttpProbe {
    let status = raw
        .status
        .get()
        .map_or_else(|| vec![(200, 299)], |ranges| ranges.value.iter().map(|range| range.value).collect());
    HttpProbe {
        path: raw.url_path.or("/".to_owned()),
        host: raw.host.get().map(|host| host.value.clone()),
        status,
        body: pattern(raw, ("body", &raw.body), ("body_regex", &raw.body_regex), findings),
        tls,
    }
}

/// The name that a server is asked for by TLS: `sni`, or `host` without its port, if that is a name.
fn sni(raw: &RawCheck) -> Option<String> {
    if let Some(sni) = raw.sni.get() {
        return Some(sni.value.clone());
    }
    let host = &raw.host.get()?.value;
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    is_dns_name(name).then(|| name.to_owned())
}

/// A text or a regular expression; both are one too many.
fn pattern(
    raw: &RawCheck,
    (plain_key, plain): (&str, &Raw<String>),
    (regex_key, regex): (&str, &Raw<String>),
    findings: &mut Findings,
) -> Option<Pattern> {
    if let (Some(first), Some(at)) = (plain.at(), regex.at()) {
        let message = format!("found beside {plain_key} (line {}), allowed: at most one of both", first.line);
        findings.error(at, format!("{}.{regex_key}", raw.path), message);
    }
    match (plain.get(), regex.get()) {
        (Some(plain), _) => Some(Pattern::Plain(plain.value.clone())),
        (None, Some(regex)) => Some(Pattern::Regex(regex.value.clone())),
        (None, None) => None,
    }
}

fn program(raw: &RawCheck, findings: &mut Findings) -> Option<ProgramProbe> {
    const ALLOWED: &str =
        "a program's absolute path and its arguments, such as [\"/usr/bin/check\", \"%h\", \"%p\"]";
    let key = || format!("{}.command", raw.path);
    let Some(command) = raw.command.get() else {
        if !raw.command.is_wrong() {
            findings.missing(raw.at, key(), format!("found nothing, allowed: {ALLOWED}"));
        }
        return None;
    };
    for word in &command.value {
        if let Some(wrong) = unknown_substitution(&word.value) {
            let message = format!(
                "found {wrong}, allowed: %h (the server's address), %p (the port) and %% (a percent sign)"
            );
            findings.error(word.at, key(), message);
        }
    }
    if let Some(path) = command.value.first().filter(|path| !path.value.starts_with('/')) {
        findings.error(path.at, key(), format!("found {:?}, allowed: {ALLOWED}", path.value));
    }
    Some(ProgramProbe {
        command: command.value.iter().map(|word| word.value.clone()).collect(),
        expect_output: raw.expect_output.get().map(|output| output.value.clone()),
    })
}

/// The first `%` of a word with something behind it that has no meaning.
fn unknown_substitution(word: &str) -> Option<String> {
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        if character == '%' {
            match characters.next() {
                Some('h' | 'p' | '%') => {}
                other => return Some(format!("%{}", other.map(String::from).unwrap_or_default())),
            }
        }
    }
    None
}

/// A VIP's check asks for a TCP connection where there is a port to ask, else for ICMP echo.
fn vip(raw: &RawCheck, service: &RawService, findings: &mut Findings) -> VipProbe {
    let key = format!("{}.address", raw.path);
    match (service.mark.at(), &raw.address) {
        (Some(_), Raw::Absent) => {
            let message = "found nothing, allowed: the VIP to ask, as the service is a mark's";
            findings.missing(raw.at, key, message.to_owned());
        }
        (None, Raw::Wrong(at) | Raw::Is(At { at, .. })) => {
            let message =
                "found with type vip, allowed: only for a mark's service (others have their own VIP)";
            findings.error(*at, key, message.to_owned());
        }
        _ => {}
    }
    let is_tcp = service.mark.at().is_none() && service.protocol.or(Protocol::Tcp) == Protocol::Tcp;
    let has_port = service.port.get().is_some_and(|port| port.value != 0);
    VipProbe { tcp: raw.port.at().is_some() || is_tcp && has_port }
}

/// The port that is asked: the check's, else the service's.
fn port(
    raw: &RawCheck,
    kind: CheckType,
    probe: &Probe,
    service: &RawService,
    findings: &mut Findings,
) -> u16 {
    let needs_port = match probe {
        Probe::Ping => false,
        Probe::Vip(vip) => vip.tcp,
        Probe::Program(program) => program.command.iter().any(|word| word.replace("%%", "").contains("%p")),
        _ => true,
    };
    if let Some(port) = raw.port.get() {
        return port.value;
    }
    let of_service = service.port.get().map_or(0, |port| port.value);
    let is_unknown = service.port.is_wrong() || service.port.at().is_none() && service.mark.at().is_none();
    if needs_port && of_service == 0 && !raw.port.is_wrong() && !is_unknown {
        let message = format!(
            "found nothing, allowed: the port to ask, as type {} needs one and the service has none",
            kind.name()
        );
        findings.missing(raw.at, format!("{}.port", raw.path), message);
    }
    if needs_port || matches!(probe, Probe::Program(_)) { of_service } else { 0 }
}
