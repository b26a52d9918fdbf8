// The programs of the wire benchmarks' lab: a generator, a sink that counts and takes delays, and the shortest ways from one
// interface to another. src/lab/program.rs loads them; the maps' values are arrays of 64-bit words in the order of the
// structs here.

#include "generator.h"

static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;

#define ETHERNET 14
#define HEADERS 42 // Ethernet, IPv4 without options, UDP
#define STAMP HEADERS
#define FRAME (STAMP + 8)
#define IP_CHECKSUM (ETHERNET + 10)
#define IP_SOURCE (ETHERNET + 12)
#define UDP_SOURCE (ETHERNET + 20)

// What a generator sends.
struct order {
	__u64 flows; // how many; numbers first, first + step, ...
	__u64 first;
	__u64 step;
	__u64 egress;   // the interface's index
	__u64 interval; // ns from frame to frame; 0: without a pause
	__u64 stamped;  // whether frames carry the time
	__u64 checksum; // the sum of the IP header's words, source and checksum left out
	__u64 header[6]; // the frame's first 48 bytes
	__u64 flood;     // of 256 frames, so many are of a flood: each from a source of its own
	__u64 flood_checksum;
	__u64 flood_header[6];
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct order);
	MAP_NUMBER(max_entries, 1);
} orders SEC(".maps");

// Not 0: the generator is to end.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, 1);
} stops SEC(".maps");

// A frame that is due so long ago is not made up for: the delay of those after it would be the generator's own.
#define GIVEN_UP_NS 20000

// Writes the headers of a frame from this source.
INLINE void write_headers(__u8 *frame, const __u64 *header, __u64 checksum, __u32 source, __u16 port)
{
	__u32 sum = checksum + (source >> 16) + (source & 0xffff);

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	__builtin_memcpy(frame, header, 48);
	*(__u32 *)(frame + IP_SOURCE) = NET32(source);
	*(__u16 *)(frame + UDP_SOURCE) = NET16(port);
	*(__u16 *)(frame + IP_CHECKSUM) = NET16((__u16)~sum);
}

// A flood's sources are of 32.0.0.0/4.
#define FLOOD_SOURCE (2u << 28)

// Run over frames that the kernel makes for it (BPF_PROG_TEST_RUN with live frames). The frame's memory may have been on the
// way before: everything that a forwarder changes is written anew.
SEC("xdp")
int generate(struct xdp_md *context)
{
	__u8 *frame = (void *)(long)context->data;
	__u32 zero = 0;
	struct order *order = bpf_map_lookup_elem(&orders, &zero);
	struct progress *progress = bpf_map_lookup_elem(&progresses, &zero);
	__u64 *stop = bpf_map_lookup_elem(&stops, &zero);
	__u32 flow, mixed, chance;
	__u64 now = 0;

	if (!order || !progress || !stop || frame + FRAME > (__u8 *)(long)context->data_end || *stop)
		return XDP_DROP;
	if (order->interval) {
		now = bpf_ktime_get_ns();
		if (!is_due(progress, now, order->interval, GIVEN_UP_NS))
			return XDP_DROP;
	}
	chance = order->flood ? random_below(progress, 256) : 256;
	if (chance < order->flood) {
		mixed = random_below(progress, 1u << 28);
		write_headers(frame, order->flood_header, order->flood_checksum, FLOOD_SOURCE | mixed,
			      (__u16)progress->random);
		progress->sent++;
		progress->flooded++;
		return bpf_redirect(order->egress, 0);
	}
	flow = order->first + random_below(progress, order->flows) * order->step;
	// As src/traffic.rs has it.
	mixed = flow * 0x9e3779b1u;
	write_headers(frame, order->header, order->checksum, 16u << 24 | mixed >> 6, 32768 + (mixed & 63));
	*(__u64 *)(frame + STAMP) = order->stamped ? (now ? now : bpf_ktime_get_ns()) : 0;
	progress->sent++;
	return bpf_redirect(order->egress, 0);
}

// Delays are counted in buckets, 64 for each power of two: exact to 1.6 %.
#define SUB_BITS 6
#define LONGEST ((1ull << 37) - 1)
#define BUCKETS 2048

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, 1);
} arrived SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, BUCKETS);
} delays SEC(".maps");

// The same by when frames arrived, with a quarter of the buckets: the host of a virtual machine takes its cores away now and then, and
// what is slow meanwhile tells of nothing else.
#define SLICE_SHIFT 24
#define SLICES 256

struct slice {
	__u64 counts[BUCKETS / 4];
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct slice);
	MAP_NUMBER(max_entries, SLICES);
} slices SEC(".maps");

// Frames of a flood that have arrived.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, 1);
} flooded SEC(".maps");

INLINE __u32 bucket(__u64 delay)
{
	__u32 shift = 0;

	if (delay > LONGEST)
		delay = LONGEST;
#pragma unroll
	for (__u32 step = 16; step; step /= 2)
		if (delay >> shift >> step >= 1 << SUB_BITS)
			shift += step;
	return (shift << SUB_BITS) + (__u32)(delay >> shift);
}

INLINE void count(void *map, __u32 key)
{
	__u64 *counter = bpf_map_lookup_elem(map, &key);

	if (counter)
		++*counter;
}

INLINE void count_delay(__u64 now, __u64 delay)
{
	__u32 at = bucket(delay), number = (now >> SLICE_SHIFT) % SLICES;
	struct slice *slice = bpf_map_lookup_elem(&slices, &number);

	count(&delays, at);
	// A slice may begin on one core and end on another.
	if (slice)
		__sync_fetch_and_add(&slice->counts[at / 4 % (BUCKETS / 4)], 1);
}

// Whether it is one of the generator's frames: over IPv4 to 198.18.0.0/15, UDP or a flood's.
INLINE int is_generated(__u8 *frame, __u8 *end)
{
	return frame + FRAME <= end && *(__u16 *)(frame + 12) == NET16(0x0800) && frame[ETHERNET + 16] == 198 &&
	       (frame[ETHERNET + 17] & 0xfe) == 18 && (frame[ETHERNET + 9] == 17 || frame[IP_SOURCE] >> 4 == 2);
}

SEC("xdp")
int sink(struct xdp_md *context)
{
	__u8 *frame = (void *)(long)context->data;
	__u64 stamp, now;

	if (!is_generated(frame, (void *)(long)context->data_end))
		return XDP_PASS;
	if (frame[IP_SOURCE] >> 4 == 2) {
		count(&flooded, 0);
		return XDP_DROP;
	}
	count(&arrived, 0);
	stamp = *(__u64 *)(frame + STAMP);
	if (stamp) {
		now = bpf_ktime_get_ns();
		count_delay(now, now > stamp ? now - stamp : 0);
	}
	return XDP_DROP;
}

// The least that an AF_XDP forwarder can have before it: each frame goes to the socket of its queue.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_XSKMAP);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
	MAP_NUMBER(max_entries, 64);
} sockets SEC(".maps");

SEC("xdp.frags")
int to_socket(struct xdp_md *context)
{
	return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
}

// The kernel's shortest way.
struct way {
	__u64 egress;
	__u64 macs[2]; // destination, source, 4 bytes of nothing
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct way);
	MAP_NUMBER(max_entries, 1);
} ways SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *context)
{
	__u8 *frame = (void *)(long)context->data;
	__u32 zero = 0;
	struct way *way = bpf_map_lookup_elem(&ways, &zero);

	if (!way || !is_generated(frame, (void *)(long)context->data_end))
		return XDP_PASS;
	__builtin_memcpy(frame, way->macs, 12);
	return bpf_redirect(way->egress, 0);
}

// By thread, how often it has called the kernel; of those threads only that are entered.
struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u64);
	MAP_NUMBER(max_entries, 64);
} calls SEC(".maps");

SEC("raw_tp/sys_enter")
int count_calls(void *context)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();

	(void)context;
	count(&calls, thread);
	return 0;
}

// The kernel's wording for a program that may use its helpers; the code is under the project's licences.
char lab_license[] SEC("license") = "Dual MIT/GPL";
