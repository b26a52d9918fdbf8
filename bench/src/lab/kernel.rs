//! The kernel's own ways from front0 to back0, to compare with.

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use super::forwarder::Forwarder;
use super::namespace::{Namespace, run};
use super::program::Program;
use super::{BACK, BACK_MAC, FRONT, Lab, SINK_MAC, mac};

/// Routing: what the lab does where nothing else takes the frames.
pub(crate) struct IpForward;

impl Forwarder for IpForward {
    fn finish(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}

/// An XDP program that redirects: the shortest way there is.
pub(crate) struct Redirect {
    _program: Program,
}

impl Redirect {
    /// Attaches it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn start(lab: &Lab) -> Result<Self, String> {
        lab.director.inside(|| {
            let failed = |error| format!("{BACK} has no index: {error}");
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(failed)?;
            let egress = name_to_index(&socket, BACK).map_err(failed)?;
            let mut macs = [0; 16];
            macs[..6].copy_from_slice(&SINK_MAC);
            macs[6..12].copy_from_slice(&BACK_MAC);
            let word = |half: &[u8]| half.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            let mut program = Program::load("redirect")?;
            program.cell("ways")?.set([u64::from(egress), word(&macs[..8]), word(&macs[8..])])?;
            program.attach(FRONT)?;
            Ok(Self { _program: program })
        })
    }
}

impl Forwarder for Redirect {
    fn finish(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}

/// nftables, in the ingress hook of the interface.
pub(crate) struct NftForward {
    namespace: Option<Namespace>,
}

impl NftForward {
    /// Adds the rule.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub(crate) fn start(lab: &Lab) -> Result<Self, String> {
        let namespace = lab.director.share()?;
        let rules = format!(
            "table netdev bench {{ chain forward {{\n type filter hook ingress device {FRONT} priority 0;\n \
             ip daddr 198.18.0.0/15 ether daddr set {} ether saddr set {} fwd to {BACK};\n}}\n}}\n",
            mac(SINK_MAC),
            mac(BACK_MAC)
        );
        namespace.inside(|| run("nft", &["-f", "-"], &rules))?;
        Ok(Self { namespace: Some(namespace) })
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(namespace) = self.namespace.take() else { return Ok(()) };
        namespace.inside(|| run("nft", &["delete", "table", "netdev", "bench"], ""))
    }
}

impl Forwarder for NftForward {
    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.end()
    }
}

impl Drop for NftForward {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
