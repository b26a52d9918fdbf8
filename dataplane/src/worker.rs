//! A worker: the thread of one NIC queue. It drives its [`Port`] and its [`Director`], the only place that knows both, and
//! takes up what the control thread sends between two batches.
//!
//! ```text
//! commands → receive a batch → process each → transmit, send others in its place, or release → flush → expire a slice → idle?
//!                                           └→ what is for the host itself: to its device, and release
//! ```
//! Bounds: [`BATCH`] frames a round, as many timers as [`pace`] says, [`COMMANDS`] commands waiting; the control thread coalesces what
//! doesn't fit.

mod pace;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::{Now, WallClock};
use crate::counters::WorkerCounters;
use crate::director::{Director, Prefetched};
use crate::port::host::{HostPort, HostRefused};
use crate::port::{BATCH, Port, TransmitRefused};
use crate::service::table::ServiceTable;
use crate::verdict::{DropReason, Verdict};

/// Commands that may wait for a worker.
pub const COMMANDS: usize = 4;
/// How long an adaptive worker polls its rings before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// The longest sleep: expiry goes on also without traffic.
const LONGEST_SLEEP: Duration = Duration::from_millis(256);
/// Rounds between two looks at the kernel's counters and the wall clock, at least; an idle worker looks at each wake-up.
const ROUNDS_PER_STATISTICS: u64 = 4096;

/// After so many full batches in a row, frames come faster than they are dealt with.
const PRESSED: u32 = 3;

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Polls the rings without end: the least latency, one core.
    Busy,
    /// Polls for 50 µs, then sleeps until a frame wakes it.
    #[default]
    Adaptive,
}

impl IdlePolicy {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Adaptive => "adaptive",
        }
    }
}

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Use this service table from the next batch on, and this way to the director's own host, which the table may need.
    Install(Arc<ServiceTable>, Option<HostPort>),
    /// Set timers for all connections: another worker that had some is gone.
    AdoptTimers,
    /// Leave: frames already received are still forwarded.
    Stop,
}

/// The control thread's end of a worker's channel. A worker whose handle is dropped leaves as soon as it finds out: after the batch
/// that it is at, and without another.
#[derive(Debug)]
pub struct WorkerHandle {
    commands: Sender<Command>,
    retired: Receiver<Arc<ServiceTable>>,
    waker: Arc<OwnedFd>,
}

/// The worker is gone or has too many commands waiting; the command comes back.
#[derive(Debug)]
pub enum NotSent {
    /// The channel is full: the worker will take later commands.
    Full(Command),
    /// The worker's thread has ended.
    Gone(Command),
}

impl WorkerHandle {
    /// Sends a command and wakes the worker.
    ///
    /// # Errors
    /// [`NotSent`], with the command.
    pub fn send(&self, command: Command) -> Result<(), NotSent> {
        // Tables that the worker no longer uses are freed here, not on the packet path.
        while self.retired.try_recv().is_ok() {}
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(command) => NotSent::Full(command),
            TrySendError::Disconnected(command) => NotSent::Gone(command),
        })?;
        // A full eventfd counter is a wake-up that is already due.
        let _ = rustix::io::write(&*self.waker, &1_u64.to_ne_bytes());
        Ok(())
    }
}

/// A worker, to be moved to its thread.
#[derive(Debug)]
pub struct Worker<P: Port> {
    port: P,
    director: Director,
    commands: Receiver<Command>,
    retired: Sender<Arc<ServiceTable>>,
    waker: Arc<OwnedFd>,
    idle: IdlePolicy,
    frames: Vec<P::Frame>,
    /// What was seen of each of `frames`.
    seen: Vec<Prefetched>,
    host: Host,
    /// Batches in a row, up to now, that were as large as they may be.
    full_batches: u32,
    /// Connections that the director had created when timers were last looked at.
    created: u64,
}

/// The way to the director's own host, if there is one.
#[derive(Debug, Default)]
struct Host {
    port: Option<HostPort>,
    /// Where a frame of several buffers is put together.
    whole: Vec<u8>,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl<P: Port> Worker<P> {
    /// A worker and the handle to it.
    ///
    /// # Errors
    /// When the kernel gives no eventfd.
    pub fn new(port: P, director: Director, idle: IdlePolicy) -> std::io::Result<(Self, WorkerHandle)> {
        let waker = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (command_sender, commands) = bounded(COMMANDS);
        let (retired, retired_receiver) = bounded(COMMANDS * 2);
        let handle =
            WorkerHandle { commands: command_sender, retired: retired_receiver, waker: Arc::clone(&waker) };
        let (frames, seen) = (Vec::with_capacity(BATCH), vec![Prefetched::default(); BATCH]);
        let host = Host::default();
        let created = director.counters().connections_created.get();
        let worker = Self {
            port,
            director,
            commands,
            retired,
            waker,
            idle,
            frames,
            seen,
            host,
            full_batches: 0,
            created,
        };
        Ok((worker, handle))
    }

    /// Works until it is told to stop or the control thread is gone; returns the port, to be closed by its owner.
    pub fn run(mut self) -> P {
        let mut quiet_since: Option<std::time::Instant> = None;
        self.director.set_wall_clock(WallClock::read());
        loop {
            if self.take_commands() == Next::Stop {
                return self.port;
            }
            let now = Now::read();
            let received = self.forward_batch(now);
            let more_due = self.expire(now, received);
            let rounds = &self.director.counters().rounds;
            rounds.add(1);
            if rounds.get().is_multiple_of(ROUNDS_PER_STATISTICS) {
                self.look_around();
            }
            if received > 0 || more_due {
                quiet_since = None;
            } else if self.idle == IdlePolicy::Adaptive {
                let since = *quiet_since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() >= SPIN {
                    self.look_around();
                    self.port.wait(self.waker.as_fd(), LONGEST_SLEEP);
                    drain(self.waker.as_fd());
                    quiet_since = None;
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Looks at timers after a batch; whether more are due.
    fn expire(&mut self, now: Now, received: usize) -> bool {
        let created = self.director.counters().connections_created.get();
        let opened = created.wrapping_sub(std::mem::replace(&mut self.created, created));
        let is_behind = self.director.is_behind(now, pace::LATE);
        self.director.expire(now, pace::timers(received, opened, is_behind))
    }

    /// What need not be known at once: the kernel's counters, and whether the wall clock was set.
    fn look_around(&mut self) {
        self.director.counters().note_port(&self.port.counters());
        self.director.set_wall_clock(WallClock::read());
    }

    fn take_commands(&mut self) -> Next {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Install(services, host)) => {
                    self.host.port = host;
                    let old = self.director.install(services);
                    // The control thread frees it; should it be behind, this worker does.
                    let _ = self.retired.try_send(old);
                }
                Ok(Command::AdoptTimers) => self.director.adopt_timers(),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Next::Stop,
                Err(TryRecvError::Empty) => return Next::GoOn,
            }
        }
    }

    /// Receives a batch and lets the director decide about each frame; returns how many came.
    pub fn forward_batch(&mut self, now: Now) -> usize {
        let received = self.port.receive(&mut self.frames);
        self.full_batches = if received < BATCH { 0 } else { self.full_batches.saturating_add(1) };
        self.director.set_pressed(self.full_batches >= PRESSED);
        let count = self.frames.len();
        if self.seen.len() < count {
            self.seen.resize(count, Prefetched::default());
        }
        let batch = &mut self.seen[..count];
        for (frame, seen) in self.frames.iter_mut().zip(&mut *batch) {
            let wire_len = self.port.wire_len(frame);
            self.director.look_at(self.port.head_mut(frame), wire_len, seen);
        }
        self.director.prefetch(batch);
        for (mut frame, seen) in self.frames.drain(..).zip(&self.seen) {
            let wire_len = self.port.wire_len(&frame);
            let ingress = self.port.ingress(&frame);
            let head = self.port.head_mut(&mut frame);
            match self.director.process_prefetched(seen, head, wire_len, ingress, now) {
                Verdict::Forward(egress) => {
                    let sent = self.port.transmit(frame, egress);
                    count_sent(self.director.counters(), sent);
                }
                Verdict::Drop(_) => {
                    let answer = self.director.answer();
                    if !answer.is_empty() && self.port.send(answer, ingress).is_ok() {
                        self.director.counters().answered.add(1);
                    }
                    self.port.release(frame);
                }
                Verdict::Held => self.port.release(frame),
                Verdict::ToHost(ip_offset) => {
                    let counters = self.director.counters();
                    self.host.take_frame(&mut self.port, &mut frame, ip_offset.into(), counters);
                    self.port.release(frame);
                }
                Verdict::Emit(egress) => {
                    // First, so that there is a frame to send in.
                    self.port.release(frame);
                    for bytes in self.director.emitted() {
                        count_sent(self.director.counters(), self.port.send(bytes, egress));
                    }
                }
                Verdict::EmitToHost => {
                    self.port.release(frame);
                    for packet in self.director.emitted_packets() {
                        self.host.take_packet(packet, self.director.counters());
                    }
                }
            }
        }
        self.port.flush();
        received
    }

    /// The port, for tests and benchmarks that drive the worker by hand.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

impl Host {
    /// Hands over a frame's packet, which begins at `ip_offset`.
    #[cold]
    fn take_frame<P: Port>(
        &mut self,
        port: &mut P,
        frame: &mut P::Frame,
        ip_offset: usize,
        counters: &WorkerCounters,
    ) {
        let wire_len = port.wire_len(frame);
        let head = port.head_mut(frame);
        if head.len() == wire_len {
            return self.take_packet(head.get(ip_offset..).unwrap_or_default(), counters);
        }
        let mut whole = std::mem::take(&mut self.whole);
        port.copy(frame, &mut whole);
        self.take_packet(whole.get(ip_offset..).unwrap_or_default(), counters);
        self.whole = whole;
    }

    fn take_packet(&self, packet: &[u8], counters: &WorkerCounters) {
        let delivered = self.port.as_ref().map_or(Err(HostRefused::Gone), |port| port.deliver(packet));
        match delivered {
            Ok(()) => counters.to_host.add(1),
            Err(HostRefused::Full) => counters.drop_frame(DropReason::HostFull),
            Err(HostRefused::Gone) => counters.drop_frame(DropReason::NoHostPath),
        }
    }
}

fn count_sent(counters: &WorkerCounters, sent: Result<(), TransmitRefused>) {
    match sent {
        Ok(()) => counters.forwarded.add(1),
        Err(TransmitRefused::NoSuchInterface) => counters.drop_frame(DropReason::NoEgressSocket),
        Err(_) => counters.drop_frame(DropReason::TransmitRingFull),
    }
}

fn drain(waker: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let _ = rustix::io::read(waker, &mut count);
}
