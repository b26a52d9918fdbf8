//! The watchdog's judgement: from looks at a worker's counters to what is wrong with it, and how often it may be tried to be put
//! right. No thread, no clock, no socket; the daemon looks ([`crate::daemon`]) and does.
//!
//! A worker beats at least each 256 ms, also where nothing comes, as it never sleeps longer. One whose rounds stand still over
//! [`STILL_MS`] of looks stands still itself. A ring is wedged when the kernel loses frames on it while the worker gets none, or
//! when what was to be sent is not sent. Looks that come late say nothing: then nobody was given the processor.

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;

/// How long a worker's rounds stand still before it counts as stalled, in milliseconds from look to look.
const STILL_MS: u64 = 700;
/// How long nothing of what is on a transmit ring is sent before the ring counts as wedged.
const STUCK_MS: u64 = 700;
/// Looks further apart than this begin anew.
const LATE_MS: u64 = 600;
/// Between two tries to open a queue again: from the first to the longest.
const FIRST_PAUSE_MS: u64 = 250;
const LONGEST_PAUSE_MS: u64 = 8_000;
/// After so long without a fault the next one is dealt with at once again.
const FORGIVEN_MS: u64 = 60_000;

/// What is wrong with a worker. Displayed, it reads on behind the worker's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Its thread does not run.
    #[error("has stood still for {for_ms} ms")]
    StandsStill {
        /// Since its last beat, as far as that was seen.
        for_ms: u64,
    },
    /// Its thread has ended by itself.
    #[error("has ended, which is a bug")]
    Ended,
    /// The kernel can't give it frames.
    #[error("gets no frames while the kernel drops them for want of room on its rings")]
    ReceivesNothing,
    /// The kernel does not send its frames.
    #[error("has frames on a transmit ring that are not sent")]
    SendsNothing,
}

/// A worker's counters at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    rounds: u64,
    received: u64,
    /// Frames that the kernel could not put on the receive ring.
    refused: u64,
    attempts: u64,
    completed: u64,
    pending: u64,
}

impl Sample {
    pub(crate) fn of(counters: &WorkerCounters) -> Self {
        let transmission = &counters.transmission;
        Self {
            rounds: counters.rounds.get(),
            received: counters.received.get(),
            refused: counters.found_no_room(),
            attempts: transmission.attempts.get(),
            completed: transmission.completed.get(),
            pending: transmission.pending.get(),
        }
    }
}

/// What has to be known of a worker's sockets to judge whether its transmit rings move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmission {
    /// An interface is down, and may keep what it has.
    Down,
    /// A driver may give back what was sent only when more is to be sent.
    Lazy,
    /// What was sent is given back at once.
    Prompt,
}

/// One worker, watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    last: Sample,
    looked: Now,
    /// The last look at which its rounds had moved.
    beat: Now,
    /// Whether frames were refused since the last one was received.
    starving: bool,
    /// Since when, and since how many attempts, nothing was completed.
    stuck: Option<(Now, u64)>,
}

impl Watch {
    /// Of a worker that begins now.
    pub(crate) fn new(now: Now) -> Self {
        Self { last: Sample::default(), looked: now, beat: now, starving: false, stuck: None }
    }

    /// When it was last seen to be alive.
    pub(crate) const fn beat(&self) -> Now {
        self.beat
    }

    /// Takes in a look; what it says.
    pub(crate) fn look(&mut self, now: Now, sample: Sample, transmission: Transmission) -> Option<Fault> {
        let before = std::mem::replace(&mut self.last, sample);
        let former_look = std::mem::replace(&mut self.looked, now);
        if now.0.saturating_sub(former_look.0) > LATE_MS {
            (self.beat, self.starving, self.stuck) = (now, false, None);
            return None;
        }
        if sample.rounds == before.rounds {
            let for_ms = now.0.saturating_sub(self.beat.0);
            return (for_ms >= STILL_MS).then_some(Fault::StandsStill { for_ms });
        }
        self.beat = now;
        if self.starves(before, sample) {
            return Some(Fault::ReceivesNothing);
        }
        self.is_stuck(former_look, now, before, sample, transmission).then_some(Fault::SendsNothing)
    }

    /// Refused frames are told late, so that those of a burst may be seen after the others of it; but only once. What a ring was
    /// full of is received.
    fn starves(&mut self, before: Sample, sample: Sample) -> bool {
        if sample.received != before.received {
            self.starving = false;
            return false;
        }
        let more = sample.refused > before.refused;
        let again = self.starving && more;
        self.starving |= more;
        again
    }

    fn is_stuck(
        &mut self,
        former_look: Now,
        now: Now,
        before: Sample,
        sample: Sample,
        transmission: Transmission,
    ) -> bool {
        let moves = sample.pending == 0 || before.pending == 0 || sample.completed != before.completed;
        if moves || transmission == Transmission::Down {
            self.stuck = None;
            return false;
        }
        let (since, attempts) = *self.stuck.get_or_insert((former_look, before.attempts));
        let wanted = transmission == Transmission::Prompt || sample.attempts > attempts;
        wanted && now.0.saturating_sub(since.0) >= STUCK_MS
    }
}

/// When something is tried again: at once, then after a pause that doubles from 250 ms to 8 s. Nothing is given up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retry {
    tries: u32,
    last: Now,
    next: Now,
}

impl Retry {
    /// Whether it may be tried.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        now >= self.next
    }

    /// It is tried.
    pub(crate) fn begin(&mut self, now: Now) {
        if now.0.saturating_sub(self.last.0) >= FORGIVEN_MS {
            self.tries = 0;
        }
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << self.tries.min(8)).min(LONGEST_PAUSE_MS);
        (self.tries, self.last, self.next) = (self.tries.saturating_add(1), now, Now(now.0 + pause));
    }

    /// The pause after the last try, in milliseconds.
    pub(crate) const fn pause_ms(&self) -> u64 {
        self.next.0.saturating_sub(self.last.0)
    }
}

/// What is wrong with a worker or an interface at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// As people read it, behind the name.
    pub(crate) what: String,
    /// Since when that is known.
    pub(crate) since: Now,
    /// Why it could not be put right, as it was told last.
    pub(crate) failure: Option<String>,
    /// The thread's rounds, if that is the trouble: once they go on it is over.
    pub(crate) stopped_at: Option<u64>,
}

impl Trouble {
    pub(crate) fn new(what: String, since: Now) -> Self {
        Self { what, since, failure: None, stopped_at: None }
    }
}

/// How it stands with a worker or an interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition {
    /// What is wrong now.
    pub(crate) trouble: Option<Trouble>,
    /// How often it was put right by opening it again.
    pub(crate) reopened: u32,
    /// What that was for last, and when.
    pub(crate) last: Option<(String, Now)>,
    /// When the next try is due.
    pub(crate) retry: Retry,
}

impl Condition {
    /// Something is wrong from now on. What was wrong before is part of it.
    pub(crate) fn begin(&mut self, trouble: Trouble) {
        let since = self.trouble.as_ref().map_or(trouble.since, |before| before.since);
        self.trouble = Some(Trouble { since, ..trouble });
    }

    /// It was opened again: how long something was wrong, in milliseconds.
    pub(crate) fn end(&mut self, now: Now) -> u64 {
        let Some(trouble) = self.trouble.take() else { return 0 };
        self.reopened += 1;
        self.last = Some((trouble.what, now));
        now.0.saturating_sub(trouble.since.0)
    }

    /// It could not be put right. True if that is news.
    pub(crate) fn fail(&mut self, failure: String) -> bool {
        let Some(trouble) = &mut self.trouble else { return false };
        let is_news = trouble.failure.as_ref() != Some(&failure);
        trouble.failure = Some(failure);
        is_news
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PERIOD: u64 = 250;

    /// What a watch says, look by look a period apart, of samples that begin with none.
    fn course(transmission: Transmission, samples: &[Sample]) -> Vec<Option<Fault>> {
        let mut watch = Watch::new(Now(1_000_000));
        let at = (1..).map(|look| Now(1_000_000 + look * PERIOD));
        at.zip(samples).map(|(now, sample)| watch.look(now, *sample, transmission)).collect()
    }

    fn beating(change: impl Fn(u64, &mut Sample)) -> Vec<Sample> {
        let sample = |look| {
            let mut sample = Sample { rounds: look, ..Sample::default() };
            change(look, &mut sample);
            sample
        };
        (1..=20).map(sample).collect()
    }

    fn first_fault(faults: &[Option<Fault>]) -> Option<(usize, Fault)> {
        faults.iter().enumerate().find_map(|(look, fault)| Some((look + 1, (*fault)?)))
    }

    #[test]
    fn a_worker_that_stands_still_is_found_within_a_second_of_its_last_beat() {
        let still = |from: u64| beating(|look, sample| sample.rounds = look.min(from));
        for from in [1, 3, 10] {
            let faults = course(Transmission::Prompt, &still(from));
            let (look, fault) = first_fault(&faults).unwrap();
            assert_eq!(fault, Fault::StandsStill { for_ms: 750 });
            // Its last beat may have been just after the look before the one that saw it.
            let longest = (look as u64 - (from - 1)) * PERIOD;
            assert!(longest <= 1000, "{longest} ms, {faults:?}");
        }
    }

    #[test]
    fn a_worker_that_never_beats_is_found_too() {
        let faults = course(Transmission::Prompt, &[Sample::default(); 4]);
        assert_eq!(first_fault(&faults), Some((3, Fault::StandsStill { for_ms: 750 })));
    }

    #[test]
    fn a_worker_without_traffic_and_one_with_a_beat_each_other_look_are_well() {
        assert_eq!(first_fault(&course(Transmission::Prompt, &beating(|_, _| {}))), None);
        let slow = beating(|look, sample| sample.rounds = look / 2);
        assert_eq!(first_fault(&course(Transmission::Prompt, &slow)), None);
    }

    #[test]
    fn looks_that_come_late_accuse_nobody() {
        let mut watch = Watch::new(Now(0));
        let sample = Sample { rounds: 7, ..Sample::default() };
        assert_eq!(watch.look(Now(250), sample, Transmission::Prompt), None);
        // The whole process was stopped for an hour: nobody had a beat.
        assert_eq!(watch.look(Now(3_600_000), sample, Transmission::Prompt), None);
        assert_eq!(watch.look(Now(3_600_250), sample, Transmission::Prompt), None);
        assert_eq!(watch.beat(), Now(3_600_000));
        let fault = [500, 750].map(|ms| watch.look(Now(3_600_000 + ms), sample, Transmission::Prompt));
        assert_eq!(fault, [None, Some(Fault::StandsStill { for_ms: 750 })]);
    }

    #[test]
    fn a_receive_ring_is_wedged_when_frames_are_refused_again_and_again_and_none_is_received() {
        let of = |refused: fn(u64) -> u64, received: fn(u64) -> u64| {
            let samples = beating(|look, sample| {
                (sample.refused, sample.received) = (refused(look), received(look));
            });
            first_fault(&course(Transmission::Prompt, &samples))
        };
        let wedged = |look| Some((look, Fault::ReceivesNothing));
        assert_eq!(of(|look| look * 100, |_| 0), wedged(2), "from the first frame on");
        assert_eq!(
            of(|look| look.saturating_sub(4), |look| look.min(4)),
            wedged(6),
            "after some were received"
        );
        assert_eq!(of(|look| look / 4, |_| 0), wedged(8), "one frame a second");
        assert_eq!(of(|look| look * 1000, |look| look), None, "overload: some are received");
        assert_eq!(of(|look| u64::from(look >= 5) * 900, |look| look.min(4)), None, "the end of a burst");
        assert_eq!(of(|look| look / 2, |look| look / 2), None, "full, and received, in turn");
        assert_eq!(of(|_| 0, |_| 0), None, "nothing comes");
    }

    #[test]
    fn a_transmit_ring_is_wedged_when_what_is_on_it_stays_there() {
        type Course = fn(u64, &mut Sample);
        let stays: Course = |look, sample| {
            (sample.pending, sample.completed, sample.attempts) = (u64::from(look >= 3) * 5, 100, 105);
        };
        let goes_on: Course = |look, sample| {
            (sample.pending, sample.completed) = (u64::from(look >= 3) * 5, 100);
            sample.attempts = 100 + look;
        };
        let moves: Course = |look, sample| {
            (sample.pending, sample.completed, sample.attempts) = (2048, 100 * look, 100 * look + 2048);
        };
        let in_turn: Course = |look, sample| sample.pending = look % 2;
        let wedged = Some((6, Fault::SendsNothing));
        let rows = [
            ("left there", Transmission::Prompt, stays, wedged),
            ("left there, as some drivers do", Transmission::Lazy, stays, None),
            ("left there, whatever comes", Transmission::Lazy, goes_on, wedged),
            ("the link is down", Transmission::Down, goes_on, None),
            ("full, and moving", Transmission::Prompt, moves, None),
            ("something is always under way", Transmission::Prompt, in_turn, None),
        ];
        for (what, transmission, change, expected) in rows {
            let faults = course(transmission, &beating(change));
            assert_eq!(first_fault(&faults), expected, "{what}: {faults:?}");
        }
    }

    #[test]
    fn tries_come_less_and_less_often_and_are_forgiven() {
        let mut retry = Retry::default();
        let mut now = Now(5_000);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(retry.is_due(now));
            retry.begin(now);
            pauses.push(retry.pause_ms());
            assert!(!retry.is_due(Now(now.0 + retry.pause_ms() - 1)));
            now = Now(now.0 + retry.pause_ms());
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        retry.begin(Now(now.0 + FORGIVEN_MS));
        assert_eq!(retry.pause_ms(), 250);
    }
}
