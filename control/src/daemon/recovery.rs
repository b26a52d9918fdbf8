//! Workers that don't work: found by looks at their counters ([`crate::watchdog`]), told, and put right by a new worker on a queue
//! that is opened again. Connections, schedulers and fragments are common to all workers, so that flows go on; the new worker
//! sets the timers that the old one had.
//!
//! A thread can't be ended from outside. One that stands still has its sockets taken away and is left; should it come to life
//! again, it finishes the batch that it was at, which goes nowhere, finds that its handle is gone, and ends. At most
//! [`MAX_ABANDONED`] are left so: at that bound the daemon ends, as only its end frees what they hold.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::port::af_xdp::AfXdpPort;

use super::Daemon;
use crate::failure::Failure;
use crate::launch::{self, Crew, Post};
use crate::watchdog::{Fault, Sample, Transmission, Trouble};

/// The most threads that are left standing.
const MAX_ABANDONED: usize = 8;
/// How long a worker that works may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_millis(50);

/// A thread that was left where it stands.
pub(super) struct Abandoned {
    number: usize,
    counters: Arc<WorkerCounters>,
    thread: JoinHandle<AfXdpPort>,
}

/// What there is of workers that are not at work.
#[derive(Default)]
pub(super) struct Former {
    abandoned: Vec<Abandoned>,
    /// Workers that have yet to be told to set timers for all connections.
    to_adopt: Vec<usize>,
}

impl Daemon {
    /// Four times a second.
    ///
    /// # Errors
    /// When too many threads stand still.
    pub(super) fn watch_workers(&mut self) -> Result<(), Failure> {
        let now = Now::read();
        self.see_off();
        for number in 0..self.crew.len() {
            self.look_at(number, now);
        }
        self.recover(now)
    }

    /// Everything that a worker and its predecessors have counted.
    pub(super) fn counted(&self, number: usize) -> impl Iterator<Item = &WorkerCounters> {
        let own = self.crew.get(number).into_iter().flat_map(|worker| [&worker.past, &*worker.counters]);
        let left = self.former.abandoned.iter().filter(move |left| left.number == number);
        own.chain(left.map(|left| &*left.counters))
    }

    /// The epochs of the tables that threads may still use which were left standing.
    pub(super) fn abandoned_epochs(&self) -> impl Iterator<Item = u64> {
        self.former.abandoned.iter().map(|left| left.counters.epoch.get())
    }

    /// Closes what former workers had that have ended meanwhile.
    fn see_off(&mut self) {
        let ended = |left: &mut Abandoned| left.thread.is_finished();
        for Abandoned { number, counters, thread } in self.former.abandoned.extract_if(.., ended) {
            tracing::info!("the former worker {number} has come to life again, and has ended");
            drop(thread.join());
            self.crew[number].past.absorb(&counters);
            // What it did last may have left connections without a timer.
            self.former.to_adopt.push(number);
        }
        let publisher = &self.publisher;
        self.former.to_adopt.retain(|number| !publisher.adopt_timers(*number));
    }

    fn look_at(&mut self, number: usize, now: Now) {
        let transmission = self.transmission_of(number);
        let worker = &mut self.crew[number];
        let Some(thread) = &worker.thread else { return };
        let rounds = worker.counters.rounds.get();
        let fault = if thread.is_finished() {
            Some(Fault::Ended)
        } else {
            worker.watch.look(now, Sample::of(&worker.counters), transmission)
        };
        match (fault, &worker.condition.trouble) {
            (Some(fault), None) => {
                tracing::warn!("worker {number} {fault}: its queue {} is opened again", worker.queue);
                let stopped_at = matches!(fault, Fault::StandsStill { .. }).then_some(rounds);
                let since = if stopped_at.is_some() { worker.watch.beat() } else { now };
                worker.condition.begin(Trouble { stopped_at, ..Trouble::new(fault.to_string(), since) });
            }
            (None, Some(trouble)) if trouble.stopped_at.is_some_and(|stopped_at| stopped_at != rounds) => {
                tracing::info!("worker {number} works again");
                worker.condition.trouble = None;
            }
            _ => {}
        }
    }

    fn transmission_of(&self, number: usize) -> Transmission {
        let sockets = self.crew[number].sockets.iter().zip(&self.launched.links);
        let mut open = sockets.filter_map(|(socket, link)| Some((socket.as_ref()?, link)));
        if open.clone().any(|(socket, link)| !link.up || link.index != socket.index) {
            Transmission::Down
        } else if open.any(|(socket, _)| socket.zero_copy) {
            Transmission::Lazy
        } else {
            Transmission::Prompt
        }
    }

    /// Opens again what is not well, where a try is due.
    ///
    /// # Errors
    /// When too many threads stand still.
    pub(super) fn recover(&mut self, now: Now) -> Result<(), Failure> {
        for number in 0..self.crew.len() {
            let condition = &mut self.crew[number].condition;
            if condition.trouble.is_none() || !condition.retry.is_due(now) {
                continue;
            }
            condition.retry.begin(now);
            self.dismiss(number)?;
            let opened = self.open_again(number);
            let worker = &mut self.crew[number];
            let queue = worker.queue;
            match opened {
                Ok(()) => {
                    let took = worker.condition.end(Now::read());
                    tracing::info!("worker {number} serves queue {queue} after {took} ms");
                }
                Err(failure) => {
                    let pause = worker.condition.retry.pause_ms();
                    if worker.condition.fail(failure.to_string()) {
                        tracing::error!(
                            "queue {queue} of worker {number} can't be opened, tried again after {pause} ms and then less \
                             and less often: {failure}"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Has a worker leave, or leaves it where it stands: its queue is free then, or will be soon.
    fn dismiss(&mut self, number: usize) -> Result<(), Failure> {
        self.publisher.withdraw(number);
        let worker = &mut self.crew[number];
        let Some(thread) = worker.thread.take() else { return Ok(()) };
        // What comes from now on is counted as for nobody.
        self.publisher.steerings().iter_mut().for_each(|steering| steering.unregister(worker.queue));
        let deadline = Instant::now() + LEAVE_LIMIT;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            // One that has panicked has closed its own.
            if let Ok(port) = thread.join() {
                worker.counters.note_port(&port.close());
            }
            worker.count_anew();
            worker.counters.epoch.set(u64::MAX);
            return Ok(());
        }
        let lost = match worker.grip.take_sockets() {
            Ok(lost) => lost,
            Err(error) => {
                tracing::error!("{error}");
                worker.thread = Some(thread);
                return Ok(());
            }
        };
        let counters = std::mem::take(&mut worker.counters);
        worker.past.take_losses(&counters, &lost);
        worker.counters.epoch.set(u64::MAX);
        self.former.abandoned.push(Abandoned { number, counters, thread });
        if self.former.abandoned.len() > MAX_ABANDONED {
            // The steering program stays attached, and connections are kept: a new director goes on with them.
            return Err(Failure::Runtime(format!(
                "{} threads of workers stand still; the director ends, so that it can be started again",
                self.former.abandoned.len()
            )));
        }
        Ok(())
    }

    fn open_again(&mut self, number: usize) -> Result<(), Failure> {
        if self.crew[number].thread.is_some() {
            return Err(Failure::Runtime("its sockets could not be taken away from its thread".to_owned()));
        }
        let table = Arc::clone(self.publisher.table());
        let (facts, director) = (&self.launched, &self.configuration.director);
        let post = Post {
            director,
            links: &facts.links,
            connections: &facts.connections,
            fragments: &facts.fragments,
            table: &table,
        };
        let core = self.crew[number].core;
        let (handle, new) = post.open_again(number, core, self.publisher.steerings())?;
        let worker = &mut self.crew[number];
        worker.replace(new);
        for (zero_copy, socket) in self.launched.zero_copy.iter_mut().zip(&worker.sockets) {
            *zero_copy = socket.map_or(*zero_copy, |socket| socket.zero_copy);
        }
        self.publisher.admit(number, handle);
        self.former.to_adopt.push(number);
        let publisher = &self.publisher;
        self.former.to_adopt.retain(|number| !publisher.adopt_timers(*number));
        Ok(())
    }

    /// Finds the workers whose sockets are not those that the interfaces call for, and queues without a worker.
    pub(super) fn find_misplaced_workers(&mut self, now: Now) {
        let (links, director) = (&self.launched.links, &self.configuration.director);
        let frame_size = director.frame_size.bytes();
        for (number, worker) in self.crew.iter_mut().enumerate() {
            if worker.thread.is_none() {
                // It is about to get what it misses, and maybe now it can.
                worker.condition.retry = Default::default();
                continue;
            }
            let Some(what) = worker.misses(links, frame_size) else { continue };
            tracing::info!("worker {number} {what}: its queue {} is opened again", worker.queue);
            worker.condition.begin(Trouble::new(what, now));
            worker.condition.retry = Default::default();
        }
        let wanted = launch::worker_count(director, links);
        let cores = match launch::cores(director, wanted) {
            Ok(cores) => cores,
            Err(failure) => return tracing::error!("no cores for {wanted} workers: {failure}"),
        };
        self.registry.grow(cores.len());
        for (number, core) in cores.into_iter().enumerate().skip(self.crew.len()) {
            tracing::info!("queue {number} is new, and gets a worker on core {core}");
            let mut worker = Crew::none(number, core);
            worker.condition.begin(Trouble::new("has a queue that is new".to_owned(), now));
            worker.counters.epoch.set(u64::MAX);
            self.crew.push(worker);
        }
    }
}
