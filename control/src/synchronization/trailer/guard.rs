//! Which of the messages with a right MAC are new. Streams and times are the senders' word, so that all of it stands behind the MAC: who has
//! no key can neither fill a table here nor move a window.
//!
//! - Time: a message counts for [`TOLERANCE_MS`] before and after the receiver's clock.
//! - Number: of each stream the last [`WINDOW`] numbers are kept, each of which counts once, in any order; older ones don't count.
//! - A sender that starts again is another one, and its sockets are new streams.
//! - With [`MOST_STREAMS`] known, those are forgotten none of whose messages counts any more by its time. If there are none, the new
//!   stream's messages are dropped.
//! - What was forgotten stays out even if this host's clock is set back: a new stream has to begin after all of the forgotten ones ended.
//!
//! A receiver that starts knows no stream: what others were told in the last [`TOLERANCE_MS`] counts once more for it.

use foldhash::HashMap;

use super::{MacKey, Stamp, Stream, TrailerFault};

/// How much a message's time and the receiver's may differ, in milliseconds.
pub const TOLERANCE_MS: u64 = 30_000;
/// So many messages of a stream may overtake one.
pub const WINDOW: u64 = 64;
/// Streams that are kept apart: of all peers that a configuration may name, with the most ports each, and as many of former ones.
pub const MOST_STREAMS: usize = 2 * 64 * 128;

/// What came of a stream.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The highest number.
    number: u64,
    /// Bit n: the one that is n less came.
    came: u64,
    /// The latest time in any of its messages.
    sent_ms: u64,
}

impl Heard {
    const fn first(stamp: &Stamp) -> Self {
        Self { number: stamp.number, came: 1, sent_ms: stamp.sent_ms }
    }

    /// Whether it is new.
    fn take(&mut self, stamp: &Stamp) -> bool {
        if let Some(ahead @ 1..) = stamp.number.checked_sub(self.number) {
            self.came = if ahead < WINDOW { self.came << ahead | 1 } else { 1 };
            self.number = stamp.number;
        } else {
            let behind = self.number - stamp.number;
            if behind >= WINDOW || self.came >> behind & 1 == 1 {
                return false;
            }
            self.came |= 1 << behind;
        }
        self.sent_ms = self.sent_ms.max(stamp.sent_ms);
        true
    }

    /// Whether the time of all that came is over.
    const fn is_over(&self, now_ms: u64) -> bool {
        self.sent_ms.saturating_add(TOLERANCE_MS) < now_ms
    }
}

/// What a receiver believes.
#[derive(Debug)]
pub struct Guard {
    /// This director, whose own messages somebody may send back.
    own: u64,
    streams: HashMap<Stream, Heard>,
    /// The latest time in any message of a stream that was forgotten.
    forgotten_ms: u64,
}

impl Guard {
    /// Of the director that sends as `own`.
    #[must_use]
    pub fn new(own: u64) -> Self {
        Self { own, streams: HashMap::default(), forgotten_ms: 0 }
    }

    /// The message of a datagram that came `now_ms` milliseconds after 1970, if it is to be believed. It counts as seen then.
    ///
    /// # Errors
    /// When it is not.
    pub fn open<'d>(
        &mut self,
        key: &MacKey,
        datagram: &'d [u8],
        now_ms: u64,
    ) -> Result<&'d [u8], TrailerFault> {
        let (message, stamp) = key.open(datagram)?;
        self.admit(&stamp, now_ms)?;
        Ok(message)
    }

    pub(super) fn admit(&mut self, stamp: &Stamp, now_ms: u64) -> Result<(), TrailerFault> {
        if stamp.stream.sender == self.own {
            return Err(TrailerFault::Reflected);
        }
        if stamp.sent_ms.abs_diff(now_ms) > TOLERANCE_MS {
            return Err(TrailerFault::OutOfTime);
        }
        if let Some(heard) = self.streams.get_mut(&stamp.stream) {
            return if heard.take(stamp) { Ok(()) } else { Err(TrailerFault::Replayed) };
        }
        if stamp.sent_ms <= self.forgotten_ms {
            return Err(TrailerFault::Replayed);
        }
        if self.streams.len() >= MOST_STREAMS {
            self.forget(now_ms);
            if self.streams.len() >= MOST_STREAMS {
                return Err(TrailerFault::TooManyStreams);
            }
        }
        self.streams.insert(stamp.stream, Heard::first(stamp));
        Ok(())
    }

    fn forget(&mut self, now_ms: u64) {
        let forgotten_ms = &mut self.forgotten_ms;
        self.streams.retain(|_, heard| {
            let is_over = heard.is_over(now_ms);
            if is_over {
                *forgotten_ms = heard.sent_ms.max(*forgotten_ms);
            }
            !is_over
        });
    }
}
