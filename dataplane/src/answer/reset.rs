//! TCP resets as a host sends them for a segment that belongs to no connection (RFC 9293 3.10.7.1).
//!
//! The segment's checksum is not looked at: a frame that never crossed a wire (veth, a local client) may have none yet.

use super::{HOP_LIMIT, IPV4_HEADER, IPV6_HEADER, turn_around};
use crate::checksum::ones_complement_sum;
use crate::flow::Family;
use crate::packet::{Packet, Transport};

const TCP_HEADER: usize = 20;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Of a TOS or traffic class, what says how a packet is to be treated, without ECN.
const DSCP: u8 = 0xfc;

/// Writes the frame that resets the sender of `packet`, a TCP segment; returns its length.
pub(super) fn write(out: &mut [u8], frame: &[u8], packet: &Packet) -> Option<usize> {
    let Transport::Tcp(flags) = packet.transport else { return None };
    let l2 = packet.ip_offset();
    let original = frame.get(l2..)?;
    let segment = frame.get(packet.l4_offset()..)?.first_chunk::<TCP_HEADER>()?;
    let word =
        |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let (sequence, acknowledgment) = (word(4), word(8));
    let data_offset = usize::from(segment[12] >> 4) * 4;
    let segment_len = packet.ip_len as usize - (packet.l4_offset() - l2);
    // Where its data begins is unknown when the header says what can't be.
    let data = segment_len.checked_sub(data_offset).filter(|_| data_offset >= TCP_HEADER)?;
    let (reset_sequence, reset_acknowledgment, reset_flags) = if flags.ack {
        (acknowledgment, 0, RST)
    } else {
        let len = data as u32 + u32::from(flags.syn) + u32::from(flags.fin);
        (0, sequence.wrapping_add(len), RST | ACK)
    };

    let header = match packet.family() {
        Family::V4 => IPV4_HEADER,
        Family::V6 => IPV6_HEADER,
    };
    let end = l2 + header + TCP_HEADER;
    let out = out.get_mut(..end)?;
    turn_around(out, frame, l2)?;
    let (ip, tcp) = out[l2..].split_at_mut(header);
    tcp.fill(0);
    tcp[..2].copy_from_slice(&segment[2..4]);
    tcp[2..4].copy_from_slice(&segment[..2]);
    tcp[4..8].copy_from_slice(&reset_sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&reset_acknowledgment.to_be_bytes());
    tcp[12] = (TCP_HEADER as u8 / 4) << 4;
    tcp[13] = reset_flags;
    let addresses = match packet.family() {
        Family::V4 => {
            let total = (IPV4_HEADER + TCP_HEADER) as u8;
            let tos = original[1] & DSCP;
            // Identification 0 and DF: such a packet is never fragmented (RFC 6864).
            ip[..12].copy_from_slice(&[0x45, tos, 0, total, 0, 0, 0x40, 0, HOP_LIMIT, 6, 0, 0]);
            ip[12..16].copy_from_slice(&original[16..20]);
            ip[16..20].copy_from_slice(&original[12..16]);
            let checksum = !ones_complement_sum(ip, 0);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            &ip[12..20]
        }
        Family::V6 => {
            let class = (original[0] << 4 | original[1] >> 4) & DSCP;
            let [first, second] = [0x60 | class >> 4, class << 4];
            ip[..8].copy_from_slice(&[first, second, 0, 0, 0, TCP_HEADER as u8, 6, HOP_LIMIT]);
            ip[8..24].copy_from_slice(&original[24..40]);
            ip[24..40].copy_from_slice(&original[8..24]);
            &ip[8..40]
        }
    };
    let pseudo = u32::from(ones_complement_sum(addresses, 0)) + TCP_HEADER as u32 + 6;
    let checksum = !ones_complement_sum(tcp, pseudo);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    Some(end)
}
