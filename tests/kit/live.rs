//! Noise of the kernel's own frames (BPF_PROG_TEST_RUN with live frames), which our XDP program (bpf/noise.bpf.c) fills and sends
//! into the director's wire: more than any program could send that has to hand frames to the kernel first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::{Lab, within};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/noise.bpf.o"));

/// How many frames there are to choose from: what fits into a core's cache.
pub const KINDS: usize = 2048;
/// The most bytes of a frame.
pub const LONGEST: usize = 8 * WORDS;
const WORDS: usize = 29;
/// Runs of the program a call. Nothing is sent for milliseconds between two calls, and a call that is told to stop still takes some
/// tens of nanoseconds for each that is left.
const REPEAT: u32 = 1 << 22;
/// Frames that are handed over at a time. Frames wait for those behind them; the receiver's queue has room for 256.
const BATCH: u32 = 64;
/// A wire waits less for the rest of the machine than programs do for each other.
const NICE: i32 = -5;
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// A frame to send, again and again.
#[derive(Clone, Debug)]
pub struct Kind {
    /// At most [`LONGEST`].
    pub bytes: Vec<u8>,
    /// Two bytes are others each time, from this one on; at most 127.
    pub vary: usize,
}

/// Running noise; it ends when this is dropped.
pub struct LiveNoise {
    // Egress, interval and whether to stop; see the program's `struct order`.
    order: Array<MapData, [u64; 3]>,
    orders: [u64; 3],
    progress: Array<MapData, [u64; 5]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
}

impl LiveNoise {
    /// Sends random ones of these [`KINDS`] frames onto the wire to the director, as its switch's port would: so many a second, from
    /// this core. The receiver's kernel runs on that core too.
    #[track_caller]
    #[must_use]
    pub fn towards_director(lab: &Lab, core: usize, seed: u64, kinds: &[Kind], rate: u32) -> Self {
        assert_eq!(kinds.len(), KINDS);
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        program(&mut object).load().unwrap();
        let mut frames: Array<MapData, [u64; 2 + WORDS]> = map(&mut object, "frames");
        for (at, kind) in (0..).zip(kinds) {
            frames.set(at, words(kind), 0).unwrap();
        }
        let mut order = map(&mut object, "orders");
        let egress = lab.inside("switch", || nix::net::if_::if_nametoindex("director-eth0").unwrap());
        let orders = [u64::from(egress), 1_000_000_000 / u64::from(rate), 0];
        order.set(0, orders, 0).unwrap();
        let mut progress = map(&mut object, "progresses");
        progress.set(0, [seed.max(1), 0, 0, 0, 0], 0).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let stopping = Arc::clone(&stop);
        let namespace = std::fs::File::open(lab.namespace("switch")).unwrap();
        let thread = std::thread::spawn(move || {
            crate::lab::enter(&namespace);
            let mut cores = rustix::thread::CpuSet::new();
            cores.set(core);
            rustix::thread::sched_setaffinity(None, &cores).unwrap();
            rustix::process::setpriority_process(None, NICE).unwrap();
            send(object, &stopping);
        });
        let noise = Self { order, orders, progress, stop, thread: Some(thread), began: Instant::now() };
        let _ =
            within("noise is sent", BEGIN_LIMIT, || if noise.sent() > 0 { Ok(()) } else { Err("no frame") });
        noise
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.progress.get(&0, 0).unwrap()[2]
    }

    /// Ends it: how many frames were sent, and how long it took.
    #[track_caller]
    pub fn finish(mut self) -> (u64, Duration) {
        let took = self.began.elapsed();
        self.halt();
        self.thread.take().unwrap().join().unwrap();
        (self.sent(), took)
    }

    fn halt(&mut self) {
        self.stop.store(true, Relaxed);
        self.orders[2] = 1;
        // A thread that could not be told ends its call to the kernel a moment later by itself.
        let _ = self.order.set(0, self.orders, 0);
    }
}

impl Drop for LiveNoise {
    fn drop(&mut self) {
        self.halt();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn program(object: &mut Ebpf) -> &mut Xdp {
    object.program_mut("noise").unwrap().try_into().unwrap()
}

fn map<V: aya::Pod>(object: &mut Ebpf, name: &str) -> Array<MapData, V> {
    Array::try_from(object.take_map(name).unwrap()).unwrap()
}

/// As the program's `struct frame` has it.
fn words(kind: &Kind) -> [u64; 2 + WORDS] {
    assert!(kind.bytes.len() <= LONGEST && kind.vary + 2 <= kind.bytes.len().min(129), "{kind:?}");
    let mut words = [0; 2 + WORDS];
    words[0] = kind.bytes.len() as u64;
    words[1] = kind.vary as u64;
    for (word, bytes) in words[2..].iter_mut().zip(kind.bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    words
}

fn send(mut object: Ebpf, stopping: &AtomicBool) {
    let program = program(&mut object);
    while !stopping.load(Relaxed) {
        let run = program.test_run(TestRunOptions {
            data_in: Some(&[0; LONGEST]),
            repeat: REPEAT,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        });
        match run {
            Ok(_) => {}
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("sending noise: {error:?}"),
        }
    }
}
