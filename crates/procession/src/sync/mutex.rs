//! A value in shared memory behind a lock.
//!
//! # Shared state
//!
//! | word     | meaning                                                                     |
//! |----------|-----------------------------------------------------------------------------|
//! | `lock`   | held by whoever uses the value, see `lock.rs`                               |
//! | `mark`   | of which type the value is; written once, before sharing                    |
//! | `poison` | the process that left the value as it may not be; 0 while there was none    |
//! | `value`  | plain data                                                                  |
//!
//! `poison` is written with the lock held, and stays until somebody says that the value is as it
//! should be.
//!
//! # When a process dies
//!
//! If it holds the lock, whoever takes it over writes its number into `poison`. It makes no
//! difference whether it was killed or has ended: nobody else would release the lock. If the new
//! holder is killed before it has written that, the next one finds a dead holder too.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::WaitError;
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{ArenaError, Member, Shared, ShmSafe};
use crate::sync::grip::Takeable;
use crate::sync::lock::{LockOutcome, LockState};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::deadline_after;
use crate::sync::who::{Who, arena};

/// A value in shared memory that one thread of one process uses at a time.
///
/// The value is plain data ([`Pod`]): numbers, arrays of them, and structures of these that derive
/// it. Clones and copies sent to other processes, in a message or as an argument, are the same value.
///
/// When a process dies while it holds the value, or panics, the value may be half-changed, and the
/// mutex is *poisoned*: all who lock it are told so with [`Poisoned`], until one of them says
/// [`clear_poison`](MutexGuard::clear_poison).
///
/// # Examples
///
/// ```
/// use procession::sync::Mutex;
///
/// let total = Mutex::new([0_u64; 2])?;
/// let same = total.clone();
/// same.lock().expect("nobody died")[1] += 5;
/// assert_eq!(*total.lock().expect("nobody died"), [0, 5]);
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
pub struct Mutex<T: Pod> {
    state: Shared<MutexState<T>>,
    spin: SpinBudget,
}

/// The value of a mutex, for as long as this lives. Dropping it lets the next one have the value.
#[must_use = "the mutex is released when this is dropped"]
pub struct MutexGuard<'a, T: Pod> {
    mutex: &'a Mutex<T>,
    /// Whether this thread was panicking already when it took the lock.
    panicking: bool,
    /// A lock is released by the thread that took it.
    _stay: PhantomData<*const ()>,
}

/// What a mutex holds may be half-changed: a process died with it, or panicked.
///
/// The mutex is locked nevertheless, and the value can be had from here.
pub struct Poisoned<'a, T: Pod> {
    guard: MutexGuard<'a, T>,
    by: Member,
}

/// Why a mutex was not locked.
pub enum TryLockError<'a, T: Pod> {
    /// It was, and is poisoned.
    Poisoned(Poisoned<'a, T>),
    /// Another one has the value, and time has run out.
    WouldBlock,
}

impl<T: Pod> Mutex<T> {
    /// Puts a value into shared memory.
    ///
    /// # Errors
    ///
    /// Any [`ArenaError`] that keeps the memory from being allocated.
    pub fn new(value: T) -> Result<Self, ArenaError> {
        let state = Shared::new(|state: &MutexState<T>| state.set_up(value))?;
        Ok(Self { state, spin: SpinBudget::new() })
    }

    /// Blocks until this thread has the value. A thread that has it already waits for ever. Signals
    /// do not end the wait.
    ///
    /// # Errors
    ///
    /// [`Poisoned`], with the value.
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, Poisoned<'_, T>> {
        loop {
            match self.lock_until(None) {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
                // A signal.
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    /// Takes the value if nobody has it.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] and [`TryLockError::Poisoned`].
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<'_, T>> {
        if self.state.lock.take(Who::here()) {
            return self.guard(LockOutcome::Acquired);
        }
        Err(TryLockError::WouldBlock)
    }

    /// Blocks as [`lock`](Self::lock) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] and [`TryLockError::Poisoned`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use procession::sync::{Mutex, TryLockError};
    ///
    /// let mutex = Mutex::new(1_u32)?;
    /// let guard = mutex.lock().expect("nobody died");
    /// let again = mutex.try_lock_for(Duration::from_millis(5));
    /// assert!(matches!(again, Err(TryLockError::WouldBlock)));
    /// # drop(guard);
    /// # Ok::<(), procession::shm::ArenaError>(())
    /// ```
    pub fn try_lock_for(
        &self,
        timeout: Duration,
    ) -> Result<MutexGuard<'_, T>, TryLockError<'_, T>> {
        let deadline = deadline_after(timeout);
        loop {
            match self.lock_until(deadline) {
                Err(TryLockError::WouldBlock) if deadline.is_none_or(|at| at > Instant::now()) => {}
                result => return result,
            }
        }
    }

    /// Blocks until the lock is held, `deadline` has passed or a signal handler has run.
    fn lock_until(
        &self,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'_, T>, TryLockError<'_, T>> {
        let who = Who::here();
        if self.state.lock.take(who) {
            return self.guard(LockOutcome::Acquired);
        }
        let is_lost = |owner| !arena().is_alive(owner);
        match self.state.lock.wait(who, &self.spin, deadline, is_lost) {
            Ok(outcome) => self.guard(outcome),
            Err(WaitError::TimedOut | WaitError::Interrupted) => Err(TryLockError::WouldBlock),
        }
    }

    /// The guard of a lock that was just taken.
    fn guard(&self, outcome: LockOutcome) -> Result<MutexGuard<'_, T>, TryLockError<'_, T>> {
        if let LockOutcome::OwnerDied(owner) = outcome {
            self.state.poison.store(u64::from(owner.raw()), Ordering::Relaxed);
        }
        let guard = MutexGuard { mutex: self, panicking: thread::panicking(), _stay: PhantomData };
        match self.poisoned_by() {
            None => Ok(guard),
            Some(by) => Err(TryLockError::Poisoned(Poisoned { guard, by })),
        }
    }

    /// The process that died or panicked with the value, if there is one and nobody has cleared that.
    pub fn poisoned_by(&self) -> Option<Member> {
        Member::from_raw(self.state.poison.load(Ordering::Relaxed) as u32)
    }
}

impl<T: Pod> MutexGuard<'_, T> {
    /// Says that the value is as it should be, so that nobody else is told that it may not be.
    pub fn clear_poison(&mut self) {
        self.mutex.state.poison.store(0, Ordering::Relaxed);
    }
}

impl<'a, T: Pod> Poisoned<'a, T> {
    /// The process that died or panicked with the value.
    pub fn by(&self) -> Member {
        self.by
    }

    /// The value, as it was left.
    pub fn into_inner(self) -> MutexGuard<'a, T> {
        self.guard
    }
}

impl<T: Pod> MutexGuard<'_, T> {
    /// The value, which nobody else has.
    ///
    /// # Panics
    ///
    /// Panics in a forked copy of the process that has the value: there are two guards then, and one
    /// value.
    fn value(&self) -> *mut T {
        let held = self.mutex.state.lock.is_held_by(Who::here());
        assert!(held, "the guard of a mutex was used in a forked copy of the process that has it");
        self.mutex.state.value.get()
    }
}

impl<T: Pod> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock, as was just looked, so that nobody else has a reference
        // to the value; any bytes are a `T`, which is plain data; the object is alive and aligned.
        unsafe { &*self.value() }
    }
}

impl<T: Pod> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; the guard is borrowed mutably, so there is no other reference here.
        unsafe { &mut *self.value() }
    }
}

impl<T: Pod> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let state = &self.mutex.state;
        if !self.panicking && thread::panicking() {
            state.poison.store(u64::from(arena().me().raw()), Ordering::Relaxed);
        }
        // In a forked copy of the holder the lock is not this process's to release.
        if state.lock.is_held_by(Who::here()) {
            // Held, as was just seen.
            let _ = state.lock.release();
        }
    }
}

impl<T: Pod> Clone for Mutex<T> {
    /// Another handle to the same value.
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), spin: self.spin.clone() }
    }
}

impl<T: Pod> Serialize for Mutex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = Shared::<MutexState<T>>::deserialize(deserializer)?;
        if state.mark.load(Ordering::Relaxed) != mark_of::<T>() {
            return Err(serde::de::Error::custom("the mutex holds a value of another type"));
        }
        Ok(Self { state, spin: SpinBudget::new() })
    }
}

/// What all handles of a mutex share.
#[repr(C)]
struct MutexState<T> {
    lock: LockState,
    mark: AtomicU64,
    poison: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached through a guard alone, which has the lock, by one thread of one process
// at a time; the rest is atomic words.
unsafe impl<T: Pod> Sync for MutexState<T> {}

// SAFETY: atomic words of which any value is possible, and plain data, of which any bytes are a
// value, without a pointer; the layout is fixed. The tag is the same for all types, and `mark` tells
// them apart before the value is reached.
unsafe impl<T: Pod> ShmSafe for MutexState<T> {
    const TAG: u32 = u32::from_le_bytes(*b"mutx");
}

impl<T: Pod> MutexState<T> {
    /// Fills in the state of a mutex that nobody shares yet.
    fn set_up(&self, value: T) {
        self.mark.store(mark_of::<T>(), Ordering::Relaxed);
        // SAFETY: nobody else has the object yet, so there is no other reference to the value; it is
        // in the block that was made for it, and aligned as the object is.
        unsafe { self.value.get().write(value) };
    }
}

/// Tells types from one another: their name and their size, hashed.
fn mark_of<T>() -> u64 {
    let start = 0xCBF2_9CE4_8422_2325 ^ size_of::<T>() as u64;
    std::any::type_name::<T>()
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

impl<T: Pod> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("owner", &self.state.lock.owner())
            .field("poisoned_by", &self.poisoned_by())
            .finish_non_exhaustive()
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: Pod> fmt::Debug for Poisoned<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poisoned").field("by", &self.by).finish_non_exhaustive()
    }
}

impl<T: Pod> fmt::Display for Poisoned<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} died or panicked while it had the value of a mutex, which may be half-changed",
            self.by,
        )
    }
}

impl<T: Pod> std::error::Error for Poisoned<'_, T> {}

impl<T: Pod> fmt::Debug for TryLockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(poisoned) => fmt::Debug::fmt(poisoned, f),
            Self::WouldBlock => f.write_str("WouldBlock"),
        }
    }
}

impl<T: Pod> fmt::Display for TryLockError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisoned(poisoned) => fmt::Display::fmt(poisoned, f),
            Self::WouldBlock => f.write_str("another thread or process has the value of the mutex"),
        }
    }
}

impl<T: Pod> std::error::Error for TryLockError<'_, T> {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_have_the_value_one_at_a_time() {
        const ROUNDS: u64 = 20_000;
        let mutex = Mutex::new([0_u64; 2]).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mutex = mutex.clone();
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        let mut value = mutex.lock().unwrap();
                        assert_eq!(value[0], value[1], "two have the value");
                        value[0] += 1;
                        value[1] += 1;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*mutex.lock().unwrap(), [4 * ROUNDS; 2]);
    }

    #[test]
    fn value_that_another_thread_has_is_refused_in_time() {
        let mutex = Mutex::new(1_u8).unwrap();
        let guard = mutex.lock().unwrap();
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        let start = Instant::now();
        let short = Duration::from_millis(5);
        assert!(matches!(mutex.try_lock_for(short), Err(TryLockError::WouldBlock)));
        assert!(start.elapsed() >= short);
        drop(guard);
        assert_eq!(*mutex.try_lock().unwrap(), 1);
    }

    #[test]
    fn death_of_the_holder_poisons_until_it_is_cleared() {
        let mutex = Mutex::new(7_u32).unwrap();
        // No slot of this test's arena has come this far.
        let dead = Member::from_raw(1 << 30 | 4000).unwrap();
        assert!(mutex.state.lock.take(Who::new(dead, 1)));
        for _ in 0..2 {
            let poisoned = mutex.lock().unwrap_err();
            assert_eq!((poisoned.by(), *poisoned.into_inner()), (dead, 7));
        }
        mutex.lock().unwrap_err().into_inner().clear_poison();
        assert_eq!(mutex.poisoned_by(), None);
        assert_eq!(*mutex.lock().unwrap(), 7);
    }

    #[test]
    fn panic_of_the_holder_poisons() {
        let mutex = Mutex::new(0_i64).unwrap();
        let elsewhere = mutex.clone();
        let panicking = thread::spawn(move || {
            let mut value = elsewhere.lock().unwrap();
            *value = -1;
            panic!("on purpose");
        });
        assert!(panicking.join().is_err());
        let poisoned = mutex.lock().unwrap_err();
        assert_eq!((poisoned.by(), *poisoned.into_inner()), (arena().me(), -1));
    }

    #[test]
    fn handle_is_opened_as_the_type_that_it_was_made_for() {
        let mutex = Mutex::new(5_u32).unwrap();
        let (bytes, _pins) = crate::shm::pack(|| postcard::to_stdvec(&mutex));
        let bytes = bytes.unwrap();
        assert_eq!(*postcard::from_bytes::<Mutex<u32>>(&bytes).unwrap().lock().unwrap(), 5);
        assert!(postcard::from_bytes::<Mutex<[u32; 32]>>(&bytes).is_err());
        assert!(postcard::from_bytes::<Mutex<i32>>(&bytes).is_err());
    }
}
