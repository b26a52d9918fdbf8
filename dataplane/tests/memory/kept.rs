//! Connections in a file: made, copied as a killed director would leave it, and gone on with by another one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::State;
use xlvs_dataplane::connection::restore::{Found, Restoration};
use xlvs_dataplane::connection::store::{Boot, DIRECTORY_AT, Store, Unusable, V4_AT, V6_AT};
use xlvs_dataplane::connection::table::{ConnectionTable, Population};
use xlvs_dataplane::director::ConnectionTables;
use xlvs_dataplane::flow::{HashSeed, V6_WORDS};

use super::lab::Lab;

pub const BOOT: Boot = Boot(0x00c0_ffee);
/// The clock of all labs when they begin.
pub const BEGINNING: Now = Now(1_000_000);

/// An empty file.
pub fn store() -> Store {
    Store::nameless("xlvs-test", BOOT, BEGINNING).unwrap()
}

/// A file of another director.
pub fn open(file: &File, now: Now) -> Result<Store, Unusable> {
    Store::open(file.try_clone().unwrap(), BOOT, now)
}

/// The tables in a file.
pub fn tables(store: &Store, limit: u32, seed: u64) -> ConnectionTables {
    let (population, seed) = (Arc::new(Population::new(limit)), HashSeed([seed, !seed]));
    ConnectionTables {
        v4: Arc::new(ConnectionTable::kept_in(store, Arc::clone(&population), seed).unwrap()),
        v6: Arc::new(ConnectionTable::kept_in(store, population, seed).unwrap()),
    }
}

/// Where there is anything in a file: place and bytes.
pub fn pieces(file: &File) -> [(u64, usize); 4] {
    let used = |word: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, word * 8).unwrap();
        // What a damaged one says is not read for long.
        u32::from_ne_bytes(bytes).min(1 << 16) as usize
    };
    [(0, 4096), (DIRECTORY_AT, used(18) * 64), (V4_AT, used(16) * 64), (V6_AT, used(17) * 128)]
}

/// The file as it is at this moment, piece by piece.
pub fn image(file: &File) -> Vec<(u64, Vec<u8>)> {
    let read = |(at, length): (u64, usize)| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        (at, bytes)
    };
    pieces(file).map(read).into()
}

/// A file with this content.
pub fn file_of(image: &[(u64, Vec<u8>)]) -> File {
    let file = store().file().try_clone().unwrap();
    for (at, bytes) in image {
        file.write_all_at(bytes, *at).unwrap();
    }
    file
}

/// What is known of a connection or template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub is_v6: bool,
    pub slot: u32,
    pub destination: u32,
    pub state: State,
    pub deadline: u64,
    pub mark: u32,
    /// Of a template.
    pub connections: u32,
    /// Of a connection.
    pub template: Option<u32>,
}

/// Everything in the tables that is followed, by flow.
pub fn all(tables: &ConnectionTables) -> BTreeMap<String, Remembered> {
    fn of<const W: usize>(table: &ConnectionTable<W>) -> Vec<(String, Remembered)> {
        let entry = |slot| {
            let record = table.record(slot)?;
            let (word, key) = record.read()?;
            let is_template = word.is_template();
            let found = Remembered {
                is_v6: W == V6_WORDS,
                slot,
                destination: record.destination().0,
                state: word.state(),
                deadline: record.deadline().0,
                mark: record.mark(),
                connections: if is_template { record.connections() } else { 0 },
                template: if is_template { None } else { record.template().map(|its| its.0) },
            };
            let followed = !word.is_orphaned();
            assert_eq!(
                table.find(&key, table.hash(&key)).map(|(its, _)| its),
                followed.then_some(slot),
                "the index has it"
            );
            followed.then(|| (format!("{:?}", key.unpack().unwrap()), found))
        };
        (0..table.slots_used()).filter_map(entry).collect()
    }
    of(&tables.v4).into_iter().chain(of(&tables.v6)).collect()
}

/// A lab that goes on from a file at `now`, with what was found there.
pub fn lab(store: &Store, limit: u32, now: Now, set_up: impl Fn(&mut Lab)) -> (Lab, Found) {
    let (lab, restoration) = half_a_lab(store, limit, now, set_up);
    let found = restoration.found();
    restoration.finish();
    (lab, found)
}

/// The same before its flows are found.
pub fn half_a_lab(store: &Store, limit: u32, now: Now, set_up: impl Fn(&mut Lab)) -> (Lab, Restoration) {
    let mut lab = Lab::over(2, tables(store, limit, now.0));
    set_up(&mut lab);
    lab.now = now;
    let restoration = Restoration::begin(lab.connections.clone(), Arc::clone(&lab.services), now);
    (lab, restoration)
}
