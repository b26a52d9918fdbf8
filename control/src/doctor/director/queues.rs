//! Receive queues, their interrupts, and the cores of the workers that serve them.

use std::collections::{BTreeMap, BTreeSet};

use xlvs_dataplane::port::af_xdp::ethtool::Device;

use super::super::finding::{Advice, Check, Finding};
use super::super::plan::{Plan, Worker};
use super::super::proc;
use super::HOST;
use crate::kernel::Link;

/// An interrupt of an interface's receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) number: u32,
    pub(super) queue: u32,
    /// Where it may be handled.
    pub(super) cores: BTreeSet<usize>,
}

/// What is known of an interface's interrupts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interrupts {
    pub(super) of_queues: Vec<Interrupt>,
    /// A daemon that moves interrupts as it likes is running.
    pub(super) irqbalance: bool,
}

/// Queues without a worker lose the VIPs' frames.
pub(super) fn served(link: &Link, queues: Option<u32>) -> Finding {
    let active = link.rx_queues;
    let name = &link.name;
    let Some(served) = queues.filter(|served| *served < active) else {
        return Finding::ok(Check::Queues, name, format!("{active} active, all served"));
    };
    let found = format!(
        "{active} receive queues are active, and only the first {served} have a worker: VIPs' frames that come on the others \
         are dropped"
    );
    // A veth counts its directions apart; what hardware has is mostly both in one.
    let sort = if link.kind.as_deref() == Some("veth") { "rx" } else { "combined" };
    let advice = Advice::run(
        "use no more queues than workers (or raise director.queues and restart)",
        [format!("ethtool -L {name} {sort} {served}")],
    );
    Finding::broken(Check::Queues, name, found, advice)
}

/// Reads what /proc and the bus tell.
pub(super) fn read_interrupts(name: &str) -> Interrupts {
    let bus = Device::open(name).and_then(|device| device.bus_info()).unwrap_or_default();
    // Some drivers name an interrupt after the device rather than the interface: the bus has their numbers.
    let of_device = std::fs::read_dir(format!("/sys/bus/pci/devices/{bus}/msi_irqs")).into_iter().flatten();
    let of_device: BTreeSet<u32> =
        of_device.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let text = proc::read("/proc/interrupts").unwrap_or_default();
    let of_queues = parse(&text, name, &bus, &of_device)
        .into_iter()
        .filter_map(|(number, queue)| {
            let read = |file: &str| proc::read(&format!("/proc/irq/{number}/{file}"));
            let cores = read("effective_affinity_list").or_else(|| read("smp_affinity_list"))?;
            Some(Interrupt { number, queue, cores: proc::parse_cores(&cores) })
        })
        .collect();
    Interrupts { of_queues, irqbalance: proc::is_running("irqbalance") }
}

/// Numbers and queues of receive interrupts.
fn parse(text: &str, name: &str, bus: &str, of_device: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let interrupt = |line: &str| {
        let (number, rest) = line.trim_start().split_once(':')?;
        let number: u32 = number.parse().ok()?;
        let action = rest.split_ascii_whitespace().next_back()?;
        let is_named = action.strip_prefix(name).is_some_and(|rest| rest.starts_with(['-', '.', ':', '@']));
        let is_on_bus = !bus.is_empty() && action.ends_with(bus);
        if !(is_named || is_on_bus || of_device.contains(&number))
            || ["output", "-tx-", "config", "async", "control"].iter().any(|other| action.contains(other))
        {
            return None;
        }
        let action = action.split('@').next()?;
        let digits = action.len() - action.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        Some((number, action[action.len() - digits..].parse().ok()?))
    };
    text.lines().filter_map(interrupt).collect()
}

/// A queue's interrupt on another worker's core takes time from that worker, and its own worker's caches stay cold.
pub(super) fn interrupts(name: &str, interrupts: &Interrupts, plan: &Plan) -> Finding {
    let workers: &[Worker] = plan.daemon.as_ref().map_or(&[], |daemon| &daemon.workers);
    if interrupts.of_queues.is_empty() {
        return Finding::ok(Check::Interrupts, name, "has no interrupts of its own");
    }
    let of_queue: BTreeMap<u32, usize> = workers.iter().map(|worker| (worker.queue, worker.core)).collect();
    let misplaced: Vec<(&Interrupt, usize)> = interrupts
        .of_queues
        .iter()
        .filter_map(|interrupt| {
            let own = *of_queue.get(&interrupt.queue)?;
            let others = workers.iter().filter(|worker| worker.queue != interrupt.queue);
            let disturbs = others.clone().any(|worker| interrupt.cores.contains(&worker.core));
            (disturbs && !interrupt.cores.contains(&own)).then_some((interrupt, own))
        })
        .collect();
    if !misplaced.is_empty() {
        let queues: Vec<String> =
            misplaced.iter().map(|(interrupt, _)| interrupt.queue.to_string()).collect();
        let found = format!(
            "the interrupts of queues {} are handled on other queues' workers' cores",
            queues.join(", ")
        );
        let place = misplaced
            .iter()
            .map(|(one, core)| format!("echo {core} > /proc/irq/{}/smp_affinity_list", one.number));
        let advice = Advice::run("put each onto its own worker's core", place);
        return Finding::warning(Check::Interrupts, name, found, advice);
    }
    if interrupts.irqbalance && !workers.is_empty() {
        let advice = Advice::say(format!(
            "stop it (systemctl disable --now irqbalance), or keep it from {name}'s interrupts (IRQBALANCE_BANNED_CPULIST)"
        ));
        return Finding::warning(
            Check::Interrupts,
            name,
            "irqbalance is running and moves them as it likes",
            advice,
        );
    }
    Finding::ok(Check::Interrupts, name, "are where they hold up no other queue's worker")
}

/// Each worker wants a core of its own.
pub(super) fn cores(plan: &Plan) -> Option<Finding> {
    let daemon = plan.daemon.as_ref()?;
    let status = proc::read(&format!("/proc/{}/status", daemon.pid));
    Some(judge_cores(&daemon.workers, status.as_deref().and_then(allowed_cores).as_ref()))
}

fn allowed_cores(status: &str) -> Option<BTreeSet<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(proc::parse_cores(list))
}

fn judge_cores(workers: &[Worker], allowed: Option<&BTreeSet<usize>>) -> Finding {
    let cores: Vec<usize> = workers.iter().map(|worker| worker.core).collect();
    let distinct: BTreeSet<usize> = cores.iter().copied().collect();
    if let Some(outside) = distinct.iter().find(|core| allowed.is_some_and(|allowed| !allowed.contains(core)))
    {
        let found = format!(
            "core {outside} of a worker is not allowed to the daemon any more (cgroup, or affinity): it runs anywhere"
        );
        let advice = Advice::say(
            "name allowed ones in director.cores, or give the cgroup the core (AllowedCPUs= in the unit)",
        );
        return Finding::warning(Check::WorkerCores, HOST, found, advice);
    }
    if distinct.len() < cores.len() {
        let found = format!("{} workers share {} core(s): {cores:?}", cores.len(), distinct.len());
        let advice = Advice::say(
            "name a core for each in director.cores, or use fewer queues (ethtool -L) and restart",
        );
        return Finding::warning(Check::WorkerCores, HOST, found, advice);
    }
    Finding::ok(Check::WorkerCores, HOST, format!("each worker has a core of its own: {cores:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::super::super::finding::State;
    use super::super::super::plan::{Daemon, Plan, Worker};
    use super::{Interrupt, Interrupts, interrupts, judge_cores, parse, served};
    use crate::kernel::Link;

    fn link(kind: Option<&str>, rx_queues: u32) -> Link {
        Link {
            name: "eth0".into(),
            index: 2,
            mac: [2; 6],
            mtu: 1500,
            up: true,
            kind: kind.map(Into::into),
            driver: String::new(),
            rx_queues,
            peer: None,
        }
    }

    fn workers(cores: &[usize]) -> Vec<Worker> {
        cores.iter().zip(0..).map(|(&core, queue)| Worker { queue, core }).collect()
    }

    #[test]
    fn each_queue_has_a_worker() {
        let cases = [
            (None, 4, None, State::Ok, ""),
            (None, 4, Some(4), State::Ok, ""),
            (None, 4, Some(2), State::Broken, ": ethtool -L eth0 combined 2"),
            (Some("veth"), 2, Some(1), State::Broken, ": ethtool -L eth0 rx 1"),
        ];
        for (kind, active, queues, state, end) in cases {
            let finding = served(&link(kind, active), queues);
            assert_eq!(finding.state, state, "{kind:?} {active} {queues:?}");
            assert!(finding.to_string().ends_with(end), "{finding}");
        }
    }

    #[test]
    fn receive_interrupts_are_told_by_name_bus_or_number() {
        let text = "           CPU0       CPU1\n\
                    \x20 1:          9          0   IO-APIC   1-edge      i8042\n\
                    \x2024:        100          0   PCI-MSI 1-edge      eth0-TxRx-0\n\
                    \x2025:          0        100   PCI-MSI 2-edge      eth0-TxRx-1\n\
                    \x2026:          0        100   PCI-MSI 3-edge      eth01-TxRx-0\n\
                    \x2027:          0        100   PCI-MSI 4-edge      virtio0-config\n\
                    \x2028:          0        100   PCI-MSI 5-edge      virtio0-input.0\n\
                    \x2029:          0        100   PCI-MSI 6-edge      virtio0-output.0\n\
                    \x2030:          0        100   PCI-MSI 7-edge      mlx5_comp3@pci:0000:03:00.0\n\
                    NMI:          0          0   Non-maskable interrupts\n";
        assert_eq!(parse(text, "eth0", "", &BTreeSet::new()), [(24, 0), (25, 1)]);
        assert_eq!(parse(text, "ens3", "0000:00:03.0", &BTreeSet::from([27, 28, 29])), [(28, 0)]);
        assert_eq!(parse(text, "ens4", "0000:03:00.0", &BTreeSet::new()), [(30, 3)]);
    }

    #[test]
    fn an_interrupt_stays_off_other_workers_cores() {
        let interrupt = |queue: u32, cores: &[usize]| Interrupt {
            number: 24 + queue,
            queue,
            cores: cores.iter().copied().collect(),
        };
        let plan = Plan {
            daemon: Some(Daemon { workers: workers(&[0, 1]), ..Daemon::default() }),
            ..Plan::default()
        };
        let cases: [(&str, Vec<Interrupt>, bool, State, &str); 6] = [
            ("none", vec![], true, State::Ok, ""),
            ("each its own", vec![interrupt(0, &[0]), interrupt(1, &[1])], false, State::Ok, ""),
            ("a third core", vec![interrupt(0, &[2]), interrupt(1, &[3])], false, State::Ok, ""),
            ("anywhere", vec![interrupt(0, &[0, 1]), interrupt(1, &[0, 1])], false, State::Ok, ""),
            (
                "all on one",
                vec![interrupt(0, &[0]), interrupt(1, &[0])],
                false,
                State::Warning,
                "queues 1 are handled on other queues' workers' cores; put each onto its own worker's core: echo 1 > \
                 /proc/irq/25/smp_affinity_list",
            ),
            ("moved about", vec![interrupt(0, &[0])], true, State::Warning, "irqbalance"),
        ];
        for (name, of_queues, irqbalance, state, text) in cases {
            let finding = interrupts("eth0", &Interrupts { of_queues, irqbalance }, &plan);
            assert_eq!(finding.state, state, "{name}: {finding}");
            assert!(finding.to_string().contains(text), "{name}: {finding}");
        }
    }

    #[test]
    fn each_worker_has_an_allowed_core_of_its_own() {
        let cases: [(&[usize], &[usize], State, &str); 4] = [
            (&[0, 1], &[0, 1, 2], State::Ok, ""),
            (&[0, 0], &[0, 1], State::Warning, "2 workers share 1 core(s)"),
            (&[0, 3], &[0, 1], State::Warning, "core 3 of a worker is not allowed"),
            (&[], &[], State::Ok, ""),
        ];
        for (cores, allowed, state, text) in cases {
            let finding = judge_cores(&workers(cores), Some(&allowed.iter().copied().collect()));
            assert_eq!(finding.state, state, "{cores:?}");
            assert!(finding.to_string().contains(text), "{finding}");
        }
    }
}
