//! The demo, as a newcomer runs it.
//!
//! ```text
//!   client ── bridge ── director
//!                 └──── rs1 rs2 rs3      built by the demo itself
//! ```

use std::path::Path;
use std::time::{Duration, Instant};
use xlvs_tests::command::run;
use xlvs_tests::lab::{script, xlvs};

const LAST_LINE: &str = "demo: 600 of 600 requests answered, 3 servers, via AF_XDP (native, copy)";

#[test]
pub(crate) fn the_demo_answers_all_requests_and_cleans_up() {
    assert!(xlvs().is_file(), "the build is done before");
    let start = Instant::now();
    let done = run(script("demo.sh"), Duration::from_secs(300)).ok();
    assert_eq!(done.stdout.lines().last(), Some(LAST_LINE), "{}", done.stdout);
    for server in ["rs1", "rs2", "rs3"] {
        assert!(done.stdout.contains(&format!("{server} answered 200")), "{}", done.stdout);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "the demo took {:?}", start.elapsed());
    let lab = lab_name(&done.stdout);
    assert!(!Path::new("/run/xlvs-lab").join(&lab).exists(), "{lab} was left behind");
    assert!(!Path::new("/run/netns").join(format!("{lab}-director")).exists(), "{lab} was left behind");
}

#[test]
pub(crate) fn the_demo_keeps_its_lab_when_told() {
    let mut demo = script("demo.sh");
    demo.arg("--keep");
    let done = run(demo, Duration::from_secs(300));
    let lab = lab_name(&done.stdout);
    let in_lab = |arguments: &[&str]| {
        let mut command = script("lab.sh");
        command.env("XLVS_LAB", &lab).args(arguments);
        run(command, Duration::from_secs(20))
    };
    let asked = in_lab(&["exec", "client", "curl", "-sS", "-m", "5", "http://10.0.0.100/"]);
    let taken_down = in_lab(&["down"]);
    assert_eq!(done.stdout.lines().last(), Some(LAST_LINE), "{done:#?}");
    assert!(asked.ok().stdout.starts_with("rs"));
    let _ = taken_down.ok();
    let _ = in_lab(&["down"]).ok(); // safe to repeat
    assert!(!Path::new("/run/xlvs-lab").join(&lab).exists());
}

/// The laboratory that the demo says it builds.
fn lab_name(output: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix("== Laboratory "));
    line.and_then(|line| line.split(':').next()).unwrap_or_else(|| panic!("no lab in {output}")).to_owned()
}
