//! What the fuzz targets do with their bytes. Each target is a module with a function `run`, which panics where something is not
//! as it should be; `fuzz_targets/` hands them to libFuzzer, `tests/replay.rs` runs them over the committed corpora.
//!
//! An input of several messages is cut at a mark of four bytes, so that a byte more or less in one leaves the others as they
//! are; each piece begins with bytes that say how it comes.
#![allow(clippy::unwrap_used)]

pub mod command_line;
pub mod configuration;
pub mod connections_file;
pub mod foreign;
pub mod fragments;
pub mod frame;
pub mod iptables;
// The packet path in memory, as its own tests have it.
#[path = "../../../../dataplane/tests/memory/mod.rs"]
mod memory;
mod names;
pub mod netlink;
pub mod sync_messages;
pub mod wire;

/// What a target does with an input.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Run); 10] = [
    ("netlink", netlink::run),
    ("command_line", command_line::run),
    ("frame", frame::run),
    ("fragments", fragments::run),
    ("configuration", configuration::run),
    ("connections_file", connections_file::run),
    ("iptables", iptables::run),
    ("lvs_cf", foreign::lvs_cf),
    ("keepalived_conf", foreign::keepalived_conf),
    ("sync_messages", sync_messages::run),
];

/// What stands between the pieces of an input.
pub const MARK: &[u8; 4] = b"\xfe\xed||";
/// The most pieces of an input that are looked at.
const MAX_PIECES: usize = 64;

/// The pieces of an input.
fn pieces(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    let next = move || {
        let now = rest?;
        let end = now.windows(MARK.len()).position(|window| window == MARK);
        rest = end.map(|end| &now[end + MARK.len()..]);
        Some(&now[..end.unwrap_or(now.len())])
    };
    std::iter::from_fn(next).take(MAX_PIECES)
}
