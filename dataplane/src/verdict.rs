//! What becomes of a frame. Every frame that is not forwarded has a [`DropReason`], and every reason a counter.

use crate::port::InterfaceSlot;

/// The director's decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame was rewritten in place for its real server: transmit it on this interface.
    Forward(InterfaceSlot),
    /// The frame's IP packet, which begins at this byte, is for the director's own host. The frame is unchanged.
    ToHost(u8),
    /// The frame goes nowhere.
    Drop(DropReason),
    /// The frame is a fragment, and was copied: its datagram is not complete yet.
    Held,
    /// What became of the frame, or of the datagram that it completes, is in [`crate::director::Director::emitted`]: transmit
    /// those frames on this interface in its place.
    Emit(InterfaceSlot),
    /// The fragment completes a datagram for the director's own host: hand it the packets of
    /// [`crate::director::Director::emitted_packets`].
    EmitToHost,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a frame was not forwarded. The names are those that `xlvs status` prints.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in lists and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its Ethernet header, VLAN tags, IP header or IP length say.
    Truncated => "truncated",
    /// Neither IPv4 nor IPv6 behind the Ethernet header.
    NotIp => "not_ip",
    /// More than two VLAN tags.
    TooManyVlanTags => "too_many_vlan_tags",
    /// The IP version doesn't fit the EtherType, or a header length is impossible.
    MalformedIp => "malformed_ip",
    /// The IPv4 header checksum is wrong; the kernel's ip_rcv drops these too.
    Ipv4Checksum => "ipv4_checksum",
    /// An IPv6 extension header is malformed or out of order, or there are more than eight.
    MalformedExtension => "malformed_extension",
    /// The source address can't be a client's: multicast, loopback, unspecified, broadcast, or the VIP itself.
    MartianSource => "martian_source",
    /// An IPv4 option that prescribes the way (loose or strict source route); the kernel's `accept_source_route` is off too.
    SourceRoute => "source_route",
    /// An IPv4 option's length, pointer or room is impossible.
    MalformedOption => "malformed_option",
    /// A TCP, UDP or SCTP header is cut short or its length field is impossible.
    MalformedTransport => "malformed_transport",
    /// A fragment in several buffers, which is too large to be held.
    Fragment => "fragment",
    /// A fragment that is empty, or is not the last and no multiple of eight bytes long.
    MalformedFragment => "malformed_fragment",
    /// A fragment beyond the largest IP packet, 65535 bytes.
    FragmentTooLong => "fragment_too_long",
    /// A fragment that was held already.
    FragmentDuplicate => "fragment_duplicate",
    /// The fragments of a datagram of which two overlap, or contradict each other about its length (RFC 5722).
    FragmentOverlap => "fragment_overlap",
    /// The fragments of a datagram in more than 64.
    TooManyFragments => "too_many_fragments",
    /// Held fragments whose datagram was not complete in time.
    ReassemblyTimeout => "reassembly_timeout",
    /// Held fragments that made room for others.
    ReassemblyFull => "reassembly_full",
    /// An ICMP message that is no error about a packet of a known connection.
    Icmp => "icmp",
    /// Neither TCP nor UDP nor SCTP.
    OtherProtocol => "other_protocol",
    /// No virtual service has this address, protocol and port (any more).
    NoService => "no_service",
    /// Nothing is opened to this VIP, as another host has it now (or nobody); see
    /// [`ServiceTable::absent_vips`](crate::service::table::ServiceTable::absent_vips).
    VipAbsent => "vip_absent",
    /// TCP without a connection, and no SYN that could make one.
    NoConnection => "no_connection",
    /// A packet of a flow that is not known, in the moment after a start in which those of the former director are still being found.
    Restoring => "restoring",
    /// The service has no destination that can take a new connection.
    NoDestination => "no_destination",
    /// The connection's destination was removed.
    DestinationRemoved => "destination_removed",
    /// The connection's destination was removed or has failed, and its service resets such connections (`drain = "reset"`).
    DestinationReset => "destination_reset",
    /// One of the packets that `drop_packet` drops of those that would open a connection.
    DropPacket => "drop_packet",
    /// The real server's neighbour entry is not resolved.
    NeighborUnresolved => "neighbor_unresolved",
    /// The connection table is full (`max_connections`), and new flows are to be dropped then (`when_full = "drop"`).
    TableFull => "table_full",
    /// Of no known connection, while the table is full and frames come faster than the worker can deal with: those of known
    /// connections go first.
    Shed => "shed",
    /// Its source has opened as many connections lately as one may (`new_per_source`).
    SourceLimit => "source_limit",
    /// TTL or hop limit is used up.
    TtlExceeded => "ttl_exceeded",
    /// Larger than the MTU of the interface towards the real server.
    TooBig => "too_big",
    /// The egress interface's transmit ring is full.
    TransmitRingFull => "transmit_ring_full",
    /// This worker has no socket on the egress interface.
    NoEgressSocket => "no_egress_socket",
    /// The director's own host takes no more packets at the moment.
    HostFull => "host_full",
    /// There is no device by which the director's own host could be given the packet, or it is down.
    NoHostPath => "no_host_path",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_own_counters_and_have_different_names() {
        let mut names = std::collections::BTreeSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(names.insert(reason.name()), "{} is used twice", reason.name());
        }
    }
}
