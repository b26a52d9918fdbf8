//! What the two directors talk by: the connection to the control socket, once the successor has asked. A message is JSON in pieces
//! of one datagram each, whose first byte says whether it is the last; files come along with the last one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

const MORE: u8 = 0;
const LAST: u8 = 1;
/// Bytes of a datagram.
const PIECE: usize = 32 << 10;
/// The longest message, in bytes: the health of all servers that there can be.
const MOST_BYTES: usize = 256 << 20;
/// Room for the numbers of some files and their header.
const FILES_BYTES: usize = 128;

/// Sends a message, and files with it.
pub(super) async fn send(
    socket: &UnixSeqpacket,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let pieces = text.chunks(PIECE - 1);
    let last = pieces.len().saturating_sub(1);
    for (at, piece) in pieces.enumerate() {
        if at < last {
            socket.send(&[&[MORE], piece].concat()).await?;
            continue;
        }
        let mut space = [0; FILES_BYTES];
        let mut writer = AncillaryMessageWriter::new(&mut space);
        if !files.is_empty() {
            writer.add_fds(files.iter())?;
        }
        socket.send_with_ancillary(&[&[LAST], piece].concat(), &mut writer).await?;
    }
    Ok(())
}

/// One end.
#[derive(Debug)]
pub(super) struct Line(pub(super) UnixSeqpacket);

impl Line {
    /// Sends a message, and files with it.
    pub(super) async fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.0, message, files).await
    }

    /// The next message, with its files; `None` when the other one has hung up.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut text = Vec::new();
        let mut datagram = vec![0; PIECE];
        loop {
            let mut space = [0; FILES_BYTES];
            let (info, files) = match self.0.recv_with_ancillary(&mut datagram, &mut space).await {
                // It has hung up while something of ours was on its way.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                received => received?,
            };
            let Some((kind, piece)) = datagram[..info.bytes_read()].split_first() else { return Ok(None) };
            let files = files.into_messages().flat_map(|message| match message {
                OwnedAncillaryMessage::FileDescriptors(files) => files.collect::<Vec<_>>(),
                _ => Vec::new(),
            });
            let files: Vec<OwnedFd> = files.collect();
            text.extend_from_slice(piece);
            match *kind {
                LAST => return Ok(Some((serde_json::from_slice(&text)?, files))),
                MORE if text.len() <= MOST_BYTES => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsFd;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn messages_arrive_whole_however_long_they_are_and_files_with_them() {
        run(async {
            let (one, other) = UnixSeqpacket::pair().unwrap();
            let (one, other) = (Line(one), Line(other));
            for length in [0, 1, PIECE - 4, PIECE - 3, PIECE - 2, PIECE, 5 * PIECE + 7] {
                let text = "x".repeat(length);
                let file = tempfile::tempfile().unwrap();
                let files = [file.as_fd(), file.as_fd()];
                let (sent, received) = tokio::join!(one.send(&text, &files), other.receive::<String>());
                sent.unwrap();
                let (its, files) = received.unwrap().unwrap();
                assert_eq!((its.len(), files.len()), (length, 2));
                let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
                assert!(files.iter().all(|its| inode(its.as_fd()) == inode(file.as_fd())));
            }
            drop(one);
            assert!(other.receive::<String>().await.unwrap().is_none());
        });
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        run(async {
            let (one, other) = UnixSeqpacket::pair().unwrap();
            let other = Line(other);
            for bytes in [&[LAST][..], &[LAST, b'{'], &[2, b'1'], &[MORE ^ 0xff]] {
                one.send(bytes).await.unwrap();
                assert!(other.receive::<u32>().await.is_err(), "{bytes:?}");
            }
        });
    }
}
