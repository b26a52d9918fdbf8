//! A file of connections as a director would find it that was told nothing good of it: a real one, in which any words are
//! changed. A piece is two bytes that say where, and the bytes that are put there.
//!
//! The file is refused with a sentence, or the director goes on from it: with what is well-formed only, counted right, forwarding,
//! and in the end with nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Duration;

use xlvs_dataplane::connection::store::Store;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::flow::{Family, Granularity};
use xlvs_dataplane::service::Persistence;

use crate::memory::frame::{Frame, tcp, udp};
use crate::memory::kept::{self, BEGINNING, all, file_of, image, pieces};
use crate::memory::lab::{Lab, v4, v6};

/// More than the file's own connections.
const CONNECTIONS: u32 = 64;
const IDS: u32 = 5;
/// Longer than every timeout that a director gives, in milliseconds.
const FOREVER: u64 = 1_000_000;

fn set_up(lab: &mut Lab) {
    let granularity = Granularity::single(Family::V4);
    lab.persistent.insert(v4(Tcp, 84), Persistence { timeout: Duration::from_secs(60), granularity });
    lab.publish(
        &[
            (v4(Tcp, 80), &[(1, 1), (2, 1)]),
            (v6(Udp, 53), &[(3, 1)]),
            (v4(Tcp, 84), &[(4, 1)]),
            (v6(Tcp, 80), &[(5, 1)]),
        ],
        &[],
    );
}

fn frames() -> Vec<Frame> {
    let of_port = |port: u16| {
        let frames = [tcp("S"), udp().v6(), tcp("S").port(84), tcp("S").v6()];
        frames.map(|frame| frame.client_port(port))
    };
    (2000..2004).flat_map(of_port).collect()
}

/// The file before it is changed.
static WHOLE: LazyLock<Vec<(u64, Vec<u8>)>> = LazyLock::new(|| {
    let store = kept::store();
    let (mut lab, _) = kept::lab(&store, CONNECTIONS, BEGINNING, set_up);
    for frame in frames() {
        assert!(lab.send(0, &frame).is_ok());
    }
    image(store.file())
});

/// Puts a piece's bytes where its first two say: two bits the part of the file, the rest a word of it.
fn change(file: &std::fs::File, piece: &[u8]) {
    let [low, high, bytes @ ..] = piece else { return };
    let place = u64::from(u16::from_le_bytes([*low, *high]));
    let (part, word) = (place as usize & 3, place >> 2);
    let bytes = &bytes[..bytes.len().min(4096)];
    file.write_all_at(bytes, pieces(file)[part].0 + word * 8).unwrap();
}

/// Goes on from the file.
pub fn run(input: &[u8]) {
    let file = file_of(&WHOLE);
    for piece in crate::pieces(input) {
        change(&file, piece);
    }
    let store = match kept::open(&file, BEGINNING) {
        Ok(store) => store,
        Err(unusable) => return assert!(!unusable.to_string().is_empty()),
    };
    look_into(&store);
    let (mut lab, found) = kept::lab(&store, CONNECTIONS, BEGINNING, set_up);
    // Everything that is followed has a flow, a destination and its place in the index.
    let known = all(&lab.connections);
    let mut connections: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
    for (flow, its) in &known {
        assert!((1..=IDS).contains(&its.destination), "{flow} {its:?}");
        if !its.state.is_template() {
            connections.entry(its.destination).or_default()[usize::from(its.state.is_inactive())] += 1;
        }
    }
    for id in 1..=IDS {
        let [active, inactive] = connections.get(&id).copied().unwrap_or_default();
        assert_eq!(lab.active_inactive(id), (active, inactive), "destination {id}");
    }
    assert!(known.len() as u32 <= lab.live() && lab.live() <= found.connections + found.templates);
    lab.expire();
    for frame in frames().iter().chain(&[tcp("A"), tcp("S").port(84).client_port(9), udp().v6()]) {
        let _ = lab.send(1, frame);
    }
    for _ in 0..3 {
        lab.pass(FOREVER);
        lab.expire();
    }
    if lab.live() > 0 {
        // A deadline may have been put off as far as a timeout can be.
        lab.pass(u64::from(u32::MAX));
        lab.expire();
        lab.pass(FOREVER);
        lab.expire();
    }
    assert_eq!(lab.live(), 0, "connections that never end");
    assert!((1..=IDS).all(|id| lab.active_inactive(id) == (0, 0)));
}

/// The directory can be read, whatever it says.
fn look_into(store: &Store) {
    for (id, kept) in store.kept() {
        if let Some(kept) = kept {
            let changed = kept::store();
            changed.keep(id, &kept).unwrap();
            assert!(changed.kept().any(|(its, again)| its == id && again == Some(kept)), "{kept:?}");
        }
    }
}
