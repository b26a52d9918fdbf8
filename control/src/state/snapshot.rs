//! The state file's content: the whole registry at one moment, with the owner of each thing.
//!
//! `{"xlvs_state":1,"generation":G,"checksum":"crc32 …","content":{…}}`, a line for each service, destination and rule. The
//! checksum is over the generation and the bytes of the content, and the rest has to be exactly as it is written here, so that
//! no change of the file goes unnoticed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::value::RawValue;
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::settings::Settings;

use super::damage::Damage;
use super::operation::TimeoutsRecord;
use super::record::{DestinationRecord, MarkRecord, Refused, ServiceRecord};
use crate::registry::Registry;
use crate::synchronization::spec::{SyncRole, SyncSpec};

/// The version of the files that this program writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;

/// What names one state file among all that were ever written in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    pub(super) generation: u64,
    pub(super) crc32: u32,
}

/// What the file said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    settings: BTreeMap<String, u32>,
    timeouts: TimeoutsRecord,
}

/// Everything that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// What the configuration file said last of settings and timeouts.
    file: Option<Said>,
    /// The settings that tools gave their value.
    settings: BTreeMap<String, u32>,
    /// The timeouts that tools gave.
    timeouts: TimeoutsRecord,
    /// In the order in which they are applied.
    marks: Vec<MarkRecord>,
    /// The sync daemons that tools have started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sync: BTreeMap<SyncRole, SyncSpec>,
    services: Vec<ServiceRecord>,
}

impl Content {
    /// What there is to keep of a registry.
    pub(super) fn gather(registry: &Registry) -> Self {
        let said = registry.said_by_file().map(|(settings, timeouts)| {
            let seconds = |time: Duration| u32::try_from(time.as_secs()).ok();
            let named = |&(name, ..): &(&'static str, u32, u32)| Some((name.to_owned(), settings.get(name)?));
            let timeouts = TimeoutsRecord {
                tcp_s: seconds(timeouts.tcp),
                tcp_fin_s: seconds(timeouts.tcp_fin),
                udp_s: seconds(timeouts.udp),
            };
            Said { settings: Settings::BOUNDS.iter().filter_map(named).collect(), timeouts }
        });
        let services = registry.services().map(|(key, service)| {
            let mut record = ServiceRecord::new(key, service.owner(), service.spec(), service.options());
            let destinations = service.destinations().iter();
            record.destinations = destinations
                .map(|its| DestinationRecord::new(its.real(), its.owner(), its.spec(), its.last_weight()))
                .collect();
            record
        });
        Self {
            file: said,
            settings: registry.settings_of_tools().map(|(name, value)| (name.to_owned(), value)).collect(),
            timeouts: registry.timeouts_of_tools().into(),
            marks: registry.marks().map(|(owner, rule)| MarkRecord::new(owner, rule)).collect(),
            sync: registry.sync_daemons_of_tools().map(|(role, spec)| (role, spec.clone())).collect(),
            services: services.collect(),
        }
    }

    /// Puts it into an empty registry. What is refused is left out and told.
    pub(super) fn restore(&self, registry: &mut Registry) -> Vec<Refused> {
        let mut refused = Vec::new();
        if let Some(said) = &self.file {
            let (mut settings, mut timeouts) = (Settings::default(), Timeouts::default());
            for (name, value) in &said.settings {
                // One that is no longer known, or out of bounds, is as if the file had not said it.
                let _ = settings.set(name, *value);
            }
            let places = [
                (&mut timeouts.tcp, said.timeouts.tcp_s),
                (&mut timeouts.tcp_fin, said.timeouts.tcp_fin_s),
                (&mut timeouts.udp, said.timeouts.udp_s),
            ];
            for (place, seconds) in places {
                *place = seconds.map_or(*place, |seconds| Duration::from_secs(seconds.into()));
            }
            registry.restore_file(settings, timeouts);
        }
        for (name, value) in &self.settings {
            tell(&mut refused, || "a setting".to_owned(), text(registry.set_setting(name, *value)));
        }
        tell(&mut refused, || "the timeouts".to_owned(), text(registry.set_timeouts(self.timeouts.into())));
        for mark in &self.marks {
            let done = mark.rule().and_then(|rule| text(registry.restore_mark(mark.owner.into(), &rule)));
            tell(&mut refused, || "a mark rule".to_owned(), done);
        }
        for (role, spec) in &self.sync {
            let done = text(registry.start_sync(*role, spec));
            tell(&mut refused, || format!("the sync daemon as {}", role.name()), done);
        }
        for service in &self.services {
            restore_service(registry, service, &mut refused);
        }
        refused
    }
}

fn text<T, E: ToString>(done: Result<T, E>) -> Result<T, Refused> {
    done.map_err(|error| error.to_string())
}

fn tell(refused: &mut Vec<Refused>, what: impl FnOnce() -> String, done: Result<(), Refused>) {
    if let Err(why) = done {
        refused.push(format!("{}: {why}", what()));
    }
}

fn restore_service(registry: &mut Registry, record: &ServiceRecord, refused: &mut Vec<Refused>) {
    let restored = record.key().and_then(|key| {
        let (spec, options) = (record.spec()?, record.options()?);
        text(registry.restore_service(key, record.owner.into(), spec, options))?;
        Ok(key)
    });
    let key = match restored {
        Ok(key) => key,
        Err(why) => {
            let destinations = match record.destinations.len() {
                0 => String::new(),
                count => format!(", and its {count} destination(s)"),
            };
            refused.push(format!("the service {}{destinations}: {why}", record.service));
            return;
        }
    };
    // The oldest first, as they came.
    for destination in record.destinations.iter().rev() {
        let DestinationRecord { real, owner, last_weight, .. } = *destination;
        let done = destination
            .spec()
            .and_then(|spec| text(registry.restore_destination(&key, real, owner.into(), spec, last_weight)));
        tell(refused, || format!("the destination {real} of {key}"), done);
    }
}

/// Puts each element of a list on a line of its own.
#[derive(Default)]
struct Lines {
    depth: usize,
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        let start: &[u8] = if first { b"\n" } else { b",\n" };
        writer.write_all(start)?;
        (0..self.depth).try_for_each(|_| writer.write_all(b" "))
    }
}

/// The content as text.
pub(super) fn encode(content: &Content) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    content.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Lines::default()))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// The file of a content, and what names it.
pub(super) fn seal(generation: u64, content: &str) -> (String, Stamp) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(content.as_bytes());
    let crc32 = hasher.finalize();
    let file = format!(
        "{{\"xlvs_state\":{VERSION},\"generation\":{generation},\"checksum\":\"crc32 {crc32:08x}\",\"content\":{content}}}\n"
    );
    (file, Stamp { generation, crc32 })
}

#[derive(Deserialize)]
struct Version {
    xlvs_state: u32,
}

#[derive(Deserialize)]
struct Sealed<'a> {
    generation: u64,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// What a file holds, its text, and what names it.
pub(super) fn open(bytes: &[u8]) -> Result<(Content, &str, Stamp), Damage> {
    let file = std::str::from_utf8(bytes).map_err(|_| Damage::NotText)?;
    let malformed = |error: serde_json::Error| Damage::Malformed(error.to_string());
    let Version { xlvs_state } = serde_json::from_str(file).map_err(malformed)?;
    if xlvs_state != VERSION {
        return Err(Damage::Version { found: xlvs_state, read: VERSION });
    }
    let Sealed { generation, content } = serde_json::from_str(file).map_err(malformed)?;
    let (again, stamp) = seal(generation, content.get());
    if again != file {
        return Err(Damage::Checksum);
    }
    let decoded = serde_json::from_str(content.get()).map_err(malformed)?;
    Ok((decoded, content.get(), stamp))
}
