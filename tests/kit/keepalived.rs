//! Debian's keepalived, unmodified, under `xlvs wrap` in a director; and the VRRP adverts that it sends.
//!
//! Directors share /run: each keepalived has its pid files in the laboratory's directory.

use crate::command::Running;
use crate::daemon::list;
use crate::lab::xlvs;
use crate::{Captured, Daemon, Lab, until, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A running keepalived: the parent and its children, for checks and, where it is configured, for VRRP.
#[derive(Debug)]
pub struct Keepalived {
    running: Running,
    pid_files: [PathBuf; 3],
}

impl Keepalived {
    /// Starts it in a role's namespace with this configuration, against that role's daemon. Returns when all its processes run.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, role: &str, daemon: &Daemon<'_>, configuration: &str) -> Self {
        let file = |name: &str| lab.dir().join(format!("keepalived-{role}{name}"));
        std::fs::write(file(".conf"), configuration).unwrap();
        let pid_files = [".pid", "-checkers.pid", "-vrrp.pid"].map(file);
        // What a killed one left is not this one's.
        for old in &pid_files {
            let _ = std::fs::remove_file(old);
        }
        let mut command = lab.command(role, xlvs());
        command.args(["wrap", "--", "keepalived", "--dont-fork", "--log-console"]);
        command.arg("-f").arg(file(".conf"));
        for (option, pid_file) in ["-p", "-c", "-r"].iter().zip(&pid_files) {
            command.arg(option).arg(pid_file);
        }
        command.env("XLVS_SOCKET", daemon.socket());
        let mut keepalived = Self { running: Running::start(command), pid_files };
        until("keepalived's processes run", Duration::from_secs(10), || {
            assert!(!keepalived.running.has_ended(), "keepalived ended at its start: {}", keepalived.log());
            let wanted = ["virtual_server", "vrrp_instance"].map(|block| configuration.contains(block));
            let has = |(file, wanted): (&PathBuf, bool)| !wanted || read_pid(file).is_some();
            keepalived.pid_files[1..].iter().zip(wanted).all(has)
        });
        keepalived
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.stdout() + &self.running.stderr()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Kills all its processes at once, so that none of them can say goodbye: as a machine's sudden end would, but for
    /// the addresses, which stay.
    #[track_caller]
    pub fn kill(mut self) {
        // The parent first stands still: it would start a child anew, and its own end would have the children end in order.
        self.running.signal(Signal::SIGSTOP);
        let children: Vec<i32> = self.pid_files[1..].iter().filter_map(read_pid).collect();
        assert!(!children.is_empty(), "no pid in {:?}", self.pid_files);
        for pid in children {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        self.running.signal(Signal::SIGKILL);
        let _ = self.running.finish(Duration::from_secs(5));
    }

    /// Asks it to end, which it does in order.
    #[track_caller]
    pub fn stop(mut self) {
        self.running.signal(Signal::SIGTERM);
        let _ = self.running.finish(Duration::from_secs(10)).ok();
    }
}

/// Waits for VIPs at a director, served there and known to the client, which must have spoken to them before: the last moment
/// before they came, and when all that was so.
#[track_caller]
pub fn vips_move_to(
    lab: &Lab,
    daemon: &Daemon<'_>,
    role: &str,
    vips: &[IpAddr],
    limit: Duration,
) -> (SystemTime, SystemTime) {
    let mut before = SystemTime::now();
    until(&format!("the VIPs are at {role}"), limit, || {
        let now = SystemTime::now();
        let are_there = vips.iter().all(|vip| lab.has_address(role, *vip));
        if !are_there {
            before = now;
        }
        are_there
    });
    until("they are served there", Duration::from_secs(5), || {
        list(&daemon.status(), "services").iter().all(|service| service["served"] == true)
    });
    let mac = lab.fact(&format!("mac_{role}_eth0"));
    for vip in vips {
        within("the client has heard of it", Duration::from_secs(2), || {
            let neighbor = lab.exec("client", &["ip", "neigh", "show", "to", &vip.to_string()]).ok().stdout;
            if neighbor.contains(mac) { Ok(()) } else { Err(neighbor) }
        });
    }
    (before, SystemTime::now())
}

fn read_pid(file: &PathBuf) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A VRRP advert as captured.
#[derive(Clone, Copy, Debug)]
pub struct Advert {
    /// When.
    pub at: SystemTime,
    /// The director that sent it.
    pub from: Ipv4Addr,
    /// Its priority; 0 says that it leaves.
    pub priority: u8,
}

impl Advert {
    /// An advert (version 2 or 3, over IPv4) of a captured Ethernet frame.
    #[must_use]
    pub fn of(frame: &Captured) -> Option<Self> {
        const VRRP: u8 = 112;
        let packet = frame.bytes.get(14..)?;
        let header = usize::from(packet.first()? & 0xf) * 4;
        if frame.bytes[12..14] != [8, 0] || *packet.get(9)? != VRRP {
            return None;
        }
        let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        Some(Self { at: frame.at, from: from.into(), priority: *packet.get(header + 2)? })
    }
}
