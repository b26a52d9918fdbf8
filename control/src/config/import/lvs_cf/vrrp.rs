//! The pair of directors as a VRRP configuration of keepalived: what pulse did by its heartbeats, VRRP does by its advertisements.
//!
//! Each interface with VIPs becomes an instance; several move together, in a group. The VIPs keep their labels. The primary
//! director has the higher priority, so it takes the VIPs back when it is there again, as with pulse. A backup waits
//! for three advertisements and less than a second more: `advert_int` is the least for which that is more than `deadtime`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::model::{LvsCf, VirtualAddress};
use crate::config::error::{ConfigErrors, Findings, Position};
use crate::config::file::At;

/// One of both directors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// The one that serves while both can.
    Primary,
    /// The one that takes over.
    Backup,
}

impl Role {
    const fn state(self) -> (&'static str, u8) {
        match self {
            Self::Primary => ("MASTER", 150),
            Self::Backup => ("BACKUP", 100),
        }
    }
}

/// pulse's default of `deadtime`, in seconds.
const DEADTIME_S: u32 = 5;
/// The most addresses that an advertisement names; further ones move with the others all the same.
const MOST_ADVERTISED: usize = 20;

/// An instance: the VIPs of an interface.
struct Instance<'f> {
    device: &'f str,
    vips: Vec<Vip<'f>>,
}

struct Vip<'f> {
    address: &'f VirtualAddress,
    netmask: u8,
    at: Position,
}

/// keepalived's configuration for one of both directors.
///
/// # Errors
/// When the file describes no pair, or one that VRRP can't be.
pub(super) fn convert(
    name: &str,
    file: &LvsCf,
    role: Role,
    mut findings: Findings,
) -> Result<(String, Findings), ConfigErrors> {
    let pair = &file.pair;
    if !pair.backup_active.or(false) {
        let at = pair.backup_active.at().unwrap_or(Position::START);
        let message = "found no active backup, allowed: backup_active = 1, and backup with the other director's address";
        findings.error(at, "backup_active", message.to_owned());
    }
    if let Some(at) = pair.heartbeat.get().filter(|heartbeat| !heartbeat.value) {
        let message = "found 0, which VRRP can't do: advertisements are sent all the same";
        findings.warning(at.at, "heartbeat", message.to_owned());
    }
    for (key, private) in ["primary_private", "backup_private"].into_iter().zip(&pair.private) {
        if let Some(at) = private.at() {
            let message = "found, which has no counterpart: advertisements go by the interface of the VIPs";
            findings.warning(at, key, message.to_owned());
        }
    }
    let advert_int = pair.deadtime.or(DEADTIME_S).div_ceil(3);
    if let Some(deadtime) = pair.deadtime.get().filter(|_| advert_int > 255) {
        findings.error(
            deadtime.at,
            "deadtime",
            format!("found {}, allowed: at most 765 s with VRRP", deadtime.value),
        );
    }
    let instances = instances(file, &mut findings);
    if instances.is_empty() {
        let message =
            "found no active virtual server, allowed: at least one, whose VIP is to move".to_owned();
        findings.error(Position::START, "virtual", message);
    }
    let findings = findings.right(name)?;
    Ok((write(name, file, role, advert_int, &instances), findings))
}

fn instances<'f>(file: &'f LvsCf, findings: &mut Findings) -> Vec<Instance<'f>> {
    let mut instances: Vec<Instance<'f>> = Vec::new();
    for its in file.active() {
        let Some(At { value: address, at }) = its.address.get() else { continue };
        let vip = Vip { address, netmask: its.netmask.or(32), at: *at };
        let present = instances.iter().flat_map(|instance| &instance.vips);
        if let Some(first) = present.into_iter().find(|first| first.address.vip == address.vip) {
            if first.address.device != address.device || first.netmask != vip.netmask {
                let message = format!(
                    "found {} with another device or vip_nmask than in line {}, allowed: the same for one VIP",
                    address.vip, first.at.line
                );
                findings.error(*at, "virtual.address", message);
            }
            continue;
        }
        let device = address.device.as_str();
        match instances.iter_mut().find(|instance| instance.device == device) {
            Some(instance) => instance.vips.push(vip),
            None => instances.push(Instance { device, vips: vec![vip] }),
        }
    }
    instances
}

/// The numbers of the routers, by which instances on one network are told apart: the last byte of an instance's lowest VIP, or the
/// next one that no other instance has. So both directors find the same ones.
fn router_ids(instances: &[Instance<'_>]) -> Vec<u8> {
    let mut ids: Vec<u8> = Vec::with_capacity(instances.len());
    for instance in instances {
        let lowest = instance.vips.iter().map(|vip| vip.address.vip).min().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let wanted = lowest.octets()[3].max(1);
        let free = (wanted..=u8::MAX).chain(1..wanted).find(|id| !ids.contains(id));
        ids.push(free.unwrap_or(wanted));
    }
    ids
}

fn write(name: &str, file: &LvsCf, role: Role, advert_int: u32, instances: &[Instance<'_>]) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = render(&mut text, name, file, role, advert_int, instances);
    text
}

fn render(
    text: &mut String,
    name: &str,
    file: &LvsCf,
    role: Role,
    advert_int: u32,
    instances: &[Instance<'_>],
) -> std::fmt::Result {
    let (state, priority) = role.state();
    let pair = &file.pair;
    let which = if role == Role::Primary { "primary" } else { "backup" };
    let other = if role == Role::Primary { "backup" } else { "primary" };
    let name: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    writeln!(
        text,
        "# Made by xlvs convert from {name}, for the {which} director; the {other}'s is made with --role {other}."
    )?;
    for (key, address) in [("primary", &pair.primary), ("backup", &pair.backup)] {
        if let Some(address) = address.get() {
            writeln!(text, "# {key} = {} (line {})", address.value, address.at.line)?;
        }
    }
    let (deadtime, waits) = (pair.deadtime.or(DEADTIME_S), 3 * advert_int);
    writeln!(
        text,
        "# deadtime = {deadtime}: a backup takes over {waits} to {} s after the last of the advertisements, one each {advert_int} s.\n",
        waits + 1
    )?;
    let scripts = scripts(file);
    // Without these keepalived warns of running them at all.
    let security = if scripts.is_empty() { "" } else { "    script_user root\n    enable_script_security\n" };
    writeln!(text, "global_defs {{\n    router_id xlvs_{which}\n{security}}}\n")?;
    let names: Vec<String> = (1..=instances.len()).map(|number| format!("VIPS_{number}")).collect();
    if instances.len() > 1 {
        writeln!(text, "# The VIPs of all interfaces move together.\nvrrp_sync_group VIPS {{\n    group {{")?;
        for name in &names {
            writeln!(text, "        {name}")?;
        }
        writeln!(text, "    }}\n{scripts}}}\n")?;
    }
    for ((instance, name), id) in instances.iter().zip(&names).zip(router_ids(instances)) {
        writeln!(text, "vrrp_instance {name} {{")?;
        writeln!(text, "    state {state}\n    interface {}", instance.device)?;
        writeln!(text, "    # Both directors' alike, and of no other VRRP router on this network.")?;
        writeln!(text, "    virtual_router_id {id}\n    priority {priority}\n    advert_int {advert_int}")?;
        let (named, others) = instance.vips.split_at(instance.vips.len().min(MOST_ADVERTISED));
        for (block, vips) in [("virtual_ipaddress", named), ("virtual_ipaddress_excluded", others)] {
            if vips.is_empty() {
                continue;
            }
            writeln!(text, "    {block} {{")?;
            for Vip { address, netmask, at } in vips {
                let label = address.label.as_ref().map(|label| format!(" label {label}")).unwrap_or_default();
                writeln!(text, "        # line {}", at.line)?;
                writeln!(text, "        {}/{netmask} dev {}{label}", address.vip, address.device)?;
            }
            writeln!(text, "    }}")?;
        }
        if instances.len() == 1 {
            text.push_str(&scripts);
        }
        writeln!(text, "}}\n")?;
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(())
}

/// `active_cmd` and `inactive_cmd`.
fn scripts(file: &LvsCf) -> String {
    let [active, inactive] = &file.pair.commands;
    let mut text = String::new();
    for (keywords, command) in
        [(["notify_master"].as_slice(), active), (&["notify_backup", "notify_fault"], inactive)]
    {
        if let Some(command) = command.get() {
            // Within double quotes only these two have a meaning to keepalived.
            let quoted = command.value.replace('\\', "\\\\").replace('"', "\\\"");
            for keyword in keywords {
                let _ = writeln!(text, "    {keyword} \"{quoted}\"");
            }
        }
    }
    text
}
