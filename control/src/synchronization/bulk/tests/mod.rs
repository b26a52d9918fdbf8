//! Both sides against each other, and against peers and ways that do what they should not. Time stands still unless somebody waits for
//! it, but where the kernel's sockets are used.
#![allow(clippy::unwrap_used)]

mod flood;
mod handshake;
mod limits;
mod million;
mod peers;
mod refusal;
mod stream;
mod whole;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use xlvs_dataplane::connection::State;

use super::channel::Channel;
use super::frame::{Frame, Versioned, Welcome};
use super::*;
use crate::synchronization::entry::{Entry, Method};

/// As the kernel gives a duplex stream no address.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1000);
const SYNC_ID: u8 = 7;
/// What fits into a stream before who writes has to wait, in bytes.
const ROOM: usize = 64 << 10;

fn key(byte: u8) -> Key {
    Key::from(std::array::from_fn(|index| byte ^ index as u8))
}

/// A table that doesn't change.
struct Table(Vec<Entry>);

impl Source for Table {
    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Entry> + Send> {
        Box::new(self.0.clone().into_iter())
    }
}

fn server(entries: Vec<Entry>) -> Arc<Server> {
    Server::new(key(1), SYNC_ID, Instance::random(), ServerLimits::default(), Arc::new(Table(entries)))
}

fn client() -> Client {
    Client {
        peers: vec![PEER],
        key: key(1),
        sync_id: SYNC_ID,
        instance: Instance::random(),
        most_entries: u64::MAX,
        rounds: NonZeroU32::new(1),
    }
}

/// Has the server attend to one end of a stream.
async fn attend<S: AsyncRead + AsyncWrite + Unpin>(server: &Arc<Server>, stream: S) {
    server.admit(stream, PEER).await;
}

/// What the client says of this stream, and what it has delivered.
async fn fetch<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Client,
    stream: S,
) -> (Result<Summary, FetchError>, Vec<Entry>) {
    let (to, mut from) = mpsc::channel(1);
    let fetched = async {
        let to = to;
        client.fetch(stream, PEER, Instant::now(), &to, &watch::channel(Progress::Idle).0).await
    };
    let taken = async {
        let mut taken = Vec::new();
        while let Some(slice) = from.recv().await {
            taken.extend(slice);
        }
        taken
    };
    tokio::join!(fetched, taken)
}

/// Both sides over one stream.
async fn exchange(server: &Arc<Server>, client: &Client) -> (Result<Summary, FetchError>, Vec<Entry>) {
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let ((), came) = tokio::join!(attend(server, theirs), fetch(client, ours));
    came
}

/// The client's words, and that nothing was delivered.
fn told((result, delivered): (Result<Summary, FetchError>, Vec<Entry>)) -> String {
    assert_eq!(delivered, []);
    result.unwrap_err().to_string()
}

fn bytes(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    bytes
}

/// A server that has the key, after it has welcomed who asks.
async fn welcoming(stream: DuplexStream, count: u64) -> Channel<DuplexStream> {
    answering(stream, &bytes(&Frame::Welcome(Versioned::Ours(Welcome { sync_id: SYNC_ID, count })))).await
}

/// A server that has the key, after it has said this to who asks.
async fn answering(stream: DuplexStream, answer: &[u8]) -> Channel<DuplexStream> {
    let mut channel = Channel::accept(stream, &key(1)).await.unwrap();
    assert_eq!(channel.receive(IDLE_LIMIT).await.unwrap().unwrap()[0], 1, "a hello");
    channel.push(answer).unwrap();
    channel.flush(IDLE_LIMIT).await.unwrap();
    channel
}

fn entries(seed: u64, count: usize) -> Vec<Entry> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| entry(&mut random)).collect()
}

/// Any entry that a message can tell of.
fn entry(random: &mut StdRng) -> Entry {
    use State::*;
    let (protocol, states): (u8, &[State]) = [
        (6, &[None, Established, SynSent, SynRecv, FinWait, TimeWait, Close, CloseWait][..]),
        (17, &[Udp]),
        (
            132,
            &[
                SctpNone,
                SctpInit1,
                SctpInit,
                SctpCookieEchoed,
                SctpEstablished,
                SctpShutdownReceived,
                SctpClosed,
            ],
        ),
        (6, &[Template, TemplateAssured]),
        (0, &[Template, TemplateAssured]),
    ][random.random_range(0..5)];
    let state = *states.choose(random).unwrap();
    let is_v6 = random.random();
    let mut address = |port| -> SocketAddr {
        if is_v6 {
            (Ipv6Addr::from(random.random::<u128>()), port).into()
        } else {
            (Ipv4Addr::from(random.random::<u32>()), port).into()
        }
    };
    let client = address(if state.is_template() { 0 } else { 1234 });
    let (virtual_address, real) = (address(80), address(8080));
    let methods = [Method::Masquerade, Method::Local, Method::Tunnel, Method::DirectRoute, Method::Bypass];
    Entry {
        protocol,
        client,
        virtual_address,
        real,
        method: *methods.choose(random).unwrap(),
        state,
        is_inactive: state.is_template() || random.random(),
        mark: random.random(),
        timeout_s: random.random(),
    }
}

/// A connection for each number.
fn numbered(number: u32) -> Entry {
    let client = Ipv4Addr::from(0x0a00_0000 + (number >> 4));
    Entry {
        protocol: 6,
        client: (client, 1024 + (number & 0xf) as u16).into(),
        virtual_address: (Ipv4Addr::new(192, 0, 2, 80), 80).into(),
        real: (Ipv4Addr::new(198, 51, 100, (number % 200) as u8), 80).into(),
        method: Method::DirectRoute,
        state: State::Established,
        is_inactive: false,
        mark: 0,
        timeout_s: 900,
    }
}

/// What one who sits between the two makes of the server's frames: of each, from 0 (the handshake's) on, with its length in front.
/// False: that was the last.
trait Tamper: FnMut(usize, &mut Vec<u8>) -> bool {}
impl<F: FnMut(usize, &mut Vec<u8>) -> bool> Tamper for F {}

/// Hands frames on from one to the other.
async fn hand_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut tamper: impl Tamper) {
    for index in 0.. {
        let mut length = [0; 2];
        if from.read_exact(&mut length).await.is_err() {
            break;
        }
        let mut frame = length.to_vec();
        frame.resize(2 + usize::from(u16::from_be_bytes(length)), 0);
        from.read_exact(&mut frame[2..]).await.unwrap();
        let goes_on = tamper(index, &mut frame);
        if to.write_all(&frame).await.is_err() || !goes_on {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Both sides, and somebody between them.
async fn exchange_over(
    server: &Arc<Server>,
    client: &Client,
    to_server: impl Tamper,
    to_client: impl Tamper,
) -> (Result<Summary, FetchError>, Vec<Entry>) {
    let ((ours, here), (there, theirs)) = (tokio::io::duplex(ROOM), tokio::io::duplex(ROOM));
    let (from_client, into_client) = tokio::io::split(here);
    let (from_server, into_server) = tokio::io::split(there);
    let between = async {
        tokio::join!(
            hand_on(from_client, into_server, to_server),
            hand_on(from_server, into_client, to_client)
        )
    };
    let (_, (), came) = tokio::join!(between, attend(server, theirs), fetch(client, ours));
    came
}
