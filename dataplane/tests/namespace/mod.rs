//! Network namespaces for the tests that need root: two of them, joined by veth pairs, gone with the value.
//!
//! ```text
//! client namespace                          director namespace
//!   left0  02:00:00:00:01:00  10.0.0.1 ──── right0  02:00:00:00:02:00  10.0.0.2
//!   left1  02:00:00:00:01:01  10.0.1.1 ──── right1  02:00:00:00:02:01  10.0.1.2
//! ```
//! MTU 1500 unless asked for; neighbours are permanent entries, there is no IPv6, and checksums are real.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xlvs_dataplane::port::af_xdp::SteeredInterface;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What the wires are like.
#[derive(Clone, Copy)]
pub struct Wires {
    pub pairs: u8,
    pub queues: u32,
    pub mtu: u32,
}

impl Default for Wires {
    fn default() -> Self {
        Self { pairs: 1, queues: 1, mtu: 1500 }
    }
}

pub struct Lab {
    pub client: String,
    pub director: String,
    wires: Wires,
}

impl Lab {
    pub fn new(wires: Wires) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("xlvs-{}-{number}-{side}", std::process::id());
        let lab = Self { client: name("client"), director: name("director"), wires };
        for namespace in [&lab.client, &lab.director] {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
            run(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.default.disable_ipv6=1"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        for pair in 0..wires.pairs {
            lab.add_pair(pair);
        }
        lab
    }

    /// Joins the namespaces by one more pair.
    pub fn add_pair(&self, pair: u8) {
        let Wires { queues, mtu, .. } = self.wires;
        let (client, director) = (&self.client, &self.director);
        let options = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
        // The director's interface has the same index each time that it is made.
        run(&format!(
            "ip -n {director} link add right{pair} index 10{pair} address 02:00:00:00:02:0{pair} {options} type veth \
             peer name left{pair} netns {client} address 02:00:00:00:01:0{pair} {options}"
        ));
        for (namespace, near, far, near_host, far_host) in
            [(client, "left", "02:00:00:00:02", 1, 2), (director, "right", "02:00:00:00:01", 2, 1)]
        {
            run(&format!("ip netns exec {namespace} ethtool -K {near}{pair} tx off"));
            run(&format!("ip netns exec {namespace} ethtool -L {near}{pair} rx {queues} tx {queues}"));
            run(&format!("ip -n {namespace} addr add 10.0.{pair}.{near_host}/24 dev {near}{pair}"));
            run(&format!("ip -n {namespace} link set {near}{pair} up"));
            run(&format!(
                "ip -n {namespace} neigh replace 10.0.{pair}.{far_host} lladdr {far}:0{pair} dev {near}{pair} nud permanent"
            ));
        }
    }

    /// The director's interface of a pair.
    pub fn right(&self, pair: u8) -> SteeredInterface {
        let name = format!("right{pair}");
        let index = inside(&self.director, || rustix_index(&name));
        SteeredInterface { name, index, mac: [2, 0, 0, 0, 2, pair] }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.director] {
            remove_pins(namespace);
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// What a test that failed has left in bpffs.
fn remove_pins(namespace: &str) {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::metadata(format!("/run/netns/{namespace}")) else { return };
    for pair in 0..10 {
        let _ = std::fs::remove_dir_all(format!("/sys/fs/bpf/xlvs/v1-{}-10{pair}", found.ino()));
    }
}

fn rustix_index(name: &str) -> u32 {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap();
    rustix::net::netdevice::name_to_index(&socket, name).unwrap()
}

/// Runs `work` on a thread of its own inside a network namespace; its panic is the caller's.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| {
        scope
            .spawn(|| {
                let file = File::open(format!("/run/netns/{namespace}")).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            })
            .join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs a command that has to succeed.
pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
