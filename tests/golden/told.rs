//! What the replayer (`golden`) says of captures in this folder.

use std::process::{Command, Output};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/");

/// What it said.
pub(crate) struct Told {
    output: Output,
    text: String,
}

impl Told {
    /// Of these files, with these options.
    pub(crate) fn by(options: &[&str], files: &[&str]) -> Self {
        let files = files.iter().map(|name| format!("{FOLDER}{name}"));
        let output = Command::new(env!("CARGO_BIN_EXE_golden"))
            .args(options)
            .args(files)
            .output()
            .expect("the replayer runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Self { output, text }
    }

    /// The lines about cases that are waived as a whole.
    pub(crate) fn waived(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| line.contains(": waived: "))
    }

    /// Fails unless all passed, and each waiver that concerns this way is needed.
    #[track_caller]
    pub(crate) fn is_right(&self, way: &str) {
        let last = self.text.lines().last().unwrap_or_default();
        assert!(last.ends_with(" passed, 0 failed"), "{last}");
        assert!(self.output.status.success(), "{}", self.output.status);
        let needless: Vec<&str> =
            self.text.lines().filter(|line| line.starts_with("waivers.toml: ")).collect();
        assert!(needless.is_empty(), "take them out: {needless:?}");
        let file = std::fs::read_to_string(format!("{FOLDER}waivers.toml")).expect("the waivers");
        let file: toml::Value = toml::from_str(&file).expect("TOML");
        for waiver in file["waiver"].as_array().expect("waivers") {
            let concerns = |ways: &toml::Value| {
                ways.as_array().expect("ways").iter().any(|its| its.as_str() == Some(way))
            };
            // What concerns all ways may name a case of another file.
            let Some(true) = waiver.get("ways").map(concerns) else { continue };
            let id = waiver["id"].as_str().expect("an id").trim_end_matches('…');
            assert!(self.waived().any(|line| line.contains(id)), "no case {id:?}: take the waiver out");
        }
    }
}
