//! An encrypted way over any stream, between two that have the same key: the handshake, and frames.
//!
//! The cryptography is Noise's, pattern `NNpsk0` (Curve25519, ChaCha20-Poly1305, BLAKE2s), by the crate `snow`:
//! - The key authenticates both sides: neither can make a message that the other takes without it. No director has a key pair of its own
//!   that the others would have to know.
//! - It goes in first (`psk0`): a server sees in the first 48 bytes, before any work with curves and before it answers, that a client
//!   doesn't have the key. With `psk2` it would answer everybody, and work for it.
//! - Both sides make a new key pair for each connection (`NN`): who gets hold of the key later can't read what was recorded before.
//! - A first message can be recorded and sent again. The server answers it, but who did not make it can't go on: nothing is done for a
//!   client before its first frame was decrypted.
//!
//! A frame, and either message of the handshake, has its length in front: 2 bytes, big-endian. The stream's end proves
//! nothing: anybody on the way can bring it about. What ends must say so in a frame.

use std::io;
use std::time::Duration;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::key::Key;

const SUITE: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// What the handshake is for: it fits no other.
const PROLOGUE: &[u8] = b"xlvs bulk synchronisation";
/// What encryption adds to a frame, in bytes.
const TAG: usize = 16;
/// Of either message of the handshake, in bytes: a public key and a tag.
const HANDSHAKE: usize = 32 + TAG;
/// The longest frame, encrypted, in bytes: as many IPv6 entries as a message can have, and some room. Noise allows twice as much.
const MAX_FRAME: usize = 32 << 10;
/// The longest frame that is sent or received, in bytes.
pub(super) const MAX_PLAIN: usize = MAX_FRAME - TAG;

/// What can happen to a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(io::Error),
    /// The peer hung up before it had proven anything.
    #[error(
        "it hung up during the handshake, as a director does that has another key (all need the same file), or that is being flooded"
    )]
    HungUp,
    /// The peer doesn't have the key.
    #[error("it has another key; all directors need the same file")]
    OtherKey,
    /// Not a handshake's message.
    #[error(
        "it sent {0} as a message's length where a handshake has {HANDSHAKE}: it speaks another protocol"
    )]
    NoHandshake(usize),
    /// Longer than a frame may be, or too short for one.
    #[error("it sent a frame of {0} bytes; {TAG} to {MAX_FRAME} are allowed")]
    FrameLength(usize),
    /// Not what the peer has encrypted.
    #[error("a frame was changed on its way")]
    Forged,
    /// A frame is not whole.
    #[error("the connection ended in the middle of a frame")]
    CutOff,
    /// Nothing came, or nothing could be sent, for so long.
    #[error("nothing came from it, or could be sent to it, for {} s", .0.as_secs())]
    Silent(Duration),
    /// A frame of ours is longer than one may be, or the suite is not known: faults of ours.
    #[error("encryption failed: {0}")]
    Cipher(snow::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Stream(error),
        }
    }
}

/// One side's end, after the handshake. After an error it is of no more use.
#[derive(Debug)]
pub(super) struct Channel<S> {
    stream: BufReader<S>,
    cipher: TransportState,
    /// The frame that came last, as it came and decrypted.
    encrypted: Vec<u8>,
    plain: Vec<u8>,
    /// Frames that wait to be sent, encrypted.
    waiting: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// The handshake of the one that has connected. It has no time limit of its own.
    ///
    /// # Errors
    /// When the peer doesn't have the key, or the stream fails.
    pub(super) async fn connect(mut stream: S, key: &Key) -> Result<Self, ChannelError> {
        let mut handshake = builder(key)?.build_initiator().map_err(ChannelError::Cipher)?;
        say(&mut stream, &mut handshake).await?;
        hear(&mut stream, &mut handshake).await.map_err(|error| match error {
            ChannelError::CutOff => ChannelError::HungUp,
            ChannelError::Stream(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                ChannelError::HungUp
            }
            other => other,
        })?;
        Self::after(stream, handshake)
    }

    /// The handshake of the one that was connected to. It has no time limit of its own. The peer has only proven that it has the key when
    /// its first frame has come.
    ///
    /// # Errors
    /// When the peer doesn't have the key, or the stream fails. Nothing was sent then.
    pub(super) async fn accept(mut stream: S, key: &Key) -> Result<Self, ChannelError> {
        let mut handshake = builder(key)?.build_responder().map_err(ChannelError::Cipher)?;
        hear(&mut stream, &mut handshake).await?;
        say(&mut stream, &mut handshake).await?;
        Self::after(stream, handshake)
    }

    fn after(stream: S, handshake: HandshakeState) -> Result<Self, ChannelError> {
        let cipher = handshake.into_transport_mode().map_err(ChannelError::Cipher)?;
        Ok(Self {
            stream: BufReader::with_capacity(MAX_FRAME, stream),
            cipher,
            encrypted: Vec::new(),
            plain: vec![0; MAX_FRAME],
            waiting: Vec::new(),
        })
    }

    /// Has a frame wait for [`Self::flush`].
    ///
    /// # Errors
    /// When it is longer than [`MAX_PLAIN`].
    pub(super) fn push(&mut self, frame: &[u8]) -> Result<(), ChannelError> {
        let length = frame.len() + TAG;
        if length > MAX_FRAME {
            return Err(ChannelError::Cipher(snow::Error::Input));
        }
        self.waiting.extend((length as u16).to_be_bytes());
        let at = self.waiting.len();
        self.waiting.resize(at + length, 0);
        self.cipher.write_message(frame, &mut self.waiting[at..]).map_err(ChannelError::Cipher)?;
        Ok(())
    }

    /// Sends the frames that wait.
    ///
    /// # Errors
    /// When the peer takes nothing for `limit`, or the stream fails.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<(), ChannelError> {
        let mut sent = 0;
        while let Some(rest @ [_, ..]) = self.waiting.get(sent..) {
            sent += match within(limit, self.stream.write(rest)).await? {
                0 => return Err(ChannelError::Stream(io::ErrorKind::WriteZero.into())),
                written => written,
            };
        }
        self.waiting.clear();
        within(limit, self.stream.flush()).await
    }

    /// Says that no frame will follow.
    ///
    /// # Errors
    /// When the peer takes nothing for `limit`, or the stream fails.
    pub(super) async fn close(&mut self, limit: Duration) -> Result<(), ChannelError> {
        self.flush(limit).await?;
        within(limit, self.stream.shutdown()).await
    }

    /// Whether some of the next frame has come already.
    pub(super) fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// The next frame; none if the stream has ended before it.
    ///
    /// # Errors
    /// When it isn't whole within `limit`, is not the peer's, or the stream fails.
    pub(super) async fn receive(&mut self, limit: Duration) -> Result<Option<&[u8]>, ChannelError> {
        if !within(limit, read_frame(&mut self.stream, &mut self.encrypted)).await? {
            return Ok(None);
        }
        let length =
            self.cipher.read_message(&self.encrypted, &mut self.plain).map_err(|_| ChannelError::Forged)?;
        Ok(Some(&self.plain[..length]))
    }
}

async fn within<T, E: Into<ChannelError>>(
    limit: Duration,
    done: impl Future<Output = Result<T, E>>,
) -> Result<T, ChannelError> {
    tokio::time::timeout(limit, done).await.map_err(|_| ChannelError::Silent(limit))?.map_err(Into::into)
}

/// False if the stream has ended.
async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S, into: &mut Vec<u8>) -> Result<bool, ChannelError> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(false);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if !(TAG..=MAX_FRAME).contains(&length) {
        return Err(ChannelError::FrameLength(length));
    }
    into.resize(length, 0);
    stream.read_exact(into).await?;
    Ok(true)
}

fn builder(key: &Key) -> Result<Builder<'_>, ChannelError> {
    let suite: NoiseParams = SUITE.parse().map_err(ChannelError::Cipher)?;
    let builder = Builder::new(suite).psk(0, key.bytes()).and_then(|builder| builder.prologue(PROLOGUE));
    builder.map_err(ChannelError::Cipher)
}

/// Sends our message of the handshake.
async fn say<S: AsyncWrite + Unpin>(
    stream: &mut S,
    handshake: &mut HandshakeState,
) -> Result<(), ChannelError> {
    let mut message = [0; 2 + HANDSHAKE];
    message[..2].copy_from_slice(&(HANDSHAKE as u16).to_be_bytes());
    handshake.write_message(&[], &mut message[2..]).map_err(ChannelError::Cipher)?;
    stream.write_all(&message).await?;
    Ok(stream.flush().await?)
}

/// Takes the peer's message of the handshake.
async fn hear<S: AsyncRead + Unpin>(
    stream: &mut S,
    handshake: &mut HandshakeState,
) -> Result<(), ChannelError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length != HANDSHAKE {
        return Err(ChannelError::NoHandshake(length));
    }
    let mut message = [0; HANDSHAKE];
    stream.read_exact(&mut message).await?;
    handshake.read_message(&message, &mut [0; HANDSHAKE]).map_err(|_| ChannelError::OtherKey)?;
    Ok(())
}
