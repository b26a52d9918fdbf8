//! The command line of `xlvs-bench pipeline`, and how numbers are written in all benchmarks: parsed into values that can't be
//! wrong.

use clap::Args;
use xlvs_dataplane::scheduler::SchedulerName;

use crate::traffic::Mix;

/// The most connections that a population may have: slots are 32 bits, and the table holds as many again in reserve.
const MOST_FLOWS: u64 = 100_000_000;
const MOST_SERVICES: u64 = 100_000;
const MOST_WORKERS: u64 = 64;

/// What `xlvs-bench pipeline` takes. Lists are separated by commas; numbers may end in k or M.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pipeline {
    /// Live connections.
    #[arg(long, value_delimiter = ',', default_value = "1,1k,100k,1M", value_parser = flows)]
    pub(crate) flows: Vec<u64>,
    /// Virtual services of all kinds of traffic together; at least one for each kind there is.
    #[arg(long, value_delimiter = ',', default_value = "1,10000", value_parser = services)]
    pub(crate) services: Vec<u64>,
    /// Destinations of each service.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) destinations: u8,
    /// Schedulers, by name.
    #[arg(long, value_delimiter = ',', default_value = "rr,wrr")]
    pub(crate) schedulers: Vec<SchedulerName>,
    /// Workers, each pinned to a core of its own, all on the same connection table.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = workers)]
    pub(crate) workers: Vec<u64>,
    /// Kinds of traffic: tcp4, udp4, tcp6, udp6 alone, or mixed (3 : 1 : 3 : 1).
    #[arg(long, value_delimiter = ',', default_value = "mixed")]
    pub(crate) traffic: Vec<Mix>,
    /// Let a flow's packets come on any worker, as where the NIC doesn't hash; otherwise a flow stays on the worker that
    /// opened it.
    #[arg(long)]
    pub(crate) any_worker: bool,
    /// Rounds of each figure; the median and the quartiles are taken over them.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Batches of 64 packets in a round.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batches: u32,
    /// What all randomness comes of.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// One JSON object a line on standard output, the head on standard error.
    #[arg(long)]
    pub(crate) json: bool,
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
fn workers(text: &str) -> Result<u64, String> {
    number(text, MOST_WORKERS)
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
