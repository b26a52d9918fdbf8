//! Netlink and generic netlink framing, as far as the library must understand it: whom a datagram is for, which request an
//! answer belongs to, and the few messages that it sends itself.
//!
//! A netlink header is len u32, type u16, flags u16, sequence u32, port id u32; a generic one command u8, version u8, u16;
//! an attribute len u16, type u16, value, padded to 4 bytes. All in host byte order. Reading never fails: what can't be
//! read is for the kernel, or answers nothing.

/// The id of the family `IPVS` as the daemon gives it out.
pub(crate) const IPVS_FAMILY: u16 = 0x4956;
/// The id of the daemon's own family, `XLVS`.
pub(crate) const XLVS_FAMILY: u16 = 0x4958;
/// The bytes that decide whom a datagram is for.
pub(crate) const PREFIX: usize = 128;

const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

const CONTROL_FAMILY: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const MULTI: u16 = 2;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

/// The commands of IPVS that are answered even without a wish for an acknowledgement: GET_SERVICE, GET_DEST, GET_DAEMON,
/// GET_CONFIG, GET_INFO.
const GETTERS: [u8; 5] = [4, 8, 11, 13, 15];

const HELLO: u8 = 7;
const GET_PROC: u8 = 8;
const ATTRIBUTE_TEXT: u16 = 1;
const ATTRIBUTE_PORT: u16 = 12;
const ATTRIBUTE_NAME: u16 = 2;
const XLVS_VERSION: u8 = 1;

/// A message in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    kind: u16,
    flags: u16,
    /// The number that ties an answer to its request.
    pub(crate) sequence: u32,
    payload: &'a [u8],
}

/// The messages of a datagram, up to the first that does not fit.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = first(rest)?;
        let length = HEADER + message.payload.len();
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The first message; its length may go beyond the end only where the datagram was cut.
fn first(datagram: &[u8]) -> Option<Message<'_>> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    if length < HEADER {
        return None;
    }
    Some(Message {
        kind: u16_at(datagram, 4)?,
        flags: u16_at(datagram, 6)?,
        sequence: u32_at(datagram, 8)?,
        payload: datagram.get(HEADER..length.min(datagram.len()))?,
    })
}

impl<'a> Message<'a> {
    fn command(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The value of the first attribute of that type.
    fn attribute(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.payload.get(GENERIC_HEADER..)?;
        loop {
            let length = usize::from(u16_at(rest, 0)?);
            let value = rest.get(ATTRIBUTE_HEADER..length)?;
            if u16_at(rest, 2)? == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }

    /// The errno of an NLMSG_ERROR (0 acknowledges), or `None` where it is another message.
    pub(crate) fn error(&self) -> Option<i32> {
        (self.kind == NLMSG_ERROR).then(|| u32_at(self.payload, 0).map_or(0, |code| -code.cast_signed()))
    }

    /// Whether a dump ends here.
    pub(crate) fn ends_dump(&self) -> bool {
        self.kind == NLMSG_DONE
    }

    /// The piece of text of an answer to GET_PROC.
    pub(crate) fn text(&self) -> Option<&'a [u8]> {
        (self.kind == XLVS_FAMILY).then(|| self.attribute(ATTRIBUTE_TEXT)).flatten()
    }
}

/// Whether a datagram, of which at least [`PREFIX`] bytes are given, is the daemon's: otherwise it is the kernel's.
pub(crate) fn is_for_daemon(datagram: &[u8]) -> bool {
    match first(datagram) {
        Some(message) => match message.kind {
            IPVS_FAMILY | XLVS_FAMILY => true,
            CONTROL_FAMILY => asks_for_ipvs(&message),
            _ => false,
        },
        None => false,
    }
}

fn asks_for_ipvs(message: &Message<'_>) -> bool {
    message.command() == Some(GET_FAMILY)
        && message
            .attribute(FAMILY_NAME)
            .is_some_and(|name| name.strip_suffix(b"\0").unwrap_or(name) == b"IPVS")
}

/// A request that is under way: what it takes to know its answer, and to send it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The whole datagram.
    pub(crate) datagram: Box<[u8]>,
    sequence: u32,
    acknowledged: bool,
    /// A part of the answer was read by the program.
    pub(crate) begun: bool,
}

impl Request {
    /// The request of a datagram, or `None` where nothing but an error would answer it.
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        let message = first(datagram)?;
        let acknowledged = message.flags & ACK != 0;
        let getter = message.kind != IPVS_FAMILY || message.command().is_some_and(|it| GETTERS.contains(&it));
        (acknowledged || message.flags & DUMP != 0 || getter).then(|| Self {
            datagram: datagram.into(),
            sequence: message.sequence,
            acknowledged,
            begun: false,
        })
    }

    /// Takes notice of a message that the program has read; tells whether it was the last of the answer.
    pub(crate) fn is_answered_by(&mut self, message: &Message<'_>) -> bool {
        if message.sequence != self.sequence {
            return false;
        }
        self.begun = true;
        let ends = message.error().is_some() || message.ends_dump();
        ends || (message.flags & MULTI == 0 && !self.acknowledged)
    }
}

/// The first message of a connection: the program's port id.
pub(crate) fn hello(port: u32) -> Vec<u8> {
    xlvs(HELLO, REQUEST | ACK, ATTRIBUTE_PORT, &port.to_ne_bytes())
}

/// Asks for the text of a file of /proc/net.
pub(crate) fn get_proc(name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    xlvs(GET_PROC, REQUEST | DUMP, ATTRIBUTE_NAME, &value)
}

fn xlvs(command: u8, flags: u16, attribute: u16, value: &[u8]) -> Vec<u8> {
    let mut payload = vec![command, XLVS_VERSION, 0, 0];
    // Values are a number or a short name.
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    payload.extend(length.to_ne_bytes());
    payload.extend(attribute.to_ne_bytes());
    payload.extend(value);
    payload.resize(payload.len().next_multiple_of(4), 0);
    message(XLVS_FAMILY, flags, 0, 0, &payload)
}

/// The NLMSG_ERROR that refuses a request with an errno: it ends with the request's header.
pub(crate) fn refusal(request: &Request, port: u32, errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend(request.datagram.iter().take(HEADER));
    message(NLMSG_ERROR, 0, request.sequence, port, &payload)
}

fn message(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(port.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn generic(kind: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
        message(kind, flags, 7, 99, &[&[command, 1, 0, 0], attributes].concat())
    }

    fn family(name: &[u8]) -> Vec<u8> {
        let mut attribute = u16::try_from(4 + name.len()).unwrap().to_ne_bytes().to_vec();
        attribute.extend(2_u16.to_ne_bytes());
        attribute.extend(name);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    #[test]
    fn only_messages_for_ipvs_are_the_daemons() {
        let rows: [(&str, Vec<u8>, bool); 10] = [
            ("the family's name", generic(0x10, 5, 3, &family(b"IPVS\0")), true),
            ("its name without an end", generic(0x10, 5, 3, &family(b"IPVS")), true),
            ("another family", generic(0x10, 5, 3, &family(b"nl80211\0")), false),
            ("a family whose name only begins so", generic(0x10, 5, 3, &family(b"IPVS2\0")), false),
            ("all families", generic(0x10, 0x301, 3, &[]), false),
            ("another control command", generic(0x10, 5, 4, &family(b"IPVS\0")), false),
            ("a message of IPVS", generic(IPVS_FAMILY, 5, 1, &[]), true),
            ("a message of XLVS", generic(XLVS_FAMILY, 5, 1, &[]), true),
            ("a message of another family", generic(0x1b, 5, 1, &[]), false),
            ("a name cut short", generic(0x10, 5, 3, &family(b"IPVS\0")[..6]), false),
        ];
        for (what, datagram, expected) in rows {
            assert_eq!(is_for_daemon(&datagram), expected, "{what}");
        }
        for length in 0..20 {
            assert!(!is_for_daemon(&vec![0; length]));
            assert!(!is_for_daemon(&vec![0xff; length]));
        }
    }

    #[test]
    fn an_answer_ends_where_the_kernel_ends_it() {
        type Row = (&'static str, u16, u8, &'static [(u16, u16)], bool);
        let rows: [Row; 7] = [
            ("an acknowledgement", REQUEST | ACK, 1, &[(NLMSG_ERROR, 0)], true),
            ("a reply, the acknowledgement to come", REQUEST | ACK, 15, &[(IPVS_FAMILY, 0)], false),
            (
                "a reply and its acknowledgement",
                REQUEST | ACK,
                15,
                &[(IPVS_FAMILY, 0), (NLMSG_ERROR, 0)],
                true,
            ),
            ("a reply without", REQUEST, 15, &[(IPVS_FAMILY, 0)], true),
            ("a dump under way", REQUEST | DUMP, 4, &[(IPVS_FAMILY, MULTI)], false),
            ("a dump's end", REQUEST | DUMP, 4, &[(IPVS_FAMILY, MULTI), (NLMSG_DONE, MULTI)], true),
            ("a dump refused", REQUEST | DUMP, 4, &[(NLMSG_ERROR, 0)], true),
        ];
        for (what, flags, command, answer, ended) in rows {
            let mut request = Request::of(&generic(IPVS_FAMILY, flags, command, &[])).unwrap();
            let datagram: Vec<u8> =
                answer.iter().flat_map(|&(kind, flags)| message(kind, flags, 7, 99, &[0; 4])).collect();
            let last = messages(&datagram).filter(|message| request.is_answered_by(message)).count() > 0;
            assert_eq!((last, request.begun), (ended, true), "{what}");
        }
    }

    #[test]
    fn answers_to_others_and_requests_without_an_answer() {
        let mut request = Request::of(&generic(IPVS_FAMILY, REQUEST | ACK, 1, &[])).unwrap();
        let other = message(NLMSG_ERROR, 0, 8, 99, &[0; 20]);
        assert!(!request.is_answered_by(&first(&other).unwrap()) && !request.begun);
        assert_eq!(Request::of(&generic(IPVS_FAMILY, REQUEST, 17, &[])), None);
    }

    #[test]
    fn a_refusal_carries_errno_sequence_port_and_the_requests_header() {
        let datagram = generic(IPVS_FAMILY, REQUEST | ACK, 1, &[]);
        let refusal = refusal(&Request::of(&datagram).unwrap(), 99, 111);
        let read: Vec<_> = messages(&refusal).collect();
        assert_eq!(refusal.len(), 36);
        assert_eq!((read.len(), read[0].error(), read[0].sequence), (1, Some(111), 7));
        assert_eq!(refusal[12..16], 99_u32.to_ne_bytes());
        assert_eq!(refusal[20..], datagram[..16]);
    }

    #[test]
    fn own_messages_are_framed_as_documented() {
        let hello = hello(0x0102_0304);
        assert_eq!(hello.len(), 28);
        let read = first(&hello).unwrap();
        assert_eq!((read.kind, read.flags, read.command()), (XLVS_FAMILY, REQUEST | ACK, Some(HELLO)));
        assert_eq!(read.attribute(ATTRIBUTE_PORT), Some(&0x0102_0304_u32.to_ne_bytes()[..]));
        let proc = get_proc("ip_vs");
        let read = first(&proc).unwrap();
        assert_eq!((read.kind, read.flags, read.command()), (XLVS_FAMILY, REQUEST | DUMP, Some(GET_PROC)));
        assert_eq!(read.attribute(ATTRIBUTE_NAME), Some(&b"ip_vs\0"[..]));
        assert_eq!(proc.len() % 4, 0);
    }

    #[test]
    fn text_is_read_from_xlvs_alone() {
        let mut piece = xlvs(1, MULTI, ATTRIBUTE_TEXT, b"hello");
        assert_eq!(first(&piece).unwrap().text(), Some(&b"hello"[..]));
        piece[4] = 0;
        assert_eq!(first(&piece).unwrap().text(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_be_read(bytes: Vec<u8>, kind: u16, length: u8) {
            let mut datagram = message(kind, 0, 7, 99, &bytes);
            datagram[0] = length;
            let mut request = Request::of(&generic(IPVS_FAMILY, REQUEST, 15, &[])).unwrap();
            for message in messages(&datagram) {
                let _ = (request.is_answered_by(&message), message.error(), message.text());
            }
            let _ = (is_for_daemon(&datagram), is_for_daemon(&bytes), Request::of(&datagram));
        }
    }
}
