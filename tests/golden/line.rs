//! The lines of the captures as they are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::answer::Answer;

/// Weight, active and inactive connections by server.
pub type Counts = BTreeMap<u8, [u32; 3]>;

/// A line of sched.jsonl, kind `seq`.
#[derive(Debug, Deserialize)]
pub struct Sequence {
    pub id: String,
    pub sched: String,
    pub proto: String,
    pub mode: String,
    pub vport: u16,
    pub extra: String,
    pub servers: Vec<(u8, u32)>,
    pub sopt: BTreeMap<String, String>,
    pub steps: Vec<SequenceStep>,
    #[serde(deserialize_with = "counts")]
    pub end: Counts,
}

/// A step of a sequence.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum SequenceStep {
    /// Where the next connection went; 0 is nowhere.
    Picked(u8),
    /// How the next connection was answered.
    Answered(String),
    /// A change, and the service after it.
    Changed {
        op: Operation,
        #[serde(deserialize_with = "counts")]
        counts: Counts,
    },
}

/// A change of a sequence's service.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Operation {
    Weighted(String, u8, u32),
    Server(String, u8),
    Named(String, String),
    Bare((String,)),
}

/// JSON's keys are text, and serde's untagged enums don't read numbers from them.
fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
    let named = BTreeMap::<String, [u32; 3]>::deserialize(deserializer)?;
    let number = |(name, counts): (String, _)| Ok((name.parse().map_err(serde::de::Error::custom)?, counts));
    named.into_iter().map(number).collect()
}

impl SequenceStep {
    /// What the kernel did with a connection; `None` for a change.
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Self::Picked(0) => Some(Answer::Nothing),
            Self::Picked(server) => Some(Answer::Server(*server)),
            Self::Answered(answer) if answer == "icmp3.3" => Some(Answer::Icmp),
            Self::Answered(answer) if answer == "rst" => Some(Answer::Reset),
            Self::Answered(answer) => panic!("a sequence's step {answer:?}: expected icmp3.3 or rst"),
            Self::Changed { .. } => None,
        }
    }
}

/// A line of states.jsonl, kind `state`.
#[derive(Debug, Deserialize)]
pub struct States {
    pub id: String,
    pub sysctl: BTreeMap<String, u32>,
    pub steps: Vec<StateStep>,
}

/// A step of a [`States`] line: a packet, a command or a pause, and the connection after it.
#[derive(Debug, Deserialize)]
pub struct StateStep {
    pub pkt: Option<String>,
    pub cmd: Option<String>,
    pub sleep: Option<f64>,
    #[serde(default)]
    pub out: Vec<Output>,
    pub conn: Option<Connection>,
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
pub struct Connection {
    pub state: String,
    pub expires: u64,
    pub rs: std::net::IpAddr,
}

impl StateStep {
    /// What the kernel did with the packet.
    pub fn answer(&self) -> Answer {
        match self.out.as_slice() {
            [] => Answer::Nothing,
            [out] => match (out.to.strip_prefix("rs"), out.proto) {
                (Some(server), _) => Answer::Server(server.parse().unwrap()),
                (None, 6) => Answer::Reset,
                (None, 1 | 58) => Answer::Icmp,
                (None, other) => panic!("protocol {other} came out: expected TCP or ICMP"),
            },
            more => panic!("{} packets came out: expected one at most", more.len()),
        }
    }
}

/// The bytes of a hex string.
pub fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "not hex: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
