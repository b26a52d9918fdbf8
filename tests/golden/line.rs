//! The lines of the captures as they are written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// Weight, active and inactive connections by server.
pub type Counts = BTreeMap<u8, [u32; 3]>;

/// Reads a line of a known kind.
pub fn read<L: DeserializeOwned>(line: &serde_json::Value) -> Result<L, serde_json::Error> {
    L::deserialize(line)
}

/// A line of sched.jsonl, kind `seq`.
#[derive(Debug, Deserialize)]
pub struct Sequence {
    pub sched: String,
    pub proto: String,
    pub mode: String,
    pub vport: u16,
    #[serde(default)]
    pub extra: String,
    pub servers: Vec<(u8, u32)>,
    #[serde(default)]
    pub sopt: BTreeMap<String, String>,
    pub steps: Vec<SequenceStep>,
    #[serde(deserialize_with = "counts")]
    pub end: Counts,
}

/// A step of a sequence: what came of the next connection, or a change and the service after it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum SequenceStep {
    Pick(Pick),
    Changed {
        op: serde_json::Value,
        #[serde(deserialize_with = "counts")]
        counts: Counts,
    },
}

/// Where a connection went (0 is nowhere), or how it was answered.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Pick {
    Server(u8),
    Answer(String),
}

/// A line of sched.jsonl, kinds `hash` and `dest`.
#[derive(Debug, Deserialize)]
pub struct Phases {
    pub kind: String,
    pub sched: String,
    #[serde(default)]
    pub flags: String,
    #[serde(default)]
    pub v6: bool,
    pub mode: String,
    pub vip: Option<IpAddr>,
    pub vport: Option<u16>,
    pub servers: Vec<(u8, u32)>,
    #[serde(default)]
    pub keys: Vec<(IpAddr, u16)>,
    #[serde(default)]
    pub dests: Vec<IpAddr>,
    pub phases: Vec<Phase>,
}

/// A change and the picks after it, key by key.
#[derive(Debug, Deserialize)]
pub struct Phase {
    #[serde(default)]
    pub op: serde_json::Value,
    #[serde(default)]
    pub sport_add: u16,
    pub picks: Vec<Pick>,
}

/// JSON's keys are text, and serde's untagged enums don't read numbers from them.
fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
    let named = BTreeMap::<String, [u32; 3]>::deserialize(deserializer)?;
    let number = |(name, counts): (String, _)| Ok((name.parse().map_err(serde::de::Error::custom)?, counts));
    named.into_iter().map(number).collect()
}

/// A line of states.jsonl.
#[derive(Debug, Deserialize)]
pub struct States {
    pub id: String,
    #[serde(default)]
    pub sysctl: BTreeMap<String, u32>,
    pub steps: Vec<StateStep>,
}

/// A step of a [`States`] line: a packet, a command or a pause, and the connection after it.
#[derive(Debug, Deserialize)]
pub struct StateStep {
    pub pkt: Option<String>,
    pub cmd: Option<String>,
    pub output: Option<String>,
    pub sleep: Option<f64>,
    #[serde(default)]
    pub out: Vec<Output>,
    pub conn: Option<ConnectionLine>,
}

/// A packet that came out.
#[derive(Debug, Deserialize)]
pub struct Output {
    pub to: String,
    pub proto: u8,
    pub hex: String,
}

/// The connection's line in the kernel's table.
#[derive(Debug, Deserialize)]
pub struct ConnectionLine {
    pub state: String,
    pub expires: u64,
    pub rs: IpAddr,
}

/// A line of persist.jsonl.
#[derive(Debug, Deserialize)]
pub struct Story {
    pub id: String,
    pub steps: Vec<StoryStep>,
}

/// A step of a [`Story`].
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum StoryStep {
    Command { cmd: String, out: String },
    Sent { send: String, to: Option<String> },
    Slept { sleep: f64 },
    Table { lcn: Vec<Entry> },
    Told { text: String },
}

/// An entry of the connection table.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Entry {
    pub pro: String,
    pub src: IpAddr,
    pub sport: u16,
    pub vip: IpAddr,
    pub vport: u16,
    pub rs: IpAddr,
    pub rport: u16,
    pub state: String,
    /// Seconds.
    pub expires: u64,
}

/// The bytes of a hex string.
pub fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "not hex: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
