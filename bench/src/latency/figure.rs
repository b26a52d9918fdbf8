//! What `xlvs-bench latency` prints.

use serde::Serialize;

use super::{Bench, Kind, Measured};
use crate::report::{Column, Row, left, right};
use crate::samples::Summary;

/// One figure. Delays are nanoseconds, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    bench: &'static str,
    case: &'static str,
    load_percent: u8,
    flows: u64,
    services: u64,
    workers: u32,
    idle: &'static str,
    /// What the generator sends.
    mpps: f64,
    /// The median delay.
    ns: f64,
    /// Of the rounds' medians, the distance of the quartiles.
    spread: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    p9999_ns: u64,
    max_ns: u64,
    /// Of what each slice of 17 ms has at 99.9 %, the median: what a host does now and then that takes cores away is in few of them.
    slice_p999_ns: f64,
    /// Of the same, the distance of the quartiles.
    slice_p999_spread: f64,
    /// Of these medians.
    slice_ratio_to_bare: Option<f64>,
    /// Of these medians, to the director that is left in peace.
    slice_ratio_to_director: Option<f64>,
    /// Of the delays at 99.9 %.
    ratio_to_bare: Option<f64>,
    /// Of the median delays.
    p50_ratio_to_bare: Option<f64>,
    /// What the forwarder adds to the lab's own delay, the row `wire`: the difference at 50 %.
    added_p50_ns: Option<i64>,
    /// The difference at 99.9 %.
    added_p999_ns: Option<i64>,
    /// Of the differences at 99.9 %; none if the bare forwarder adds nothing that can be told.
    added_ratio_to_bare: Option<f64>,
    /// Of the delays at 99.9 %, to the director that is left in peace.
    ratio_to_director: Option<f64>,
    frames: u64,
    /// Frames that did not arrive.
    lost: u64,
    /// Frames that the generator gave up, as it came too late to send them.
    late: u64,
    expired: u64,
    reloads: u64,
    rounds: u32,
    seed: u64,
}

impl Row for Figure {
    const NOTES: &'static [&'static str] = &[
        "one-way delay from generator to sink in µs, over all rounds; ±: of the rounds' medians, the distance of the quartiles",
        "load: percent of the director's own greatest rate · ÷bare, ÷dir: of p99.9 · lost: did not arrive · late: not sent in time",
        "17 ms: p99.9 of each slice of so long, their median, ± distance of the quartiles, and its ratios: without what the host does",
        "+p50, +p99.9: more than the lab's own (wire) · +÷bare: of +p99.9",
    ];

    const COLUMNS: &'static [Column<Self>] = &[
        left("case", 10, |row| row.case.to_owned()),
        right("load", 4, |row| row.load_percent.to_string()),
        right("Mpps", 6, |row| format!("{:.3}", row.mpps)),
        right("frames", 9, |row| row.frames.to_string()),
        right("p50", 8, |row| us(row.p50_ns)),
        right("±", 7, |row| format!("{:.1}", row.spread / 1e3)),
        right("p90", 8, |row| us(row.p90_ns)),
        right("p99", 8, |row| us(row.p99_ns)),
        right("p99.9", 9, |row| us(row.p999_ns)),
        right("p99.99", 9, |row| us(row.p9999_ns)),
        right("÷bare", 6, |row| ratio(row.ratio_to_bare)),
        right("÷dir", 6, |row| ratio(row.ratio_to_director)),
        right("17 ms", 8, |row| format!("{:.1}", row.slice_p999_ns / 1e3)),
        right("±", 7, |row| format!("{:.1}", row.slice_p999_spread / 1e3)),
        right("÷bare", 6, |row| ratio(row.slice_ratio_to_bare)),
        right("÷dir", 6, |row| ratio(row.slice_ratio_to_director)),
        right("+p50", 8, |row| {
            row.added_p50_ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3))
        }),
        right("+p99.9", 9, |row| {
            row.added_p999_ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3))
        }),
        right("+÷bare", 6, |row| ratio(row.added_ratio_to_bare)),
        right("lost", 8, |row| row.lost.to_string()),
        right("late", 8, |row| row.late.to_string()),
        right("expired", 8, |row| row.expired.to_string()),
        right("reloads", 7, |row| row.reloads.to_string()),
    ];
}

fn us(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e3)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// The figure of one case at one load; `all` are those of the run.
pub(super) fn figure(bench: &Bench<'_>, measured: &Measured, all: &[Measured]) -> Figure {
    let of = |kind| all.iter().find(|other| other.kind == kind && other.load == measured.load);
    let at = |measured: &Measured, quantile| measured.delays.value_at_quantile(quantile);
    let ratio = |kind, quantile| {
        let reference = at(of(kind)?, quantile);
        Some(at(measured, quantile) as f64 / reference.max(1) as f64)
    };
    let added = |measured: &Measured, quantile| {
        let lab = at(of(Kind::Wire)?, quantile);
        Some(at(measured, quantile).cast_signed() - lab.cast_signed())
    };
    let forwards = measured.kind != Kind::Wire;
    let added_p999_ns = added(measured, 0.999).filter(|_| forwards);
    let added_to_bare = || of(Kind::Bare).and_then(|bare| added(bare, 0.999)).filter(|added| *added > 0);
    let medians = Summary::of(measured.medians.clone());
    let slices = |measured: &Measured| Summary::of(measured.slices.clone());
    let its_slices = slices(measured);
    let slice_ratio = |kind| Some(its_slices.median / slices(of(kind)?).median.max(1.0));
    let options = bench.options;
    Figure {
        bench: "latency",
        case: measured.kind.name(),
        load_percent: measured.load,
        flows: options.flows,
        services: if measured.kind == Kind::Reloading { options.services } else { 1 },
        workers: 1,
        idle: options.idle.0.name(),
        mpps: measured.rate / 1e6,
        ns: at(measured, 0.5) as f64,
        spread: medians.spread,
        p50_ns: at(measured, 0.5),
        p90_ns: at(measured, 0.9),
        p99_ns: at(measured, 0.99),
        p999_ns: at(measured, 0.999),
        p9999_ns: at(measured, 0.9999),
        max_ns: measured.delays.max(),
        slice_p999_ns: its_slices.median,
        slice_p999_spread: its_slices.spread,
        slice_ratio_to_bare: slice_ratio(Kind::Bare),
        slice_ratio_to_director: slice_ratio(Kind::Director),
        ratio_to_bare: ratio(Kind::Bare, 0.999),
        p50_ratio_to_bare: ratio(Kind::Bare, 0.5),
        added_p50_ns: added(measured, 0.5).filter(|_| forwards),
        added_p999_ns,
        added_ratio_to_bare: added_p999_ns.zip(added_to_bare()).map(|(own, bare)| own as f64 / bare as f64),
        ratio_to_director: ratio(Kind::Director, 0.999),
        frames: measured.delays.len(),
        lost: measured.window.lost,
        late: measured.window.late,
        expired: measured.window.expired,
        reloads: measured.window.reloads,
        rounds: bench.schedule.rounds,
        seed: bench.schedule.seed,
    }
}
