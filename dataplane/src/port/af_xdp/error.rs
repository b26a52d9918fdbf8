//! What can go wrong when steering is set up or a port is opened, told so that an operator knows what to do. Nothing on a
//! frame's way returns these.

use std::error::Error;
use std::io;

/// Why the steering program or an AF_XDP socket could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The interface is not there (any more), or not in this network namespace.
    #[error(
        "there is no interface {interface} in this network namespace; `ip link` lists those that are there"
    )]
    NoSuchInterface {
        /// The interface's name, or its index if only that is known.
        interface: String,
    },
    /// A capability is missing.
    #[error("{doing} needs {capabilities}: run xlvs as root or give it these capabilities ({cause})")]
    MissingCapability {
        /// What was tried.
        doing: String,
        /// Which capabilities it takes.
        capabilities: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The locked-memory limit is too low for the UMEM.
    #[error(
        "the kernel refuses to lock {bytes} bytes of packet memory: raise the limit (`ulimit -l unlimited`, or \
         LimitMEMLOCK=infinity in the systemd unit), give xlvs CAP_IPC_LOCK, or lower `frames`"
    )]
    LockedMemoryLimit {
        /// The size of the packet memory of one worker.
        bytes: usize,
    },
    /// The packet memory can't be had.
    #[error("can't get {bytes} bytes of packet memory{hint} ({cause})")]
    NoMemory {
        /// The size of the packet memory of one worker.
        bytes: usize,
        /// What to do about it.
        hint: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The kernel was built without what is needed.
    #[error("this kernel can't {doing}: it needs {option} ({cause})")]
    Unsupported {
        /// What was tried.
        doing: String,
        /// The kernel option, or the version.
        option: &'static str,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// Another socket owns the queue.
    #[error(
        "queue {queue} of {interface} is in use by another AF_XDP socket: stop the other xlvs or AF_XDP program \
         (`ss --xdp -p` lists them)"
    )]
    QueueBusy {
        /// The interface's name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The interface has no such queue.
    #[error(
        "{interface} has no queue {queue}, or not in both directions: `ethtool -l {interface}` shows its queues"
    )]
    NoSuchQueue {
        /// The interface's name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Somebody else's XDP program is attached.
    #[error(
        "another XDP program is attached to {interface}: remove it with `ip link set {interface} xdp off`, or, if an \
         xlvs left it behind, with `xlvs detach {interface}`"
    )]
    ProgramInTheWay {
        /// The interface's name.
        interface: String,
    },
    /// The driver refuses the program.
    #[error("can't attach the steering program to {interface} in {mode} mode ({cause}){hint}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// The kernel's answer.
        cause: io::Error,
        /// What is known to cause it, with what to do.
        hint: &'static str,
    },
    /// More rules than the steering maps hold.
    #[error("the services need {found} {what} in the steering maps, which hold {allowed}")]
    TooManyRules {
        /// Addresses, ports or port ranges.
        what: &'static str,
        /// How many the rules need.
        found: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// A setting that the port can't work with.
    #[error("{what} is {found}; allowed: {allowed}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: String,
    },
    /// The directory of pins is not usable.
    #[error("can't use {path}, where the steering program is kept while xlvs restarts: {reason}")]
    PinDirectory {
        /// The path in bpffs.
        path: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Anything else.
    #[error("{doing} failed: {cause}")]
    Failed {
        /// What was tried.
        doing: String,
        /// The kernel's or the loader's answer.
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl AfXdpError {
    /// Whether the host has to grant something first: a capability, a limit or a kernel option.
    #[must_use]
    pub fn is_missing_privilege(&self) -> bool {
        matches!(
            self,
            Self::MissingCapability { .. } | Self::LockedMemoryLimit { .. } | Self::Unsupported { .. }
        )
    }

    pub(super) fn failed(doing: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { doing: doing.into(), cause: Chain::boxed(cause.into()) }
    }

    /// The error of a BPF operation, by its errno.
    pub(super) fn bpf(doing: impl Into<String>, cause: impl Error + Send + Sync + 'static) -> Self {
        let doing = doing.into();
        match os_error(&cause) {
            Some(code @ (libc::EPERM | libc::EACCES)) => Self::MissingCapability {
                doing,
                capabilities: "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
                cause: io::Error::from_raw_os_error(code),
            },
            Some(code @ libc::ENOSYS) => Self::Unsupported {
                doing,
                option: "CONFIG_BPF_SYSCALL",
                cause: io::Error::from_raw_os_error(code),
            },
            _ => Self::failed(doing, cause),
        }
    }
}

/// The errno that caused an error, however deep it lies.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// An error that shows its sources in one line, as a log wants it.
#[derive(Debug)]
struct Chain(Box<dyn Error + Send + Sync>);

impl Chain {
    fn boxed(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error + Send + Sync> {
        Box::new(Self(error))
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl Error for Chain {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_is_found_behind_wrappers() {
        let wrapped = aya::maps::MapError::SyscallError(aya::sys::SyscallError {
            call: "bpf_map_update_elem",
            io_error: io::Error::from_raw_os_error(libc::E2BIG),
        });
        assert_eq!(os_error(&wrapped), Some(libc::E2BIG));
        assert_eq!(os_error(&io::Error::other("no errno")), None);
    }

    #[test]
    fn a_missing_capability_is_told_from_a_failure() {
        let error = AfXdpError::bpf("loading", io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.is_missing_privilege());
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
        let error = AfXdpError::bpf("loading", io::Error::from_raw_os_error(libc::EINVAL));
        assert!(!error.is_missing_privilege());
    }
}
