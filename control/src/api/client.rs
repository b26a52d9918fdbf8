//! The client's end of the control API: one request, one answer, nothing that outlives the command.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use tokio_seqpacket::UnixSeqpacket;

use super::{MAX_DATAGRAM, Xlvs};
use crate::status::Status;

/// How long the daemon may take for a datagram.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The most that a status may have: the largest table's, with room.
const MAX_STATUS_BYTES: usize = 256 << 20;

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
    #[error("the daemon's socket {path} may not be used by this user: run the command as root")]
    NotPermitted {
        /// The socket's path.
        path: PathBuf,
    },
    /// The daemon refused, or what came is no answer.
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
    let bad = |cause: String| ClientError::BadAnswer { path: path.to_owned(), cause };
    let socket = UnixSeqpacket::connect(path).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path: path.to_owned() },
        _ => ClientError::NoDaemon { path: path.to_owned(), source },
    })?;
    socket.send(&Xlvs::Status(Vec::new()).request(1)).await.map_err(|error| bad(error.to_string()))?;
    let mut json = Vec::new();
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
        let message = NetlinkMessage::<GenlMessage<Xlvs>>::deserialize(bytes)
            .map_err(|error| bad(error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => {
                let Xlvs::Status(piece) = answer.payload;
                json.extend_from_slice(&piece);
                if json.len() > MAX_STATUS_BYTES {
                    return Err(bad(format!("its status has more than {} MiB", MAX_STATUS_BYTES >> 20)));
                }
            }
            NetlinkPayload::Done(_) => {
                return serde_json::from_slice(&json).map_err(|error| bad(error.to_string()));
            }
            NetlinkPayload::Error(error) => return Err(bad(error.to_io().to_string())),
            other => return Err(bad(format!("unexpected {other:?}"))),
        }
    }
}
