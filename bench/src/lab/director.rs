//! The director in the lab: our steering program, ports and workers, in this process, with the directors that it is given.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::director::Director;
use xlvs_dataplane::flow::Protocol;
use xlvs_dataplane::port::af_xdp::{AfXdpPort, RequestedMode, SteeredInterface, Steering, detach_interface};
use xlvs_dataplane::port::steering_rule::SteeringRule;
use xlvs_dataplane::verdict::DropReason;
use xlvs_dataplane::worker::{Command, IdlePolicy, Worker, WorkerHandle};

use super::cores::Cores;
use super::forwarder::{Arms, Forwarder, open_ports};
use super::namespace::Namespace;
use super::system_calls::this_thread;
use super::{BACK, BACK_MAC, FRONT_MAC, Lab};

/// A running director.
pub(crate) struct InProcess {
    namespace: Namespace,
    /// The kernel's numbers of the interfaces that steering programs were put on.
    attached: Vec<u32>,
    steerings: Vec<Steering>,
    handles: Vec<WorkerHandle>,
    workers: Vec<JoinHandle<AfXdpPort>>,
    threads: Vec<u32>,
    /// By worker; with how many connections each had created before it ran.
    counters: Vec<(Arc<WorkerCounters>, u64)>,
}

impl InProcess {
    /// Starts one worker for each of the lab's queues, with these directors, and steers the frames of these services to it.
    ///
    /// # Errors
    /// When the kernel refuses a program or a socket.
    pub(crate) fn start(
        lab: &Lab,
        cores: &Cores,
        arms: Arms,
        idle: IdlePolicy,
        directors: Vec<Director>,
        services: &[(Protocol, SocketAddr)],
    ) -> Result<Self, String> {
        let mut running = Self {
            namespace: lab.director.share()?,
            attached: Vec::new(),
            steerings: Vec::new(),
            handles: Vec::new(),
            workers: Vec::new(),
            threads: Vec::new(),
            counters: Vec::new(),
        };
        let rules = rules(services);
        let ports = lab.director.inside(|| {
            let ports = open_ports(lab, arms)?;
            for (slot, interface) in arms.interfaces().iter().enumerate() {
                let sockets = ports.iter().flat_map(AfXdpPort::sockets);
                let sockets = sockets.filter(|socket| usize::from(socket.slot.0) == slot);
                running.steer(interface, &rules, sockets.map(|socket| (socket.queue, socket.fd)))?;
            }
            Ok(ports)
        })?;
        let (started, starting) = channel();
        for ((port, director), core) in ports.into_iter().zip(directors).zip(cores.workers.clone()) {
            let counters = Arc::clone(director.counters());
            let created = counters.connections_created.get();
            running.counters.push((counters, created));
            let failed = |error| format!("a worker can't be started: {error}");
            let (worker, handle) = Worker::new(port, director, idle).map_err(failed)?;
            running.handles.push(handle);
            let started = started.clone();
            let thread = std::thread::Builder::new().name("director".to_owned()).spawn(move || {
                core_affinity::set_for_current(core);
                // Whoever started it may have given up.
                let _ = started.send(this_thread());
                drop(started);
                worker.run()
            });
            running.workers.push(thread.map_err(failed)?);
        }
        drop(started);
        running.threads.extend(starting);
        Ok(running)
    }

    fn steer<'s>(
        &mut self,
        interface: &str,
        rules: &BTreeSet<SteeringRule>,
        sockets: impl Iterator<Item = (u32, BorrowedFd<'s>)>,
    ) -> Result<(), String> {
        let failed = |error| format!("{interface} has no index: {error}");
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
        let index = name_to_index(&any, interface).map_err(failed)?;
        let mac = if interface == BACK { BACK_MAC } else { FRONT_MAC };
        let refused = |error: &dyn std::error::Error| super::program::chain(error);
        let mut steering = Steering::load(SteeredInterface { name: interface.to_owned(), index, mac })
            .map_err(|error| refused(&error))?;
        for (queue, fd) in sockets {
            steering.register(queue, fd).map_err(|error| refused(&error))?;
        }
        steering.apply(rules).map_err(|error| refused(&error))?;
        self.attached.push(index);
        steering.attach(RequestedMode::Native).map_err(|error| refused(&error))?;
        self.steerings.push(steering);
        Ok(())
    }

    /// To the workers, by number.
    pub(crate) fn handles(&self) -> &[WorkerHandle] {
        &self.handles
    }

    /// Takes other services' frames from now on, as a reload does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn steer_to(&mut self, services: &[(Protocol, SocketAddr)]) -> Result<(), String> {
        let rules = rules(services);
        self.steerings
            .iter_mut()
            .try_for_each(|steering| steering.apply(&rules).map_err(|error| error.to_string()))
    }

    /// What each worker counts.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.counters.iter().map(|(counters, _)| &**counters)
    }

    /// Connections that have expired since they were created.
    pub(crate) fn expired(&self) -> u64 {
        self.counters.iter().map(|(counters, _)| counters.connections_expired.get()).sum()
    }

    fn end(&mut self) -> Result<(), String> {
        let attached = std::mem::take(&mut self.attached);
        self.steerings.clear();
        let detached = self.namespace.inside(|| {
            attached
                .into_iter()
                .try_for_each(|index| detach_interface(index).map(drop).map_err(|error| error.to_string()))
        });
        for handle in self.handles.drain(..) {
            // A worker that has too much to do sees that its channel is gone.
            let _ = handle.send(Command::Stop);
        }
        let ended = self.workers.drain(..).try_for_each(|worker| {
            worker.join().map(drop).map_err(|_| "a worker of the director panicked".to_owned())
        });
        detached.and(ended)
    }
}

impl Forwarder for InProcess {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.end()?;
        for (counters, created) in &self.counters {
            let opened = counters.connections_created.get() - created;
            if opened > 0 {
                return Err(format!(
                    "{opened} packets opened connections and were to be of known ones; the figures would be wrong"
                ));
            }
            for &reason in DropReason::ALL {
                let dropped = counters.dropped(reason);
                // The ring is full when the way out is slower than the director: that is what is measured.
                if dropped > 0 && reason != DropReason::TransmitRingFull {
                    return Err(format!(
                        "the director dropped {dropped} frames as {}; the figures would be wrong",
                        reason.name()
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn rules(services: &[(Protocol, SocketAddr)]) -> BTreeSet<SteeringRule> {
    let rule = |(protocol, address): &(Protocol, SocketAddr)| {
        SteeringRule::port(address.ip(), *protocol, address.port())
    };
    services.iter().map(rule).collect()
}
