//! `[[service.check]]` and `[[service.destination.check]]` as written. All keys of all types are read here; which of them a
//! type has is `resolve`'s.

use std::net::IpAddr;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::DnsName;
use toml::de::DeTable;

use super::table::Table;
use super::value::{Refusal, boolean, integer, seconds, share, text, unicast};
use super::{At, Position, Raw, Source};
use crate::config::address;
use crate::config::names::CheckType;
use crate::health::spec::RecordType;

/// The most checks of one server.
pub(super) const MOST_CHECKS: usize = 16;
/// The most bytes of a text that is sent or looked for.
const MOST_TEXT: usize = 65_536;
/// The most ranges of `status`, and the most words of `command`.
const MOST_ITEMS: usize = 64;
/// The most results in a row that `rise` and `fall` can wait for.
const MOST_RESULTS: u32 = 1000;

/// A check.
#[derive(Debug)]
pub(crate) struct RawCheck {
    pub(crate) at: Position,
    /// The table's name as a path, for messages.
    pub(crate) path: &'static str,
    pub(crate) kind: Raw<CheckType>,
    pub(crate) interval_s: Raw<Duration>,
    pub(crate) timeout_s: Raw<Duration>,
    pub(crate) retry_s: Raw<Duration>,
    pub(crate) rise: Raw<u32>,
    pub(crate) reentry_s: Raw<Duration>,
    pub(crate) fall: Raw<u32>,
    /// In thousandths.
    pub(crate) jitter: Raw<u16>,
    pub(crate) address: Raw<IpAddr>,
    pub(crate) port: Raw<u16>,
    pub(crate) url_path: Raw<String>,
    pub(crate) host: Raw<String>,
    pub(crate) sni: Raw<String>,
    pub(crate) status: Raw<Vec<At<(u16, u16)>>>,
    pub(crate) body: Raw<String>,
    pub(crate) body_regex: Raw<String>,
    pub(crate) verify: Raw<bool>,
    pub(crate) send: Raw<String>,
    pub(crate) expect: Raw<String>,
    pub(crate) expect_regex: Raw<String>,
    pub(crate) name: Raw<String>,
    pub(crate) record: Raw<RecordType>,
    pub(crate) require_reply: Raw<bool>,
    pub(crate) command: Raw<Vec<At<String>>>,
    pub(crate) expect_output: Raw<String>,
}

/// Reads the tables of a key `check`.
pub(super) fn checks(
    source: &mut Source<'_>,
    keys: &mut Table<'_, '_>,
    path: &'static str,
    header: &str,
) -> Vec<RawCheck> {
    let tables = keys.tables(source, "check", header);
    if let Some((at, _)) = tables.get(MOST_CHECKS) {
        let message = format!("found {} checks, allowed: at most {MOST_CHECKS}", tables.len());
        source.findings.error(*at, path, message);
    }
    tables.into_iter().take(MOST_CHECKS).map(|(at, table)| check(source, at, table, path)).collect()
}

fn check(source: &mut Source<'_>, at: Position, table: &DeTable<'_>, path: &'static str) -> RawCheck {
    let mut keys = Table::new(path, at, table);
    const TIME: &str = "seconds from 0.1 to 3600";
    let time = |keys: &mut Table<'_, '_>, source: &mut Source<'_>, key| {
        keys.read(source, key, TIME, |value| seconds(value, 0.1..=3600.0))
    };
    let any_text = "a text of at most 65536 bytes";
    let raw = RawCheck {
        at,
        path,
        kind: keys.choice(source, "type"),
        interval_s: time(&mut keys, source, "interval_s"),
        timeout_s: time(&mut keys, source, "timeout_s"),
        retry_s: keys.read(source, "retry_s", "seconds from 0 to 3600", |value| seconds(value, 0.0..=3600.0)),
        rise: keys.number(source, "rise", 1..=MOST_RESULTS),
        reentry_s: keys.read(source, "reentry_s", "seconds from 0 to 2678400", |value| {
            seconds(value, 0.0..=2_678_400.0)
        }),
        fall: keys.number(source, "fall", 1..=MOST_RESULTS),
        jitter: keys.read(source, "jitter", "a share from 0 to 1", share),
        address: keys.read(source, "address", address::ALLOWED, unicast),
        port: keys.number(source, "port", 1..=u16::MAX),
        url_path: keys.read(source, "path", "visible ASCII that begins with /", |value| {
            token(value).and_then(|path| if path.starts_with('/') { Ok(path) } else { Err(Refusal::Value) })
        }),
        host: keys.read(source, "host", "a host's name or address, with or without a port", token),
        sni: keys.read(source, "sni", "a DNS name", |value| {
            token(value).and_then(|name| if is_dns_name(&name) { Ok(name) } else { Err(Refusal::Value) })
        }),
        status: keys.list(
            source,
            "status",
            MOST_ITEMS,
            "a status from 100 to 999, or a range such as \"200-299\"",
            status,
        ),
        body: keys.read(source, "body", &format!("{any_text}, not empty"), nonempty),
        body_regex: keys.read(source, "body_regex", "a regular expression", regex),
        verify: keys.read(source, "verify", "true or false", boolean),
        send: keys.read(source, "send", any_text, bounded),
        expect: keys.read(source, "expect", &format!("{any_text}, not empty; \"*\" is any answer"), nonempty),
        expect_regex: keys.read(source, "expect_regex", "a regular expression", regex),
        name: keys.read(
            source,
            "name",
            "a domain name of ASCII, such as \"example.com\", or \".\"",
            domain_name,
        ),
        record: keys.choice(source, "record"),
        require_reply: keys.read(source, "require_reply", "true or false", boolean),
        command: keys.list(source, "command", MOST_ITEMS, "a text without NUL", |value| {
            bounded(value).and_then(|word| if word.contains('\0') { Err(Refusal::Value) } else { Ok(word) })
        }),
        expect_output: keys.read(source, "expect_output", any_text, bounded),
    };
    keys.require(source, "type", &CheckType::allowed_names());
    keys.finish(source);
    raw
}

/// Whether TLS can ask for it.
pub(crate) fn is_dns_name(name: &str) -> bool {
    DnsName::try_from(name).is_ok()
}

fn bounded(value: &toml::de::DeValue<'_>) -> Result<String, Refusal> {
    let text = text(value)?;
    if text.len() <= MOST_TEXT { Ok(text.to_owned()) } else { Err(Refusal::Because("too long")) }
}

fn nonempty(value: &toml::de::DeValue<'_>) -> Result<String, Refusal> {
    bounded(value).and_then(|text| if text.is_empty() { Err(Refusal::Value) } else { Ok(text) })
}

/// Visible ASCII, as a line of HTTP can have it.
fn token(value: &toml::de::DeValue<'_>) -> Result<String, Refusal> {
    let text = nonempty(value)?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(text) } else { Err(Refusal::Value) }
}

fn regex(value: &toml::de::DeValue<'_>) -> Result<String, Refusal> {
    let text = nonempty(value)?;
    match regex::bytes::Regex::new(&text) {
        Ok(_) => Ok(text),
        Err(regex::Error::CompiledTooBig(_)) => Err(Refusal::Because("too large when compiled")),
        Err(_) => Err(Refusal::Because("not well-formed")),
    }
}

/// A status, or a range of them: the first and the last.
fn status(value: &toml::de::DeValue<'_>) -> Result<(u16, u16), Refusal> {
    const RANGE: std::ops::RangeInclusive<u16> = 100..=999;
    let Some(range) = value.as_str() else {
        return integer(value, RANGE).map(|status| (status, status));
    };
    let status = |digits: &str| {
        let plain = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|status| plain && RANGE.contains(status)).ok_or(Refusal::Value)
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (status(first)?, status(last)?) {
        (first, last) if first > last => Err(Refusal::Because("the first above the last")),
        range => Ok(range),
    }
}

/// A domain name: labels of 1 to 63 bytes, 253 in all.
fn domain_name(value: &toml::de::DeValue<'_>) -> Result<String, Refusal> {
    let text = token(value)?;
    let name = text.strip_suffix('.').unwrap_or(&text);
    let labels = |name: &str| name.split('.').all(|label| (1..=63).contains(&label.len()));
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.is_empty() || plain && name.len() <= 253 && labels(name) { Ok(text) } else { Err(Refusal::Value) }
}
