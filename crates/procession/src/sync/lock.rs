//! An exclusive lock between processes that outlives the death of its owner.
//!
//! # Shared state
//!
//! `word` says who took the lock:
//!
//! | bits  | value  | meaning                                                            |
//! |-------|--------|--------------------------------------------------------------------|
//! | 0–30  | 0      | free                                                               |
//! |       | 1      | held; the process that took it has ended and not released it       |
//! |       | member | held; the process that took it                                     |
//! | 31    |        | claimed: only a waiter that has waited for long may take it        |
//! | 32–63 |        | the thread that took it                                            |
//!
//! `waiters` are those who wait, see `waiters.rs`, notified of every release. Zeroed memory is a
//! free lock.
//!
//! - Taking is a compare-and-swap of the word from 0; for a waiter that has waited for long, also
//!   from a mere claim.
//! - Releasing takes away all but the claim, and notifies one waiter. Any process may release, as
//!   with `multiprocessing.Lock`, so the owner is a record of who took the lock and no permission.
//!
//! # Memory ordering
//!
//! Taking acquires and releasing releases: what was written before a release is visible to the
//! next owner. Both are sequentially consistent, as the event count asks.
//!
//! # When a process dies
//!
//! - The owner is killed. A waiter looks whether the owner still lives: after 20 ms at first, then
//!   after longer and longer times of up to two seconds. If not, it swaps the word for its own: the
//!   dead cannot take the lock again, so of several waiters one succeeds, and it is told.
//! - The owner ends of its own accord. The lock stays held: another process may release it. The
//!   arena knows how the owner ended; before it forgets, when it buries the owner, it replaces the
//!   owner's number by 1 (see `shm/members.rs`). So a waiter that is told "killed" for the number
//!   that it has read either reads it as it was, or its swap fails.
//! - A releaser killed between the release and the notification delays a waiter until its slice
//!   ends.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{ArenaError, Handle, Member, OWNED, Shared, ShmSafe};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::{Gate, Waiters, deadline_after};
use crate::sync::who::{MEMBER, SPARE, Who, arena};

/// Set while a waiter wants the lock handed on to it.
const CLAIMED: u64 = SPARE;

/// Looking whether a process lives reads a file of `/proc`, too much for every failed try.
const TRIES_PER_LOOK: u32 = 64;

/// An exclusive lock between the processes of a tree, and between their threads.
///
/// It behaves like `multiprocessing.Lock`: whoever holds it keeps everybody out, the
/// holder itself included (it is not recursive), and anybody may release it. Clones and copies
/// sent to other processes, in a message or as an argument, are the same lock.
///
/// When the process that took it is killed, a waiter takes the lock over and is told so with
/// [`LockOutcome::OwnerDied`]: what the lock protects may be half-changed. If that process ends of
/// its own accord instead, the lock stays held until somebody releases it.
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

/// Who holds a lock, as the calling thread sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: the lock is free.
    Nobody,
    /// The calling thread took it.
    ThisThread,
    /// Another thread of this process took it.
    OtherThread,
    /// Another process took it, which may have ended.
    OtherProcess,
}

/// Why a lock could not be released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockError {
    /// Nobody holds it.
    NotHeld,
    /// Another thread or process holds it, and only that may release it.
    NotOwner,
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

    /// Opens the lock that `raw`, which [`note`](Self::note) gave, stands for.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when it is gone.
    pub fn open(raw: u64) -> Result<Self, ArenaError> {
        Shared::open(Handle::from_raw(raw)).map(Self::over)
    }

    /// The number that stands for the lock in the data which [`pack`](crate::shm::pack) is packing
    /// on this thread, for serializers that know nothing of serde.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] outside of `pack`.
    pub fn note(&self) -> Result<u64, ArenaError> {
        self.state.pack().map(Handle::raw)
    }

    /// Blocks until the lock is held by this process, or `deadline` has passed.
    ///
    /// Without a deadline it waits for ever; one in the past means the same as
    /// [`try_acquire`](Self::try_acquire). A release wakes one waiter; one that has waited for
    /// some milliseconds comes before all others. That the owner was killed is noticed after 20 ms,
    /// and after up to two seconds by those who have waited for long.
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
    #[inline]
    pub fn acquire(&self, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        let who = Who::here();
        if self.state.take(who) {
            return Ok(LockOutcome::Acquired);
        }
        self.wait(who, deadline)
    }

    #[cold]
    fn wait(&self, who: Who, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return self.try_acquire().ok_or(WaitError::TimedOut);
        }
        self.state.wait(who, &self.spin, deadline, |owner| arena().was_killed(owner))
    }

    /// Blocks as [`acquire`](Self::acquire) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_for(&self, timeout: Duration) -> Result<LockOutcome, WaitError> {
        self.acquire(deadline_after(timeout))
    }

    /// Takes the lock if that is possible without waiting; `None` if not.
    ///
    /// Not every failed try looks whether the owner still lives, but one of 64 does. So a
    /// program that tries again and again gets past a killed owner.
    #[inline]
    pub fn try_acquire(&self) -> Option<LockOutcome> {
        let who = Who::here();
        if self.state.take(who) {
            Some(LockOutcome::Acquired)
        } else {
            self.look_after_failure(who)
        }
    }

    #[cold]
    fn look_after_failure(&self, who: Who) -> Option<LockOutcome> {
        let tries = self.failed_tries.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !tries.is_multiple_of(TRIES_PER_LOOK) {
            return None;
        }
        self.state.take_past_the_dead(who, |owner| arena().was_killed(owner))
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
    #[inline]
    pub fn release(&self) -> Result<(), LockError> {
        self.state.release()
    }

    /// The process that took the lock; `None` if it is free, or if that process has ended.
    pub fn owner(&self) -> Option<Member> {
        self.state.owner()
    }

    /// Whether somebody holds the lock at this moment.
    pub fn is_held(&self) -> bool {
        self.state.is_held()
    }

    /// Who holds the lock at this moment.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::sync::{Holder, Lock};
    ///
    /// let lock = Lock::new()?;
    /// assert_eq!(lock.holder(), Holder::Nobody);
    /// lock.acquire(None)?;
    /// assert_eq!(lock.holder(), Holder::ThisThread);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holder(&self) -> Holder {
        self.state.holder(Who::here())
    }
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
            Self::NotOwner => "a lock was released by a thread or a process that does not hold it",
        })
    }
}

impl std::error::Error for LockError {}

/// What all handles of a lock share. The first word is the owner's, as [`OWNED`] asks.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LockState {
    word: AtomicU64,
    waiters: Waiters,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<LockState>() == 24 && align_of::<LockState>() == 8);

// SAFETY: atomic words with a fixed layout and no pointer. Any value of `word` is a free lock, or a
// held one, whose owner is a member or, if it was damaged, nobody; the rest is counts. Every method
// works by atomic operations alone.
unsafe impl ShmSafe for LockState {
    const TAG: u32 = OWNED;
}

impl LockState {
    /// Makes a free lock outside an arena.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0), waiters: Waiters::new() }
    }

    /// Takes the lock if it is free and nobody claims it.
    #[inline]
    pub(crate) fn take(&self, who: Who) -> bool {
        // Looking first spares the holder's cache line while the lock is held.
        self.word.load(Ordering::SeqCst) == 0 && self.replace(0, who).is_ok()
    }

    /// Takes the lock if it is free, claims it if it is not.
    fn take_or_claim(&self, who: Who) -> bool {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            let free = word & MEMBER == 0;
            if !free && word & CLAIMED != 0 {
                return false;
            }
            let new = if free { who.raw() } else { word | CLAIMED };
            let order = Ordering::SeqCst;
            match self.word.compare_exchange(word, new, order, order) {
                Ok(_) => return free,
                Err(seen) => word = seen,
            }
        }
    }

    pub(crate) fn unclaim(&self) {
        if self.word.fetch_and(!CLAIMED, Ordering::SeqCst) & MEMBER == 0 {
            self.waiters.notify_one();
        }
    }

    /// Blocks until the lock is taken. `is_lost` says of an owner that it will never release it.
    pub(crate) fn wait(
        &self,
        who: Who,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        is_lost: impl Fn(Member) -> bool,
    ) -> Result<LockOutcome, WaitError> {
        self.waiters.wait(spin, deadline, &Turn { lock: self, who, is_lost })
    }

    /// Takes the lock if it is free, claimed or not, or if its owner will never release it.
    pub(crate) fn take_past_the_dead(
        &self,
        who: Who,
        is_lost: impl Fn(Member) -> bool,
    ) -> Option<LockOutcome> {
        // Claimed, and whoever claims it may be dead.
        if self.word.load(Ordering::SeqCst) == CLAIMED && self.replace(CLAIMED, who).is_ok() {
            return Some(LockOutcome::Acquired);
        }
        self.take_over(who, is_lost).map(LockOutcome::OwnerDied)
    }

    /// Takes the lock from its owner if that process will never release it, and returns it.
    fn take_over(&self, who: Who, is_lost: impl Fn(Member) -> bool) -> Option<Member> {
        let mut word = self.word.load(Ordering::SeqCst);
        let owner = Who::from_raw(word)?.member();
        if !is_lost(owner) {
            return None;
        }
        // What may still change is the claim.
        while Who::from_raw(word).is_some_and(|now| now.member() == owner) {
            match self.replace(word, who) {
                Ok(()) => return Some(owner),
                Err(seen) => word = seen,
            }
        }
        None
    }

    #[inline]
    pub(crate) fn release(&self) -> Result<(), LockError> {
        if self.word.fetch_and(CLAIMED, Ordering::SeqCst) & MEMBER == 0 {
            return Err(LockError::NotHeld);
        }
        self.waiters.notify_one();
        Ok(())
    }

    pub(crate) fn owner(&self) -> Option<Member> {
        Who::from_raw(self.word.load(Ordering::SeqCst)).map(Who::member)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.word.load(Ordering::SeqCst) & MEMBER != 0
    }

    /// Whether the lock was taken by `who`. Nobody else can change that.
    #[inline]
    pub(crate) fn is_held_by(&self, who: Who) -> bool {
        self.word.load(Ordering::SeqCst) & !CLAIMED == who.raw()
    }

    pub(crate) fn holder(&self, who: Who) -> Holder {
        let word = self.word.load(Ordering::SeqCst);
        if word & MEMBER == 0 {
            return Holder::Nobody;
        }
        match Who::from_raw(word) {
            Some(holder) if holder == who => Holder::ThisThread,
            Some(holder) if holder.member() == who.member() => Holder::OtherThread,
            _ => Holder::OtherProcess,
        }
    }

    fn replace(&self, from: u64, to: Who) -> Result<(), u64> {
        let order = Ordering::SeqCst;
        self.word.compare_exchange(from, to.raw(), order, order).map(drop)
    }
}

/// A lock that is waited for.
struct Turn<'a, L> {
    lock: &'a LockState,
    who: Who,
    is_lost: L,
}

impl<L: Fn(Member) -> bool> Gate for Turn<'_, L> {
    type Pass = LockOutcome;

    fn enter(&self) -> Option<LockOutcome> {
        self.lock.take(self.who).then_some(LockOutcome::Acquired)
    }

    fn enter_or_claim(&self) -> Option<LockOutcome> {
        self.lock.take_or_claim(self.who).then_some(LockOutcome::Acquired)
    }

    fn unclaim(&self) {
        self.lock.unclaim();
    }

    fn enter_past_the_dead(&self) -> Option<LockOutcome> {
        self.lock.take_past_the_dead(self.who, &self.is_lost)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn who(slot: u32) -> Who {
        Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(5))
    }

    /// `acquire` of a process that finds the others dead or alive.
    fn acquire(
        lock: &LockState,
        me: Who,
        deadline: Option<Instant>,
        others_live: bool,
    ) -> Result<LockOutcome, WaitError> {
        let lost = |owner| owner != me.member() && !others_live;
        lock.wait(me, &SpinBudget::new(), deadline, lost)
    }

    #[test]
    fn held_lock_keeps_others_out_and_its_holder_too() {
        let lock = LockState::new();
        assert!(lock.take(who(1)));
        assert!(!lock.take(who(1)), "it is not recursive");
        for me in [who(1), who(2)] {
            assert_eq!(acquire(&lock, me, soon(), true), Err(WaitError::TimedOut));
        }
        assert_eq!(lock.owner(), Some(who(1).member()));
        assert_eq!(lock.holder(who(1)), Holder::ThisThread);
        assert_eq!(lock.holder(Who::new(who(1).member(), 2)), Holder::OtherThread);
        assert_eq!(lock.holder(who(2)), Holder::OtherProcess);
    }

    #[test]
    fn releasing_a_free_lock_is_an_error_and_leaves_it_free() {
        let lock = LockState::new();
        assert_eq!(lock.release(), Err(LockError::NotHeld));
        assert!(lock.take(who(1)));
        assert_eq!(lock.release(), Ok(()));
        assert_eq!(lock.release(), Err(LockError::NotHeld));
        assert_eq!(lock.holder(who(1)), Holder::Nobody);
    }

    #[test]
    fn lock_of_a_dead_owner_is_taken_over_once() {
        let lock = LockState::new();
        assert!(lock.take(who(1)));
        let died = LockOutcome::OwnerDied(who(1).member());
        assert_eq!(acquire(&lock, who(2), None, false), Ok(died));
        assert_eq!(lock.owner(), Some(who(2).member()));
        assert_eq!(acquire(&lock, who(3), soon(), true), Err(WaitError::TimedOut));
    }

    #[test]
    fn death_during_the_wait_is_noticed() {
        let shared = Arc::new((LockState::new(), AtomicBool::new(false)));
        assert!(shared.0.take(who(1)));
        let waiting = shared.clone();
        let waiter = thread::spawn(move || {
            let lost = |_| waiting.1.load(Ordering::SeqCst);
            waiting.0.wait(who(2), &SpinBudget::new(), None, lost)
        });
        shared.1.store(true, Ordering::SeqCst);
        let died = LockOutcome::OwnerDied(who(1).member());
        assert_eq!(waiter.join().unwrap(), Ok(died));
    }

    #[test]
    fn claimed_lock_is_for_those_who_waited_and_nobody_else() {
        let lock = LockState::new();
        assert!(lock.take(who(1)));
        assert!(!lock.take_or_claim(who(2)));
        lock.release().unwrap();
        assert!(!lock.is_held());
        assert!(!lock.take(who(1)), "it is claimed");
        assert_eq!(lock.release(), Err(LockError::NotHeld));
        assert!(lock.take_or_claim(who(3)), "the claim is of all that waited for long");
        lock.release().unwrap();
        assert!(lock.take(who(1)), "the claim went with the one who entered");
    }

    #[test]
    fn claim_of_the_dead_holds_nobody_up() {
        let lock = LockState::new();
        assert!(lock.take(who(1)));
        assert!(!lock.take_or_claim(who(2)));
        lock.release().unwrap();
        // Of the claimant nothing is heard any more.
        assert_eq!(acquire(&lock, who(3), None, true), Ok(LockOutcome::Acquired));
    }

    #[test]
    fn claim_goes_with_a_waiter_that_gives_up() {
        let lock = LockState::new();
        assert!(lock.take(who(1)));
        let later = Some(Instant::now() + Duration::from_millis(10));
        assert_eq!(acquire(&lock, who(2), later, true), Err(WaitError::TimedOut));
        lock.release().unwrap();
        assert!(lock.take(who(3)), "it is still claimed");
    }

    #[test]
    fn repeated_tries_get_past_a_dead_owner() {
        let lock = Lock::new().unwrap();
        // No slot of this test's arena has come this far.
        let dead = Member::from_raw(1 << 30 | 4000).unwrap();
        assert!(lock.state.take(Who::new(dead, 1)));
        let outcome = (0..TRIES_PER_LOOK).find_map(|_| lock.try_acquire());
        assert_eq!(outcome, Some(LockOutcome::OwnerDied(dead)));
    }

    #[test]
    fn clones_are_one_lock() {
        let lock = Lock::new().unwrap();
        let same = lock.clone();
        assert_eq!(lock.acquire(None), Ok(LockOutcome::Acquired));
        assert_eq!(same.acquire_for(Duration::ZERO), Err(WaitError::TimedOut));
        assert_eq!(same.release(), Ok(()), "anybody may release");
        assert!(!lock.is_held());
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
    use crate::slice::Pace;

    fn who(slot: u32) -> Who {
        Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
    }

    fn acquire(lock: &LockState, me: Who) {
        lock.wait(me, &SpinBudget::new(), None, |_| false).unwrap();
    }

    /// As a waiter that has waited for long.
    fn acquire_by_claim(lock: &LockState, me: Who) {
        let turn = Turn { lock, who: me, is_lost: |_| false };
        lock.waiters
            .wait_patiently(&SpinBudget::new(), None, Pace::new(Duration::from_secs(3600)), &turn)
            .unwrap();
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

    type Acquire = fn(&LockState, Who);

    impl Guarded {
        fn add_one(&self, me: Who, acquire: Acquire, release: fn(&LockState)) {
            acquire(&self.lock, me);
            self.value.with_mut(|value| {
                // SAFETY: see `Sync`.
                unsafe { *value += 1 }
            });
            release(&self.lock);
        }
    }

    /// Processes that each take the lock, add one to what it guards, and release it.
    fn exclusion(acquires: &'static [Acquire], release: fn(&LockState)) {
        loom::model(move || {
            let value = UnsafeCell::new(0);
            let guarded = Arc::new(Guarded { lock: LockState::new(), value });
            let others: Vec<_> = (1..)
                .zip(&acquires[1..])
                .map(|(slot, acquire)| {
                    let guarded = guarded.clone();
                    thread::spawn(move || guarded.add_one(who(slot), *acquire, release))
                })
                .collect();
            guarded.add_one(who(0), acquires[0], release);
            others.into_iter().for_each(|other| other.join().unwrap());
            guarded.add_one(who(0), acquires[0], release);
        });
    }

    /// Two processes find the lock in the hands of a dead one.
    fn succession(take_over: fn(&LockState, Who) -> Option<Member>) {
        loom::model(move || {
            let lock = Arc::new(LockState::new());
            assert!(lock.take(who(3)));
            let other = {
                let lock = lock.clone();
                thread::spawn(move || take_over(&lock, who(1)))
            };
            let mine = take_over(&lock, who(2));
            let successors = [mine, other.join().unwrap()];
            assert_eq!(successors.iter().flatten().count(), 1, "two hold the lock");
        });
    }

    fn is_lost(owner: Member) -> bool {
        owner == who(3).member()
    }

    #[test]
    fn two_processes_exclude_each_other() {
        exclusion(&[acquire, acquire], release);
    }

    #[test]
    fn three_processes_exclude_each_other() {
        exclusion(&[acquire, acquire, acquire], release);
    }

    #[test]
    fn claimant_and_others_exclude_each_other_and_all_get_the_lock() {
        exclusion(&[acquire, acquire_by_claim, acquire], release);
    }

    #[test]
    fn claimants_that_give_up_leave_the_lock_to_others() {
        loom::model(|| {
            let lock = Arc::new(LockState::new());
            assert!(lock.take(who(0)));
            let waiter = {
                let lock = lock.clone();
                thread::spawn(move || acquire(&lock, who(1)))
            };
            if lock.take_or_claim(who(2)) {
                unreachable!("it is held");
            }
            lock.release().unwrap();
            lock.unclaim();
            waiter.join().unwrap();
        });
    }

    #[test]
    fn dead_owner_has_one_successor() {
        succession(|lock, me| lock.take_over(me, is_lost));
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn acquire_in_two_steps(lock: &LockState, me: Who) {
        let take = || {
            let free = lock.word.load(Ordering::SeqCst) == 0;
            free.then(|| lock.word.store(me.raw(), Ordering::SeqCst))
        };
        lock.waiters.fresh.wait_until(&SpinBudget::new(), None, take).unwrap();
    }

    fn release_notifying_first(lock: &LockState) {
        lock.waiters.notify_one();
        lock.word.store(0, Ordering::SeqCst);
    }

    fn release_forgetting_those_who_claim(lock: &LockState) {
        lock.word.fetch_and(CLAIMED, Ordering::SeqCst);
        lock.waiters.fresh.notify(1);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn planted_acquire_in_two_steps_is_found() {
        exclusion(&[acquire_in_two_steps, acquire_in_two_steps], release);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_notification_before_the_release_is_found() {
        exclusion(&[acquire, acquire], release_notifying_first);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_release_without_a_word_to_claimants_is_found() {
        exclusion(&[acquire, acquire_by_claim], release_forgetting_those_who_claim);
    }

    #[test]
    #[should_panic(expected = "two hold the lock")]
    fn planted_unconditional_succession_is_found() {
        succession(|lock, me| {
            let owner = lock.owner().filter(|owner| is_lost(*owner))?;
            lock.word.store(me.raw(), Ordering::SeqCst);
            Some(owner)
        });
    }
}
