// What programs share that the kernel runs over frames which it makes for them (BPF_PROG_TEST_RUN with live frames): how far they are,
// chance, and when the next frame is due. Of the benchmarks' generator and of the tests' noise.
#ifndef XLVS_GENERATOR_H
#define XLVS_GENERATOR_H

#include "../../dataplane/bpf/bpf.h"

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(__u32 interface, __u64 flags) = (void *)23;

// What a generator knows from frame to frame.
struct progress {
	__u64 random; // not 0
	__u64 due;    // when the next frame is due
	__u64 sent;
	__u64 late; // frames that were given up, as they were due too long ago
	__u64 flooded; // of those sent, the flood's
};

struct {
	MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct progress);
	MAP_NUMBER(max_entries, 1);
} progresses SEC(".maps");

// A number below `bound`, of the generator's own xorshift64*.
INLINE __u32 random_below(struct progress *progress, __u64 bound)
{
	__u64 random = progress->random;

	random ^= random >> 12;
	random ^= random << 25;
	random ^= random >> 27;
	progress->random = random;
	return (((random * 0x2545f4914f6cdd1dull) >> 32) * bound) >> 32;
}

// Whether a frame is due, of those that are every so many ns. What is due longer than `given_up_ns` is not made up for.
INLINE int is_due(struct progress *progress, __u64 now, __u64 interval, __u64 given_up_ns)
{
	if (now < progress->due)
		return 0;
	if (now - progress->due > given_up_ns) {
		// The first frame of all is due at 0.
		if (progress->due)
			progress->late += (now - progress->due) / interval;
		progress->due = now;
	}
	progress->due += interval;
	return 1;
}

#endif
