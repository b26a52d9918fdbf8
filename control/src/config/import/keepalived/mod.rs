//! keepalived's `keepalived.conf`: its virtual servers with their real servers and checkers. VRRP and all else stays
//! keepalived's, and is listed.
//!
//! `texts ─ include (files) ─ parameters (what lines are made of) ─ words (statements, blocks) ─ server, checker, group (keywords, each checked alone) ─ services ─ Draft`
//!
//! Defaults are those of keepalived 2.2, and older names of keywords are known. An unknown keyword is a mistake, as is one that is
//! there twice, though keepalived goes on with both.

mod block;
mod checker;
mod foreign;
mod group;
mod http;
mod include;
mod parameters;
mod server;
mod services;
#[cfg(test)]
mod tests;
mod words;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;

use super::draft::{Draft, Table, Value};
use crate::config::address;
use crate::config::error::{ConfigErrors, Finding, Findings, Places, Position};
use crate::config::source::plain;
use block::{Block, Notes, number};
use group::{Group, Name};
pub(super) use include::{Files, from_disk};
use words::Node;

/// The most tables that a file comes to: `virtual_server_group` makes many of few lines.
const MOST_TABLES: usize = 100_000;

/// What a file says, and the files that it includes; its warnings are in the findings.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) draft: Draft,
    pub(super) findings: Findings,
}

/// Reads the text of the file at `path`, called `name` in messages. `files` has what it includes; `id` is what conditions are compared
/// with.
///
/// # Errors
/// When it is wrong; all that is wrong is reported.
pub(super) fn read(
    name: &str,
    path: &Path,
    text: &str,
    id: &str,
    files: Files<'_>,
) -> Result<Read, ConfigErrors> {
    let mut reader = include::Reader::new(files, id);
    reader.read(0, path, text, 0);
    let mut notes = Notes { findings: reader.findings, lost: Vec::new() };
    let nodes = words::tree(reader.tokens, &mut notes.findings);
    let mut draft = Draft { comments: Vec::new(), director: Table::plain("[director]"), tables: Vec::new() };
    let served = virtual_servers(&nodes, &mut draft, &mut notes);
    let note = "a VIP is served while it is an address of this host: keepalived puts it there, or you do";
    match foreign::interfaces(&nodes, &served).as_slice() {
        [] => {}
        [(name, at)] => draft.director.key("interface", Value::shown(name), Some(*at)),
        names @ [(_, at), ..] => {
            let names = names.iter().map(|(name, _)| Value::shown(name)).collect();
            draft.director.key("interfaces", Value::List(names), Some(*at));
        }
    }
    draft.director.noted("vip", "local", None, note);
    let Notes { findings, mut lost } = notes;
    let mut findings = findings.right(name)?;
    lost.sort_by_key(|(at, _)| *at);
    // What stands for several services is told once.
    lost.dedup();
    draft.comments = comments(name, &findings.places(name), &lost);
    lost.into_iter().for_each(|(at, what)| findings.warning(at, "", what));
    Ok(Read { draft, findings })
}

/// Reads all virtual servers; the addresses that they serve.
fn virtual_servers(nodes: &[Node], draft: &mut Draft, notes: &mut Notes) -> Vec<IpAddr> {
    let mut top = Block::new("", nodes);
    for keyword in foreign::TOP {
        top.all(&[keyword]).for_each(|node| foreign::look_through(node, notes));
    }
    let mut timeouts = Table::plain("[timeouts]");
    for node in top.all(&["global_defs"]) {
        for (key, seconds, at) in foreign::timeouts(node, notes) {
            timeouts.remove(&[key]);
            timeouts.key(key, seconds, Some(at));
        }
    }
    draft.tables.extend((!timeouts.is_empty()).then_some(timeouts));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for group in top.all(&["virtual_server_group"]) {
        let Some(group) = group::read(group, notes) else { continue };
        if let Some(first) = groups.iter().find(|first| first.name == group.name) {
            let message = format!(
                "found {} a second time, allowed: once (it is in line {})",
                plain(group.name),
                first.at.line
            );
            notes.findings.error(group.at, "virtual_server_group", message);
        }
        groups.push(group);
    }
    let (mut seen, mut served) = (services::Seen::new(), Vec::new());
    for node in top.all(&["virtual_server"]) {
        let its = server::read(node, notes);
        let names = names(node, &groups, notes);
        if let Some((_, at)) = names.iter().find(|(name, _)| services::lacks_persistence(&its, *name)) {
            let message =
                "found no port, allowed: none (all ports) with persistence_timeout, else one from 1 to 65535";
            notes.findings.error(*at, "virtual_server", message.to_owned());
            continue;
        }
        served.extend(names.iter().filter_map(|(name, _)| match name {
            Name::Address(address, _) => Some(*address),
            Name::Mark(..) => None,
        }));
        if draft.tables.len() + names.len() * services::tables(&its) > MOST_TABLES {
            let message = format!(
                "found {} services of {} servers, with which there are too many, allowed: what comes to {MOST_TABLES} tables",
                names.len(),
                its.servers.len()
            );
            notes.findings.error(node.at(), "virtual_server", message);
            continue;
        }
        services::write(draft, &its, &names, &mut seen, notes);
    }
    top.finish(notes);
    served
}

/// The services that a virtual server's first line names.
fn names(node: &Node, groups: &[Group<'_>], notes: &mut Notes) -> Vec<(Name, Position)> {
    const ALLOWED: &str = "ADDRESS [PORT], fwmark NUMBER or group NAME, and a block";
    let at = node.arguments().first().map_or_else(|| node.at(), |word| word.at);
    let words: Vec<&str> = node.arguments().iter().map(|word| word.text.as_str()).collect();
    let name = match words.as_slice() {
        ["group", name] => {
            if let Some(group) = groups.iter().find(|group| group.name == *name) {
                return group.services.clone();
            }
            let message = format!("found group {}, allowed: the name of a virtual_server_group", plain(name));
            notes.findings.error(at, "virtual_server", message);
            return Vec::new();
        }
        ["fwmark", mark] => {
            number(mark, 1..=u32::MAX).and_then(NonZeroU32::new).map(|mark| Name::Mark(mark, None))
        }
        [address] => address::parse(address).ok().map(|address| Name::Address(address, 0)),
        [address, port] => address::parse(address)
            .ok()
            .and_then(|address| number(port, 0..=u16::MAX).map(|port| Name::Address(address, port))),
        _ => None,
    };
    match name.filter(|_| node.block.is_some()) {
        Some(name) => vec![(name, at)],
        None => {
            Block::new("", &[]).refuse(notes, node, "", ALLOWED);
            Vec::new()
        }
    }
}

/// What stands at the head of the converted file.
fn comments(name: &str, places: &Places, lost: &[(Position, String)]) -> Vec<String> {
    let mut comments = vec![format!("Made by xlvs convert from {name}.")];
    if !lost.is_empty() {
        comments.push(
            "Not in here, with the places where it stands; what is keepalived's own stays in its file, and"
                .to_owned(),
        );
        comments.push("keepalived runs unmodified beside the director (xlvs wrap -- keepalived -n -l). Take the virtual".to_owned());
        comments.push(
            "servers that are in here out of keepalived's file, or both programs will look after them:"
                .to_owned(),
        );
        comments.extend(lost.iter().map(|(at, what)| format!("  {}: {what}", places.shown(*at))));
    }
    comments
}

/// What is said of a key of xlvs's, in the words of this format.
pub(super) fn worded(finding: Finding) -> Finding {
    if finding.key == "director" {
        let message = "found no vrrp_instance that puts a VIP on an interface, allowed: one, or --interface";
        let position = finding.position.or(Some(Position::START));
        return Finding { position, key: String::new(), message: message.to_owned() };
    }
    let key = finding.key.replace("service.destination", "real_server").replace("service", "virtual_server");
    let message = finding.message.replace("[[mark]]", "rule").replace("[[service]]", "virtual_server");
    Finding { key, message, ..finding }
}
