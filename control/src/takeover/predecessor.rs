//! The running director's end, up to the demand to hand over; what follows is the control thread's (`daemon/takeover.rs`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot};
use tokio_seqpacket::UnixSeqpacket;

use super::line::{self, Line};
use super::message::{Answer, Demand, Hello};
use crate::api::server::Request;

/// How long a successor may take to be ready. It waits for neighbours and for memory, and for nothing else.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a successor that has hung up may take to be gone: it says why meanwhile.
const GRACE: Duration = Duration::from_millis(300);
/// How long one that was killed may.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How often that is looked at.
const STEP: Duration = Duration::from_millis(2);

/// A process that is ready to take over.
#[derive(Debug)]
pub(crate) struct Heir {
    line: Line,
    /// Its process id.
    pub(crate) pid: u32,
    process: Option<OwnedFd>,
    /// There is one at a time.
    _held: Held,
}

/// The only place for a process that takes over, and the process id of who has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Arc<Mutex<Option<u32>>>);

/// The place, taken: dropped, it is free again.
#[derive(Debug)]
struct Held(Place);

impl Place {
    /// Takes it.
    ///
    /// # Errors
    /// With who has it.
    fn take(&self, pid: u32) -> Result<Held, u32> {
        let mut holder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *holder {
            Some(other) => Err(other),
            None => {
                *holder = Some(pid);
                Ok(Held(self.clone()))
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Refuses a user other than root and the director's own.
pub(crate) async fn turn_away(socket: &UnixSeqpacket) {
    let why = "only root and the user of the running director may take over from it".to_owned();
    // Who has hung up meanwhile needs no answer.
    let _ = line::send(socket, &Answer::Refused(why), &[]).await;
}

/// Talks with a process that asks to take over, until it demands it. While another one has the only place, it is refused.
pub(crate) async fn attend(
    socket: UnixSeqpacket,
    hello: Hello,
    place: &Place,
    requests: &mpsc::Sender<Request>,
) {
    let user = socket.peer_cred().ok();
    let pid = user.and_then(|user| user.pid()).and_then(Pid::from_raw);
    // While it is certainly the one that asks: process ids are used again.
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let line = Line(socket);
    let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let held = match place.take(pid) {
        Ok(held) => held,
        Err(other) => {
            let why = format!(
                "process {other} is just taking over: wait until it has, or end it if it hangs, and start this one again"
            );
            tracing::warn!("process {pid} can't take over: {why}");
            let _ = line.send(&Answer::Refused(why), &[]).await;
            return;
        }
    };
    tracing::info!("process {pid} (xlvs {}) asks to take over", hello.version);
    let (sender, receiver) = oneshot::channel();
    if requests.send(Request::TakeOver(hello, sender)).await.is_err() {
        return;
    }
    let Ok(answer) = receiver.await else { return };
    if let Answer::Refused(why) = &answer {
        tracing::warn!("process {pid} can't take over: {why}");
        let _ = line.send(&answer, &[]).await;
        return;
    }
    let demanded = async {
        line.send(&answer, &[]).await?;
        line.receive::<Demand>().await
    };
    let why = match tokio::time::timeout(READY_LIMIT, demanded).await {
        Ok(Ok(Some((Demand::HandOver, _)))) => {
            let heir = Heir { line, pid, process, _held: held };
            let _ = requests.send(Request::HandOver(Box::new(heir))).await;
            return;
        }
        Ok(Ok(None)) => "ended before it could; its own log says why".to_owned(),
        Ok(Ok(Some(_))) => "does not do as agreed".to_owned(),
        Ok(Err(error)) => format!("can't be understood: {error}"),
        Err(_) => format!("was not ready within {} s, and is waited for no longer", READY_LIMIT.as_secs()),
    };
    let _ = requests.send(Request::NotTakenOver(pid, why)).await;
}

impl Heir {
    /// Tells it something.
    ///
    /// # Errors
    /// When it has hung up.
    pub(crate) async fn tell(&self, answer: &Answer, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.line.send(answer, files).await
    }

    /// Waits until it says that it serves, and on which interfaces. One that does something else, or nothing for too long, is killed.
    ///
    /// # Errors
    /// Why it does not serve, as the end of a sentence that begins with who it is.
    pub(crate) async fn serves(&self, limit: Duration) -> Result<Vec<String>, String> {
        let why = match tokio::time::timeout(limit, self.line.receive::<Demand>()).await {
            Ok(Ok(Some((Demand::Serves(interfaces), _)))) => return Ok(interfaces),
            Ok(Ok(None)) => return Err("ended before it served; its own log says why".to_owned()),
            Ok(Ok(Some(_))) => "does not do as agreed".to_owned(),
            Ok(Err(error)) => format!("can't be understood: {error}"),
            Err(_) => format!("did not serve within {} ms", limit.as_millis()),
        };
        self.kill();
        Err(format!("{why}, and was killed"))
    }

    fn kill(&self) {
        if let Some(process) = &self.process {
            // It may be gone already.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    /// Waits until it has ended; one that does not do so by itself is killed.
    pub(crate) async fn end(self) {
        if self.ends_within(GRACE).await {
            return;
        }
        self.kill();
        if !self.ends_within(END_LIMIT).await {
            tracing::error!("process {} can't be ended: end it by hand", self.pid);
        }
    }

    async fn ends_within(&self, limit: Duration) -> bool {
        let Some(process) = &self.process else { return false };
        let deadline = Instant::now() + limit;
        loop {
            // A process that has ended can be read.
            let mut polled = [PollFd::new(process, PollFlags::IN)];
            if poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ended| ended > 0) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::message::Consent;
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: 1,
            version: "0.1.0".to_owned(),
            layout: 1,
            namespace: 1,
            state_dir: "/var/lib/xlvs".into(),
            connections_file: "/run/xlvs/xlvs.connections".to_owned(),
        }
    }

    /// A process that asks; its end of the line.
    fn asks(place: &Place, requests: &mpsc::Sender<Request>) -> Line {
        let (its, own) = UnixSeqpacket::pair().unwrap();
        let (place, requests) = (place.clone(), requests.clone());
        tokio::spawn(async move { attend(own, hello(), &place, &requests).await });
        Line(its)
    }

    /// A control thread that agrees with everybody, and tells who does not take over.
    async fn agree(mut asked: mpsc::Receiver<Request>, told: mpsc::Sender<String>) {
        while let Some(request) = asked.recv().await {
            match request {
                Request::TakeOver(_, answer) => {
                    let (version, real_servers) = (String::new(), Vec::new());
                    answer.send(Answer::Agreed(Consent { pid: 1, version, real_servers })).unwrap();
                }
                Request::NotTakenOver(_, why) => told.send(why).await.unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn refusal(line: &Line) -> Option<String> {
        match line.receive::<Answer>().await.unwrap() {
            Some((Answer::Agreed(_), _)) => None,
            Some((Answer::Refused(why), _)) => Some(why),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_takes_over_at_a_time_and_one_that_hangs_not_forever() {
        let place = Place::default();
        let (requests, asked) = mpsc::channel(8);
        let (tell, mut told) = mpsc::channel(8);
        tokio::spawn(agree(asked, tell));

        let first = asks(&place, &requests);
        assert_eq!(refusal(&first).await, None);
        let why = refusal(&asks(&place, &requests)).await.unwrap();
        let found = format!("process {} is just taking over: ", std::process::id());
        assert!(why.starts_with(&found) && why.ends_with("and start this one again"), "{why}");

        assert_eq!(told.recv().await.unwrap(), "was not ready within 60 s, and is waited for no longer");
        assert!(first.receive::<Answer>().await.unwrap().is_none(), "it hangs up");
        let next = asks(&place, &requests);
        assert_eq!(refusal(&next).await, None);
        drop(next);
        assert_eq!(told.recv().await.unwrap(), "ended before it could; its own log says why");
        assert_eq!(refusal(&asks(&place, &requests)).await, None);
    }
}
