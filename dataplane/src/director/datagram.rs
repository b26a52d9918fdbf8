//! Datagrams in fragments, and packets that have to be cut: what leaves is not the frame that came in, but what is in
//! [`Director::emitted`](super::Director::emitted). The cold path; see [`crate::fragment`].

use super::Director;
use crate::clock::Now;
use crate::destination::Path;
use crate::flow::Family;
use crate::fragment::{Cut, Datagram, Emission, Outcome, Taken};
use crate::packet::{Fragment, Packet};
use crate::verdict::{DropReason, Verdict};

impl Director {
    /// Takes a fragment in. The packet that it completes, if any, is in `joined` and `whole` until it is sent or refused.
    pub(super) fn take_fragment(
        &mut self,
        head: &[u8],
        wire_len: usize,
        now: Now,
    ) -> Result<Packet, Verdict> {
        let fragment = Fragment::parse(head, wire_len).map_err(|reason| self.drop(reason))?;
        let Taken { outcome, refused, timed_out, evicted } = self.fragments.take(&fragment, head, now);
        self.counters.drop_frames(DropReason::ReassemblyTimeout, timed_out);
        self.counters.drop_frames(DropReason::ReassemblyFull, evicted);
        match outcome {
            Outcome::Held => {
                self.counters.fragments_held.add(1);
                Err(Verdict::Held)
            }
            Outcome::Refused(reason) => {
                self.counters.drop_frames(reason, refused);
                Err(self.drop(reason))
            }
            Outcome::Complete(datagram) => self.join(datagram),
        }
    }

    fn join(&mut self, datagram: Datagram) -> Result<Packet, Verdict> {
        let joined = datagram.join(&mut self.whole);
        match joined.and_then(|()| Packet::parse(&self.whole, self.whole.len())) {
            Ok(packet) => {
                self.joined = Some(datagram);
                Ok(packet)
            }
            Err(reason) => {
                // A fragment within a fragment.
                let nested = reason == DropReason::Fragment;
                let reason = if nested { DropReason::MalformedExtension } else { reason };
                self.counters.drop_frames(reason, datagram.pieces().len());
                Err(Verdict::Drop(reason))
            }
        }
    }

    /// Drops datagrams that were not complete in time; returns how many.
    pub(super) fn expire_fragments(&mut self, now: Now, budget: usize) -> usize {
        if !self.fragments.is_due(now) {
            return 0;
        }
        let (datagrams, fragments) = self.fragments.expire(now, budget);
        self.counters.drop_frames(DropReason::ReassemblyTimeout, fragments);
        datagrams
    }

    /// Drops the joined datagram, with an answer to its sender where one is due.
    #[cold]
    pub(super) fn refuse_joined(
        &mut self,
        packet: &Packet,
        reason: DropReason,
        mtu: u32,
        now: Now,
    ) -> Verdict {
        let whole = std::mem::take(&mut self.whole);
        self.answer_to(&whole, packet, reason, mtu, now);
        self.whole = whole;
        let fragments = self.joined.take().map_or(1, |datagram| datagram.pieces().len());
        self.counters.drop_frames(reason, fragments);
        Verdict::Drop(reason)
    }

    /// Sends the joined datagram on, in fragments.
    #[cold]
    pub(super) fn send_joined(&mut self, packet: &Packet, path: &Path, now: Now) -> Verdict {
        let emitted = self.joined.as_ref().ok_or(DropReason::Truncated).and_then(|datagram| {
            emit(&mut self.emission, datagram, &self.whole, packet, path)?;
            Ok(datagram.pieces().len())
        });
        match emitted {
            Ok(fragments) => {
                self.emission.send_along(path, packet.family(), self.wall_clock.midnight_ms(now));
                self.counters.fragments_reassembled.add(fragments as u64);
                self.joined = None;
                Verdict::Emit(path.egress)
            }
            Err(reason) => self.refuse_joined(packet, reason, path.mtu, now),
        }
    }

    /// Hands the joined datagram to the host, in the fragments that it came in.
    pub(super) fn hand_joined(&mut self) -> Verdict {
        let Some(datagram) = self.joined.take() else { return self.drop(DropReason::Truncated) };
        self.emission.take_over(&datagram);
        self.counters.fragments_reassembled.add(datagram.pieces().len() as u64);
        Verdict::EmitToHost
    }

    /// A packet that is larger than its way's MTU: cut if it may be, refused if not. One in several buffers is not cut.
    #[cold]
    pub(super) fn too_big(&mut self, head: &[u8], packet: &Packet, path: &Path, now: Now) -> Verdict {
        let end = packet.ip_offset() + packet.ip_len as usize;
        let header_end = packet.ip_offset() + header_len(head, packet);
        let cut = match (head.get(..header_end), head.get(header_end..end)) {
            (Some(header), Some(payload)) if may_be_cut(head, packet) => self.emission.cut(&Cut {
                family: packet.family(),
                ip_offset: packet.ip_offset(),
                header,
                payload,
                largest: path.mtu as usize,
            }),
            _ => Err(DropReason::TooBig),
        };
        match cut {
            Ok(()) => {
                self.emission.send_along(path, packet.family(), self.wall_clock.midnight_ms(now));
                self.counters.packets_fragmented.add(1);
                Verdict::Emit(path.egress)
            }
            Err(reason) => self.refuse(head, packet, reason, path.mtu, now),
        }
    }
}

/// Puts a datagram's fragments into the emission: as they came, or cut anew of `whole` if they are larger than the way, or the
/// first of them lacks the transport header.
fn emit(
    emission: &mut Emission,
    datagram: &Datagram,
    whole: &[u8],
    packet: &Packet,
    path: &Path,
) -> Result<(), DropReason> {
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let (longest, mtu) = (datagram.longest(), path.mtu as usize);
    let first = datagram.first_part();
    let has_transport_header = packet.l4_offset() + packet.transport.header_len() <= first.end;
    let largest = match (longest > mtu, has_transport_header) {
        (true, _) if !may_be_cut(whole, packet) => return Err(DropReason::TooBig),
        (true, _) => mtu,
        (false, false) => longest,
        (false, true) => {
            emission.take_over(datagram);
            return Ok(());
        }
    };
    emission.cut(&Cut {
        family: packet.family(),
        ip_offset: packet.ip_offset(),
        header: &datagram.header(whole),
        payload: whole.get(first.start..).ok_or(DropReason::Truncated)?,
        largest,
    })
}

/// The length of an IPv4 packet's header.
fn header_len(frame: &[u8], packet: &Packet) -> usize {
    frame.get(packet.ip_offset()).map_or(0, |first| usize::from(first & 0xf) * 4)
}

/// Whether routers may fragment the packet: IPv4 without DF.
fn may_be_cut(frame: &[u8], packet: &Packet) -> bool {
    let dont_fragment = frame.get(packet.ip_offset() + 6).is_none_or(|flags| flags & 0x40 != 0);
    packet.family() == Family::V4 && !dont_fragment
}
