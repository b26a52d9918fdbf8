//! How often workers call the kernel: counted by a program on the kernel's own tracepoint, which leaves the workers as they
//! are but for some ten nanoseconds a call. So it looks on only while no rate is taken.

use aya::maps::{HashMap, MapData};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};

use super::program::{OBJECT, chain};

const PROGRAM: &str = "count_calls";

/// Counts while it lives.
pub(crate) struct SystemCalls {
    calls: HashMap<MapData, u32, u64>,
    _object: Ebpf,
}

impl SystemCalls {
    /// Counts the calls of these threads from now on.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint, or refuses.
    pub(crate) fn of(threads: &[u32]) -> Result<Self, String> {
        let failed = |error: &dyn std::error::Error| format!("counting system calls: {}", chain(error));
        let mut object = EbpfLoader::new().load(OBJECT).map_err(|error| failed(&error))?;
        let calls = object.take_map("calls").ok_or("the lab's object holds no map calls")?;
        let mut calls: HashMap<_, u32, u64> = calls.try_into().map_err(|error| failed(&error))?;
        for thread in threads {
            calls.insert(thread, 0, 0).map_err(|error| failed(&error))?;
        }
        let program = object.program_mut(PROGRAM).ok_or("the lab's object holds no program count_calls")?;
        let program: &mut RawTracePoint = program.try_into().map_err(|error| failed(&error))?;
        program.load().map_err(|error| failed(&error))?;
        program.attach("sys_enter").map_err(|error| failed(&error))?;
        Ok(Self { calls, _object: object })
    }

    /// All calls so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn count(&self) -> Result<u64, String> {
        self.calls
            .iter()
            .map(|entry| entry.map(|(_, calls)| calls))
            .sum::<Result<u64, _>>()
            .map_err(|error| format!("reading how many system calls there were: {}", chain(&error)))
    }
}

/// The calling thread, as the kernel's programs know it.
pub(super) fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}
