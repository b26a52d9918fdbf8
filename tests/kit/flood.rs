//! Frames as fast as one thread can send them: floods of flows that nobody knows, and noise.

use crate::live::{KINDS, Kind};
use crate::raw::{QueueSender, RawSender};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, sendmmsg};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames that are handed to the kernel at a time.
const BATCH: usize = 64;

/// Writes the next frame over the one that was sent last in its place.
pub type Write = Box<dyn FnMut(&mut Vec<u8>, &mut ChaCha8Rng) + Send>;

/// What a flood is sent by.
pub trait Sender: Send + 'static {
    /// Sends frames; how many were taken. Some are not where queues are full.
    fn send_all(&mut self, frames: &[Vec<u8>]) -> u64;
}

impl Sender for RawSender {
    fn send_all(&mut self, frames: &[Vec<u8>]) -> u64 {
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let none: [ControlMessage<'_>; 0] = [];
        let mut headers = MultiHeaders::<()>::preallocate(frames.len(), None);
        let results =
            sendmmsg(self.fd(), &mut headers, &slices, vec![None; frames.len()], none, MsgFlags::empty());
        results.map_or(0, |results| results.count() as u64)
    }
}

impl Sender for QueueSender {
    fn send_all(&mut self, frames: &[Vec<u8>]) -> u64 {
        frames.iter().filter(|frame| self.send(frame)).count() as u64
    }
}

/// A running flood; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
}

impl Flood {
    /// Sends what `write` makes, from this core alone.
    #[must_use]
    pub fn start(mut sender: impl Sender, core: usize, seed: u64, mut write: Write) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut cores = rustix::thread::CpuSet::new();
            cores.set(core);
            rustix::thread::sched_setaffinity(None, &cores).unwrap();
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut frames = vec![Vec::new(); BATCH];
            while !stopping.load(Relaxed) {
                frames.iter_mut().for_each(|frame| write(frame, &mut random));
                counted.fetch_add(sender.send_all(&frames), Relaxed);
            }
        });
        Self { stop, sent, thread: Some(thread), began: Instant::now() }
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Ends it: how many frames were sent, and how long it took.
    #[track_caller]
    pub fn finish(mut self) -> (u64, Duration) {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        (self.sent(), self.began.elapsed())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A SYN, or with `udp` a datagram, to this service of IPv4, each from an address of 32.0.0.0/4 and a port of its own. The transport
/// checksum is wrong, so that the server that gets it does not answer.
#[must_use]
pub fn spoofed(macs: [[u8; 6]; 2], to: (Ipv4Addr, u16), udp: bool) -> Write {
    let [source, destination] = macs;
    let (protocol, rest) = if udp { (17, 12) } else { (6, 20) };
    let mut frame =
        [&destination[..], &source, &[8, 0, 0x45, 0, 0, 20 + rest, 0, 0, 0x40, 0, 64, protocol]].concat();
    frame.extend([0; 6]);
    frame.extend(to.0.octets());
    frame.extend([0, 0]);
    frame.extend(to.1.to_be_bytes());
    frame.resize(60, 0);
    if udp {
        frame[38..42].copy_from_slice(&[0, 12, 1, 1]);
    } else {
        frame[46..48].copy_from_slice(&[0x50, 2]);
        frame[50..52].copy_from_slice(&[1, 1]);
    }
    Box::new(move |out, random| {
        out.resize(frame.len(), 0);
        out.copy_from_slice(&frame);
        let from: u32 = 0x2000_0000 | random.random_range(0..1 << 28);
        out[26..30].copy_from_slice(&from.to_be_bytes());
        out[34..36].copy_from_slice(&random.random::<u16>().to_be_bytes());
        seal(out);
    })
}

/// Any bytes behind headers that are right more or less: something for each way that a frame can take, fragments left out, which are
/// held for a while. Most are of these services, by protocol and port. They follow from the seed, but for the source's port, which is
/// another one each time.
#[must_use]
pub fn noise(macs: [[u8; 6]; 2], vip: Ipv4Addr, services: &[(u8, u16)], seed: u64) -> Vec<Kind> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..KINDS).map(|_| noisy(macs, vip, services, &mut random)).collect()
}

fn noisy(macs: [[u8; 6]; 2], vip: Ipv4Addr, services: &[(u8, u16)], random: &mut ChaCha8Rng) -> Kind {
    let [source, destination] = macs;
    let mut frame = [destination, source].concat();
    for _ in 0..[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3][random.random_range(0..16)] {
        frame.extend([0x81, 0, 0, random.random()]);
    }
    let is_v6 = random.random_bool(0.03);
    frame.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
    let ip = frame.len();
    let length = random.random_range(40..200);
    frame.resize(ip + length, 0);
    random.fill(&mut frame[ip..]);
    if is_v6 || random.random_bool(0.02) {
        return Kind { vary: ip + 20, bytes: frame };
    }
    frame[ip] = if random.random_bool(0.95) { 0x45 } else { random.random_range(0x40..0x50) };
    frame[ip + 2..ip + 4].copy_from_slice(&(length as u16).to_be_bytes());
    frame[ip + 6..ip + 8].copy_from_slice(&[0x40, 0]);
    let (protocol, port) = match random.random_bool(0.95) {
        true => services[random.random_range(0..services.len())],
        false => ([6, 17, 132, 1, 47][random.random_range(0..5)], random.random()),
    };
    frame[ip + 9] = protocol;
    frame[ip + 16..ip + 20].copy_from_slice(&vip.octets());
    frame[ip + 22..ip + 24].copy_from_slice(&port.to_be_bytes());
    let header = usize::from(frame[ip] & 15) * 4;
    if random.random_bool(0.95) && (20..=length).contains(&header) {
        seal_at(&mut frame, ip, header);
    }
    // Not of a header with options, whose checksum would be wrong each time.
    let vary = if header == 20 { ip + 20 } else { ip + header.min(length - 2) };
    Kind { bytes: frame, vary }
}

/// Puts the checksum in that the IPv4 header of an untagged frame without options has.
fn seal(frame: &mut [u8]) {
    seal_at(frame, 14, 20);
}

fn seal_at(frame: &mut [u8], ip: usize, header: usize) {
    frame[ip + 10..ip + 12].fill(0);
    let words = frame[ip..ip + header].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
}
