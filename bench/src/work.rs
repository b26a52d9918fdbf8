//! One worker of a benchmark: a director and the frames that it is given. Everything is done in batches of 64, and only
//! the director's own calls are timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::{Director, Prefetched};
use xlvs_dataplane::port::BATCH;
use xlvs_dataplane::service::table::ServiceTable;
use xlvs_dataplane::verdict::DropReason;

use crate::instructions::Meter;
use crate::measured::{Frames, measured_batch, measured_expiry, measured_floor};
use crate::pipeline::growth::Growth;
use crate::reference::RandomWalk;
use crate::samples::{Samples, Stopwatch, Time};
use crate::traffic::{CHUNK, Segment, Share, Spread};
use crate::world::{SHORT_MS, World};

/// Frames that the batches go round in: what a small UMEM has.
const CHUNKS: usize = 1024;
/// Time from a deadline to when its timer is surely due: two ticks of the timing wheel.
const TICKS_MS: u64 = 600;
/// How long a timer waits that waits for the timing wheel's horizon.
const HORIZON_MS: u64 = 4095 * 256;

/// One worker.
pub(crate) struct Hand<'w> {
    world: &'w World,
    director: Director,
    counters: Arc<WorkerCounters>,
    /// The flows that are this worker's to open.
    opens: Share,
    /// The flows whose packets come to this worker.
    sees: Share,
    random: ChaCha8Rng,
    watch: Stopwatch,
    chunks: Vec<u8>,
    first: usize,
    lengths: [usize; BATCH],
    /// What was seen of each frame of the batch, as a worker keeps it.
    seen: Vec<Prefetched>,
    /// How far this worker's clock is ahead of the machine's.
    ahead_ms: u64,
    /// When all lasting connections were there.
    populated: Now,
    /// Connections opened beyond the lasting ones.
    opened: u64,
    walked_to: u32,
    /// Counts what is measured; none while times are taken.
    meter: Option<Meter>,
    /// Frames that should have been forwarded and were not, and why the last one.
    lost: (u64, Option<DropReason>),
}

impl<'w> Hand<'w> {
    /// Memory that packets are written into.
    pub(crate) const FRAME_BYTES: u64 = (CHUNKS * CHUNK) as u64;

    pub(crate) fn new(world: &'w World, number: usize, any_worker: bool, seed: u64) -> Self {
        let counters = Arc::new(WorkerCounters::default());
        // Written once, so that all of it has its pages.
        let mut chunks = vec![0; CHUNKS * CHUNK];
        chunks.fill(0xff);
        let share = Share { first: number as u64, step: world.workers as u64 };
        Self {
            world,
            director: Director::new(
                Arc::clone(&world.lasting),
                &world.tables,
                Arc::clone(&world.fragments),
                Arc::clone(&counters),
                number,
                Now::read(),
            ),
            counters,
            opens: share,
            sees: if any_worker { Share { first: 0, step: 1 } } else { share },
            random: ChaCha8Rng::seed_from_u64(seed.wrapping_add(number as u64)),
            watch: Stopwatch::new(),
            chunks,
            first: 0,
            lengths: [0; BATCH],
            seen: vec![Prefetched::default(); BATCH],
            ahead_ms: 0,
            populated: Now::read(),
            opened: 0,
            walked_to: 0,
            meter: None,
            lost: (0, None),
        }
    }

    fn now(&self) -> Now {
        Now(Now::read().0 + self.ahead_ms)
    }

    /// Writes the next batch; `flow` says of each frame whose it is.
    fn write(&mut self, count: usize, segment: Segment, mut flow: impl FnMut(&mut ChaCha8Rng, u64) -> u64) {
        self.first = (self.first + BATCH) % CHUNKS;
        let chunks = self.chunks.chunks_exact_mut(CHUNK).skip(self.first);
        for (position, (chunk, len)) in chunks.zip(&mut self.lengths).take(count).enumerate() {
            let flow = flow(&mut self.random, position as u64);
            *len = self.world.traffic.write(chunk, flow, segment, self.world.lengths.pick(&mut self.random));
        }
    }

    /// Hands the first `count` frames of the batch to the director. Returns how long it took.
    fn process(&mut self, count: usize) -> Time {
        self.process_at(count, self.now())
    }

    fn process_at(&mut self, count: usize, now: Now) -> Time {
        self.process_some(0, count, now)
    }

    /// Hands frames of the batch to the director, from number `first` on.
    fn process_some(&mut self, first: usize, count: usize, now: Now) -> Time {
        let director = &mut self.director;
        let frames = frames(&mut self.chunks, &self.lengths, self.first + first, first..first + count);
        let (meter, seen) = (&mut self.meter, &mut self.seen);
        let (time, outcome) =
            self.watch.time(|| metered(meter, || measured_batch(director, frames, seen, now)));
        if outcome.forwarded != count {
            self.lose((count - outcome.forwarded) as u64, outcome.reason);
        }
        time
    }

    fn lose(&mut self, count: u64, reason: Option<DropReason>) {
        self.lost = (self.lost.0 + count, reason.or(self.lost.1));
    }

    /// Opens and establishes this worker's share of the lasting connections.
    pub(crate) fn populate(&mut self) {
        self.establish(self.opens);
    }

    /// Opens and establishes all lasting connections, as the only worker that does.
    pub(crate) fn populate_all(&mut self) {
        self.establish(Share { first: 0, step: 1 });
    }

    /// Opens and establishes this worker's share of the lasting connections, and times the opening of each.
    pub(crate) fn grow(&mut self, growth: &mut Growth) {
        let (opens, flows) = (self.opens, self.world.flows);
        let mine = flows.saturating_sub(opens.first).div_ceil(opens.step);
        let mut done = 0;
        while done < mine {
            let count = (mine - done).min(BATCH as u64) as usize;
            let flow = |_: &mut ChaCha8Rng, position| opens.flow(done + position);
            self.write(count, Segment::Opening, flow);
            let now = self.now();
            let mut spent = 0;
            for at in 0..count {
                let time = self.process_some(at, 1, now);
                spent += time.ns;
                growth.director.one(time);
            }
            while spent > 0 {
                let time = self.stand_still();
                spent = spent.saturating_sub(time.ns.max(1));
                growth.still.one(time);
            }
            self.write(count, Segment::Data, flow);
            self.process(count);
            self.write(count, Segment::Data, flow);
            (0..count).for_each(|at| growth.floor.one(self.floor_of(at, 1)));
            done += count as u64;
            growth.done(done, mine);
        }
        self.populated = self.now();
    }

    /// A microsecond, and what the machine takes of it.
    fn stand_still(&self) -> Time {
        let a_microsecond = || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_micros(1) {}
        };
        self.watch.time(a_microsecond).0
    }

    fn establish(&mut self, opens: Share) {
        let flows = self.world.flows;
        let mine = flows.saturating_sub(opens.first).div_ceil(opens.step);
        let mut done = 0;
        while done < mine {
            let count = (mine - done).min(BATCH as u64) as usize;
            for segment in [Segment::Opening, Segment::Data] {
                self.write(count, segment, |_, position| opens.flow(done + position));
                self.process(count);
            }
            done += count as u64;
        }
        self.populated = self.now();
    }

    /// Batches of packets of known connections. Only with `samples` are they timed.
    pub(crate) fn hit(&mut self, spread: Spread, batches: u32, mut samples: Option<&mut Samples>) {
        let (sees, flows) = (self.sees, self.world.flows);
        let before = self.counters.connections_created.get();
        for _ in 0..batches {
            self.write(BATCH, Segment::Data, |random, _| spread.pick(random, flows, &sees));
            let time = self.process(BATCH);
            if let Some(samples) = &mut samples {
                samples.batch(time, BATCH as u64);
            }
        }
        // A packet that opens a connection is no hit.
        self.lose(self.counters.connections_created.get() - before, None);
    }

    /// Batches of first packets of new flows, to live for a minute.
    pub(crate) fn open(&mut self, batches: u32, mut samples: Option<&mut Samples>) {
        let before = self.counters.connections_created.get();
        for _ in 0..batches {
            let (opens, from) = (
                self.opens,
                self.world.flows.next_multiple_of(self.opens.step) + self.opened * self.opens.step,
            );
            self.write(BATCH, Segment::Opening, |_, position| from + opens.flow(position));
            self.opened += BATCH as u64;
            let time = self.process(BATCH);
            if let Some(samples) = &mut samples {
                samples.batch(time, BATCH as u64);
            }
        }
        let created = self.counters.connections_created.get() - before;
        self.lose((u64::from(batches) * BATCH as u64).abs_diff(created), None);
    }

    /// Opens `count` connections that see no other packet, and expire evenly over the time from `begin` on, if nothing but their
    /// own director's clock ends them.
    pub(crate) fn open_idle(&mut self, count: u64, begin: Now, over: Duration) {
        drop(self.director.install(Arc::clone(&self.world.passing)));
        let first = self.world.flows + self.opened;
        self.opened += count;
        let mut done = 0;
        while done < count {
            let batch = (count - done).min(BATCH as u64);
            self.write(batch as usize, Segment::Opening, |_, position| first + done + position);
            let ends = begin.0 + (over.as_millis() as u64 * done) / count;
            self.process_at(batch as usize, Now(ends.saturating_sub(SHORT_MS)));
            done += batch;
        }
        drop(self.director.install(Arc::clone(&self.world.lasting)));
    }

    /// The director with all that it knows.
    pub(crate) fn into_director(self) -> Director {
        self.director
    }

    /// Lets a minute pass, and expires what was opened in it.
    pub(crate) fn expire(&mut self, samples: &mut Samples) {
        self.ahead_ms += SHORT_MS + TICKS_MS;
        let (now, begin) = (self.now(), self.counters.connections_expired.get());
        let opened = self.counters.connections_created.get() - begin;
        let mut more = true;
        while more {
            let before = self.counters.connections_expired.get();
            let (director, meter) = (&mut self.director, &mut self.meter);
            let (time, due) = self.watch.time(|| metered(meter, || measured_expiry(director, now)));
            samples.batch(time, self.counters.connections_expired.get() - before);
            more = due;
        }
        // Of all that it made only its lasting ones may be left.
        let left = opened - (self.counters.connections_expired.get() - begin);
        let lasting = self.world.flows.saturating_sub(self.opens.first).div_ceil(self.opens.step);
        self.lose(left.abs_diff(lasting), None);
    }

    /// From now on connections come and go, under this table. First all timers of lasting connections come due, which sets them
    /// anew, so that none does while others are timed. Those of UDP have stood at the wheel's horizon from the beginning, those
    /// of TCP were set for SYN_RECV; from then on each comes once a horizon. So the time between the last and the first of
    /// them is left.
    pub(crate) fn begin_passing(&mut self, passing: &Arc<ServiceTable>) {
        let now = self.now().0;
        let mut quiet = self.populated.0 + SHORT_MS + TICKS_MS + HORIZON_MS;
        while quiet < now {
            quiet += HORIZON_MS;
        }
        self.ahead_ms += quiet - now;
        let now = self.now();
        while self.director.expire(now, BATCH) {}
        drop(self.director.install(Arc::clone(passing)));
    }

    /// Counts what is measured from now on.
    pub(crate) fn begin_counting(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// What was counted since the last time; `None` if the counter is not this process's.
    pub(crate) fn counted(&mut self) -> Result<Option<u64>, String> {
        self.meter.as_mut().map_or(Ok(None), Meter::take)
    }

    /// The floor, over packets of the same flows.
    pub(crate) fn floor(&mut self, batches: u32, mut samples: Option<&mut Samples>) {
        let (sees, flows) = (self.sees, self.world.flows);
        for _ in 0..batches {
            self.write(BATCH, Segment::Data, |random, _| Spread::Uniform.pick(random, flows, &sees));
            let time = self.floor_of(0, BATCH);
            if let Some(samples) = &mut samples {
                samples.batch(time, BATCH as u64);
            }
        }
    }

    /// The floor of frames of the batch, from number `first` on. Returns how long it took.
    fn floor_of(&mut self, first: usize, count: usize) -> Time {
        let frames = frames(&mut self.chunks, &self.lengths, self.first + first, first..first + count);
        let meter = &mut self.meter;
        let (time, forwarded) = self.watch.time(|| metered(meter, || measured_floor(frames)));
        self.lose((count - forwarded) as u64, None);
        time
    }

    /// Batches of packets of known connections, given not to the director but to `handle`, which says whether a frame took
    /// its way.
    pub(crate) fn each(
        &mut self,
        spread: Spread,
        batches: u32,
        mut samples: Option<&mut Samples>,
        mut handle: impl FnMut(&mut [u8], Now) -> bool,
    ) {
        let (sees, flows) = (self.sees, self.world.flows);
        for _ in 0..batches {
            self.write(BATCH, Segment::Data, |random, _| spread.pick(random, flows, &sees));
            let now = self.now();
            let chunks = &mut self.chunks[self.first * CHUNK..(self.first + BATCH) * CHUNK];
            let lengths = &self.lengths;
            let (time, handled) = self.watch.time(|| {
                let frames = chunks.chunks_exact_mut(CHUNK).zip(lengths);
                frames.map(|(chunk, &len)| usize::from(handle(&mut chunk[..len], now))).sum::<usize>()
            });
            self.lose((BATCH - handled) as u64, None);
            if let Some(samples) = &mut samples {
                samples.batch(time, BATCH as u64);
            }
        }
    }

    /// [`Self::each`] over `warm` batches untimed and `batches` timed.
    pub(crate) fn stage(
        &mut self,
        warm: u32,
        batches: u32,
        samples: &mut Samples,
        mut handle: impl FnMut(&mut [u8], Now) -> bool,
    ) {
        self.each(Spread::Uniform, warm, None, &mut handle);
        self.each(Spread::Uniform, batches, Some(samples), &mut handle);
    }

    /// Workers walk apart, so that none finds what another has just brought into the cache.
    pub(crate) fn begin_walk(&mut self, walk: &RandomWalk, number: usize) {
        self.walked_to = (walk.len() * number / self.world.workers) as u32;
    }

    /// Random accesses, 64 at a time.
    pub(crate) fn walk(&mut self, walk: &RandomWalk, batches: u32, samples: &mut Samples) {
        // What fits a cache lies there, as it does for the director.
        let warm = walk.len().min(batches as usize * BATCH / 4);
        let mut at = walk.walk(self.walked_to, warm);
        for _ in 0..batches {
            let (time, to) = self.watch.time(|| std::hint::black_box(walk.walk(at, BATCH)));
            samples.batch(time, BATCH as u64);
            at = to;
        }
        self.walked_to = at;
    }

    /// Fails if any frame took another way than it was meant to.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.lost {
            (0, _) => Ok(()),
            (count, reason) => Err(format!(
                "{count} packets or connections did not take the way that was to be measured (flows {}, services {}, \
                 workers {}, {}; last drop: {}); the figures would be wrong",
                self.world.flows,
                self.world.services,
                self.world.workers,
                self.world.scheduler,
                reason.map_or("none", DropReason::name),
            )),
        }
    }
}

/// Frames of `chunks` from number `first` on, which have the lengths of these positions.
fn frames<'b>(
    chunks: &'b mut [u8],
    lengths: &'b [usize],
    first: usize,
    positions: std::ops::Range<usize>,
) -> Frames<'b> {
    let chunks = &mut chunks[first * CHUNK..(first + positions.len()) * CHUNK];
    Frames { chunks, lengths: &lengths[positions] }
}

/// Does `work`, and has it counted if something is.
fn metered<T>(meter: &mut Option<Meter>, work: impl FnOnce() -> T) -> T {
    match meter {
        None => work(),
        Some(meter) => meter.count(work),
    }
}
