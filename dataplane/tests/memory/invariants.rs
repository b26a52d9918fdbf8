//! What holds for any frame: one that is not forwarded stays as it was; a forwarded one differs in its MAC addresses, TTL, IPv4
//! options and checksum alone; what else leaves is a whole frame that fits its interface.

use xlvs_dataplane::packet::Packet;
use xlvs_dataplane::port::InterfaceSlot;
use xlvs_dataplane::verdict::{DropReason, Verdict};

use super::frame::{ip_len, ip_offset, mend_checksum};
use super::lab::Lab;

/// Two MAC addresses, EtherType and two tags.
const MAX_LINK_HEADER: usize = 22;

/// Hands a worker a frame of `wire_len` bytes whose first buffer is `head`. Its verdict, or what should not be.
pub fn one_frame(lab: &mut Lab, worker: usize, head: &[u8], wire_len: usize) -> Result<Verdict, String> {
    let mut frame = head.to_vec();
    let director = &mut lab.directors[worker];
    let verdict = director.process_head(&mut frame, wire_len, InterfaceSlot(0), lab.now);
    if matches!(verdict, Verdict::Forward(_)) {
        forwarded(head, &frame)?;
    } else if frame != head {
        return Err("a frame that was not forwarded was changed".to_owned());
    }
    match verdict {
        Verdict::Emit(slot) => {
            let mtu = if slot.0 == 0 { 1500 } else { 9000 };
            for frame in director.emitted() {
                emitted(frame, mtu)?;
            }
        }
        Verdict::Drop(_) => answer(head, director.answer())?,
        Verdict::Forward(_) | Verdict::ToHost(_) | Verdict::EmitToHost | Verdict::Held => {}
    }
    Ok(verdict)
}

/// The positions at which two frames of one length differ.
fn differences<'a>(a: &'a [u8], b: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    (0..a.len()).filter(|&at| a[at] != b[at])
}

fn forwarded(input: &[u8], frame: &[u8]) -> Result<(), String> {
    let ip = ip_offset(input);
    let (allowed, ttl): (&[usize], _) =
        if input[ip] >> 4 == 6 { (&[7], ip + 7) } else { (&[8, 10, 11], ip + 8) };
    let options = if input[ip] >> 4 == 6 { 0..0 } else { 20..usize::from(input[ip] & 0xf) * 4 };
    for at in differences(input, frame) {
        let in_ip = at.wrapping_sub(ip);
        if at >= 12 && !allowed.contains(&in_ip) && !options.contains(&in_ip) {
            return Err(format!("byte {at} was changed"));
        }
    }
    if frame[ttl] != input[ttl] - 1 {
        return Err(format!("a TTL of {} became one of {}", input[ttl], frame[ttl]));
    }
    checksum(frame)
}

fn checksum(frame: &[u8]) -> Result<(), String> {
    let mut mended = frame.to_vec();
    mend_checksum(&mut mended);
    if mended == frame { Ok(()) } else { Err(format!("the IPv4 checksum is wrong: {frame:02x?}")) }
}

fn emitted(frame: &[u8], mtu: usize) -> Result<(), String> {
    if frame.len() > mtu + MAX_LINK_HEADER {
        return Err(format!("a frame of {} bytes for an MTU of {mtu}", frame.len()));
    }
    checksum(frame)?;
    match Packet::parse(frame, frame.len()) {
        Ok(_) | Err(DropReason::Fragment) => Ok(()),
        // Its sender left room for a whole address and a part of one: the first, which is in now, is all that it gets.
        Err(DropReason::MalformedOption) if ends_in_part_of_an_entry(frame) => Ok(()),
        Err(reason) => {
            Err(format!("a frame was made that is itself refused ({}): {frame:02x?}", reason.name()))
        }
    }
}

/// An answer goes back to where the frame came from, and is a whole IP packet.
fn answer(input: &[u8], answer: &[u8]) -> Result<(), String> {
    if answer.is_empty() {
        return Ok(());
    }
    checksum(answer)?;
    let ends = ip_offset(answer) + ip_len(answer);
    if answer[..6] != input[6..12] || ends != answer.len() {
        return Err(format!("an answer to {input:02x?} is none: {answer:02x?}"));
    }
    Ok(())
}

/// Whether what is wrong with a frame's options is that one has been filled in up to where no whole entry has room (RFC 791 3.1:
/// the next router is to refuse it, as the kernel does too).
fn ends_in_part_of_an_entry(frame: &[u8]) -> bool {
    const RECORD_ROUTE: u8 = 7;
    const TIMESTAMP: u8 = 68;
    let ip = ip_offset(frame);
    let end = ip + usize::from(frame[ip] & 0xf) * 4;
    let mut full = frame.to_vec();
    let mut at = ip + 20;
    while at + 2 < end && frame[at] != 0 {
        let len = if frame[at] == 1 { 1 } else { usize::from(frame[at + 1]) };
        if matches!(frame[at], RECORD_ROUTE | TIMESTAMP) && usize::from(frame[at + 2]) <= len {
            full[at + 2] = frame[at + 1] + 1;
        }
        at += len.max(1);
    }
    mend_checksum(&mut full);
    matches!(Packet::parse(&full, full.len()), Ok(_) | Err(DropReason::Fragment))
}
