//! An exclusive lock between processes that outlives the death of its owner.
//!
//! # Shared state
//!
//! | word    | value  | meaning                                             |
//! |---------|--------|-----------------------------------------------------|
//! | `owner` | 0      | free                                                |
//! |         | member | held; the process that took it                      |
//! | `event` |        | the waiters; notified of every release              |
//!
//! Zeroed memory is a free lock.
//!
//! - Taking is a compare-and-swap of `owner` from 0, releasing a swap to 0 and a notification.
//!   Any process may release, as with `multiprocessing.Lock`, so the owner is a record of who
//!   took the lock and no permission.
//! - A released lock goes to whoever comes first, which may be one who never waited.
//!
//! # Memory ordering
//!
//! Taking acquires and releasing releases: what was written before a release is visible to the
//! next owner. Both are sequentially consistent, as the event count asks.
//!
//! # When a process dies
//!
//! A waiter waits in slices, of 20 ms at first and doubling up to 200 ms. After each it looks
//! whether the owner still lives. If not, it swaps the dead owner's number for its own: the dead
//! cannot take the lock again, so of several waiters one succeeds, and it is told. A releaser
//! killed between the swap and the notification delays a waiter until its slice ends.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{Arena, ArenaError, Member, Shared, ShmSafe};
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;

// In a model no time passes.
const FIRST_SLICE: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 20 });
const LONGEST_SLICE: Duration = Duration::from_millis(200);
/// Looking whether a process lives reads a file of `/proc`, too much for every failed try.
const TRIES_PER_LOOK: u32 = 64;

/// An exclusive lock between the processes of a tree, and between their threads.
///
/// It behaves like `multiprocessing.Lock`: whoever holds it keeps everybody out, the
/// holder itself included (it is not recursive), and anybody may release it. Clones and copies
/// sent to other processes, in a message or as an argument, are the same lock.
///
/// When the process that took it is killed, a waiter takes the lock over and is told so with
/// [`LockOutcome::OwnerDied`]: what the lock protects may be half-changed.
///
/// # Examples
///
/// ```
/// use procession::sync::Lock;
///
/// let lock = Lock::new()?;
/// lock.acquire(None)?;
/// assert!(lock.try_acquire().is_none()); // held
/// lock.release()?;
/// assert!(lock.try_acquire().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    state: Shared<LockState>,
    #[serde(skip)]
    spin: SpinBudget,
    /// Failed tries of this process; every [`TRIES_PER_LOOK`]th looks after the owner.
    #[serde(skip)]
    failed_tries: AtomicU32,
}

/// How a lock was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// It was free, or was released.
    Acquired,
    /// The process that held it died. What the lock protects may be half-changed.
    OwnerDied(Member),
}

/// Why a lock could not be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// Nobody holds it.
    NotHeld,
}

impl Lock {
    /// Makes a free lock.
    ///
    /// # Errors
    ///
    /// Any [`ArenaError`] that keeps a few bytes of shared memory from being allocated.
    pub fn new() -> Result<Self, ArenaError> {
        Ok(Self::over(Shared::new(|_| ())?))
    }

    fn over(state: Shared<LockState>) -> Self {
        Self { state, spin: SpinBudget::new(), failed_tries: AtomicU32::new(0) }
    }

    /// Blocks until the lock is held by this process, or `deadline` has passed.
    ///
    /// Without a deadline it waits for ever; one in the past means the same as
    /// [`try_acquire`](Self::try_acquire). A release wakes one waiter, and the death of the
    /// owner is noticed within about 200 ms.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` has passed.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread. The lock is not
    ///   held; call again to go on waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use procession::sync::{Lock, LockOutcome, WaitError};
    ///
    /// let lock = Lock::new()?;
    /// assert_eq!(lock.acquire(None)?, LockOutcome::Acquired);
    /// let soon = Instant::now() + Duration::from_millis(5);
    /// assert_eq!(lock.acquire(Some(soon)), Err(WaitError::TimedOut));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire(&self, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        let arena = arena();
        if self.state.take(arena.me()) {
            return Ok(LockOutcome::Acquired);
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return self.try_acquire().ok_or(WaitError::TimedOut);
        }
        self.state.wait(arena.me(), &self.spin, deadline, |owner| arena.is_alive(owner))
    }

    /// Takes the lock if that is possible without waiting; `None` if not.
    ///
    /// Not every failed try looks whether the owner still lives, but one of 64 does. So a
    /// program that tries again and again gets past a killed owner.
    pub fn try_acquire(&self) -> Option<LockOutcome> {
        let arena = arena();
        if self.state.take(arena.me()) {
            return Some(LockOutcome::Acquired);
        }
        let tries = self.failed_tries.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !tries.is_multiple_of(TRIES_PER_LOOK) {
            return None;
        }
        let dead = self.state.take_over(arena.me(), |owner| arena.is_alive(owner))?;
        Some(LockOutcome::OwnerDied(dead))
    }

    /// Frees the lock and wakes one waiter. Whoever calls this need not be who took the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::NotHeld`] when the lock is free.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::sync::{Lock, LockError};
    ///
    /// let lock = Lock::new()?;
    /// assert_eq!(lock.release(), Err(LockError::NotHeld));
    /// # Ok::<(), procession::shm::ArenaError>(())
    /// ```
    pub fn release(&self) -> Result<(), LockError> {
        self.state.release()
    }

    /// The process that took the lock; `None` if it is free.
    pub fn owner(&self) -> Option<Member> {
        self.state.owner()
    }
}

/// The arena that every shared object of this process lives in.
fn arena() -> &'static Arena {
    // Whoever has a shared object has the arena, and nobody takes it away.
    Arena::current().expect("the arena of a lock is there")
}

impl Clone for Lock {
    /// Another handle to the same lock.
    fn clone(&self) -> Self {
        Self { spin: self.spin.clone(), ..Self::over(self.state.clone()) }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("owner", &self.owner()).finish_non_exhaustive()
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHeld => "a lock was released that nobody holds",
        })
    }
}

impl std::error::Error for LockError {}

/// What all handles of a lock share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LockState {
    owner: AtomicU32,
    event: EventCount,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<LockState>() == 12 && align_of::<LockState>() == 4);

// SAFETY: three atomic words with a fixed layout and no pointer. Any value of `owner` is a free
// lock, a member or, if it was damaged, a lock that looks held by nobody; the rest is counts.
// Every method works by atomic operations alone.
unsafe impl ShmSafe for LockState {
    const TAG: u32 = u32::from_le_bytes(*b"lock");
}

impl LockState {
    /// Makes a free lock outside an arena.
    #[cfg(test)]
    fn new() -> Self {
        Self { owner: AtomicU32::new(0), event: EventCount::new() }
    }

    /// Takes the lock if it is free.
    fn take(&self, me: Member) -> bool {
        // Looking first spares the holder's cache line while the lock is held.
        self.owner.load(Ordering::SeqCst) == 0 && self.replace(0, me)
    }

    fn wait(
        &self,
        me: Member,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        is_alive: impl Fn(Member) -> bool,
    ) -> Result<LockOutcome, WaitError> {
        let mut slice = FIRST_SLICE;
        loop {
            let slice_end = Instant::now() + slice;
            let until = deadline.map_or(slice_end, |at| at.min(slice_end));
            let waited = self.event.wait_until(spin, Some(until), || self.take(me).then_some(()));
            match waited {
                Ok(()) => return Ok(LockOutcome::Acquired),
                Err(WaitError::TimedOut) => {}
                Err(interrupted) => return Err(interrupted),
            }
            if let Some(dead) = self.take_over(me, &is_alive) {
                return Ok(LockOutcome::OwnerDied(dead));
            }
            if deadline == Some(until) {
                return Err(WaitError::TimedOut);
            }
            slice = (slice * 2).min(LONGEST_SLICE);
        }
    }

    /// Takes the lock from its owner if that process is dead, and returns that process.
    fn take_over(&self, me: Member, is_alive: impl Fn(Member) -> bool) -> Option<Member> {
        let owner = self.owner()?;
        (!is_alive(owner) && self.replace(owner.raw(), me)).then_some(owner)
    }

    fn release(&self) -> Result<(), LockError> {
        if self.owner.swap(0, Ordering::SeqCst) == 0 {
            return Err(LockError::NotHeld);
        }
        self.event.notify(1);
        Ok(())
    }

    fn owner(&self) -> Option<Member> {
        Member::from_raw(self.owner.load(Ordering::SeqCst))
    }

    fn replace(&self, from: u32, to: Member) -> bool {
        let order = Ordering::SeqCst;
        self.owner.compare_exchange(from, to.raw(), order, order).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn member(slot: u32) -> Member {
        Member::from_raw(1 << 12 | slot).unwrap()
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(5))
    }

    /// `acquire` of a process that finds the others dead or alive.
    fn acquire(
        lock: &LockState,
        me: Member,
        deadline: Option<Instant>,
        others_live: bool,
    ) -> Result<LockOutcome, WaitError> {
        lock.wait(me, &SpinBudget::new(), deadline, |owner| owner == me || others_live)
    }

    #[test]
    fn held_lock_keeps_others_out_and_its_holder_too() {
        let lock = LockState::new();
        assert!(lock.take(member(1)));
        assert!(!lock.take(member(1)), "it is not recursive");
        for me in [member(1), member(2)] {
            assert_eq!(acquire(&lock, me, soon(), true), Err(WaitError::TimedOut));
        }
        assert_eq!(lock.owner(), Some(member(1)));
    }

    #[test]
    fn releasing_a_free_lock_is_an_error_and_leaves_it_free() {
        let lock = LockState::new();
        assert_eq!(lock.release(), Err(LockError::NotHeld));
        assert!(lock.take(member(1)));
        assert_eq!(lock.release(), Ok(()));
        assert_eq!(lock.release(), Err(LockError::NotHeld));
    }

    #[test]
    fn lock_of_a_dead_owner_is_taken_over_once() {
        let lock = LockState::new();
        assert!(lock.take(member(1)));
        let died = LockOutcome::OwnerDied(member(1));
        assert_eq!(acquire(&lock, member(2), None, false), Ok(died));
        assert_eq!(lock.owner(), Some(member(2)));
        assert_eq!(acquire(&lock, member(3), soon(), true), Err(WaitError::TimedOut));
    }

    #[test]
    fn death_during_the_wait_is_noticed() {
        let shared = Arc::new((LockState::new(), AtomicBool::new(true)));
        assert!(shared.0.take(member(1)));
        let waiting = shared.clone();
        let waiter = thread::spawn(move || {
            let alive = |_| waiting.1.load(Ordering::SeqCst);
            waiting.0.wait(member(2), &SpinBudget::new(), None, alive)
        });
        shared.1.store(false, Ordering::SeqCst);
        assert_eq!(waiter.join().unwrap(), Ok(LockOutcome::OwnerDied(member(1))));
    }

    #[test]
    fn repeated_tries_get_past_a_dead_owner() {
        let lock = Lock::new().unwrap();
        // No slot of this test's arena has come this far.
        let dead = Member::from_raw(1 << 30 | 4000).unwrap();
        assert!(lock.state.take(dead));
        let outcome = (0..TRIES_PER_LOOK).find_map(|_| lock.try_acquire());
        assert_eq!(outcome, Some(LockOutcome::OwnerDied(dead)));
    }

    #[test]
    fn clones_are_one_lock() {
        let lock = Lock::new().unwrap();
        let same = lock.clone();
        assert_eq!(lock.acquire(None), Ok(LockOutcome::Acquired));
        assert_eq!(same.acquire(Some(Instant::now())), Err(WaitError::TimedOut));
        assert_eq!(same.release(), Ok(()), "anybody may release");
        assert!(lock.owner().is_none());
    }

    #[test]
    fn threads_exclude_each_other() {
        const ROUNDS: u32 = 20_000;
        let lock = Lock::new().unwrap();
        // Two halves that only a holder may see differ.
        let halves = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (lock, halves) = (lock.clone(), halves.clone());
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        let _: LockOutcome = lock.acquire(None).unwrap();
                        let [a, b] = halves.each_ref().map(|half| half.load(Ordering::Relaxed));
                        assert_eq!(a, b, "two hold the lock");
                        halves[0].store(a + 1, Ordering::Relaxed);
                        halves[1].store(b + 1, Ordering::Relaxed);
                        lock.release().unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(halves[1].load(Ordering::Relaxed), 4 * ROUNDS);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    fn member(slot: u32) -> Member {
        Member::from_raw(1 << 12 | slot).unwrap()
    }

    fn acquire(lock: &LockState, me: Member) {
        lock.wait(me, &SpinBudget::new(), None, |_| true).unwrap();
    }

    fn release(lock: &LockState) {
        lock.release().unwrap();
    }

    struct Guarded {
        lock: LockState,
        value: UnsafeCell<u32>,
    }

    // SAFETY: the value is reached only with the lock held; loom reports it if that is not enough.
    unsafe impl Sync for Guarded {}

    impl Guarded {
        fn add_one(&self, me: Member, acquire: fn(&LockState, Member), release: fn(&LockState)) {
            acquire(&self.lock, me);
            self.value.with_mut(|value| {
                // SAFETY: see `Sync`.
                unsafe { *value += 1 }
            });
            release(&self.lock);
        }
    }

    /// Processes that each take the lock, add one to what it guards, and release it.
    fn exclusion(processes: u32, acquire: fn(&LockState, Member), release: fn(&LockState)) {
        loom::model(move || {
            let value = UnsafeCell::new(0);
            let guarded = Arc::new(Guarded { lock: LockState::new(), value });
            let others: Vec<_> = (1..processes)
                .map(|slot| {
                    let guarded = guarded.clone();
                    thread::spawn(move || guarded.add_one(member(slot), acquire, release))
                })
                .collect();
            guarded.add_one(member(0), acquire, release);
            others.into_iter().for_each(|other| other.join().unwrap());
            guarded.add_one(member(0), acquire, release);
        });
    }

    /// Two processes find the lock in the hands of a dead one.
    fn succession(take_over: fn(&LockState, Member) -> Option<Member>) {
        loom::model(move || {
            let lock = Arc::new(LockState::new());
            assert!(lock.take(member(3)));
            let other = {
                let lock = lock.clone();
                thread::spawn(move || take_over(&lock, member(1)))
            };
            let mine = take_over(&lock, member(2));
            let successors = [mine, other.join().unwrap()];
            assert_eq!(successors.iter().flatten().count(), 1, "two hold the lock");
        });
    }

    fn is_alive(owner: Member) -> bool {
        owner != member(3)
    }

    #[test]
    fn two_processes_exclude_each_other() {
        exclusion(2, acquire, release);
    }

    #[test]
    fn three_processes_exclude_each_other() {
        exclusion(3, acquire, release);
    }

    #[test]
    fn dead_owner_has_one_successor() {
        succession(|lock, me| lock.take_over(me, is_alive));
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn acquire_in_two_steps(lock: &LockState, me: Member) {
        let take = || {
            let free = lock.owner.load(Ordering::SeqCst) == 0;
            free.then(|| lock.owner.store(me.raw(), Ordering::SeqCst))
        };
        lock.event.wait_until(&SpinBudget::new(), None, take).unwrap();
    }

    fn release_notifying_first(lock: &LockState) {
        lock.event.notify(1);
        lock.owner.store(0, Ordering::SeqCst);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn planted_acquire_in_two_steps_is_found() {
        exclusion(2, acquire_in_two_steps, release);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_notification_before_the_release_is_found() {
        exclusion(2, acquire, release_notifying_first);
    }

    #[test]
    #[should_panic(expected = "two hold the lock")]
    fn planted_unconditional_succession_is_found() {
        succession(|lock, me| {
            let owner = lock.owner().filter(|owner| !is_alive(*owner))?;
            lock.owner.store(me.raw(), Ordering::SeqCst);
            Some(owner)
        });
    }
}
