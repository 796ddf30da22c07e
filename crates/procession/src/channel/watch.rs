//! Descriptors that are readable while there is something to get.
//!
//! A process that asks for one makes a pipe of its own and enters it into a table of the queue.
//! Whoever puts or gets keeps a byte in each of the pipes while the queue has items, or is closed,
//! and none otherwise. A queue that nobody has asked has no table; then all this costs is the load
//! of one word (`watched` of the settings).
//!
//! # Shared state
//!
//! The table is a part of the queue, and so are its further pages.
//!
//! | word       | of    | meaning                                                           |
//! |------------|-------|-------------------------------------------------------------------|
//! | `lock`     | table | held for a change of a slot or a pipe, and for publication         |
//! | `more`     | page  | the next page, 0 for none                                          |
//! | `who`      | slot  | the process; 0 while the slot is free                              |
//! | `pid`, `fd`, `pipe` | slot | the process id, the number of the pipe there, its inode     |
//! | `byte`     | slot  | whether the pipe has a byte: [`NO`], [`YES`], or not known         |
//!
//! The pipe of another process is opened as `/proc/<pid>/fd/<fd>` for the time of the change, and
//! its inode compared. Nothing is kept open: descriptors kept would have to be closed when their
//! owner goes, and changes are no more frequent than the queue runs empty.
//!
//! # Steps
//!
//! | who      | does                                                                        |
//! |----------|-----------------------------------------------------------------------------|
//! | asker    | with the producers' lock and the table's: enters its pipe, stores `watched`, brings the pipe in line |
//! | producer | with the producers' lock: if `watched`, takes the table's lock, puts a byte in each pipe, publishes, releases |
//! | consumer | after it took, or found nothing: if `watched` and the queue is empty, takes the table's lock, looks again, empties the pipes or fills them |
//! | closer   | as a consumer, after it stored `closed`                                      |
//! | leaver   | with the table's lock: `who` = 0; then closes its pipe                        |
//!
//! - The asker has the producers' lock, so no producer is between its look at `watched` and its
//!   publication: each publishes before the asker looks at the queue, or sees the table.
//! - A consumer moves `head`, then looks at `watched`; the asker stores `watched`, then looks at
//!   `head`. Both are sequentially consistent, so that one of them sees the other; if both do, the
//!   lock puts them in order.
//! - Publication happens under the table's lock, and a consumer empties pipes under it only if the
//!   queue is empty at that moment. So a published item is never left without a byte.
//!
//! # When a process dies
//!
//! | killed                           | what is left                                                |
//! |----------------------------------|-------------------------------------------------------------|
//! | producer, before the bytes       | nothing                                                     |
//! | producer, between bytes and publication | pipes are readable and nothing is there: put right by the next get that finds nothing |
//! | consumer, before it empties the pipes | the same                                               |
//! | anybody, with the table's lock   | `byte` may be wrong; the next holder trusts none of them and looks at the pipes themselves |
//! | owner of a pipe                  | a slot that the next one who wants to change its pipe, and finds no such pipe, frees |
//! | asker, before it stored `watched` | a table that nothing names; the next holder of the producers' lock frees it |
//!
//! So a descriptor may be readable once in vain after a death. It is never unreadable while there
//! is something to get, but where its owner cannot be reached: it has changed its user, or the
//! producer has no descriptor left. The next put tries again.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::channel::bytes::{ByteQueue, GRACE};
use crate::channel::state::QueueState;
use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Member, RobustLock, Shared, ShmSafe, Taken};
use crate::sys::{process, signal_pipe};

/// How many slots a page has.
const SLOTS: usize = 20;

/// Values of `byte`.
const NO: u32 = 0;
const YES: u32 = 1;
const NOT_KNOWN: u32 = 2;

/// A page of slots; the lock of the first one is the table's.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Table {
    lock: RobustLock,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
    more: AtomicU64,
    slots: [Slot; SLOTS],
}

/// One pipe.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    who: AtomicU32,
    pid: AtomicU32,
    fd: AtomicU32,
    byte: AtomicU32,
    pipe: AtomicU64,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 24 && size_of::<Table>() == 16 + 24 * SLOTS);

// SAFETY: atomic words with a fixed layout and no pointer. `more` is checked before it is used, and
// of the others any value is possible. Every method works by atomic operations alone.
unsafe impl ShmSafe for Table {
    const TAG: u32 = u32::from_le_bytes(*b"watc");
}

/// A descriptor that is readable while a queue has something to get.
///
/// It is level-triggered: readable until the queue is empty, whoever empties it, and again as soon
/// as anybody has put something in. It is readable, too, when the queue is closed for all. After a
/// process was killed in the middle of a call it may be readable once in vain, so get with a
/// deadline that has passed. Never read from it.
///
/// It belongs to the process that asked for it. A forked child asks anew.
///
/// See [`ByteQueue::readiness`](super::ByteQueue::readiness).
#[derive(Debug)]
pub struct Readiness {
    read: OwnedFd,
    /// Without a writer a pipe counts as ended, and as readable.
    write: OwnedFd,
    pipe: u64,
    owner: Member,
    queue: Shared<QueueState>,
}

impl Readiness {
    /// An end of the same pipe that takes bytes at any time, for who needs a descriptor to write to.
    /// Nothing is to be written to it.
    pub fn writable(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> i32 {
        self.read.as_raw_fd()
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let Ok(arena) = Arena::current() else { return };
        // A forked copy leaves the slot to the one that made it.
        if self.owner != arena.me() {
            return;
        }
        // Without the lock in time the slot stays, and goes when the pipe is not found.
        if let Ok(Some(table)) = Locked::patiently(&self.queue, arena) {
            table.leave(self.owner, self.pipe);
        }
    }
}

/// The table of a queue with its lock held.
pub(super) struct Locked<'a> {
    queue: &'a Shared<QueueState>,
    table: &'a Table,
    taken: Taken<'a>,
}

impl<'a> Locked<'a> {
    /// Takes the table's lock; `None` if nobody has asked for a descriptor.
    #[inline]
    pub(super) fn now(
        queue: &'a Shared<QueueState>,
        arena: &Arena,
        deadline: Option<Instant>,
    ) -> Result<Option<Self>, WaitError> {
        // Producers may look without order, under the lock that askers have, too. Consumers and
        // closers need it; on x86 it costs nothing.
        let table = queue.settings.watched.load(Ordering::SeqCst);
        if table == 0 {
            return Ok(None);
        }
        Self::lock(queue, Handle::from_raw(table), arena, deadline)
    }

    /// Does the same, whatever signals come, and gives up when another process does not get on.
    fn patiently(queue: &'a Shared<QueueState>, arena: &Arena) -> Result<Option<Self>, WaitError> {
        let deadline = Some(Instant::now() + GRACE);
        loop {
            match Self::now(queue, arena, deadline) {
                Err(WaitError::Interrupted) => {}
                result => return result,
            }
        }
    }

    #[cold]
    fn lock(
        queue: &'a Shared<QueueState>,
        table: Handle,
        arena: &Arena,
        deadline: Option<Instant>,
    ) -> Result<Option<Self>, WaitError> {
        let Ok(table) = queue.part::<Table>(table) else { return Ok(None) };
        let taken = match table.lock.lock_now(arena) {
            Some(taken) => taken,
            None => {
                let until = deadline.map(|at| at.max(Instant::now() + GRACE));
                table.lock.lock_until(arena, until)?
            }
        };
        let locked = Self { queue, table, taken };
        if locked.taken.owner_died.is_some() {
            locked.slots().for_each(|slot| slot.byte.store(NOT_KNOWN, Ordering::Relaxed));
        }
        Ok(Some(locked))
    }

    /// Makes all descriptors readable, or none.
    pub(super) fn set(&self, arena: &Arena, readable: bool) {
        for slot in self.slots() {
            slot.set(arena, readable);
        }
    }

    fn slots(&self) -> impl Iterator<Item = &'a Slot> + use<'a> {
        pages(self.queue, self.table).flat_map(|(_, page)| &page.slots)
    }

    /// A slot that is free, or belongs to a dead process; if there is none, there will be more.
    fn free_slot(&self, arena: &Arena) -> Result<&'a Slot, ArenaError> {
        loop {
            let free = self.slots().find(|slot| slot.owner().is_none());
            let dead =
                || self.slots().find(|slot| slot.owner().is_some_and(|who| !arena.is_alive(who)));
            if let Some(slot) = free.or_else(dead) {
                return Ok(slot);
            }
            let page = self.queue.add_part::<Table>()?;
            let last = pages(self.queue, self.table).last().map_or(self.table, |(_, page)| page);
            last.more.store(page.raw(), Ordering::Release);
        }
    }

    fn leave(&self, owner: Member, pipe: u64) {
        let own =
            |slot: &&Slot| slot.owner() == Some(owner) && slot.pipe.load(Ordering::Relaxed) == pipe;
        if let Some(slot) = self.slots().find(own) {
            slot.who.store(0, Ordering::Release);
        }
    }
}

/// The pages of a table, with the handle of each but the first.
fn pages<'a>(
    queue: &'a Shared<QueueState>,
    first: &'a Table,
) -> impl Iterator<Item = (Handle, &'a Table)> + use<'a> {
    std::iter::successors(Some((Handle::NONE, first)), |(_, page)| {
        let next = Handle::from_raw(page.more.load(Ordering::Acquire));
        queue.part(next).ok().map(|page| (next, page))
    })
}

impl Slot {
    fn owner(&self) -> Option<Member> {
        Member::from_raw(self.who.load(Ordering::Acquire))
    }

    /// Enters a pipe of this process, which is empty; the owner last, as it makes the slot count.
    fn enter(&self, me: Member, number: u32, pipe: u64) {
        self.who.store(0, Ordering::Release);
        self.pid.store(process::getpid(), Ordering::Relaxed);
        self.fd.store(number, Ordering::Relaxed);
        self.pipe.store(pipe, Ordering::Relaxed);
        self.byte.store(NO, Ordering::Relaxed);
        self.who.store(me.raw(), Ordering::Release);
    }

    fn set(&self, arena: &Arena, readable: bool) {
        let wanted = if readable { YES } else { NO };
        let Some(owner) = self.owner() else { return };
        if self.byte.load(Ordering::Relaxed) == wanted {
            return;
        }
        match self.open() {
            Ok(Some(pipe)) => {
                let done = signal_pipe::set_readable(pipe.as_fd(), readable).is_ok();
                self.byte.store(if done { wanted } else { NOT_KNOWN }, Ordering::Relaxed);
            }
            // Closed, or the process has ended.
            Ok(None) => self.who.store(0, Ordering::Release),
            Err(_) if !arena.is_alive(owner) => self.who.store(0, Ordering::Release),
            Err(error) => tracing::warn!(
                pid = self.pid.load(Ordering::Relaxed),
                %error,
                "cannot tell a process that a queue has changed"
            ),
        }
    }

    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let [pid, fd] = [&self.pid, &self.fd].map(|word| word.load(Ordering::Relaxed));
        signal_pipe::open_of(pid, fd, self.pipe.load(Ordering::Relaxed))
    }
}

impl ByteQueue {
    /// A descriptor that polls readable while there is something to get, or the queue is closed for
    /// all; see [`Readiness`].
    ///
    /// The first call in a process makes it, and it lasts as long as the process has a handle to the
    /// queue or the descriptor. From the first call in any process on, a put into an empty queue and
    /// a get that empties it cost some system calls for each process that has asked.
    ///
    /// Blocks while another process is in the middle of a put.
    ///
    /// # Errors
    ///
    /// Those of `pipe(2)`, when there are too many descriptors, and
    /// [`OutOfMemory`](io::ErrorKind::Other) when shared memory is at its limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use procession::channel::ByteQueue;
    /// use procession::channel::connection::wait;
    ///
    /// let queue = ByteQueue::new(0)?;
    /// let readiness = queue.readiness()?;
    /// assert!(wait(&[&*readiness], Some(Duration::ZERO))?.is_empty());
    /// queue.put(b"hello", None)?;
    /// assert_eq!(wait(&[&*readiness], None)?, [0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readiness(&self) -> io::Result<Arc<Readiness>> {
        match self.known_readiness() {
            Some(readiness) => Ok(readiness),
            None => Ok(self.keep_readiness(self.make_readiness()?)),
        }
    }

    /// The descriptor that this process has of the queue, if it has asked for one before. Does not
    /// block.
    pub fn known_readiness(&self) -> Option<Arc<Readiness>> {
        let arena = Arena::current().ok()?;
        let known = self.local.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(|known| known.owner == arena.me())
    }

    /// Lets this be what [`readiness`](Self::readiness) gives in this process, unless another thread
    /// was faster; returns what it gives. Does not block.
    ///
    /// It is for who must know when nobody holds the mutex behind this, as before a fork.
    pub fn keep_readiness(&self, readiness: Readiness) -> Arc<Readiness> {
        let mut known = self.local.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|known| known.owner == readiness.owner) {
            Some(known) => known.clone(),
            None => known.insert(Arc::new(readiness)).clone(),
        }
    }

    /// Whether a get would return at once, be it with an error.
    pub fn is_ready(&self) -> bool {
        !self.is_empty() || self.is_closed()
    }

    /// Says what [`is_ready`](Self::is_ready) says, for who has found a descriptor readable; if it
    /// was so in vain, it is not any more.
    pub fn confirm_ready(&self) -> bool {
        if self.is_ready() {
            return true;
        }
        if let Ok(arena) = Arena::current() {
            self.tell_emptiness(arena);
        }
        self.is_ready()
    }

    /// Lets go of what [`readiness`](Self::readiness) gives in this process. It is closed as soon as
    /// nobody else here has it; the next call of `readiness` makes another one.
    pub fn forget_readiness(&self) {
        let known = self.local.readiness.lock().unwrap_or_else(PoisonError::into_inner).take();
        // After the mutex was released: it may wait for another process.
        drop(known);
    }

    /// Makes a descriptor as [`readiness`](Self::readiness) does, another one with each call. It
    /// lasts as long as it is kept.
    ///
    /// # Errors
    ///
    /// As [`readiness`](Self::readiness).
    pub fn make_readiness(&self) -> io::Result<Readiness> {
        let arena = Arena::current().map_err(io::Error::other)?;
        let (read, write) = signal_pipe::create()?;
        let pipe = signal_pipe::identity(read.as_fd())?;
        let owner = arena.me();
        let queue = self.state.clone();
        let readiness = Readiness { read, write, pipe, owner, queue };
        let _put = loop {
            if let Ok(taken) = self.lock_put(arena, None) {
                break taken;
            }
        };
        let table = self.table().map_err(io::Error::other)?;
        let locked = loop {
            if let Ok(locked) = Locked::lock(&self.state, table, arena, None) {
                break locked.ok_or_else(|| io::Error::other("the queue is gone"))?;
            }
        };
        let slot = locked.free_slot(arena).map_err(io::Error::other)?;
        slot.enter(owner, readiness.as_raw_fd() as u32, pipe);
        self.state.settings.watched.store(table.raw(), Ordering::SeqCst);
        slot.set(arena, self.is_ready());
        Ok(readiness)
    }

    /// The table, made if there is none. The producers' lock is held.
    fn table(&self) -> Result<Handle, ArenaError> {
        match self.state.settings.watched.load(Ordering::SeqCst) {
            0 => self.state.add_part::<Table>(),
            table => Ok(Handle::from_raw(table)),
        }
    }

    /// Brings the descriptors in line after something was taken, or nothing was found.
    #[inline]
    pub(super) fn tell_emptiness(&self, arena: &Arena) {
        if self.state.settings.watched.load(Ordering::SeqCst) != 0 && self.is_empty() {
            self.align(arena);
        }
    }

    /// Brings the descriptors in line with the queue. They stay as they are if another process does
    /// not get on with it: readable, maybe in vain.
    #[cold]
    pub(super) fn align(&self, arena: &Arena) {
        if let Ok(Some(locked)) = Locked::patiently(&self.state, arena) {
            locked.set(arena, self.is_ready());
        }
    }

    /// The handles of the table's pages.
    pub(super) fn table_pages(&self) -> Vec<Handle> {
        let first = Handle::from_raw(self.state.settings.watched.load(Ordering::SeqCst));
        let Ok(table) = self.state.part::<Table>(first) else { return Vec::new() };
        let more = pages(&self.state, table).skip(1).map(|(page, _)| page);
        std::iter::once(first).chain(more).collect()
    }
}
