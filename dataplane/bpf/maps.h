// The maps of the steering program, and the layouts of their keys and values. src/port/af_xdp/steering_keys.rs makes the same.
// Keys are in network byte order.
#ifndef XLVS_MAPS_H
#define XLVS_MAPS_H

#include "bpf.h"

struct address {
	__u32 word[4]; // IPv4 as ::ffff:a.b.c.d
};

// The value of `vips`: three groups of a bit for each protocol. With the lock in it (which we never take), user space can
// have the flags changed in place; replacing the entry could hide it from a look-up that is under way in its bucket.
struct vip {
	struct bpf_spin_lock lock;
	__u32 flags;
};
#define VIP_EXACT 0x000001u // has entries in `ports`
#define VIP_RANGE 0x000100u // has entries in `ranges`
#define VIP_ALL 0x010000u   // all ports
#define VIP_SERVED (VIP_EXACT | VIP_RANGE | VIP_ALL)

// The networks are exchanged all at once: a new set is entered beside the one in force under the other of two
// generations, then `networks_in_force` is changed.
struct network_key {
	__u32 prefix_bits; // with those of the three fields before the address
	__u8 generation;   // 1 or 2
	__u8 family;       // 4 or 6: ::/0 has no IPv4 address in it
	__u16 zero;
	struct address address;
};

struct network {
	__u32 flags; // as a VIP's
	__u32 id;    // in place of an address in `ports` and `ranges`
};

struct port_key {
	struct address owner; // the VIP, or the network's id and zeros
	__u16 port;
	__u8 protocol;
	__u8 generation; // of the network, 0 of a VIP
};

struct range_key {
	__u32 prefix_bits;
	struct address owner;
	__u8 generation;
	__u8 protocol;
	__u16 port;
};

// The interface's own MAC address and two zero bytes.
struct interface {
	__u64 mac;
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
	MAP_NUMBER(max_entries, 4096); // veth's most queues
} xsks SEC(".maps");

// These hold twice what user space allows, as a change adds before it removes.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, struct vip);
	MAP_NUMBER(max_entries, 32768);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
} vips SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_TYPE(key, struct network_key);
	MAP_TYPE(value, struct network);
	MAP_NUMBER(max_entries, 2048);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
} networks SEC(".maps");

// The generation of the networks that count, 0 for none.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
	MAP_NUMBER(max_entries, 1);
} networks_in_force SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_TYPE(key, struct port_key);
	MAP_TYPE(value, __u8);
	MAP_NUMBER(max_entries, 131072);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
} ports SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_TYPE(key, struct range_key);
	MAP_TYPE(value, __u8);
	MAP_NUMBER(max_entries, 131072);
	MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
} ranges SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct interface);
	MAP_NUMBER(max_entries, 1);
} interfaces SEC(".maps");

enum counter { REDIRECTED, PASSED, NO_SOCKET, COUNTERS };

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, COUNTERS);
} counters SEC(".maps");

#endif
