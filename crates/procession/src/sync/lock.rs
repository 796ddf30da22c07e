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

use crate::error::WaitError;
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{ArenaError, Member, OWNED, Shared, ShmSafe, shared_handle};
use crate::sync::grip::{Grip, Takeable};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::{Gate, Waiters, deadline_after};
use crate::sync::who::{MEMBER, SPARE, Who, arena};

/// Set while a waiter wants the lock handed on to it.
const CLAIMED: u64 = SPARE;

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
#[derive(Clone)]
pub struct Lock {
    grip: Grip<LockState>,
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
        Ok(Self { grip: Grip::of(Shared::new(|_| ())?) })
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
        self.grip.acquire(deadline)
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
        self.grip.try_acquire()
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
        self.grip.state.release()
    }

    /// The process that took the lock; `None` if it is free, or if that process has ended.
    pub fn owner(&self) -> Option<Member> {
        self.grip.state.owner()
    }

    /// Whether somebody holds the lock at this moment.
    pub fn is_held(&self) -> bool {
        self.grip.state.is_held()
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
        self.grip.state.holder(Who::here())
    }
}

shared_handle!(
    Lock, "lock", [grip.state], |state| Ok(Self { grip: Grip::of(state) }); open, note, serde
);

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

impl Takeable for LockState {
    /// Takes the lock if it is free and nobody claims it.
    #[inline]
    fn take(&self, who: Who) -> bool {
        // Looking first spares the holder's cache line while the lock is held.
        self.word.load(Ordering::SeqCst) == 0 && self.replace(0, who).is_ok()
    }

    fn wait(
        &self,
        who: Who,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        is_lost: impl Fn(Member) -> bool,
    ) -> Result<LockOutcome, WaitError> {
        self.waiters.wait(spin, deadline, &Turn { lock: self, who, is_lost })
    }

    fn take_past_the_dead(
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

    fn is_lost(owner: Member) -> bool {
        arena().was_killed(owner)
    }
}

impl LockState {
    /// Makes a free lock outside an arena.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0), waiters: Waiters::new() }
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
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
