//! A director without traffic leaves the machine alone.
//!
//! ```text
//!   client ── bridge ── director (idle = "adaptive", two queues)
//!                 └──── rs1 rs2 rs3
//! ```

use std::time::{Duration, Instant};
use xlvs_tests::{Config, Daemon, Lab};

/// CPU time of a process in clock ticks, all of its threads.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th words behind it.
    let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

#[test]
fn an_idle_director_uses_less_than_two_percent_of_a_cpu() {
    let lab = Lab::with_web(&["--queues", "2"]);
    let daemon = Daemon::start(&lab, &Config::web(&lab, &["rs1", "rs2", "rs3"]));
    // It has worked before: what is measured is how it comes to rest, not how it was born.
    let answers = lab.get_many(lab.v4("vip"), 100);
    assert!(!answers.contains_key("failed"), "{answers:?}");
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let (before, start) = (ticks(daemon.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(5)); // the span of the measurement
    let share = (ticks(daemon.pid()) - before) as f64 / per_second / start.elapsed().as_secs_f64();
    assert!(share < 0.02, "an idle director took {:.1} % of a CPU", share * 100.0);
    lab.get(lab.v4("vip"), "/", 5).unwrap();
}
