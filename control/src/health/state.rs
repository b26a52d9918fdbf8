//! What results make of a check and of a server. No clock, no sockets: results and times are arguments.
//!
//! A server is up while all its checks are. A check that begins takes the state of its server over; the first success
//! brings one up that has not failed yet, after a failure it takes `rise` of them, and `reentry` from the first of them on.
//! It takes `fall` failures in a row to bring one down.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::spec::CheckSpec;

/// What came of asking: the error says in plain words why it failed.
pub(crate) type Outcome = Result<(), String>;

/// What came of one run of a check: the weight that the server is to have, if the check tells one, or why it failed.
pub(crate) type Answer = Result<Option<u32>, String>;

/// The greatest weight of a server, as the kernel's.
const MAX_WEIGHT: i64 = 2_147_483_647;

/// The weights that checks of a server tell. Each stands for its difference from the weight that the server was given, and the
/// differences add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldWeights {
    count: u32,
    sum: u64,
}

impl ToldWeights {
    fn add(&mut self, weight: u32) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(weight.into());
    }

    /// The weight of a server that was given this one. A quiesced one stays so: somebody wants that.
    pub(crate) fn weight(self, given: u32) -> u32 {
        let Some(others) = self.count.checked_sub(1).filter(|_| given > 0) else { return given };
        let sum = i64::try_from(self.sum).unwrap_or(MAX_WEIGHT);
        let weight = sum.saturating_sub(i64::from(given).saturating_mul(others.into()));
        u32::try_from(weight.clamp(0, MAX_WEIGHT)).unwrap_or(given)
    }
}

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether all its checks are up.
    pub(crate) up: bool,
    /// Whether a check has had no result yet.
    pub(crate) waiting: bool,
    /// The weights that its checks tell.
    pub(crate) weights: ToldWeights,
    /// Since when it is up, or down.
    pub(crate) since: SystemTime,
    /// Why a check of it failed last; `None` if none ever did.
    pub(crate) last_failure: Option<Failure>,
}

impl Report {
    /// Of a server that nothing is known of yet.
    pub(crate) fn first(up: bool, now: SystemTime) -> Self {
        Self { up, waiting: true, weights: ToldWeights::default(), since: now, last_failure: None }
    }
}

/// A failure of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Why, in plain words.
    pub(crate) reason: String,
    /// When it was first met; one that goes on for the same reason is the same failure.
    pub(crate) at: SystemTime,
}

/// A check's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckState {
    pub(crate) up: bool,
    /// Whether it has had a result.
    pub(crate) answered: bool,
    /// The weight that its last success told.
    pub(crate) weight: Option<u32>,
    /// Results in a row that speak against its state.
    streak: u32,
    /// When the first of them came.
    began: Option<Instant>,
}

impl CheckState {
    /// One that begins.
    pub(crate) const fn new(up: bool) -> Self {
        Self { up, answered: false, weight: None, streak: 0, began: None }
    }

    /// Takes a result in that came just `now`.
    pub(crate) fn record(&mut self, spec: &CheckSpec, success: bool, now: Instant) {
        let (needed, lasting) = match (self.up, self.answered) {
            (true, _) => (spec.fall, Duration::ZERO),
            (false, true) => (spec.rise, spec.reentry),
            (false, false) => (1, Duration::ZERO),
        };
        self.answered = true;
        if success == self.up {
            (self.streak, self.began) = (0, None);
            return;
        }
        self.streak = self.streak.saturating_add(1);
        let began = *self.began.get_or_insert(now);
        if self.streak >= needed && now.duration_since(began) >= lasting {
            self.up = success;
            (self.streak, self.began) = (0, None);
        }
    }

    /// When one that has come to succeed has done so for long enough: it is asked then, too.
    pub(crate) fn reenters(&self, spec: &CheckSpec) -> Option<Instant> {
        if self.up { None } else { self.began?.checked_add(spec.reentry) }
    }

    /// Whether it has begun to fail and is not down yet, so that the next run is soon.
    pub(crate) const fn is_failing(&self) -> bool {
        self.up && self.streak > 0
    }
}

/// Takes the states of a server's checks in, and the failure of the one that had a result just now; whether there is
/// something new to say.
pub(crate) fn update(
    report: &mut Report,
    checks: impl Iterator<Item = CheckState>,
    failure: Option<String>,
    now: SystemTime,
) -> bool {
    let before = (report.up, report.waiting, report.weights);
    let (mut up, mut waiting, mut weights) = (true, false, ToldWeights::default());
    for check in checks {
        up &= check.up;
        waiting |= !check.answered;
        check.weight.into_iter().for_each(|weight| weights.add(weight));
    }
    if up != report.up {
        report.since = now;
    }
    (report.up, report.waiting, report.weights) = (up, waiting, weights);
    let mut is_news = before != (up, waiting, weights);
    if let Some(reason) = failure
        && (is_news || report.last_failure.as_ref().is_none_or(|last| last.reason != reason))
    {
        report.last_failure = Some(Failure { reason, at: now });
        is_news = true;
    }
    is_news
}

/// Whether the quorum is reached, given whether it was.
pub(crate) const fn is_quorum_reached(quorum: u32, hysteresis: u32, was_reached: bool, weights: u64) -> bool {
    let (quorum, hysteresis) = (quorum as u64, hysteresis as u64);
    if was_reached { weights + hysteresis >= quorum } else { weights >= quorum + hysteresis }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::health::spec::Probe;

    fn spec(rise: u32, fall: u32) -> CheckSpec {
        let second = Duration::from_secs(1);
        CheckSpec {
            probe: Probe::Tcp,
            interval: second,
            timeout: second,
            retry: second,
            rise,
            reentry: Duration::ZERO,
            fall,
            jitter: 0,
            address: None,
            port: 80,
        }
    }

    /// The states after each of these results: `+` is a success, `-` a failure.
    fn states(up: bool, rise: u32, fall: u32, results: &str) -> String {
        let (mut state, now) = (CheckState::new(up), Instant::now());
        let step = |result| {
            state.record(&spec(rise, fall), result == '+', now);
            if state.up { 'u' } else { 'd' }
        };
        results.chars().map(step).collect()
    }

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let rows = [
            ("the first success brings it up whatever rise says", false, 3, 1, "+", "u"),
            ("after a failure it takes rise", false, 3, 1, "-+++", "dddu"),
            ("a failure begins the count anew", false, 3, 1, "-++-+++", "ddddddu"),
            ("fall failures in a row bring it down", false, 1, 3, "+-+---", "uuuuud"),
            ("and back", false, 2, 2, "+--++--", "uudduud"),
            ("up at the start: fall counts at once", true, 1, 2, "-+--", "uuud"),
            ("up at the start, and never failing", true, 5, 1, "+++", "uuu"),
            ("down at the start and failing", false, 1, 1, "---", "ddd"),
        ];
        for (what, up, rise, fall, results, expected) in rows {
            let found = states(up, rise, fall, results);
            assert!(found.starts_with(expected), "{what}: {results} made {found}, expected {expected}");
        }
    }

    #[test]
    fn after_a_failure_successes_must_last_for_reentry() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let spec = CheckSpec { reentry: Duration::from_secs(15), ..spec(2, 1) };
        let mut state = CheckState::new(false);
        let mut result = |success, seconds| {
            state.record(&spec, success, at(seconds));
            (state.up, state.reenters(&spec))
        };
        assert_eq!(result(true, 0), (true, None), "not at the start");
        assert_eq!(result(false, 6), (false, None), "one failure is enough");
        assert_eq!(result(true, 12), (false, Some(at(27))));
        assert_eq!(result(true, 18), (false, Some(at(27))), "rise is reached, reentry is not");
        assert_eq!(result(false, 24), (false, None), "a failure begins it anew");
        assert_eq!(result(true, 30), (false, Some(at(45))));
        assert_eq!(result(true, 44), (false, Some(at(45))));
        assert_eq!(result(true, 45), (true, None));
        assert_eq!(result(false, 46), (false, None));
        assert_eq!(result(true, 100), (false, Some(at(115))));
        assert_eq!(result(true, 115), (true, None));
    }

    #[test]
    fn a_check_that_begins_to_fail_is_asked_again_soon_until_it_is_down() {
        let (mut state, now) = (CheckState::new(true), Instant::now());
        let mut failing = |success| {
            state.record(&spec(1, 3), success, now);
            state.is_failing()
        };
        assert_eq!(
            [false, false, true, false, false, false].map(&mut failing),
            [true, true, false, true, true, false]
        );
        assert!(!failing(false), "one that is down is asked at its interval");
    }

    #[test]
    fn a_server_is_up_while_all_its_checks_are_and_news_are_told_once() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let (up, down, new) = (
            CheckState { answered: true, ..CheckState::new(true) },
            CheckState { answered: true, ..CheckState::new(false) },
            CheckState::new(false),
        );
        let mut report = Report::first(false, at(0));
        let mut told = |checks: &[CheckState], failure: Option<&str>, seconds| {
            let news = update(&mut report, checks.iter().copied(), failure.map(str::to_owned), at(seconds));
            news.then(|| report.clone())
        };
        assert_eq!(told(&[up, new], None, 1), None, "one of two is still to come");
        let all_up = told(&[up, up], None, 2).unwrap();
        assert_eq!((all_up.up, all_up.waiting, all_up.since), (true, false, at(2)));
        assert_eq!(told(&[up, up], None, 3), None);
        let failed = told(&[up, down], Some("refused"), 4).unwrap();
        assert_eq!((failed.up, failed.since), (false, at(4)));
        assert_eq!(failed.last_failure, Some(Failure { reason: "refused".into(), at: at(4) }));
        assert_eq!(told(&[up, down], Some("refused"), 5), None, "the same again");
        let other = told(&[up, down], Some("timed out"), 6).unwrap();
        assert_eq!((other.since, other.last_failure.unwrap().at), (at(4), at(6)));
        let back = told(&[up, up], None, 7).unwrap();
        assert_eq!((back.up, back.since), (true, at(7)));
        assert_eq!(back.last_failure.unwrap().reason, "timed out", "why it was down is still known");
        let again = told(&[down, up], Some("timed out"), 8).unwrap();
        assert_eq!(again.last_failure.unwrap().at, at(8), "the same reason, but another failure");
    }

    #[test]
    fn weights_that_checks_tell_add_up_by_what_they_differ() {
        let told = |given, weights: &[Option<u32>]| {
            let checks = weights.iter().map(|weight| CheckState { weight: *weight, ..CheckState::new(true) });
            let mut report = Report::first(true, SystemTime::UNIX_EPOCH);
            update(&mut report, checks, None, SystemTime::UNIX_EPOCH);
            report.weights.weight(given)
        };
        // What keepalived 2.2.7 makes of the same.
        for (given, weights, expected) in [
            (5, [None, None], 5),
            (5, [Some(18), None], 18),
            (5, [Some(18), Some(18)], 31),
            (5, [Some(1), Some(1)], 0),
            (5, [Some(0), None], 0),
            (2_147_483_647, [Some(253), Some(253)], 0),
            // keepalived would weigh what somebody has quiesced.
            (0, [Some(18), Some(18)], 0),
        ] {
            assert_eq!(told(given, &weights), expected, "{given} {weights:?}");
        }
        let mut report = Report { waiting: false, ..Report::first(true, SystemTime::UNIX_EPOCH) };
        let mut news = |weight| {
            let check = CheckState { answered: true, weight, ..CheckState::new(true) };
            update(&mut report, std::iter::once(check), None, SystemTime::UNIX_EPOCH)
        };
        assert_eq!([None, Some(3), Some(3), Some(4), None].map(&mut news), [false, true, false, true, true]);
    }

    #[test]
    fn the_quorum_has_hysteresis() {
        let reached = |was, weights| is_quorum_reached(4, 2, was, weights);
        assert_eq!([1, 2, 5, 6].map(|weights| reached(true, weights)), [false, true, true, true]);
        assert_eq!([1, 2, 5, 6].map(|weights| reached(false, weights)), [false, false, false, true]);
        let most = u32::MAX;
        assert!(is_quorum_reached(most, most - 1, false, u64::from(most) * 2));
        assert_eq!([0, 1].map(|weights| is_quorum_reached(1, 0, true, weights)), [false, true]);
    }
}
