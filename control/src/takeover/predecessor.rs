//! The running director's end, up to the demand to hand over; what follows is the control thread's (`daemon/takeover.rs`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_seqpacket::UnixSeqpacket;

use super::line::{self, Line};
use super::message::{Answer, Demand, Hello};
use crate::api::server::Request;

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
    _place: OwnedSemaphorePermit,
}

/// Refuses a user other than root and the director's own.
pub(crate) async fn turn_away(socket: &UnixSeqpacket) {
    let why = "only root and the user of the running director may take over from it".to_owned();
    // Who has hung up meanwhile needs no answer.
    let _ = line::send(socket, &Answer::Refused(why), &[]).await;
}

/// Talks with a process that asks to take over, until it demands it. `place` is the only one that there is; without it, another
/// process is taking over.
pub(crate) async fn attend(
    socket: UnixSeqpacket,
    hello: Hello,
    place: Option<OwnedSemaphorePermit>,
    requests: &mpsc::Sender<Request>,
) {
    let user = socket.peer_cred().ok();
    let pid = user.and_then(|user| user.pid()).and_then(Pid::from_raw);
    // While it is certainly the one that asks: process ids are used again.
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let line = Line(socket);
    let Some(place) = place else {
        let why = "another process is just taking over".to_owned();
        let _ = line.send(&Answer::Refused(why), &[]).await;
        return;
    };
    let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
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
    let demanded = match line.send(&answer, &[]).await {
        Ok(()) => line.receive::<Demand>().await,
        Err(error) => Err(error),
    };
    let why = match demanded {
        Ok(Some((Demand::HandOver, _))) => {
            let heir = Heir { line, pid, process, _place: place };
            let _ = requests.send(Request::HandOver(Box::new(heir))).await;
            return;
        }
        Ok(None) => "ended before it could; its own log says why".to_owned(),
        Ok(Some(_)) => "does not do as agreed".to_owned(),
        Err(error) => format!("can't be understood: {error}"),
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
