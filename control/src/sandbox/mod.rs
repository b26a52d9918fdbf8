//! Least privilege: what each thread of the daemon may still do once the director has started. A thread gives up the rest by
//! itself, forever, as capabilities and filters of system calls are each thread's own.
//!
//! | thread | capabilities | for |
//! |---|---|---|
//! | control, and what it has others do that blocks | NET_ADMIN, NET_RAW, BPF, PERFMON | neighbours, TUN device; AF_XDP sockets; steering maps and programs; `iptables-save` |
//! | workers, and who has memory ready for them | none, and a filter of system calls | they have their sockets |
//! | health | NET_RAW | ping, frames to servers |
//! | checks' programs | none | they are others' |
//! | connection synchronisation | none | its threads have their sockets |
//!
//! "None" are all five sets: effective, permitted, inheritable, ambient, bounding. A set never grows by this, so that what was
//! missing at the start is still missing. None of them can get anything back, as `no_new_privs` is set too: a set-user-ID
//! program or one with file capabilities runs as any other. (A successor that SIGUSR2 has started has the four in the bounding
//! set of each thread: nobody is left with the right to narrow it. With `no_new_privs` that gives nobody anything.)
//!
//! PERFMON is what the kernel asks of who loads a program that computes with pointers into packets, where it guards against
//! speculation. Two rights are kept in the place of others: SYS_ADMIN for BPF and PERFMON where that is how the daemon was given
//! them, and IPC_LOCK where the limit of locked memory could not be lifted.

mod filter;

use std::io;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The control thread, and the threads that do what blocks for it.
    Control,
    /// A worker, or the thread that has memory ready for them.
    Worker,
    /// The health thread.
    Health,
    /// The thread that starts checks' programs, which inherit its rights.
    Programs,
    /// A thread of connection synchronisation.
    Synchronization,
}

impl Part {
    /// The capabilities that it keeps, of those that the process has.
    fn kept(self, held: CapabilitySet, memory_is_limited: bool) -> CapabilitySet {
        match self {
            Self::Control => {
                // CAP_SYS_ADMIN is what the two were split from.
                let own = CapabilitySet::BPF | CapabilitySet::PERFMON;
                let bpf = if held.contains(own) { own } else { CapabilitySet::SYS_ADMIN | (held & own) };
                let lock = if memory_is_limited { CapabilitySet::IPC_LOCK } else { CapabilitySet::empty() };
                CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | bpf | lock
            }
            Self::Health => CapabilitySet::NET_RAW,
            Self::Worker | Self::Programs | Self::Synchronization => CapabilitySet::empty(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Control => "the control thread",
            Self::Worker => "a worker",
            Self::Health => "the health thread",
            Self::Programs => "the thread of checks' programs",
            Self::Synchronization => "a thread of connection synchronisation",
        }
    }
}

/// Gives up what this thread needs no more. What can't be given up is told in the log, and the thread goes on with it: the
/// director serves.
pub(crate) fn enter(part: Part) {
    let name = part.name();
    if let Err(error) = give_up_capabilities(part) {
        tracing::warn!("{name} keeps capabilities that it does not need: {error}");
    }
    if part == Part::Worker
        && let Err(error) = filter::install()
    {
        tracing::warn!("{name} runs without a filter of system calls: {error}");
    }
}

fn give_up_capabilities(part: Part) -> io::Result<()> {
    set_no_new_privs(true)?;
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
    let memory_is_limited = getrlimit(Resource::Memlock).current.is_some();
    let kept = part.kept(permitted, memory_is_limited);
    // While this thread still has CAP_SETPCAP. Without it nobody who started the daemon left much there, and nothing comes back
    // from there.
    if effective.contains(CapabilitySet::SETPCAP) {
        for capability in bounding_set().filter(|capability| !kept.contains(*capability)) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    // The kernel takes out of the ambient set what leaves these.
    set_capabilities(
        None,
        CapabilitySets {
            effective: effective & kept,
            permitted: permitted & kept,
            inheritable: inheritable & kept,
        },
    )?;
    Ok(())
}

/// The capabilities in this thread's bounding set, also those that are newer than this program.
fn bounding_set() -> impl Iterator<Item = CapabilitySet> {
    let all = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    // The kernel knows none behind the first that it does not know.
    all.map_while(|capability| Some((capability, capability_is_in_bounding_set(capability).ok()?)))
        .filter_map(|(capability, is_there)| is_there.then_some(capability))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_each_part_keeps() {
        use CapabilitySet as Set;
        let all = Set::all();
        let four = Set::NET_ADMIN | Set::NET_RAW | Set::BPF | Set::PERFMON;
        let rows = [
            ("all rights", Part::Control, all, false, four),
            (
                "as before CAP_BPF",
                Part::Control,
                all - Set::BPF - Set::PERFMON,
                false,
                Set::NET_ADMIN | Set::NET_RAW | Set::SYS_ADMIN,
            ),
            ("memory is limited", Part::Control, all, true, four | Set::IPC_LOCK),
            ("health", Part::Health, all, true, Set::NET_RAW),
            ("worker", Part::Worker, all, true, Set::empty()),
            ("programs", Part::Programs, all, true, Set::empty()),
            ("synchronisation", Part::Synchronization, all, true, Set::empty()),
        ];
        for (what, part, held, limited, kept) in rows {
            assert_eq!(part.kept(held, limited), kept, "{what}");
        }
    }

    /// On a thread of its own, as it is for good.
    #[test]
    fn a_thread_gives_up_its_own_rights_only() {
        let before = capabilities(None).unwrap();
        let inside = std::thread::spawn(|| {
            enter(Part::Health);
            enter(Part::Health);
            let none_new = rustix::thread::no_new_privs().unwrap();
            (capabilities(None).unwrap(), none_new, bounding_set().fold(CapabilitySet::empty(), |a, b| a | b))
        });
        let (sets, none_new, bounding) = inside.join().unwrap();
        assert!(none_new);
        let raw = CapabilitySet::NET_RAW;
        assert_eq!(sets.permitted, before.permitted & raw);
        assert_eq!(sets.effective, before.effective & raw);
        assert_eq!(sets.inheritable, before.inheritable & raw);
        if before.effective.contains(CapabilitySet::SETPCAP) {
            assert_eq!(bounding & !raw, CapabilitySet::empty());
        }
        assert_eq!(capabilities(None).unwrap(), before);
        assert!(!rustix::thread::no_new_privs().unwrap());
    }
}
