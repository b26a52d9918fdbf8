//! Each fault once: bytes, and what is read of them.

use std::collections::BTreeSet;

use super::*;

/// A connection over IPv4, as a kernel sends it.
const ENTRY: [u8; 36] = [
    0, 6, 0, 36, 0, 0, 1, 0x83, 0, 4, 0x75, 0x33, 0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 120, 192, 0, 2, 9, 10,
    0, 0, 100, 10, 0, 0, 11,
];

/// What of an entry is other than in [`ENTRY`].
type Change = fn(&mut Vec<u8>);

/// The message of these entries.
fn message(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, SYNC_ID, 0, 0, entries.len() as u8, 1, 0, 0];
    for entry in entries {
        message.resize(message.len().next_multiple_of(4), 0);
        message.extend(entry);
    }
    sized(message)
}

/// The message with its length in the header.
fn sized(mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// Puts options after an entry.
fn add(entry: &mut Vec<u8>, options: &[u8]) {
    entry.extend(options);
    entry[3] = entry.len() as u8;
}

fn read(message: &[u8]) -> Vec<Result<Entry, EntryFault>> {
    decode(message, SYNC_ID).unwrap().collect()
}

#[test]
fn a_message_with_a_fault_is_not_looked_at() {
    use MessageFault::*;
    let whole = message(&[ENTRY.to_vec()]);
    let changed = |at: usize, to: u8| {
        let mut message = whole.clone();
        message[at] = to;
        message
    };
    let mut version_0 = [&[1, SYNC_ID, 0, 0, 0, 6][..], &ENTRY[10..16], &ENTRY[24..], &[1, 0, 0, 4]].concat();
    version_0 = sized(version_0);
    let rows = [
        ("nothing", Vec::new(), TooShort),
        ("a byte less than a header", sized(whole[..7].to_vec()), TooShort),
        ("cut off on its way", whole[..40].to_vec(), WrongSize),
        ("bytes after it", [&whole[..], &[0]].concat(), WrongSize),
        ("a length of 0", changed(3, 0), WrongSize),
        ("another's", changed(1, 6), OtherSyncId),
        ("no sync id", changed(1, 0), OtherSyncId),
        ("version 0, as old kernels send it", version_0, OtherVersion),
        ("version 2", changed(5, 2), OtherVersion),
        ("the first byte", changed(0, 1), ReservedNotZero),
        ("the last bytes", changed(6, 1), ReservedNotZero),
        ("the last byte", changed(7, 1), ReservedNotZero),
    ];
    let mut seen = BTreeSet::new();
    for (what, bytes, fault) in rows {
        assert_eq!(decode(&bytes, SYNC_ID).err(), Some(fault), "{what}");
        seen.insert(fault);
    }
    assert_eq!(seen.len(), MessageFault::ALL.len());
}

#[test]
fn a_director_without_a_sync_id_reads_all() {
    assert_eq!(decode(&message(&[ENTRY.to_vec()]), 0).unwrap().count(), 1);
    assert_eq!(decode(&message(&[]), 0).unwrap().count(), 0);
}

#[test]
fn an_entry_with_a_fault_ends_its_message() {
    use EntryFault::*;
    let rows: [(&str, Change, EntryFault); 20] = [
        ("of version 1", |it| it[2] = 0x10, OtherVersion),
        ("no length", |it| it[3] = 0, WrongLength),
        ("a byte shorter than over IPv4", |it| it[3] = 35, WrongLength),
        ("as long as over IPv4, over IPv6", |it| it[0] = 1, WrongLength),
        ("longer than the message", |it| it[2] = 0x0f, CutOff),
        ("half an option's header", |it| add(it, &[1]), OptionCutOff),
        ("an option without its end", |it| add(it, &[2, 3, 0, 0]), OptionCutOff),
        ("an unknown one without its end", |it| add(it, &[0x44, 2, 0]), OptionCutOff),
        ("sequence numbers cut off", |it| add(it, &[1, 24, 0, 0]), OptionCutOff),
        ("sequence numbers of one side", |it| add(it, &[&[1, 12][..], &[0; 12]].concat()), OptionLength),
        ("no data", |it| add(it, &[2, 0]), OptionLength),
        ("no name", |it| add(it, &[3, 0]), OptionLength),
        ("a long name", |it| add(it, &[&[3, 17][..], &[b'a'; 17]].concat()), OptionLength),
        ("nothing to read over", |it| add(it, &[0x44, 0]), OptionLength),
        ("after an option without fault", |it| add(it, &[0x44, 1, 0, 3, 0]), OptionLength),
        ("an unknown option", |it| add(it, &[4, 1, 0]), UnknownOption),
        ("an option of type 0, as if filled up", |it| add(it, &[0, 0]), UnknownOption),
        ("another with the highest bit", |it| add(it, &[0x84, 1, 0]), UnknownOption),
        ("method 5", |it| it[7] = 0x85, UnknownMethod),
        ("method 7, of no protocol", |it| (it[1], it[7]) = (47, 0x87), UnknownMethod),
    ];
    let mut seen = BTreeSet::new();
    for (what, change, fault) in rows {
        let mut entry = ENTRY.to_vec();
        change(&mut entry);
        let read = read(&message(&[ENTRY.to_vec(), entry, ENTRY.to_vec()]));
        assert!(read.len() == 2 && read[0].is_ok(), "{what}: {read:?}");
        assert_eq!(read[1], Err(fault), "{what}");
        assert!(fault.ends_message(), "{what}");
        seen.insert(fault);
    }
    // Of the message's end.
    let whole = message(&[ENTRY.to_vec(), ENTRY.to_vec()]);
    let counted = |entries: u8, mut message: Vec<u8>| {
        message[4] = entries;
        sized(message)
    };
    let rows = [
        ("one more than there are", counted(3, whole.clone()), 2, Missing),
        ("255, and none", counted(255, whole[..8].to_vec()), 0, Missing),
        ("a byte of it", counted(2, whole[..45].to_vec()), 1, CutOff),
        ("all but a byte of it", counted(2, whole[..79].to_vec()), 1, CutOff),
        ("one less than there are", counted(1, whole.clone()), 1, Trailing),
        ("none", counted(0, whole.clone()), 0, Trailing),
        ("a byte", counted(2, [&whole[..], &[0]].concat()), 2, Trailing),
    ];
    for (what, bytes, used, fault) in rows {
        let read = read(&bytes);
        assert_eq!(read.iter().flatten().count(), used, "{what}");
        assert_eq!((read.len(), read.last()), (used + 1, Some(&Err(fault))), "{what}");
        assert!(fault.ends_message(), "{what}");
        seen.insert(fault);
    }
    assert_eq!(seen.len(), EntryFault::ALL.into_iter().filter(|it| it.ends_message()).count());
}

#[test]
fn an_entry_that_means_nothing_here_is_left_out_alone() {
    use EntryFault::*;
    fn of(entry: &mut [u8], protocol: u8, template: bool, state: u16) {
        entry[1] = protocol;
        entry[6] = if template { 0x11 } else { 0x01 };
        entry[8..10].copy_from_slice(&state.to_be_bytes());
    }
    fn with_option(entry: &mut Vec<u8>) {
        entry[1] = 50;
        add(entry, &[0x44, 1, 0]);
    }
    let rows: [(&str, Change, EntryFault); 13] = [
        ("ESP with an option", with_option, UnknownProtocol),
        ("GRE", |it| of(it, 47, false, 1), UnknownProtocol),
        ("ESP's template", |it| of(it, 50, true, 1), UnknownProtocol),
        ("a mark's, and no template", |it| of(it, 0, false, 0), UnknownProtocol),
        ("TCP's LAST_ACK", |it| of(it, 6, false, 8), ImpossibleState),
        ("no state of TCP", |it| of(it, 6, false, 11), ImpossibleState),
        ("a TCP state in the low byte", |it| of(it, 6, false, 0x0101), ImpossibleState),
        ("the last number", |it| of(it, 6, false, u16::MAX), ImpossibleState),
        ("UDP in a state of TCP", |it| of(it, 17, false, 1), ImpossibleState),
        ("SCTP that waits for the server", |it| of(it, 132, false, 4), ImpossibleState),
        ("no state of SCTP", |it| of(it, 132, false, 14), ImpossibleState),
        ("SCTP in a state far above", |it| of(it, 132, false, u16::MAX - 20), ImpossibleState),
        ("a template's in a connection's", |it| of(it, 6, true, 2), ImpossibleState),
    ];
    let mut seen = BTreeSet::new();
    for (what, change, fault) in rows {
        let mut entry = ENTRY.to_vec();
        change(&mut entry);
        let read = read(&message(&[ENTRY.to_vec(), entry, ENTRY.to_vec()]));
        assert_eq!(read.len(), 3, "{what}: {read:?}");
        assert!(read[0].is_ok() && read[2] == read[0], "{what}: {read:?}");
        assert_eq!(read[1], Err(fault), "{what}");
        assert!(!fault.ends_message(), "{what}");
        seen.insert(fault);
    }
    assert_eq!(seen.len(), EntryFault::ALL.into_iter().filter(|it| !it.ends_message()).count());
}

#[test]
fn an_entry_with_options_that_are_of_no_use_is_used() {
    let name = [b'a'; 16];
    let rows: [(&str, Vec<u8>); 7] = [
        ("sequence numbers", [&[1, 24][..], &[7; 24]].concat()),
        ("a persistence engine", [&[2, 9][..], b"call-id-9", &[3, 3], b"sip"].concat()),
        ("its longest name", [&[3, 16][..], &name].concat()),
        ("its longest data", [&[2, 255][..], &[7; 255]].concat()),
        ("an option to come", vec![0x44, 2, 0, 0]),
        ("one that needs filling up after it", vec![0x7f, 1, 0]),
        ("two of them", vec![0xff, 1, 0, 0x40, 4, 0, 0, 0, 0]),
    ];
    let plain = read(&message(&[ENTRY.to_vec()]))[0];
    assert!(plain.is_ok());
    for (what, options) in rows {
        let mut entry = [&ENTRY[..], &options].concat();
        let length = entry.len() as u16;
        entry[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read(&message(&[entry.clone(), ENTRY.to_vec()])), [plain; 2], "{what}");
        // Nothing has to be filled up after the last, but may be.
        let mut last = message(&[ENTRY.to_vec(), entry]);
        assert_eq!(read(&last), [plain; 2], "{what}");
        last.resize(last.len().next_multiple_of(4), 0);
        assert_eq!(read(&sized(last)), [plain; 2], "{what}");
    }
}

#[test]
fn what_a_template_says_besides_does_not_count() {
    let mut entry = ENTRY.to_vec();
    // A template of a mark with a client's port, active, and the bits of a one-packet connection without a port.
    (entry[1], entry[6], entry[9]) = (0, 0x38, 1);
    let read = read(&message(&[entry]))[0].unwrap();
    assert_eq!((read.protocol, read.client.port(), read.state), (0, 0, State::TemplateAssured));
    assert!(read.is_inactive);
}

#[test]
fn each_fault_has_its_own_name_and_number() {
    let numbers = MessageFault::ALL.iter().map(|it| *it as usize);
    assert!(numbers.eq(0..MessageFault::ALL.len()));
    assert!(EntryFault::ALL.iter().map(|it| *it as usize).eq(0..EntryFault::ALL.len()));
    let names =
        MessageFault::ALL.map(MessageFault::name).into_iter().chain(EntryFault::ALL.map(EntryFault::name));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
}
