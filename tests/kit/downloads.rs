//! Downloads that go on while something changes: curls in the client, slowed down, each of a part of the web servers' large file.
//! Each has to be complete in the end, on the connection that it began on.

use crate::lab::url;
use crate::{Daemon, Finished, Lab, Running, within};
use std::net::IpAddr;
use std::time::Duration;

/// Downloads that have been started.
#[derive(Debug)]
pub struct Downloads {
    curls: Vec<Running>,
    bytes: usize,
    limit: Duration,
}

/// How each of them is.
#[derive(Clone, Copy, Debug)]
pub struct Download {
    /// How much of the file.
    pub bytes: usize,
    /// How many bytes a second, as curl takes it: "600K".
    pub rate: &'static str,
    /// How many seconds it may take.
    pub limit_s: u64,
}

impl Downloads {
    /// Starts so many, of these VIPs in turn.
    #[must_use]
    pub fn start(lab: &Lab, vips: &[IpAddr], count: usize, each: Download) -> Self {
        let Download { bytes, rate, limit_s } = each;
        let (range, limit) = (format!("0-{}", bytes - 1), limit_s.to_string());
        let line = ["curl", "-sS", "-m", &limit, "--limit-rate", rate, "-r", &range, "-o", "/dev/null"];
        let format = "%{http_code} %{size_download} %{num_connects}";
        let start = |vip: &IpAddr| {
            lab.spawn("client", &[&line[..], &["-w", format, &url(*vip, "/download")]].concat())
        };
        let curls = vips.iter().cycle().take(count).map(start).collect();
        Self { curls, bytes, limit: Duration::from_secs(limit_s) }
    }

    /// Waits until the director has the connections of all of them, and no other.
    #[track_caller]
    pub fn wait(&self, daemon: &Daemon<'_>) {
        within("all downloads are under way", Duration::from_secs(10), || match daemon.active() {
            some if some == self.curls.len() as u64 => Ok(()),
            some => Err(some),
        });
    }

    /// Waits for their ends: all of them are complete.
    #[track_caller]
    pub fn complete(self) {
        let failed = self.failed();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    /// The same, where what went on meanwhile is told of those that are not.
    #[track_caller]
    pub fn complete_across(self, what: &str) {
        let failed = self.failed();
        assert!(failed.is_empty(), "downloads across {what}: {failed:#?}");
    }

    #[track_caller]
    fn failed(self) -> Vec<Finished> {
        let complete = format!("206 {} 1", self.bytes);
        // curl's own deadline began earlier.
        let done = self.curls.into_iter().map(|curl| curl.finish(self.limit));
        done.filter(|it| it.code != Some(0) || it.stdout != complete).collect()
    }
}

/// Downloads by one curl, which begins them all at once.
#[derive(Debug)]
pub struct Together {
    curl: Running,
    count: usize,
    bytes: usize,
    limit: Duration,
}

impl Together {
    /// Starts so many, of these VIPs in turn.
    #[must_use]
    pub fn start(lab: &Lab, vips: &[IpAddr], count: usize, each: Download) -> Self {
        let Download { bytes, rate, limit_s } = each;
        let list = lab.dir().join("downloads");
        let entry = |vip: &IpAddr| format!("url = \"{}\"\noutput = \"/dev/null\"\n", url(*vip, "/download"));
        std::fs::write(&list, vips.iter().cycle().take(count).map(entry).collect::<String>()).unwrap();
        let (range, most, limit) = (format!("0-{}", bytes - 1), count.to_string(), limit_s.to_string());
        let parallel = ["--parallel", "--parallel-immediate", "--parallel-max", &most];
        let line = [
            "curl",
            "-sS",
            "-m",
            &limit,
            "--limit-rate",
            rate,
            "-r",
            &range,
            "--config",
            list.to_str().unwrap(),
        ];
        let told = ["-w", "%{http_code} %{size_download} %{exitcode} %{num_connects}\n"];
        let curl = lab.spawn("client", &[&line[..], &parallel, &told].concat());
        Self { curl, count, bytes, limit: Duration::from_secs(limit_s) }
    }

    /// Waits for their ends: all of them are complete, in spite of what went on meanwhile.
    #[track_caller]
    pub fn complete_across(self, what: &str) {
        let done = self.curl.finish(self.limit);
        let complete = format!("206 {} 0 1", self.bytes);
        let failed: Vec<&str> = done.stdout.lines().filter(|line| *line != complete).collect();
        assert!(
            failed.is_empty() && done.code == Some(0),
            "downloads across {what}: {failed:?} {}",
            done.stderr
        );
        assert_eq!(done.stdout.lines().count(), self.count);
    }
}
