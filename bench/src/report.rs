//! What is printed: seed and machine first, then a row of a table, or a JSON object, for each figure.

use serde::Serialize;

/// One figure with its references. Times are ns per packet or connection; a `spread` is the distance of the quartiles
/// over the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) case: &'static str,
    pub(crate) traffic: &'static str,
    pub(crate) scheduler: &'static str,
    pub(crate) flows: u64,
    pub(crate) services: u64,
    pub(crate) workers: usize,
    /// The median over the rounds; of several workers the mean.
    pub(crate) ns: f64,
    pub(crate) spread: f64,
    pub(crate) floor_ns: f64,
    pub(crate) floor_spread: f64,
    pub(crate) random_access_ns: f64,
    pub(crate) random_access_spread: f64,
    pub(crate) ratio_to_floor: f64,
    /// What is above the floor, in random accesses.
    pub(crate) above_floor_in_random_accesses: f64,
    /// Quantiles over batches of 64, per packet.
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) p999_ns: f64,
    pub(crate) allocations_per_packet: f64,
    /// Millions a second, of all workers together.
    pub(crate) mpps: f64,
    pub(crate) table_bytes: u64,
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
}

/// A stage of a packet's way, summed up from the way's beginning.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    pub(crate) bench: &'static str,
    pub(crate) case: &'static str,
    pub(crate) traffic: &'static str,
    pub(crate) flows: u64,
    pub(crate) services: u64,
    pub(crate) workers: usize,
    /// Everything up to and with this stage.
    pub(crate) ns: f64,
    pub(crate) spread: f64,
    /// This stage alone: the difference to the one before.
    pub(crate) step_ns: f64,
    pub(crate) ratio_to_director: f64,
    pub(crate) seed: u64,
}

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    huge_pages: String,
}

impl Machine {
    /// This machine. What can't be read is "unknown".
    fn read() -> Self {
        let unknown = || "unknown".to_owned();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let modes =
            std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let mode = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Self {
            cpu: model.map_or_else(unknown, |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            huge_pages: mode.map_or_else(unknown, |(mode, _)| mode.to_owned()),
        }
    }
}

/// A figure as JSON tells it: with the machine, so that each line stands alone.
#[derive(Serialize)]
struct Line<'a, F> {
    #[serde(flatten)]
    figure: &'a F,
    #[serde(flatten)]
    machine: &'a Machine,
}

/// Prints figures as they come.
#[derive(Debug)]
pub(crate) struct Printer {
    json: bool,
    machine: Machine,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, machine: Machine::read() }
    }

    /// Seed and machine.
    fn machine(&self, seed: u64) {
        let Machine { cpu, cores, huge_pages } = &self.machine;
        let head = format!("seed {seed} · {cpu}, {cores} cores · transparent huge pages: {huge_pages}");
        if self.json { eprintln!("{head}") } else { println!("{head}") }
    }

    fn line(&self, figure: &impl Serialize) {
        match serde_json::to_string(&Line { figure, machine: &self.machine }) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("xlvs-bench: a figure could not be written as JSON: {error}"),
        }
    }

    /// The head of a table of [`Stage`]s.
    pub(crate) fn stages_head(&self, seed: u64) {
        self.machine(seed);
        if self.json {
            return;
        }
        println!("ns per packet of a known connection, up to and with each stage; step: this stage alone\n");
        println!(
            "{:12} {:6} {:>9} {:>8} {:>9} {:>7} {:>7} {:>9}",
            "up to", "mix", "flows", "services", "ns", "±", "step", "÷director"
        );
    }

    pub(crate) fn stage(&self, stage: &Stage) {
        if self.json {
            return self.line(stage);
        }
        println!(
            "{:12} {:6} {:>9} {:>8} {:>9.1} {:>7.1} {:>7.1} {:>9.2}",
            stage.case,
            stage.traffic,
            stage.flows,
            stage.services,
            stage.ns,
            stage.spread,
            stage.step_ns,
            stage.ratio_to_director,
        );
    }

    /// The head of a table of [`Figure`]s.
    pub(crate) fn head(&self, seed: u64) {
        self.machine(seed);
        if self.json {
            return;
        }
        println!(
            "ns per packet or connection: median over rounds, ± distance of the quartiles; p50 to p99.9 over batches of 64"
        );
        println!(
            "floor: parse and rewrite alone · access: one dependent random access into memory of the table's size\n"
        );
        println!(
            "{:11} {:6} {:4} {:>9} {:>8} {:>7} {:>9} {:>7} {:>7} {:>7} {:>7} {:>12} {:>7} {:>7} {:>8} {:>10} {:>7}",
            "case",
            "mix",
            "sch",
            "flows",
            "services",
            "workers",
            "ns",
            "±",
            "floor",
            "access",
            "×floor",
            "-floor/acc.",
            "p50",
            "p99",
            "p99.9",
            "allocs",
            "M/s",
        );
    }

    pub(crate) fn figure(&self, figure: &Figure) {
        if self.json {
            return self.line(figure);
        }
        println!(
            "{:11} {:6} {:4} {:>9} {:>8} {:>7} {:>9.1} {:>7.1} {:>7.1} {:>7.1} {:>7.2} {:>12.2} {:>7.1} {:>7.1} {:>8.1} {:>10.6} {:>7.2}",
            figure.case,
            figure.traffic,
            figure.scheduler,
            figure.flows,
            figure.services,
            figure.workers,
            figure.ns,
            figure.spread,
            figure.floor_ns,
            figure.random_access_ns,
            figure.ratio_to_floor,
            figure.above_floor_in_random_accesses,
            figure.p50_ns,
            figure.p99_ns,
            figure.p999_ns,
            figure.allocations_per_packet,
            figure.mpps,
        );
    }
}
