//! The lab's BPF programs (bpf/lab.bpf.c), each loaded with maps of its own. Values are arrays of words in the order of the C
//! structs.

use std::os::fd::AsRawFd;

use aya::maps::{Array, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));

/// One loaded program. Dropping it takes it off its interfaces.
pub(super) struct Program {
    object: Ebpf,
    name: &'static str,
}

impl Program {
    /// Loads the program of this name.
    pub(super) fn load(name: &'static str) -> Result<Self, String> {
        let failed =
            |error: &dyn std::error::Error| format!("loading the lab's program {name}: {}", chain(error));
        let object = EbpfLoader::new().load(OBJECT).map_err(|error| failed(&error))?;
        let mut program = Self { object, name };
        program.xdp()?.load().map_err(|error| failed(&error))?;
        Ok(program)
    }

    /// The program itself.
    pub(super) fn xdp(&mut self) -> Result<&mut Xdp, String> {
        let program = self.object.program_mut(self.name).and_then(|program| program.try_into().ok());
        program.ok_or_else(|| format!("the lab's object holds no XDP program {}", self.name))
    }

    /// Attaches it, in native mode, to an interface of the calling thread's namespace.
    pub(super) fn attach(&mut self, interface: &str) -> Result<(), String> {
        let name = self.name;
        self.xdp()?
            .attach(interface, XdpMode::Driver)
            .map(drop)
            .map_err(|error| format!("attaching the lab's program {name} to {interface}: {}", chain(&error)))
    }

    fn map<M: TryFrom<aya::maps::Map, Error = MapError>>(&mut self, name: &str) -> Result<M, String> {
        let map =
            self.object.take_map(name).ok_or_else(|| format!("the lab's object holds no map {name}"))?;
        M::try_from(map).map_err(|error| format!("the lab's map {name}: {error}"))
    }

    /// A map of one value.
    pub(super) fn cell<const WORDS: usize>(&mut self, name: &'static str) -> Result<Cell<WORDS>, String> {
        Ok(Cell { map: self.map(name)?, name })
    }

    /// A map of counters.
    pub(super) fn counters(&mut self, name: &'static str) -> Result<Counters, String> {
        Ok(Counters { map: self.map(name)?, name })
    }

    /// A map of several values.
    pub(super) fn table<const WORDS: usize>(&mut self, name: &'static str) -> Result<Table<WORDS>, String> {
        Ok(Table { map: self.map(name)?, name })
    }

    /// Gives the frames of a queue to a socket.
    pub(super) fn register(
        &mut self,
        queues: impl IntoIterator<Item = (u32, impl AsRawFd)>,
    ) -> Result<(), String> {
        let mut sockets: XskMap<MapData> = self.map("sockets")?;
        for (queue, socket) in queues {
            let done = sockets.set(queue, socket, 0);
            done.map_err(|error| format!("registering the socket of queue {queue}: {}", chain(&error)))?;
        }
        Ok(())
    }
}

/// A map of one value.
pub(super) struct Cell<const WORDS: usize> {
    map: Array<MapData, [u64; WORDS]>,
    name: &'static str,
}

impl<const WORDS: usize> Cell<WORDS> {
    pub(super) fn get(&self) -> Result<[u64; WORDS], String> {
        self.map.get(&0, 0).map_err(|error| format!("reading the lab's map {}: {}", self.name, chain(&error)))
    }

    pub(super) fn set(&mut self, value: [u64; WORDS]) -> Result<(), String> {
        let done = self.map.set(0, value, 0);
        done.map_err(|error| format!("setting the lab's map {}: {}", self.name, chain(&error)))
    }
}

/// A map of several values.
pub(super) struct Table<const WORDS: usize> {
    map: Array<MapData, [u64; WORDS]>,
    name: &'static str,
}

impl<const WORDS: usize> Table<WORDS> {
    pub(super) fn all(&self) -> Result<Vec<[u64; WORDS]>, String> {
        let value = |at| {
            let value = self.map.get(&at, 0);
            value.map_err(|error| format!("reading the lab's map {}: {}", self.name, chain(&error)))
        };
        (0..self.map.len()).map(value).collect()
    }
}

/// A map of counters, each summed over the cores.
pub(super) struct Counters {
    map: PerCpuArray<MapData, u64>,
    name: &'static str,
}

impl Counters {
    pub(super) fn all(&self) -> Result<Vec<u64>, String> {
        (0..self.map.len())
            .map(|at| {
                let values = self.map.get(&at, 0);
                let values = values.map_err(|error| {
                    format!("reading the lab's counters {}: {}", self.name, chain(&error))
                })?;
                Ok(values.iter().sum())
            })
            .collect()
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
