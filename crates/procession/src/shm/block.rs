//! Plain bytes in the arena: by themselves, and behind a lock.
//!
//! | type      | who may touch the bytes                                              |
//! |-----------|----------------------------------------------------------------------|
//! | `Block`   | anybody at any time, a word at a time                                |
//! | `Guarded` | whoever holds the lock, which lies in front of them in the same block |
//!
//! The two have different tags, so bytes that a lock guards are never opened as a `Block`.
//!
//! # When a process dies
//!
//! The bytes stay as they were at that instant. A holder of the lock that is killed is found dead
//! by the next one, which takes the lock over and is told.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::primitive::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::handle::shared_handle;
use crate::shm::memory::ShmSafe;
use crate::shm::robust::{RobustLock, Taken};
use crate::shm::shared::Shared;
use crate::shm::word::Member;

/// A number of one, two, four or eight bytes, which a [`Block`] is read and written by.
pub trait Word: sealed::Word {}

mod sealed {
    /// What a word is in a block: an unsigned number of its size, in an atomic.
    pub trait Word: Copy {
        /// Its size, and what it is aligned to, in bytes.
        const SIZE: usize;
        /// Reads the word at `place`.
        ///
        /// # Safety
        ///
        /// `place` is aligned to the size, and the bytes are alive and used as atomics.
        unsafe fn load(place: *mut u8) -> Self;
        /// Writes the word at `place`.
        ///
        /// # Safety
        ///
        /// As for `load`.
        unsafe fn store(self, place: *mut u8);
    }
}

macro_rules! words {
    ($($word:ty as $bits:ty, $atomic:ty;)+) => {$(
        impl Word for $word {}

        impl sealed::Word for $word {
            const SIZE: usize = size_of::<$bits>();

            #[inline]
            unsafe fn load(place: *mut u8) -> Self {
                // SAFETY: as the caller promises.
                let atomic = unsafe { &*place.cast::<$atomic>() };
                <$word>::from_ne_bytes(atomic.load(Ordering::Relaxed).to_ne_bytes())
            }

            #[inline]
            unsafe fn store(self, place: *mut u8) {
                // SAFETY: as the caller promises.
                let atomic = unsafe { &*place.cast::<$atomic>() };
                atomic.store(<$bits>::from_ne_bytes(self.to_ne_bytes()), Ordering::Relaxed);
            }
        }
    )+};
}

words! {
    u8 as u8, AtomicU8;
    i8 as u8, AtomicU8;
    u16 as u16, AtomicU16;
    i16 as u16, AtomicU16;
    u32 as u32, AtomicU32;
    i32 as u32, AtomicU32;
    f32 as u32, AtomicU32;
    u64 as u64, AtomicU64;
    i64 as u64, AtomicU64;
    f64 as u64, AtomicU64;
}

/// What stands in front of the bytes of a [`Block`]: nothing.
struct Plain;

// SAFETY: it has no bytes.
unsafe impl ShmSafe for Plain {
    const TAG: u32 = u32::from_le_bytes(*b"plai");
}

/// Bytes in the arena, for callers that look after them by themselves.
///
/// A new block is zeroed and begins at a multiple of 64. Clones, and what [`open`](Self::open)
/// gives in other processes, are the same bytes; they go with the last of these handles, however
/// the process that held it ended. The address is another one in each process, and stays the same
/// there.
///
/// For typed data use `memory::Value` and `memory::Array`.
///
/// # Examples
///
/// ```
/// use procession::shm::Block;
///
/// let block = Block::new(16)?;
/// assert_eq!(block.load::<u64>(8), Some(0));
/// assert!(block.store(8, 7_u64));
/// assert_eq!(block.clone().load::<u64>(8), Some(7));
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
#[derive(Clone)]
pub struct Block {
    shared: Shared<Plain>,
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are in the arena, which belongs to the process and not to a thread, and every
// access that this type gives is atomic.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Makes a block of `len` zeroed bytes.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when the arena is at its limit.
    pub fn new(len: usize) -> Result<Self, ArenaError> {
        Self::with(Shared::with_data(len, |_| ())?)
    }

    /// Makes a block of `len` bytes that `write` writes, before anybody else can see them. What it
    /// finds there is left over from an earlier user.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when the arena is at its limit; `write` is not called then.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::shm::Block;
    ///
    /// let block = Block::written(4, |bytes| bytes.copy_from_slice(b"text"))?;
    /// assert_eq!(block.load::<u8>(3), Some(b't'));
    /// # Ok::<(), procession::shm::ArenaError>(())
    /// ```
    pub fn written(len: usize, write: impl FnOnce(&mut [u8])) -> Result<Self, ArenaError> {
        Self::with(Shared::with_written_data(len, |_| (), write)?)
    }

    fn with(shared: Shared<Plain>) -> Result<Self, ArenaError> {
        let (data, len) = shared.data()?;
        Ok(Self { shared, data, len })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are in this process: valid while this handle, or a clone of it, lives here.
    pub fn address(&self) -> usize {
        self.data.as_ptr().expose_provenance()
    }

    /// Reads the word at `offset`, in bytes; `None` if it is misaligned or not all inside.
    ///
    /// No other process is seen half-way in writing it, if it is written as such a word too.
    #[inline]
    pub fn load<T: Word>(&self, offset: usize) -> Option<T> {
        let place = self.place::<T>(offset)?;
        // SAFETY: `place` was checked; a `Block` lives as long as `shared`.
        Some(unsafe { T::load(place) })
    }

    /// Writes the word at `offset`, in bytes; false if it is misaligned or not all inside.
    #[inline]
    pub fn store<T: Word>(&self, offset: usize, word: T) -> bool {
        let Some(place) = self.place::<T>(offset) else { return false };
        // SAFETY: as in `load`.
        unsafe { word.store(place) };
        true
    }

    #[inline]
    fn place<T: Word>(&self, offset: usize) -> Option<*mut u8> {
        let inside = offset.checked_add(T::SIZE).is_some_and(|end| end <= self.len);
        // SAFETY: the offset is inside.
        (inside && offset.is_multiple_of(T::SIZE))
            .then(|| unsafe { self.data.as_ptr().add(offset) })
    }
}

shared_handle!(Block, "block", [shared], Self::with; open, note);

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, len, .. } = self;
        f.debug_struct("Block").field("shared", shared).field("len", len).finish_non_exhaustive()
    }
}

/// What stands in front of guarded bytes.
#[repr(C)]
struct Guard {
    lock: RobustLock,
}

// SAFETY: one lock, which may lie in the arena, and nothing else.
unsafe impl ShmSafe for Guard {
    const TAG: u32 = u32::from_le_bytes(*b"guar");
}

/// Bytes in the arena that are reached only with their lock held.
#[derive(Clone)]
pub(crate) struct Guarded {
    shared: Shared<Guard>,
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are in the arena, which belongs to the process and not to a thread, and only
// the holder of the lock touches them.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// Makes `len` zeroed bytes behind a free lock.
    pub(crate) fn new(len: usize) -> Result<Self, ArenaError> {
        Self::with(Shared::with_data(len, |_| ())?)
    }

    fn with(shared: Shared<Guard>) -> Result<Self, ArenaError> {
        let (data, len) = shared.data()?;
        Ok(Self { shared, data, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Blocks until the lock is held. Signals do not end the wait.
    pub(crate) fn lock(&self) -> GuardedBytes<'_> {
        self.bytes(self.shared.lock.lock(arena()))
    }

    /// Takes the lock if that is possible without waiting.
    pub(crate) fn try_lock(&self) -> Option<GuardedBytes<'_>> {
        self.shared.lock.lock_now(arena()).map(|taken| self.bytes(taken))
    }

    fn bytes<'a>(&'a self, taken: Taken<'a>) -> GuardedBytes<'a> {
        GuardedBytes { taken, data: self.data, len: self.len }
    }
}

/// The arena that every shared object of this process lives in.
fn arena() -> &'static Arena {
    // Whoever has a shared object has the arena, and nobody takes it away.
    Arena::current().expect("the arena of a shared object is there")
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(&self.shared).finish()
    }
}

shared_handle!(Guarded, "bytes", [shared], Self::with; serde);

/// Guarded bytes, while their lock is held.
pub(crate) struct GuardedBytes<'a> {
    taken: Taken<'a>,
    data: NonNull<u8>,
    len: usize,
}

impl GuardedBytes<'_> {
    /// The process that died with the lock, if this holder took it over.
    pub(crate) fn owner_died(&self) -> Option<Member> {
        self.taken.owner_died
    }
}

impl Deref for GuardedBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY:
        // - Alive, inside: `data` and `len` are those of the block, which the `Guarded` that this
        //   borrows from holds.
        // - Shared: whoever touches these bytes holds the lock, and that is this guard alone. A
        //   process that was killed with the lock does nothing any more.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl DerefMut for GuardedBytes<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the guard is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn new_block_is_zeroed_and_aligned_though_its_memory_was_used() {
        for _ in 0..3 {
            for len in [1, 8, 200, 40_000, 200_000] {
                let block = Block::new(len).unwrap();
                assert_eq!((block.len(), block.address() % 64), (len, 0));
                for offset in 0..len {
                    assert_eq!(block.load::<u8>(offset), Some(0), "offset {offset} of {len}");
                    assert!(block.store(offset, 0xFF_u8));
                }
            }
        }
    }

    #[test]
    fn written_block_holds_what_was_written() {
        let block = Block::written(100_000, |bytes| bytes.fill(7)).unwrap();
        assert_eq!((block.len(), block.address() % 64), (100_000, 0));
        assert!((0..block.len()).all(|offset| block.load::<u8>(offset) == Some(7)));
    }

    #[test]
    fn block_whose_writing_panics_is_freed() {
        let before = blocks_of_this_process();
        let panicked = std::panic::catch_unwind(|| Block::written(300_000, |_| panic!("no")));
        assert!(panicked.is_err());
        assert_eq!(blocks_of_this_process(), before);
    }

    /// Blocks of the size that no other test in this process uses.
    fn blocks_of_this_process() -> usize {
        let arena = Arena::current().unwrap();
        let mut count = 0;
        arena.for_each_block(|place, _, _| {
            count += usize::from((300_000..400_000).contains(&place.size));
        });
        count
    }

    #[test]
    fn empty_block_has_no_words() {
        let block = Block::new(0).unwrap();
        assert!(block.is_empty());
        assert_eq!(block.load::<u8>(0), None);
    }

    #[test]
    fn words_keep_their_value_and_their_neighbours() {
        let block = Block::new(24).unwrap();
        assert!(block.store(8, -1.5_f64));
        assert!(block.store(16, -3_i16));
        assert_eq!(block.load::<f64>(8), Some(-1.5));
        assert_eq!(block.load::<i16>(16), Some(-3));
        assert_eq!(block.load::<u16>(18), Some(0));
        assert_eq!(block.load::<u64>(0), Some(0));
    }

    #[test]
    fn words_outside_or_misaligned_are_refused() {
        let block = Block::new(9).unwrap();
        assert_eq!(block.load::<u64>(8), None);
        assert_eq!(block.load::<u32>(2), None);
        assert_eq!(block.load::<u16>(usize::MAX - 1), None);
        assert!(!block.store(usize::MAX, 1_u8));
        assert!(!block.store(9, 1_u8));
    }

    #[test]
    fn more_than_there_is_memory_is_an_error() {
        for len in [usize::MAX, usize::MAX - 1, isize::MAX as usize, 1 << 60] {
            assert!(matches!(Block::new(len), Err(ArenaError::OutOfMemory { .. })), "{len}");
        }
    }

    #[test]
    fn guarded_bytes_are_not_opened_as_a_block() {
        let guarded = Guarded::new(8).unwrap();
        let (raw, _pins) = crate::shm::pack(|| guarded.shared.pack().unwrap().raw());
        assert!(matches!(Block::open(raw), Err(ArenaError::Stale { .. })));
    }

    #[test]
    fn held_lock_keeps_others_out() {
        let guarded = Guarded::new(4).unwrap();
        let same = guarded.clone();
        let mut bytes = guarded.lock();
        bytes.copy_from_slice(b"held");
        assert!(same.try_lock().is_none());
        drop(bytes);
        assert_eq!(*same.try_lock().unwrap(), *b"held");
    }
}
