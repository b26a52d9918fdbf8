//! The file that connections outlive the director in: on a file system in memory, or without a name and held by the service
//! manager. The records themselves are mapped from it, so that nothing has to be written when the director ends, however it ends.
//!
//! ```text
//! 0        header      what the file is, and how many slots and ids were ever used
//! 2 MiB    directory   what each destination's number stands for (directory.rs)
//! 1 GiB    IPv4 records, 64 B each
//! 16 GiB   IPv6 records, 128 B each
//! ```
//! Places don't depend on the configured limit, so that it can change from one start to the next. The file is sparse: what was
//! never used takes no memory, and what is handed out was reserved before, as the file system may be full.
//!
//! What a process that is killed leaves behind is every word that it had written, in its order. A record becomes live by its
//! last word and ends by its first, and says by a checksum that the rest is whole; so does an entry of the directory. The
//! number of slots used is written together with its complement. Only what all these agree about is believed
//! ([`super::restore`]).

mod directory;

use std::fs::File;
use std::io;
use std::sync::Arc;

pub use directory::{Entry, Identity, Kept, MAX_IDS};

use super::memory::{HUGE_PAGE, Piece, Region, nameless};
use crate::clock::Now;
use crate::flow::V4_WORDS;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// The layout that this program writes, and the only one that it reads. It covers the meaning of every word of the file.
pub const VERSION: u64 = 1;
const MAGIC: u64 = u64::from_be_bytes(*b"xlvsconn");

/// Where the directory is, in bytes.
pub const DIRECTORY_AT: u64 = HUGE_PAGE as u64;
/// Where the IPv4 records are.
pub const V4_AT: u64 = 1 << 30;
/// Where the IPv6 records are.
pub const V6_AT: u64 = 16 << 30;
/// The most connections that a file has room for, of each family.
pub const MAX_CONNECTIONS: u32 = 1 << 27;
/// The most slots, some of which workers keep at hand.
const MAX_SLOTS: u32 = MAX_CONNECTIONS + (1 << 16);
/// The length of the file, in bytes. Nearly all of it is never used.
pub const FILE_BYTES: u64 = V6_AT + MAX_SLOTS as u64 * 128;

const HEADER_WORDS: usize = 512;
/// What never changes: magic, version, the places above, the boot, and a checksum over all that.
const FIXED: [u64; 6] = [MAGIC, VERSION, DIRECTORY_AT, V4_AT, V6_AT, MAX_SLOTS as u64];
const BOOT: usize = FIXED.len();
const CHECKSUM: usize = BOOT + 2;
/// The words that say how many IPv4 slots, IPv6 slots and numbers of destinations were ever used.
const USED_V4: usize = 16;
const USED_V6: usize = 17;
const USED_IDS: usize = 18;
/// When the director last said that it was there, in milliseconds of [`Now`].
const SEEN: usize = 19;

/// The first page of a file.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Header([AtomicU64; HEADER_WORDS]);

impl Default for Header {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Which start of the machine a clock and a file belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot(pub u128);

/// Why a file's content can't be used, as the end of a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It was cut, or is something else.
    #[error("has {found} bytes, where {FILE_BYTES} are needed")]
    Length {
        /// Its length.
        found: u64,
    },
    /// It doesn't begin as one.
    #[error("does not begin as a file of connections")]
    NotOurs,
    /// Another version of this program wrote it.
    #[error("has layout {found}, and this program reads layout {VERSION}")]
    Version {
        /// Its layout.
        found: u64,
    },
    /// Its records are elsewhere, or of another size.
    #[error("has its records in other places than this program looks for them")]
    Geometry,
    /// The machine was started anew since.
    #[error("is from before the machine was last started")]
    Boot,
    /// Its times can't be compared with ours.
    #[error("was written by another clock: its last second is {ahead_s} s ahead")]
    Clock {
        /// How far.
        ahead_s: u64,
    },
    /// Something in it contradicts itself.
    #[error("is damaged: {0} is not what it was written as")]
    Damaged(&'static str),
    /// The operating system said no.
    #[error("can't be used: {0}")]
    Io(#[from] io::Error),
}

/// A number with its complement, so that no change of it goes unnoticed.
const fn sealed(number: u32) -> u64 {
    (!number as u64) << 32 | number as u64
}

const fn unsealed(word: u64) -> Option<u32> {
    let number = word as u32;
    if word == sealed(number) { Some(number) } else { None }
}

/// Bits of all words reach all bits of this.
fn sum(words: impl IntoIterator<Item = u64>) -> u64 {
    let add = |sum: u64, word| {
        let product = u128::from(sum ^ word) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ (product as u64).rotate_left(23)
    };
    words.into_iter().fold(MAGIC, add)
}

/// A file that connections are kept in.
#[derive(Debug)]
pub struct Store {
    file: Arc<File>,
    header: Arc<Region<Header>>,
    directory: Region<Entry>,
}

impl Store {
    /// Makes an empty file the store of a director. The file has to be new.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn create(file: File, boot: Boot, now: Now) -> io::Result<Self> {
        file.set_len(FILE_BYTES)?;
        let store = Self::map(file)?;
        store.header.reserve(0..1)?;
        store.directory.reserve(0..1)?;
        for at in [USED_V4, USED_V6, USED_IDS] {
            store.word(at).store(sealed(0), Relaxed);
        }
        store.set_seen(now);
        let fixed = fixed_words(boot);
        for (at, word) in fixed.into_iter().enumerate() {
            store.word(at).store(word, Relaxed);
        }
        store.word(CHECKSUM).store(sum(fixed), Release);
        Ok(store)
    }

    /// Makes a store without a name.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn nameless(name: &str, boot: Boot, now: Now) -> io::Result<Self> {
        Self::create(nameless(name, FILE_BYTES)?, boot, now)
    }

    /// Opens what another director left. That it is nobody else's is for the caller to see to.
    ///
    /// # Errors
    /// When it is not what this program writes, or of another boot.
    pub fn open(file: File, boot: Boot, now: Now) -> Result<Self, Unusable> {
        let found = file.metadata()?.len();
        if found != FILE_BYTES {
            return Err(Unusable::Length { found });
        }
        let store = Self::map(file)?;
        let word = |at| store.word(at).load(Relaxed);
        if word(0) != MAGIC {
            return Err(Unusable::NotOurs);
        }
        if word(1) != VERSION {
            return Err(Unusable::Version { found: word(1) });
        }
        if word(CHECKSUM) != sum((0..CHECKSUM).map(word)) {
            return Err(Unusable::Damaged("its first page"));
        }
        if (0..BOOT).map(word).ne(FIXED) {
            return Err(Unusable::Geometry);
        }
        if (0..CHECKSUM).map(word).ne(fixed_words(boot)) {
            return Err(Unusable::Boot);
        }
        for (at, most) in [(USED_V4, MAX_SLOTS), (USED_V6, MAX_SLOTS), (USED_IDS, MAX_IDS)] {
            if unsealed(word(at)).is_none_or(|used| used > most) {
                return Err(Unusable::Damaged("how much of it is used"));
            }
        }
        // The second within which it is written, and one more.
        let ahead = word(SEEN).saturating_sub(now.0);
        if ahead > 2000 {
            return Err(Unusable::Clock { ahead_s: ahead / 1000 });
        }
        Ok(store)
    }

    fn map(file: File) -> io::Result<Self> {
        let file = Arc::new(file);
        let piece = |at| Piece { file: Arc::clone(&file), at };
        let header = Arc::new(Region::of(piece(0), 1)?);
        Ok(Self { header, directory: Region::of(piece(DIRECTORY_AT), MAX_IDS as usize)?, file })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.header.first().0[at]
    }

    /// Notes that the director is there.
    pub fn set_seen(&self, now: Now) {
        self.word(SEEN).store(now.0, Relaxed);
    }

    /// The records of a family, at least `count` of them, and how many slots were ever used.
    pub(super) fn records<const WORDS: usize>(
        &self,
        count: u32,
    ) -> io::Result<(Region<super::record::Record<WORDS>>, Used)> {
        let (at, used) = if WORDS == V4_WORDS { (V4_AT, USED_V4) } else { (V6_AT, USED_V6) };
        let used = Used::Kept(Arc::clone(&self.header), used);
        let count = count.max(used.get()).min(MAX_SLOTS);
        let piece = Piece { file: Arc::clone(&self.file), at };
        Ok((Region::of(piece, count as usize)?, used))
    }
}

fn fixed_words(boot: Boot) -> [u64; CHECKSUM] {
    let mut words = [0; CHECKSUM];
    words[..BOOT].copy_from_slice(&FIXED);
    words[BOOT..].copy_from_slice(&[(boot.0 >> 64) as u64, boot.0 as u64]);
    words
}

/// How many slots of a table were ever used.
#[derive(Debug)]
pub(super) enum Used {
    /// Of a table that ends with the process.
    Own(AtomicU64),
    /// Of one in a file: the word of its header.
    Kept(Arc<Region<Header>>, usize),
}

impl Used {
    pub(super) fn none() -> Self {
        Self::Own(AtomicU64::new(sealed(0)))
    }

    fn word(&self) -> &AtomicU64 {
        match self {
            Self::Own(word) => word,
            Self::Kept(header, at) => &header.first().0[*at],
        }
    }

    pub(super) fn get(&self) -> u32 {
        self.word().load(Relaxed) as u32
    }

    /// Only by one at a time.
    pub(super) fn set(&self, used: u32) {
        self.word().store(sealed(used), Release);
    }
}
