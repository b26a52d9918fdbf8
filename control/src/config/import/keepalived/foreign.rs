//! What stays keepalived's own: it is looked through for misspelt keywords and for the interfaces of VIPs, and listed.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::block::{Block, Notes, nearest, number};
use super::words::Node;
use crate::config::error::Position;
use crate::config::file::Raw;
use crate::config::names::InterfaceName;
use crate::config::source::plain;

/// The blocks and words at the top of a file that stay keepalived's.
pub(super) const TOP: [&str; 28] = [
    "global_defs",
    "static_ipaddress",
    "static_routes",
    "static_rules",
    "track_group",
    "track_file",
    "vrrp_track_file",
    "vrrp_track_process",
    "track_process",
    "bfd_instance",
    "vrrp_script",
    "vrrp_sync_group",
    "garp_group",
    "vrrp_instance",
    "interface_up_down_delays",
    "linkbeat_interfaces",
    "linkbeat_use_polling",
    "net_namespace",
    "net_namespace_ipvs",
    "namespace_with_ipsets",
    "instance",
    "use_pid_dir",
    "child_wait_time",
    "process_names",
    "include_check",
    "SSL",
    "random_seed",
    "reload_file",
];

/// The keywords of blocks that stay keepalived's.
const KEYWORDS: [(&str, &str); 8] = [
    (
        "global_defs",
        "bfd_cpu_affinity bfd_no_swap bfd_priority bfd_process_name bfd_rlimit_rttime bfd_rt_priority checker_cpu_affinity \
         checker_log_all_failures checker_no_swap checker_priority checker_process_name checker_rlimit_rttime \
         checker_rt_priority config_save_dir data_use_instance dbus_service_name default_interface disable_local_igmp \
         dynamic_interfaces enable_dbus enable_script_security enable_snmp_checker enable_snmp_keepalived enable_snmp_rfc \
         enable_snmp_rfcv2 enable_snmp_rfcv3 enable_snmp_vrrp enable_traps fifo_write_vrrp_states_on_reload include_check \
         linkbeat_use_polling log_unknown_vrids lvs_flush lvs_flush_on_stop lvs_id lvs_netlink_cmd_rcv_bufs \
         lvs_netlink_cmd_rcv_bufs_force lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force lvs_notify_fifo \
         lvs_notify_fifo_script lvs_sync_daemon max_auto_priority min_auto_priority_delay nftables nftables_counters \
         nftables_ifindex nftables_ipvs nftables_ipvs_priority nftables_ipvs_start_fwmark nftables_priority \
         no_checker_emails no_email_faults notification_email notification_email_from notify_fifo notify_fifo_script \
         process_monitor_rcv_bufs process_monitor_rcv_bufs_force process_name process_names random_seed \
         reload_check_config reload_file reload_repeat reload_time_file router_id rs_init_notifies script_user \
         shutdown_script shutdown_script_timeout smtp_alert smtp_alert_checker smtp_alert_vrrp smtp_connect_timeout \
         smtp_helo_name smtp_server snmp_socket startup_script startup_script_timeout tmp_config_directory umask \
         use_pid_dir vmac_addr_prefix vmac_prefix vrrp_check_unicast_src vrrp_cpu_affinity vrrp_down_timer_adverts \
         vrrp_garp_extra_if vrrp_garp_interval vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat \
         vrrp_garp_master_delay vrrp_garp_master_refresh vrrp_garp_master_refresh_repeat vrrp_garp_master_repeat \
         vrrp_gna_interval vrrp_higher_prio_send_advert vrrp_ipsets vrrp_iptables vrrp_lower_prio_no_advert \
         vrrp_mcast_group4 vrrp_mcast_group6 vrrp_min_garp vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force \
         vrrp_netlink_monitor_rcv_bufs vrrp_netlink_monitor_rcv_bufs_force vrrp_no_swap vrrp_notify_fifo \
         vrrp_notify_fifo_script vrrp_notify_priority_changes vrrp_owner_ignore_adverts vrrp_priority \
         vrrp_process_name vrrp_rlimit_rttime vrrp_rt_priority vrrp_rx_bufs_multiplier vrrp_rx_bufs_policy \
         vrrp_skip_check_adv_addr vrrp_startup_delay vrrp_strict vrrp_version",
    ),
    (
        "vrrp_sync_group",
        "global_tracking group notify notify_backup notify_deleted notify_fault notify_master notify_priority_changes \
         notify_stop smtp_alert sync_group_tracking_weight track_bfd track_file track_interface track_process track_script",
    ),
    (
        "vrrp_instance",
        "accept advert_int authentication check_unicast_src debug dont_track_primary down_timer_adverts garp_extra_if \
         garp_lower_prio_delay garp_lower_prio_repeat garp_master_delay garp_master_refresh garp_master_refresh_repeat \
         garp_master_repeat higher_prio_send_advert interface kernel_rx_buf_size linkbeat_use_polling \
         lower_prio_no_advert lvs_sync_daemon_interface mcast_dst_ip mcast_src_ip native_ipv6 no_accept \
         no_virtual_ipaddress nopreempt notify notify_backup notify_deleted notify_fault notify_master \
         notify_master_rx_lower_pri notify_priority_changes notify_stop old_unicast_checksum owner_ignore_adverts preempt \
         preempt_delay priority promote_secondaries skip_check_adv_addr smtp_alert state strict_mode track_bfd \
         track_file track_interface track_process track_script track_src_ip unicast_fault_no_peer unicast_peer \
         unicast_src_ip unicast_ttl use_ipvlan use_vmac use_vmac_addr version virtual_ipaddress \
         virtual_ipaddress_excluded virtual_router_id virtual_routes virtual_rules vmac_xmit_base vrf",
    ),
    ("vrrp_script", "fall init_fail interval rise script timeout user weight"),
    ("authentication", "auth_type auth_pass"),
    ("track_file", "file init_file weight"),
    (
        "bfd_instance",
        "checker hoplimit idle_tx max_hops min_rx min_tx multiplier neighbor_ip passive source_ip ttl vrrp weight",
    ),
    ("garp_group", "garp_interval gna_interval interface interfaces"),
];

/// Looks through a block or word that stays keepalived's.
pub(super) fn look_through(node: &Node, notes: &mut Notes) {
    notes.lose(node.at(), format!("{} stays keepalived's", node.shown()));
    spelling(node, notes);
    if node.keyword() == "vrrp_instance" {
        instance(node, notes);
    }
}

/// Reports misspelt keywords; those that are only unknown may be a newer keepalived's.
fn spelling(node: &Node, notes: &mut Notes) {
    let Some((block, known)) = KEYWORDS.iter().find(|(block, _)| *block == node.keyword()) else { return };
    let known: Vec<&str> = known.split_whitespace().collect();
    let mut first_lines: HashMap<&str, Position> = HashMap::new();
    for its in node.nodes() {
        let keyword = its.keyword();
        let first = *first_lines.entry(keyword).or_insert(its.at());
        if first != its.at() && its.block.is_none() {
            again(its.at(), format!("{block}.{}", plain(keyword)), "", first, notes);
        }
        if keyword == "lvs_sync_daemon_inteface" {
            let message = "found a misspelling that no version of keepalived reads: no sync daemon is started by it \
                           (in global_defs: lvs_sync_daemon INTERFACE VRRP_INSTANCE)";
            notes.findings.warning(its.at(), format!("{block}.{keyword}"), message.to_owned());
        } else if !known.contains(&keyword) {
            let key = format!("{block}.{}", plain(keyword));
            match nearest(keyword, &known) {
                Some(meant) => {
                    let message =
                        format!("found an unknown keyword, allowed: keepalived's (did you mean {meant}?)");
                    notes.findings.error(its.at(), key, message);
                }
                None => {
                    let message = "found a keyword that keepalived 2.2 does not know".to_owned();
                    notes.findings.warning(its.at(), key, message);
                }
            }
        }
        if its.block.is_some() {
            spelling(its, notes);
        }
        if matches!(keyword, "group" | "virtual_ipaddress" | "virtual_ipaddress_excluded") {
            let mut first_lines: HashMap<&str, Position> = HashMap::new();
            for entry in its.nodes() {
                let first = *first_lines.entry(entry.keyword()).or_insert(entry.at());
                if first != entry.at() {
                    let what = format!("{} ", entry.shown());
                    again(entry.at(), format!("{block}.{keyword}"), &what, first, notes);
                }
            }
        }
    }
}

/// Reports what is there already.
fn again(at: Position, key: String, what: &str, first: Position, notes: &mut Notes) {
    let message = format!("found {what}a second time, allowed: once (it is in line {})", first.line);
    notes.findings.error(at, key, message);
}

/// What of an instance can be told to be wrong without its host.
fn instance(node: &Node, notes: &mut Notes) {
    let mut block = Block::new("vrrp_instance", node.nodes());
    block.number(notes, &["virtual_router_id"], 1..=u8::MAX);
    block.number(notes, &["priority"], 1..=u8::MAX);
    block.timer(notes, &["advert_int"]);
    block.word(notes, &["state"], "MASTER or BACKUP", |word| {
        ["MASTER", "BACKUP"].contains(&word).then_some(())
    });
    block.word(notes, &["interface"], InterfaceName::ALLOWED, |word| word.parse::<InterfaceName>().ok());
    for node in block.all(&["use_vmac", "use_ipvlan"]) {
        let message =
            "found: VIPs on another MAC address than the interface's are not served by the director"
                .to_owned();
        notes.findings.warning(node.at(), format!("vrrp_instance.{}", node.keyword()), message);
    }
    for (_, entry) in addresses(node) {
        if vip(entry).is_none() {
            let message = format!("found {}, allowed: ADDRESS[/LENGTH] and its options", entry.shown());
            notes.findings.error(entry.at(), "vrrp_instance.virtual_ipaddress", message);
        }
    }
}

/// The lines that name VIPs, each with its keyword.
fn addresses(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let blocks = node
        .nodes()
        .iter()
        .filter(|its| matches!(its.keyword(), "virtual_ipaddress" | "virtual_ipaddress_excluded"));
    blocks.flat_map(|its| its.nodes().iter().map(|entry| (its.keyword(), entry)))
}

/// The VIP of a line.
fn vip(entry: &Node) -> Option<IpAddr> {
    let text = entry.keyword();
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|network| network.addr()))
}

/// The interfaces that instances put VIPs on: those of VIPs that are served, or all if none is known to be.
pub(super) fn interfaces(nodes: &[Node], served: &[IpAddr]) -> Vec<(InterfaceName, Position)> {
    let mut all: Vec<(InterfaceName, Position, bool)> = Vec::new();
    for node in nodes.iter().filter(|node| node.keyword() == "vrrp_instance") {
        let mut unread = Notes::default();
        let mut block = Block::new("vrrp_instance", node.nodes());
        let own = block.word(&mut unread, &["interface"], "", |word| word.parse::<InterfaceName>().ok());
        for (_, entry) in addresses(node) {
            let words: Vec<&str> = entry.words.iter().map(|word| word.text.as_str()).collect();
            let device = words.windows(2).find_map(|pair| match pair {
                ["dev", name] => name.parse::<InterfaceName>().ok(),
                _ => None,
            });
            let is_served = vip(entry).is_some_and(|vip| served.contains(&vip));
            match (device, &own) {
                (Some(device), _) => all.push((device, entry.at(), is_served)),
                (None, Raw::Is(own)) => all.push((own.value.clone(), own.at, is_served)),
                (None, _) => {}
            }
        }
    }
    let any_served = all.iter().any(|(.., is_served)| *is_served);
    let mut names: Vec<(InterfaceName, Position)> = Vec::new();
    for (name, at, is_served) in all {
        if (is_served || !any_served) && !names.iter().any(|(its, _)| *its == name) {
            names.push((name, at));
        }
    }
    names
}

/// `lvs_timeouts` of `global_defs`, in seconds: those of TCP, of its end, and of UDP.
pub(super) fn timeouts(node: &Node, notes: &mut Notes) -> Vec<(&'static str, u32, Position)> {
    let mut timeouts = Vec::new();
    for its in node.nodes().iter().filter(|its| its.keyword() == "lvs_timeouts") {
        let mut words = its.arguments().chunks(2);
        let right = words.all(|pair| {
            let [name, value] = pair else { return false };
            let key = match name.text.as_str() {
                "tcp" => "tcp_s",
                "tcpfin" => "tcp_fin_s",
                "udp" => "udp_s",
                _ => return false,
            };
            let value =
                number(&value.text, 1..=2_678_400).map(|seconds| timeouts.push((key, seconds, name.at)));
            value.is_some()
        });
        if !right {
            Block::new("global_defs", &[]).refuse(
                notes,
                its,
                "",
                "tcp, tcpfin or udp, each with seconds from 1 to 2678400",
            );
        }
    }
    timeouts
}
