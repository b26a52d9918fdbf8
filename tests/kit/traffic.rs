//! Requests that go on while something changes: curl after curl in the client, each on a connection of its own, with the time at
//! which it began and ended. What failed, and when, is looked at afterwards.

use crate::command::run;
use crate::{Lab, lab::SOON, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Between two requests of a lane: about what an operator's check script does, and little enough for a loaded machine.
const PAUSE: Duration = Duration::from_millis(40);

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Before curl was started.
    pub begin: SystemTime,
    /// When curl had ended.
    pub end: SystemTime,
    /// The server that answered with status 200, or what curl said.
    pub answer: Result<String, String>,
}

/// Time in which requests may fail, and why.
#[derive(Clone, Debug)]
pub struct Outage {
    /// What happened.
    pub what: String,
    /// From here ...
    pub from: SystemTime,
    /// ... to here.
    pub until: SystemTime,
}

impl Outage {
    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }
}

/// Running requests.
#[derive(Debug)]
pub struct Traffic {
    end: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    lanes: Vec<JoinHandle<Vec<Request>>>,
}

impl Traffic {
    /// Starts requests for `url`, so many at a time. curl gives one up after `limit_s`.
    #[must_use]
    pub fn start(lab: &Lab, url: &str, lanes: usize, limit_s: u32) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let namespace = format!("--net={}", lab.namespace("client").display());
        let lane = |_| {
            let (end, done, namespace, url) =
                (Arc::clone(&end), Arc::clone(&done), namespace.clone(), url.to_owned());
            std::thread::spawn(move || {
                let mut requests = Vec::new();
                while !end.load(Relaxed) {
                    requests.push(request(&namespace, &url, limit_s));
                    done.fetch_add(1, Relaxed);
                    std::thread::sleep(PAUSE);
                }
                requests
            })
        };
        let lanes = (0..lanes).map(lane).collect();
        Self { end, done, lanes }
    }

    /// Waits until so many more requests have ended.
    #[track_caller]
    pub fn wait(&self, more: usize) {
        let before = self.done.load(Relaxed);
        until("requests go on", Duration::from_secs(60), || self.done.load(Relaxed) >= before + more);
    }

    /// Ends it, when the requests under way have ended.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self) -> Vec<Request> {
        self.end.store(true, Relaxed);
        self.lanes.drain(..).flat_map(|lane| lane.join().unwrap()).collect()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for lane in self.lanes.drain(..) {
            let _ = lane.join();
        }
    }
}

fn request(namespace: &str, url: &str, limit_s: u32) -> Request {
    let mut command = std::process::Command::new("nsenter");
    let limit = limit_s.to_string();
    let format = "%{http_code} %header{x-server}";
    command.args([namespace, "curl", "-sS", "-m", &limit, "-o", "/dev/null", "-w", format, url]);
    let begin = SystemTime::now();
    let done = run(command, SOON + Duration::from_secs(limit_s.into()));
    let answer = match done.stdout.strip_prefix("200 ") {
        Some(server) if done.code == Some(0) => Ok(server.to_owned()),
        _ => Err(format!("exit {:?}, {} {}", done.code, done.stdout, done.stderr.trim())),
    };
    Request { begin, end: SystemTime::now(), answer }
}

/// Asserts that every request was answered but those under way in an outage. Prints the outages and the counts.
#[track_caller]
pub fn only_failed_in(outages: &[Outage], requests: &[Request]) {
    let mut excused = vec![Vec::new(); outages.len()];
    let mut failed = Vec::new();
    for request in requests.iter().filter(|request| request.answer.is_err()) {
        let its = |outage: &Outage| request.begin <= outage.until && outage.from <= request.end;
        match outages.iter().position(its) {
            Some(outage) => excused[outage].push(request),
            None => failed.push(request),
        }
    }
    println!("{} requests, {} failed outside outages", requests.len(), failed.len());
    for (outage, excused) in outages.iter().zip(excused) {
        println!("  {}: {} ms, {} failed", outage.what, outage.length().as_millis(), excused.len());
        for request in excused {
            let before = outage.until.duration_since(request.begin).unwrap_or_default();
            println!("    begun {} ms before its end: {:?}", before.as_millis(), request.answer);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}\n{outages:#?}");
}

/// Asserts that nobody was refused a connection, not even in an outage.
#[track_caller]
pub fn none_refused(requests: &[Request]) {
    // curl's 7: it could not connect.
    let refused =
        |request: &&Request| request.answer.as_ref().is_err_and(|answer| answer.starts_with("exit Some(7)"));
    let refused: Vec<&Request> = requests.iter().filter(refused).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
