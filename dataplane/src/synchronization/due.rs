//! When a connection is due to be told of, as the kernel's settings say (golden `sync.jsonl`).
//!
//! - TCP and SCTP: only while established or ending. A change to a state that is not established is told at once, the rest by
//!   the number of packets. UDP: by that number alone.
//! - By number: when the packets so far, modulo `sync_period`, are `sync_threshold`; with a period of 0, at exactly that packet.
//! - With `sync_refresh_period`, not again before the other directors' timer has fallen behind by that time (or half of its
//!   timeout), but up to `sync_retries` times, each an eighth of the period after the one before. A period of packets need not
//!   be given then.
//! - A template whenever a packet of its connections comes, subject to the refresh period. With `sync_persist_mode`, connections that
//!   were opened by a template are not told of at all.
//!
//! What was told last is a [`Stamp`] in the record.

use crate::clock::Now;
use crate::connection::State;
use crate::settings::Settings;

/// A timer that is ahead by less was told of lately enough, in milliseconds, unless half of its timeout is more.
const LEAST_LEAD_MS: i64 = 10_000;
const TICK_SHIFT: u32 = 8;
const STATE_BITS: u32 = 6;
const RETRY_BITS: u32 = 2;
const TICK_BITS: u32 = Stamp::BITS - STATE_BITS - RETRY_BITS;
const TICK_MASK: u32 = (1 << TICK_BITS) - 1;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;
const RETRY_MASK: u32 = (1 << RETRY_BITS) - 1;

/// What was told of a connection last: its state in bits 0–5, the repetitions in bits 6 and 7, when it was in bits 8–21, in ticks
/// of 256 ms that begin anew after 70 minutes: a packet just then may be taken for one soon after the last. 0: nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub(crate) u32);

impl Stamp {
    /// The bits it has.
    pub const BITS: u32 = 22;
    /// Its note found no room: it is due at the next packet.
    pub const OWED: Self = Self(STATE_MASK);

    /// Told `now`, in this state, after so many repetitions.
    #[must_use]
    pub const fn new(state: State, now: Now, retries: u32) -> Self {
        let tick = (now.0 >> TICK_SHIFT) as u32 & TICK_MASK;
        Self(
            state as u32 & STATE_MASK
                | (retries & RETRY_MASK) << STATE_BITS
                | tick << (STATE_BITS + RETRY_BITS),
        )
    }

    /// The state that was told.
    #[must_use]
    pub const fn state(self) -> Option<State> {
        match self.0 & STATE_MASK {
            0 => None,
            number => State::from_number(number as u8),
        }
    }

    const fn retries(self) -> u32 {
        self.0 >> STATE_BITS & RETRY_MASK
    }

    const fn elapsed_ms(self, now: Now) -> i64 {
        let tick = (now.0 >> TICK_SHIFT) as u32;
        let elapsed = tick.wrapping_sub(self.0 >> (STATE_BITS + RETRY_BITS)) & TICK_MASK;
        (elapsed as i64) << TICK_SHIFT
    }
}

/// A connection or template at a packet.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its state after the packet.
    pub state: State,
    /// What was told of it last.
    pub stamp: Stamp,
    /// Packets so far, this one included.
    pub packets: u32,
    /// Opened by a template.
    pub persistent: bool,
    /// How long it lives from this packet on, in milliseconds.
    pub timeout_ms: u64,
    /// How long it lived in the state that was told last.
    pub told_timeout_ms: u64,
}

/// The settings, as packets ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    threshold: u32,
    period: u32,
    /// 2^64 / `period`, rounded up: 0 for 1, as it wraps.
    reciprocal: u64,
    /// `period` - `threshold`.
    before_period: u64,
    refresh_ms: i64,
    retries: u32,
    templates_only: bool,
}

impl Rules {
    /// The rules of these settings. A threshold that is not below the period counts as the last packet of it.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let (period, threshold) = (settings.sync_period, settings.sync_threshold);
        let threshold = if period == 0 { threshold } else { threshold.min(period - 1) };
        Self {
            threshold,
            period,
            before_period: u64::from(period.saturating_sub(threshold)),
            reciprocal: (u64::MAX / u64::from(period.max(1))).wrapping_add(1),
            refresh_ms: i64::from(settings.sync_refresh_period) * 1000,
            retries: u32::from(settings.sync_retries),
            templates_only: settings.sync_persist_mode,
        }
    }

    /// Whether the number of packets says so.
    #[inline]
    const fn is_at_threshold(&self, packets: u32) -> bool {
        if self.period == 0 {
            return packets == self.threshold;
        }
        // The remainder by a multiplication: a division would be the dearest instruction of a known flow's way. A multiple of the
        // period times 2^64 / period has little left after the point.
        self.reciprocal.wrapping_mul(packets as u64 + self.before_period) <= self.reciprocal.wrapping_sub(1)
    }

    /// Whether a packet needs no second look that leaves its connection ESTABLISHED, or UDP's as it is: what is nearly always so.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self, stamp: Stamp, packets: u32) -> bool {
        stamp != Stamp::OWED && self.period != 0 && !self.is_at_threshold(packets)
    }

    /// Whether the subject is due; its stamp if so, and whether it is to be told even if another worker tells of it just now.
    #[must_use]
    pub fn due(&self, subject: &Subject, now: Now) -> Option<(Stamp, bool)> {
        let Subject { state, stamp, .. } = *subject;
        let is_template = state.is_template();
        let changed = stamp.state() != Some(state);
        let told = |retries, forced| Some((Stamp::new(state, now, retries), forced));
        let forced = match state {
            State::Template | State::TemplateAssured => false,
            _ if self.templates_only && subject.persistent => return None,
            State::Udp => false,
            State::Established | State::SctpEstablished => changed,
            State::FinWait
            | State::Close
            | State::CloseWait
            | State::TimeWait
            | State::SctpShutdownReceived
            | State::SctpClosed => {
                if changed {
                    return told(0, true);
                }
                false
            }
            _ => return None,
        };
        if stamp == Stamp::OWED {
            return told(0, forced);
        }
        let mut retries = 0;
        if self.refresh_ms > 0 && stamp.state().is_some() {
            let grown = subject.timeout_ms.cast_signed() - subject.told_timeout_ms.cast_signed();
            let elapsed = stamp.elapsed_ms(now);
            let least = (subject.timeout_ms.cast_signed() / 2).max(LEAST_LEAD_MS);
            if (elapsed + grown).abs() < self.refresh_ms.min(least) {
                if stamp.retries() >= self.retries || elapsed + grown < self.refresh_ms / 8 {
                    return None;
                }
                retries = stamp.retries() + 1;
            }
        }
        let by_number = match (self.period, self.refresh_ms) {
            (0, 0) => self.is_at_threshold(subject.packets),
            (0, _) => true,
            _ => is_template || self.is_at_threshold(subject.packets),
        };
        if by_number { told(retries, forced) } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(changes: &[(&str, u32)]) -> Rules {
        let mut settings = Settings::default();
        for (name, value) in changes {
            settings.set(name, *value).unwrap();
        }
        Rules::of(&settings)
    }

    fn subject(state: State, stamp: Stamp, packets: u32) -> Subject {
        let (timeout_ms, told_timeout_ms) = (900_000, 900_000);
        Subject { state, stamp, packets, persistent: false, timeout_ms, told_timeout_ms }
    }

    #[test]
    fn the_remainder_is_the_divisions() {
        for period in [1_u32, 2, 3, 7, 50, 64, 1000, 65_537, u32::MAX >> 1] {
            for threshold in [0, 1, 3, period - 1].into_iter().filter(|threshold| *threshold < period) {
                let rules = rules(&[("sync_period", period), ("sync_threshold", threshold)]);
                for packets in
                    (0..500).chain([period - 1, period, period + threshold, u32::MAX - 1, u32::MAX])
                {
                    assert_eq!(
                        rules.is_at_threshold(packets),
                        packets % period == threshold,
                        "{packets} of {period}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_quiet_is_not_due() {
        let kinds = [
            &[][..],
            &[("sync_refresh_period", 4)],
            &[("sync_period", 0)],
            &[("sync_period", 1), ("sync_threshold", 0)],
        ];
        for changes in kinds {
            let rules = rules(changes);
            for state in [State::Established, State::Udp] {
                for stamp in [Stamp::default(), Stamp::OWED, Stamp::new(state, Now(0), 0)] {
                    for packets in 1..120 {
                        let due = rules.due(&subject(state, stamp, packets), Now(60_000)).is_some();
                        assert!(!(due && rules.is_quiet(stamp, packets)), "{changes:?} {state:?} {stamp:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_stamp_keeps_what_it_was_made_of() {
        for state in (1..63).filter_map(State::from_number) {
            for retries in 0..4 {
                let stamp = Stamp::new(state, Now(1_000_000_000), retries);
                assert_eq!((stamp.state(), stamp.retries()), (Some(state), retries));
                assert!(stamp.0 >> Stamp::BITS == 0 && stamp != Stamp::OWED);
                for elapsed in [0, 256, 10_240, 3_600_128] {
                    assert!((stamp.elapsed_ms(Now(1_000_000_000 + elapsed)) - elapsed as i64).abs() < 256);
                }
            }
        }
    }

    #[test]
    fn refreshes_are_rare_and_repeated_as_often_as_asked() {
        let rules = rules(&[
            ("sync_refresh_period", 8),
            ("sync_retries", 2),
            ("sync_period", 1),
            ("sync_threshold", 0),
        ]);
        let (mut stamp, mut told) = (Stamp::default(), Vec::new());
        for now in (1_000..20_000_u64).step_by(250) {
            if let Some((next, _)) = rules.due(&subject(State::Established, stamp, 5), Now(now)) {
                stamp = next;
                told.push(now);
            }
        }
        // At once, twice again after a second each, and anew when 8 s have passed since the last.
        let waits: Vec<u64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(told[0], 1_000);
        assert!(
            waits.len() >= 4
                && waits[..4]
                    .iter()
                    .zip([1_000, 1_000, 8_000, 1_000])
                    .all(|(is, wanted)| is.abs_diff(wanted) <= 512),
            "{told:?}"
        );
    }
}
