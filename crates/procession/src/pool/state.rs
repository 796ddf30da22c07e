//! What a pool keeps in the arena besides its two queues.
//!
//! # Shared state
//!
//! One [`PoolState`] per pool and one [`SeatState`] per worker that was ever started; a replaced
//! worker gets a new one, so nobody confuses the dead with the living.
//!
//! | word              | written by | meaning                                                    |
//! |-------------------|------------|------------------------------------------------------------|
//! | `orders`          | owner      | what workers are to do, see [`Orders`]; only ever goes up  |
//! | `wake_at`         | owner      | how many unread results are worth waking the owner for     |
//! | `pressure`        | both       | a worker sets it when its result finds no room, the owner clears it after it took results in |
//! | `reliefs`         | owner      | how often the owner did that                               |
//! | `ready_workers`   | workers    | how many workers ever became ready                         |
//! | `owner_sleep`     | both       | where the owner sleeps until there is something to take in |
//! | `worker_sleep`    | both       | where workers sleep whose result finds no room             |
//! | `revocations`     | owner      | how many batches are in the buckets                        |
//! | `buckets`         | owner      | the batches that were cancelled while tasks of theirs were under way, see below |
//! | `claim` of a seat | task queue, worker | id of the task that the worker has taken and whose result is not published; 0 for none |
//! | `gate` of a seat  | worker, owner | who decides about the task at hand, see [`gate`](super::gate) |
//! | `since` of a seat | worker     | when the task at hand began, or when the last one was over, in nanoseconds |
//! | `done`, `failed`, `busy` of a seat | worker | tasks so far, and the nanoseconds they took     |
//! | `stage` of a seat | worker     | [`STARTING`] or [`READY`]                                  |
//!
//! Zeroed memory is valid: a pool that runs, a worker that is starting.
//!
//! # Revoked batches
//!
//! A worker must not begin a task that was cancelled in the queue. The owner, and only the owner, keeps
//! the numbers of such batches in sixteen chains of [`Segment`]s, by the lowest bits of the number,
//! until every task under way has come back. Workers look only while `revocations` is not 0. Segments are
//! added and never freed before the pool, so a worker may read along a chain at any time.
//!
//! # Waking the owner
//!
//! A worker publishes its result, then reads `wake_at`; the owner writes `wake_at` and then counts
//! the results. All four are sequentially consistent, so one of them sees the other, and a result
//! that is worth it never lies there while the owner sleeps. An owner that waits for a thousand
//! results is woken once and not a thousand times.
//!
//! # When a process dies
//!
//! The claim tells what the dead worker was at. The task queue writes it before the record counts
//! as taken and takes it back when it repairs after a death in between; the worker clears it only
//! when its result can be read. So a claim whose result is not among the results is a task that was
//! begun and not finished, and every other task is either still in the queue or done.

#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::time::Instant;

use crate::channel::{ByteQueue, ClaimWord};
use crate::pool::frame::TaskId;
use crate::pool::gate::Gate;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};
use crate::shm::{ArenaError, Handle, Shared, ShmSafe};
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;
use crate::sys::clock;

/// What workers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u32)]
pub(super) enum Orders {
    /// Work, and wait for more.
    Work = 0,
    /// Do what is in the queue, then exit.
    Finish = 1,
    /// Exit after the task at hand.
    Stop = 2,
}

const STARTING: u32 = 0;
const READY: u32 = 1;

/// Chains of revoked batches.
const BUCKETS: usize = 16;
/// Batches in a segment of a chain.
const PER_SEGMENT: usize = 62;

/// What the owner and all workers share.
#[derive(Debug)]
#[repr(C)]
pub(super) struct PoolState {
    orders: AtomicU32,
    wake_at: AtomicU32,
    pressure: AtomicU32,
    reliefs: AtomicU32,
    ready_workers: AtomicU32,
    pub(super) owner_sleep: EventCount,
    worker_sleep: EventCount,
    revocations: AtomicU32,
    /// Handles of the first segments.
    buckets: [AtomicU64; BUCKETS],
}

/// A part of a chain of revoked batches.
#[derive(Debug)]
#[repr(C)]
struct Segment {
    /// Handle of the next one, 0 for none.
    next: AtomicU64,
    /// Numbers of batches, 0 for none.
    batches: [AtomicU32; PER_SEGMENT],
}

/// What one worker and the owner share.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SeatState {
    pub(super) claim: ClaimWord,
    pub(super) gate: Gate,
    since: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    busy: AtomicU64,
    stage: AtomicU32,
}

/// What a worker has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Work {
    pub(super) done: u64,
    pub(super) failed: u64,
    /// Nanoseconds.
    pub(super) busy: u64,
}

// SAFETY: `repr(C)`, made of atomic words and of event counts, which are two of them each; every bit
// pattern is a value, and no method relies on what the words hold.
unsafe impl ShmSafe for PoolState {
    const TAG: u32 = u32::from_le_bytes(*b"pool");
}

// SAFETY: `repr(C)` and atomic words; zero is an empty end of a chain, and a handle is checked before
// it is used.
unsafe impl ShmSafe for Segment {
    const TAG: u32 = u32::from_le_bytes(*b"revo");
}

// SAFETY: `repr(C)`, made of a claim word and a gate, which are one atomic word each, and of atomic
// words; no method relies on what they hold.
unsafe impl ShmSafe for SeatState {
    const TAG: u32 = u32::from_le_bytes(*b"seat");
}

impl PoolState {
    pub(super) fn orders(&self) -> Orders {
        match self.orders.load(Ordering::SeqCst) {
            0 => Orders::Work,
            1 => Orders::Finish,
            _ => Orders::Stop,
        }
    }

    /// Gives an order, unless a stronger one was given before.
    pub(super) fn give_orders(&self, orders: Orders) {
        self.orders.fetch_max(orders as u32, Ordering::SeqCst);
    }

    /// Sets how many unread results are worth waking the owner for.
    pub(super) fn set_wake_at(&self, results: u32) {
        self.wake_at.store(results, Ordering::SeqCst);
    }

    /// Says whether the owner has a reason to take results in.
    pub(super) fn owner_is_due(&self, results: &ByteQueue) -> bool {
        results.len() >= self.wake_at.load(Ordering::SeqCst) as usize
            || self.pressure.load(Ordering::SeqCst) != 0
    }

    /// Wakes the owner if it sleeps and what the caller has just published is worth it.
    pub(super) fn published(&self, results: &ByteQueue) {
        // The record was published by a store that may be weaker than sequentially consistent.
        fence(Ordering::SeqCst);
        if self.owner_is_due(results) {
            self.owner_sleep.notify(1);
        }
    }

    /// Asks the owner to take results in, and blocks until it did or the deadline has passed. Returns
    /// whether it did.
    pub(super) fn press(&self, spin: &SpinBudget, deadline: Instant) -> bool {
        let before = self.reliefs.load(Ordering::SeqCst);
        self.pressure.store(1, Ordering::SeqCst);
        self.owner_sleep.notify(1);
        let relieved = || (self.reliefs.load(Ordering::SeqCst) != before).then_some(());
        self.worker_sleep.wait_until(spin, Some(deadline), relieved).is_ok()
    }

    /// Notes that the owner took results in, if somebody waits for that.
    pub(super) fn relieve(&self) {
        if self.pressure.load(Ordering::Relaxed) != 0 {
            self.pressure.store(0, Ordering::SeqCst);
            self.reliefs.fetch_add(1, Ordering::SeqCst);
            self.worker_sleep.notify(u32::MAX);
        }
    }

    /// How many workers ever became ready.
    pub(super) fn ready_workers(&self) -> u32 {
        self.ready_workers.load(Ordering::SeqCst)
    }

    /// Wakes the owner if it sleeps, as if a worker had no room.
    pub(super) fn urge(&self) {
        self.pressure.store(1, Ordering::SeqCst);
        self.owner_sleep.notify(1);
    }
}

/// Enters a batch whose tasks must not be begun any more. One caller at a time.
pub(super) fn revoke(pool: &Shared<PoolState>, batch: u32) -> Result<(), ArenaError> {
    let mut free = None;
    let mut link = bucket(pool, batch);
    while let Some(segment) = follow(pool, link) {
        for place in &segment.batches {
            match place.load(Ordering::SeqCst) {
                0 => free = free.or(Some(place)),
                known if known == batch => {
                    fence(Ordering::SeqCst);
                    return Ok(());
                }
                _ => {}
            }
        }
        link = &segment.next;
    }
    let place = match free {
        Some(place) => place,
        None => {
            let handle = pool.add_part::<Segment>()?;
            let segment = pool.part::<Segment>(handle)?;
            link.store(handle.raw(), Ordering::SeqCst);
            &segment.batches[0]
        }
    };
    place.store(batch, Ordering::SeqCst);
    pool.revocations.fetch_add(1, Ordering::SeqCst);
    // The caller looks at the gates after this; see there.
    fence(Ordering::SeqCst);
    Ok(())
}

/// Takes a batch out again: nothing of it is under way. One caller at a time.
pub(super) fn forget(pool: &Shared<PoolState>, batch: u32) {
    if let Some(place) = find(pool, batch) {
        place.store(0, Ordering::SeqCst);
        pool.revocations.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the tasks of a batch must not be begun.
pub(super) fn is_revoked(pool: &Shared<PoolState>, batch: u32) -> bool {
    pool.revocations.load(Ordering::SeqCst) != 0 && find(pool, batch).is_some()
}

fn bucket(pool: &PoolState, batch: u32) -> &AtomicU64 {
    &pool.buckets[batch as usize % BUCKETS]
}

/// The segment that a link leads to.
fn follow<'a>(pool: &'a Shared<PoolState>, link: &AtomicU64) -> Option<&'a Segment> {
    match link.load(Ordering::SeqCst) {
        0 => None,
        handle => pool.part(Handle::from_raw(handle)).ok(),
    }
}

fn find(pool: &Shared<PoolState>, batch: u32) -> Option<&AtomicU32> {
    let mut link = bucket(pool, batch);
    while let Some(segment) = follow(pool, link) {
        let found = segment.batches.iter().find(|place| place.load(Ordering::SeqCst) == batch);
        if found.is_some() {
            return found;
        }
        link = &segment.next;
    }
    None
}

impl SeatState {
    /// Notes that the worker is about to take its first task.
    pub(super) fn become_ready(&self, pool: &PoolState) {
        if self.stage.swap(READY, Ordering::SeqCst) == STARTING {
            pool.ready_workers.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(super) fn was_ready(&self) -> bool {
        self.stage.load(Ordering::SeqCst) == READY
    }

    /// The worker is about to run a task. Returns when that was; exactly, if it is timed.
    pub(super) fn begin(&self, id: TaskId, timed: bool) -> u64 {
        let now = if timed { clock::now() } else { clock::last_tick() };
        // Before the gate: who sees the task there must not take an older time for its.
        self.since.store(now, Ordering::Relaxed);
        self.gate.begin(id);
        now
    }

    /// The worker counts a task that it began at `began`.
    pub(super) fn count(&self, began: u64, failed: bool) {
        // Nobody else writes these words.
        let add = |word: &AtomicU64, more: u64| {
            word.store(word.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        };
        let now = clock::last_tick();
        add(&self.busy, now.saturating_sub(began));
        add(if failed { &self.failed } else { &self.done }, 1);
        self.since.store(now, Ordering::Relaxed);
    }

    /// When the task at hand began, or the last one was over; 0 before the first.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    pub(super) fn work(&self) -> Work {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Work { done: load(&self.done), failed: load(&self.failed), busy: load(&self.busy) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Only a deadlock takes this long.
    const DEADLOCK: Duration = Duration::from_secs(30);

    fn pool() -> Shared<PoolState> {
        Shared::new(|_: &PoolState| {}).unwrap()
    }

    #[test]
    fn orders_never_become_weaker() {
        let pool = pool();
        assert_eq!(pool.orders(), Orders::Work, "a fresh pool must work");
        pool.give_orders(Orders::Stop);
        pool.give_orders(Orders::Finish);
        assert_eq!(pool.orders(), Orders::Stop);
    }

    #[test]
    fn owner_is_due_only_for_what_it_waits_for() {
        let pool = pool();
        let results = ByteQueue::new(0).unwrap();
        pool.set_wake_at(2);
        results.put(b"one", None).unwrap();
        assert!(!pool.owner_is_due(&results));
        results.put(b"two", None).unwrap();
        assert!(pool.owner_is_due(&results));
    }

    #[test]
    fn pressure_makes_the_owner_due_until_it_took_results_in() {
        let pool = pool();
        let results = ByteQueue::new(0).unwrap();
        pool.set_wake_at(100);
        assert!(!pool.press(&SpinBudget::new(), Instant::now()), "nobody took anything in");
        assert!(pool.owner_is_due(&results));
        pool.relieve();
        assert!(!pool.owner_is_due(&results));
    }

    #[test]
    fn worker_under_pressure_goes_on_when_the_owner_took_results_in() {
        let pool = pool();
        let worker = {
            let pool = pool.clone();
            thread::spawn(move || pool.press(&SpinBudget::new(), Instant::now() + DEADLOCK))
        };
        while !worker.is_finished() {
            pool.relieve();
            thread::yield_now();
        }
        assert!(worker.join().unwrap(), "the worker was not told");
    }

    #[test]
    fn revoked_batches_are_found_until_they_are_forgotten() {
        let pool = pool();
        // More than a segment in each chain.
        let batches: Vec<u32> = (1..=3000).collect();
        for batch in &batches {
            revoke(&pool, *batch).unwrap();
            revoke(&pool, *batch).unwrap();
        }
        assert!(batches.iter().all(|batch| is_revoked(&pool, *batch)));
        assert!(!is_revoked(&pool, 3001));
        for batch in batches.iter().filter(|batch| *batch % 3 == 0) {
            forget(&pool, *batch);
        }
        assert!(batches.iter().all(|batch| is_revoked(&pool, *batch) == (batch % 3 != 0)));
        batches.iter().for_each(|batch| forget(&pool, *batch));
        assert_eq!(pool.revocations.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn places_of_forgotten_batches_are_used_again() {
        let pool = pool();
        revoke(&pool, 1).unwrap();
        let blocks = crate::shm::Arena::current().unwrap().children_of(pool.handle()).len();
        for batch in 0..1000 {
            revoke(&pool, 17 + 16 * batch).unwrap();
            forget(&pool, 17 + 16 * batch);
        }
        let after = crate::shm::Arena::current().unwrap().children_of(pool.handle()).len();
        assert_eq!(after, blocks);
    }

    #[test]
    fn worker_counts_what_it_does() {
        let seat: Shared<SeatState> = Shared::new(|_| {}).unwrap();
        let id = TaskId { batch: 1, index: 0 };
        let began = seat.begin(id, true);
        assert_eq!(seat.since(), began);
        while clock::last_tick() <= began {}
        seat.count(began, false);
        let began = seat.begin(id, false);
        seat.count(began, true);
        let work = seat.work();
        assert_eq!((work.done, work.failed), (1, 1));
        assert!(work.busy > 0 && seat.since() >= began);
    }

    #[test]
    fn worker_is_counted_as_ready_once() {
        let pool = pool();
        let seat: Shared<SeatState> = Shared::new(|_| {}).unwrap();
        assert!(!seat.was_ready());
        seat.become_ready(&pool);
        seat.become_ready(&pool);
        assert!(seat.was_ready());
        assert_eq!(pool.ready_workers(), 1);
    }
}
