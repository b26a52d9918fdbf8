//! Checkers: how keepalived finds out whether a real server works, as checks of the director's own.
//!
//! A checker asks every `delay_loop` seconds. After a failure it asks again `retry` times, `delay_before_retry` seconds after one
//! another, before the server is down; one success brings it back. What a checker does not say its real server says, then the virtual
//! server, then the checker's own defaults.

use std::net::IpAddr;

use super::block::{Block, Notes, number};
use super::words::{Node, Word};
use crate::config::address;
use crate::config::error::Position;
use crate::config::file::{At, Raw};
use crate::config::import::draft::{Table, Value};

/// What can be said of a virtual server, a real one or a checker, each for what is within it.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// In milliseconds.
    pub(super) delay_loop: Raw<u64>,
    pub(super) retry: Raw<u32>,
    /// In milliseconds.
    pub(super) delay_before_retry: Raw<u64>,
    /// In milliseconds.
    pub(super) connect_timeout: Raw<u64>,
    pub(super) alpha: Raw<bool>,
}

/// The most bytes of a datagram.
const MOST_DATAGRAM: u16 = 65_507;
/// In milliseconds.
const DELAY_LOOP: u64 = 60_000;
const CONNECT_TIMEOUT: u64 = 5000;
/// What keepalived calls itself to mail servers, and what it sends by UDP, unless it is told.
const HELO_NAME: &str = "smtpchecker.keepalived.org";
const PAYLOAD: &str = "keepalived check - keepalived ch";

impl Common {
    pub(super) fn read(block: &mut Block<'_>, notes: &mut Notes) -> Self {
        let common = Self {
            delay_loop: block.timer(notes, &["delay_loop"]),
            retry: block.number(notes, &["retry", "nb_get_retry"], 0..=999),
            delay_before_retry: block.timer(notes, &["delay_before_retry"]),
            connect_timeout: block.timer(notes, &["connect_timeout"]),
            alpha: block.flag(notes, &["alpha"]),
        };
        // The first checks are spread by the director itself.
        block.timer(notes, &["warmup"]);
        common
    }

    /// With what stands around it where nothing is said.
    pub(super) fn within(&self, outer: &Self) -> Self {
        fn or<T: Clone>(inner: &Raw<T>, outer: &Raw<T>) -> Raw<T> {
            if inner.at().is_some() { inner.clone() } else { outer.clone() }
        }
        Self {
            delay_loop: or(&self.delay_loop, &outer.delay_loop),
            retry: or(&self.retry, &outer.retry),
            delay_before_retry: or(&self.delay_before_retry, &outer.delay_before_retry),
            connect_timeout: or(&self.connect_timeout, &outer.connect_timeout),
            alpha: or(&self.alpha, &outer.alpha),
        }
    }
}

/// What is around a checker.
pub(super) struct Around<'c> {
    pub(super) common: &'c Common,
    pub(super) virtualhost: Option<&'c str>,
    /// The real server's port, if it is to be said.
    pub(super) port: Option<u16>,
}

/// A check as keys of its table; the first is its type.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) at: Position,
    pub(super) keys: Vec<(&'static str, Value, Option<Position>)>,
    pub(super) note: Option<&'static str>,
    /// Whether its server is down until its first success.
    pub(super) alpha: bool,
}

impl Check {
    /// Whether it asks the same as another one.
    pub(super) fn same(&self, other: &Self) -> bool {
        let keys = |check: &Self| -> Vec<(&'static str, Value)> {
            check.keys.iter().map(|(name, value, _)| (*name, value.clone())).collect()
        };
        keys(self) == keys(other)
    }

    /// Whether it tells its server's weight.
    pub(super) fn tells_weight(&self) -> bool {
        self.keys.iter().any(|(name, ..)| *name == "weight_by_exit_code")
    }

    pub(super) fn table(&self, header: &'static str) -> Table {
        let keyword = self.note.map(ToOwned::to_owned);
        let mut table = Table::of(header, None);
        for (index, (name, value, at)) in self.keys.iter().enumerate() {
            match keyword.as_ref().filter(|_| index == 0) {
                Some(note) => table.noted(name, value.clone(), at.or(Some(self.at)), note.clone()),
                None => table.key(name, value.clone(), at.or(Some(self.at))),
            }
        }
        table
    }
}

/// The keywords that begin a checker.
pub(super) const KEYWORDS: [&str; 10] = [
    "HTTP_GET",
    "SSL_GET",
    "TCP_CHECK",
    "SMTP_CHECK",
    "DNS_CHECK",
    "MISC_CHECK",
    "UDP_CHECK",
    "PING_CHECK",
    "BFD_CHECK",
    "FILE_CHECK",
];

/// The checks of a checker: one for each of its pages.
pub(super) fn checks(node: &Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    if node.block.is_none() {
        let message = format!("found without a block, allowed: {} {{ and its keywords", node.shown());
        notes.findings.error(node.at(), node.shown(), message);
        return Vec::new();
    }
    match node.keyword() {
        "HTTP_GET" => super::http::checks("HTTP_GET", node, around, notes),
        "SSL_GET" => super::http::checks("SSL_GET", node, around, notes),
        "TCP_CHECK" => Checker::new("TCP_CHECK", node, around, notes).finish("tcp", Vec::new(), notes),
        "PING_CHECK" => {
            let mut checker = Checker::new("PING_CHECK", node, around, notes);
            checker.port = None;
            checker.finish("ping", Vec::new(), notes)
        }
        "SMTP_CHECK" => smtp(node, around, notes),
        "DNS_CHECK" => dns(node, around, notes),
        "UDP_CHECK" => udp(node, around, notes),
        "MISC_CHECK" => misc(node, around, notes),
        _ => {
            notes.lose(
                node.at(),
                format!("{} has no counterpart: the server is not checked by it", node.shown()),
            );
            Vec::new()
        }
    }
}

/// A checker that is being read: what all of them have.
pub(super) struct Checker<'b> {
    pub(super) block: Block<'b>,
    pub(super) at: Position,
    common: Common,
    address: Raw<IpAddr>,
    port: Option<(u16, Option<Position>)>,
    /// The defaults of this kind: `retry`, and `delay_before_retry` in milliseconds if it is not `delay_loop`.
    retry: u32,
    delay: Option<u64>,
}

impl<'b> Checker<'b> {
    pub(super) fn new(path: &'static str, node: &'b Node, around: &Around<'_>, notes: &mut Notes) -> Self {
        let mut block = Block::new(path, node.nodes());
        let common = Common::read(&mut block, notes).within(around.common);
        let (address, port) = connect(&mut block, notes);
        let port = port.or_else(|| around.port.map(|port| (port, None)));
        Self { block, at: node.at(), common, address, port, retry: 1, delay: Some(1000) }
    }

    /// With these defaults of `retry` and `delay_before_retry`.
    pub(super) fn defaults(mut self, retry: u32, delay: Option<u64>) -> Self {
        (self.retry, self.delay) = (retry, delay);
        self
    }

    /// The keys that all have, and those of this kind.
    pub(super) fn keys(
        &self,
        kind: &'static str,
        own: Vec<(&'static str, Value, Option<Position>)>,
    ) -> Check {
        let interval = self.common.delay_loop.or(DELAY_LOOP);
        let mut keys = vec![("type", kind.into(), None)];
        keys.extend(own);
        if let Some(address) = self.address.get() {
            keys.push(("address", Value::shown(address.value), Some(address.at)));
        }
        if let Some((port, at)) = self.port {
            keys.push(("port", port.into(), at));
        }
        keys.push(("interval_s", Value::Seconds(interval), self.common.delay_loop.at()));
        let timeout = self.common.connect_timeout.or(CONNECT_TIMEOUT);
        keys.push(("timeout_s", Value::Seconds(timeout), self.common.connect_timeout.at()));
        let retry = self.common.retry.or(self.retry);
        if retry > 0 {
            let delay = self.common.delay_before_retry.or(self.delay.unwrap_or(interval));
            keys.push(("retry_s", Value::Seconds(delay), self.common.delay_before_retry.at()));
        }
        keys.push(("fall", (retry + 1).into(), self.common.retry.at()));
        Check { at: self.at, keys, note: None, alpha: self.common.alpha.or(false) }
    }

    /// The end of a checker that is one check.
    fn finish(
        self,
        kind: &'static str,
        own: Vec<(&'static str, Value, Option<Position>)>,
        notes: &mut Notes,
    ) -> Vec<Check> {
        let check = self.keys(kind, own);
        self.block.finish(notes);
        vec![check]
    }
}

/// Whom to ask: `connect_ip`, `connect_port`, and what of that has no counterpart.
fn connect(block: &mut Block<'_>, notes: &mut Notes) -> (Raw<IpAddr>, Option<(u16, Option<Position>)>) {
    let address = block.word(notes, &["connect_ip"], address::ALLOWED, |word| address::parse(word).ok());
    let port = block.number(notes, &["connect_port"], 1..=u16::MAX);
    block.lose(notes, &["bindto", "bind_if", "bind_port", "fwmark"], "the host's routes choose how to ask");
    block.lose(notes, &["log_all_failures"], "the log tells of changes");
    (address, port.get().map(|port| (port.value, Some(port.at))))
}

fn smtp<'b>(node: &'b Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    let mut checker = Checker::new("SMTP_CHECK", node, around, notes);
    let helo = checker.block.word(notes, &["helo_name"], "a host's name of visible ASCII", |word| {
        (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic())).then(|| word.to_owned())
    });
    let own = || vec![("helo", Value::Text(helo.or(HELO_NAME.to_owned())), helo.at())];
    // The older form, where each server to ask has a block of its own.
    let hosts: Vec<&Node> = checker.block.all(&["host"]).collect();
    let port = checker.port;
    let mut checks = Vec::with_capacity(hosts.len());
    for host in hosts {
        let mut block: Block<'b> = Block::new("host", host.nodes());
        let (address, its) = connect(&mut block, notes);
        block.finish(notes);
        (checker.address, checker.port) = (address, its.or(port));
        checks.push(Check { at: host.at(), ..checker.keys("smtp", own()) });
    }
    if checks.is_empty() {
        checks.push(checker.keys("smtp", own()));
    }
    if helo.at().is_none() {
        checks
            .iter_mut()
            .for_each(|check| check.note = Some("the name is the one that keepalived says by itself"));
    }
    checker.block.finish(notes);
    checks
}

fn dns(node: &Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    const RECORDS: [&str; 9] = ["A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "RRSIG", "DNSKEY"];
    let mut checker = Checker::new("DNS_CHECK", node, around, notes).defaults(3, None);
    let record = checker.block.word(notes, &["type"], &RECORDS.join(", "), |word| {
        let upper = word.to_ascii_uppercase();
        RECORDS.contains(&upper.as_str()).then_some(upper)
    });
    let name = checker.block.text(notes, &["name"]);
    let mut own = vec![("name", Value::Text(name.or(".".to_owned())), name.at())];
    own.push(("record", Value::Text(record.or("SOA".to_owned())), record.at()));
    checker.finish("dns", own, notes)
}

fn udp(node: &Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    const HEX: &str = "bytes in hexadecimal digits";
    let mut checker = Checker::new("UDP_CHECK", node, around, notes);
    let digits = |words: &[Word], wild| hexadecimal(words.iter().map(|word| word.text.as_str()), wild);
    let payload = checker.block.read(notes, &["payload"], HEX, |words| digits(words, false));
    let allowed = "nothing, or bytes in hexadecimal digits, of which x is any";
    let reply = checker.block.read(notes, &["require_reply"], allowed, |words| {
        if words.is_empty() { Some(String::new()) } else { digits(words, true) }
    });
    let lengths = [("min_reply_bytes", "min_reply_length"), ("max_reply_bytes", "max_reply_length")]
        .map(|(key, name)| (key, name, checker.block.number(notes, &[name], 0..=MOST_DATAGRAM)));
    let mut own = match payload.get() {
        None if payload.is_wrong() => Vec::new(),
        None => vec![("send", PAYLOAD.into(), None)],
        Some(payload) => vec![("send_hex", payload.value.clone().into(), Some(payload.at))],
    };
    if let Some(at) = reply.at() {
        own.push(("require_reply", true.into(), Some(at)));
    }
    if let Some(reply) = reply.get().filter(|reply| !reply.value.is_empty()) {
        own.push(("reply_hex", reply.value.clone().into(), Some(reply.at)));
    }
    for (key, name, length) in lengths {
        match length.get() {
            Some(length) if reply.at().is_some() => own.push((key, length.value.into(), Some(length.at))),
            Some(length) => notes.lose(length.at, format!("{name} has no effect without require_reply")),
            None => {}
        }
    }
    let mut checks = checker.finish("udp", own, notes);
    if payload.at().is_none() {
        checks.iter_mut().for_each(|check| check.note = Some("what keepalived sends by itself"));
    }
    checks
}

/// Bytes of two digits each, in as many words as one likes; one digit that stands alone is a byte too. `wild` is whether `x` may be a
/// digit.
fn hexadecimal<'w>(words: impl Iterator<Item = &'w str>, wild: bool) -> Option<String> {
    let mut digits = String::new();
    for word in words.flat_map(str::split_whitespace) {
        let right = |c: char| c.is_ascii_hexdigit() || wild && matches!(c, 'x' | 'X');
        if !word.chars().all(right) {
            return None;
        }
        for pair in word.as_bytes().chunks(2) {
            digits.extend((pair.len() == 1).then_some('0'));
            digits.extend(pair.iter().map(|digit| char::from(digit.to_ascii_lowercase())));
        }
    }
    (!digits.is_empty() && digits.len() <= 2 * usize::from(MOST_DATAGRAM)).then_some(digits)
}

fn misc(node: &Node, around: &Around<'_>, notes: &mut Notes) -> Vec<Check> {
    let mut checker = Checker::new("MISC_CHECK", node, around, notes).defaults(0, Some(1000));
    checker.port = None;
    let command = checker.block.read(
        notes,
        &["misc_path"],
        "the absolute path of a program and its arguments, in quotes",
        |words| {
            match words {
                // Several words are the program and its arguments too.
                [word] => shlex::split(&word.text),
                words => Some(words.iter().map(|word| word.text.clone()).collect()),
            }
            .filter(|words| words.first().is_some_and(|first| first.starts_with('/')))
        },
    );
    let timeout = checker.block.word(notes, &["misc_timeout"], "whole seconds from 1 on", |word| {
        number(word, 1..=86_400_u64).map(|seconds| seconds * 1000)
    });
    checker.common.connect_timeout = match timeout {
        // Its default is the time between two checks.
        Raw::Absent => match checker.common.delay_loop.get() {
            Some(delay_loop) => Raw::Is(delay_loop.clone()),
            None => Raw::Is(At { value: DELAY_LOOP, at: node.at() }),
        },
        timeout => timeout,
    };
    checker.block.lose(notes, &["user"], "programs run as the director does");
    let dynamic = checker.block.flag(notes, &["misc_dynamic"]);
    if let Raw::Absent = command {
        let message = "found nothing, allowed: the absolute path of a program";
        notes.findings.error(node.at(), "MISC_CHECK.misc_path", message.to_owned());
    }
    let words = command.or(Vec::new()).iter().map(|word| Value::Text(word.replace('%', "%%"))).collect();
    let mut own = vec![("command", Value::List(words), command.at())];
    if let Some(dynamic) = dynamic.get().filter(|dynamic| dynamic.value) {
        own.push(("weight_by_exit_code", true.into(), Some(dynamic.at)));
    }
    checker.finish("program", own, notes)
}
