//! The mapped arena as words and bytes: the one place of this layer that turns offsets into
//! references.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::primitive::AtomicU64;
use crate::shm::error::ArenaError;
use crate::shm::layout::{LEAST_UNITS, MOST_UNITS, UNIT};
use crate::shm::robust::RobustLock;
use crate::sys::memory;

/// Types that may live in the arena.
///
/// # Safety
///
/// Every bit pattern, zero included, must be a value of the type; its layout must be fixed
/// (`repr(C)` or `repr(transparent)`); it must be aligned to 64 bytes at most, hold no pointer,
/// and its `&self` methods must stay sound while other processes call them on the same bytes.
pub(crate) unsafe trait ShmSafe: Sync + Sized + 'static {
    /// Tells objects of this type from others, so that a handle is not opened as another type.
    /// Four letters, by custom.
    const TAG: u32;
}

// SAFETY: one atomic word; zero is a free lock, any other value one held by some member.
unsafe impl ShmSafe for RobustLock {
    const TAG: u32 = u32::from_le_bytes(*b"rlck");
}

/// The mapping, and the descriptor that children inherit.
#[derive(Debug)]
pub(super) struct Memory {
    mapping: memory::Mapping,
    fd: OwnedFd,
}

impl Memory {
    /// Makes a new file and reserves as much address space as the system allows.
    pub(super) fn create() -> Result<Self, ArenaError> {
        let mut units = MOST_UNITS;
        loop {
            let len = units as u64 * UNIT;
            let made = memory::memfd("procession-arena", len)
                .and_then(|fd| Ok((memory::Mapping::map(fd.as_fd(), len as usize)?, fd)));
            match made {
                Ok((mapping, fd)) => return Ok(Self { mapping, fd }),
                Err(_) if units > LEAST_UNITS => units /= 2,
                Err(error) => return Err(ArenaError::os("mmap")(error)),
            }
        }
    }

    /// Maps the file that a parent made.
    pub(super) fn adopt(fd: OwnedFd) -> Result<Self, ArenaError> {
        let len = memory::file_size(fd.as_fd()).map_err(ArenaError::os("fstat"))?;
        if len < LEAST_UNITS as u64 * UNIT || len > MOST_UNITS as u64 * UNIT {
            return Err(ArenaError::NotAnArena);
        }
        let mapping =
            memory::Mapping::map(fd.as_fd(), len as usize).map_err(ArenaError::os("mmap"))?;
        Ok(Self { mapping, fd })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn units(&self) -> usize {
        (self.mapping.len() as u64 / UNIT) as usize
    }

    /// Where a range of the arena is in this process.
    ///
    /// Panics unless the range lies in the mapping: offsets come from handles and tables whose
    /// generation was checked, so another one is a bug and must not reach memory.
    #[inline]
    pub(super) fn address(&self, offset: u64, len: u64, align: u64) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(
            offset.is_multiple_of(align) && end.is_some_and(|end| end <= self.mapping.len() as u64),
            "offset {offset:#x} with {len} bytes is outside the arena or misaligned",
        );
        // SAFETY: the range was just checked to lie inside the mapping.
        unsafe { self.mapping.base().add(offset as usize) }
    }

    #[inline]
    fn pointer(&self, offset: u64, len: u64, align: u64) -> *mut u8 {
        self.address(offset, len, align).as_ptr()
    }

    /// Where the address is in the arena.
    pub(super) fn offset_of(&self, address: usize) -> u64 {
        let offset = address.wrapping_sub(self.mapping.base().as_ptr().addr());
        assert!(offset < self.mapping.len(), "the address lies outside the arena");
        offset as u64
    }

    #[inline]
    pub(super) fn word(&self, offset: u64) -> &AtomicU64 {
        let pointer = self.pointer(offset, 8, 8).cast::<AtomicU64>();
        // SAFETY:
        // - Alive, aligned: the mapping lives as long as `self`; both were checked.
        // - Valid, shared: any bits are an `AtomicU64`, and words are only touched as atomics.
        unsafe { &*pointer }
    }

    #[inline]
    pub(super) fn words(&self, offset: u64, count: usize) -> &[AtomicU64] {
        let pointer = self.pointer(offset, 8 * count as u64, 8).cast::<AtomicU64>();
        // SAFETY: as in `word`, for `count` neighbours inside the mapping.
        unsafe { std::slice::from_raw_parts(pointer, count) }
    }

    /// One of the locks of the header.
    pub(super) fn lock(&self, offset: u64) -> &RobustLock {
        // SAFETY: the header's locks are at offsets that are used for nothing else.
        unsafe { self.object(offset) }
    }

    /// # Safety
    ///
    /// While the reference is used, every process must treat these bytes as a `T`.
    pub(super) unsafe fn object<T: ShmSafe>(&self, offset: u64) -> &T {
        let pointer = self.pointer(offset, size_of::<T>() as u64, align_of::<T>() as u64);
        // SAFETY:
        // - Alive, aligned: checked above; the mapping lives as long as `self`.
        // - Valid: `ShmSafe` promises that every bit pattern is a `T`.
        // - Shared: `ShmSafe` promises that `T` copes with other processes at work on it, and
        //   the caller that they all treat the bytes as a `T`.
        unsafe { &*pointer.cast::<T>() }
    }

    /// Copies `bytes` to `offset`. The caller owns the block or the part of it that is written.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let target = self.pointer(offset, bytes.len() as u64, 1);
        // SAFETY: the target range lies in the mapping and cannot overlap `bytes`, which is
        // ordinary memory of this process. Nobody reads the range before it is published.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    /// Lets `write` fill bytes that hold what their last user left. The caller owns the block.
    pub(super) fn fill<R>(&self, offset: u64, len: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let target = self.pointer(offset, len as u64, 1);
        // SAFETY:
        // - Alive, valid: inside the mapping, which lives as long as `self`; any byte is a `u8`.
        // - Alone: the caller owns the block and has told nobody of it, so nothing else in this
        //   process or another reads or writes these bytes while the reference lives.
        let bytes = unsafe { std::slice::from_raw_parts_mut(target, len) };
        write(bytes)
    }

    pub(super) fn zero(&self, offset: u64, len: u64) {
        let target = self.pointer(offset, len, 1);
        // SAFETY: inside the mapping; the caller owns the block, so nobody else touches it.
        unsafe { std::ptr::write_bytes(target, 0, len as usize) }
    }

    /// The bytes at `offset`, which must belong to a block that nobody changes meanwhile.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let source = self.pointer(offset, len as u64, 1);
        // SAFETY: inside the mapping and alive as long as `self`. Payload is written once,
        // before it is published, and stays unchanged until its block is freed, which the
        // callers rule out by holding the block. A process that breaks this by writing through
        // a stale handle can make the bytes change, but they are never interpreted as anything
        // but bytes.
        unsafe { std::slice::from_raw_parts(source, len) }
    }

    /// Gives the pages of a range back to the system; false if it does not take them.
    pub(super) fn give_back(&self, offset: u64, len: u64) -> bool {
        memory::punch_hole(self.fd.as_fd(), offset, len).is_ok()
    }

    pub(super) fn resident(&self) -> u64 {
        memory::resident_bytes(self.fd.as_fd()).unwrap_or(0)
    }
}
