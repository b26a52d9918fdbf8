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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::adm::model::Origin;

    fn row(
        protocol: Option<Protocol>,
        ends: [&str; 3],
        state: &'static str,
        expires_s: u32,
    ) -> ConnectionRow {
        let [client, virtual_address, destination] = ends.map(|end| end.parse().unwrap());
        let origin = Origin::Local;
        ConnectionRow {
            protocol,
            client,
            virtual_address,
            destination,
            state,
            expires_s,
            origin,
            engine: None,
        }
    }

    #[test]
    fn wide_rows_and_engines_stand_as_ipvsadm_puts_them() {
        let [client, virtual_address, destination] = ["192.0.2.1:30000", "10.0.0.100:53", "10.0.0.12:53"];
        let call = row(Some(Protocol::Udp), [client, virtual_address, destination], "UDP", 300);
        let rows = [
            ConnectionRow { engine: Some(("sip".to_owned(), "abcdef".to_owned())), ..call.clone() },
            ConnectionRow { expires_s: 86_400, ..call },
            row(None, ["0.0.0.0:0", "0.0.0.7:0", "10.0.0.12:0"], "NONE", 888),
            row(
                Some(Protocol::Sctp),
                ["192.0.2.1:30000", "10.0.0.100:443", "10.0.0.12:443"],
                "ESTABLISHED",
                888,
            ),
        ];
        assert_eq!(
            table(&rows, true, None),
            "IPVS connection entries\n\
             pro expire state       source             virtual            destination        pe name          pe_data\n\
             UDP 05:00  UDP         192.0.2.1:30000    10.0.0.100:53      10.0.0.12:53     sip                abcdef\n\
             UDP 1440:00 UDP         192.0.2.1:30000    10.0.0.100:53      10.0.0.12:53\n\
             IP  14:48  NONE        0.0.0.0:0          0.0.0.7:0          10.0.0.12:0\n\
             SCTP 14:48  ESTABLISHED 192.0.2.1:30000    10.0.0.100:443     10.0.0.12:443\n"
        );
    }
}
