//! `xlvs settings`: lists and changes the settings of the running daemon, in the manner of `sysctl`.

use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;

use super::Failure;
use super::client::wait;
use crate::api::{Setting, Xlvs, client};

/// A setting named on the command line, and its value if it is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    name: String,
    value: Option<u32>,
}

/// The kernel's name of the place where these settings are; it may stand before a name.
const PREFIX: &str = "net.ipv4.vs.";

impl FromStr for Assignment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, value) = match text.split_once('=') {
            None => (text, None),
            Some((name, value)) => {
                let value = value.trim().parse().map_err(|_| "the value is not a whole number from 0 on")?;
                (name, Some(value))
            }
        };
        let name = name.trim();
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        if name.is_empty() {
            return Err("expected NAME or NAME=VALUE");
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

/// Makes the changes in their order, then prints the settings named, or all if none is.
///
/// # Errors
/// When no daemon answers, or it refuses a change. Those before it are made then.
pub(super) fn settings(socket: &Path, named: &[Assignment]) -> Result<(), Failure> {
    for Assignment { name, value } in named {
        if let Some(value) = *value {
            wait(client::change(socket, Xlvs::Setting(Setting { name: name.clone(), value, default: 0 })))?;
        }
    }
    let all = wait(client::settings(socket))?;
    let mut text = String::new();
    for Setting { name, value, default } in chosen(&all, named)? {
        let _ = write!(text, "{name} = {value}");
        if value != default {
            let _ = write!(text, " (default {default})");
        }
        text.push('\n');
    }
    super::print(text)
}

fn chosen<'a>(all: &'a [Setting], named: &[Assignment]) -> Result<Vec<&'a Setting>, Failure> {
    if named.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |wanted: &Assignment| {
        all.iter().find(|setting| setting.name == wanted.name).ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|setting| setting.name.as_str()).collect();
            let wanted = &wanted.name;
            Failure::Runtime(format!("there is no setting {wanted:?}; there are: {}", names.join(", ")))
        })
    };
    named.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_with_or_without_value_and_the_kernels_prefix() {
        let is = |name: &str, value| Ok(Assignment { name: name.to_owned(), value });
        assert_eq!("sloppy_tcp".parse(), is("sloppy_tcp", None));
        assert_eq!("net.ipv4.vs.sloppy_tcp = 1".parse(), is("sloppy_tcp", Some(1)));
        for wrong in ["", "=1", "sloppy_tcp=", "sloppy_tcp=-1", "sloppy_tcp=yes", "am_droprate=4294967296"] {
            assert!(wrong.parse::<Assignment>().is_err(), "{wrong}");
        }
    }
}
