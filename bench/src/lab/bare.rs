//! The bare forwarder: what AF_XDP itself costs. Our own port, and before it the shortest program there is; of each frame the
//! two MAC addresses are written, nothing of it is read.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use xlvs_dataplane::port::af_xdp::AfXdpPort;
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port};
use xlvs_dataplane::worker::IdlePolicy;

use super::cores::Cores;
use super::forwarder::{Arms, Forwarder, open_ports};
use super::program::Program;
use super::system_calls::this_thread;
use super::{BACK_MAC, Lab, SINK_MAC};

/// As the data plane's worker has them.
const SPIN: Duration = Duration::from_micros(50);
const LONGEST_SLEEP: Duration = Duration::from_millis(256);

/// A running bare forwarder.
pub(crate) struct Bare {
    stop: Arc<AtomicBool>,
    workers: Vec<(Arc<OwnedFd>, JoinHandle<AfXdpPort>)>,
    threads: Vec<u32>,
    _programs: Vec<Program>,
}

impl Bare {
    /// Starts one worker for each of the lab's queues.
    ///
    /// # Errors
    /// When the kernel refuses a program or a socket.
    pub(crate) fn start(lab: &Lab, cores: &Cores, arms: Arms, idle: IdlePolicy) -> Result<Self, String> {
        let (ports, programs) = lab.director.inside(|| {
            let ports = open_ports(lab, arms)?;
            let mut programs = Vec::new();
            for (slot, interface) in (0_u8..).zip(arms.interfaces()) {
                let mut program = Program::load("to_socket")?;
                let sockets = ports.iter().flat_map(AfXdpPort::sockets);
                let sockets = sockets.filter(|socket| socket.slot == InterfaceSlot(slot));
                program.register(sockets.map(|socket| (socket.queue, socket.fd.as_raw_fd())))?;
                program.attach(interface)?;
                programs.push(program);
            }
            Ok((ports, programs))
        })?;
        let mut bare =
            Self { stop: Arc::default(), workers: Vec::new(), threads: Vec::new(), _programs: programs };
        let (started, starting) = channel();
        for (port, core) in ports.into_iter().zip(cores.workers.clone()) {
            let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
                .map_err(|error| format!("no eventfd: {error}"))?;
            let (waker, stop) = (Arc::new(waker), Arc::clone(&bare.stop));
            let (woken, started) = (Arc::clone(&waker), started.clone());
            let thread = std::thread::Builder::new()
                .name("bare".to_owned())
                .spawn(move || {
                    core_affinity::set_for_current(core);
                    // Whoever started it may have given up.
                    let _ = started.send(this_thread());
                    drop(started);
                    forward(port, arms.egress(), idle, &woken, &stop)
                })
                .map_err(|error| format!("the bare forwarder's thread can't be started: {error}"))?;
            bare.workers.push((waker, thread));
        }
        drop(started);
        bare.threads.extend(starting);
        Ok(bare)
    }

    fn end(&mut self) -> Result<(), String> {
        self.stop.store(true, Relaxed);
        self.workers.drain(..).try_for_each(|(waker, thread)| {
            // A full eventfd counter is a wake-up that is already due.
            let _ = rustix::io::write(&*waker, &1_u64.to_ne_bytes());
            thread.join().map(drop).map_err(|_| "the bare forwarder panicked".to_owned())
        })
    }
}

impl Forwarder for Bare {
    fn threads(&self) -> &[u32] {
        &self.threads
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.end()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn forward(
    mut port: AfXdpPort,
    egress: InterfaceSlot,
    idle: IdlePolicy,
    waker: &OwnedFd,
    stop: &AtomicBool,
) -> AfXdpPort {
    let mut frames = Vec::with_capacity(BATCH);
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&SINK_MAC);
    macs[6..].copy_from_slice(&BACK_MAC);
    let mut quiet_since: Option<Instant> = None;
    while !stop.load(Relaxed) {
        let received = port.receive(&mut frames);
        for mut frame in frames.drain(..) {
            if let Some(head) = port.head_mut(&mut frame).get_mut(..macs.len()) {
                head.copy_from_slice(&macs);
            }
            // One that is refused has been released.
            let _ = port.transmit(frame, egress);
        }
        port.flush();
        if received > 0 {
            quiet_since = None;
        } else if idle == IdlePolicy::Adaptive {
            if quiet_since.get_or_insert_with(Instant::now).elapsed() >= SPIN {
                port.wait(waker.as_fd(), LONGEST_SLEEP);
                quiet_since = None;
            }
        } else {
            std::hint::spin_loop();
        }
    }
    port
}
