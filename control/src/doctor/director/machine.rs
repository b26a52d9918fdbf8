//! What a director needs of the machine: AF_XDP, bpffs, capabilities, locked memory; and what else lays claim to its frames.

use std::io;
use std::net::IpAddr;

use rustix::process::Pid;
use rustix::thread::{CapabilitySet, capabilities};

use super::super::finding::{Advice, Check, Finding};
use super::super::plan::Plan;
use super::super::{proc, rules};
use super::HOST;

const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// The capabilities that a director needs, and their names.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::BPF, "CAP_BPF"),
];

pub(super) fn check(plan: &Plan) -> Vec<Finding> {
    let pid = plan.daemon.as_ref().map(|daemon| daemon.pid);
    let held = capabilities(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
        .map(|sets| sets.effective)
        .map_err(io::Error::from);
    let limit = proc::read(&format!("/proc/{}/limits", pid.map_or("self".to_owned(), |pid| pid.to_string())));
    let mut findings = vec![af_xdp(&open_xdp_socket()), bpffs(is_bpffs()), held_capabilities(&held, pid)];
    findings.push(locked_memory(limit.as_deref().and_then(parse_limit), &held, plan));
    findings.push(kernel_ipvs(proc::kernel_ipvs()));
    let vips: Vec<IpAddr> = plan.vips.keys().copied().collect();
    findings.push(firewall(&vips, &rules::of_host()));
    findings
}

fn open_xdp_socket() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).map(drop)?)
}

fn af_xdp(opened: &io::Result<()>) -> Finding {
    match opened {
        Ok(()) => Finding::ok(Check::AfXdp, HOST, "the kernel has AF_XDP"),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            let advice = Advice::say(
                "boot one that has it (CONFIG_XDP_SOCKETS; distributions' kernels from 5.11 on do)",
            );
            Finding::broken(Check::AfXdp, HOST, "the kernel has no AF_XDP", advice)
        }
        Err(error) => Finding::failed(Check::AfXdp, HOST, "CAP_NET_RAW", error),
    }
}

fn is_bpffs() -> bool {
    rustix::fs::statfs(BPFFS).is_ok_and(|found| found.f_type as u64 == BPFFS_MAGIC)
}

fn bpffs(mounted: bool) -> Finding {
    if mounted {
        return Finding::ok(Check::Bpffs, HOST, format!("{BPFFS} is mounted"));
    }
    let found = format!(
        "{BPFFS} is no bpffs here: what is pinned there keeps clients from being reset while a daemon restarts, and a daemon has \
         to be able to mount it"
    );
    Finding::warning(
        Check::Bpffs,
        HOST,
        found,
        Advice::run("mount it", [format!("mount -t bpf bpf {BPFFS}")]),
    )
}

fn held_capabilities(held: &io::Result<CapabilitySet>, daemon: Option<u32>) -> Finding {
    let whose = daemon.map_or("this user".to_owned(), |pid| format!("the daemon (pid {pid})"));
    let held = match held {
        Ok(held) => *held,
        Err(error) => {
            return Finding::unknown(Check::Capabilities, whose, format!("can't be looked at: {error}"));
        }
    };
    // CAP_SYS_ADMIN is what CAP_BPF was split from.
    let has = |one: CapabilitySet| {
        held.contains(one) || (one == CapabilitySet::BPF && held.contains(CapabilitySet::SYS_ADMIN))
    };
    let missing: Vec<(CapabilitySet, &'static str)> =
        NEEDED.into_iter().filter(|(one, _)| !has(*one)).collect();
    let Some((_, first)) = missing.first() else {
        let names = NEEDED.map(|(_, name)| name).join(", ");
        return Finding::ok(Check::Capabilities, whose, format!("has {names}"));
    };
    if daemon.is_none() {
        return Finding::not_permitted(Check::Capabilities, whose, first);
    }
    let names: Vec<&str> = missing.iter().map(|(_, name)| *name).collect();
    let found =
        format!("lacks {}: it can't keep real servers' neighbours or attach itself again", names.join(", "));
    let advice =
        Advice::say(format!("run it as root, or with AmbientCapabilities={} in its unit", names.join(" ")));
    Finding::broken(Check::Capabilities, whose, found, advice)
}

/// The soft limit of locked memory in bytes; `u64::MAX` is none.
fn parse_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

fn locked_memory(limit: Option<u64>, held: &io::Result<CapabilitySet>, plan: &Plan) -> Finding {
    let Some(limit) = limit else {
        return Finding::unknown(Check::LockedMemory, HOST, "the limit can't be read from /proc");
    };
    let needed = plan.memory_bytes as u64;
    let raises = held
        .as_ref()
        .is_ok_and(|held| held.intersects(CapabilitySet::IPC_LOCK | CapabilitySet::SYS_RESOURCE));
    if limit == u64::MAX {
        Finding::ok(Check::LockedMemory, HOST, "is not limited")
    } else if limit >= needed || raises || plan.daemon.is_some() {
        Finding::ok(Check::LockedMemory, HOST, format!("the limit of {} KiB is no hindrance", limit >> 10))
    } else {
        let found = format!(
            "at most {} KiB may be locked, and each worker's packet memory is {} KiB",
            limit >> 10,
            needed >> 10
        );
        let advice = Advice::say(
            "put LimitMEMLOCK=infinity into the daemon's unit (or run `ulimit -l unlimited` before it)",
        );
        Finding::broken(Check::LockedMemory, HOST, found, advice)
    }
}

fn kernel_ipvs(services: Option<usize>) -> Finding {
    let services = match services {
        None => return Finding::ok(Check::KernelIpvs, HOST, "the kernel has no IPVS of its own"),
        Some(0) => return Finding::ok(Check::KernelIpvs, HOST, "the kernel's own IPVS has no service"),
        Some(services) => services,
    };
    let found = format!(
        "the kernel's own IPVS has {services} service{}: it balances what the director leaves to the kernel, unseen by xlvs",
        if services == 1 { "" } else { "s" }
    );
    Finding::warning(Check::KernelIpvs, HOST, found, Advice::run("clear it", ["ipvsadm -C"]))
}

fn firewall(vips: &[IpAddr], rules: &Result<Vec<String>, String>) -> Finding {
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            return Finding::unknown(
                Check::Firewall,
                HOST,
                format!("the host's rules are not known: {error}"),
            );
        }
    };
    match rules::about(rules, vips, &["drop", "reject", "accept"]) {
        None => Finding::ok(Check::Firewall, HOST, "no rule of the host's filter names a VIP"),
        Some(rule) => {
            let found = format!(
                "a rule of the host's filter names a VIP, and the director takes its services' frames before any filter: \
                 `{rule}` has no effect on them"
            );
            let advice = Advice::say("filter on the real servers, or on the router in front");
            Finding::warning(Check::Firewall, HOST, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;

    use rustix::io::Errno;
    use rustix::thread::CapabilitySet as Set;

    use super::super::super::finding::State;
    use super::super::super::plan::Plan;
    use super::{af_xdp, firewall, held_capabilities, kernel_ipvs, locked_memory, parse_limit};

    #[test]
    fn the_kernels_answer_to_an_af_xdp_socket() {
        let refused = |errno: Errno| Err(io::Error::from(errno));
        let cases = [
            (Ok(()), State::Ok, None),
            (refused(Errno::AFNOSUPPORT), State::Broken, None),
            (refused(Errno::PERM), State::Unknown, Some("CAP_NET_RAW")),
            (refused(Errno::NOMEM), State::Unknown, None),
        ];
        for (opened, state, missing) in cases {
            let finding = af_xdp(&opened);
            assert_eq!((finding.state, finding.missing), (state, missing), "{opened:?}");
        }
    }

    #[test]
    fn capabilities_that_a_director_needs() {
        let all = Set::NET_ADMIN | Set::NET_RAW | Set::BPF;
        let cases = [
            ("all", all, Some(7), State::Ok, None, ""),
            (
                "as before CAP_BPF",
                Set::NET_ADMIN | Set::NET_RAW | Set::SYS_ADMIN,
                Some(7),
                State::Ok,
                None,
                "",
            ),
            (
                "daemon without",
                all - Set::NET_ADMIN,
                Some(7),
                State::Broken,
                None,
                "AmbientCapabilities=CAP_NET_ADMIN",
            ),
            ("caller without", all - Set::NET_RAW, None, State::Unknown, Some("CAP_NET_RAW"), ""),
        ];
        for (name, held, daemon, state, missing, text) in cases {
            let finding = held_capabilities(&Ok(held), daemon);
            assert_eq!((finding.state, finding.missing), (state, missing), "{name}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
    }

    #[test]
    fn locked_memory_has_to_be_enough_or_free() {
        let limits = |text: &str| {
            format!("Max stack size  8388608  unlimited  bytes\nMax locked memory {text} x bytes\n")
        };
        let plan = Plan { memory_bytes: 32 << 20, ..Plan::default() };
        let cases = [
            ("unlimited", Set::empty(), State::Ok),
            ("67108864", Set::empty(), State::Ok),
            ("65536", Set::SYS_RESOURCE, State::Ok),
            ("65536", Set::IPC_LOCK, State::Ok),
            ("65536", Set::empty(), State::Broken),
            ("much", Set::empty(), State::Unknown),
        ];
        for (text, held, state) in cases {
            let finding = locked_memory(parse_limit(&limits(text)), &Ok(held), &plan);
            assert_eq!(finding.state, state, "{text} {held:?}: {finding}");
        }
    }

    #[test]
    fn the_kernels_ipvs_is_to_be_empty() {
        assert_eq!(kernel_ipvs(None).state, State::Ok);
        assert_eq!(kernel_ipvs(Some(0)).state, State::Ok);
        assert!(kernel_ipvs(Some(2)).to_string().ends_with("clear it: ipvsadm -C"));
    }

    #[test]
    fn rules_about_a_vip_have_no_effect() {
        let vips = ["10.0.0.100".parse().unwrap(), "fd00::100".parse().unwrap()];
        let cases = [
            ("-A INPUT -d 10.0.0.100/32 -p tcp -m tcp --dport 22 -j DROP", State::Warning),
            ("ip daddr 10.0.0.100 tcp dport 22 drop", State::Warning),
            ("ip6 daddr { fd00::100, fd00::101 } drop", State::Warning),
            ("-A INPUT -d 10.0.0.10/32 -j DROP", State::Ok),
            ("-A INPUT -j DROP", State::Ok),
            ("ip daddr 10.0.0.100 meta mark set 0x00000007", State::Ok),
        ];
        for (rule, state) in cases {
            assert_eq!(firewall(&vips, &Ok(vec![rule.to_owned()])).state, state, "{rule}");
        }
        assert_eq!(firewall(&vips, &Err("nft does not tell".to_owned())).state, State::Unknown);
    }
}
