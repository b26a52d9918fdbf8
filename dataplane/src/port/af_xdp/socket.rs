//! One AF_XDP socket: the four rings of one queue of one interface, and how many frames the kernel has on them.
//!
//! Invariants: `filled` and `sending` count the frames that this socket's rings hold, on the kernel's side or not yet taken
//! back; each stays at or below `share`, so there is always room on the fill and the completion ring.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::xdp_statistics;
use rustix::net::{RecvFlags, SendFlags};
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

use super::config::{PortConfig, PortInterface};
use super::error::{AfXdpError, os_error};
use super::umem::PacketMemory;
use crate::port::PortCounters;

/// How long a queue may be busy, as it is for a moment after its owner died.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Ethernet header and two VLAN tags.
const LINK_HEADER: u32 = 22;
/// What the kernel keeps free before a packet in its frame.
const HEADROOM: u32 = 256;
// Socket option of AF_XDP, kernel ABI since 6.17: how many frames one send() may send in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Whether packets of this MTU fit a UMEM frame of this size, so that a socket needs no multi-buffer for them.
#[must_use]
pub const fn fits_one_frame(frame_size: u32, mtu: u32) -> bool {
    mtu.saturating_add(LINK_HEADER) <= frame_size - HEADROOM
}

/// What became of the frames on the transmit ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kick {
    /// The kernel has them, or can't have them before something changes (the link is down).
    Done,
    /// The kernel wants to be asked again soon.
    Again,
}

pub(super) struct QueueSocket {
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    ring_size: u32,
    share: usize,
    filled: usize,
    sending: usize,
    completed: u64,
    gone: bool,
    pub(super) zero_copy: bool,
    pub(super) multi_buffer: bool,
}

/// One way to bind.
#[derive(Clone, Copy)]
struct Manner {
    zero_copy: bool,
    multi_buffer: bool,
}

impl QueueSocket {
    /// Opens the socket: zero-copy if the driver can, else by copying. Waits for a queue in use as long as `patience`.
    pub(super) fn open(
        config: &PortConfig,
        interface: &PortInterface,
        memory: &PacketMemory,
        patience: Duration,
    ) -> Result<Self, AfXdpError> {
        let deadline = Instant::now() + patience;
        let fits = fits_one_frame(config.frame_size, interface.mtu);
        let manner = |zero_copy, multi_buffer| Manner { zero_copy, multi_buffer };
        let manners = [
            (true, manner(true, true)),
            // Without multi-buffer larger frames are lost.
            (fits, manner(true, false)),
            (true, manner(false, true)),
            (fits, manner(false, false)),
        ];
        let mut last = None;
        for (_, manner) in manners.into_iter().filter(|(usable, _)| *usable) {
            loop {
                let code = match Self::bind(config, interface, memory, manner) {
                    Ok(socket) => return Ok(socket),
                    Err(error) => os_error(error.as_ref()).ok_or(error),
                };
                match code {
                    Ok(libc::EBUSY) if Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
                    Ok(code @ (libc::EPERM | libc::ENODEV | libc::EBUSY | libc::EAFNOSUPPORT)) => {
                        return Err(bind_error(config, interface, code));
                    }
                    Ok(code) => {
                        last = Some(code);
                        break;
                    }
                    Err(error) => {
                        return Err(AfXdpError::failed(
                            format!("binding to {} queue {}", interface.name, config.queue),
                            error,
                        ));
                    }
                }
            }
        }
        Err(bind_error(config, interface, last.unwrap_or(libc::EINVAL)))
    }

    fn bind(
        config: &PortConfig,
        interface: &PortInterface,
        memory: &PacketMemory,
        manner: Manner,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let ring = QueueSize::new(config.ring_size)?;
        let mut flags = BindFlags::XDP_USE_NEED_WAKEUP;
        flags |= if manner.zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
        if manner.multi_buffer {
            flags |= BindFlags::XDP_USE_SG;
        }
        let socket_config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(flags)
            .build();
        let name: Interface = interface.name.parse()?;
        // SAFETY: libxdp loads and detaches no program (INHIBIT_PROG_LOAD), which is what it asks for.
        let (transmit, receive, rings) =
            unsafe { Socket::new(socket_config, memory.umem(), &name, config.queue) }?;
        let (fill, completion) =
            rings.ok_or_else(|| io::Error::other("the interface is named twice in this port"))?;
        let socket = Self {
            transmit,
            receive,
            fill,
            completion,
            ring_size: config.ring_size,
            share: config.share() as usize,
            filled: 0,
            sending: 0,
            completed: 0,
            gone: false,
            zero_copy: manner.zero_copy,
            multi_buffer: manner.multi_buffer,
        };
        socket.close_on_exec();
        socket.raise_budget();
        Ok(socket)
    }

    /// A program that this process starts must not have the socket: the queue would stay in use for as long as it runs.
    fn close_on_exec(&self) {
        // Refused for none that is open.
        let _ = rustix::io::fcntl_setfd(self.fd(), rustix::io::FdFlags::CLOEXEC);
    }

    /// Lets one system call send a whole ring in copy mode. Older kernels have no such option: then it takes several.
    fn raise_budget(&self) {
        let budget = self.ring_size;
        // SAFETY: the kernel reads the four bytes of `budget`, which lives through the call.
        unsafe {
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the queues keep the socket open, and they live as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    pub(super) fn sending(&self) -> usize {
        self.sending
    }

    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether the interface has been deleted: the socket will never send or receive again.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Takes received buffers off the ring.
    pub(super) fn receive(&mut self, buffers: &mut [FrameDesc]) -> usize {
        // SAFETY: the ring was made with the memory that all of the port's sockets share.
        let count = unsafe { self.receive.consume(buffers) };
        self.filled -= count.min(self.filled);
        count
    }

    /// Puts the buffers of one frame on the transmit ring, all or none.
    pub(super) fn transmit(&mut self, buffers: &[FrameDesc]) -> bool {
        if self.sending + buffers.len() > self.share {
            return false;
        }
        // SAFETY: the buffers are of the sockets' common memory; the caller gives them up if this returns true.
        let count = unsafe { self.transmit.produce(buffers) };
        self.sending += count;
        count == buffers.len()
    }

    /// Tells the kernel to send what is on the transmit ring.
    pub(super) fn kick(&mut self) -> Kick {
        if self.gone || self.sending == 0 || self.transmit.nb_free_exact() == self.ring_size {
            return Kick::Done;
        }
        if !self.transmit.needs_wakeup() {
            return Kick::Done;
        }
        match rustix::net::send(self.fd(), &[], SendFlags::DONTWAIT) {
            // In copy mode a call sends no more than its budget.
            Ok(_) if self.transmit.nb_free_exact() == self.ring_size || self.zero_copy => Kick::Done,
            Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Kick::Again,
            Err(Errno::NETDOWN) => Kick::Done,
            Err(_) => {
                self.gone = true;
                Kick::Done
            }
        }
    }

    /// Moves frames that were sent to the free pool.
    pub(super) fn complete(&mut self, scratch: &mut [FrameDesc], memory: &mut PacketMemory) {
        while self.sending > 0 {
            // SAFETY: the ring was made with the memory that all of the port's sockets share.
            let count = unsafe { self.completion.consume(scratch) };
            memory.free().extend_from_slice(&scratch[..count]);
            self.sending -= count.min(self.sending);
            self.completed += count as u64;
            if count < scratch.len() {
                break;
            }
        }
    }

    /// Fills the fill ring up to the socket's share, as far as there are free frames.
    pub(super) fn refill(&mut self, memory: &mut PacketMemory) {
        let free = memory.free();
        let wanted = (self.share - self.filled.min(self.share)).min(free.len());
        if wanted == 0 || self.gone {
            return;
        }
        let rest = free.len() - wanted;
        // SAFETY: free frames are of the sockets' common memory and on no ring; those that are taken leave the pool.
        let count = unsafe { self.fill.produce(&free[rest..]) };
        if count == wanted {
            free.truncate(rest);
            self.filled += count;
        }
        if self.fill.needs_wakeup() {
            // Drivers in zero-copy mode may sleep while they have no frames to fill. That it would block is the usual answer.
            let _ = rustix::net::recv(self.fd(), &mut [0; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// What the kernel has counted of this socket.
    pub(super) fn lost(&self) -> PortCounters {
        lost(self.fd(), self.zero_copy)
    }
}

/// What the kernel has counted of a socket; zeros if it tells nothing.
pub(super) fn lost(socket: BorrowedFd<'_>, zero_copy: bool) -> PortCounters {
    let Ok(kernel) = xdp_statistics(socket) else { return PortCounters::default() };
    let fill_ring_empty = kernel.rx_fill_ring_empty_descs.unwrap_or_default();
    // Where it copies, the kernel counts a frame without a buffer as dropped, too.
    let twice = if zero_copy { 0 } else { fill_ring_empty };
    PortCounters {
        receive_ring_full: kernel.rx_ring_full.unwrap_or_default(),
        fill_ring_empty,
        receive_dropped: kernel.rx_dropped.saturating_sub(twice),
        invalid_descriptors: kernel.rx_invalid_descs + kernel.tx_invalid_descs,
        ..PortCounters::default()
    }
}

fn bind_error(config: &PortConfig, interface: &PortInterface, code: i32) -> AfXdpError {
    let cause = io::Error::from_raw_os_error(code);
    let name = interface.name.clone();
    match code {
        libc::EPERM => AfXdpError::MissingCapability {
            doing: format!("binding to {name} queue {}", config.queue),
            capabilities: "CAP_NET_RAW and CAP_NET_ADMIN",
            cause,
        },
        libc::ENODEV | libc::ENXIO => AfXdpError::NoSuchInterface { interface: name },
        libc::EBUSY => AfXdpError::QueueBusy { interface: name, queue: config.queue },
        libc::EINVAL => AfXdpError::NoSuchQueue { interface: name, queue: config.queue },
        libc::EAFNOSUPPORT => AfXdpError::Unsupported {
            doing: "open AF_XDP sockets".to_owned(),
            option: "CONFIG_XDP_SOCKETS=y",
            cause,
        },
        libc::EOPNOTSUPP => AfXdpError::Unsupported {
            doing: format!("receive frames of MTU {} from {name} in several buffers", interface.mtu),
            option: "Linux 6.6, or a smaller MTU",
            cause,
        },
        _ => AfXdpError::failed(format!("binding to {name} queue {}", config.queue), cause),
    }
}
