//! `-L -c`: connections and connection templates, in the order of the table.

use std::fmt::Write as _;

use xlvs_dataplane::flow::Protocol;

use super::endpoint;
use crate::adm::model::ConnectionRow;
use crate::adm::names::Names;

/// The list, with the persistence engine's data or without.
#[must_use]
pub fn table(rows: &[ConnectionRow], engine: bool, names: Option<&dyn Names>) -> String {
    let mut text = String::from(
        "IPVS connection entries\n\
         pro expire state       source             virtual            destination",
    );
    text.push_str(if engine { "        pe name          pe_data\n" } else { "\n" });
    for row in rows {
        let expires = format!("{:02}:{:02}", row.expires_s / 60, row.expires_s % 60);
        let [client, virtual_address, destination] = [row.client, row.virtual_address, row.destination]
            .map(|address| endpoint(address, row.protocol, names));
        let _ = write!(
            text,
            "{:<3} {expires:<6} {:<11} {client:<18} {virtual_address:<18} ",
            protocol(row.protocol),
            row.state
        );
        let _ = match &row.engine {
            Some((name, data)) if engine => writeln!(text, "{destination:<16} {name:<18} {data}"),
            _ => writeln!(text, "{destination}"),
        };
    }
    text
}

/// The name of a connection's protocol, here and in `/proc`.
pub(super) fn protocol(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
        None => "IP",
    }
}
