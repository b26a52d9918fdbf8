//! The side that needs the connections: asks its peers one after the other until one has sent all of them.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::channel::{Channel, ChannelError};
use super::frame::{Frame, Hello, NoFrame, Refusal, VERSION, Versioned, Welcome};
use super::key::Key;
use super::{HANDSHAKE_LIMIT, IDLE_LIMIT, Instance};
use crate::synchronization::entry::Entry;
use crate::synchronization::message::{EntryFault, MessageFault, decode};

/// Between the first round of all peers and the second; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between any two rounds at most.
const MOST_PAUSE: Duration = Duration::from_secs(30);
/// Entries of a slice from which on it is delivered, whatever follows: as many as a server sends at once.
const FULL_SLICE: usize = 4096;

/// What asks, and whom; [`Self::catch_up`] does it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who is asked, in this order.
    pub peers: Vec<SocketAddr>,
    /// The key that they have too.
    pub key: Key,
    /// The sync id that they must have; 0 takes any.
    pub sync_id: u8,
    /// This director's process, as its server knows it.
    pub instance: Instance,
    /// More entries are not taken from a peer: what the connection tables can hold.
    pub most_entries: u64,
    /// All peers are asked so often; none: until one has answered.
    pub rounds: Option<NonZeroU32>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Progress {
    /// Nobody was asked yet.
    #[default]
    Idle,
    /// A peer is being asked.
    Connecting {
        /// Which.
        peer: SocketAddr,
    },
    /// A peer is sending.
    Receiving {
        /// Which.
        peer: SocketAddr,
        /// So many entries came.
        entries: u64,
        /// About so many there are.
        of: u64,
    },
    /// All came.
    Done(Summary),
    /// No peer has sent all.
    Failed {
        /// Each peer's reason.
        why: String,
        /// After this all are asked again; none: they are not.
        retry_in: Option<Duration>,
    },
}

/// A peer has sent all it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which.
    pub peer: SocketAddr,
    /// Entries that it has sent and that were delivered.
    pub entries: u64,
    /// Entries that it has sent and that are of no use: of a protocol or in a state that this release doesn't know.
    pub skipped: u64,
    /// From asking this peer to the last entry.
    pub took: Duration,
}

/// Why no peer has sent all its connections, and none will be asked again.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// There is none.
    #[error("no peer is configured that could be asked for its connections")]
    NoPeers,
    /// All were asked often enough.
    #[error("asked {rounds} times for the peers' connections: {why}")]
    GaveUp {
        /// So often.
        rounds: u32,
        /// Each peer's reason, the last time.
        why: String,
    },
    /// Nobody takes the entries: the director ends.
    #[error("the connections are not taken any more")]
    NotTaken,
}

/// Why a peer has not sent all its connections.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It can't be reached.
    #[error("can't be reached: {0}")]
    Unreachable(std::io::Error),
    /// It doesn't answer.
    #[error("does not answer within {} s", HANDSHAKE_LIMIT.as_secs())]
    NoAnswer,
    /// The connection, or the handshake, failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It refuses.
    #[error(transparent)]
    Refused(Refusal),
    /// It doesn't know that it speaks another version.
    #[error("it answers in version {0} of bulk synchronisation, this director speaks version {VERSION}")]
    OtherVersion(u8),
    /// It sent what doesn't belong there.
    #[error("it sent a frame of the kind {0}, which does not belong there")]
    Unexpected(u8),
    /// It sent a message that is none.
    #[error("it sent a message that is {0}")]
    Message(MessageFault),
    /// It sent an entry that is none.
    #[error("it sent a wrong entry: {0}")]
    Entry(EntryFault),
    /// The stream ended before its end was told.
    #[error("the connection ended after {entries} connections, of about {of}")]
    Truncated {
        /// So many came.
        entries: u64,
        /// Of about so many.
        of: u64,
    },
    /// The end tells of another number.
    #[error("it says that it has sent {said} connections, but {came} came")]
    WrongCount {
        /// The end's number.
        said: u64,
        /// So many came.
        came: u64,
    },
    /// There are more than the tables hold.
    #[error("it has more than {0} connections, which is all that this director's tables hold")]
    TooMany(u64),
    /// Nobody takes the entries.
    #[error("the connections are not taken any more")]
    NotTaken,
}

/// A peer's entries: those of use, and others.
struct Received {
    entries: u64,
    skipped: u64,
}

impl Client {
    /// Asks one peer after the other until one has sent all its connections. They are delivered while they come: what came at once in
    /// one slice, of 4350 at most. Who takes them slowly makes the peer wait. They may come again, from this peer or another, if one was
    /// cut off: who takes them must be able to take one twice.
    ///
    /// # Errors
    /// When none has, and none is to be asked again.
    pub async fn catch_up(
        &self,
        entries: &mpsc::Sender<Vec<Entry>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Summary, CatchUpError> {
        let ended = self.ask_all(entries, progress).await;
        match &ended {
            Ok(summary) => {
                let Summary { peer, entries, took, .. } = summary;
                tracing::info!(
                    "bulk synchronisation: {peer} has sent {entries} connections in {:.1} s",
                    took.as_secs_f32()
                );
                progress.send_replace(Progress::Done(*summary));
            }
            Err(error) => {
                tracing::warn!("bulk synchronisation: {error}");
                progress.send_replace(Progress::Failed { why: error.to_string(), retry_in: None });
            }
        }
        ended
    }

    async fn ask_all(
        &self,
        entries: &mpsc::Sender<Vec<Entry>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Summary, CatchUpError> {
        if self.peers.is_empty() {
            return Err(CatchUpError::NoPeers);
        }
        let (mut rounds, mut pause) = (0_u32, FIRST_PAUSE);
        let mut told = vec![String::new(); self.peers.len()];
        loop {
            let mut reasons = Vec::with_capacity(self.peers.len());
            for (&peer, told) in self.peers.iter().zip(&mut told) {
                progress.send_replace(Progress::Connecting { peer });
                match self.ask(peer, entries, progress).await {
                    Ok(summary) => return Ok(summary),
                    Err(FetchError::NotTaken) => return Err(CatchUpError::NotTaken),
                    Err(error) => {
                        let why = error.to_string();
                        if why != *told {
                            tracing::warn!(
                                "bulk synchronisation: {peer} has not sent its connections: {why}"
                            );
                        }
                        reasons.push(format!("{peer}: {why}"));
                        *told = why;
                    }
                }
            }
            let why = reasons.join("; ");
            rounds = rounds.saturating_add(1);
            if self.rounds.is_some_and(|most| rounds >= most.get()) {
                return Err(CatchUpError::GaveUp { rounds, why });
            }
            progress.send_replace(Progress::Failed { why, retry_in: Some(pause) });
            tokio::select! {
                () = sleep(pause) => {}
                () = entries.closed() => return Err(CatchUpError::NotTaken),
            }
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    async fn ask(
        &self,
        peer: SocketAddr,
        entries: &mpsc::Sender<Vec<Entry>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Summary, FetchError> {
        let begin = Instant::now();
        let stream =
            timeout(HANDSHAKE_LIMIT, TcpStream::connect(peer)).await.map_err(|_| FetchError::NoAnswer)?;
        let stream = stream.map_err(FetchError::Unreachable)?;
        let _ = stream.set_nodelay(true);
        self.fetch(stream, peer, begin, entries, progress).await
    }

    /// Takes all entries from a peer that is connected.
    pub(super) async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: SocketAddr,
        begin: Instant,
        entries: &mpsc::Sender<Vec<Entry>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Summary, FetchError> {
        let greeted = timeout(HANDSHAKE_LIMIT, self.greet(stream)).await.map_err(|_| FetchError::NoAnswer)?;
        let (mut channel, Welcome { count: of, .. }) = greeted?;
        let mut slice = Vec::new();
        let received = self.receive(&mut channel, peer, of, &mut slice, entries, progress).await;
        // What came before a fault is true.
        if !slice.is_empty() {
            entries.send(slice).await.map_err(|_| FetchError::NotTaken)?;
        }
        let Received { entries, skipped } = received?;
        Ok(Summary { peer, entries, skipped, took: begin.elapsed() })
    }

    /// Takes entries until the server's end. What was not delivered yet is left in `slice`.
    async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        channel: &mut Channel<S>,
        peer: SocketAddr,
        of: u64,
        slice: &mut Vec<Entry>,
        to: &mpsc::Sender<Vec<Entry>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Received, FetchError> {
        let (mut entries, mut skipped) = (0, 0);
        loop {
            if slice.len() >= FULL_SLICE || (!slice.is_empty() && !channel.has_more()) {
                to.send(std::mem::take(slice)).await.map_err(|_| FetchError::NotTaken)?;
            }
            let came = entries + skipped;
            progress.send_replace(Progress::Receiving { peer, entries: came, of });
            let frame = channel.receive(IDLE_LIMIT).await?;
            let frame = frame.ok_or(FetchError::Truncated { entries: came, of })?;
            let message = match Frame::read(frame) {
                Ok(Frame::Entries(message)) => message,
                Ok(Frame::End { entries: said }) if said == came => return Ok(Received { entries, skipped }),
                Ok(Frame::End { entries: said }) => return Err(FetchError::WrongCount { said, came }),
                _ => return Err(FetchError::Unexpected(frame.first().copied().unwrap_or_default())),
            };
            let before = slice.len();
            skipped += self.unpack(message, slice)?;
            entries += (slice.len() - before) as u64;
            if entries + skipped > self.most_entries {
                slice.truncate(before);
                return Err(FetchError::TooMany(self.most_entries));
            }
        }
    }

    /// The handshake, and what the server says to our hello. The caller's limit, which is for all of it, comes first.
    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Channel<S>, Welcome), FetchError> {
        let mut channel = Channel::connect(stream, &self.key).await?;
        let mut hello = Vec::new();
        Frame::Hello(Versioned::Ours(Hello { sync_id: self.sync_id, instance: self.instance }))
            .write(&mut hello);
        channel.push(&hello)?;
        channel.flush(IDLE_LIMIT).await?;
        let answer = channel.receive(IDLE_LIMIT).await?.ok_or(ChannelError::HungUp)?;
        match Frame::read(answer) {
            Ok(Frame::Welcome(Versioned::Ours(welcome)))
                if self.sync_id == 0 || welcome.sync_id == self.sync_id =>
            {
                Ok((channel, welcome))
            }
            Ok(Frame::Welcome(Versioned::Ours(welcome))) => {
                Err(FetchError::Refused(Refusal::OtherSyncId(welcome.sync_id)))
            }
            Ok(Frame::Welcome(Versioned::Other(version))) => Err(FetchError::OtherVersion(version)),
            Ok(Frame::Refusal(refusal)) => Err(FetchError::Refused(refusal)),
            Ok(Frame::Hello(_) | Frame::Entries(_) | Frame::End { .. }) | Err(NoFrame(_)) => {
                Err(FetchError::Unexpected(answer.first().copied().unwrap_or_default()))
            }
        }
    }

    /// Adds the entries of a message to a slice, all or none; how many there are besides that are of no use.
    fn unpack(&self, message: &[u8], slice: &mut Vec<Entry>) -> Result<u64, FetchError> {
        let (before, mut useless) = (slice.len(), 0);
        for entry in decode(message, self.sync_id).map_err(FetchError::Message)? {
            match entry {
                Ok(entry) => slice.push(entry),
                Err(fault) if fault.ends_message() => {
                    slice.truncate(before);
                    return Err(FetchError::Entry(fault));
                }
                Err(_) => useless += 1,
            }
        }
        Ok(useless)
    }
}
