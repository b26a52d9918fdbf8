//! The worker between a port in memory and its director: batches, full rings, commands through the handle with the real
//! thread. No frame may get lost on any way: each is sent, or given back and counted.
#![allow(clippy::unwrap_used)]

mod memory;

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memory::frame::{forwarded, other, tcp, udp, with};
use memory::lab::{Lab, moved, moves, server_mac, v4, v6};
use xlvs_dataplane::connection::Timeouts;
use xlvs_dataplane::flow::Protocol::{Tcp, Udp};
use xlvs_dataplane::port::host::HostPort;
use xlvs_dataplane::port::memory::{MemoryFrame, MemoryPort};
use xlvs_dataplane::port::{BATCH, InterfaceSlot, Port, PortCounters, TransmitRefused};
use xlvs_dataplane::verdict::DropReason;
use xlvs_dataplane::worker::{COMMANDS, Command, IdlePolicy, NotSent, Worker, WorkerHandle};

const EGRESS: InterfaceSlot = InterfaceSlot(0);

fn lab() -> Lab {
    let mut lab = Lab::new(1, 4096);
    lab.publish(
        &[(v4(Tcp, 80), &[(2, 1), (1, 1)]), (v4(Udp, 53), &[(1, 1)]), (v6(Tcp, 80), &[(10, 1)])],
        &[],
    );
    lab
}

/// The lab's only director at work over `port`.
fn worker<P: Port>(lab: &mut Lab, port: P) -> (Worker<P>, WorkerHandle) {
    Worker::new(port, lab.directors.pop().unwrap(), IdlePolicy::Adaptive).unwrap()
}

#[test]
fn a_batch_of_mixed_frames_is_sorted_out() {
    let mut lab = lab();
    let before = lab.counts();
    let frames = [
        tcp("S").build(),
        other(1).build(),
        tcp("S").client_port(1).build(),
        tcp("S").v6().build(),
        tcp("A").client_port(9).build(),
        udp().build(),
        vec![0; 5],
        tcp("A").payload(100).build(),
    ];
    let mut port = MemoryPort::default();
    for frame in &frames {
        port.arrive(EGRESS, frame);
    }
    let now = lab.now;
    let (mut worker, _handle) = worker(&mut lab, port);
    assert_eq!(worker.forward_batch(now), frames.len());
    assert_eq!(worker.forward_batch(now), 0);
    let port = worker.port_mut();
    let sent =
        |frame: usize, id| (InterfaceSlot(u8::from(id == 10)), forwarded(&frames[frame], server_mac(id)));
    // The segment without a connection is answered: a reset.
    let answer = port.transmitted.remove(3).1;
    assert_eq!((&answer[..6], answer[14 + 20 + 13]), (&frames[4][6..12], 0x04));
    assert_eq!(port.transmitted, [sent(0, 2), sent(2, 1), sent(3, 10), sent(5, 1), sent(7, 2)]);
    assert_eq!(port.lent, 0);
    let mut moving = moved(&before, &lab.counts());
    moving.retain(|name, _| !name.starts_with(|first: char| first.is_ascii_digit()));
    let expected = moves(&[
        ("received", 8),
        ("forwarded", 5),
        ("created", 4),
        ("live", 4),
        ("drop icmp", 1),
        ("drop no_connection", 1),
        ("drop truncated", 1),
    ]);
    assert_eq!(moving, expected);
}

#[test]
fn more_than_a_batch_takes_several_rounds_and_keeps_its_order() {
    let mut lab = lab();
    let mut port = MemoryPort::default();
    let frames: Vec<_> =
        (0..BATCH as u16 * 2 + 1).map(|flow| udp().client_port(1000 + flow).build()).collect();
    for frame in &frames {
        port.arrive(EGRESS, frame);
    }
    let now = lab.now;
    let (mut worker, _handle) = worker(&mut lab, port);
    assert_eq!([0; 4].map(|_| worker.forward_batch(now)), [BATCH, BATCH, 1, 0]);
    let expected: Vec<_> = frames.iter().map(|frame| (EGRESS, forwarded(frame, server_mac(1)))).collect();
    assert!(worker.port_mut().transmitted == expected, "frames are missing or out of order");
}

#[test]
fn a_full_transmit_ring_costs_what_does_not_fit_and_nothing_more() {
    let mut lab = lab();
    let mut port = MemoryPort::default();
    port.transmit_room = Some(10);
    for flow in 0..30 {
        port.arrive(EGRESS, &udp().client_port(1000 + flow).build());
        port.arrive(EGRESS, &other(47).build());
    }
    let now = lab.now;
    let (mut worker, _handle) = worker(&mut lab, port);
    assert_eq!(worker.forward_batch(now), 60);
    let counters = Arc::clone(&lab.counters[0]);
    assert_eq!(counters.forwarded.get(), 10);
    assert_eq!(counters.dropped(DropReason::TransmitRingFull), 20);
    assert_eq!(counters.dropped(DropReason::OtherProtocol), 30);
    assert_eq!(counters.received.get(), counters.forwarded.get() + counters.dropped_in_all());
    let port = worker.port_mut();
    assert_eq!((port.lent, port.transmitted.len(), port.counters().transmit_ring_full), (0, 10, 20));
    // Once there is room again, the flows go on.
    port.transmitted.clear();
    port.arrive(EGRESS, &udp().client_port(1029).build());
    worker.forward_batch(now);
    assert_eq!(worker.port_mut().transmitted.len(), 1);
}

#[test]
fn fragments_are_given_back_and_sent_when_their_datagram_is_complete() {
    let mut lab = lab();
    let part = |offset, more| udp().payload(56).fragment(offset, more);
    let first = with(&part(0, true), 24, &136_u16.to_be_bytes());
    let last = part(64, false).payload(64).build();
    let mut port = MemoryPort::default();
    port.arrive(EGRESS, &last);
    port.arrive(EGRESS, &first);
    // Once more, when there is room for a frame only.
    port.arrive(EGRESS, &first);
    let (now, counters) = (lab.now, Arc::clone(&lab.counters[0]));
    let (mut worker, _handle) = worker(&mut lab, port);
    worker.forward_batch(now);
    let port = worker.port_mut();
    let sent = [&first, &last].map(|frame| (EGRESS, forwarded(frame, server_mac(1))));
    assert_eq!((port.transmitted.as_slice(), port.lent), (&sent[..], 0));
    assert_eq!((counters.forwarded.get(), counters.fragments_held.get()), (2, 2));

    port.transmit_room = Some(3);
    port.arrive(EGRESS, &last);
    worker.forward_batch(now);
    let port = worker.port_mut();
    assert_eq!((port.transmitted.len(), port.lent), (3, 0));
    assert_eq!((counters.forwarded.get(), counters.dropped(DropReason::TransmitRingFull)), (3, 1));
}

/// A port whose frames come from another thread and that has no socket on interface 1.
struct FedPort {
    memory: MemoryPort,
    feed: mpsc::Receiver<Vec<u8>>,
    sent: mpsc::Sender<Vec<u8>>,
}

impl Port for FedPort {
    type Frame = MemoryFrame;

    fn receive(&mut self, frames: &mut Vec<MemoryFrame>) -> usize {
        for bytes in self.feed.try_iter().take(BATCH) {
            self.memory.arrive(EGRESS, &bytes);
        }
        self.memory.receive(frames)
    }
    fn ingress(&self, frame: &MemoryFrame) -> InterfaceSlot {
        self.memory.ingress(frame)
    }
    fn wire_len(&self, frame: &MemoryFrame) -> usize {
        self.memory.wire_len(frame)
    }
    fn head_mut<'a>(&'a mut self, frame: &'a mut MemoryFrame) -> &'a mut [u8] {
        self.memory.head_mut(frame)
    }
    fn copy(&mut self, frame: &mut MemoryFrame, bytes: &mut Vec<u8>) {
        self.memory.copy(frame, bytes);
    }
    fn transmit(&mut self, frame: MemoryFrame, egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        if egress != EGRESS {
            self.memory.release(frame);
            return Err(TransmitRefused::NoSuchInterface);
        }
        self.memory.transmit(frame, egress)
    }
    fn send(&mut self, bytes: &[u8], egress: InterfaceSlot) -> Result<(), TransmitRefused> {
        if egress != EGRESS {
            return Err(TransmitRefused::NoSuchInterface);
        }
        self.memory.send(bytes, egress)
    }
    fn release(&mut self, frame: MemoryFrame) {
        self.memory.release(frame);
    }
    fn flush(&mut self) {
        for (_, bytes) in self.memory.transmitted.drain(..) {
            let _ = self.sent.send(bytes);
        }
    }
    fn wait(&mut self, waker: BorrowedFd<'_>, timeout: Duration) {
        // What is fed doesn't wake it, so that it must not sleep: a port may always return early.
        self.memory.wait(waker, timeout);
        std::thread::yield_now();
    }
    fn counters(&self) -> PortCounters {
        self.memory.counters()
    }
}

/// A worker on its thread.
struct Running {
    feed: mpsc::Sender<Vec<u8>>,
    sent: mpsc::Receiver<Vec<u8>>,
    handle: WorkerHandle,
    thread: JoinHandle<FedPort>,
}

fn run(lab: &mut Lab) -> Running {
    let (worker, handle, feed, sent) = stopped(lab);
    Running { feed, sent, handle, thread: std::thread::spawn(move || worker.run()) }
}

type Stopped = (Worker<FedPort>, WorkerHandle, mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>);

fn stopped(lab: &mut Lab) -> Stopped {
    let ((feed, receiver), (sender, sent)) = (mpsc::channel(), mpsc::channel());
    let (worker, handle) =
        worker(lab, FedPort { memory: MemoryPort::default(), feed: receiver, sent: sender });
    (worker, handle, feed, sent)
}

const DEADLINE: Duration = Duration::from_secs(20);

fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn an_installed_table_serves_the_next_frames_and_the_old_one_is_freed_by_its_sender() {
    let mut lab = lab();
    let running = run(&mut lab);
    let send = |flow: u16| {
        running.feed.send(udp().client_port(flow).build()).unwrap();
        let out = running.sent.recv_timeout(DEADLINE).unwrap();
        u32::from(out[5])
    };
    assert_eq!(send(1), 1);
    let old = Arc::downgrade(&std::mem::take(&mut lab.services));
    let table = Arc::new(lab.table(&[(v4(Udp, 53), &[(2, 1), (1, 1)])], &[]));
    running.handle.send(Command::Install(Arc::clone(&table), None)).unwrap();
    until("the new epoch", || lab.counters[0].epoch.get() == table.epoch);
    assert_eq!((send(2), send(1)), (2, 1), "a new flow by the new table, a known one to where it was");
    let again = Arc::new(lab.table(&[(v4(Udp, 53), &[(2, 1), (1, 1)])], &[]));
    running.handle.send(Command::Install(again, None)).unwrap();
    assert!(old.upgrade().is_none(), "the worker's first table was not freed when its sender came again");

    running.handle.send(Command::Stop).unwrap();
    let port = running.thread.join().unwrap();
    assert_eq!(port.memory.lent, 0);
    assert_eq!(lab.counters[0].forwarded.get(), 3);
}

#[test]
fn frames_for_an_interface_without_a_socket_are_counted() {
    let mut lab = lab();
    let running = run(&mut lab);
    running.feed.send(tcp("S").v6().build()).unwrap();
    let counters = Arc::clone(&lab.counters[0]);
    until("the drop", || counters.dropped(DropReason::NoEgressSocket) == 1);
    let part = |offset, more| tcp("A").v6().payload(44).fragment(offset, more).build();
    running.feed.send(part(0, true)).unwrap();
    running.feed.send(part(64, false)).unwrap();
    until("the fragments' drop", || counters.dropped(DropReason::NoEgressSocket) == 3);
    assert_eq!((counters.received.get(), counters.forwarded.get()), (3, 0));
    running.handle.send(Command::Stop).unwrap();
    assert_eq!(running.thread.join().unwrap().memory.lent, 0);
}

/// The device is a pair of datagram sockets here: what is written is read from the other, as much as it has room for.
#[test]
fn packets_for_the_host_go_to_its_device_and_the_frames_are_given_back() {
    let mut lab = lab();
    lab.hosts.insert(1);
    let plan = [(v4(Udp, 53), &[(1, 1)][..])];
    lab.publish(&plan, &[]);
    let counters = Arc::clone(&lab.counters[0]);
    let table = Arc::new(lab.table(&plan, &[]));
    let running = run(&mut lab);
    let frame = udp().payload(9).tags(&[0x8100]).build();
    let arrive = |count: u64| {
        let after = counters.received.get() + count;
        (0..count).for_each(|_| running.feed.send(frame.clone()).unwrap());
        until("the frames", || counters.to_host.get() + counters.dropped_in_all() == after);
        let dropped = |reason| counters.dropped(reason);
        (counters.to_host.get(), dropped(DropReason::HostFull), dropped(DropReason::NoHostPath))
    };
    assert_eq!(arrive(1), (0, 0, 1), "no device yet");

    let (device, host) = UnixDatagram::pair().unwrap();
    for socket in [&device, &host] {
        socket.set_nonblocking(true).unwrap();
    }
    let epoch = table.epoch;
    running.handle.send(Command::Install(table, Some(HostPort::new(device.into())))).unwrap();
    until("the device", || counters.epoch.get() == epoch);
    assert_eq!(arrive(2), (2, 0, 1));
    let mut buffer = [0; 2048];
    for _ in 0..2 {
        let len = host.recv(&mut buffer).unwrap();
        // Behind Ethernet and the tag.
        assert_eq!(&buffer[..len], &frame[18..]);
    }
    let (taken, refused, _) = arrive(5000);
    assert!(taken > 2 && refused > 0 && taken + refused == 5002, "{taken} taken, {refused} refused");
    while host.recv(&mut buffer).is_ok() {}
    assert_eq!(arrive(1), (taken + 1, refused, 1), "there is room again");
    drop(host);
    assert_eq!(arrive(1), (taken + 1, refused, 2), "the device is gone");
    running.handle.send(Command::Stop).unwrap();
    assert_eq!(running.thread.join().unwrap().memory.lent, 0);
    assert!(running.sent.try_recv().is_err(), "a frame went out by an interface");
}

#[test]
fn connections_expire_while_no_frame_comes() {
    let mut lab = lab();
    let running = run(&mut lab);
    // The worker reads the machine's clock: a second is the shortest timeout that can be set.
    let mut table = lab.table(&[(v4(Udp, 53), &[(1, 1)])], &[]);
    table.set_timeouts(Timeouts { udp: Duration::from_secs(1), ..Timeouts::default() });
    let epoch = table.epoch;
    running.handle.send(Command::Install(Arc::new(table), None)).unwrap();
    until("the new epoch", || lab.counters[0].epoch.get() == epoch);
    running.feed.send(udp().build()).unwrap();
    running.sent.recv_timeout(DEADLINE).unwrap();
    assert_eq!((lab.live(), lab.active_inactive(1)), (1, (0, 1)));
    until("expiry", || lab.live() == 0);
    until("the count", || lab.active_inactive(1) == (0, 0));
    assert_eq!(lab.counters[0].connections_expired.get(), 1);
    running.handle.send(Command::Stop).unwrap();
    running.thread.join().unwrap();
}

#[test]
fn a_worker_ends_with_its_control_thread() {
    let mut lab = lab();
    let Running { handle, thread, .. } = run(&mut lab);
    drop(handle);
    until("the end", || thread.is_finished());
    assert_eq!(thread.join().unwrap().memory.lent, 0);
}

#[test]
fn commands_that_cannot_be_taken_come_back() {
    let mut lab = lab();
    let (worker, handle, _feed, _sent) = stopped(&mut lab);
    for _ in 0..COMMANDS {
        handle.send(Command::Install(Arc::clone(&lab.services), None)).unwrap();
    }
    assert!(matches!(handle.send(Command::Stop), Err(NotSent::Full(Command::Stop))));
    let thread = std::thread::spawn(move || worker.run());
    until("room for a command", || handle.send(Command::Stop).is_ok());
    drop(thread.join().unwrap());
    assert!(matches!(handle.send(Command::Stop), Err(NotSent::Gone(Command::Stop))));
}
