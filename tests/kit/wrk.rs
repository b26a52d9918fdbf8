//! New connections as fast as two threads can make them: wrk in the client, 50 at a time, one for each request.

use crate::lab::url;
use crate::{Daemon, Lab, Running};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Every request on a connection of its own; at the end the counts, one a line.
const SCRIPT: &str = r#"
wrk.headers["Connection"] = "close"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("requests=%d\nconnect=%d\nread=%d\nwrite=%d\ntimeout=%d\nstatus=%d\n",
    summary.requests, e.connect, e.read, e.write, e.timeout, e.status))
end
"#;

/// A wrk that runs.
#[derive(Debug)]
pub struct Wrk {
    running: Running,
    seconds: u64,
}

impl Wrk {
    /// Starts it, for so long.
    #[must_use]
    pub fn start(lab: &Lab, vip: IpAddr, seconds: u64) -> Self {
        let script = lab.dir().join("load.lua");
        std::fs::write(&script, SCRIPT).unwrap();
        let (url, duration) = (url(vip, "/"), format!("{seconds}s"));
        let line = ["wrk", "-t", "2", "-c", "50", "-d", &duration, "--timeout", "10s", "-s"];
        let running = lab.spawn("client", &[&line[..], &[script.to_str().unwrap(), &url]].concat());
        Self { running, seconds }
    }

    /// That it has not ended early.
    #[track_caller]
    pub fn goes_on(&mut self) {
        let ended = self.running.has_ended();
        assert!(!ended, "wrk ended early: {} {}", self.running.stdout(), self.running.stderr());
    }

    /// Waits for its end: no request has failed. How many there were.
    #[track_caller]
    pub fn finish(self, daemon: &Daemon<'_>) -> u64 {
        let done = self.running.finish(Duration::from_secs(self.seconds + 30)).ok();
        let counts: HashMap<&str, u64> = done
            .stdout
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        println!("{counts:?}");
        for kind in ["connect", "read", "write", "timeout", "status"] {
            assert_eq!(counts[kind], 0, "failed requests ({kind}): {}\n{:?}", done.stdout, daemon.drops());
        }
        counts["requests"]
    }
}
