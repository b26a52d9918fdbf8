//! What is said when the host has not granted what AF_XDP takes. The test takes it from itself, so it needs root, and a
//! process of its own.
#![allow(clippy::unwrap_used)]

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use xlvs_dataplane::port::af_xdp::{
    AfXdpError, AfXdpPort, PortConfig, PortInterface, SteeredInterface, Steering,
};

/// Runs `work` on a thread that has only these capabilities.
fn with_capabilities<T: Send>(capabilities: CapabilitySet, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let sets = CapabilitySets {
                    effective: capabilities,
                    permitted: capabilities,
                    inheritable: CapabilitySet::empty(),
                };
                set_capabilities(None, sets).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

fn open_port() -> AfXdpError {
    let config = PortConfig {
        interfaces: vec![PortInterface { name: "nosuch0".to_owned(), queues: 1, mtu: 1500 }],
        queue: 0,
        frame_size: 4096,
        frames: 1024,
        ring_size: 64,
        huge_pages: false,
    };
    AfXdpPort::open(&config).err().unwrap()
}

fn load_steering() -> AfXdpError {
    let interface = SteeredInterface { name: "nosuch0".to_owned(), index: 1, mac: [0; 6] };
    Steering::load(interface).err().unwrap()
}

#[test]
fn what_the_host_has_to_grant_is_named() {
    let error = with_capabilities(CapabilitySet::empty(), open_port);
    assert!(error.is_missing_privilege());
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");

    let error = with_capabilities(CapabilitySet::NET_RAW, load_steering);
    assert!(error.is_missing_privilege());
    assert!(error.to_string().contains("CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"), "{error}");

    setrlimit(Resource::Memlock, Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) }).unwrap();
    let error = with_capabilities(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN, open_port);
    assert!(error.is_missing_privilege());
    assert!(error.to_string().contains("4194304 bytes"), "{error}");
    assert!(error.to_string().contains("ulimit -l unlimited"), "{error}");

    // With all of it only the interface is missing.
    let error = open_port();
    assert!(!error.is_missing_privilege());
    assert!(matches!(error, AfXdpError::NoSuchInterface { .. }), "{error}");
}
