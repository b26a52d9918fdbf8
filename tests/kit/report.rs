//! What a scenario measured: a table that it prints, and keeps in `target/scenario/` where it can be read when the output is gone. A
//! test that fails leaves what it had measured until then.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A table of measurements, written when it is dropped.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    title: &'static str,
    rows: Vec<[String; 3]>,
}

impl Report {
    /// An empty one; `name` is its file's.
    #[must_use]
    pub const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title, rows: Vec::new() }
    }

    /// Takes down a time; a panic if it is not what is allowed, in seconds.
    #[track_caller]
    pub fn time(&mut self, what: &str, measured: Duration, allowed: RangeInclusive<f64>) {
        let seconds = measured.as_secs_f64();
        let limits = format!("{} to {} s", allowed.start(), allowed.end());
        self.rows.push([what.to_owned(), format!("{seconds:.3} s"), limits.clone()]);
        assert!(allowed.contains(&seconds), "{what}: {seconds} s, allowed: {limits}");
    }

    /// Takes down anything else.
    pub fn note(&mut self, what: &str, found: impl Display) {
        self.rows.push([what.to_owned(), found.to_string(), String::new()]);
    }

    fn text(&self) -> String {
        let head = ["what", "measured", "allowed"].map(str::to_owned);
        let width = |column: usize| {
            self.rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (first, second) = (width(0), width(1));
        let line = |[what, measured, allowed]: &[String; 3]| {
            let line = format!("{what:first$}  {measured:second$}  {allowed}");
            line.trim_end().to_owned() + "\n"
        };
        let lines: String = [&head].into_iter().chain(&self.rows).map(line).collect();
        format!("{}\n\n{lines}", self.title)
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let text = self.text();
        println!("{text}");
        let file = folder().map(|folder| folder.join(self.name).with_extension("txt"));
        let written = file.and_then(|file| std::fs::write(file, text));
        // A second panic would hide the first.
        if !std::thread::panicking() {
            written.unwrap();
        }
    }
}

/// `scenario` beside the folder of the profile that this program was built in.
fn folder() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?; // target/<profile>/deps/<test>
    let folder = program.ancestors().nth(3).map(|target| target.join("scenario")).unwrap_or_default();
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
