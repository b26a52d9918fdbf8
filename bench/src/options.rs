//! What the benchmarks' command lines have in common: how numbers are written, where figures go, how often is measured.
//! Parsed into values that can't be wrong.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

/// The most connections that a population may have: slots are 32 bits, and the table holds as many again in reserve.
const MOST_FLOWS: u64 = 100_000_000;
const MOST_SERVICES: u64 = 100_000;
const MOST_WORKERS: u64 = 64;

/// What every benchmark takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// What all randomness comes of.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON object a line on standard output, the head on standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How often the benchmarks in memory measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sampling {
    /// Rounds of each figure; the median and the quartiles are taken over them.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Batches of 64 packets in a round.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batches: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// How often and how long the benchmarks on the wire measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Windows {
    /// Rounds of each figure; in each round every case is measured once [default: 9 of wire, 5 of latency, 3 of flood].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,
    /// How long is measured in each round, in milliseconds [default: 500 of wire, 2000 of latency, 30000 of flood].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    window_ms: Option<u64>,
    /// How long traffic flows before that, in milliseconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    warm_up_ms: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// [`Windows`] with nothing left open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) rounds: u32,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) seed: u64,
}

impl Windows {
    /// With these defaults.
    pub(crate) fn or(&self, rounds: u32, window_ms: u64) -> Schedule {
        Schedule {
            rounds: self.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(self.warm_up_ms),
            window: Duration::from_millis(self.window_ms.unwrap_or(window_ms)),
            seed: self.common.seed,
        }
    }
}

/// A number from 1 to `most`.
fn number(text: &str, most: u64) -> Result<u64, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match number {
        Some(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 1 to {most}, like 500, 100k or 1M")),
    }
}

/// Numbers of connections.
pub(crate) fn flows(text: &str) -> Result<u64, String> {
    number(text, MOST_FLOWS)
}

/// Numbers of services.
pub(crate) fn services(text: &str) -> Result<u64, String> {
    number(text, MOST_SERVICES)
}

/// Numbers of workers.
pub(crate) fn workers(text: &str) -> Result<u64, String> {
    number(text, MOST_WORKERS)
}

/// How many workers a benchmark in memory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many.
    Some(usize),
    /// One for each core that this process may use.
    All,
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { workers(text).map(|count| Self::Some(count as usize)) }
    }
}

impl Workers {
    /// The number.
    ///
    /// # Errors
    /// When there are fewer cores.
    pub(crate) fn count(self) -> Result<usize, String> {
        let cores = core_affinity::get_core_ids().unwrap_or_default().len();
        match self {
            Self::All => Ok(cores.max(1)),
            Self::Some(count) if count <= cores => Ok(count),
            Self::Some(count) => Err(format!(
                "{count} workers need {count} cores, and this process may use {cores}; give --workers fewer"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_take_units_and_refuse_what_is_out_of_range() {
        assert_eq!(flows("1"), Ok(1));
        assert_eq!(flows("100k"), Ok(100_000));
        assert_eq!(flows("10M"), Ok(10_000_000));
        for wrong in ["", "k", "0", "-1", "1G", "1.5M", "101M", "18446744073709551615M"] {
            assert!(flows(wrong).unwrap_err().contains("expected a number"), "{wrong}");
        }
    }
}
