//! The daemon's end of the control API. Each client has its own task, so that one that stalls or sends rubbish harms only
//! itself: at most [`MAX_CLIENTS`] at once (more wait to be accepted), [`SEND_LIMIT`] for the client to take an answer. Users other
//! than root and the daemon's own have [`MAX_GUESTS`] places of their own and are turned away when these are taken, so that they
//! can't keep root from its tools.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{NLM_F_MULTIPART, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use rustix::io::Errno;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_seqpacket::{UCred, UnixSeqpacket, UnixSeqpacketListener};

use super::acknowledge::{acknowledge, done};
use super::permission::Permissions;
use super::{
    FAMILY_ID, MAX_DATAGRAM, MAX_REQUEST_DATAGRAM, MarkEntry, Setting, TEXT_BYTES, Xlvs, ipvs, takeover_asked,
};
use crate::registry::MarkSpec;
use crate::status::Status;
use crate::takeover::{self, Answer, Heir, Hello, Place};

const MAX_CLIENTS: usize = 64;
/// Clients of other users at once.
const MAX_GUESTS: usize = 32;
/// Requests that may wait for the control thread.
const MAX_REQUESTS: usize = 1024;
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// What a client asks of the control thread.
#[derive(Debug)]
pub(crate) enum Request {
    /// The status, to be answered there.
    Status(oneshot::Sender<Box<Status>>),
    /// All settings.
    Settings(oneshot::Sender<Vec<Setting>>),
    /// A setting's new value.
    SetSetting(String, u32, oneshot::Sender<Result<(), Refusal>>),
    /// All mark rules, in their order.
    Marks(oneshot::Sender<Vec<MarkEntry>>),
    /// One more mark rule.
    AddMark(MarkSpec, oneshot::Sender<Result<(), Refusal>>),
    /// One mark rule less.
    DeleteMark(MarkSpec, oneshot::Sender<Result<(), Refusal>>),
    /// A message of IPVS's; the answers need the table no more.
    Ipvs(Vec<u8>, ipvs::Peer, oneshot::Sender<ipvs::Replies>),
    /// The text of a file that IPVS has in `/proc/net`, if there is such a one.
    Proc(String, oneshot::Sender<Option<String>>),
    /// Whether a process may take over.
    TakeOver(Hello, oneshot::Sender<Answer>),
    /// A process takes over.
    HandOver(Box<Heir>),
    /// A process that asked to take over will not: its id, and why.
    NotTakenOver(u32, String),
}

/// Why the control thread did not make a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// As the kernel would say it.
    pub(crate) errno: Errno,
    /// In plain words.
    pub(crate) message: String,
}

/// The listening socket; its file is removed when this is dropped, if it is this director's.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    owned: bool,
    listener: OwnedFd,
    permissions: Permissions,
    accepting: Option<JoinHandle<()>>,
    /// Of the process that takes over.
    succession: Place,
    sender: mpsc::Sender<Request>,
    /// What clients ask.
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// Why the socket can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another daemon answers there.
    #[error(
        "another daemon answers on {path}: end it first, or give this one a socket of its own with --socket (and its own \
         interfaces)"
    )]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("the socket {path} can't be made: {source}; --socket gives another path")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
}

impl Server {
    /// Listens on `path`, taking over the file of a daemon that is gone, and serves those who may be served.
    ///
    /// # Errors
    /// When another daemon listens there, or the file can't be made.
    pub(crate) async fn open(path: &Path, permissions: Permissions) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        if UnixSeqpacket::connect(path).await.is_ok() {
            return Err(SocketError::InUse { path: path.to_owned() });
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let former = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixSeqpacketListener::bind(path);
        rustix::process::umask(former);
        let listener = bound.map_err(failed)?;
        permissions.apply(path).map_err(failed)?;
        let mut server = Self::on(path, listener.into(), permissions);
        server.owned = true;
        server.resume().map_err(failed)?;
        Ok(server)
    }

    /// Has a predecessor's socket, which stays the predecessor's until [`Server::own`]: nobody is served before.
    pub(crate) fn inherit(path: &Path, listener: OwnedFd, permissions: Permissions) -> Self {
        Self::on(path, listener, permissions)
    }

    fn on(path: &Path, listener: OwnedFd, permissions: Permissions) -> Self {
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let (path, succession) = (path.to_owned(), Place::default());
        Self { path, owned: false, listener, permissions, accepting: None, succession, sender, requests }
    }

    /// The socket, for a successor.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts no client from here on: they wait.
    pub(crate) fn pause(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    /// Accepts clients again.
    ///
    /// # Errors
    /// When the socket can't be watched.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        let listener = UnixSeqpacketListener::try_from(self.listener.try_clone()?)?;
        let accepting = accept(listener, self.permissions, self.sender.clone(), self.succession.clone());
        self.accepting = Some(tokio::spawn(accepting));
        Ok(())
    }

    /// The socket and its file are this director's from here on.
    ///
    /// # Errors
    /// When the socket can't be watched.
    pub(crate) fn own(&mut self) -> io::Result<()> {
        self.owned = true;
        if let Err(error) = self.permissions.apply(&self.path) {
            tracing::warn!("who may use {} stays as it was: {error}", self.path.display());
        }
        self.resume()
    }

    /// The socket's file is a successor's from here on.
    pub(crate) fn leave(&mut self) {
        self.owned = false;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.owned {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn accept(
    mut listener: UnixSeqpacketListener,
    permissions: Permissions,
    requests: mpsc::Sender<Request>,
    succession: Place,
) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let guests = Arc::new(Semaphore::new(MAX_GUESTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = listener.accept().await.and_then(|client| Ok((client.peer_cred()?, client)));
        match accepted {
            Ok((user, client)) if Permissions::is_owner(&user) => {
                let (requests, succession) = (requests.clone(), succession.clone());
                tokio::spawn(async move {
                    let asked = serve(&client, ipvs::Access::Full, &requests).await;
                    drop(place);
                    if let Some(hello) = asked {
                        takeover::attend(client, hello, &succession, &requests).await;
                    }
                });
            }
            Ok((user, client)) => match Arc::clone(&guests).try_acquire_owned() {
                Ok(place) => {
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        receive_guest(&client, user, permissions, &requests).await;
                        drop(place);
                    });
                }
                Err(_) => drop(client),
            },
            Err(error) => {
                tracing::warn!("a client of the control socket could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves a user other than the daemon's, if its groups may be served.
async fn receive_guest(
    client: &UnixSeqpacket,
    user: UCred,
    permissions: Permissions,
    requests: &mpsc::Sender<Request>,
) {
    // The group database may be far away.
    let allowed = tokio::task::spawn_blocking(move || permissions.of_user(&user)).await;
    match allowed.ok().flatten() {
        Some(access) => {
            if serve(client, access, requests).await.is_some() {
                takeover::turn_away(client).await;
            }
        }
        None => turn_away(client).await,
    }
}

/// Answers a client's first request with a refusal.
async fn turn_away(client: &UnixSeqpacket) {
    const WHY: &str = "this user is in none of the groups that may use the socket (director.socket_group, director.socket_read_group)";
    let mut buffer = vec![0; MAX_DATAGRAM];
    let Ok(Ok(received)) = tokio::time::timeout(SEND_LIMIT, client.recv(&mut buffer)).await else { return };
    let nobody = ipvs::Peer { port: 0, access: ipvs::Access::ReadOnly };
    let request = &buffer[..received.bytes_read()];
    // Who has hung up meanwhile needs no answer.
    let _ = match NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(request) {
        Ok(message) if message.header.message_type == FAMILY_ID => {
            send(client, nobody, [acknowledge(message.header, Some((Errno::ACCESS, WHY)))]).await
        }
        _ => send(client, nobody, ipvs::refuse(request, nobody, Errno::ACCESS)).await,
    };
}

/// Serves a client until it hangs up, or takes too long to take an answer; or until it asks to take over, which is for the caller to
/// answer.
async fn serve(
    client: &UnixSeqpacket,
    access: ipvs::Access,
    requests: &mpsc::Sender<Request>,
) -> Option<Hello> {
    let mut buffer = vec![0; MAX_REQUEST_DATAGRAM];
    let mut peer = ipvs::Peer { port: 0, access };
    loop {
        let Ok(received) = client.recv(&mut buffer).await else { return None };
        let datagram = &buffer[..received.bytes_read()];
        if datagram.is_empty() {
            return None;
        }
        if received.truncated() {
            if send(client, peer, [error(NetlinkHeader::default(), Errno::MSGSIZE)]).await.is_err() {
                return None;
            }
            continue;
        }
        if let Some(hello) = takeover_asked(datagram) {
            return Some(hello);
        }
        if respond(datagram, client, requests, &mut peer).await.is_err() {
            return None;
        }
    }
}

/// Answers a datagram.
pub(crate) async fn respond(
    datagram: &[u8],
    client: &impl Client,
    requests: &mpsc::Sender<Request>,
    peer: &mut ipvs::Peer,
) -> Result<(), Lost> {
    // Lists one after the other: what a client can make the daemon hold is one. Changes without waiting for each other, so
    // that one write to the disk keeps all of a datagram's.
    let mut waiting = Vec::new();
    for message in ipvs::messages(datagram) {
        if ipvs::handles(message) && !ipvs::lists(message) {
            let (sender, receiver) = oneshot::channel();
            // Should the control thread be gone, the receiver finds out.
            let _ = requests.send(Request::Ipvs(message.to_vec(), *peer, sender)).await;
            waiting.push((message, receiver));
            continue;
        }
        settle(client, *peer, &mut waiting).await?;
        if ipvs::handles(message) {
            let asked = |answer| Request::Ipvs(message.to_vec(), *peer, answer);
            match ask(requests, asked).await {
                Ok(replies) => send(client, *peer, replies).await?,
                Err(errno) => send(client, *peer, ipvs::refuse(message, *peer, errno)).await?,
            }
        } else {
            let answers = answer(message, requests, peer).await;
            send(client, *peer, answers).await?;
        }
    }
    settle(client, *peer, &mut waiting).await
}

/// Sends the answers to these messages, in their order.
async fn settle(
    client: &impl Client,
    peer: ipvs::Peer,
    waiting: &mut Vec<(&[u8], oneshot::Receiver<ipvs::Replies>)>,
) -> Result<(), Lost> {
    for (message, receiver) in waiting.drain(..) {
        let replies = receiver.await.unwrap_or_else(|_| ipvs::refuse(message, peer, Errno::SHUTDOWN));
        send(client, peer, replies).await?;
    }
    Ok(())
}

/// The client took too long, or is gone.
#[derive(Debug)]
pub(crate) struct Lost;

/// Whom answers are sent to.
pub(crate) trait Client {
    /// Sends a datagram.
    async fn take(&self, datagram: &[u8]) -> Result<(), Lost>;
}

impl Client for UnixSeqpacket {
    async fn take(&self, datagram: &[u8]) -> Result<(), Lost> {
        match tokio::time::timeout(SEND_LIMIT, self.send(datagram)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Lost),
        }
    }
}

/// Sends datagrams to a client, with its port in the answers.
async fn send(
    client: &impl Client,
    peer: ipvs::Peer,
    datagrams: impl IntoIterator<Item = Vec<u8>>,
) -> Result<(), Lost> {
    /// Where a message's header has the port.
    const PORT: std::ops::Range<usize> = 12..16;
    for mut datagram in datagrams {
        if let Some(port) = datagram.get_mut(PORT).filter(|_| peer.port != 0) {
            port.copy_from_slice(&peer.port.to_ne_bytes());
        }
        client.take(&datagram).await?;
    }
    Ok(())
}

/// The datagrams that answer a request.
async fn answer(request: &[u8], requests: &mpsc::Sender<Request>, peer: &mut ipvs::Peer) -> Vec<Vec<u8>> {
    let Ok(message) = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(request) else {
        return ipvs::refuse(request, *peer, Errno::INVAL).collect();
    };
    let header = message.header;
    if header.message_type != FAMILY_ID {
        return vec![error(header, Errno::OPNOTSUPP)];
    }
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        return vec![error(header, Errno::INVAL)];
    };
    if peer.access == ipvs::Access::ReadOnly && message.payload.changes() {
        let why = "this user's group may only ask (director.socket_read_group); run the command as root";
        return vec![acknowledge(header, Some((Errno::PERM, why)))];
    }
    let done = match message.payload {
        Xlvs::Status(_) => status(header, requests).await,
        Xlvs::GetSettings => {
            ask(requests, Request::Settings).await.map(|all| dump(header, all.into_iter().map(Xlvs::Setting)))
        }
        Xlvs::GetMarks => {
            ask(requests, Request::Marks).await.map(|all| dump(header, all.into_iter().map(Xlvs::Mark)))
        }
        Xlvs::Setting(Setting { name, value, .. }) => {
            change(header, requests, |answer| Request::SetSetting(name, value, answer)).await
        }
        Xlvs::Mark(entry) => change(header, requests, |answer| Request::AddMark(entry.rule, answer)).await,
        Xlvs::DeleteMark(rule) => change(header, requests, |answer| Request::DeleteMark(rule, answer)).await,
        Xlvs::Hello(port) => {
            peer.port = port;
            Ok(vec![acknowledge(header, None)])
        }
        Xlvs::Proc(name) => match ask(requests, |answer| Request::Proc(name, answer)).await {
            Ok(Some(text)) => {
                let pieces = text.as_bytes().chunks(TEXT_BYTES).map(|piece| Xlvs::ProcText(piece.to_vec()));
                Ok(dump(header, pieces))
            }
            Ok(None) => Err(Errno::NOENT),
            Err(errno) => Err(errno),
        },
        Xlvs::ProcText(_) | Xlvs::TakeOver(_) => Err(Errno::INVAL),
    };
    done.unwrap_or_else(|errno| vec![error(header, errno)])
}

/// The control thread's answer to a request; an error when it is about to end.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Errno> {
    let (sender, receiver) = oneshot::channel();
    requests.send(request(sender)).await.map_err(|_| Errno::SHUTDOWN)?;
    receiver.await.map_err(|_| Errno::SHUTDOWN)
}

async fn status(header: NetlinkHeader, requests: &mpsc::Sender<Request>) -> Result<Vec<Vec<u8>>, Errno> {
    let status = ask(requests, Request::Status).await?;
    let json = serde_json::to_vec(&status).map_err(|_| Errno::IO)?;
    Ok(dump(header, json.chunks(TEXT_BYTES).map(|piece| Xlvs::Status(piece.to_vec()))))
}

async fn change(
    header: NetlinkHeader,
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> Request,
) -> Result<Vec<Vec<u8>>, Errno> {
    let done = ask(requests, request).await?;
    let refused = done.as_ref().err().map(|refusal| (refusal.errno, refusal.message.as_str()));
    Ok(vec![acknowledge(header, refused)])
}

/// A dump of these messages.
fn dump(request: NetlinkHeader, messages: impl Iterator<Item = Xlvs>) -> Vec<Vec<u8>> {
    let NetlinkHeader { sequence_number, port_number, .. } = request;
    let pieces = messages.map(|message| message.datagram(sequence_number, port_number, NLM_F_MULTIPART));
    pieces.chain([done(request)]).collect()
}

fn error(request: NetlinkHeader, errno: Errno) -> Vec<u8> {
    acknowledge(request, Some((errno, "")))
}
