//! What a real kernel sent, and what another made of it: `tests/golden/sync.jsonl`, byte by byte.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use xlvs_dataplane::flow::Protocol;

use super::*;

const CASES: &str = include_str!("../../../../../tests/golden/sync.jsonl");

#[derive(Deserialize)]
struct Case {
    kind: Kind,
    id: String,
    /// A master's.
    #[serde(default)]
    steps: Vec<Step>,
    /// A backup's.
    #[serde(default)]
    payloads: Vec<String>,
    #[serde(default)]
    lcn: Vec<Row>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Master,
    Backup,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    sync: Vec<String>,
}

/// A connection in a list.
#[derive(Deserialize)]
struct Row {
    pro: String,
    src: IpAddr,
    sport: u16,
    vip: IpAddr,
    vport: u16,
    rs: IpAddr,
    rport: u16,
    state: String,
    expires: u32,
}

impl Case {
    fn messages(&self) -> Vec<Vec<u8>> {
        let told = self.steps.iter().flat_map(|step| &step.sync);
        told.chain(&self.payloads).map(|hex| bytes(hex)).collect()
    }
}

fn cases() -> Vec<Case> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { panic!("{hex}") };
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_message_is_read_and_made_again_to_the_byte() {
    let mut read = 0;
    for case in cases() {
        for message in case.messages() {
            let entries = decode(&message, message[1]).unwrap();
            let entries: Vec<Entry> = entries.collect::<Result<_, _>>().unwrap();
            let mut packer = Packer::new(message[1], ETHERNET);
            for entry in &entries {
                assert_eq!(packer.push(entry), None, "{}", case.id);
            }
            assert_eq!(packer.flush(), Some(&message[..]), "{}", case.id);
            read += 1;
        }
    }
    assert!(read > 20, "{read} messages");
}

/// What a list shows of an entry.
type Shown = ([SocketAddr; 2], (SocketAddr, String));

#[test]
fn the_entries_are_those_that_a_kernel_came_to_have() {
    let mut backups = 0;
    for case in cases().into_iter().filter(|case| case.kind == Kind::Backup) {
        let mut entries = BTreeMap::new();
        for message in case.messages() {
            for entry in decode(&message, 0).unwrap().map(Result::unwrap) {
                let shown = (entry.real, entry.state.name().to_owned());
                let key = (entry.protocol, [entry.client, entry.virtual_address]);
                entries.insert(key, (shown, entry.timeout_s));
            }
        }
        for row in &case.lcn {
            let protocol = match &row.pro[..] {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                other => panic!("{}: {other}", case.id),
            };
            let (addresses, shown): Shown = (
                [(row.src, row.sport).into(), (row.vip, row.vport).into()],
                ((row.rs, row.rport).into(), row.state.clone()),
            );
            let Some((its, timeout_s)) = entries.remove(&(protocol.number(), addresses)) else {
                panic!("{}: {addresses:?} was never told", case.id)
            };
            assert_eq!(its, shown, "{}: {addresses:?}", case.id);
            assert!(row.expires.abs_diff(timeout_s) <= 1, "{}: {timeout_s}, {}", case.id, row.expires);
        }
        assert!(entries.is_empty(), "{}: {entries:?}", case.id);
        backups += 1;
    }
    assert!(backups > 9, "{backups} cases");
}
