//! Bytes on their way to another process, together with the shared objects they name.
//!
//! Objects are serialized as handles, which are mere numbers. So that an object lives on while
//! only a message names it, serializing happens inside [`pack`], which notes the objects, and
//! the message becomes a *parcel*: a block that begins with places that hold references.
//!
//! | bytes of the block | contents                                       |
//! |--------------------|------------------------------------------------|
//! | 0–7                | number of places                               |
//! | 8–15               | number of payload bytes                        |
//! | 16…                | places, one word each: 0 or a handle           |
//! | behind             | payload                                        |
//!
//! The places are zeroed before the block's state says that it is a parcel, so whoever frees it,
//! at whatever point its maker died, finds only places that are empty or hold a reference.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::primitive::Ordering;
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::shared::Held;
use crate::shm::word::{Handle, Kind, Owner, State};

thread_local! {
    /// How many objects the innermost `pack` of this thread has noted, `None` outside.
    static PACKING: Cell<Option<usize>> = const { Cell::new(None) };
    /// The objects that this thread's calls of `pack` have noted, the innermost last. Most
    /// messages name none, and then this is not touched.
    static NOTED: RefCell<Vec<Arc<Held>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the objects alive that a piece of serialized data names.
#[derive(Debug, Default)]
pub struct Pins(Vec<Arc<Held>>);

impl Pins {
    /// Whether the data names no shared object.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These objects and those of `more`.
    pub(crate) fn and(&self, more: &Self) -> Self {
        let mut all = self.0.clone();
        for held in &more.0 {
            if !all.iter().any(|known| known.handle() == held.handle()) {
                all.push(held.clone());
            }
        }
        Self(all)
    }
}

/// Serialized data and the shared objects that it names.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    pins: Pins,
}

impl Parcel {
    /// Puts data and the objects that [`pack`] noted for it together.
    pub fn new(bytes: Vec<u8>, pins: Pins) -> Self {
        Self { bytes, pins }
    }

    /// The serialized data.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The objects that the data names.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

/// Runs `serialize`, inside which shared objects may be serialized, and notes those that were.
#[inline]
pub fn pack<R>(serialize: impl FnOnce() -> R) -> (R, Pins) {
    let packing = Packing { outer: PACKING.replace(Some(0)) };
    let result = serialize();
    let pins = match PACKING.get() {
        None | Some(0) => Pins::default(),
        Some(count) => packing.take(count),
    };
    (result, pins)
}

/// Restores the state of the outer `pack` when the inner one ends, also by a panic.
struct Packing {
    outer: Option<usize>,
}

impl Packing {
    #[cold]
    fn take(&self, count: usize) -> Pins {
        PACKING.set(Some(0));
        NOTED.with_borrow_mut(|noted| Pins(noted.split_off(noted.len() - count)))
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        // After a panic what was noted has not been taken.
        if let Some(count) = PACKING.get()
            && count > 0
        {
            self.take(count);
        }
        PACKING.set(self.outer);
    }
}

/// Whether this thread is inside [`pack`].
pub fn is_packing() -> bool {
    PACKING.get().is_some()
}

/// Adds an object to the parcel in the making; false if there is none.
pub(super) fn note(held: &Arc<Held>) -> bool {
    let Some(count) = PACKING.get() else { return false };
    NOTED.with_borrow_mut(|noted| {
        let known = &noted[noted.len() - count..];
        if !known.iter().any(|other| other.handle() == held.handle()) {
            noted.push(held.clone());
            PACKING.set(Some(count + 1));
        }
    });
    true
}

const PLACES: usize = 16;

fn payload_at(places: usize) -> usize {
    PLACES + 8 * places
}

fn length_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl Arena {
    /// Puts the bytes of `parts`, one behind the other, and references to the objects of `pins`
    /// into a new block.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] and [`ArenaError::TooManyReferences`].
    pub(crate) fn store_parcel(
        &self,
        parts: &[&[u8]],
        pins: &Pins,
        owner: Owner,
    ) -> Result<Handle, ArenaError> {
        let len = payload_at(pins.0.len()) + length_of(parts);
        let block = self.alloc(len, Owner::Member(self.me()))?;
        let result = self.fill(block, parts, pins).and_then(|()| self.give(block, owner));
        if result.is_err() {
            self.free(block);
        }
        result.map(|()| block)
    }

    fn fill(&self, block: Handle, parts: &[&[u8]], pins: &Pins) -> Result<(), ArenaError> {
        let place = self.place(block)?;
        let count = pins.0.len();
        self.memory.word(place.offset).store(count as u64, Ordering::Relaxed);
        self.memory.word(place.offset + 8).store(length_of(parts) as u64, Ordering::Relaxed);
        self.memory.zero(place.offset + PLACES as u64, 8 * count as u64);
        if count > 0 {
            let state = State::unpack(place.state.load(Ordering::Acquire));
            self.change(place, block, state, State { parcel: true, ..state })?;
        }
        for (index, held) in pins.0.iter().enumerate() {
            self.acquire(held.handle(), place.offset + (PLACES + 8 * index) as u64)?;
        }
        let mut at = place.offset + payload_at(count) as u64;
        for part in parts {
            self.memory.write(at, part);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes this process the owner of a parcel that belongs to `from`, which owns nothing else.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when there is no such parcel, or not any more.
    pub(crate) fn take_parcel(&self, block: Handle, from: Owner) -> Result<(), ArenaError> {
        let place = self.place(block)?;
        let state = State::unpack(place.state.load(Ordering::Acquire));
        if state.kind != Kind::from(from) {
            return Err(ArenaError::Stale { handle: block });
        }
        let mine = State { kind: Kind::OfMember(self.me()), ..state };
        self.change(place, block, state, mine)
    }

    /// Drops the references that a parcel holds.
    pub(super) fn empty_parcel(&self, block: Handle) {
        let Ok(place) = self.place(block) else { return };
        let count = self.memory.word(place.offset).load(Ordering::Acquire);
        for index in 0..count.min(place.size / 8 - 2) {
            let at = place.offset + PLACES as u64 + 8 * index;
            let held = Handle::from_raw(self.memory.word(at).load(Ordering::Acquire));
            if !held.is_none() {
                self.let_go(held, at);
            }
        }
    }

    /// References of this process to the objects that a parcel holds. It must not be freed meanwhile.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when there is no such parcel, [`ArenaError::TooManyReferences`].
    pub(crate) fn parcel_pins(&self, block: Handle) -> Result<Pins, ArenaError> {
        let place = self.place(block)?;
        if !State::unpack(place.state.load(Ordering::Acquire)).parcel {
            return Ok(Pins::default());
        }
        let count = self.memory.word(place.offset).load(Ordering::Acquire);
        let mut pins = Vec::new();
        for index in 0..count.min(place.size / 8 - 2) {
            let at = place.offset + PLACES as u64 + 8 * index;
            let held = Handle::from_raw(self.memory.word(at).load(Ordering::Acquire));
            pins.push(Arc::new(Held::another(self, held)?));
        }
        Ok(Pins(pins))
    }

    /// The payload of a parcel, which must not be freed meanwhile.
    pub(crate) fn parcel_bytes(&self, block: Handle) -> Result<&[u8], ArenaError> {
        let place = self.place(block)?;
        let places = self.memory.word(place.offset).load(Ordering::Acquire);
        let len = self.memory.word(place.offset + 8).load(Ordering::Acquire);
        let start = (PLACES as u64).checked_add(places.saturating_mul(8));
        let fits =
            start.is_some_and(|start| start.checked_add(len).is_some_and(|end| end <= place.size));
        if !fits {
            return Err(ArenaError::Stale { handle: block });
        }
        Ok(self.memory.bytes(place.offset + payload_at(places as usize) as u64, len as usize))
    }
}
