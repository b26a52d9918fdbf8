//! Frames seen on a wire: tcpdump writes them, the test reads along. Frames that an XDP program redirects are not seen by
//! a capture on that interface itself: there one sees what the kernel gets.

use crate::command::{Running, read_growing};
use crate::{Lab, until};
use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// A frame as captured.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When it was seen.
    pub at: SystemTime,
    /// Its bytes, cut at the capture's length.
    pub bytes: Vec<u8>,
    /// Its length on the wire.
    pub length: usize,
}

/// A TCP segment of a captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When it was seen.
    pub at: SystemTime,
    /// The next hop's MAC address.
    pub to_mac: [u8; 6],
    /// From whom.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Its sequence number.
    pub sequence: u32,
}

impl Captured {
    /// The TCP segment that it is.
    #[must_use]
    pub fn segment(&self) -> Option<Segment> {
        let packet = LaxSlicedPacket::from_ethernet(&self.bytes).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else { return None };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
        let (from, to): (IpAddr, IpAddr) = match packet.net? {
            LaxNetSlice::Ipv4(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        Some(Segment {
            at: self.at,
            to_mac: ethernet.destination(),
            source: SocketAddr::new(from, tcp.source_port()),
            destination: SocketAddr::new(to, tcp.destination_port()),
            sequence: tcp.sequence_number(),
        })
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    file: File,
    tcpdump: Running,
    _dir: tempfile::TempDir,
}

/// Bytes of a pcap file before its first record, and of a record before its frame.
const FILE_HEADER: u64 = 24;
const RECORD_HEADER: usize = 16;

impl Capture {
    /// Captures what matches tcpdump's `filter` on a role's interface, 256 bytes of each frame. Returns when it does.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab, role: &str, interface: &str, filter: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames.pcap");
        let path_text = path.to_str().unwrap();
        let tcpdump = lab.spawn(
            role,
            &[
                "tcpdump",
                "-Z",
                "root",
                "-n",
                "-p",
                "-U",
                "--immediate-mode",
                "-s",
                "256",
                "-B",
                "8192",
                "-i",
                interface,
                "-w",
                path_text,
                filter,
            ],
        );
        until("tcpdump listens", Duration::from_secs(10), || {
            tcpdump.stderr().contains("listening on") && path.metadata().is_ok_and(|m| m.len() >= FILE_HEADER)
        });
        Self { file: File::open(&path).unwrap(), tcpdump, _dir: dir }
    }

    /// Captures resets that come to the client from a VIP.
    #[track_caller]
    #[must_use]
    pub fn resets(lab: &Lab) -> Self {
        Self::resets_from(lab, &lab.vips())
    }

    /// Captures resets that come to the client from these VIPs.
    #[track_caller]
    #[must_use]
    pub fn resets_from(lab: &Lab, vips: &[IpAddr]) -> Self {
        let reset = |vip: &IpAddr| match vip {
            IpAddr::V4(vip) => format!("(src host {vip} and tcp[tcpflags] & tcp-rst != 0)"),
            IpAddr::V6(vip) => format!("(src host {vip} and ip6[6] == 6 and ip6[53] & 4 != 0)"),
        };
        let filter = vips.iter().map(reset).collect::<Vec<_>>().join(" or ");
        Self::start(lab, "client", "eth0", &filter)
    }

    /// What has been captured until now.
    #[track_caller]
    pub fn frames(&mut self) -> Vec<Captured> {
        assert!(!self.tcpdump.has_ended(), "tcpdump ended: {}", self.tcpdump.stderr());
        let bytes = read_growing(&mut self.file, FILE_HEADER);
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        // A record that is still being written is left for the next look.
        while rest.len() >= RECORD_HEADER {
            let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
            let (stored, length) = (word(8), word(12));
            let Some(frame) = rest.get(RECORD_HEADER..RECORD_HEADER + stored) else { break };
            let since_epoch = Duration::from_secs(word(0) as u64) + Duration::from_micros(word(4) as u64);
            let at = SystemTime::UNIX_EPOCH + since_epoch;
            frames.push(Captured { bytes: frame.to_vec(), length, at });
            rest = &rest[RECORD_HEADER + stored..];
        }
        frames
    }

    /// Waits for at least `count` frames that fulfil `wanted`.
    #[track_caller]
    pub fn wait(&mut self, what: &str, count: usize, wanted: impl Fn(&Captured) -> bool) -> Vec<Captured> {
        let mut seen = Vec::new();
        until(what, Duration::from_secs(5), || {
            seen = self.frames();
            seen.retain(&wanted);
            seen.len() >= count
        });
        seen
    }
}
