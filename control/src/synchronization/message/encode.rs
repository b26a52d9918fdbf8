//! Entries into messages.

use std::net::IpAddr;

use super::{FIXED, HEADER, IS_V6, V4_ENTRY, V6_ENTRY, VERSION, flag, number};
use crate::synchronization::entry::{Entry, Method};

/// The least that a message may be restricted to, in bytes: any entry fits.
pub const MIN_LENGTH: usize = HEADER + V6_ENTRY;
/// The longest message, in bytes: what a UDP datagram carries over IPv4.
pub const MAX_LENGTH: usize = 65_507;

/// Puts entries into messages, as many into one as fit, 255 at most. It allocates only when it is made.
#[derive(Debug)]
pub struct Packer {
    /// The header, whose length and count are written when the message is full, and the entries so far.
    open: Vec<u8>,
    /// The entries in `open`.
    entries: u8,
    /// The last message that was given out.
    full: Vec<u8>,
    max_length: usize,
}

impl Packer {
    /// For messages with this sync id, of `max_length` bytes at most ([`MIN_LENGTH`] to [`MAX_LENGTH`]: the next of them is taken for
    /// others).
    #[must_use]
    pub fn new(sync_id: u8, max_length: usize) -> Self {
        let max_length = max_length.clamp(MIN_LENGTH, MAX_LENGTH);
        let mut open = Vec::with_capacity(max_length);
        open.extend([0, sync_id, 0, 0, 0, VERSION, 0, 0]);
        let mut full = Vec::with_capacity(max_length);
        full.extend_from_slice(&open);
        Self { open, entries: 0, full, max_length }
    }

    /// Whether no entry waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Takes an entry. The message of those before it, if it doesn't fit there any more.
    #[must_use = "the entries in it are told nowhere else"]
    pub fn push(&mut self, entry: &Entry) -> Option<&[u8]> {
        let length = length(entry);
        let is_full = self.entries == u8::MAX || self.open.len() + length > self.max_length;
        if is_full {
            self.close();
        }
        write(entry, length, &mut self.open);
        self.entries += 1;
        is_full.then_some(&self.full)
    }

    /// The message of the entries that wait, if any do.
    #[must_use = "the entries in it are told nowhere else"]
    pub fn flush(&mut self) -> Option<&[u8]> {
        if self.is_empty() {
            return None;
        }
        self.close();
        Some(&self.full)
    }

    /// Makes the open message the full one.
    fn close(&mut self) {
        std::mem::swap(&mut self.open, &mut self.full);
        let length = self.full.len() as u16;
        self.full[2..4].copy_from_slice(&length.to_be_bytes());
        self.full[4] = self.entries;
        self.open.truncate(HEADER);
        self.entries = 0;
    }
}

fn addresses(entry: &Entry) -> [IpAddr; 3] {
    [entry.client.ip(), entry.virtual_address.ip(), entry.real.ip()]
}

fn is_v4(entry: &Entry) -> bool {
    addresses(entry).iter().all(IpAddr::is_ipv4)
}

fn length(entry: &Entry) -> usize {
    if is_v4(entry) { V4_ENTRY } else { V6_ENTRY }
}

fn flags(entry: &Entry) -> u32 {
    let mut flags = entry.method as u32;
    if entry.method != Method::Masquerade {
        flags |= flag::NO_OUTPUT;
    }
    // A kernel's templates all have it.
    if entry.is_inactive || entry.state.is_template() {
        flags |= flag::INACTIVE;
    }
    if entry.state.is_template() {
        flags |= flag::TEMPLATE;
    }
    flags
}

/// Both lengths are multiples of 4, so that nothing has to follow.
fn write(entry: &Entry, length: usize, to: &mut Vec<u8>) {
    let client_port = if entry.state.is_template() { 0 } else { entry.client.port() };
    let mut fixed = [0; FIXED];
    fixed[0] = if length == V6_ENTRY { IS_V6 } else { 0 };
    fixed[1] = entry.protocol;
    fixed[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    fixed[4..8].copy_from_slice(&flags(entry).to_be_bytes());
    fixed[8..10].copy_from_slice(&number(entry.state).to_be_bytes());
    fixed[10..12].copy_from_slice(&client_port.to_be_bytes());
    fixed[12..14].copy_from_slice(&entry.virtual_address.port().to_be_bytes());
    fixed[14..16].copy_from_slice(&entry.real.port().to_be_bytes());
    fixed[16..20].copy_from_slice(&entry.mark.to_be_bytes());
    fixed[20..24].copy_from_slice(&entry.timeout_s.to_be_bytes());
    to.extend_from_slice(&fixed);
    for address in addresses(entry) {
        match address {
            IpAddr::V4(address) if length == V4_ENTRY => to.extend_from_slice(&address.octets()),
            IpAddr::V4(address) => to.extend_from_slice(&address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => to.extend_from_slice(&address.octets()),
        }
    }
}
