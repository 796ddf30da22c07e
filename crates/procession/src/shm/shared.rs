//! Typed handles to reference-counted objects of the arena.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::primitive::Ordering;
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::memory::ShmSafe;
use crate::shm::parcel;
use crate::shm::refs::{LENGTH, OBJECT_HEADER, TAG};
use crate::shm::word::{ALIGN, Handle, Member, Owner, State};

/// One reference of this process to an object: an entry in its ledger.
#[derive(Debug)]
pub(crate) struct Held {
    handle: Handle,
    entry: usize,
    /// The process that made the entry; forked copies of it have the entry too.
    holder: Member,
}

impl Held {
    /// Adds a reference to an object, whatever its type, that a parcel or another reference holds.
    pub(super) fn another(arena: &Arena, handle: Handle) -> Result<Self, ArenaError> {
        let entry = arena.hold(handle)?;
        Ok(Self { handle, entry, holder: arena.me() })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Ok(arena) = Arena::current() {
            arena.drop_held(self.handle, self.entry, self.holder);
        }
    }
}

/// A block that is to become an object; it is freed if that fails.
struct Unmade<'a> {
    arena: &'a Arena,
    block: Handle,
}

impl Unmade<'_> {
    fn made(self) -> Handle {
        let block = self.block;
        std::mem::forget(self);
        block
    }
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        self.arena.free(self.block);
    }
}

/// A reference-counted `T` in the arena. Clones share one reference; the object goes with the
/// last reference of the last process, however that process ends.
pub(crate) struct Shared<T> {
    held: Arc<Held>,
    /// The object, which stays where it is while `held` holds it.
    object: NonNull<T>,
}

// SAFETY: a handle gives no more than `&T`, which `ShmSafe` makes usable from anywhere at once;
// `Held` is a few numbers.
unsafe impl<T: ShmSafe> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: ShmSafe> Sync for Shared<T> {}

impl<T: ShmSafe> Shared<T> {
    /// Where the data of an object begins in its block: aligned like the block.
    const DATA: u64 = OBJECT_HEADER + (size_of::<T>() as u64).next_multiple_of(ALIGN);

    /// Makes a new object: zeroed memory, handed to `init` before anybody else can see it.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when the arena is at its limit, or what making one reports.
    pub(crate) fn new(init: impl FnOnce(&T)) -> Result<Self, ArenaError> {
        Self::with_data(0, init)
    }

    /// Makes a new object with `len` zeroed bytes of data behind its value; see [`new`](Self::new).
    pub(crate) fn with_data(len: usize, init: impl FnOnce(&T)) -> Result<Self, ArenaError> {
        Self::make(len, init, |arena, at| arena.memory.zero(at, len as u64))
    }

    /// Does what [`with_data`](Self::with_data) does, for data that `write` writes; it finds there
    /// what the last user of the memory left. Nobody else can see it before it is done.
    pub(crate) fn with_written_data(
        len: usize,
        init: impl FnOnce(&T),
        write: impl FnOnce(&mut [u8]),
    ) -> Result<Self, ArenaError> {
        Self::make(len, init, |arena, at| arena.memory.fill(at, len, write))
    }

    fn make(
        len: usize,
        init: impl FnOnce(&T),
        fill: impl FnOnce(&Arena, u64),
    ) -> Result<Self, ArenaError> {
        const { assert!(align_of::<T>() as u64 <= OBJECT_HEADER) };
        let arena = Arena::current()?;
        let me = arena.me();
        let value_end = OBJECT_HEADER as usize + size_of::<T>();
        // No block is as large as what overflows, so the arena refuses it.
        let size = match len {
            0 => value_end,
            _ => (Self::DATA as usize).saturating_add(len),
        };
        let unmade = Unmade { arena, block: arena.alloc(size, Owner::Member(me))? };
        let offset = arena.place(unmade.block)?.offset;
        arena.memory.zero(offset, value_end as u64);
        arena.memory.word(offset + TAG).store(u64::from(T::TAG), Ordering::Relaxed);
        arena.memory.word(offset + LENGTH).store(len as u64, Ordering::Relaxed);
        // SAFETY: the block is new, so this process alone has it, and as a `T`.
        init(unsafe { arena.memory.object(offset + OBJECT_HEADER) });
        if len > 0 {
            fill(arena, offset + Self::DATA);
        }
        let entry = arena.adopt_object(unmade.block)?;
        let handle = unmade.made();
        Ok(Self::with(arena, Held { handle, entry, holder: me }, offset))
    }

    /// Adds a reference to the object that another reference, or a message, still holds.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when the object is gone or is no `T`.
    pub(crate) fn open(handle: Handle) -> Result<Self, ArenaError> {
        let arena = Arena::current()?;
        let held = Held::another(arena, handle)?;
        let offset = arena.place(handle)?.offset;
        let tag = arena.memory.word(offset + TAG).load(Ordering::Relaxed);
        if tag != u64::from(T::TAG) {
            return Err(ArenaError::Stale { handle });
        }
        Ok(Self::with(arena, held, offset))
    }

    fn with(arena: &'static Arena, held: Held, offset: u64) -> Self {
        // SAFETY: `held` keeps the object alive, its tag was written or checked, and objects with
        // that tag are used as `T` by every process.
        let object = unsafe { arena.memory.object::<T>(offset + OBJECT_HEADER) };
        Self { held: Arc::new(held), object: NonNull::from(object) }
    }

    /// The data behind the value: address and length in bytes. It stays there while this handle or
    /// a clone of it lives.
    pub(crate) fn data(&self) -> Result<(NonNull<u8>, usize), ArenaError> {
        let arena = Arena::current()?;
        let place = arena.place(self.handle())?;
        let len = arena.memory.word(place.offset + LENGTH).load(Ordering::Relaxed);
        let (at, room) = if len == 0 { (0, 0) } else { (Self::DATA, place.size) };
        if at.saturating_add(len) > room {
            return Err(ArenaError::Stale { handle: self.handle() });
        }
        Ok((arena.memory.address(place.offset + at, len, ALIGN), len as usize))
    }

    /// The data behind the value as bytes, for objects whose data nobody writes once they are made.
    pub(crate) fn data_bytes(&self) -> Result<&[u8], ArenaError> {
        let (address, len) = self.data()?;
        let arena = Arena::current()?;
        let offset = if len == 0 { 0 } else { arena.memory.offset_of(address.addr().get()) };
        Ok(arena.memory.bytes(offset, len))
    }
}

impl<T: ShmSafe> Shared<T> {
    /// Adds a zeroed `P` to the object, which it goes with.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when the arena is at its limit.
    pub(crate) fn add_part<P: ShmSafe>(&self) -> Result<Handle, ArenaError> {
        const { assert!(align_of::<P>() as u64 <= OBJECT_HEADER) };
        let arena = Arena::current()?;
        let size = OBJECT_HEADER as usize + size_of::<P>();
        let block = arena.alloc(size, Owner::Member(arena.me()))?;
        let offset = arena.place(block)?.offset;
        arena.memory.zero(offset, size as u64);
        let tag = arena.memory.word(offset + TAG);
        tag.store(u64::from(P::TAG), crate::primitive::Ordering::Relaxed);
        arena.give(block, Owner::Block(self.handle()))?;
        Ok(block)
    }

    /// A part that was added to the object.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when `part` is no part of this object, or no `P`.
    pub(crate) fn part<P: ShmSafe>(&self, part: Handle) -> Result<&P, ArenaError> {
        let arena = Arena::current()?;
        let place = arena.place(part)?;
        let state = State::unpack(place.state.load(crate::primitive::Ordering::Acquire));
        let tag = arena.memory.word(place.offset + TAG).load(crate::primitive::Ordering::Relaxed);
        if state.kind != Owner::Block(self.handle()).into() || tag != u64::from(P::TAG) {
            return Err(ArenaError::Stale { handle: part });
        }
        // SAFETY: the block belongs to the object, which `self` keeps alive for as long as the
        // reference lives, so it is not freed; its tag, written before it was given to the object,
        // says that every process uses it as a `P`.
        Ok(unsafe { arena.memory.object::<P>(place.offset + OBJECT_HEADER) })
    }
}

impl<T> Shared<T> {
    /// The number by which every process of the tree knows the object.
    pub(crate) fn handle(&self) -> Handle {
        self.held.handle
    }

    /// Enters the object into the parcel that this thread is packing.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] when it packs none.
    pub(crate) fn pack(&self) -> Result<Handle, ArenaError> {
        if parcel::note(&self.held) { Ok(self.held.handle) } else { Err(ArenaError::OutsideTree) }
    }
}

impl<T: ShmSafe> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: it came from a reference to an object that `held` keeps alive, in a mapping that
        // stays for as long as the process runs.
        unsafe { self.object.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), object: self.object }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.held.handle).finish()
    }
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let handle = self.pack().map_err(serde::ser::Error::custom)?;
        handle.raw().serialize(serializer)
    }
}

impl<'de, T: ShmSafe> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let handle = Handle::from_raw(u64::deserialize(deserializer)?);
        Self::open(handle).map_err(serde::de::Error::custom)
    }
}
