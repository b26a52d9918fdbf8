//! Mark rules as they are configured: the file's first, in its order, then the tools', in the order they were added. Of all
//! that match a packet, the last one's mark counts.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use xlvs_dataplane::flow::{Family, Protocol};
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::service::ServiceKey;
use xlvs_dataplane::service::mark::{MarkRule, MarkTable};

use super::{Owner, Registry, RegistryError};

/// The most rules.
pub const MAX_MARK_RULES: usize = 16_384;
/// The most port ranges of a rule.
pub const MAX_MARK_PORTS: usize = 1024;

/// A rule that puts a mark on packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkSpec {
    /// The packets' mark.
    pub mark: NonZeroU32,
    /// The transport protocol; `None` is all three.
    pub protocol: Option<Protocol>,
    /// Where a packet goes.
    pub destination: IpNet,
    /// The ports it goes to, first and last; empty is all of them.
    pub ports: Vec<(u16, u16)>,
    /// Where it comes from; of the destination's family.
    pub source: Option<IpNet>,
    /// The interface that it comes in on, one of the director's.
    pub interface: Option<String>,
}

impl MarkSpec {
    /// The service that its packets are for, if there is one.
    #[must_use]
    pub fn service(&self) -> ServiceKey {
        ServiceKey::Mark { family: Family::of(self.destination.addr()), mark: self.mark }
    }

    /// The rule with networks truncated, so that what means the same compares equal.
    fn checked(&self) -> Result<Self, RegistryError> {
        let invalid = |what, found: String, allowed: &str| RegistryError::Invalid {
            what,
            found,
            allowed: allowed.into(),
        };
        if let Some(source) = self.source
            && Family::of(source.addr()) != Family::of(self.destination.addr())
        {
            return Err(invalid("source", source.to_string(), "a network of the destination's family"));
        }
        if let Some((first, last)) = self.ports.iter().find(|(first, last)| first > last) {
            return Err(invalid("ports", format!("{first}-{last}"), "the first not above the last"));
        }
        if self.ports.len() > MAX_MARK_PORTS {
            let found = format!("{} ranges", self.ports.len());
            return Err(invalid("ports", found, &format!("at most {MAX_MARK_PORTS} ranges")));
        }
        let (destination, source) = (self.destination.trunc(), self.source.map(|source| source.trunc()));
        Ok(Self { destination, source, ..self.clone() })
    }
}

/// `mark 1: tcp to 10.0.0.100/32 port 80,8000-8999 from 192.0.2.0/24 on eth0`.
impl fmt::Display for MarkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.map_or("any protocol", Protocol::name);
        write!(f, "mark {}: {protocol} to {}", self.mark, self.destination)?;
        for (at, (first, last)) in self.ports.iter().enumerate() {
            write!(f, "{}{first}", if at == 0 { " port " } else { "," })?;
            if first != last {
                write!(f, "-{last}")?;
            }
        }
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        self.interface.as_ref().map_or(Ok(()), |interface| write!(f, " on {interface}"))
    }
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Marks {
    rules: Vec<(Owner, MarkSpec)>,
    /// Rules that were taken away while their service had connections: these are still the director's to forward.
    pub(super) departed: Vec<MarkSpec>,
    /// Made of the rules at the first table after a change.
    compiled: Option<Arc<MarkTable>>,
}

impl Marks {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Owner, &MarkSpec)> {
        self.rules.iter().map(|(owner, rule)| (*owner, rule))
    }

    /// The table of the rules. One whose interface is none of the director's matches nothing.
    pub(super) fn table(&mut self, slot: impl Fn(&str) -> Option<InterfaceSlot>) -> Arc<MarkTable> {
        let rules = &self.rules;
        let table = self.compiled.get_or_insert_with(|| {
            let compiled = rules.iter().filter_map(|(_, rule)| {
                let interface = rule.interface.as_deref().map(&slot);
                Some(MarkRule {
                    protocol: rule.protocol,
                    destination: rule.destination,
                    ports: rule.ports.clone(),
                    source: rule.source,
                    interface: interface.map_or(Some(None), |slot| slot.map(Some))?,
                    mark: rule.mark.get(),
                })
            });
            Arc::new(MarkTable::new(&compiled.collect::<Vec<_>>()))
        });
        Arc::clone(table)
    }

    /// Makes the file's rules exactly these; a tool's rule that the file now declares too becomes the file's.
    pub(super) fn replace_files(&mut self, declared: &[MarkSpec]) {
        let declared: Vec<(Owner, MarkSpec)> = declared
            .iter()
            .map(|rule| (Owner::File, rule.checked().unwrap_or_else(|_| rule.clone())))
            .collect();
        let is_declared = |rule: &MarkSpec| declared.iter().any(|(_, its)| its == rule);
        let (files, tools): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rules).into_iter().partition(|(owner, _)| *owner == Owner::File);
        let gone = files.iter().filter(|(_, rule)| !is_declared(rule)).map(|(_, rule)| rule.clone());
        self.departed.extend(gone);
        let tools: Vec<_> = tools.into_iter().filter(|(_, rule)| !is_declared(rule)).collect();
        self.rules = declared.into_iter().chain(tools).collect();
        self.rules.truncate(MAX_MARK_RULES);
        self.changed();
    }

    /// Gives the last rule to this owner.
    pub(super) fn own_last(&mut self, owner: Owner) {
        if let Some((its, _)) = self.rules.last_mut() {
            *its = owner;
        }
    }

    fn changed(&mut self) {
        self.compiled = None;
        let rules = &self.rules;
        self.departed.retain(|rule| !rules.iter().any(|(_, its)| its == rule));
        let excess = self.departed.len().saturating_sub(MAX_MARK_RULES);
        self.departed.drain(..excess);
    }
}

impl Registry {
    /// All mark rules, in the order in which they are applied.
    pub fn marks(&self) -> impl Iterator<Item = (Owner, &MarkSpec)> {
        self.marks.iter()
    }

    /// Adds a rule, the last to be applied.
    ///
    /// # Errors
    /// When it is wrong, there already, or one too many.
    pub fn add_mark(&mut self, rule: &MarkSpec) -> Result<(), RegistryError> {
        let rule = rule.checked()?;
        if self.marks.iter().any(|(_, its)| *its == rule) {
            return Err(RegistryError::MarkExists(rule.to_string()));
        }
        if self.marks.rules.len() >= MAX_MARK_RULES {
            return Err(RegistryError::Full { what: "mark rules", limit: MAX_MARK_RULES });
        }
        self.marks.rules.push((Owner::Tool, rule));
        self.marks.changed();
        Ok(())
    }

    /// Takes a rule away; connections that it led to go on.
    ///
    /// # Errors
    /// When there is no such rule.
    pub fn delete_mark(&mut self, rule: &MarkSpec) -> Result<(), RegistryError> {
        let rule = rule.checked()?;
        let at = self.marks.rules.iter().position(|(_, its)| *its == rule);
        let at = at.ok_or_else(|| RegistryError::NoSuchMark(rule.to_string()))?;
        self.marks.rules.remove(at);
        self.marks.departed.push(rule);
        self.marks.changed();
        Ok(())
    }
}
