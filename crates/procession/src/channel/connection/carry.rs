//! What processes of a tree have beside a pipe: a mailbox, and a bell.
//!
//! What names a shared object, such as a queue, is a number; somebody must hold the object until
//! the reader does. A queue holds what is in it, but a pipe is the kernel's. So a pipe between
//! processes of a tree has a mailbox beside it, an object in the arena that both ends hold. The
//! message is [left](Mailbox::leave) there, as a parcel with references to what it names, and the
//! stream carries the parcel's number. A long message goes the same way, since it is then copied
//! once instead of twice.
//!
//! A pipe holds little, so that a sender waits for a receiver that is slow. Therefore the bytes in
//! the mailbox are counted, and from [`ROOM`] on a sender should take the stream. The count is
//! advice: a process that is killed between counting and sending, or between receiving and
//! counting, leaves it too high, and the pipe is then no faster than others.
//!
//! The sender of a message that would fill the stream many times over waits a short time for room.
//! If nobody collects anything meanwhile, it is the stream that makes it wait.
//!
//! Somebody who reads the descriptor by himself gets the numbers and not the messages. So once it
//! has been [told](Mailbox::tell_stream_is_read) that this may be, it has no room for long ones.
//!
//! The bell is a word that changes after each write to the stream, so that a receiver can see a
//! message come without a system call.
//!
//! | died                       | what becomes of the parcel                                    |
//! |----------------------------|---------------------------------------------------------------|
//! | sender, before it was sent | goes with the mailbox                                         |
//! | sender, afterwards         | is read as if nothing had happened                            |
//! | reader, having taken it    | is freed with all that is the reader's                        |
//! | both ends                  | goes with the mailbox, which goes with the last reference     |
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::time::{Duration, Instant};

use crate::channel::message::Message;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, futex};
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins, Shared, ShmSafe, shared_handle};
use crate::sync::spin::WakerCpu;

/// From this many bytes in it on, a mailbox has no room.
const ROOM: u64 = 64 << 20;

/// Only for messages of at least this many bytes it pays to wait for room.
const WORTH_WAITING: u64 = 1 << 20;

/// For so many bytes of a message, a microsecond is waited: about what the stream would take.
const BYTES_PER_US: u64 = 512;

/// The longest wait for room.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the arena holds for a mailbox, beside the references to it and its parcels.
#[derive(Debug)]
#[repr(C)]
struct State {
    /// Bytes that were left and not collected; advice.
    waiting: AtomicU64,
    /// How many messages were collected; senders that wait for room sleep on it.
    collected: AtomicU32,
    /// Not 0 if one may sleep.
    awaited: AtomicU32,
    /// The bell.
    rung: AtomicU32,
    /// Not 0 if somebody may read the stream who does not know of the mailbox.
    told: AtomicU32,
    /// Who rang it last.
    ringer: WakerCpu,
}

// SAFETY: atomics alone, for which every bit pattern is a value, of fixed layout and without a
// pointer.
unsafe impl ShmSafe for State {
    const TAG: u32 = u32::from_le_bytes(*b"mail");
}

/// Keeps messages for whoever reads their numbers from a pipe.
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
/// let number = mailbox.leave(&[&raw?.to_le_bytes()], &pins, 8)?;
/// drop((queue, pins));
///
/// let message = mailbox.collect(number, 8)?;
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

    /// Whether a long message should be left here, and not be sent through the stream: not if
    /// those that nobody has collected have 64 MiB already, or the stream is read by others.
    pub fn has_room(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) < ROOM && self.0.told.load(Ordering::Relaxed) == 0
    }

    /// Does what [`has_room`](Self::has_room) does, for a message of `bytes` bytes. Waits for room
    /// if that is shorter than to send the message through the stream: about 2 ms for each MiB, at
    /// most 1 s, and not for less than 1 MiB. A signal ends the wait.
    pub fn wait_for_room(&self, bytes: u64) -> bool {
        if self.has_room() {
            return true;
        }
        if bytes < WORTH_WAITING {
            return false;
        }
        let most = Duration::from_micros(bytes / BYTES_PER_US).min(LONGEST_WAIT);
        let deadline = Instant::now() + most;
        let state = &self.0;
        loop {
            let collected = state.collected.load(Ordering::SeqCst);
            // Before the last look: whoever collects afterwards sees it.
            state.awaited.store(1, Ordering::SeqCst);
            if self.has_room() {
                return true;
            }
            let told = state.told.load(Ordering::Relaxed) != 0;
            if told || futex::wait(&state.collected, collected, Some(deadline)).is_err() {
                return false;
            }
        }
    }

    /// Says that the stream may be read by somebody who does not know of the mailbox.
    pub fn tell_stream_is_read(&self) {
        self.0.told.store(1, Ordering::Relaxed);
    }

    /// Leaves a message, which is in several parts, one behind the other, and returns the number
    /// by which it is collected. `weight` is how many bytes count for [`has_room`](Self::has_room)
    /// until then. Does not block.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] and [`ArenaError::TooManyReferences`].
    pub fn leave(&self, parts: &[&[u8]], pins: &Pins, weight: u64) -> Result<u64, ArenaError> {
        let owner = Owner::Block(self.0.handle());
        let parcel = Arena::current()?.store_parcel(parts, pins, owner)?;
        self.0.waiting.fetch_add(weight, Ordering::Relaxed);
        Ok(parcel.raw())
    }

    /// Takes a message out that was left with this number and weight. Does not block.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when no such message is here, or somebody has collected it before.
    pub fn collect(&self, number: u64, weight: u64) -> Result<Message, ArenaError> {
        let parcel = Handle::from_raw(number);
        Arena::current()?.take_parcel(parcel, Owner::Block(self.0.handle()))?;
        let less = |waiting: u64| Some(waiting.saturating_sub(weight));
        let _ = self.0.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.0.collected.fetch_add(1, Ordering::SeqCst);
        if self.0.awaited.load(Ordering::SeqCst) != 0 {
            self.0.awaited.store(0, Ordering::SeqCst);
            futex::wake(&self.0.collected, u32::MAX);
        }
        Ok(Message::parcel(parcel))
    }
}

shared_handle!(Mailbox, "mailbox", [0], |state| Ok(Self(state)); open, note, id);

/// One end's view of the bell of a mailbox.
#[derive(Debug)]
pub(super) struct Bell {
    mailbox: Mailbox,
    /// The bell's number after this end has rung it last.
    own: AtomicU32,
    /// Where the other end rang it last before that.
    peer: WakerCpu,
    /// The bell's number at which this end has received all that was announced. Advice: an end that
    /// several processes or threads use may be wrong about it.
    quiet: AtomicU32,
}

impl Bell {
    pub(super) fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox,
            own: AtomicU32::new(0),
            peer: WakerCpu::default(),
            quiet: AtomicU32::new(0),
        }
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Says that something was written to the stream.
    pub(super) fn ring(&self) {
        let state = &self.mailbox.0;
        if self.rung() != self.own.load(Ordering::Relaxed) {
            self.peer.take_over(&state.ringer);
        }
        state.ringer.note();
        let before = state.rung.fetch_add(1, Ordering::Release);
        let after = before.wrapping_add(1);
        self.own.store(after, Ordering::Relaxed);
        if self.is_quiet(before) {
            self.set_quiet(after);
        }
    }

    /// Whether nothing has been announced up to this number of the bell that this end has not
    /// received, as far as it knows.
    pub(super) fn is_quiet(&self, rung: u32) -> bool {
        self.quiet.load(Ordering::Relaxed) == rung
    }

    /// Says that there was nothing to receive after this number was seen.
    pub(super) fn set_quiet(&self, rung: u32) {
        self.quiet.store(rung, Ordering::Relaxed);
    }

    /// Says that this end has begun to receive a message.
    pub(super) fn answered(&self) {
        let quiet = self.quiet.load(Ordering::Relaxed);
        // One may be read before it is announced.
        if quiet != self.rung() {
            self.set_quiet(quiet.wrapping_add(1));
        }
    }

    /// A number that is another one after each [`ring`](Self::ring).
    pub(super) fn rung(&self) -> u32 {
        self.mailbox.0.rung.load(Ordering::Acquire)
    }

    /// Whether the other end has last rung on the CPU that the caller is on.
    pub(super) fn rings_here(&self) -> bool {
        if self.rung() == self.own.load(Ordering::Relaxed) {
            self.peer.is_here()
        } else {
            self.mailbox.0.ringer.is_here()
        }
    }
}
