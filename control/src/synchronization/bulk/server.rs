//! The side that has the connections: serves some directors at a time, each at a bounded pace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::channel::{Channel, ChannelError};
use super::door::{Door, Guest};
use super::frame::{Frame, Hello, MAX_MESSAGE, Refusal, Versioned, Welcome};
use super::key::Key;
use super::pace::Pace;
use super::{HANDSHAKE_LIMIT, IDLE_LIMIT, Instance};
use crate::synchronization::entry::Entry;
use crate::synchronization::message::Packer;

/// With the door full, this lies between two that are let in: a flood of them costs little, and each may stay for so long times the
/// number of places, in which who has the key has shown it.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// After the kernel had no connection for us, for want of memory or files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two lines of the log on those who didn't prove that they have the key.
const STRANGER_LOG_PAUSE: Duration = Duration::from_secs(10);

/// Where a server has its entries from.
pub trait Source: Send + Sync {
    /// About how many there are.
    fn count(&self) -> u64;

    /// All that there are from the beginning to the end of the iteration, which has to come to one. It is gone on with in slices of up
    /// to 4096, between which time passes, on the thread that the server runs on.
    fn snapshot(&self) -> Box<dyn Iterator<Item = Entry> + Send>;
}

/// What bounds a server's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Directors that are sent entries at a time.
    pub clients: u8,
    /// Connections at a time that have not yet proven to be from a director.
    pub handshakes: usize,
    /// Entries that each director is sent in a second, at most.
    pub entries_per_second: NonZeroU32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { clients: 4, handshakes: 128, entries_per_second: const { NonZeroU32::new(500_000).unwrap() } }
    }
}

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Directors that are being sent entries now.
    pub serving: u64,
    /// Directors that have been sent all entries.
    pub complete: u64,
    /// Directors that were not sent all: the connection broke off.
    pub broken_off: u64,
    /// Directors that were told why they get none.
    pub refused: u64,
    /// Connections of which nothing came in time that proves the key.
    pub strangers: u64,
    /// Connections that were closed early to make room for others.
    pub shown_out: u64,
    /// Entries sent.
    pub entries: u64,
}

#[derive(Debug, Default)]
struct Counters {
    complete: AtomicU64,
    broken_off: AtomicU64,
    refused: AtomicU64,
    strangers: AtomicU64,
    shown_out: AtomicU64,
    entries: AtomicU64,
}

/// A server; [`Self::run`] serves.
pub struct Server {
    key: Key,
    sync_id: u8,
    instance: Instance,
    limits: ServerLimits,
    source: Arc<dyn Source>,
    door: Arc<Door>,
    /// A permit for each client.
    places: Semaphore,
    counters: Counters,
    /// When a stranger was last told of in the log.
    stranger_told: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Server")
            .field("sync_id", &self.sync_id)
            .field("served", &self.served())
            .finish_non_exhaustive()
    }
}

/// Why a connection came to its end early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// Nothing proves the key.
    #[error(transparent)]
    Stranger(ChannelError),
    /// The handshake took too long.
    #[error("it did not prove in time that it has the key")]
    Late,
    /// Others came after it.
    #[error("it proved nothing yet when it had to make room: more come than there is room for")]
    ShownOut,
    /// It was told why.
    #[error(transparent)]
    Refused(Refusal),
    /// Of a director.
    #[error(transparent)]
    Channel(ChannelError),
    /// It has the key, and can't use it.
    #[error("it began with something else than a hello")]
    NoHello,
}

impl Server {
    /// A server of what `source` has, for those who have the key and ask for this sync id, or any.
    #[must_use]
    pub fn new(
        key: Key,
        sync_id: u8,
        instance: Instance,
        limits: ServerLimits,
        source: Arc<dyn Source>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            sync_id,
            instance,
            limits,
            source,
            door: Door::new(limits.handshakes),
            places: Semaphore::new(limits.clients.into()),
            counters: Counters::default(),
            stranger_told: Mutex::default(),
        })
    }

    /// What it has done so far.
    #[must_use]
    pub fn served(&self) -> Served {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            serving: u64::from(self.limits.clients).saturating_sub(self.places.available_permits() as u64),
            complete: read(&self.counters.complete),
            broken_off: read(&self.counters.broken_off),
            refused: read(&self.counters.refused),
            strangers: read(&self.counters.strangers),
            shown_out: read(&self.counters.shown_out),
            entries: read(&self.counters.entries),
        }
    }

    /// Serves, until this is dropped; so are all connections then.
    pub async fn run(self: Arc<Self>, listener: TcpListener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (guest, has_shown_out) = self.door.enter();
                        let _ = stream.set_nodelay(true);
                        let server = Arc::clone(&self);
                        connections.spawn(async move { server.attend(stream, peer, guest).await });
                        if has_shown_out {
                            sleep(FLOOD_PAUSE).await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!("bulk synchronisation: a connection can't be accepted: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Serves one connection as if it had been accepted.
    #[cfg(test)]
    pub(super) async fn admit<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: SocketAddr) {
        self.attend(stream, peer, self.door.enter().0).await;
    }

    #[cfg(test)]
    pub(super) const fn instance(&self) -> Instance {
        self.instance
    }

    /// Serves one connection, from its handshake to its end.
    async fn attend<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: SocketAddr, guest: Guest) {
        let begin = Instant::now();
        let counter = match self.serve(stream, guest).await {
            Ok(entries) => {
                let seconds = begin.elapsed().as_secs_f32();
                tracing::info!(
                    "bulk synchronisation: {peer} was sent {entries} connections in {seconds:.1} s"
                );
                &self.counters.complete
            }
            Err(error @ (Broken::Stranger(_) | Broken::Late)) => {
                self.tell_of_stranger(peer, &error);
                &self.counters.strangers
            }
            Err(error @ Broken::ShownOut) => {
                self.tell_of_stranger(peer, &error);
                &self.counters.shown_out
            }
            Err(Broken::Refused(refusal)) => {
                tracing::warn!(
                    "bulk synchronisation: {peer} gets no connections; it was told of this director: {refusal}"
                );
                &self.counters.refused
            }
            Err(error @ (Broken::Channel(_) | Broken::NoHello)) => {
                tracing::warn!("bulk synchronisation: {peer} was not sent all connections: {error}");
                &self.counters.broken_off
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many entries were sent.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        mut guest: Guest,
    ) -> Result<u64, Broken> {
        let greeted = timeout(HANDSHAKE_LIMIT, self.greet(stream));
        let (mut channel, hello) = tokio::select! {
            greeted = greeted => greeted.map_err(|_| Broken::Late)??,
            () = guest.shown_out() => return Err(Broken::ShownOut),
        };
        drop(guest);
        let place = self.places.try_acquire();
        let refusal = match hello {
            Versioned::Other(_) => Some(Refusal::OtherVersion(super::frame::VERSION)),
            Versioned::Ours(hello) if hello.instance == self.instance => Some(Refusal::Oneself),
            Versioned::Ours(Hello { sync_id, .. }) if sync_id != 0 && sync_id != self.sync_id => {
                Some(Refusal::OtherSyncId(self.sync_id))
            }
            Versioned::Ours(_) => place.is_err().then_some(Refusal::Busy(self.limits.clients)),
        };
        if let Some(refusal) = refusal {
            drop(place);
            answer(&mut channel, &Frame::Refusal(refusal)).await.map_err(Broken::Channel)?;
            channel.close(IDLE_LIMIT).await.map_err(Broken::Channel)?;
            return Err(Broken::Refused(refusal));
        }
        self.send(&mut channel).await.map_err(Broken::Channel)
    }

    /// The handshake, and what the client asks for: the first that proves that it has the key. The caller's limit, which is for all of it,
    /// comes first.
    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Channel<S>, Versioned<Hello>), Broken> {
        let mut channel = Channel::accept(stream, &self.key).await.map_err(Broken::Stranger)?;
        let frame = channel.receive(IDLE_LIMIT).await.map_err(Broken::Stranger)?;
        let frame = frame.ok_or(Broken::Stranger(ChannelError::CutOff))?;
        match Frame::read(frame) {
            Ok(Frame::Hello(hello)) => Ok((channel, hello)),
            _ => Err(Broken::NoHello),
        }
    }

    /// Sends all entries.
    async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        channel: &mut Channel<S>,
    ) -> Result<u64, ChannelError> {
        let welcome = Welcome { sync_id: self.sync_id, count: self.source.count() };
        answer(channel, &Frame::Welcome(Versioned::Ours(welcome))).await?;
        let mut packer = Packer::new(self.sync_id, MAX_MESSAGE);
        let mut entries = self.source.snapshot().fuse();
        let mut pace = Pace::new(self.limits.entries_per_second, Instant::now());
        let (mut frame, mut total) = (Vec::new(), 0);
        loop {
            let mut taken = 0;
            for entry in entries.by_ref().take(pace.slice()) {
                taken += 1;
                if let Some(message) = packer.push(&entry) {
                    Frame::Entries(message).write(&mut frame);
                    channel.push(&frame)?;
                }
            }
            if taken == 0 {
                break;
            }
            if let Some(message) = packer.flush() {
                Frame::Entries(message).write(&mut frame);
                channel.push(&frame)?;
            }
            channel.flush(IDLE_LIMIT).await?;
            total += taken as u64;
            self.counters.entries.fetch_add(taken as u64, Ordering::Relaxed);
            // Lets others have their turn even when it is due already.
            tokio::task::yield_now().await;
            sleep_until(pace.after(taken, Instant::now())).await;
        }
        Frame::End { entries: total }.write(&mut frame);
        channel.push(&frame)?;
        channel.close(IDLE_LIMIT).await?;
        Ok(total)
    }

    /// Not more often than every so often: anybody can have it said.
    fn tell_of_stranger(&self, peer: SocketAddr, why: &Broken) {
        let mut told = self.stranger_told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.is_some_and(|told| now.duration_since(told) < STRANGER_LOG_PAUSE) {
            return;
        }
        *told = Some(now);
        let served = self.served();
        let others = served.strangers + served.shown_out;
        tracing::warn!("bulk synchronisation: {peer} gets no connections: {why} ({others} such before it)");
    }
}

/// Sends one frame.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    channel: &mut Channel<S>,
    frame: &Frame<'_>,
) -> Result<(), ChannelError> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    channel.push(&bytes)?;
    channel.flush(IDLE_LIMIT).await
}
