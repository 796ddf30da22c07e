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
//! | `claim` of a seat | task queue, worker | id of the task that the worker has taken and whose result is not published; 0 for none |
//! | `stage` of a seat | worker     | [`STARTING`] or [`READY`]                                  |
//!
//! Zeroed memory is valid: a pool that runs, a worker that is starting.
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
use crate::primitive::{AtomicU32, Ordering, fence};
use crate::shm::ShmSafe;
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;

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
}

/// What one worker and the owner share.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SeatState {
    pub(super) claim: ClaimWord,
    stage: AtomicU32,
}

// SAFETY: `repr(C)`, made of atomic words and of event counts, which are two of them each; every bit
// pattern is a value, and no method relies on what the words hold.
unsafe impl ShmSafe for PoolState {
    const TAG: u32 = u32::from_le_bytes(*b"pool");
}

// SAFETY: `repr(C)`, made of a claim word, which is shared-memory safe itself, and an atomic word.
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
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::shm::Shared;

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
