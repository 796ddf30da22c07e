//! Which messages of a queue are not done yet, and who had taken those that never will be.
//!
//! A queue that counts has a table of seats, one for each process that has taken messages or said
//! that one is done. How many messages were put in says `tail`; so the number of unfinished ones is
//! what `tail` counts less the sum of all that the seats have acknowledged.
//!
//! # Shared state
//!
//! The table is a part of the queue, and so are its further pages.
//!
//! | word           | of    | meaning                                                       |
//! |----------------|-------|---------------------------------------------------------------|
//! | `lock`         | table | held to acknowledge, to take a seat, and to settle those of the dead |
//! | `done`         | table | where those sleep who wait for the end of all messages          |
//! | `lost`         | table | messages that dead processes had taken and not acknowledged     |
//! | `lost_by`      | table | process id of the last one that lost any                        |
//! | `more`         | page  | the next page, 0 for none                                       |
//! | `who`, `pid`   | seat  | the process; 0 for none yet                                     |
//! | `taken`        | seat  | bits 32–63: messages taken, modulo 2³²; bits 0–29: the taking that is going on |
//! | `acknowledged` | seat  | messages acknowledged; it only grows                            |
//!
//! # Rules
//!
//! - Any process may acknowledge a message, whoever has taken it; no more than are unfinished.
//! - What a process has taken less what it has acknowledged is what it holds. When it dies, so many
//!   messages are lost, but no more than are unfinished. They count as done from then on, and
//!   whoever waits at that time is told.
//! - So a process that acknowledges what another one has taken hides a loss of its own.
//!
//! # Taking
//!
//! The consumers' lock is held.
//!
//! | step | word           | is                                              |
//! |------|----------------|-------------------------------------------------|
//! | 1    | `taken`        | + [`TAKING`] + the count of `head`              |
//! | 2    | `head`         | the messages are out of the queue                |
//! | 3    | `taken`        | + the number taken, without what step 1 added    |
//!
//! # When a process dies
//!
//! - Between 1 and 3: the next holder of the consumers' lock finds [`TAKING`] and does step 3, with
//!   as many as `head` has moved since step 1.
//! - Acknowledging is one store; so is settling the dead, but for the note of what was lost, which
//!   comes first: killed in between, the loss is told twice rather than never.
//! - One that acknowledged the last message, before it woke those who wait: they look every second.
//! - A seat belongs to the dead until it is settled and somebody needs one.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::time::{Duration, Instant};

use crate::channel::bytes::{ByteQueue, GRACE};
use crate::channel::error::{TaskDoneError, TasksError};
use crate::channel::state::{Position, QueueState};
use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Member, RobustLock, Shared, ShmSafe, Taken};
use crate::slice::Pace;
use crate::sync::event_count::EventCount;
use crate::sys::process;

/// How many seats a page has.
const SEATS: usize = 16;
/// The bits of `taken` that count.
const COUNT_AT: u32 = 32;
/// Says that a taking is going on.
const TAKING: u64 = 1 << 29;

const FIRST_SLICE: Duration = Duration::from_millis(20);
const LONGEST_SLICE: Duration = Duration::from_secs(1);

/// A page of seats; the other words of the first one are the table's.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Tally {
    lock: RobustLock,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
    done: EventCount,
    lost: AtomicU64,
    lost_by: AtomicU64,
    more: AtomicU64,
    seats: [Seat; SEATS],
}

/// What one process has taken and acknowledged.
#[derive(Debug)]
#[repr(C)]
struct Seat {
    who: AtomicU32,
    pid: AtomicU32,
    taken: AtomicU64,
    acknowledged: AtomicU64,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Seat>() == 24 && size_of::<Tally>() == 40 + 24 * SEATS);

// SAFETY: atomics and types made of atomics only, with a fixed layout and no pointer. `more` is
// checked before it is used, and of the others any value is possible.
unsafe impl ShmSafe for Tally {
    const TAG: u32 = u32::from_le_bytes(*b"tall");
}

/// A taking in this process that is going on.
pub(super) struct Taking<'a> {
    taken: &'a AtomicU64,
    mark: u64,
}

impl Taking<'_> {
    /// Counts what has been taken, after the head has moved.
    pub(super) fn finish(self, messages: u64) {
        // Both halves in one step: killed before it, another one does it; after it, all is done.
        self.taken.fetch_add((messages << COUNT_AT).wrapping_sub(self.mark), Ordering::SeqCst);
    }
}

impl Seat {
    fn owner(&self) -> Option<Member> {
        Member::from_raw(self.who.load(Ordering::Acquire))
    }

    /// How many messages the process has and has not acknowledged; below zero if it has
    /// acknowledged others' messages. `None` while it takes one.
    fn held(&self) -> Option<i32> {
        let taken = self.taken.load(Ordering::SeqCst);
        let acknowledged = self.acknowledged.load(Ordering::SeqCst) as u32;
        let count = (taken >> COUNT_AT) as u32;
        (taken & TAKING == 0).then_some(count.wrapping_sub(acknowledged) as i32)
    }

    /// Lets the process hold nothing.
    fn balance(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        self.taken.store(acknowledged << COUNT_AT, Ordering::SeqCst);
    }

    /// Does the last step of a taking that `head` knows to have happened or not. The consumers'
    /// lock is held, and whoever was taking is dead.
    fn finish_for_the_dead(&self, head: Position) {
        let taken = self.taken.load(Ordering::SeqCst);
        if taken & TAKING != 0 {
            let messages = head.since(Position::unpack(taken & (TAKING - 1)));
            self.taken.store(((taken >> COUNT_AT) + messages) << COUNT_AT, Ordering::SeqCst);
        }
    }
}

/// The pages of a table, with the handle of each but the first.
fn pages<'a>(
    queue: &'a Shared<QueueState>,
    first: &'a Tally,
) -> impl Iterator<Item = (Handle, &'a Tally)> + use<'a> {
    std::iter::successors(Some((Handle::NONE, first)), |(_, page)| {
        let next = Handle::from_raw(page.more.load(Ordering::Acquire));
        queue.part(next).ok().map(|page| (next, page))
    })
}

/// The table of a queue.
#[derive(Clone, Copy)]
struct Table<'a> {
    queue: &'a Shared<QueueState>,
    first: &'a Tally,
}

impl<'a> Table<'a> {
    fn seats(self) -> impl Iterator<Item = &'a Seat> + use<'a> {
        pages(self.queue, self.first).flat_map(|(_, page)| &page.seats)
    }

    fn lock(self, arena: &Arena) -> Taken<'a> {
        self.first.lock.lock(arena)
    }

    /// The seat of this process; one that is new, or was of a dead process, if it has none.
    fn seat(self, arena: &Arena) -> Result<&'a Seat, ArenaError> {
        let me = arena.me();
        let own = |table: Self| table.seats().find(|seat| seat.owner() == Some(me));
        if let Some(seat) = own(self) {
            return Ok(seat);
        }
        let _lock = self.lock(arena);
        loop {
            // Another thread may have been here.
            if let Some(seat) = own(self) {
                return Ok(seat);
            }
            if let Some(seat) = self.seats().find(|seat| seat.is_vacant(arena)) {
                seat.pid.store(process::getpid(), Ordering::Relaxed);
                seat.who.store(me.raw(), Ordering::Release);
                return Ok(seat);
            }
            let page = self.queue.add_part::<Tally>()?;
            let last = pages(self.queue, self.first).last().map_or(self.first, |(_, page)| page);
            last.more.store(page.raw(), Ordering::Release);
        }
    }

    /// Lets what the dead hold count as done, and notes that it was lost. The lock is held.
    fn settle_the_dead(self, arena: &Arena, unfinished: impl Fn() -> u64) {
        for seat in self.seats() {
            let dead = seat.owner().is_some_and(|who| !arena.is_alive(who));
            let Some(held) = seat.held().filter(|held| dead && *held != 0) else { continue };
            let lost = u64::try_from(held).unwrap_or(0).min(unfinished());
            if lost > 0 {
                let pid = seat.pid.load(Ordering::Relaxed);
                self.first.lost_by.store(pid.into(), Ordering::SeqCst);
                self.first.lost.fetch_add(lost, Ordering::SeqCst);
                seat.acknowledged.fetch_add(lost, Ordering::SeqCst);
            }
            seat.balance();
        }
    }
}

impl Seat {
    /// Whether nobody has the seat, and nothing is to be settled.
    fn is_vacant(&self, arena: &Arena) -> bool {
        self.owner().is_none_or(|who| self.held() == Some(0) && !arena.is_alive(who))
    }
}

/// The queue counts.
impl ByteQueue {
    /// Makes an empty queue that counts what is unfinished.
    pub(super) fn counting(max_items: usize) -> Result<Self, ArenaError> {
        let queue = Self::new(max_items)?;
        let tally = queue.state.add_part::<Tally>()?;
        queue.state.settings.tally.store(tally.raw(), Ordering::Release);
        Ok(Self::with(queue.state.clone()))
    }

    fn counts(&self) -> Option<Table<'_>> {
        if self.tally.is_none() {
            return None;
        }
        let first = self.state.part(self.tally).ok()?;
        Some(Table { queue: &self.state, first })
    }

    /// Announces that messages behind `head` are about to be taken, if the queue counts. The
    /// consumers' lock is held.
    #[inline]
    pub(super) fn begin_taking(
        &self,
        arena: &Arena,
        head: Position,
    ) -> Result<Option<Taking<'_>>, ArenaError> {
        if self.tally.is_none() { Ok(None) } else { self.mark_taking(arena, head) }
    }

    fn mark_taking(&self, arena: &Arena, head: Position) -> Result<Option<Taking<'_>>, ArenaError> {
        let Some(table) = self.counts() else { return Ok(None) };
        let taken = &table.seat(arena)?.taken;
        let mark = TAKING | head.count;
        taken.fetch_add(mark, Ordering::SeqCst);
        Ok(Some(Taking { taken, mark }))
    }

    /// Completes the taking in which a consumer died; the lock of the consumers is held.
    pub(super) fn repair_tally(&self) {
        let head = self.head();
        for seat in self.counts().into_iter().flat_map(Table::seats) {
            seat.finish_for_the_dead(head);
        }
    }

    /// How many messages were put in and are not done.
    pub(super) fn unfinished(&self) -> u64 {
        let Some(table) = self.counts() else { return 0 };
        // In this order, as a sum read later could count what was not yet put in when the tail was
        // read, and make it seem as if nothing were left.
        let done: u64 = table.seats().map(|seat| seat.acknowledged.load(Ordering::SeqCst)).sum();
        self.tail().since(Position { unit: 0, at: 0, count: done })
    }

    /// Says that one message is done.
    pub(super) fn acknowledge(&self) -> Result<(), TaskDoneError> {
        let arena = Arena::current()?;
        let Some(table) = self.counts() else { return Err(TaskDoneError::TooMany) };
        let seat = table.seat(arena)?;
        let left = {
            let _lock = table.lock(arena);
            let unfinished = self.unfinished();
            if unfinished == 0 {
                return Err(TaskDoneError::TooMany);
            }
            seat.acknowledged.fetch_add(1, Ordering::SeqCst);
            unfinished - 1
        };
        if left == 0 {
            table.first.done.notify(u32::MAX);
        }
        Ok(())
    }

    /// Blocks until nothing is unfinished.
    pub(super) fn wait_until_done(&self, deadline: Option<Instant>) -> Result<(), TasksError> {
        let arena = Arena::current()?;
        let Some(table) = self.counts() else { return Ok(()) };
        let lost_before = table.first.lost.load(Ordering::SeqCst);
        let mut pace = Pace::kept_for(table.first).unwrap_or_else(|| Pace::new(FIRST_SLICE));
        loop {
            let until = deadline.map_or(pace.end(), |deadline| deadline.min(pace.end()));
            let done = || (self.unfinished() == 0).then_some(());
            let result = table.first.done.wait_until(&self.local.done, Some(until), done);
            if result == Err(WaitError::TimedOut) || pace.is_over() {
                self.look_for_the_dead(arena, table)?;
            }
            let lost = table.first.lost.load(Ordering::SeqCst) - lost_before;
            if lost > 0 {
                let pid = table.first.lost_by.load(Ordering::SeqCst) as u32;
                return Err(TasksError::Lost { pid, tasks: lost });
            }
            if pace.is_over() {
                pace = pace.next(LONGEST_SLICE);
            }
            match result {
                Ok(()) => return Ok(()),
                Err(WaitError::Interrupted) => {
                    pace.keep_for(table.first);
                    return Err(TasksError::Interrupted);
                }
                Err(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Err(TasksError::TimedOut);
                }
                Err(_) => {}
            }
        }
    }

    fn look_for_the_dead(&self, arena: &Arena, table: Table<'_>) -> Result<(), ArenaError> {
        if table.seats().any(|seat| seat.is_half_taken_by_the_dead(arena)) {
            self.settle()?;
        }
        // Whoever has the lock and does not get on has not died, and the others wait for nothing.
        if let Ok(_lock) = table.first.lock.lock_until(arena, Some(Instant::now() + GRACE)) {
            table.settle_the_dead(arena, || self.unfinished());
            if self.unfinished() == 0 {
                table.first.done.notify(u32::MAX);
            }
        }
        Ok(())
    }

    /// The handles of the pages of seats.
    pub(super) fn tally_pages(&self) -> Vec<Handle> {
        let Some(table) = self.counts() else { return Vec::new() };
        let more = pages(&self.state, table.first).skip(1).map(|(page, _)| page);
        std::iter::once(self.tally).chain(more).collect()
    }
}

impl Seat {
    fn is_half_taken_by_the_dead(&self, arena: &Arena) -> bool {
        self.held().is_none() && self.owner().is_some_and(|who| !arena.is_alive(who))
    }
}
