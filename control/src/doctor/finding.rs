//! What a check says: the finding, what to do about it, and how both are shown.
//!
//! Identifiers, states and the names of the JSON's fields are an interface that others may rely on.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

/// The checks, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    AfXdp,
    Bpffs,
    Capabilities,
    LockedMemory,
    Interface,
    XdpProgram,
    Offloads,
    Mtu,
    Queues,
    Interrupts,
    WorkerCores,
    VipLocal,
    VipAnswered,
    VipClaimed,
    Server,
    ServerMtu,
    SourceAddress,
    HostDevice,
    KernelIpvs,
    Firewall,
    VipOnLo,
    VipElsewhere,
    DuplicateDetection,
    VipSource,
    ArpIgnore,
    ArpAnnounce,
    RpFilter,
    ReplyRoute,
    Listening,
}

impl Check {
    /// Every check with its identifier and what it looks at.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 29] = [
        (Self::AfXdp, "af-xdp", "the kernel has AF_XDP"),
        (Self::Bpffs, "bpffs", "the file system that keeps the steering program over a crash is mounted"),
        (
            Self::Capabilities,
            "capabilities",
            "CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, of the daemon or of the caller",
        ),
        (
            Self::LockedMemory,
            "locked-memory",
            "the limit of locked memory is above what the workers register",
        ),
        (Self::Interface, "interface", "the interface is there, Ethernet, up, and has a carrier"),
        (Self::XdpProgram, "xdp-program", "the XDP program on it is xlvs's, in native mode"),
        (Self::Offloads, "offloads", "no offload hides or changes frames"),
        (Self::Mtu, "mtu", "the director's interfaces have one MTU"),
        (Self::Queues, "queues", "each receive queue that gets frames has a worker"),
        (
            Self::Interrupts,
            "interrupts",
            "each queue's interrupt is where it does not hold up another's worker",
        ),
        (Self::WorkerCores, "worker-cores", "each worker has an allowed core of its own"),
        (Self::VipLocal, "vip-local", "the VIP is served"),
        (Self::VipAnswered, "vip-answered", "this host answers ARP (neighbour discovery) for the VIP"),
        (Self::VipClaimed, "vip-claimed", "no other machine answers ARP (neighbour discovery) for the VIP"),
        (Self::Server, "server", "the real server is on a segment of the director and answers ARP"),
        (Self::ServerMtu, "server-mtu", "the largest frame reaches the real server"),
        (Self::SourceAddress, "source-address", "the director does not speak to the real server from a VIP"),
        (
            Self::HostDevice,
            "host-device",
            "a director that is its own real server can hand this host its packets",
        ),
        (Self::KernelIpvs, "kernel-ipvs", "the kernel's own IPVS has nothing configured"),
        (
            Self::Firewall,
            "firewall",
            "no rule of a director counts on seeing the VIP's frames, and none of a real server drops them",
        ),
        (Self::VipOnLo, "vip-on-lo", "the VIP is on lo, as /32 or /128"),
        (Self::VipElsewhere, "vip-elsewhere", "the VIP is on no other interface"),
        (Self::DuplicateDetection, "duplicate-detection", "the kernel uses the IPv6 VIP"),
        (Self::VipSource, "vip-source", "the host's own connections don't leave from the IPv6 VIP"),
        (Self::ArpIgnore, "arp-ignore", "ARP for the VIP is not answered"),
        (Self::ArpAnnounce, "arp-announce", "ARP requests are not sent from the VIP"),
        (Self::RpFilter, "rp-filter", "frames from the director are not taken for forged ones"),
        (Self::ReplyRoute, "reply-route", "replies have a way to clients that is not through the director"),
        (Self::Listening, "listening", "the service listens on the VIP"),
    ];

    /// Its identifier.
    pub(crate) fn id(self) -> &'static str {
        Self::ALL.iter().find(|(check, _, _)| *check == self).map_or("", |(_, id, _)| id)
    }
}

/// How it stands with what was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    /// It works, but less well, or only in some set-ups.
    Warning,
    /// Clients lose something.
    Broken,
    /// It could not be looked at.
    Unknown,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}

/// What to do: a sentence, and the commands that do it, to be run in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    text: String,
    commands: Vec<String>,
    /// The real server to run them on, if that is not this host.
    run_on: Option<IpAddr>,
}

impl Advice {
    /// Commands for this host, and what they do.
    pub(crate) fn run<C: Into<String>>(text: &str, commands: impl IntoIterator<Item = C>) -> Self {
        Self { text: text.to_owned(), commands: commands.into_iter().map(Into::into).collect(), run_on: None }
    }

    /// What no single command does.
    pub(crate) fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), commands: Vec::new(), run_on: None }
    }

    /// The commands are for another host.
    pub(crate) fn on(self, server: IpAddr) -> Self {
        Self { run_on: Some(server), ..self }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.run_on {
            write!(f, "on {server}, ")?;
        }
        f.write_str(&self.text)?;
        if !self.commands.is_empty() {
            write!(f, ": {}", self.commands.join(" && "))?;
        }
        Ok(())
    }
}

/// What one check says of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    pub(crate) state: State,
    /// What was looked at: an interface, a VIP, a real server, `host`.
    pub(crate) subject: String,
    pub(crate) found: String,
    pub(crate) advice: Option<Advice>,
    /// It could not be looked at because this is missing.
    pub(crate) missing: Option<&'static str>,
}

/// The JSON of a finding.
#[derive(Serialize)]
struct Line<'finding> {
    id: &'static str,
    state: State,
    subject: &'finding str,
    found: &'finding str,
    advice: Option<String>,
    commands: &'finding [String],
    run_on: Option<IpAddr>,
}

impl Finding {
    fn new(check: Check, state: State, subject: impl fmt::Display, found: impl Into<String>) -> Self {
        Self { check, state, subject: subject.to_string(), found: found.into(), advice: None, missing: None }
    }

    pub(crate) fn ok(check: Check, subject: impl fmt::Display, found: impl Into<String>) -> Self {
        Self::new(check, State::Ok, subject, found)
    }

    pub(crate) fn warning(
        check: Check,
        subject: impl fmt::Display,
        found: impl Into<String>,
        advice: Advice,
    ) -> Self {
        Self { advice: Some(advice), ..Self::new(check, State::Warning, subject, found) }
    }

    pub(crate) fn broken(
        check: Check,
        subject: impl fmt::Display,
        found: impl Into<String>,
        advice: Advice,
    ) -> Self {
        Self { advice: Some(advice), ..Self::new(check, State::Broken, subject, found) }
    }

    /// It could not be looked at, for another reason than a privilege.
    pub(crate) fn unknown(check: Check, subject: impl fmt::Display, found: impl Into<String>) -> Self {
        Self::new(check, State::Unknown, subject, found)
    }

    /// The same, with what to do about it.
    pub(crate) fn advise(self, advice: Advice) -> Self {
        Self { advice: Some(advice), ..self }
    }

    /// It could not be looked at for lack of a privilege.
    pub(crate) fn not_permitted(check: Check, subject: impl fmt::Display, missing: &'static str) -> Self {
        Self {
            missing: Some(missing),
            advice: Some(Advice::say("run xlvs doctor as root")),
            ..Self::new(check, State::Unknown, subject, format!("can't be looked at without {missing}"))
        }
    }

    /// What a failed look gives: a missing privilege, or another reason.
    pub(crate) fn failed(
        check: Check,
        subject: impl fmt::Display,
        missing: &'static str,
        error: &std::io::Error,
    ) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::not_permitted(check, subject, missing),
            _ => Self::unknown(check, subject, format!("can't be looked at: {error}")),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}{:<20} {}: {}", self.state.name(), self.check.id(), self.subject, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Brings the findings into the order in which they are shown; those of one check keep theirs.
    pub(crate) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check);
        Self { findings }
    }

    /// 1 when something is broken, else 3 when something could not be looked at for lack of a privilege, else 0.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.findings.iter().any(|finding| finding.state == State::Broken) {
            1
        } else if self.findings.iter().any(|finding| finding.missing.is_some()) {
            3
        } else {
            0
        }
    }

    /// A line of text for each finding, and one that counts them.
    pub(crate) fn text(&self) -> String {
        let count = |state| self.findings.iter().filter(|finding| finding.state == state).count();
        let mut text: String = self.findings.iter().map(|finding| format!("{finding}\n")).collect();
        text.push_str(&format!(
            "{} ok, {} warning, {} broken, {} unknown\n",
            count(State::Ok),
            count(State::Warning),
            count(State::Broken),
            count(State::Unknown)
        ));
        text
    }

    /// A line of JSON for each finding.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        let mut text = String::new();
        for Finding { check, state, subject, found, advice, .. } in &self.findings {
            let line = Line {
                id: check.id(),
                state: *state,
                subject,
                found,
                advice: advice.as_ref().map(ToString::to_string),
                commands: advice.as_ref().map_or(&[], |advice| &advice.commands),
                run_on: advice.as_ref().and_then(|advice| advice.run_on),
            };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Advice, Check, Finding, Report};

    #[test]
    fn every_check_has_an_identifier_of_its_own() {
        for (check, id, _) in Check::ALL {
            assert_eq!(serde_json::to_string(&check).unwrap(), format!("{id:?}"));
            assert_eq!(Check::ALL.iter().filter(|(_, other, _)| *other == id).count(), 1, "{id}");
        }
    }

    #[test]
    fn the_exit_code_says_the_worst() {
        let ok = Finding::ok(Check::Mtu, "eth0", "1500");
        let warning = Finding::warning(Check::Mtu, "eth0", "1400", Advice::say("raise it"));
        let unknown = Finding::unknown(Check::Mtu, "eth0", "who knows");
        let missing = Finding::not_permitted(Check::AfXdp, "host", "CAP_NET_RAW");
        let broken = Finding::broken(Check::Mtu, "eth0", "68", Advice::say("raise it"));
        let cases: [(&[&Finding], u8); 5] = [
            (&[], 0),
            (&[&ok, &warning, &unknown], 0),
            (&[&ok, &missing], 3),
            (&[&missing, &broken, &warning], 1),
            (&[&broken], 1),
        ];
        for (findings, code) in cases {
            let report = Report::new(findings.iter().copied().cloned().collect());
            assert_eq!(report.exit_code(), code, "{findings:?}");
        }
    }

    #[test]
    fn a_finding_is_a_line_and_an_object() {
        let advice =
            Advice::run("put it on lo", ["xlvs real-server up 192.0.2.10"]).on("192.0.2.11".parse().unwrap());
        let report = Report::new(vec![Finding::broken(Check::VipOnLo, "192.0.2.10", "is nowhere", advice)]);
        assert_eq!(
            report.text(),
            "broken  vip-on-lo            192.0.2.10: is nowhere; on 192.0.2.11, put it on lo: xlvs real-server up \
             192.0.2.10\n0 ok, 0 warning, 1 broken, 0 unknown\n"
        );
        assert_eq!(
            report.json().unwrap(),
            "{\"id\":\"vip-on-lo\",\"state\":\"broken\",\"subject\":\"192.0.2.10\",\"found\":\"is nowhere\",\
             \"advice\":\"on 192.0.2.11, put it on lo: xlvs real-server up 192.0.2.10\",\
             \"commands\":[\"xlvs real-server up 192.0.2.10\"],\"run_on\":\"192.0.2.11\"}\n"
        );
    }
}
