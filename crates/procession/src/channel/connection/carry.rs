//! Shared objects inside the messages of a pipe.
//!
//! What names a shared object, such as a queue, is a number; somebody must hold the object until
//! the reader does. A queue holds what is in it, but a pipe is the kernel's. So a pipe between
//! processes of a tree has a mailbox beside it, an object in the arena that both ends hold. The
//! message is [left](Mailbox::leave) there, as a parcel with references to what it names, and the
//! stream carries the parcel's number.
//!
//! | died                       | what becomes of the parcel                                    |
//! |----------------------------|---------------------------------------------------------------|
//! | sender, before it was sent | goes with the mailbox                                         |
//! | sender, afterwards         | is read as if nothing had happened                            |
//! | reader, having taken it    | is freed with all that is the reader's                        |
//! | both ends                  | goes with the mailbox, which goes with the last reference     |
#![allow(unsafe_code)] // Listed in SAFETY.md.

use crate::channel::message::Message;
use crate::primitive::AtomicU64;
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins, Shared, ShmSafe};

/// What the arena holds for a mailbox: nothing but the references to it, and its parcels.
#[derive(Debug)]
#[repr(C)]
struct State {
    unused: AtomicU64,
}

// SAFETY: an atomic, for which every bit pattern is a value, of fixed layout and without a pointer.
unsafe impl ShmSafe for State {
    const TAG: u32 = u32::from_le_bytes(*b"mail");
}

/// Keeps messages that name shared objects for whoever reads their numbers from a pipe.
///
/// # Examples
///
/// ```
/// use procession::channel::ByteQueue;
/// use procession::channel::connection::Mailbox;
/// use procession::shm::pack;
///
/// let mailbox = Mailbox::new()?;
/// let queue = ByteQueue::new(0)?;
/// queue.put(b"still here", None)?;
/// let (raw, pins) = pack(|| queue.note());
/// let number = mailbox.leave(&raw?.to_le_bytes(), &pins)?;
/// drop((queue, pins));
///
/// let message = mailbox.collect(number)?;
/// let queue = ByteQueue::open(u64::from_le_bytes(message[..].try_into()?))?;
/// assert_eq!(&queue.get(None)?[..], b"still here");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mailbox(Shared<State>);

impl Mailbox {
    /// Makes a mailbox.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new() -> Result<Self, ArenaError> {
        Shared::new(|_: &State| {}).map(Self)
    }

    /// The mailbox that `raw`, a number from [`note`](Self::note), stands for.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when there is no such mailbox any more.
    pub fn open(raw: u64) -> Result<Self, ArenaError> {
        Shared::open(Handle::from_raw(raw)).map(Self)
    }

    /// The number that stands for the mailbox in the data which [`pack`](crate::shm::pack) is
    /// packing on this thread.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] outside of `pack`.
    pub fn note(&self) -> Result<u64, ArenaError> {
        self.0.pack().map(Handle::raw)
    }

    /// The number that tells this mailbox from all others of the tree.
    pub fn id(&self) -> u64 {
        self.0.handle().raw()
    }

    /// Leaves a message, and returns the number by which it is collected. Does not block.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] and [`ArenaError::TooManyReferences`].
    pub fn leave(&self, message: &[u8], pins: &Pins) -> Result<u64, ArenaError> {
        let owner = Owner::Block(self.0.handle());
        Ok(Arena::current()?.store_parcel(message, pins, owner)?.raw())
    }

    /// Takes a message out. Does not block.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when no such message is here, or somebody has collected it before.
    pub fn collect(&self, number: u64) -> Result<Message, ArenaError> {
        let parcel = Handle::from_raw(number);
        Arena::current()?.take_parcel(parcel, Owner::Block(self.0.handle()))?;
        Ok(Message::parcel(parcel))
    }
}
