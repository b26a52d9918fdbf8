// Sends one of many frames that were written beforehand, with a few bytes changed, each time that the kernel runs it over a frame.
// kit/live.rs loads it; the maps' values are arrays of 64-bit words in the order of the structs here.

#include "generator.h"

static long (*const bpf_xdp_adjust_tail)(struct xdp_md *context, int delta) = (void *)65;

// A frame's words; those after its end are not sent.
#define WORDS 29
#define KINDS 2048

struct order {
	__u64 egress;   // the interface's index
	__u64 interval; // ns from frame to frame; 0: without a pause
	__u64 stop;     // not 0: the generator is to end
};

struct frame {
	__u64 bytes;
	__u64 vary; // two bytes that are others each time begin here
	__u64 word[WORDS];
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct order);
	MAP_NUMBER(max_entries, 1);
} orders SEC(".maps");

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct frame);
	MAP_NUMBER(max_entries, KINDS);
} frames SEC(".maps");

// What others on the sender's core take from it is made up for, in bursts that the receiver's rings have room for.
#define GIVEN_UP_NS 4000000

// The memory may have been on the way before, and its end is where it was at first: all of it is written anew.
SEC("xdp")
int noise(struct xdp_md *context)
{
	__u8 *data = (void *)(long)context->data;
	__u32 zero = 0, kind;
	struct order *order = bpf_map_lookup_elem(&orders, &zero);
	struct progress *progress = bpf_map_lookup_elem(&progresses, &zero);
	struct frame *frame;
	__u8 *vary;

	if (!order || !progress || data + sizeof(frame->word) > (__u8 *)(long)context->data_end || order->stop)
		return XDP_DROP;
	if (order->interval && !is_due(progress, bpf_ktime_get_ns(), order->interval, GIVEN_UP_NS))
		return XDP_DROP;
	kind = random_below(progress, KINDS);
	frame = bpf_map_lookup_elem(&frames, &kind);
	if (!frame)
		return XDP_DROP;
#pragma unroll
	for (int at = 0; at < WORDS; at++)
		*(__u64 *)(data + 8 * at) = frame->word[at];
	vary = data + (frame->vary & 127);
	if (vary + 2 > (__u8 *)(long)context->data_end)
		return XDP_DROP;
	*(__u16 *)vary = (__u16)progress->random;
	if (bpf_xdp_adjust_tail(context, (int)frame->bytes - (int)sizeof(frame->word)))
		return XDP_DROP;
	progress->sent++;
	return bpf_redirect(order->egress, 0);
}

// The kernel's wording for a program that may use its helpers; the code is under the project's licences.
char noise_license[] SEC("license") = "Dual MIT/GPL";
