//! The way to known flows without a lock.

use divan::{Bencher, black_box};
use xlvs_dataplane::connection::cache::FlowCache;

const CONNECTIONS: u32 = 1 << 16;
/// The upper half is the tag.
const HASH: u64 = 0x1234_5678_9abc_def0;

#[divan::bench]
fn find(bencher: Bencher<'_, '_>) {
    let cache = FlowCache::new(CONNECTIONS);
    cache.remember(HASH, 7);
    assert_eq!(cache.find(HASH).slot(), Some(7));
    bencher.bench_local(|| cache.find(black_box(HASH)));
}

#[divan::bench]
fn remember(bencher: Bencher<'_, '_>) {
    let cache = FlowCache::new(CONNECTIONS);
    bencher.bench_local(|| cache.remember(black_box(HASH), 7));
}
