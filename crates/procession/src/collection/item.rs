//! Values on their way into a container and out of it, and the word that stands for one inside.
//!
//! | bits 60–63 | the rest of the word                                                          |
//! |------------|-------------------------------------------------------------------------------|
//! | 0          | handle of a parcel with the bytes; 0 as a whole is "no value"                  |
//! | 1          | handle of a parcel that names an object, which has the bytes                   |
//! | 8 + n      | n bytes, at most seven, in bits 0–55                                           |
//!
//! Small values are copied out with the lock held. Of large ones the reader takes a reference to the
//! object, so that it copies or decodes them with the lock released.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

use crate::collection::state::Payload;
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins, Shared, pack};

/// Values of this size on are objects of their own, in bytes.
const LARGE: usize = 32 << 10;
/// So many bytes of a value need no memory besides its word.
const IN_WORD: usize = 7;
/// Bytes of a value read that need no allocation.
const ON_STACK: usize = 48;

const TAG_SHIFT: u32 = 60;
const APART: u64 = 1;
const INLINE: u64 = 8;

/// The word of "no value".
pub(super) const NOTHING: u64 = 0;

/// What a word says.
enum Form {
    Inline { bytes: [u8; 8], len: usize },
    Parcel(Handle),
    Apart(Handle),
}

fn form_of(word: u64) -> Form {
    let tag = word >> TAG_SHIFT;
    let handle = Handle::from_raw(word & ((1 << TAG_SHIFT) - 1));
    match tag {
        0 => Form::Parcel(handle),
        APART => Form::Apart(handle),
        _ => Form::Inline { bytes: word.to_le_bytes(), len: (tag & IN_WORD as u64) as usize },
    }
}

fn inline(parts: &[&[u8]], len: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    u64::from_le_bytes(bytes) | (INLINE | len as u64) << TAG_SHIFT
}

/// The block that a word names, which belongs to the container.
pub(super) fn block_of(word: u64) -> Option<Handle> {
    match form_of(word) {
        Form::Parcel(handle) | Form::Apart(handle) => (!handle.is_none()).then_some(handle),
        Form::Inline { .. } => None,
    }
}

/// Frees what a word stands for that a container has no more.
pub(super) fn free(arena: &Arena, word: u64) {
    if let Some(block) = block_of(word) {
        arena.free(block);
    }
}

/// Whether a word that is no large value stands for bytes that begin with `bytes`.
pub(super) fn begins_with(arena: &Arena, word: u64, bytes: &[u8]) -> bool {
    match form_of(word) {
        Form::Inline { bytes: held, len } => held[..len].starts_with(bytes),
        Form::Parcel(handle) | Form::Apart(handle) => {
            arena.parcel_bytes(handle).is_ok_and(|held| held.starts_with(bytes))
        }
    }
}

/// A value in shared memory that is not in a container yet: this process's own, and freed with this
/// handle, or with the process, unless a container takes it.
///
/// Making one is the part of putting a value in that takes time, so it is done before the lock of
/// the container is taken.
///
/// # Examples
///
/// ```
/// use procession::collection::{ByteList, Item};
/// use procession::shm::Pins;
///
/// let list = ByteList::new()?;
/// let item = Item::new(&[b"head", b"body"], &Pins::default())?;
/// list.lock().extend(vec![item])?;
/// assert_eq!(&*list.lock().get(0)?.unwrap(), b"headbody");
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
pub struct Item {
    word: u64,
}

impl Item {
    /// Puts the bytes of `parts`, one behind the other, into shared memory, with references to the
    /// shared objects that they name.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when shared memory is at its limit, and
    /// [`ArenaError::TooManyReferences`].
    pub fn new(parts: &[&[u8]], pins: &Pins) -> Result<Self, ArenaError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len < LARGE {
            return Self::whole(parts, pins);
        }
        let payload = Shared::<Payload>::with_written_data(
            len,
            |_| (),
            |target| {
                let mut rest = target;
                for part in parts {
                    let (place, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
                    place.copy_from_slice(part);
                    rest = behind;
                }
            },
        )?;
        let (handle, pin) = pack(|| payload.pack());
        let name = handle?.raw().to_le_bytes();
        let parcel = Self::parcel(&[&name], &pins.and(&pin))?;
        Ok(Self { word: parcel.into_word() | APART << TAG_SHIFT })
    }

    /// Does what [`new`](Self::new) does; nothing is apart, however large it is.
    pub(super) fn whole(parts: &[&[u8]], pins: &Pins) -> Result<Self, ArenaError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= IN_WORD && pins.is_empty() {
            return Ok(Self { word: inline(parts, len) });
        }
        Self::parcel(parts, pins)
    }

    fn parcel(parts: &[&[u8]], pins: &Pins) -> Result<Self, ArenaError> {
        let arena = Arena::current()?;
        let handle = arena.store_parcel(parts, pins, Owner::Member(arena.me()))?;
        Ok(Self { word: handle.raw() })
    }

    /// Makes it belong to `container`. Until a word of the container names it, nothing leads to it.
    pub(super) fn give(&self, arena: &Arena, container: Handle) -> Result<(), ArenaError> {
        match block_of(self.word) {
            Some(block) => arena.give(block, Owner::Block(container)),
            None => Ok(()),
        }
    }

    /// The word for it.
    pub(super) fn word(&self) -> u64 {
        self.word
    }

    /// The word for it, which from now on is the container's.
    pub(super) fn into_word(self) -> u64 {
        let word = self.word;
        std::mem::forget(self);
        word
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").finish_non_exhaustive()
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if let Ok(arena) = Arena::current() {
            free(arena, self.word);
        }
    }
}

/// The bytes of a value that was read. The shared objects that they name live at least as long as
/// it does, so they are to be opened before it is dropped.
pub struct Content {
    body: Body,
    _pins: Pins,
}

enum Body {
    Small(SmallVec<[u8; ON_STACK]>),
    Large(Shared<Payload>),
}

impl Content {
    /// Reads what a word of a container stands for. The container's lock is held.
    pub(super) fn read(arena: &Arena, word: u64) -> Result<Self, ArenaError> {
        let (small, pins) = match form_of(word) {
            Form::Inline { bytes, len } => (SmallVec::from_slice(&bytes[..len]), Pins::default()),
            Form::Parcel(handle) => {
                let bytes = arena.parcel_bytes(handle)?;
                (SmallVec::from_slice(bytes), arena.parcel_pins(handle)?)
            }
            Form::Apart(handle) => return Self::read_apart(arena, handle),
        };
        Ok(Self { body: Body::Small(small), _pins: pins })
    }

    fn read_apart(arena: &Arena, parcel: Handle) -> Result<Self, ArenaError> {
        let stale = ArenaError::Stale { handle: parcel };
        let name = arena.parcel_bytes(parcel)?.first_chunk().ok_or(stale)?;
        let payload = Shared::open(Handle::from_raw(u64::from_le_bytes(*name)))?;
        Ok(Self { body: Body::Large(payload), _pins: arena.parcel_pins(parcel)? })
    }
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        match &self.body {
            Body::Small(bytes) => bytes,
            // In a process that has just been forked the object may be gone; then there are no bytes.
            Body::Large(payload) => payload.data_bytes().unwrap_or_default(),
        }
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("len", &self.len()).finish_non_exhaustive()
    }
}
