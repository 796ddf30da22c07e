//! A lock that its holder may take again, between processes.
//!
//! # Shared state
//!
//! A [`LockState`], as in `lock.rs`, and `depth`: how many times the holder has taken it. Only the
//! holder writes `depth`, and nobody else looks at it but to show it.
//!
//! - Taking: the lock, then `depth` = 1. Taking again: `depth` + 1.
//! - Releasing: `depth` − 1; at 0 the lock is released.
//!
//! # When a process dies
//!
//! As in `lock.rs`, with one difference: since nobody but the owner could release it, a waiter takes
//! the lock over from an owner that has ended, however that was. It sets `depth` anew, so it does
//! not matter at which step the owner was killed. A thread that ends without a release is another
//! thing: its process lives, and the lock stays held.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{ArenaError, Member, Shared, ShmSafe, shared_handle};
use crate::sync::grip::{Grip, Takeable};
use crate::sync::lock::{Holder, LockError, LockOutcome, LockState};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::deadline_after;
use crate::sync::who::{Who, arena};

/// An exclusive lock between the processes of a tree, and between their threads, that whoever holds
/// it may take again.
///
/// It behaves like `multiprocessing.RLock`: it is held by one thread, which must release it as often
/// as it has taken it, and nobody else can. Clones and copies sent to other processes, in a message
/// or as an argument, are the same lock.
///
/// When the process that holds it ends or is killed, a waiter takes the lock over and is told so
/// with [`LockOutcome::OwnerDied`]: what the lock protects may be half-changed.
///
/// # Examples
///
/// ```
/// use procession::sync::RLock;
///
/// let lock = RLock::new()?;
/// lock.acquire(None)?;
/// lock.acquire(None)?;
/// assert_eq!(lock.depth(), 2);
/// lock.release()?;
/// lock.release()?;
/// assert!(!lock.is_held());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RLock {
    grip: Grip<RLockState>,
}

impl RLock {
    /// Makes a free lock.
    ///
    /// # Errors
    ///
    /// Any [`ArenaError`] that keeps a few bytes of shared memory from being allocated.
    pub fn new() -> Result<Self, ArenaError> {
        Ok(Self { grip: Grip::of(Shared::new(|_| ())?) })
    }

    /// Blocks until the lock is held by this thread, once more if it holds it already, or `deadline`
    /// has passed.
    ///
    /// Waits and looks after the owner as [`Lock::acquire`](crate::sync::Lock::acquire) does.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` has passed.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread. The lock is not
    ///   held; call again to go on waiting.
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

    /// Takes the lock, once more if this thread holds it, if that is possible without waiting;
    /// `None` if not.
    ///
    /// Not every failed try looks whether the owner still lives, but one of 64 does. So a
    /// program that tries again and again gets past a dead owner.
    #[inline]
    pub fn try_acquire(&self) -> Option<LockOutcome> {
        self.grip.try_acquire()
    }

    /// Takes back one [`acquire`](Self::acquire), and wakes a waiter if that was the last.
    ///
    /// # Errors
    ///
    /// [`LockError::NotOwner`] when this thread does not hold the lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::sync::{LockError, RLock};
    ///
    /// let lock = RLock::new()?;
    /// lock.acquire(None)?;
    /// let elsewhere = lock.clone();
    /// let refused = std::thread::spawn(move || elsewhere.release()).join().unwrap();
    /// assert_eq!(refused, Err(LockError::NotOwner));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn release(&self) -> Result<(), LockError> {
        self.grip.state.release(Who::here())
    }

    /// How many times the holder has taken the lock; 0 if it is free.
    pub fn depth(&self) -> u32 {
        if self.is_held() { self.grip.state.depth.load(Ordering::Relaxed) } else { 0 }
    }

    /// The process that holds the lock; `None` if it is free.
    pub fn owner(&self) -> Option<Member> {
        self.grip.state.lock.owner()
    }

    /// Whether somebody holds the lock at this moment.
    pub fn is_held(&self) -> bool {
        self.grip.state.lock.is_held()
    }

    /// Who holds the lock at this moment.
    pub fn holder(&self) -> Holder {
        self.grip.state.lock.holder(Who::here())
    }

    /// Frees the lock however often it was taken, and returns how often that was.
    pub(crate) fn release_all(&self) -> Result<u32, LockError> {
        self.grip.state.release_all(Who::here())
    }

    /// Says how often the lock, which this thread has just taken, was taken.
    pub(crate) fn set_depth(&self, depth: u32) {
        self.grip.state.depth.store(depth, Ordering::Relaxed);
    }
}

shared_handle!(
    RLock, "lock", [grip.state], |state| Ok(Self { grip: Grip::of(state) }); open, note, serde
);

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock")
            .field("owner", &self.owner())
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}

/// What all handles of a lock share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RLockState {
    lock: LockState,
    depth: AtomicU32,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<RLockState>() == 32 && align_of::<RLockState>() == 8);

// SAFETY: a lock's state and two atomic words, with a fixed layout and no pointer; any depth is
// possible. Every method works by atomic operations alone.
unsafe impl ShmSafe for RLockState {
    const TAG: u32 = u32::from_le_bytes(*b"rlok");
}

impl Takeable for RLockState {
    /// Takes the lock if it is free or held by `who`.
    #[inline]
    fn take(&self, who: Who) -> bool {
        if self.lock.is_held_by(who) {
            let depth = self.depth.load(Ordering::Relaxed);
            self.depth.store(depth + 1, Ordering::Relaxed);
            return true;
        }
        let taken = self.lock.take(who);
        if taken {
            self.depth.store(1, Ordering::Relaxed);
        }
        taken
    }

    fn wait(
        &self,
        who: Who,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        is_lost: impl Fn(Member) -> bool,
    ) -> Result<LockOutcome, WaitError> {
        let outcome = self.lock.wait(who, spin, deadline, is_lost)?;
        self.depth.store(1, Ordering::Relaxed);
        Ok(outcome)
    }

    fn take_past_the_dead(
        &self,
        who: Who,
        is_lost: impl Fn(Member) -> bool,
    ) -> Option<LockOutcome> {
        let outcome = self.lock.take_past_the_dead(who, is_lost)?;
        self.depth.store(1, Ordering::Relaxed);
        Some(outcome)
    }

    fn is_lost(owner: Member) -> bool {
        !arena().is_alive(owner)
    }
}

impl RLockState {
    #[inline]
    fn release(&self, who: Who) -> Result<(), LockError> {
        if !self.lock.is_held_by(who) {
            return Err(LockError::NotOwner);
        }
        match self.depth.load(Ordering::Relaxed) {
            0 | 1 => self.lock.release(),
            depth => {
                self.depth.store(depth - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn release_all(&self, who: Who) -> Result<u32, LockError> {
        if !self.lock.is_held_by(who) {
            return Err(LockError::NotOwner);
        }
        let depth = self.depth.load(Ordering::Relaxed);
        self.lock.release().map(|()| depth)
    }

    /// Makes a free lock outside an arena.
    #[cfg(all(test, loom))]
    fn new() -> Self {
        let [depth, _reserved] = [AtomicU32::new(0), AtomicU32::new(0)];
        Self { lock: LockState::new(), depth, _reserved }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    /// What `call` returns on a thread of its own.
    fn elsewhere<R: Send + 'static>(
        lock: &RLock,
        call: impl FnOnce(&RLock) -> R + Send + 'static,
    ) -> R {
        let lock = lock.clone();
        thread::spawn(move || call(&lock)).join().unwrap()
    }

    #[test]
    fn lock_is_free_after_as_many_releases_as_acquires() {
        let lock = RLock::new().unwrap();
        for depth in 1..=3 {
            assert_eq!(lock.acquire(None), Ok(LockOutcome::Acquired));
            assert_eq!((lock.depth(), lock.holder()), (depth, Holder::ThisThread));
        }
        for _ in 0..3 {
            assert_eq!(elsewhere(&lock, |lock| lock.try_acquire()), None);
            lock.release().unwrap();
        }
        assert_eq!((lock.depth(), lock.holder()), (0, Holder::Nobody));
        assert!(elsewhere(&lock, |lock| lock.try_acquire()).is_some());
    }

    #[test]
    fn only_the_thread_that_holds_it_may_release_it() {
        let lock = RLock::new().unwrap();
        assert_eq!(lock.release(), Err(LockError::NotOwner));
        lock.acquire(None).unwrap();
        assert_eq!(elsewhere(&lock, |lock| lock.holder()), Holder::OtherThread);
        assert_eq!(elsewhere(&lock, |lock| lock.release()), Err(LockError::NotOwner));
        let short = Duration::from_millis(5);
        let waited = elsewhere(&lock, move |lock| lock.acquire_for(short));
        assert_eq!(waited, Err(WaitError::TimedOut));
        assert_eq!(lock.depth(), 1, "the others have changed it");
    }

    #[test]
    fn whole_depth_is_given_up_and_taken_back() {
        let lock = RLock::new().unwrap();
        assert_eq!(lock.release_all(), Err(LockError::NotOwner));
        lock.acquire(None).unwrap();
        lock.acquire(None).unwrap();
        assert_eq!(lock.release_all(), Ok(2));
        assert!(!lock.is_held());
        lock.acquire(None).unwrap();
        lock.set_depth(2);
        lock.release().unwrap();
        assert!(lock.is_held());
    }

    #[test]
    fn lock_of_a_dead_owner_is_taken_over_with_a_depth_of_one() {
        let lock = RLock::new().unwrap();
        // No slot of this test's arena has come this far.
        let dead = Member::from_raw(1 << 30 | 4000).unwrap();
        assert!(lock.grip.state.take(Who::new(dead, 1)) && lock.grip.state.take(Who::new(dead, 1)));
        assert_eq!(lock.acquire(None), Ok(LockOutcome::OwnerDied(dead)));
        assert_eq!(lock.depth(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;

    fn who(slot: u32) -> Who {
        Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
    }

    struct Guarded {
        lock: RLockState,
        value: UnsafeCell<u32>,
    }

    // SAFETY: the value is reached only with the lock held; loom reports it if that is not enough.
    unsafe impl Sync for Guarded {}

    type Release = fn(&RLockState, Who);

    fn acquire(lock: &RLockState, me: Who) {
        if !lock.take(me) {
            lock.wait(me, &SpinBudget::new(), None, |_| false).unwrap();
        }
    }

    fn release(lock: &RLockState, me: Who) {
        lock.release(me).unwrap();
    }

    impl Guarded {
        fn add_two(&self, me: Who, release: Release) {
            for _ in 0..2 {
                acquire(&self.lock, me);
            }
            for _ in 0..2 {
                self.value.with_mut(|value| {
                    // SAFETY: see `Sync`.
                    unsafe { *value += 1 }
                });
                release(&self.lock, me);
            }
        }
    }

    /// Two processes that take the lock twice each, and change what it guards until it is free.
    fn nesting(release: Release) {
        loom::model(move || {
            let value = UnsafeCell::new(0);
            let guarded = Arc::new(Guarded { lock: RLockState::new(), value });
            let other = guarded.clone();
            let other = thread::spawn(move || other.add_two(who(1), release));
            guarded.add_two(who(0), release);
            other.join().unwrap();
        });
    }

    #[test]
    fn nested_holders_exclude_each_other() {
        nesting(release);
    }

    // A planted fault, which loom must find: it shows that the model above could fail.

    fn release_at_once(lock: &RLockState, me: Who) {
        if lock.lock.is_held_by(me) {
            lock.lock.release().unwrap();
        }
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn planted_release_of_the_whole_depth_is_found() {
        nesting(release_at_once);
    }
}
