//! The client's end of the control API: one request, one answer, nothing that outlives the command.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_core::{ErrorMessage, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use rustix::io::Errno;
use tokio_seqpacket::UnixSeqpacket;

use super::acknowledge::refusal;
use super::{MAX_DATAGRAM, MarkEntry, Setting, Xlvs};
use crate::status::Status;

/// How long the daemon may take for a datagram.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The most that an answer may have: the largest table's status, with room.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers on {path} ({source}): is `xlvs run` running, in the same network and mount namespace? --socket or \
         XLVS_SOCKET names its socket"
    )]
    NoDaemon {
        /// The socket's path.
        path: PathBuf,
        /// What was said.
        source: io::Error,
    },
    /// The socket is somebody else's.
    #[error(
        "the daemon's socket {path} may not be used by this user: run the command as root (director.socket_group and \
         director.socket_read_group let others in)"
    )]
    NotPermitted {
        /// The socket's path.
        path: PathBuf,
    },
    /// The daemon doesn't serve this user, or not with this.
    #[error("{0}")]
    Forbidden(String),
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
    /// What came is no answer.
    #[error("the daemon on {path} did not answer properly: {cause}")]
    BadAnswer {
        /// The socket's path.
        path: PathBuf,
        /// What was wrong.
        cause: String,
    },
}

/// Asks the daemon for its status.
///
/// # Errors
/// When there is none, or its answer is no status.
pub(crate) async fn status(path: &Path) -> Result<Status, ClientError> {
    let mut json = Vec::new();
    for answer in request(path, Xlvs::Status(Vec::new())).await? {
        if let Xlvs::Status(piece) = answer {
            json.extend_from_slice(&piece);
        }
    }
    serde_json::from_slice(&json).map_err(|error| bad(path, error.to_string()))
}

/// All settings.
///
/// # Errors
/// When no daemon answers.
pub(crate) async fn settings(path: &Path) -> Result<Vec<Setting>, ClientError> {
    let answers = request(path, Xlvs::GetSettings).await?;
    Ok(answers
        .into_iter()
        .filter_map(|one| if let Xlvs::Setting(its) = one { Some(its) } else { None })
        .collect())
}

/// All mark rules, in the order in which they are applied.
///
/// # Errors
/// When no daemon answers.
pub(crate) async fn marks(path: &Path) -> Result<Vec<MarkEntry>, ClientError> {
    let answers = request(path, Xlvs::GetMarks).await?;
    Ok(answers
        .into_iter()
        .filter_map(|one| if let Xlvs::Mark(its) = one { Some(its) } else { None })
        .collect())
}

/// Has the daemon make a change.
///
/// # Errors
/// When no daemon answers, or it refuses.
pub(crate) async fn change(path: &Path, change: Xlvs) -> Result<(), ClientError> {
    request(path, change).await.map(drop)
}

fn bad(path: &Path, cause: String) -> ClientError {
    ClientError::BadAnswer { path: path.to_owned(), cause }
}

/// Whether a refusal is for who asks, not for what is asked.
fn is_permission(error: &ErrorMessage) -> bool {
    [Errno::PERM, Errno::ACCESS].iter().any(|errno| error.raw_code() == -errno.raw_os_error())
}

/// Sends a request; the messages that answer it.
async fn request(path: &Path, request: Xlvs) -> Result<Vec<Xlvs>, ClientError> {
    let bad = |cause: String| bad(path, cause);
    let socket = UnixSeqpacket::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path: path.to_owned() },
        _ => ClientError::NoDaemon { path: path.to_owned(), source },
    })?;
    socket.send(&request.request(1)).await.map_err(|error| bad(error.to_string()))?;
    let mut answers = Vec::new();
    let mut bytes_in_all = 0;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::time::timeout(ANSWER_LIMIT, socket.recv(&mut buffer))
            .await
            .map_err(|_| bad(format!("nothing came for {} s", ANSWER_LIMIT.as_secs())))?
            .map_err(|error| bad(error.to_string()))?;
        let bytes = &buffer[..received.bytes_read()];
        if bytes.is_empty() {
            return Err(bad("it hung up".to_owned()));
        }
        bytes_in_all += bytes.len();
        if bytes_in_all > MAX_ANSWER_BYTES {
            return Err(bad(format!("its answer has more than {} MiB", MAX_ANSWER_BYTES >> 20)));
        }
        let message = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(bytes)
            .map_err(|error| bad(error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer.payload),
            NetlinkPayload::Done(_) => return Ok(answers),
            NetlinkPayload::Error(error) => {
                return match refusal(message.header, &error) {
                    None => Ok(answers),
                    Some(reason) if is_permission(&error) => Err(ClientError::Forbidden(reason)),
                    Some(reason) => Err(ClientError::Refused(reason)),
                };
            }
            other => return Err(bad(format!("unexpected {other:?}"))),
        }
    }
}
