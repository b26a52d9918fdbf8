//! What is printed: machine, seed and command first, then a row of a table, or a JSON object, for each figure. A benchmark
//! says what its rows are by [`Row`].

use serde::Serialize;

/// A column of a table.
pub(crate) struct Column<R> {
    title: &'static str,
    width: usize,
    left: bool,
    cell: fn(&R) -> String,
}

/// A column of text.
pub(crate) const fn left<R>(title: &'static str, width: usize, cell: fn(&R) -> String) -> Column<R> {
    Column { title, width, left: true, cell }
}

/// A column of numbers.
pub(crate) const fn right<R>(title: &'static str, width: usize, cell: fn(&R) -> String) -> Column<R> {
    Column { title, width, left: false, cell }
}

impl<R> Column<R> {
    fn pad(&self, text: &str) -> String {
        let width = self.width;
        if self.left { format!("{text:width$}") } else { format!("{text:>width$}") }
    }
}

/// A figure: as JSON all its fields, in a table these columns.
pub(crate) trait Row: Serialize + Sized + 'static {
    /// What the reader of the table has to know.
    const NOTES: &'static [&'static str];
    /// The table.
    const COLUMNS: &'static [Column<Self>];
}

/// Where figures were measured, and by what.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    huge_pages: String,
    command: String,
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
        let arguments = std::env::args().skip(1);
        Self {
            cpu: model.map_or_else(unknown, |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |release| release.trim().to_owned()),
            huge_pages: mode.map_or_else(unknown, |(mode, _)| mode.to_owned()),
            command: std::iter::once("xlvs-bench".to_owned()).chain(arguments).collect::<Vec<_>>().join(" "),
        }
    }
}

/// A figure as JSON tells it: with the machine, so that each line stands alone.
#[derive(Serialize)]
struct Line<'a, R> {
    #[serde(flatten)]
    row: &'a R,
    #[serde(flatten)]
    machine: &'a Machine,
}

/// Prints figures as they come.
#[derive(Debug)]
pub(crate) struct Printer {
    json: bool,
    seed: u64,
    machine: Machine,
}

impl Printer {
    pub(crate) fn new(json: bool, seed: u64) -> Self {
        Self { json, seed, machine: Machine::read() }
    }

    /// Seed, machine and command, and the head of a table.
    pub(crate) fn head<R: Row>(&self) {
        let Machine { cpu, cores, kernel, huge_pages, command } = &self.machine;
        let seed = self.seed;
        self.remark(&format!(
            "seed {seed} · {cpu}, {cores} cores · Linux {kernel} · transparent huge pages: {huge_pages}\n{command}"
        ));
        if self.json {
            return;
        }
        for note in R::NOTES {
            println!("{note}");
        }
        println!();
        self.table::<R>(|column| column.title.to_owned());
    }

    /// What is no figure: where JSON is printed, it goes to standard error.
    pub(crate) fn remark(&self, text: &str) {
        if self.json { eprintln!("{text}") } else { println!("{text}") }
    }

    /// One figure.
    pub(crate) fn row<R: Row>(&self, row: &R) {
        if !self.json {
            return self.table::<R>(|column| (column.cell)(row));
        }
        match serde_json::to_string(&Line { row, machine: &self.machine }) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("xlvs-bench: a figure could not be written as JSON: {error}"),
        }
    }

    fn table<R: Row>(&self, cell: impl Fn(&Column<R>) -> String) {
        let cells: Vec<String> = R::COLUMNS.iter().map(|column| column.pad(&cell(column))).collect();
        println!("{}", cells.join(" ").trim_end());
    }
}
