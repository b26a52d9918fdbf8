//! DNS over UDP: any answer without an error is right.

use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType as Kind};

use super::{Target, plain, udp};
use crate::health::spec::{DnsProbe, RecordType};
use crate::health::state::Outcome;

/// The most bytes of an answer over UDP.
const MOST: usize = 65_535;

/// Asks for a record.
pub(super) async fn query(probe: &DnsProbe, target: Target) -> Outcome {
    let name =
        Name::from_str(&probe.name).map_err(|error| format!("{} is no domain name: {error}", probe.name))?;
    let id = rand::random();
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind(probe.record)));
    let question = message.to_vec().map_err(|error| format!("the question can't be made: {error}"))?;

    let socket = udp::connect(target).await?;
    socket.send(&question).await.map_err(|error| plain(&error))?;
    let mut answer = vec![0; MOST];
    loop {
        let length = socket.recv(&mut answer).await.map_err(|error| udp::unreachable(&error))?;
        let Ok(answer) = Message::from_vec(&answer[..length]) else {
            return Err("the answer is no DNS".to_owned());
        };
        // An answer to an earlier question of whoever had the port before.
        if answer.metadata.id != id || answer.metadata.message_type != MessageType::Response {
            continue;
        }
        return match answer.metadata.response_code {
            ResponseCode::NoError => Ok(()),
            code => Err(format!("answered \"{code}\" to {} {}", probe.name, kind(probe.record))),
        };
    }
}

const fn kind(record: RecordType) -> Kind {
    match record {
        RecordType::A => Kind::A,
        RecordType::Aaaa => Kind::AAAA,
        RecordType::Cname => Kind::CNAME,
        RecordType::Dnskey => Kind::DNSKEY,
        RecordType::Mx => Kind::MX,
        RecordType::Ns => Kind::NS,
        RecordType::Ptr => Kind::PTR,
        RecordType::Rrsig => Kind::RRSIG,
        RecordType::Soa => Kind::SOA,
        RecordType::Srv => Kind::SRV,
        RecordType::Txt => Kind::TXT,
    }
}
