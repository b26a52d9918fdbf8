//! Netlink messages and attributes, as the tests write and read them.

/// A message with a generic header.
pub(crate) fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    command: u8,
    attributes: &[u8],
) -> Vec<u8> {
    framed(kind, flags, sequence, port, &[&[command, 1, 0, 0], attributes].concat())
}

/// A message with any payload.
pub(crate) fn framed(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(port.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

/// An attribute.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A nest of attributes, without or with the flag that says so.
pub(crate) fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | 0x8000, attributes)
}

/// The attributes: type without flags, and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        all.push((kind, bytes[4..length].to_vec()));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    all
}

/// The value of the attribute of a type.
pub(crate) fn find(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<Vec<u8>> {
    attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.clone())
}

/// Half a word of a message.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

/// A word of a message.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap())
}
