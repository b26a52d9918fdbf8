//! The calls that are measured, each in a function of its own that is not inlined: what is timed is what is counted, and a
//! counter of instructions that follows functions by name ([`crate::instructions`]) finds them.
//!
//! A batch is handed over as a worker does it (dataplane/src/worker.rs): all frames lie in their buffers, are looked at, and are
//! then decided about one after another.

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::director::{Director, Prefetched};
use xlvs_dataplane::port::{BATCH, InterfaceSlot};
use xlvs_dataplane::verdict::{DropReason, Verdict};

use crate::reference::floor;
use crate::traffic::CHUNK;

/// What a counter of instructions has to follow: the functions here.
pub(crate) const FUNCTIONS: [&str; 3] = ["measured_batch", "measured_expiry", "measured_floor"];

/// Up to [`BATCH`] frames in their buffers.
pub(crate) struct Frames<'b> {
    /// [`CHUNK`] bytes for each.
    pub(crate) chunks: &'b mut [u8],
    pub(crate) lengths: &'b [usize],
}

impl Frames<'_> {
    fn each(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let chunks = self.chunks.chunks_exact_mut(CHUNK);
        chunks.zip(self.lengths).map(|(chunk, &len)| &mut chunk[..len])
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) forwarded: usize,
    /// Why the last one was dropped.
    pub(crate) reason: Option<DropReason>,
}

/// A batch, as a worker hands it to its director; `seen` has room for it.
#[inline(never)]
pub(crate) fn measured_batch(
    director: &mut Director,
    mut frames: Frames<'_>,
    seen: &mut [Prefetched],
    now: Now,
) -> Outcome {
    let mut outcome = Outcome::default();
    let seen = &mut seen[..frames.lengths.len()];
    for (frame, seen) in frames.each().zip(&mut *seen) {
        let len = frame.len();
        director.look_at(frame, len, seen);
    }
    director.prefetch(seen);
    for (frame, seen) in frames.each().zip(&*seen) {
        let len = frame.len();
        match director.process_prefetched(seen, frame, len, InterfaceSlot(0), now) {
            Verdict::Forward(_) => outcome.forwarded += 1,
            Verdict::Drop(why) => outcome.reason = Some(why),
            Verdict::ToHost(_) | Verdict::Held | Verdict::Emit(_) | Verdict::EmitToHost => {}
        }
    }
    outcome
}

/// A slice of expiry; whether more is due.
#[inline(never)]
pub(crate) fn measured_expiry(director: &mut Director, now: Now) -> bool {
    director.expire(now, BATCH)
}

/// The floor of a batch: how many frames might be forwarded.
#[inline(never)]
pub(crate) fn measured_floor(mut frames: Frames<'_>) -> usize {
    frames.each().filter_map(|frame| floor(frame).then_some(())).count()
}
