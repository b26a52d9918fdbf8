//! A network namespace that is gone with the process, and programs run inside.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::set;

/// A network namespace, held by its open file.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new namespace without IPv6, in which nothing is filtered by its source address. Its name (this program's, the
    /// process's and the role's) is taken away as soon as it is open.
    pub(super) fn new(role: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xlvs-bench-{}-{count}-{role}", std::process::id());
        run("ip", &["netns", "add", &name], "")?;
        let opened = File::open(format!("/run/netns/{name}"));
        run("ip", &["netns", "delete", &name], "")?;
        let namespace = Self(opened.map_err(|error| format!("/run/netns/{name} can't be opened: {error}"))?);
        namespace.inside(|| {
            for place in ["all", "default"] {
                set(&format!("net/ipv6/conf/{place}/disable_ipv6"), "1")?;
                set(&format!("net/ipv4/conf/{place}/rp_filter"), "0")?;
            }
            run("ip", &["link", "set", "lo", "up"], "")
        })?;
        Ok(namespace)
    }

    /// The same namespace, for a thread that lives on by itself.
    pub(super) fn share(&self) -> Result<Self, String> {
        self.0.try_clone().map(Self).map_err(|error| format!("a network namespace can't be shared: {error}"))
    }

    /// What `ip` knows the namespace by.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Moves the calling thread into the namespace, for good.
    pub(super) fn enter(&self) -> Result<(), String> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("a thread can't move into a network namespace: {error}"))
    }

    /// Does `work` on a thread inside. What it opens stays there.
    pub(super) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send,
    ) -> Result<T, String> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().and_then(|()| work()));
            thread.join().unwrap_or_else(|_| Err("a thread in a network namespace panicked".to_owned()))
        })
    }
}

/// Runs a program in the calling thread's namespace, with `input`; it has to succeed.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let failed = |error: std::io::Error| {
        format!("{} can't be run: {error} (Debian has it in iproute2, ethtool or nftables)", line())
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading it says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{} failed: {}", line(), String::from_utf8_lossy(&output.stderr).trim()))
}
