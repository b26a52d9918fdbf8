//! A director's interface: whether it is there and up, what is attached to it, what its offloads do, how large its frames are.

use xlvs_dataplane::port::af_xdp::{AfXdpError, XdpMode, pinned_mode};

use super::super::finding::{Advice, Check, Finding};
use super::super::host::Interface;
use super::super::plan::Plan;
use crate::kernel::link::{Certainty, OffloadFault};
use crate::kernel::{KernelError, Link};

pub(super) fn present(
    name: &str,
    interface: Option<&Interface>,
    link: &Result<Link, KernelError>,
) -> Finding {
    let driver = match (interface, link) {
        (_, Err(error)) => {
            let advice = Advice::say(
                "name an Ethernet interface in director.interfaces, and run doctor in its network namespace",
            );
            return Finding::broken(Check::Interface, name, error.to_string(), advice);
        }
        (Some(interface), _) if !interface.up => {
            let advice = Advice::run("bring it up", [format!("ip link set {name} up")]);
            return Finding::broken(Check::Interface, name, "is down", advice);
        }
        (Some(interface), _) if !interface.carrier => {
            let advice = Advice::say("look at the cable, the switch's port, or the other end of the pair");
            return Finding::broken(Check::Interface, name, "is up and has no carrier", advice);
        }
        (_, Ok(link)) => &link.driver,
    };
    let driver = if driver.is_empty() { "unknown" } else { driver };
    Finding::ok(Check::Interface, name, format!("is up, driver {driver}"))
}

/// The mode of our pinned program, or why that can't be told.
pub(super) fn pinned(index: u32) -> Result<Option<XdpMode>, AfXdpError> {
    pinned_mode(index)
}

/// What is attached.
pub(super) fn program(
    interface: &Interface,
    plan: &Plan,
    pinned: Result<Option<XdpMode>, AfXdpError>,
) -> Finding {
    let name = &interface.name;
    let is_running = plan.daemon.is_some();
    let pinned = match pinned {
        Ok(pinned) => pinned,
        // What runs needs no pin to be told by.
        Err(_) if is_running => None,
        Err(error) if error.is_missing_privilege() => {
            return Finding::not_permitted(Check::XdpProgram, name, "CAP_BPF");
        }
        Err(error) => return Finding::unknown(Check::XdpProgram, name, error.to_string()),
    };
    match (interface.xdp, is_running, pinned) {
        (None, true, _) => Finding::broken(
            Check::XdpProgram,
            name,
            "the daemon runs, and its program is not attached: the kernel gets the VIPs' frames, and resets their clients",
            Advice::say("somebody took it off; restart the daemon"),
        ),
        (None, false, _) => Finding::ok(Check::XdpProgram, name, "nothing is attached, and no daemon runs"),
        (Some("generic"), true, _) if !plan.wants_generic => Finding::warning(
            Check::XdpProgram,
            name,
            "the program runs in generic mode, which costs a copy of every frame",
            Advice::say(format!(
                "if the driver has native mode: stop the daemon, `xlvs detach {name}`, and start it with xdp_mode = \"native\", \
                 which says what is in the way"
            )),
        ),
        (Some(mode), true, _) => {
            Finding::ok(Check::XdpProgram, name, format!("the daemon's program is attached in {mode} mode"))
        }
        (Some(_), false, Some(_)) => Finding::warning(
            Check::XdpProgram,
            name,
            "a daemon that was killed left its program: the VIPs' frames are dropped until one runs again",
            Advice::run("start one, or take it off", [format!("xlvs detach {name}")]),
        ),
        (Some(mode), false, None) => Finding::broken(
            Check::XdpProgram,
            name,
            format!("another XDP program is attached in {mode} mode, beside which no director can run"),
            Advice::run(
                "take it off, if it is not needed",
                [format!("ip link set dev {name} {} off", off(mode))],
            ),
        ),
    }
}

/// The word of ip-link that takes a program of this mode off.
fn off(mode: &str) -> &'static str {
    match mode {
        "native" => "xdpdrv",
        "generic" => "xdpgeneric",
        "offloaded" => "xdpoffload",
        _ => "xdp",
    }
}

/// What the offloads break.
pub(super) fn offloads(name: &str, faults: Vec<OffloadFault>) -> Vec<Finding> {
    if faults.is_empty() {
        return vec![Finding::ok(Check::Offloads, name, "no offload is in the way")];
    }
    let finding = |OffloadFault { found, certainty, advice, cure }: OffloadFault| {
        let found = found.strip_prefix(&format!("{name} ")).map_or_else(|| found.clone(), str::to_owned);
        let advice = match certainty {
            // The peer's name and namespace are not known here.
            Certainty::Hidden => Advice::say(format!("{advice}: {cure}")),
            _ => Advice::run(&advice, [cure]),
        };
        match certainty {
            Certainty::Breaks => Finding::broken(Check::Offloads, name, found, advice),
            Certainty::MayBreak => Finding::warning(Check::Offloads, name, found, advice),
            Certainty::Hidden => Finding::unknown(Check::Offloads, name, found).advise(advice),
        }
    };
    faults.into_iter().map(finding).collect()
}

/// Frames that come in by one interface go out by another as they are.
pub(super) fn mtus(interfaces: &[&Interface]) -> Vec<Finding> {
    let Some(smallest) = interfaces.iter().min_by_key(|interface| interface.mtu) else { return Vec::new() };
    let Some(largest) = interfaces.iter().max_by_key(|interface| interface.mtu) else { return Vec::new() };
    if smallest.mtu == largest.mtu {
        let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        return vec![Finding::ok(Check::Mtu, names.join(", "), format!("MTU {}", smallest.mtu))];
    }
    let found = format!(
        "has an MTU of {}, and {} one of {}: larger packets that come in there can't go out here, and are answered with \
         \"fragmentation needed\" or lost",
        smallest.mtu, largest.name, largest.mtu
    );
    let advice =
        Advice::run("give all the same", [format!("ip link set dev {} mtu {}", smallest.name, largest.mtu)]);
    vec![Finding::warning(Check::Mtu, &smallest.name, found, advice)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use xlvs_dataplane::port::af_xdp::XdpMode;

    use super::super::super::finding::State;
    use super::super::super::host::Interface;
    use super::super::super::plan::{Daemon, Plan};
    use super::{mtus, program};

    fn interface(name: &str, mtu: u32, xdp: Option<&'static str>) -> Interface {
        Interface { name: name.into(), mtu, xdp, ..Interface::default() }
    }

    #[test]
    fn what_may_be_attached() {
        let running = Plan { daemon: Some(Daemon::default()), ..Plan::default() };
        let generic = Plan { wants_generic: true, ..running.clone() };
        let stopped = Plan::default();
        let native = Some(XdpMode::Native);
        let cases = [
            ("runs", Some("native"), &running, native, State::Ok, ""),
            ("runs, slowly", Some("generic"), &running, None, State::Warning, "xlvs detach eth0"),
            ("runs as told", Some("generic"), &generic, None, State::Ok, ""),
            ("taken off", None, &running, native, State::Broken, "restart the daemon"),
            ("not started", None, &stopped, None, State::Ok, ""),
            ("killed", Some("native"), &stopped, native, State::Warning, "xlvs detach eth0"),
            ("another's", Some("native"), &stopped, None, State::Broken, "ip link set dev eth0 xdpdrv off"),
            (
                "another's, generic",
                Some("generic"),
                &stopped,
                None,
                State::Broken,
                "ip link set dev eth0 xdpgeneric off",
            ),
        ];
        for (name, xdp, plan, pinned, state, text) in cases {
            let finding = program(&interface("eth0", 1500, xdp), plan, Ok(pinned));
            assert_eq!(finding.state, state, "{name}: {finding}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
    }

    #[test]
    fn all_interfaces_have_one_mtu() {
        let (eth0, eth1, small) =
            (interface("eth0", 1500, None), interface("eth1", 1500, None), interface("eth1", 1400, None));
        assert_eq!(mtus(&[&eth0, &eth1])[0].state, State::Ok);
        let finding = &mtus(&[&eth0, &small])[0];
        assert_eq!(finding.state, State::Warning);
        assert!(finding.to_string().ends_with("ip link set dev eth1 mtu 1500"), "{finding}");
        assert!(mtus(&[]).is_empty());
    }
}
