//! The new director's end.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio_seqpacket::UnixSeqpacket;

use super::line::Line;
use super::message::{Answer, Consent, Demand, Hello};
use crate::api::takeover_request;
use crate::config::DirectorConfig;
use crate::failure::Failure;
use crate::health::plan::ServerName;
use crate::health::state::Report;
use crate::kernel::Link;

/// How long the predecessor may take for an answer. It closes its queues meanwhile, and may have much to publish.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A take-over that the predecessor has agreed to.
#[derive(Debug)]
pub(crate) struct TakeOver {
    line: Line,
    socket: PathBuf,
    consent: Consent,
}

const HUNG_UP: &str = "it has hung up; its own log says why";

/// What only one director may have, and its predecessor had.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// The control socket, listening.
    pub(crate) listener: OwnedFd,
    /// The state directory's lock.
    pub(crate) state_lock: File,
    /// The file of connections.
    pub(crate) connections: File,
    /// Its lock, where that is another file.
    pub(crate) connections_lock: Option<File>,
    /// What was known of the servers' health.
    pub(crate) reports: Vec<(ServerName, Report)>,
    /// When the predecessor stopped, in milliseconds of the system's clock.
    pub(crate) stopped_ms: u64,
}

impl TakeOver {
    /// Asks the director on the configured socket.
    ///
    /// # Errors
    /// When there is none, or it does not agree.
    pub(crate) async fn begin(director: &DirectorConfig) -> Result<Self, Failure> {
        let path = &director.socket;
        let hello = Hello::new(director).map_err(|error| {
            Failure::Runtime(format!("the network namespace can't be told: {error}; mount /proc"))
        })?;
        let socket = UnixSeqpacket::connect(path).await.map_err(|error| {
            Failure::Runtime(format!(
                "there is no director to take over from on {} ({error}): start without --takeover, or name its socket with --socket",
                path.display()
            ))
        })?;
        let line = Line(socket);
        let asked = async {
            line.0.send(&takeover_request(&hello)?).await?;
            line.receive::<Answer>().await
        };
        let answer = answered(asked).await.map_err(|why| refused(path.display(), &why))?;
        match answer.0 {
            Answer::Agreed(consent) => {
                tracing::info!(
                    "taking over from process {} (xlvs {}), which forwards meanwhile",
                    consent.pid,
                    consent.version
                );
                Ok(Self { line, socket: path.clone(), consent })
            }
            Answer::Refused(why) => Err(refused(path.display(), &why)),
            _ => Err(refused(path.display(), "it does not do as agreed")),
        }
    }

    /// The real servers whose neighbour entries the predecessor has.
    pub(crate) fn real_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.consent.real_servers.iter().copied()
    }

    /// The predecessor.
    pub(crate) fn predecessor(&self) -> (u32, &str) {
        (self.consent.pid, &self.consent.version)
    }

    /// Has the predecessor stop. From here on nobody forwards.
    ///
    /// # Errors
    /// When it refuses or ends.
    pub(crate) async fn demand(&self) -> Result<Inheritance, Failure> {
        let refused = |why: &str| refused(self.socket.display(), why);
        tracing::info!("ready; process {} is to hand over", self.consent.pid);
        let asked = async {
            self.line.send(&Demand::HandOver, &[]).await?;
            self.line.receive::<Answer>().await
        };
        let (handed, files) = match answered(asked).await.map_err(|why| refused(&why))? {
            (Answer::Handed(handed), files) => (handed, files),
            (Answer::Refused(why), _) => return Err(refused(&why)),
            _ => return Err(refused("it does not do as agreed")),
        };
        let mut files = files.into_iter();
        let (Some(listener), Some(lock), Some(connections)) = (files.next(), files.next(), files.next())
        else {
            return Err(refused("it did not hand over its files"));
        };
        tracing::info!("process {} has handed over", self.consent.pid);
        Ok(Inheritance {
            listener,
            state_lock: lock.into(),
            connections: connections.into(),
            connections_lock: files.next().map(File::from),
            stopped_ms: handed.stopped_ms,
            reports: handed.into_reports(),
        })
    }

    /// Says that this director forwards, on these interfaces, and waits until the predecessor knows.
    pub(crate) async fn serves(self, links: &[Link]) {
        let serves = Demand::Serves(links.iter().map(|link| link.name.clone()).collect());
        let told = async {
            self.line.send(&serves, &[]).await?;
            self.line.receive::<Answer>().await
        };
        // One that died meanwhile, or hangs, has no queues any more; one that does not want to end kills this process.
        if let Err(why) = answered(told).await {
            tracing::warn!("process {} did not say farewell: {why}", self.consent.pid);
        }
    }
}

async fn answered<T>(answer: impl Future<Output = io::Result<Option<T>>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err(HUNG_UP.to_owned()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(HUNG_UP.to_owned()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err("it does not know how to hand over, as an older version".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer for {} s", ANSWER_LIMIT.as_secs())),
    }
}

fn refused(socket: impl std::fmt::Display, why: &str) -> Failure {
    Failure::Runtime(format!("the director on {socket} does not hand over, and goes on: {why}"))
}
