//! The journal: the operations since the state file was written, a line each, so that one more service among ten thousand costs
//! one line and not the whole file.
//!
//! `CRC32 {"xlvs_journal":1,"follows":{…}}`, then `CRC32 {operation}`, each checksum over the rest of its line. A journal counts
//! only for the one state file that it follows. A last line without an end was being written when the power went: nobody was
//! told that its operation was kept.

use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::operation::{Operation, OperationRecord};
use super::record::Refused;
use super::snapshot::{Stamp, VERSION};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    xlvs_journal: u32,
    follows: Stamp,
}

/// A line of this value.
fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_string(value)?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

/// The first line of the journal that follows this state file.
pub(super) fn head(follows: Stamp) -> serde_json::Result<Vec<u8>> {
    line(&Head { xlvs_journal: VERSION, follows })
}

/// The line of an operation.
pub(super) fn entry(operation: &Operation) -> serde_json::Result<Vec<u8>> {
    line(&OperationRecord::from(operation))
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The operations, oldest first; one whose words are no longer known as the reason.
    pub(super) operations: Vec<Result<Operation, Refused>>,
    /// What is wrong with it; the operations are those before.
    pub(super) damage: Option<Damage>,
    /// Whether its last line was cut.
    pub(super) torn: bool,
}

/// The JSON of a line whose checksum is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (sum, json) = line.split_at_checked(9)?;
    let expected = format!("{:08x} ", crc32fast::hash(json));
    (sum == expected.as_bytes()).then_some(json)
}

/// Reads a journal; `None` when it follows another state file than `snapshot`.
pub(super) fn read(bytes: &[u8], snapshot: Stamp) -> Option<Journal> {
    let mut journal = Journal::default();
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    journal.torn = whole < bytes.len();
    let mut lines = bytes[..whole].split_inclusive(|&byte| byte == b'\n').map(|line| &line[..line.len() - 1]);
    let head = lines.next().and_then(checked).and_then(|json| serde_json::from_slice::<Head>(json).ok());
    match head {
        None => {
            journal.damage = Some(Damage::Line { line: 1 });
            return Some(journal);
        }
        Some(Head { xlvs_journal, .. }) if xlvs_journal != VERSION => {
            journal.damage = Some(Damage::Version { found: xlvs_journal, read: VERSION });
            return Some(journal);
        }
        Some(Head { follows, .. }) if follows != snapshot => return None,
        Some(_) => {}
    }
    for (at, line) in lines.enumerate() {
        let Some(json) = checked(line) else {
            journal.damage = Some(Damage::Line { line: at + 2 });
            break;
        };
        let record = serde_json::from_slice::<OperationRecord>(json).map_err(|error| error.to_string());
        let operation = record.and_then(|record| Operation::try_from(&record));
        journal.operations.push(operation.map_err(|why| format!("line {} of the journal: {why}", at + 2)));
    }
    Some(journal)
}
