//! What a worker may ask of the kernel, by a seccomp filter: to use the descriptors that it has, and memory. It can't open a file
//! or a socket, start a program, or make memory executable. What is not allowed fails with EPERM: an oversight here, or in a
//! library, must not end a director that serves.
//!
//! The calls of the packet path stand here without conditions, so that the kernel (from 5.11) answers for them from a bitmap without
//! running the filter. Kernels before 5.16 may turn on their mitigation of speculative store bypass for a thread with a filter.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What is always allowed, by number.
const ALLOWED: &[i64] = &[
    // Frames: transmit, wake the fill ring, sleep, be woken, hand over to the TUN device, the kernel's counters.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_getsockopt,
    // Where the vDSO has no clock.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    // Locks and channels; hash maps' seeds.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // Memory as tables grow, also in a file that is open. See also CONDITIONAL.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_fallocate,
    // Signals, whose handlers run on any thread and write to a descriptor; going on after SIGSTOP.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // A panic's message, and the end of thread or process.
    libc::SYS_writev,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What is allowed without PROT_EXEC in the third argument.
const CONDITIONAL: [i64; 2] = [libc::SYS_mmap, libc::SYS_mprotect];

/// Puts this thread under the filter.
///
/// # Errors
/// On a processor that the compiler of filters does not know, or when the kernel takes none.
pub(super) fn install() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let not_executable = SeccompRule::new(vec![SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC.unsigned_abs().into()),
        0,
    )?])?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|&number| (number, Vec::new())).collect();
    rules.extend(CONDITIONAL.map(|number| (number, vec![not_executable.clone()])));
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::io::{ErrorKind, Write};
    use std::net::UdpSocket;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::process::{getpid, test_kill_process};

    use crate::sandbox::{Part, enter};

    /// What a thread under the filter makes of this.
    fn confined<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            enter(Part::Worker);
            assert_eq!(
                rustix::thread::name().map(drop).unwrap_err(),
                rustix::io::Errno::PERM,
                "the filter is in force"
            );
            sender.send(action()).unwrap();
        });
        let result = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
        result
    }

    #[test]
    fn a_worker_can_open_nothing_and_start_nothing() {
        let refused = confined(|| {
            [
                ("a file", File::open("/dev/null").map(drop)),
                ("a socket", UdpSocket::bind("127.0.0.1:0").map(drop)),
                ("a program", Command::new("/bin/true").spawn().map(drop)),
                ("a thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
                ("a directory", std::fs::create_dir("/tmp/xlvs-never").map(drop)),
                ("a signal", test_kill_process(getpid()).map_err(Into::into)),
            ]
        });
        for (what, outcome) in refused {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied, "{what}");
        }
    }

    #[test]
    fn a_worker_can_use_what_it_has() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (mine, peer) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        mine.connect(peer.local_addr().unwrap()).unwrap();
        let (from_worker, receiver) = crossbeam_channel::bounded(1);
        let ended = confined(move || {
            // Memory of the heap and by mappings, given back too; threads' own heaps grow by mprotect.
            let mut tables: Vec<Vec<u8>> = (0..20).map(|power| vec![1; 1 << power]).collect();
            tables.iter_mut().for_each(|table| table.resize(table.len() * 3, 2));
            drop(tables);
            mine.send(b"frame").unwrap();
            rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
            rustix::io::read(&event, &mut [0; 8]).unwrap();
            rustix::net::sockopt::socket_error(&mine).unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(1));
            from_worker.send(std::time::SystemTime::now()).unwrap();
            std::io::stderr().write_all(b"").unwrap();
            // A panic is told, and unwinds.
            std::panic::catch_unwind(|| panic!("as a test")).is_err()
        });
        assert!(ended);
        receiver.recv_timeout(Duration::from_secs(1)).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(peer.recv(&mut bytes).unwrap(), 5);
    }
}
