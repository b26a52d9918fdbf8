//! From keys as written to a [`Configuration`]: the defaults, what the command line overrides, and the rules between
//! keys. The result is only used when there was no error, so a wrong value may stand in for here by its default.

mod check;
mod destination;
mod director;
mod mark;
mod service;
mod sync;

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use super::error::Findings;
use super::file::{At, Raw, RawFile};
use super::names::MarkSource;
use super::{Configuration, Overrides, Timeouts};

/// The configuration of a file; what speaks against it is in the findings.
pub(super) fn resolve(raw: &RawFile, overrides: &Overrides, findings: &mut Findings) -> Configuration {
    let director = director::director(&raw.director, overrides, findings);
    let timeouts = Timeouts {
        tcp: seconds(raw.tcp_s.or(900)),
        tcp_fin: seconds(raw.tcp_fin_s.or(120)),
        udp: seconds(raw.udp_s.or(300)),
    };
    let marks = mark::marks(&raw.marks, &director.interfaces, findings);
    let services = service::services(&raw.services, director.vip, findings);
    // Which marks the host's own rules set is not known here.
    if director.marks == MarkSource::File {
        mark::unpaired(raw, findings);
    }
    let sync = sync::sync(&raw.sync, findings);
    let (settings, warnings) = (raw.settings, Vec::new());
    Configuration { director, timeouts, settings, sync, marks, host_marks: Vec::new(), services, warnings }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// Reports each value that is in the list already.
fn once_each<T: Eq + Hash + Display>(list: &[At<T>], key: &str, findings: &mut Findings) {
    let mut seen = HashSet::new();
    for item in list {
        if !seen.insert(&item.value) {
            findings.error(item.at, key, format!("found {} a second time, allowed: each once", item.value));
        }
    }
}

impl<T: Clone + Default> Raw<T> {
    fn or_default(&self) -> T {
        self.or(T::default())
    }
}
