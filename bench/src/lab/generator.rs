//! The generator: the kernel's live frames (BPF_PROG_TEST_RUN), which our XDP program fills and sends into the veth, one thread
//! for each queue. It is several times as fast as any forwarder behind it, and can pace and stamp frames without leaving the
//! kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use super::cores::Cores;
use super::namespace::Namespace;
use super::program::{Cell, Program, chain};
use super::{FRONT_MAC, GENERATOR, GENERATOR_MAC, Lab, pause};
use crate::traffic::{CHUNK, Mix, Segment, Traffic};

/// Bytes of a frame without checksum: the least that Ethernet has.
const LEN: usize = 60;
const HEADER_WORDS: usize = 6;
/// How the kernel is called.
#[derive(Clone, Copy)]
struct Call {
    /// Runs of the program. Nothing is sent for milliseconds between two calls, and a call that is told to stop still takes some
    /// tens of nanoseconds for each that is left.
    repeat: u32,
    /// Runs between two hand-overs to the receiver.
    batch: u32,
}

/// The kernel's own batch.
const UNPACED: Call = Call { repeat: 1 << 21, batch: 64 };
/// Frames wait for those behind them, so these are few. Most runs only look whether a frame is due.
const PACED: Call = Call { repeat: 1 << 23, batch: 4 };
/// How long a generator may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// Of UDP over IPv4, to one service.
    pub(crate) traffic: Traffic,
    /// Each frame's flow is a random one of these.
    pub(crate) flows: u64,
    /// Frames a second, of all queues together; `None` is as many as go. Paced frames carry the time.
    pub(crate) rate: Option<f64>,
    /// What most of the frames are, if there is a flood.
    pub(crate) flood: Option<Flood>,
    pub(crate) seed: u64,
}

/// Frames that each come from a source of their own: an address of 32.0.0.0/4 and any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// SYNs, to the service of TCP that has the same number.
    Syn,
    /// Datagrams, to the same service.
    Udp,
}

impl Flood {
    /// Of 256 frames, so many are the flood's.
    const SHARE: u64 = 240;
}

/// A running generator.
pub(crate) struct Generator {
    stop: Arc<AtomicBool>,
    queues: Vec<Queue>,
}

struct Queue {
    progress: Cell<5>,
    stop: Cell<1>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Generator {
    /// Starts one thread for each of the lab's queues, and returns when all of them send.
    ///
    /// # Errors
    /// When the kernel refuses the program, or nothing is sent.
    pub(crate) fn start(lab: &Lab, cores: &Cores, order: &Order) -> Result<Self, String> {
        let mut generator = Self { stop: Arc::default(), queues: Vec::new() };
        let (flood, flood_checksum) = template(order, order.flood);
        let (template, checksum) = template(order, None);
        let egress = lab.generator.inside(index)?;
        for (number, core) in cores.generators.iter().enumerate() {
            let mut program = Program::load("generate")?;
            let step = cores.generators.len() as u64;
            // A flow stays on one queue, as where a NIC hashes; the only one of all comes on each.
            let own = order.flows.saturating_sub(number as u64).div_ceil(step);
            let first = if own == 0 { 0 } else { number as u64 };
            let interval = order.rate.map_or(0, |rate| (step as f64 * 1e9 / rate).max(1.0) as u64);
            let mut words = [0; 9 + 2 * HEADER_WORDS];
            words[..7].copy_from_slice(&[
                own.max(1),
                first,
                step,
                u64::from(egress),
                interval,
                u64::from(order.rate.is_some()),
                checksum,
            ]);
            fill(&mut words[7..], &template);
            words[7 + HEADER_WORDS] = order.flood.map_or(0, |_| Flood::SHARE);
            words[8 + HEADER_WORDS] = flood_checksum;
            fill(&mut words[9 + HEADER_WORDS..], &flood);
            program.cell("orders")?.set(words)?;
            let mut progress = program.cell("progresses")?;
            let random = (order.seed.wrapping_add(number as u64) ^ 0x9e37_79b9_7f4a_7c15).max(1);
            progress.set([random, 0, 0, 0, 0])?;
            let stop = program.cell("stops")?;
            let (stopping, template, core) = (Arc::clone(&generator.stop), template.clone(), *core);
            let call = if order.rate.is_some() { PACED } else { UNPACED };
            let namespace = lab.generator.share()?;
            let thread = std::thread::Builder::new()
                .name(format!("generator-{number}"))
                .spawn(move || send(program, &namespace, core, &stopping, &template, call))
                .map_err(|error| format!("the generator's thread can't be started: {error}"))?;
            generator.queues.push(Queue { progress, stop, thread: Some(thread) });
        }
        generator.await_first()?;
        Ok(generator)
    }

    fn await_first(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + BEGIN_LIMIT;
        for at in 0..self.queues.len() {
            while self.queues[at].progress.get()?[2] == 0 {
                if Instant::now() > deadline || self.queues[at].is_finished() {
                    self.end()?;
                    return Err(format!("the generator of queue {at} sends nothing"));
                }
                pause(Duration::from_millis(1))?;
            }
        }
        Ok(())
    }

    /// Frames sent so far.
    pub(crate) fn sent(&self) -> Result<u64, String> {
        self.sum(2)
    }

    /// Frames that were due and given up, so far.
    pub(crate) fn late(&self) -> Result<u64, String> {
        self.sum(3)
    }

    /// Of the frames sent so far, those of the flood.
    pub(crate) fn flooded(&self) -> Result<u64, String> {
        self.sum(4)
    }

    fn sum(&self, word: usize) -> Result<u64, String> {
        self.queues.iter().map(|queue| Ok(queue.progress.get()?[word])).sum()
    }

    /// Has nothing more sent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn halt(&mut self) -> Result<(), String> {
        self.stop.store(true, Relaxed);
        self.queues.iter_mut().try_for_each(|queue| queue.stop.set([1]))
    }

    /// Ends the generator.
    ///
    /// # Errors
    /// What went wrong while it ran.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        // A thread that could not be told ends its call to the kernel a moment later by itself.
        let told = self.halt();
        let ended = self.queues.iter_mut().filter_map(|queue| queue.thread.take()).try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err("the generator's thread panicked".to_owned()))
        });
        told.and(ended)
    }
}

impl Queue {
    fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `stop`.
        let _ = self.end();
    }
}

/// The first words of a frame.
fn fill(words: &mut [u64], frame: &[u8]) {
    for (word, bytes) in words.iter_mut().take(HEADER_WORDS).zip(frame.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
}

/// A frame whose source is 0, and the sum of its IP header's words without source and checksum.
fn template(order: &Order, flood: Option<Flood>) -> (Vec<u8>, u64) {
    let mut chunk = [0; CHUNK];
    let traffic = match flood {
        Some(Flood::Syn) => Traffic { mix: Mix::TCP4, ..order.traffic },
        Some(Flood::Udp) | None => order.traffic,
    };
    let _ = traffic.write(&mut chunk, 0, Segment::Opening, LEN);
    chunk[..6].copy_from_slice(&FRONT_MAC);
    chunk[6..12].copy_from_slice(&GENERATOR_MAC);
    chunk[24..30].fill(0);
    let words = chunk[14..34].chunks_exact(2);
    let sum = words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    (chunk[..LEN].to_vec(), sum)
}

fn index() -> Result<u32, String> {
    let failed = |error| format!("{GENERATOR} has no index: {error}");
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
    name_to_index(&socket, GENERATOR).map_err(failed)
}

fn send(
    mut program: Program,
    namespace: &Namespace,
    core: core_affinity::CoreId,
    stopping: &AtomicBool,
    template: &[u8],
    call: Call,
) -> Result<(), String> {
    namespace.enter()?;
    if !core_affinity::set_for_current(core) {
        return Err(format!("the generator's thread can't be pinned to core {}", core.id));
    }
    let program: &Xdp = program.xdp()?;
    while !stopping.load(Relaxed) {
        let run = program.test_run(TestRunOptions {
            data_in: Some(template),
            repeat: call.repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(call.batch),
            ..TestRunOptions::default()
        });
        match run {
            Ok(_) => {}
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("running the generator: {}", chain(&error))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use xlvs_dataplane::packet::Packet;

    use super::*;

    /// What the program does to the template, in Rust: each frame has to be one of the flows that the director knows.
    #[test]
    fn frames_made_of_the_template_are_those_of_the_traffic() {
        let traffic = Traffic { mix: "udp4".parse().unwrap(), services: 1 };
        let order = Order { traffic, flows: 1, rate: None, flood: None, seed: 1 };
        let (template, checksum) = template(&order, None);
        for flow in [0, 1, 77, 1_000_000] {
            let mut frame = template.clone();
            let mixed = (flow as u32).wrapping_mul(0x9e37_79b1);
            let source = 16 << 24 | mixed >> 6;
            frame[26..30].copy_from_slice(&source.to_be_bytes());
            frame[34..36].copy_from_slice(&(32_768 + (mixed & 63) as u16).to_be_bytes());
            let mut sum = checksum + u64::from(source >> 16) + u64::from(source & 0xffff);
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            let mut chunk = [0; CHUNK];
            let len = traffic.write(&mut chunk, flow, Segment::Data, LEN);
            assert_eq!(frame[12..], chunk[12..len], "flow {flow}");
            assert_eq!(Packet::parse(&frame, LEN).unwrap().ttl, 64);
        }
    }
}
