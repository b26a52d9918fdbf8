//! Values: from TOML's types to the configuration's.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Mask;
use crate::config::address;
use crate::config::names::{ConnectionsFile, GroupName, InterfaceName};

/// Why a value is refused.
pub(super) enum Refusal {
    /// It is of another type.
    Type,
    /// The type is right, the value is not.
    Value,
    /// The type is right, and the value has a name.
    Because(&'static str),
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    value.as_str().ok_or(Refusal::Type)
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Refusal> {
    value.as_bool().ok_or(Refusal::Type)
}

pub(super) fn integer<T>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, Refusal>
where
    T: TryFrom<i128> + PartialOrd,
{
    let integer = value.as_integer().ok_or(Refusal::Type)?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Refusal::Value)?;
    T::try_from(number).ok().filter(|number| range.contains(number)).ok_or(Refusal::Value)
}

pub(super) fn interface(value: &DeValue<'_>) -> Result<InterfaceName, Refusal> {
    text(value)?.parse().map_err(|_| Refusal::Value)
}

pub(super) fn group(value: &DeValue<'_>) -> Result<GroupName, Refusal> {
    let name = match value.as_str() {
        Some(name) => name.to_owned(),
        None => integer(value, 0..=u32::MAX)?.to_string(),
    };
    name.parse().map_err(|_| Refusal::Value)
}

pub(super) fn unicast(value: &DeValue<'_>) -> Result<IpAddr, Refusal> {
    address::parse(text(value)?).map_err(|refused| Refusal::Because(refused.0))
}

/// A prefix, its host bits as written.
pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, Refusal> {
    address::parse_network(text(value)?).map_err(|refused| Refusal::Because(refused.0))
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    let path = text(value)?;
    if path.starts_with('/') && !path.contains('\0') { Ok(PathBuf::from(path)) } else { Err(Refusal::Value) }
}

pub(super) fn connections_file(value: &DeValue<'_>) -> Result<ConnectionsFile, Refusal> {
    text(value)?.parse().map_err(|_| Refusal::Value)
}

/// A port or a range of ports: the first and the last.
pub(super) fn ports(value: &DeValue<'_>) -> Result<(u16, u16), Refusal> {
    let Some(range) = value.as_str() else {
        return integer(value, 0..=u16::MAX).map(|port| (port, port));
    };
    let port = |digits: &str| {
        // The standard library's parser takes a sign too.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain).ok_or(Refusal::Value)
    };
    let (first, last) = range.split_once('-').ok_or(Refusal::Value)?;
    match (port(first)?, port(last)?) {
        (first, last) if first > last => Err(Refusal::Because("the first above the last")),
        ports => Ok(ports),
    }
}

/// A netmask, or a prefix's length.
pub(super) fn mask(value: &DeValue<'_>) -> Result<Mask, Refusal> {
    match value.as_str() {
        Some(netmask) => netmask.parse::<Ipv4Addr>().map(Mask::Netmask).map_err(|_| Refusal::Value),
        None => integer(value, 0..=128).map(Mask::Length),
    }
}

/// A time in seconds, to the millisecond.
pub(super) fn seconds(value: &DeValue<'_>, range: RangeInclusive<f64>) -> Result<Duration, Refusal> {
    let number = number(value)?;
    if !range.contains(&number) {
        return Err(Refusal::Value);
    }
    Ok(Duration::from_millis((number * 1000.0).round() as u64))
}

/// A share of 1, in thousandths.
pub(super) fn share(value: &DeValue<'_>) -> Result<u16, Refusal> {
    let number = number(value)?;
    if (0.0..=1.0).contains(&number) { Ok((number * 1000.0).round() as u16) } else { Err(Refusal::Value) }
}

/// A whole or a broken number.
fn number(value: &DeValue<'_>) -> Result<f64, Refusal> {
    let digits = match (value.as_float(), value.as_integer()) {
        (Some(float), _) => float.as_str(),
        (None, Some(integer)) if integer.radix() == 10 => integer.as_str(),
        (None, Some(_)) => return Err(Refusal::Value),
        (None, None) => return Err(Refusal::Type),
    };
    digits.parse().map_err(|_| Refusal::Value)
}
