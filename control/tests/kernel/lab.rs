//! A director and a real server in network namespaces of their own, joined by a veth pair, gone when the test is:
//! ```text
//! director: d0 10.9.0.1/24 fd09::1/64 ──── s0 10.9.0.2/24 fd09::2/64 :server
//! ```

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use xlvs_control::kernel::{Kernel, KernelEvent};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Namespaces named after this process and a count.
pub(crate) struct Lab {
    pub(crate) director: String,
    pub(crate) server: String,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let name = format!("xlvs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { director: format!("{name}-d"), server: format!("{name}-s") };
        for namespace in [&lab.director, &lab.server] {
            sh(&format!("ip netns add {namespace} && ip -n {namespace} link set lo up"));
            // A new interface's link-local address is usable as soon as it is there.
            sh(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.default.accept_dad=0"));
        }
        lab.pair("d0", "s0", "10.9.0", "fd09:");
        lab
    }

    /// A veth pair between the two, with addresses .1 (director) and .2 (server).
    pub(crate) fn pair(&self, director: &str, server: &str, v4: &str, v6: &str) {
        let Self { director: d, server: s } = self;
        sh(&format!("ip -n {d} link add {director} numrxqueues 4 type veth peer name {server} netns {s}"));
        for (namespace, interface, host) in [(d, director, 1), (s, server, 2)] {
            sh(&format!("ip -n {namespace} addr add {v4}.{host}/24 dev {interface}"));
            sh(&format!("ip -n {namespace} addr add {v6}:{host}/64 dev {interface} nodad"));
            sh(&format!("ip -n {namespace} link set {interface} up"));
        }
        // The kernel solicits no IPv6 neighbour before it has noticed the carrier and made a link-local address.
        let deadline = Instant::now() + Duration::from_secs(10);
        for (namespace, interface) in [(d, director), (s, server)] {
            while !sh(&format!("ip -n {namespace} -6 addr show dev {interface} scope link -tentative"))
                .contains("fe80")
            {
                assert!(Instant::now() < deadline, "{interface} got no link-local address");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// `ip` in the director's namespace.
    pub(crate) fn director_ip(&self, arguments: &str) -> String {
        sh(&format!("ip -n {} {arguments}", self.director))
    }

    /// `ip` in the server's namespace.
    pub(crate) fn server_ip(&self, arguments: &str) -> String {
        sh(&format!("ip -n {} {arguments}", self.server))
    }

    /// The hardware address of a server's interface.
    pub(crate) fn server_mac(&self, interface: &str) -> [u8; 6] {
        let link = self.server_ip(&format!("-o link show {interface}"));
        let text = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        mac(text)
    }

    /// Runs a test in the director's namespace, on a thread and a runtime of its own.
    pub(crate) fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.director)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(test());
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.director, &self.server] {
            // Not asserted: a failing test must show its own failure.
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// Runs a command that has to succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// `02:00:...` as bytes.
pub(crate) fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Follows the kernel until `holds`; the events that came by.
pub(crate) async fn until(
    kernel: &mut Kernel,
    what: &str,
    within: Duration,
    holds: impl Fn(&Kernel) -> bool,
) -> Vec<KernelEvent> {
    let mut events = Vec::new();
    let wait = async {
        while !holds(kernel) {
            events.push(kernel.next().await.unwrap());
        }
    };
    let result = tokio::time::timeout(within, wait).await;
    assert!(result.is_ok(), "{what}: not within {within:?}; events: {events:?}, {kernel:?}");
    events
}
