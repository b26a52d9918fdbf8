//! Messages of connection synchronisation: any datagram, as it is and with a header that is right but for the count. Entries are read
//! of it or not; what is read takes up bytes of it, and is put into messages that read back the same. With a key, none of it is believed but
//! what has the key's trailer, once.

use xlvs_control::synchronization::entry::Entry;
use xlvs_control::synchronization::message::{EntryFault, MIN_LENGTH, Packer, decode};
use xlvs_control::synchronization::trailer::{Guard, MacKey, Sealer, Stream, TrailerFault};

const HEADER: usize = 8;
/// The shortest entry, in bytes.
const MIN_ENTRY: usize = 36;
/// What a datagram carries on Ethernet.
const ETHERNET: usize = 1472;
/// The directors' key, whose trailer a seed has.
pub const KEY: [u8; 32] = [7; 32];
/// When that was sent.
pub const SENT_MS: u64 = 1_800_000_000_000;
/// The director that reads.
const OWN: u64 = 1;
/// Another one. The seed is of a third.
const SENDER: Stream = Stream { sender: 2, socket: 1 };

/// Reads a datagram.
pub fn run(input: &[u8]) {
    read(input, 0);
    read(input, 5);
    if input.len() >= HEADER {
        let mut repaired = input.to_vec();
        let size = (input.len() as u16).to_be_bytes();
        repaired[..4].copy_from_slice(&[0, 5, size[0], size[1]]);
        repaired[5..HEADER].copy_from_slice(&[1, 0, 0]);
        assert!(input.len() > usize::from(u16::MAX) || decode(&repaired, 5).is_ok());
        assert!(decode(&repaired, 6).is_err());
        read(&repaired, 5);
    }
    believe(input);
}

fn believe(input: &[u8]) {
    let (key, mut guard) = (MacKey::of(&KEY), Guard::new(OWN));
    // The seed, and who else finds a MAC.
    if let Ok(message) = guard.open(&key, input, SENT_MS) {
        assert!(input.starts_with(message) && message.len() < input.len());
        assert_eq!(guard.open(&key, input, SENT_MS), Err(TrailerFault::Replayed));
        read(message, 0);
    }
    let mut sealer = Sealer::new(key.clone(), SENDER, input.len());
    let mut sealed = sealer.seal(input, SENT_MS).to_vec();
    let at = input.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte))
        % (8 * sealed.len());
    sealed[at / 8] ^= 1 << (at % 8);
    let changed = guard.open(&key, &sealed, SENT_MS);
    assert!(matches!(changed, Err(TrailerFault::WrongMac | TrailerFault::NotAuthenticated)), "{changed:?}");
    sealed[at / 8] ^= 1 << (at % 8);
    assert_eq!(guard.open(&key, &sealed, SENT_MS), Ok(input));
    assert_eq!(guard.open(&key, &sealed, SENT_MS), Err(TrailerFault::Replayed));
    assert_eq!(Guard::new(SENDER.sender).open(&key, &sealed, SENT_MS), Err(TrailerFault::Reflected));
}

fn read(datagram: &[u8], sync_id: u8) {
    let Ok(mut entries) = decode(datagram, sync_id) else { return };
    let (least, most) = entries.size_hint();
    let read: Vec<_> = entries.by_ref().collect();
    assert!(entries.next().is_none());
    assert!(least <= read.len() && Some(read.len()) <= most);
    let good: Vec<Entry> = read.iter().copied().flatten().collect();
    assert!(HEADER + good.len() * MIN_ENTRY <= datagram.len(), "{} entries out of nothing", good.len());
    if let Some(end) = read.iter().position(|it| it.is_err_and(EntryFault::ends_message)) {
        assert_eq!(end + 1, read.len(), "something comes after the end");
    }
    for entry in &good {
        let is_v4 = [entry.client, entry.virtual_address, entry.real].map(|address| address.is_ipv4());
        assert!(is_v4 == [true; 3] || is_v4 == [false; 3], "{entry:?}");
        assert!(!entry.state.is_template() || entry.client.port() == 0, "{entry:?}");
    }
    for max_length in [MIN_LENGTH, ETHERNET] {
        let mut packer = Packer::new(7, max_length);
        let mut again = Vec::new();
        let mut receive = |message: Option<&[u8]>| {
            if let Some(message) = message {
                assert!(message.len() <= max_length);
                again.extend(decode(message, 7).unwrap().map(Result::unwrap));
            }
        };
        for entry in &good {
            receive(packer.push(entry));
        }
        receive(packer.flush());
        assert_eq!(again, good);
    }
}
