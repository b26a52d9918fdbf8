//! Checks of options against each other.

use super::option::{Item, Items, Verb};
use super::{Refusal, usage};
use crate::adm::model::SchedulerFlags;

/// What of a list excludes what: the first can't stand with any of the second.
const LIST_CONFLICTS: [(Item, &[Item]); 3] = [
    (Item::Service, &[Item::Connection]),
    (Item::Timeout, &[Item::Connection, Item::Service]),
    (Item::Daemon, &[Item::Connection, Item::Service, Item::Timeout]),
];

/// Whether the command has what it needs and nothing that it doesn't take; the first fault in the order of items.
pub(super) fn items(verb: Verb, given: Items) -> Result<(), Refusal> {
    let name = verb.name();
    for (item, option) in Item::ALL {
        if !given.has(item) {
            if verb.needs().contains(&item) {
                return Err(usage(format!(
                    "You need to supply the '{option}' option for the '{name}' command"
                )));
            }
            continue;
        }
        if !verb.needs().contains(&item) && !verb.takes().contains(&item) {
            return Err(usage(format!("Illegal '{option}' option with the '{name}' command")));
        }
        if verb == Verb::List
            && let Some((_, others)) = LIST_CONFLICTS.iter().find(|(one, _)| *one == item)
            && let Some(other) = others.iter().find(|&&other| given.has(other))
        {
            let other = other.name();
            return Err(usage(format!(
                "The option '{option}' conflicts with the '{other}' option in the 'list' command"
            )));
        }
    }
    Ok(())
}

/// Whether the kind of tunnel has what it needs and nothing that it doesn't take.
pub(super) fn tunnel(kind: &str, given: Items) -> Result<(), Refusal> {
    let refused: &[Item] = match kind {
        "gue" => &[],
        "gre" => &[Item::TunnelPort, Item::TunnelRemoteChecksum],
        _ => &[Item::TunnelPort, Item::TunnelNoChecksum, Item::TunnelChecksum, Item::TunnelRemoteChecksum],
    };
    let conflicts: [(Item, &[Item]); 4] = [
        (Item::TunnelPort, &[]),
        (Item::TunnelNoChecksum, &[]),
        (Item::TunnelChecksum, &[Item::TunnelNoChecksum]),
        (Item::TunnelRemoteChecksum, &[Item::TunnelNoChecksum, Item::TunnelChecksum]),
    ];
    for (item, others) in conflicts {
        let option = item.name();
        if !given.has(item) {
            if item == Item::TunnelPort && kind == "gue" {
                return Err(usage(format!(
                    "You need to supply the '{option}' option for the '{kind}' tunnel type"
                )));
            }
            continue;
        }
        if refused.contains(&item) {
            return Err(usage(format!("Illegal '{option}' option with the '{kind}' tunnel type")));
        }
        if let Some(other) = others.iter().find(|&&other| given.has(other)) {
            let other = other.name();
            return Err(usage(format!(
                "The option '{option}' conflicts with the '{other}' option in the '{kind}' tunnel type"
            )));
        }
    }
    Ok(())
}

/// The flags of `-b`, by the names that all schedulers share or by the scheduler's own.
pub(super) fn scheduler_flags(
    list: Option<&str>,
    scheduler: Option<&str>,
) -> Result<SchedulerFlags, Refusal> {
    let mut flags = SchedulerFlags::default();
    for name in list.unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        let (owner, flag) = match name {
            "flag-1" => (None, &mut flags.first),
            "flag-2" => (None, &mut flags.second),
            "flag-3" => (None, &mut flags.third),
            "sh-fallback" => (Some("sh"), &mut flags.first),
            "sh-port" => (Some("sh"), &mut flags.second),
            "mh-fallback" => (Some("mh"), &mut flags.first),
            "mh-port" => (Some("mh"), &mut flags.second),
            _ => return Err(usage(format!("invalid scheduler flag `{name}'"))),
        };
        if owner.is_some() && owner != scheduler {
            return Err(usage(format!("incompatible scheduler flag `{name}'")));
        }
        *flag = true;
    }
    Ok(flags)
}
