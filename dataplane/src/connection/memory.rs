//! Memory that the connection table's records are in: a piece of a file or of nobody's memory, mapped, in which each `T` stands
//! at its place from the beginning and takes memory from its first use on. The only place of the table with `unsafe` code.
//!
//! What may be in it is [`Plain`]: atomics alone, so that any bytes are some value, and other threads and processes may
//! change them at any time. Nothing read from it is believed: that is for those who read.
//!
//! With the feature `loom`, whose atomics are no plain words, pieces are allocated as they are reserved.
#![allow(unsafe_code)]

use std::fs::File;
use std::sync::Arc;

/// A piece of a file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<File>,
    /// In bytes, a multiple of [`HUGE_PAGE`].
    pub(super) at: u64,
}

/// What the kernel can map at a time, in bytes, where memory is plenty.
pub(super) const HUGE_PAGE: usize = 2 << 20;

#[cfg(not(feature = "loom"))]
mod mapped {
    use std::alloc::{Layout, handle_alloc_error};
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::ptr::NonNull;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

    use super::{HUGE_PAGE, Piece};
    use crate::connection::cache::Line;
    use crate::connection::record::Record;
    use crate::connection::store::{Entry, Header};

    /// Less is not worth huge pages, of which a small table would waste the first.
    const LARGE: usize = 32 << 20;
    const PAGE: usize = 4096;

    /// Types that any bytes are a value of, that may change behind a shared reference, and that are aligned to a page at most.
    ///
    /// # Safety
    /// Exactly those that consist of atomics and arrays of them, without padding.
    unsafe trait Plain: Sync {}
    // SAFETY: its fields are atomic integers, which fill its size (a test of `record.rs` and the checksum's place see to that).
    unsafe impl<const WORDS: usize> Plain for Record<WORDS> {}
    // SAFETY: an array of atomic integers.
    unsafe impl Plain for Header {}
    // SAFETY: an array of atomic integers.
    unsafe impl Plain for Entry {}
    // SAFETY: an array of atomic integers.
    unsafe impl Plain for Line {}

    /// So many `T`s in a row.
    #[derive(Debug)]
    #[expect(private_bounds, reason = "what is plain is for this file to say")]
    pub(in super::super) struct Region<T: Plain> {
        first: NonNull<T>,
        count: usize,
        /// What is to be unmapped: address and bytes.
        mapped: (NonNull<u8>, usize),
        piece: Option<Piece>,
    }

    // SAFETY: it owns its mapping; what it gives out are shared references to `T`, which is `Sync`.
    unsafe impl<T: Plain> Send for Region<T> {}
    // SAFETY: as above; nothing of itself changes after it was made.
    unsafe impl<T: Plain> Sync for Region<T> {}

    #[expect(private_bounds, reason = "what is plain is for this file to say")]
    impl<T: Plain> Region<T> {
        /// Memory of nobody else, all zero. Ends the process, as any allocation does, where it gets no more address space.
        pub(in super::super) fn anonymous(count: usize) -> Self {
            Self::map(count, None).unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()))
        }

        /// A piece of a file, which has to be as long as it is needed: beyond a file's end there is no memory, and whoever
        /// touches it dies.
        ///
        /// # Errors
        /// When the file can't be mapped.
        pub(in super::super) fn of(piece: Piece, count: usize) -> io::Result<Self> {
            Self::map(count, Some(piece))
        }

        fn map(count: usize, piece: Option<Piece>) -> io::Result<Self> {
            let count = count.max(1);
            let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
            let bytes = count.checked_mul(size_of::<T>()).ok_or_else(too_large)?.next_multiple_of(PAGE);
            // Huge pages need addresses that are multiples of their size, which the kernel doesn't choose by itself.
            let total = bytes.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
            let access =
                if piece.is_some() { ProtFlags::empty() } else { ProtFlags::READ | ProtFlags::WRITE };
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping where the kernel has room, which changes no other.
            let base = unsafe { mmap_anonymous(std::ptr::null_mut(), total, access, flags) }?;
            let base = NonNull::new(base.cast::<u8>()).ok_or_else(too_large)?;
            let skipped = base.align_offset(HUGE_PAGE);
            // SAFETY: at most HUGE_PAGE bytes are skipped, and there are as many beyond what is needed.
            let first = unsafe { base.add(skipped) };
            let region = Self { first: first.cast(), count, mapped: (base, total), piece };
            if let Some(Piece { file, at }) = &region.piece {
                let (access, flags) =
                    (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
                // SAFETY: replaces a part of the mapping that was just made, which nobody has seen yet.
                unsafe { mmap(first.as_ptr().cast(), bytes, access, flags, file, *at) }?;
            }
            if bytes >= LARGE {
                // A kernel without huge pages, or a file system that has none, does without.
                // SAFETY: of the mapping that was just made; the advice changes no content.
                let _ = unsafe { madvise(first.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
            }
            Ok(region)
        }

        /// How many there are.
        pub(in super::super) const fn count(&self) -> usize {
            self.count
        }

        /// The first one. There is one in every region.
        pub(in super::super) fn first(&self) -> &T {
            // SAFETY: as for `get`; `map` makes room for one at least.
            unsafe { self.first.as_ref() }
        }

        /// The one at this place.
        #[inline]
        pub(in super::super) fn get(&self, at: usize) -> Option<&T> {
            if at >= self.count {
                return None;
            }
            // SAFETY: within the mapping, which lives as long as `self`, is aligned to HUGE_PAGE and holds `count` of `T`, for
            // which any bytes are a value. Nobody has an exclusive reference into it.
            Some(unsafe { self.first.add(at).as_ref() })
        }

        /// Has memory for these, so that touching them can't fail.
        ///
        /// # Errors
        /// When the file system has no more.
        pub(in super::super) fn reserve(&self, places: Range<usize>) -> io::Result<()> {
            let Some(Piece { file, at }) = &self.piece else { return Ok(()) };
            let place = |place: usize| (place.min(self.count) * size_of::<T>()) as u64;
            let (from, bytes) = (place(places.start), place(places.end).saturating_sub(place(places.start)));
            if bytes == 0 {
                return Ok(());
            }
            match fallocate(file, FallocateFlags::KEEP_SIZE, at + from, bytes) {
                // A file system that can't promise it.
                Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                done => Ok(done?),
            }
        }
    }

    #[expect(private_bounds, reason = "what is plain is for this file to say")]
    impl<T: Plain> Region<T> {
        /// Touches the memory of these, so that who uses them first need not wait for it. Their content stays. A kernel before
        /// 5.14 can't do it, and one without memory will not: then they are touched when they are used.
        pub(in super::super) fn populate(&self, places: Range<usize>) {
            let place = |place: usize| place.min(self.count) * size_of::<T>();
            let (from, end) = (place(places.start).next_multiple_of(PAGE), place(places.end));
            let first = self.first.addr().get();
            // A file's pages are small.
            populate(first + from..first + end, self.piece.is_none() && self.is_large());
        }

        /// Whether it is worth huge pages: touching the first byte of one takes a processor's while.
        pub(in super::super) const fn is_large(&self) -> bool {
            self.count * size_of::<T>() >= LARGE
        }
    }

    impl<T: Plain> Drop for Region<T> {
        fn drop(&mut self) {
            let (base, bytes) = self.mapped;
            // SAFETY: the whole mapping that `map` made, whose references ended with `self`.
            let _ = unsafe { munmap(base.as_ptr().cast(), bytes) };
        }
    }

    /// Touches memory of this process, at these addresses, so that who uses it first need not wait for it: by huge pages, where
    /// it is much. Its content stays, whatever it is. What is no memory is left out.
    pub(in super::super) fn touch(addresses: Range<usize>) {
        let whole = addresses.start.next_multiple_of(PAGE)..addresses.end & !(PAGE - 1);
        let bytes = whole.end.saturating_sub(whole.start);
        if bytes >= LARGE {
            let first = std::ptr::without_provenance_mut(whole.start);
            // SAFETY: the advice changes no content, wherever it points.
            let _ = unsafe { madvise(first, bytes, Advice::LinuxHugepage) };
        }
        populate(whole, bytes >= LARGE);
    }

    /// A little at a time: who maps or unmaps memory meanwhile waits for the end of each.
    fn populate(addresses: Range<usize>, is_huge: bool) {
        let step = if is_huge { HUGE_PAGE } else { HUGE_PAGE / 16 };
        for from in addresses.clone().step_by(step) {
            let bytes = step.min(addresses.end - from);
            let first = std::ptr::without_provenance_mut(from);
            // SAFETY: the kernel has pages for the addresses, as if they had been read and written back: no content changes.
            let _ = unsafe { madvise(first, bytes, Advice::LinuxPopulateWrite) };
        }
    }

    /// A file without a name, of this length, that can't get shorter.
    pub(in super::super) fn nameless(name: &str, bytes: u64) -> io::Result<File> {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len(bytes)?;
        fcntl_add_seals(&file, SealFlags::SHRINK)?;
        Ok(file)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use std::sync::Arc;

        use super::*;
        use crate::flow::{V4_WORDS, V6_WORDS};

        #[test]
        fn what_was_never_touched_takes_no_memory_and_what_was_is_in_the_file() {
            use std::os::unix::fs::MetadataExt;
            let file = Arc::new(nameless("test", 1 << 32).unwrap());
            let piece = |at| Piece { file: Arc::clone(&file), at };
            let region = Region::<Record<V6_WORDS>>::of(piece(HUGE_PAGE as u64), 1 << 20).unwrap();
            assert_eq!(file.metadata().unwrap().blocks(), 0);
            region.reserve(0..64).unwrap();
            assert_eq!(file.metadata().unwrap().blocks() * 512, 64 * 128);
            region.get(63).unwrap().count_packet();
            assert!(region.get(1 << 20).is_none());
            let again = Region::<Record<V6_WORDS>>::of(piece(HUGE_PAGE as u64), 64).unwrap();
            assert_eq!((again.get(63).unwrap().packets(), again.get(62).unwrap().packets()), (1, 0));
        }

        /// Pages of this process that are in memory.
        fn resident() -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse().unwrap()
        }

        #[test]
        fn touched_memory_is_there_and_is_as_it_was() {
            const BYTES: usize = 64 << 20;
            let mut bytes: Vec<u8> = Vec::with_capacity(BYTES);
            bytes.extend([7; 100]);
            let (first, before) = (bytes.as_ptr().addr(), resident());
            touch(first..first + BYTES);
            let grown = resident() - before;
            assert!(grown >= BYTES / PAGE - 1024, "{grown} pages");
            assert_eq!(bytes, [7; 100]);
            // Nobody's.
            touch(0..BYTES);
        }

        #[test]
        fn nobodys_memory_begins_as_free_records() {
            let region = Region::<Record<V4_WORDS>>::anonymous(1000);
            assert!((0..1000).all(|at| region.get(at).unwrap().read().is_none()));
            assert_eq!((region.count(), region.get(1000).is_none()), (1000, true));
        }
    }
}

#[cfg(not(feature = "loom"))]
pub(super) use mapped::{Region, nameless, touch};

#[cfg(feature = "loom")]
mod checked {
    use std::io;
    use std::ops::Range;
    use std::sync::OnceLock;

    use super::Piece;

    const CHUNK: usize = 4;

    /// So many `T`s in a row, as loom sees them.
    #[derive(Debug)]
    pub(in super::super) struct Region<T> {
        chunks: Box<[OnceLock<Box<[T]>>]>,
    }

    impl<T: Default> Region<T> {
        pub(in super::super) fn anonymous(count: usize) -> Self {
            Self { chunks: (0..count.div_ceil(CHUNK).max(1)).map(|_| OnceLock::new()).collect() }
        }

        pub(in super::super) fn of(_: Piece, count: usize) -> io::Result<Self> {
            Ok(Self::anonymous(count))
        }

        pub(in super::super) fn first(&self) -> &T {
            &self.chunks[0].get_or_init(|| (0..CHUNK).map(|_| T::default()).collect())[0]
        }

        pub(in super::super) const fn count(&self) -> usize {
            self.chunks.len() * CHUNK
        }

        pub(in super::super) fn get(&self, at: usize) -> Option<&T> {
            self.chunks.get(at / CHUNK)?.get()?.get(at % CHUNK)
        }

        pub(in super::super) fn populate(&self, _: Range<usize>) {}

        pub(in super::super) const fn is_large(&self) -> bool {
            false
        }

        pub(in super::super) fn reserve(&self, places: Range<usize>) -> io::Result<()> {
            for chunk in self.chunks.iter().take(places.end.div_ceil(CHUNK)) {
                chunk.get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
            }
            Ok(())
        }
    }

    pub(in super::super) fn nameless(_: &str, _: u64) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(feature = "loom")]
pub(super) use checked::{Region, nameless};
