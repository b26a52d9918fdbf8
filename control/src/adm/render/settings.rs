//! `-L --timeout` and `-L --daemon`.

use std::fmt::Write as _;

use crate::adm::model::{DaemonRow, Timeouts};

/// The timeouts.
#[must_use]
pub fn timeouts(timeouts: Timeouts) -> String {
    let Timeouts { tcp_s, tcp_fin_s, udp_s } = timeouts;
    format!("Timeout (tcp tcpfin udp): {tcp_s} {tcp_fin_s} {udp_s}\n")
}

/// The connection sync daemons, the master first.
#[must_use]
pub fn daemons(rows: &[DaemonRow]) -> String {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.role);
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(
            text,
            "{} sync daemon (mcast={}, syncid={}, maxlen={}, group={}, port={}, ttl={})",
            row.role.name(),
            row.interface,
            row.sync_id,
            row.max_length,
            row.group,
            row.port,
            row.ttl
        );
    }
    text
}
