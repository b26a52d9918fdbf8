//! What holds for any message and any bytes.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::{GenlHeader, GenlMessage};
use proptest::collection::vec;
use proptest::prelude::*;
use rustix::io::Errno;
use xlvs_control::api::ipvs::listing::Listing;
use xlvs_control::api::ipvs::message::Attributes;
use xlvs_control::api::ipvs::{Command, Ipvs, Name};

use crate::strategies::{bytes, listing, message, read};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_is_read_back_as_it_was_written(message in message()) {
        prop_assert_eq!(read(&bytes(message.clone(), 5, 7)), message);
    }

    #[test]
    fn a_list_of_proc_is_read_back_as_it_was_written(message in listing()) {
        let bytes = bytes(message.clone(), 5, 7);
        let payload = NetlinkMessage::<GenlMessage<Listing>>::deserialize(&bytes).unwrap().payload;
        let header = GenlHeader { cmd: bytes[16], version: 1 };
        prop_assert_eq!(payload, NetlinkPayload::InnerMessage(GenlMessage::new(header, message, 0x4958)));
    }

    #[test]
    fn bytes_are_a_message_or_none(command: u8, bytes in vec(any::<u8>(), 0..400)) {
        let _ = Ipvs::read(command, &bytes);
        let _ = Listing::read(command, &bytes);
    }

    #[test]
    fn a_spoilt_message_is_a_message_or_none(
        message in message(),
        spoilt in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes(message, 5, 7);
        for (at, byte) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let _ = NetlinkMessage::<GenlMessage<Ipvs>>::deserialize(bytes);
            let _ = NetlinkMessage::<GenlMessage<Listing>>::deserialize(bytes);
        }
    }

    #[test]
    fn unknown_attributes_change_nothing(message in message(), kind in 40..0x3FFF_u16, value in vec(any::<u8>(), 0..20)) {
        let written = bytes(message.clone(), 5, 7);
        let mut unknown = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        unknown.extend(kind.to_ne_bytes());
        unknown.extend(&value);
        unknown.resize(unknown.len().next_multiple_of(4), 0);
        let with_it = [&unknown[..], &written[20..], &unknown].concat();
        prop_assert_eq!(Ipvs::read(written[16], &with_it), Ok(message));
    }

    #[test]
    fn a_name_is_cut_to_what_can_be_carried(text in "\\PC{0,30}") {
        let name = Name::<15>::cut(&text);
        prop_assert!(name.as_str().len() <= 15 && text.starts_with(name.as_str()));
        prop_assert_eq!(Name::<15>::new(&text).is_some(), text.len() <= 15);
    }
}

/// Attributes of any length, whole.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [((value.len() + 4) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn lengths_are_checked_as_the_kernel_does() {
    let read = |bytes: &[u8]| {
        Ipvs::read(Command::SetConfig.number(), bytes).map(|message| message.into_attributes().tcp_s)
    };
    // Of the message itself; longer than it needs to be is fine.
    assert_eq!(read(&attribute(4, &5_u16.to_ne_bytes())), Err(Errno::RANGE));
    assert_eq!(read(&attribute(4, &[])), Err(Errno::RANGE));
    assert_eq!(read(&attribute(4, &5_u64.to_le_bytes())), Ok(Some(5)));
    // Of two the last holds; what is cut, and what follows it, isn't there.
    let twice = [attribute(4, &1_u32.to_ne_bytes()), attribute(4, &2_u32.to_ne_bytes())].concat();
    assert_eq!(read(&twice), Ok(Some(2)));
    assert_eq!(read(&[&twice[..], &[200, 0, 4, 0, 1]].concat()), Ok(Some(2)));
    assert_eq!(read(&[&[3, 0, 4, 0][..], &twice].concat()), Ok(None));

    let service = |bytes: &[u8]| {
        let nest = attribute(1 | 0x8000, bytes);
        Ipvs::read(Command::DelService.number(), &nest)
            .map(|message| message.into_attributes().service.unwrap())
    };
    for (kind, value) in [
        (1, &[2][..]),
        (3, &[1; 17]),
        (4, &[1]),
        (5, &[1; 3]),
        (6, b"rr"),
        (6, b""),
        (6, b"0123456789abcdef\0"),
        (7, &[0; 9]),
        (9, &[0; 3]),
        (11, b"0123456789abcdef0\0"),
        (10, &[4, 0, 1, 0]),
    ] {
        assert_eq!(service(&attribute(kind, value)), Err(Errno::INVAL), "{kind} {value:?}");
    }
    assert_eq!(service(&attribute(3, &[10, 0, 0, 1])).unwrap().address.unwrap()[..5], [10, 0, 0, 1, 0]);
    assert_eq!(service(&attribute(6, b"rr\0rest")).unwrap().scheduler, Name::new("rr"));
    assert_eq!(service(&attribute(11, b"0123456789abcdef\0")).unwrap().engine, Name::new("0123456789abcdef"));
    assert_eq!(service(&[]), Ok(Default::default()));
    assert_eq!(Ipvs::read(0, &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(Ipvs::read(18, &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(Ipvs::read(17, &[]), Ok(Ipvs::new(Command::Flush, Attributes::default())));
}
