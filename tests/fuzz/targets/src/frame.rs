//! Frames through two workers' directors over one pair of connection tables, with time and changes of the services between
//! them. A piece is two bytes that say how it comes, and the frame.

use xlvs_dataplane::counters::WorkerCounters;
use xlvs_dataplane::flow::Protocol::{Sctp, Tcp, Udp};
use xlvs_dataplane::flow::{Family, Granularity};
use xlvs_dataplane::fragment::Usage;
use xlvs_dataplane::service::Persistence;
use xlvs_dataplane::settings::{DefenseMode, Settings};
use xlvs_dataplane::verdict::Verdict;

use crate::memory::frame::mend_checksum;
use crate::memory::invariants::one_frame;
use crate::memory::lab::{Lab, Plan, v4, v6};

const WORKERS: usize = 2;
/// So few that an input can fill the table.
const CONNECTIONS: u32 = 12;
/// The longest frame: a UMEM chunk.
const MAX_FRAME: usize = 4096;
/// Longer than every timeout that an input can meet, in milliseconds.
const FOREVER: u64 = 1_000_000;

/// How a frame comes, in the bits of the first byte.
mod how {
    /// To the second worker.
    pub(super) const WORKER: u8 = 1;
    /// With the IPv4 checksum made right.
    pub(super) const MENDED: u8 = 2;
    /// After the timers were looked at.
    pub(super) const EXPIRED: u8 = 4;
    /// With only its first bytes in the first buffer, as many as the second byte says.
    pub(super) const CUT: u8 = 8;
    /// After the services were changed, as the second byte says.
    pub(super) const CHANGED: u8 = 16;
}

/// How long the pause before a frame is, in milliseconds, by the upper three bits of the first byte.
const PAUSES: [u64; 8] = [0, 0, 1, 300, 10_000, 31_000, 121_000, 901_000];

fn publish(lab: &mut Lab, change: u8) {
    let weight = u32::from(change & 1);
    let all: [Plan<'_>; 9] = [
        (v4(Tcp, 80), &[(1, 1), (2, 1 - weight)]),
        (v4(Udp, 53), &[(3, 1)]),
        (v4(Sctp, 9000), &[(1, 2), (9, 1)]),
        (v6(Tcp, 80), &[(4, weight), (5, 1)]),
        (v6(Udp, 53), &[(6, 1)]),
        (v4(Tcp, 81), &[]),
        (v4(Tcp, 82), &[(7, 0)]),
        (v4(Tcp, 83), &[(8, 1)]),
        (v4(Tcp, 84), &[(10, 1)]),
    ];
    let cut = usize::from(change >> 1 & 3);
    let gone: &[u32] = if cut == 3 { &[10, 8, 7] } else { &[] };
    lab.settings = Settings {
        sloppy_tcp: change & 8 != 0,
        expire_nodest_conn: change & 16 != 0,
        schedule_icmp: change & 32 != 0,
        drop_entry: if change & 64 != 0 { DefenseMode::Always } else { DefenseMode::Off },
        ..Settings::default()
    };
    lab.publish(&all[..all.len() - cut], gone);
}

fn lab() -> Lab {
    let mut lab = Lab::new(WORKERS, CONNECTIONS);
    lab.unresolved.insert(8);
    let timeout = std::time::Duration::from_secs(60);
    for (key, family) in [(v4(Tcp, 84), Family::V4), (v6(Udp, 53), Family::V6)] {
        let granularity = match family {
            Family::V4 => Granularity::V4([255, 255, 255, 0].into()),
            Family::V6 => Granularity::V6(64),
        };
        lab.persistent.insert(key, Persistence { timeout, granularity });
    }
    publish(&mut lab, 0);
    lab
}

fn sum(lab: &Lab, count: fn(&WorkerCounters) -> u64) -> u64 {
    lab.counters.iter().map(|counters| count(counters)).sum()
}

/// Lets frames come.
pub fn run(input: &[u8]) {
    let mut lab = lab();
    let (mut received, mut forwarded) = (0, 0);
    for piece in crate::pieces(input) {
        let [first, second, frame @ ..] = piece else { continue };
        let mut frame = frame[..frame.len().min(MAX_FRAME)].to_vec();
        if first & how::MENDED != 0 {
            mend_checksum(&mut frame);
        }
        lab.pass(PAUSES[usize::from(first >> 5)]);
        if first & how::EXPIRED != 0 {
            lab.expire();
        }
        if first & how::CHANGED != 0 {
            publish(&mut lab, *second);
        }
        let head = if first & how::CUT != 0 { frame.len().min((*second).into()) } else { frame.len() };
        let worker = usize::from(first & how::WORKER);
        let verdict =
            one_frame(&mut lab, worker, &frame[..head], frame.len()).unwrap_or_else(|why| panic!("{why}"));
        received += 1;
        forwarded += u64::from(matches!(verdict, Verdict::Forward(_)));
        let counted = sum(&lab, |its| {
            its.dropped_in_all() + its.fragments_reassembled.get() + its.packets_fragmented.get()
        });
        let held = lab.fragments.usage().fragments as u64;
        assert_eq!(received, forwarded + counted + held, "each frame is counted once");
        assert!(lab.live() <= CONNECTIONS, "{} connections", lab.live());
    }
    // A template goes after its last connection.
    for _ in 0..3 {
        lab.pass(FOREVER);
        lab.expire();
    }
    assert_eq!(lab.live(), 0, "connections that never end");
    assert_eq!(lab.fragments.usage(), Usage::default(), "fragments that wait forever");
    assert!(
        (1..=10).all(|id| lab.active_inactive(id) == (0, 0)),
        "connections are counted that there are not"
    );
    assert_eq!(
        sum(&lab, |its| its.connections_created.get()),
        sum(&lab, |its| its.connections_expired.get())
    );
}
