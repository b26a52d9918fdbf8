//! A worker's own way to the flows it saw last.

use divan::{Bencher, black_box};
use xlvs_dataplane::connection::cache::FlowCache;

const ENTRIES: usize = 1 << 16;
/// The upper half is the tag.
const HASH: u64 = 0x1234_5678_9abc_def0;

#[divan::bench]
fn find(bencher: Bencher<'_, '_>) {
    let mut cache = FlowCache::new(ENTRIES);
    cache.remember(HASH, 7);
    assert_eq!(cache.find(HASH), Some(7));
    bencher.bench_local(|| cache.find(black_box(HASH)));
}

#[divan::bench]
fn remember(bencher: Bencher<'_, '_>) {
    let mut cache = FlowCache::new(ENTRIES);
    bencher.bench_local(|| cache.remember(black_box(HASH), 7));
}
