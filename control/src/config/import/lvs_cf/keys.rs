//! The keys of one block: reads them, and reports those that are wrong, unknown or there twice.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::tree::Block;
use crate::config::address;
use crate::config::file::{At, Raw};
use crate::config::names::Choice;
use crate::config::source::{Source, plain};

/// Why a value is refused, if there is more to say than what is allowed.
pub(super) type Refused = Option<String>;

/// A block whose keys are being read.
pub(super) struct Keys<'b, 't> {
    block: &'b Block<'t>,
    known: Vec<&'static str>,
}

impl<'b, 't> Keys<'b, 't> {
    pub(super) const fn new(block: &'b Block<'t>) -> Self {
        Self { block, known: Vec::new() }
    }

    /// The key as messages name it: `virtual.port`.
    fn path(&self, key: &str) -> String {
        let word = self.block.kind.word();
        if word.is_empty() { key.to_owned() } else { format!("{word}.{key}") }
    }

    /// Reads a key; of one that is there twice the first counts.
    pub(super) fn read<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        allowed: &str,
        convert: impl FnOnce(&str) -> Result<T, Refused>,
    ) -> Raw<T> {
        self.known.push(key);
        let Some(found) = self.block.keys.iter().find(|its| its.name == key) else { return Raw::Absent };
        let at = source.position(found.span.start);
        match convert(found.value) {
            Ok(value) => Raw::Is(At { value, at }),
            Err(note) => {
                let shown =
                    if found.value.is_empty() { "nothing".to_owned() } else { source.written(&found.span) };
                let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
                source.findings.error(at, self.path(key), format!("found {shown}{note}, allowed: {allowed}"));
                Raw::Wrong(at)
            }
        }
    }

    pub(super) fn number<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Raw<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(source, key, &allowed, |value| {
            let digits = bare(value);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|number| plain && range.contains(number)).ok_or(None)
        })
    }

    pub(super) fn flag(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<bool> {
        self.read(source, key, "0 or 1", |value| match bare(value) {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(None),
        })
    }

    pub(super) fn choice<T: Choice>(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<T> {
        let allowed: Vec<&str> = T::ALL.iter().map(|(name, _)| *name).collect();
        self.read(source, key, &allowed.join(", "), |value| T::named(bare(value)).ok_or(None))
    }

    /// The address of a host.
    pub(super) fn address(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<Ipv4Addr> {
        self.read(source, key, ADDRESS, |value| ipv4(bare(value)))
    }

    /// A netmask whose ones are all in front: the prefix length.
    pub(super) fn netmask(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<u8> {
        self.read(source, key, "a netmask such as 255.255.255.0", |value| {
            let mask: Ipv4Addr = bare(value).parse().map_err(|_| None)?;
            ipnet::ip_mask_to_prefix(mask.into())
                .map_err(|_| Some("its ones are not all in front".to_owned()))
        })
    }

    /// A string, with its escapes replaced.
    pub(super) fn text(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<String> {
        self.read(
            source,
            key,
            "a text in quotes; \\n, \\r, \\t, \\\\, \\' and \\\" are its escapes",
            unescaped,
        )
    }

    /// A string without line breaks and other control characters.
    pub(super) fn line(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<String> {
        self.read(source, key, "a text in one line", |value| {
            unescaped(value)
                .and_then(|text| if text.contains(char::is_control) { Err(None) } else { Ok(text) })
        })
    }

    /// A key that any value is right for, as nothing here depends on it.
    pub(super) fn any(&mut self, source: &mut Source<'_>, key: &'static str) -> Raw<()> {
        self.read(source, key, "", |_| Ok(()))
    }

    /// Reports what is left: unknown keys, and those that are there a second time.
    pub(super) fn finish(self, source: &mut Source<'_>) {
        let mut first_lines: HashMap<&str, u32> = HashMap::new();
        for key in &self.block.keys {
            let first = *first_lines.entry(key.name).or_insert(key.at.line);
            if first != key.at.line {
                let message = format!("found a second time, allowed: once (it is in line {first})");
                source.findings.error(key.at, self.path(&plain(key.name)), message);
            } else if !self.known.contains(&key.name) {
                let nearest = self
                    .known
                    .iter()
                    .map(|known| (strsim::osa_distance(known, key.name), known))
                    .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
                    .min_by_key(|(distance, _)| *distance);
                let hint = nearest.map(|(_, known)| format!(" (did you mean {known}?)")).unwrap_or_default();
                let message = format!("found an unknown key{hint}, allowed: {}", self.known.join(", "));
                source.findings.error(key.at, self.path(&plain(key.name)), message);
            }
        }
    }
}

/// What is allowed as an address, for messages.
pub(super) const ADDRESS: &str = "a unicast IPv4 address";

/// A unicast address of IPv4, which is all that this format knows.
pub(super) fn ipv4(text: &str) -> Result<Ipv4Addr, Refused> {
    match address::parse(text) {
        Ok(std::net::IpAddr::V4(address)) => Ok(address),
        Ok(std::net::IpAddr::V6(_)) => Err(Some("IPv6".to_owned())),
        Err(refused) => Err(Some(refused.0.to_owned())),
    }
}

/// A value without the quotes around it.
pub(super) fn bare(value: &str) -> &str {
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

/// A text without its quotes, its escapes replaced.
fn unescaped(value: &str) -> Result<String, Refused> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    let quote = chars.next_if(|first| matches!(first, '"' | '\''));
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(c @ ('\\' | '\'' | '"')) => c,
                Some(other) if other.is_control() => return Err(Some("an unknown escape".to_owned())),
                Some(other) => return Err(Some(format!("the escape \\{other} is unknown"))),
                None => return Err(Some("a \\ at its end".to_owned())),
            }),
            c if Some(c) == quote => {
                return match chars.next() {
                    None => Ok(text),
                    Some(_) => Err(Some("more behind its quote".to_owned())),
                };
            }
            c => text.push(c),
        }
    }
    match quote {
        Some(_) => Err(Some("its quote is not closed".to_owned())),
        None if text.is_empty() => Err(None),
        None => Ok(text),
    }
}
