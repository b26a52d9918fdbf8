//! One run of a check: asks a server, and says whether it answered as it should. Each protocol has its file; errors are in
//! plain words, as `xlvs status` shows them.

mod dns;
mod http;
mod icmp;
pub(super) mod program;
mod smtp;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod udp;
pub(super) mod vip;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use regex::bytes::Regex;
use tokio::runtime::Handle;

use super::plan::Ways;
use super::programs::ProgramRunner;
use super::spec::{CheckSpec, Pattern, Probe};
use super::state::Answer;
use vip::VipProber;

/// The most bytes of an answer that are read.
const MOST_ANSWER: usize = 1 << 20;

/// Whom a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The real server that the check is about.
    pub(crate) server: IpAddr,
    /// The address that is asked: the server's, or another one; the VIP for [`Probe::Vip`].
    pub(crate) address: IpAddr,
    /// 0 where the check needs none.
    pub(crate) port: u16,
}

impl Target {
    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What all runs share.
#[derive(Debug)]
pub(crate) struct Prober {
    tls: tls::Connectors,
    vip: VipProber,
    programs: ProgramRunner,
}

impl Prober {
    /// `more_rights` does what the calling thread has given up the right to, if it has.
    pub(crate) fn new(programs: ProgramRunner, more_rights: Option<Handle>) -> Self {
        Self { tls: tls::Connectors::default(), vip: VipProber::new(more_rights), programs }
    }
}

/// A check, ready to run.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) spec: CheckSpec,
    /// What the answer must have, if that is told.
    matcher: Option<Matcher>,
    /// What a page must not have.
    unwanted: Option<Matcher>,
    icmp_error: udp::LastError,
}

impl Check {
    pub(crate) fn new(spec: CheckSpec) -> Self {
        let matcher = match &spec.probe {
            Probe::Http(http) => http.body.as_ref().map(Matcher::contains),
            Probe::SendExpect(send_expect) => send_expect.expect.as_ref().map(Matcher::begins),
            _ => None,
        };
        let unwanted = match &spec.probe {
            Probe::Http(http) => http.unwanted.as_deref().map(Matcher::regex),
            _ => None,
        };
        Self { spec, matcher, unwanted, icmp_error: udp::LastError::default() }
    }

    /// Runs it once.
    pub(crate) async fn run(&self, prober: &Arc<Prober>, target: Target, ways: Ways) -> Answer {
        let asked = self.ask(prober, target, &ways);
        match tokio::time::timeout(self.spec.timeout, asked).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let late = format!("timed out after {} s", self.spec.timeout.as_secs_f64());
                Err(match &self.spec.probe {
                    Probe::Vip(_) => vip::unanswered(&late, target.address),
                    _ => late,
                })
            }
        }
    }

    async fn ask(&self, prober: &Arc<Prober>, target: Target, ways: &Ways) -> Answer {
        let outcome = match &self.spec.probe {
            Probe::Tcp => stream::connect(target).await.map(drop),
            Probe::Http(probe) => {
                let wanted = http::Wanted { has: self.matcher.as_ref(), lacks: self.unwanted.as_ref() };
                http::get(probe, wanted, target, &prober.tls).await
            }
            Probe::SendExpect(probe) => stream::send_expect(&probe.send, self.matcher.as_ref(), target).await,
            Probe::Smtp(probe) => smtp::greet(probe, target).await,
            Probe::Dns(probe) => dns::query(probe, target).await,
            Probe::Udp(probe) => udp::send(probe, target, ways, self.spec.timeout, &self.icmp_error).await,
            Probe::Ping => icmp::ping(target).await,
            Probe::Program(probe) => return prober.programs.run(probe.clone(), target).await,
            Probe::Vip(probe) => prober.vip.ask(*probe, target, ways).await,
        };
        outcome.map(|()| None)
    }
}

/// A [`Pattern`], ready to look for.
#[derive(Debug)]
enum Matcher {
    Any,
    Begins(Vec<u8>),
    Has(Regex),
    /// The pattern can't be compiled; the configuration lets none of these through.
    Nothing,
}

/// What an answer is to a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Yes,
    No,
    /// More of the answer may have it.
    NotYet,
}

impl Matcher {
    /// It begins with a plain text, or has a match.
    fn begins(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Any => Self::Any,
            Pattern::Plain(text) => Self::Begins(text.clone().into()),
            Pattern::Regex(regex) => Self::regex(regex),
        }
    }

    /// It has a plain text, or a match.
    fn contains(pattern: &Pattern) -> Self {
        match pattern {
            Pattern::Plain(text) => Self::regex(&regex::escape(text)),
            pattern => Self::begins(pattern),
        }
    }

    fn regex(regex: &str) -> Self {
        Regex::new(regex).map_or(Self::Nothing, Self::Has)
    }

    fn look(&self, answer: &[u8]) -> Found {
        match self {
            Self::Any if answer.is_empty() => Found::NotYet,
            Self::Any => Found::Yes,
            Self::Begins(text) if answer.starts_with(text) => Found::Yes,
            Self::Begins(text) if text.starts_with(answer) => Found::NotYet,
            Self::Begins(_) | Self::Nothing => Found::No,
            Self::Has(regex) if regex.is_match(answer) => Found::Yes,
            Self::Has(_) => Found::NotYet,
        }
    }
}

/// What a server said, for a message: its first line, not too long, nothing that a terminal obeys.
fn quoted(answer: &[u8]) -> String {
    const MOST: usize = 60;
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(&line[..line.len().min(MOST)]);
    let more = if line.len() > MOST { "…" } else { "" };
    format!("\"{}{more}\"", text.escape_debug())
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error in plain words.
fn plain(error: &io::Error) -> String {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::ConnectionAborted => "connection aborted".to_owned(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "connection closed too early".to_owned(),
        ErrorKind::HostUnreachable => "no way to the host".to_owned(),
        ErrorKind::NetworkUnreachable => "no way to the network".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        _ => error.to_string(),
    }
}
