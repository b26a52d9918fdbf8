// The steering program: decides for each frame of an interface whether it is the director's (redirected to the AF_XDP
// socket of its queue) or the kernel's (passed on untouched). It is the first thing that a frame meets.
//
// Invariants:
// - A frame is the director's only if a rule says so: everything that is not understood, not addressed to this
//   interface, or not served goes to the kernel.
// - A served frame never leaks to the kernel, which would answer it with RST: without a socket it is dropped.
// - It keeps no state but counters; user space (src/port/af_xdp/steering.rs) owns all maps. Their keys are in network
//   byte order. A change of the rules becomes visible map entry by map entry, with no moment in which a port that is
//   served before and after is not served.
// - An address has one entry: its own in `vips`, else that of the longest prefix in `networks` that covers it. User space
//   has put into each entry what the networks around it serve, so that no other has to be looked at.
#include "bpf.h"
#include "maps.h"

// The most VLAN tags and IPv6 extension headers that are looked behind.
#define MAX_VLANS 2
#define MAX_EXTENSIONS 8

INLINE void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_SERVICE_VLAN 0x88a8

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__u16 type;
} __attribute__((packed));

struct vlan {
	__u16 tag;
	__u16 type;
};

struct ipv4 {
	__u8 version_length;
	__u8 service;
	__u16 total_length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct ipv6 {
	__u32 version_class_flow;
	__u16 payload_length;
	__u8 next;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

struct extension {
	__u8 next;
	__u8 length; // in units of 8 bytes, the first not counted
	__u16 fragment;
	__u32 rest;
};

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 rest;
};

struct l4_ports {
	__u16 source;
	__u16 destination;
};

enum {
	PROTOCOL_HOP_OPTIONS = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_ROUTING = 43,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_DESTINATION_OPTIONS = 60,
	PROTOCOL_SCTP = 132,
};

enum l4_state {
	L4_HERE,           // at `at`, if the frame is long enough
	L4_LATER_FRAGMENT, // in another frame
	L4_UNREADABLE,     // the headers before it are malformed, or the packet ends before it
	L4_TOO_DEEP,       // behind more extension headers than we follow
	L4_UNKNOWN,        // the frame ends before it says which protocol it is
};

struct l4 {
	void *at;
	__u32 offset; // of `at` in the frame (IPv6 only)
	enum l4_state state;
	__u8 protocol;
};

// The protocol's bit of each group in `vip.flags`, as a shift; or -1.
INLINE int protocol_shift(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return 0;
	case PROTOCOL_UDP:
		return 1;
	case PROTOCOL_SCTP:
		return 2;
	default:
		return -1;
	}
}

INLINE int same_address(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

// The entry of an address, wherever it was found.
struct served {
	struct address owner;
	__u32 flags;
	__u8 generation;
};

// The entry of the longest prefix that covers an address, given as its words: flags in bits 0 to 23, the generation in
// bits 24 to 31, the id above; or 0. A function of its own for the same reason as walk_ipv6.
__attribute__((noinline)) __u64 find_network(__u32 a, __u32 b, __u32 c, __u32 d)
{
	struct network_key key = {.prefix_bits = 8 * (sizeof(key) - sizeof(key.prefix_bits)), .address = {{a, b, c, d}}};
	__u32 zero = 0;
	__u32 *in_force = bpf_map_lookup_elem(&networks_in_force, &zero);
	struct network *network;

	if (!in_force)
		return 0;
	key.generation = *(volatile __u32 *)in_force;
	if (!key.generation)
		return 0;
	// Multicast and the limited broadcast belong to no network.
	if (!a && !b && c == NET32(0xffff)) {
		key.family = 4;
		if ((d & NET32(0xf0000000)) == NET32(0xe0000000) || d == 0xffffffff)
			return 0;
	} else {
		key.family = 6;
		if ((a & NET32(0xff000000)) == NET32(0xff000000))
			return 0;
	}
	network = bpf_map_lookup_elem(&networks, &key);
	if (!network)
		return 0;
	return (__u64)network->id << 32 | (__u32)key.generation << 24 | (network->flags & 0xffffff);
}

// The networks are looked at after `vips`, and which of them are in force is read after that: see `Steering::apply`.
INLINE int find_served(const struct address *address, struct served *served)
{
	struct vip *vip = bpf_map_lookup_elem(&vips, address);
	__u64 network;

	if (vip) {
		served->owner = *address;
		// Read once, as it may be changed meanwhile; masked as below, for the verifier to see one case and not two.
		served->flags = *(volatile __u32 *)&vip->flags & 0xffffff;
		served->generation = 0;
		return 1;
	}
	network = find_network(address->word[0], address->word[1], address->word[2], address->word[3]);
	served->owner = (struct address){{network >> 32, 0, 0, 0}};
	served->flags = network & 0xffffff;
	served->generation = network >> 24;
	return network != 0;
}

INLINE int serves_port(const struct served *served, int shift, __u8 protocol, __u16 port)
{
	if (served->flags & (VIP_ALL << shift))
		return 1;
	if (served->flags & (VIP_EXACT << shift)) {
		struct port_key key = {
			.owner = served->owner,
			.port = port,
			.protocol = protocol,
			.generation = served->generation,
		};

		if (bpf_map_lookup_elem(&ports, &key))
			return 1;
	}
	if (served->flags & (VIP_RANGE << shift)) {
		struct range_key key = {
			.prefix_bits = 8 * (sizeof(key) - sizeof(key.prefix_bits)),
			.owner = served->owner,
			.generation = served->generation,
			.protocol = protocol,
			.port = port,
		};

		if (bpf_map_lookup_elem(&ranges, &key))
			return 1;
	}
	return 0;
}

// `ip` is readable as a whole.
INLINE struct l4 find_l4_ipv4(struct ipv4 *ip)
{
	__u32 header = (ip->version_length & 0xf) * 4;
	struct l4 l4 = {.at = (void *)ip + header, .state = L4_HERE, .protocol = ip->protocol};

	if (ip->fragment & NET16(0x1fff))
		l4.state = L4_LATER_FRAGMENT;
	else if (header < sizeof(*ip) || NET16(ip->total_length) < header + sizeof(struct l4_ports))
		l4.state = L4_UNREADABLE;
	return l4;
}

// Walks the extension headers of the IPv6 packet at `offset` of the frame. A function of its own, which the kernel
// verifies once and not again at each call: loading the program has to be quick, as a restart waits for it. So it takes
// and returns offsets: the transport header's in bits 0 to 15, the protocol in bits 16 to 23, the state above.
#define PACKED_L4(offset, protocol, state) ((offset) | (__u32)(protocol) << 16 | (__u32)(state) << 24)
#define MAX_OFFSET 0x7fff

__attribute__((noinline)) __u32 walk_ipv6(struct xdp_md *context, __u32 offset)
{
	void *end = (void *)(long)context->data_end;
	void *data = (void *)(long)context->data;
	struct ipv6 *ip;
	__u32 start;
	__u8 protocol;

	if (offset > MAX_OFFSET)
		return PACKED_L4(0, 0, L4_UNKNOWN);
	ip = data + offset;
	if ((void *)(ip + 1) > end)
		return PACKED_L4(0, 0, L4_UNKNOWN);
	protocol = ip->next;
	offset += sizeof(*ip);
	start = offset;
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		struct extension *extension;

		if (protocol != PROTOCOL_HOP_OPTIONS && protocol != PROTOCOL_ROUTING &&
		    protocol != PROTOCOL_DESTINATION_OPTIONS && protocol != PROTOCOL_FRAGMENT) {
			if (NET16(ip->payload_length) < offset - start + sizeof(struct l4_ports))
				return PACKED_L4(0, protocol, L4_UNREADABLE);
			return PACKED_L4(offset, protocol, L4_HERE);
		}
		if (i == MAX_EXTENSIONS)
			break;
		if (offset > MAX_OFFSET)
			return PACKED_L4(0, 0, L4_UNKNOWN);
		extension = data + offset;
		if ((void *)(extension + 1) > end)
			return PACKED_L4(0, 0, L4_UNKNOWN);
		if (protocol == PROTOCOL_FRAGMENT) {
			if (extension->fragment & NET16(0xfff8))
				return PACKED_L4(0, extension->next, L4_LATER_FRAGMENT);
			offset += sizeof(*extension);
		} else {
			offset += ((__u32)extension->length + 1) * 8;
		}
		protocol = extension->next;
	}
	return PACKED_L4(0, protocol, L4_TOO_DEEP);
}

INLINE struct l4 find_l4_ipv6(struct xdp_md *context, __u32 offset)
{
	__u32 packed = walk_ipv6(context, offset);
	struct l4 l4 = {.protocol = packed >> 16, .state = packed >> 24};

	l4.offset = packed & 0xffff;
	if (l4.offset > MAX_OFFSET) {
		l4.offset = 0;
		l4.state = L4_UNREADABLE;
	}
	l4.at = (void *)(long)context->data + l4.offset;
	return l4;
}

// Whether a transport packet to or from (`inner`, of an ICMP error) this address is served.
INLINE int serves(struct l4 l4, const struct served *served, int inner, void *end)
{
	struct l4_ports *l4_ports = l4.at;
	int shift = protocol_shift(l4.protocol);

	if (shift < 0 || !(served->flags & (VIP_SERVED << shift)))
		return 0;
	// An ICMP error about a packet without ports can't be assigned: the kernel may have it.
	if (l4.state == L4_LATER_FRAGMENT)
		return !inner;
	// What can't be read is no connection of the kernel's either: the worker drops and counts it.
	if (l4.state != L4_HERE || (void *)(l4_ports + 1) > end)
		return 1;
	return serves_port(served, shift, l4.protocol, inner ? l4_ports->source : l4_ports->destination);
}

INLINE int serves_ipv4(struct ipv4 *ip, void *end)
{
	struct address destination;
	struct served served;
	struct l4 l4;
	struct icmp *icmp;
	struct ipv4 *quoted;

	if ((void *)(ip + 1) > end || ip->version_length >> 4 != 4)
		return 0;
	destination = (struct address){{0, 0, NET32(0xffff), ip->destination}};
	if (!find_served(&destination, &served))
		return 0;
	l4 = find_l4_ipv4(ip);
	if (l4.protocol != PROTOCOL_ICMP)
		return serves(l4, &served, 0, end);

	icmp = l4.at;
	quoted = (void *)(icmp + 1);
	if (l4.state != L4_HERE || (void *)(quoted + 1) > end)
		return 0;
	// Destination unreachable, source quench, time exceeded, parameter problem.
	if (icmp->type != 3 && icmp->type != 4 && icmp->type != 11 && icmp->type != 12)
		return 0;
	if (quoted->version_length >> 4 != 4 || quoted->source != ip->destination)
		return 0;
	return serves(find_l4_ipv4(quoted), &served, 1, end);
}

INLINE int serves_ipv6(struct xdp_md *context, __u32 offset, void *end)
{
	struct ipv6 *ip = (void *)(long)context->data + offset;
	struct address destination;
	struct served served;
	struct l4 l4;
	struct icmp *icmp;
	struct ipv6 *quoted;

	if ((void *)(ip + 1) > end || *(__u8 *)ip >> 4 != 6)
		return 0;
	destination = ip->destination;
	// ::ffff:a.b.c.d is no address on the wire, and IPv4's key here.
	if (!destination.word[0] && !destination.word[1] && destination.word[2] == NET32(0xffff))
		return 0;
	if (!find_served(&destination, &served))
		return 0;
	l4 = find_l4_ipv6(context, offset);
	if (l4.state == L4_UNKNOWN)
		return 0;
	// Nobody sends this in earnest, but a served port behind it must not answer with RST.
	if (l4.state == L4_TOO_DEEP)
		return 1;
	// The rest of a fragmented packet that has destination options before its transport header.
	if (l4.state == L4_LATER_FRAGMENT && l4.protocol == PROTOCOL_DESTINATION_OPTIONS)
		return 1;
	if (l4.protocol != PROTOCOL_ICMPV6)
		return serves(l4, &served, 0, end);

	icmp = l4.at;
	quoted = (void *)(icmp + 1);
	if (l4.state != L4_HERE || (void *)(quoted + 1) > end)
		return 0;
	// Destination unreachable, packet too big, time exceeded, parameter problem.
	if (icmp->type < 1 || icmp->type > 4)
		return 0;
	if (*(__u8 *)quoted >> 4 != 6 || !same_address(&quoted->source, &destination))
		return 0;
	l4 = find_l4_ipv6(context, l4.offset + sizeof(*icmp));
	if (l4.state == L4_UNKNOWN || l4.state == L4_TOO_DEEP)
		return 0;
	return serves(l4, &served, 1, end);
}

// Whether the frame is addressed to this interface's own MAC address.
INLINE int to_interface(struct ethernet *ethernet)
{
	__u32 zero = 0;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &zero);
	struct interface found = {0};

	__builtin_memcpy(&found, ethernet->destination, sizeof(ethernet->destination));
	return interface && interface->mac == found.mac;
}

INLINE int is_the_directors(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethernet *ethernet = (void *)(long)context->data;
	void *payload = ethernet + 1;
	__u32 offset = sizeof(*ethernet);
	__u16 type;

	if (payload > end || !to_interface(ethernet))
		return 0;
	type = ethernet->type;
	for (int i = 0; i < MAX_VLANS; i++) {
		struct vlan *vlan = payload;

		if (type != NET16(ETHERTYPE_VLAN) && type != NET16(ETHERTYPE_SERVICE_VLAN))
			break;
		if ((void *)(vlan + 1) > end)
			return 0;
		type = vlan->type;
		payload = vlan + 1;
		offset += sizeof(*vlan);
	}
	if (type == NET16(ETHERTYPE_IPV4))
		return serves_ipv4(payload, end);
	if (type == NET16(ETHERTYPE_IPV6))
		return serves_ipv6(context, offset, end);
	return 0;
}

SEC("xdp.frags")
int xlvs_steering(struct xdp_md *context)
{
	long action;

	if (!is_the_directors(context)) {
		count(PASSED);
		return XDP_PASS;
	}
	action = bpf_redirect_map(&xsks, context->rx_queue_index, XDP_DROP);
	count(action == XDP_REDIRECT ? REDIRECTED : NO_SOCKET);
	return action;
}

// The kernel's wording for a program that may use its helpers; the code is under the project's licences.
char steering_license[] SEC("license") = "Dual MIT/GPL";
