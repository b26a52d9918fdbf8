//! The lab of the wire benchmarks: three network namespaces joined by veth pairs. They bear names only while they are made, and
//! live as long as this process does: however it ends, nothing of them is left.
//!
//! ```text
//! generator namespace        director namespace          sink namespace
//!   generator0 ───────────── front0      back0 ───────────── sink0
//! ```
//! A two-armed forwarder receives on front0 and sends on back0. A one-armed one sends on front0 too, and generator0 is its
//! sink. There is no IPv6; neighbours are permanent; MTU 1500; all links have the same number of queues.

mod bare;
mod cores;
mod director;
mod forwarder;
mod generator;
mod interrupt;
mod kernel;
mod namespace;
mod program;
mod sink;
mod system_calls;

pub(crate) use bare::Bare;
pub(crate) use cores::Cores;
pub(crate) use director::InProcess;
pub(crate) use forwarder::{Arms, Forwarder, Idle};
pub(crate) use generator::{Flood, Generator, Order};
pub(crate) use interrupt::{pause, watch};
pub(crate) use kernel::{IpForward, NftForward, Redirect};
pub(crate) use sink::{Delays, Sink};
pub(crate) use system_calls::SystemCalls;

use namespace::{Namespace, run};

const GENERATOR: &str = "generator0";
const FRONT: &str = "front0";
const BACK: &str = "back0";
const SINK: &str = "sink0";
const GENERATOR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0];
const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const SINK_MAC: [u8; 6] = [2, 0, 0, 0, 3, 0];
const MTU: u32 = 1500;

/// Three namespaces and their links.
#[derive(Debug)]
pub(crate) struct Lab {
    generator: Namespace,
    director: Namespace,
    sink: Namespace,
    /// Queues of every interface.
    pub(crate) queues: u32,
}

impl Lab {
    /// A lab whose links have so many queues.
    ///
    /// # Errors
    /// What the kernel, `ip` or `ethtool` refuses, and without root.
    pub(crate) fn new(queues: u32) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("the lab needs network namespaces: run this as root".to_owned());
        }
        let lab = Self {
            generator: Namespace::new("generator")?,
            director: Namespace::new("director")?,
            sink: Namespace::new("sink")?,
            queues,
        };
        lab.join((&lab.generator, GENERATOR, GENERATOR_MAC), (&lab.director, FRONT, FRONT_MAC))?;
        lab.join((&lab.director, BACK, BACK_MAC), (&lab.sink, SINK, SINK_MAC))?;
        lab.director.inside(|| {
            run(
                "ip",
                &["-batch", "-"],
                &format!(
                    "address add 10.0.0.1/24 dev {FRONT}\naddress add 10.0.1.1/24 dev {BACK}\n\
                     neighbor add 10.0.1.2 lladdr {} dev {BACK} nud permanent\nroute add 198.18.0.0/15 via 10.0.1.2\n",
                    mac(SINK_MAC)
                ),
            )?;
            set("net/ipv4/ip_forward", "1")?;
            // What is redirected to front0 is only taken where the receiver polls, as it does for GRO.
            run("ethtool", &["-K", FRONT, "gro", "on"], "")
        })?;
        Ok(lab)
    }

    fn join(
        &self,
        (near, near_name, near_mac): (&Namespace, &str, [u8; 6]),
        (far, far_name, far_mac): (&Namespace, &str, [u8; 6]),
    ) -> Result<(), String> {
        let queues = self.queues.to_string();
        let options = format!("mtu {MTU} numrxqueues {queues} numtxqueues {queues}");
        let (near_mac, far_mac) = (mac(near_mac), mac(far_mac));
        let link = format!(
            "link add {near_name} address {near_mac} {options} type veth peer name {far_name} netns {} address {far_mac} \
             {options}\n",
            far.path()
        );
        near.inside(|| run("ip", &["-batch", "-"], &link))?;
        for (namespace, name) in [(near, near_name), (far, far_name)] {
            namespace.inside(|| {
                // Frames from user space come with the checksum they have.
                run("ethtool", &["-K", name, "tx", "off"], "")?;
                if self.queues > 1 {
                    run("ethtool", &["-L", name, "rx", &queues, "tx", &queues], "")?;
                }
                run("ip", &["link", "set", name, "up"], "")
            })?;
        }
        Ok(())
    }
}

/// Sets a kernel setting of the calling thread's namespace.
fn set(name: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).map_err(|error| format!("{path} can't be set to {value}: {error}"))
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
