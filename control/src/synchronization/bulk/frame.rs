//! Frames of the protocol: a byte that says what it is, then that. All numbers are big-endian.
//!
//! | first byte | frame | what follows |
//! |---|---|---|
//! | 1 | hello | version, 1 byte; sync id that is asked for, 1 (0: any); the client's instance, 8 |
//! | 2 | welcome | version, 1 byte; the server's sync id, 1; about how many entries will come, 8 |
//! | 3 | refusal | why, 1 byte; a number that goes with it, 1 |
//! | 4 | entries | a message ([`crate::synchronization::message`]) |
//! | 5 | end | how many entries were sent, 8 bytes |
//!
//! Frames 1 and 2 up to their version, and frame 3, are the same in all versions.

use super::Instance;
use super::channel::MAX_PLAIN;

/// The version of the protocol that is spoken here.
pub(super) const VERSION: u8 = 1;
/// The longest message that a frame takes, in bytes.
pub(super) const MAX_MESSAGE: usize = MAX_PLAIN - 1;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSAL: u8 = 3;
const ENTRIES: u8 = 4;
const END: u8 = 5;

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'f> {
    Hello(Versioned<Hello>),
    Welcome(Versioned<Welcome>),
    Refusal(Refusal),
    Entries(&'f [u8]),
    End { entries: u64 },
}

/// What is only understood in our version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versioned<T> {
    Ours(T),
    /// Another version's number.
    Other(u8),
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// 0: any.
    pub(super) sync_id: u8,
    pub(super) instance: Instance,
}

/// What a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) sync_id: u8,
    /// How many entries there are now, about.
    pub(super) count: u64,
}

/// Why a server doesn't send its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks this other version.
    #[error(
        "it speaks version {0} of bulk synchronisation, this director version {VERSION}: run the same release of xlvs on both"
    )]
    OtherVersion(u8),
    /// It has this other sync id.
    #[error(
        "its sync id is {0}, which is not this director's: give both the same, or 0 to this one, which takes any"
    )]
    OtherSyncId(u8),
    /// It serves as many as it may.
    #[error("it is sending its connections to {0} directors already")]
    Busy(u8),
    /// It is the one that asks.
    #[error("it is this director itself: take its own address out of the peers")]
    Oneself,
    /// What a later version may say.
    #[error("it refuses for a reason that this release doesn't know, number {0}")]
    Unknown(u8),
}

/// Not a frame of the protocol: its first byte, 0 of an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoFrame(pub(super) u8);

impl Refusal {
    const fn numbers(self) -> [u8; 2] {
        match self {
            Self::OtherVersion(version) => [1, version],
            Self::OtherSyncId(sync_id) => [2, sync_id],
            Self::Busy(clients) => [3, clients],
            Self::Oneself => [4, 0],
            Self::Unknown(reason) => [reason, 0],
        }
    }

    const fn of_numbers([reason, number]: [u8; 2]) -> Self {
        match reason {
            1 => Self::OtherVersion(number),
            2 => Self::OtherSyncId(number),
            3 => Self::Busy(number),
            4 => Self::Oneself,
            reason => Self::Unknown(reason),
        }
    }
}

impl<'f> Frame<'f> {
    /// Reads a frame. What is too long or too short for its kind is none.
    pub(super) fn read(frame: &'f [u8]) -> Result<Self, NoFrame> {
        let (&kind, rest) = frame.split_first().ok_or(NoFrame(0))?;
        let no_frame = NoFrame(kind);
        Ok(match kind {
            HELLO => Self::Hello(
                versioned(rest)
                    .ok_or(no_frame)?
                    .map(|sync_id, instance| Hello { sync_id, instance: Instance(instance) }),
            ),
            WELCOME => Self::Welcome(
                versioned(rest).ok_or(no_frame)?.map(|sync_id, count| Welcome { sync_id, count }),
            ),
            REFUSAL => Self::Refusal(Refusal::of_numbers(rest.try_into().map_err(|_| no_frame)?)),
            ENTRIES => Self::Entries(rest),
            END => Self::End { entries: u64::from_be_bytes(rest.try_into().map_err(|_| no_frame)?) },
            _ => return Err(no_frame),
        })
    }

    /// Writes the frame into `to`, which is emptied first.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.clear();
        match *self {
            Self::Hello(Versioned::Ours(Hello { sync_id, instance: Instance(instance) })) => {
                to.extend([HELLO, VERSION, sync_id]);
                to.extend(instance.to_be_bytes());
            }
            Self::Hello(Versioned::Other(version)) => to.extend([HELLO, version]),
            Self::Welcome(Versioned::Ours(Welcome { sync_id, count })) => {
                to.extend([WELCOME, VERSION, sync_id]);
                to.extend(count.to_be_bytes());
            }
            Self::Welcome(Versioned::Other(version)) => to.extend([WELCOME, version]),
            Self::Refusal(refusal) => {
                to.push(REFUSAL);
                to.extend(refusal.numbers());
            }
            Self::Entries(message) => {
                to.push(ENTRIES);
                to.extend_from_slice(message);
            }
            Self::End { entries } => {
                to.push(END);
                to.extend(entries.to_be_bytes());
            }
        }
    }
}

/// The two numbers that follow our version.
fn versioned(rest: &[u8]) -> Option<Versioned<(u8, u64)>> {
    let (&version, rest) = rest.split_first()?;
    if version != VERSION {
        return Some(Versioned::Other(version));
    }
    let (&first, second) = rest.split_first()?;
    Some(Versioned::Ours((first, u64::from_be_bytes(second.try_into().ok()?))))
}

impl Versioned<(u8, u64)> {
    fn map<T>(self, to: impl FnOnce(u8, u64) -> T) -> Versioned<T> {
        match self {
            Self::Ours((first, second)) => Versioned::Ours(to(first, second)),
            Self::Other(version) => Versioned::Other(version),
        }
    }
}
