//! Faults planted in a running program from outside: a thread that stands still, rings of AF_XDP sockets that are spoilt.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::within;

/// A thread that stands still, as in a debugger, until this is dropped: by the thread that made it, which is the tracer.
#[derive(Debug)]
pub struct Stopped {
    thread: Pid,
}

impl Stopped {
    /// Stops the thread of this name. There must be one.
    #[track_caller]
    #[must_use]
    pub fn thread(program: u32, name: &str) -> Self {
        let threads = threads(program, name);
        let [thread] = threads[..] else { panic!("{} threads are called {name}", threads.len()) };
        Self::numbered(thread)
    }

    /// Stops the thread of this id.
    #[track_caller]
    #[must_use]
    pub fn numbered(thread: i32) -> Self {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        let _ = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self { thread }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // One that has ended with its program needs nothing.
        let _ = ptrace::detach(self.thread, None);
    }
}

/// The ids of a program's threads of this name.
#[must_use]
pub fn threads(program: u32, name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{program}/task")).unwrap();
    let tasks = tasks.map(|task| task.unwrap());
    // One may be ending just now.
    let is_it = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let named = tasks.filter(|task| is_it(&task.path()));
    named.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// A ring of an AF_XDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// What is to be sent.
    Transmit,
    /// Where the kernel finds room for what it receives.
    Fill,
}

/// Where the ring begins in the socket's file, kernel ABI.
const fn page(ring: Ring) -> &'static str {
    match ring {
        Ring::Transmit => "80000000",
        Ring::Fill => "100000000",
    }
}

/// The places of a ring's counts, flags and descriptors, as the kernel of x86-64 lays them out.
const PRODUCER: u64 = 0;
const CONSUMER: u64 = 128;
const FLAGS: u64 = 196;
const DESCRIPTORS: u64 = 320;

/// Spoils the rings of this kind of all of a program's sockets, as a faulty driver might: what is on the transmit ring is not sent,
/// as nobody seems to have to wake the kernel; what is on the fill ring are places that there are not, of which the kernel finds out
/// as frames come in.
#[track_caller]
pub fn damage(program: u32, ring: Ring) {
    let maps = std::fs::read_to_string(format!("/proc/{program}/maps")).unwrap();
    let memory = &OpenOptions::new().read(true).write(true).open(format!("/proc/{program}/mem")).unwrap();
    let rings: Vec<(u64, u64)> = maps
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_it = words.get(5)?.starts_with("socket:") && words[2] == page(ring);
            let (first, end) = words[0].split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            is_it.then(|| (address(first), address(end)))
        })
        .collect();
    assert!(!rings.is_empty(), "no {ring:?} ring in {maps}");
    for (first, end) in rings {
        match ring {
            Ring::Transmit => {
                let mut flags = [0; 4];
                memory.read_exact_at(&mut flags, first + FLAGS).unwrap();
                assert_eq!(u32::from_ne_bytes(flags), 1, "the flag that the kernel is to be woken");
                write(memory, first + FLAGS, &[0; 4]);
            }
            Ring::Fill => {
                let length = usize::try_from(end - first - DESCRIPTORS).unwrap();
                let count = |at| {
                    let mut count = [0; 4];
                    memory.read_exact_at(&mut count, first + at).unwrap();
                    count
                };
                // Frames that the program has in its hands at that moment come back to the ring, and have to be spoilt too: until
                // the kernel has used all there are, and none is added any more.
                within("the ring is spoilt", Duration::from_secs(1), || {
                    write(memory, first + DESCRIPTORS, &vec![0xff; length]);
                    let seen = [(); 3].map(|()| {
                        std::thread::sleep(Duration::from_millis(5));
                        (count(PRODUCER), count(CONSUMER))
                    });
                    let is_empty = seen.iter().all(|&(added, used)| added == used && added == seen[0].0);
                    if is_empty { Ok(()) } else { Err(format!("{seen:?}")) }
                });
            }
        }
    }
}

fn write(memory: &File, at: u64, bytes: &[u8]) {
    memory.write_all_at(bytes, at).unwrap();
}
