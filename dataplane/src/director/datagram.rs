//! Datagrams in fragments, and packets that have to be cut: what leaves is not the frame that came in, but what is in
//! [`Director::emitted`](super::Director::emitted). The cold path; see [`crate::fragment`].

use super::Director;
use crate::clock::Now;
use crate::destination::Path;
use crate::flow::Family;
use crate::fragment::{Cut, Datagram, Outcome, Taken};
use crate::packet::{Fragment, Packet};
use crate::port::InterfaceSlot;
use crate::verdict::{DropReason, Verdict};

/// Why a datagram doesn't go on, and whom to tell: the packet, and the MTU that it is too big for.
type Refusal = (DropReason, Option<(Packet, u32)>);

impl Director {
    pub(super) fn take_fragment(
        &mut self,
        head: &[u8],
        wire_len: usize,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Verdict {
        let fragment = match Fragment::parse(head, wire_len) {
            Ok(fragment) => fragment,
            Err(reason) => return self.drop(reason),
        };
        let Taken { outcome, refused, timed_out, evicted } = self.fragments.take(&fragment, head, now);
        self.counters.drop_frames(DropReason::ReassemblyTimeout, timed_out);
        self.counters.drop_frames(DropReason::ReassemblyFull, evicted);
        match outcome {
            Outcome::Held => {
                self.counters.fragments_held.add(1);
                Verdict::Held
            }
            Outcome::Refused(reason) => {
                self.counters.drop_frames(reason, refused);
                self.drop(reason)
            }
            Outcome::Complete(datagram) => self.send_on(&datagram, ingress, now),
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

    fn send_on(&mut self, datagram: &Datagram, ingress: InterfaceSlot, now: Now) -> Verdict {
        let fragments = datagram.pieces().len();
        let mut whole = std::mem::take(&mut self.whole);
        let verdict = match self.cut_datagram(datagram, &mut whole, ingress, now) {
            Ok(egress) => {
                self.counters.fragments_reassembled.add(fragments as u64);
                Verdict::Emit(egress)
            }
            Err((reason, told)) => {
                if let Some((packet, mtu)) = told {
                    self.answer_to(&whole, &packet, reason, mtu, now);
                }
                self.counters.drop_frames(reason, fragments);
                Verdict::Drop(reason)
            }
        };
        self.whole = whole;
        verdict
    }

    /// Routes a complete datagram as one packet, and leaves its fragments in the emission.
    fn cut_datagram(
        &mut self,
        datagram: &Datagram,
        whole: &mut Vec<u8>,
        ingress: InterfaceSlot,
        now: Now,
    ) -> Result<InterfaceSlot, Refusal> {
        datagram.join(whole).map_err(|reason| (reason, None))?;
        let packet = Packet::parse(whole, whole.len()).map_err(|reason| match reason {
            // A fragment within a fragment.
            DropReason::Fragment => (DropReason::MalformedExtension, None),
            reason => (reason, None),
        })?;
        let path = self.find_path(&packet, ingress, now).map_err(|reason| (reason, Some((packet, 0))))?;
        let refused = |reason| (reason, Some((packet, path.mtu)));
        if packet.ttl <= 1 {
            return Err(refused(DropReason::TtlExceeded));
        }
        let (longest, mtu) = (datagram.longest(), path.mtu as usize);
        let first = datagram.first_part();
        let has_transport_header = packet.l4_offset + packet.transport.header_len() <= first.end;
        let largest = if longest > mtu {
            if !may_be_cut(whole, &packet) {
                return Err(refused(DropReason::TooBig));
            }
            Some(mtu)
        } else {
            // A real server's firewall would drop a first fragment without ports.
            (!has_transport_header).then_some(longest)
        };
        match largest {
            None => self.emission.take_over(datagram),
            Some(largest) => self
                .emission
                .cut(&Cut {
                    family: packet.family,
                    ip_offset: packet.ip_offset,
                    header: &datagram.header(whole),
                    payload: &whole[first.start..],
                    largest,
                })
                .map_err(refused)?,
        }
        self.emission.send_along(&path, packet.family, self.wall_clock.midnight_ms(now));
        Ok(path.egress)
    }

    /// A packet that is larger than its way's MTU: cut if it may be, refused if not. One in several buffers is not cut.
    #[cold]
    pub(super) fn too_big(&mut self, head: &[u8], packet: &Packet, path: &Path, now: Now) -> Verdict {
        let end = packet.ip_offset + packet.ip_len as usize;
        let header_end = packet.ip_offset + header_len(head, packet);
        let cut = match (head.get(..header_end), head.get(header_end..end)) {
            (Some(header), Some(payload)) if may_be_cut(head, packet) => self.emission.cut(&Cut {
                family: packet.family,
                ip_offset: packet.ip_offset,
                header,
                payload,
                largest: path.mtu as usize,
            }),
            _ => Err(DropReason::TooBig),
        };
        match cut {
            Ok(()) => {
                self.emission.send_along(path, packet.family, self.wall_clock.midnight_ms(now));
                self.counters.packets_fragmented.add(1);
                Verdict::Emit(path.egress)
            }
            Err(reason) => self.refuse(head, packet, reason, path.mtu, now),
        }
    }
}

/// The length of an IPv4 packet's header.
fn header_len(frame: &[u8], packet: &Packet) -> usize {
    frame.get(packet.ip_offset).map_or(0, |first| usize::from(first & 0xf) * 4)
}

/// Whether routers may fragment the packet: IPv4 without DF.
fn may_be_cut(frame: &[u8], packet: &Packet) -> bool {
    let dont_fragment = frame.get(packet.ip_offset + 6).is_none_or(|flags| flags & 0x40 != 0);
    packet.family == Family::V4 && !dont_fragment
}
