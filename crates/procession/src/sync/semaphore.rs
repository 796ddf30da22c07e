//! A counting semaphore between processes.
//!
//! # Shared state
//!
//! | word      | meaning                                                   |
//! |-----------|-----------------------------------------------------------|
//! | `value`   | bits 0–30: how many may still enter                       |
//! |           | bit 31: one of them is claimed, by a waiter that has waited for long |
//! | `maximum` | what `value` cannot exceed; written once, before sharing  |
//! | `waiters` | those who wait, see `waiters.rs`; notified of every release |
//!
//! Acquiring subtracts one unless the value is 0, or 1 and claimed; releasing adds one unless it is
//! at the maximum. Each is a single compare-and-swap.
//!
//! # Memory ordering
//!
//! Acquiring acquires and releasing releases: what was written before a release is visible to
//! whoever gets in by it. Both are sequentially consistent, as the event count asks.
//!
//! # When a process dies
//!
//! A semaphore does not know who got in, so what a killed process had acquired stays taken, as
//! with `multiprocessing.Semaphore`. It cannot know: what one process acquires another may release,
//! and where a semaphore counts items, a consumer that was killed has taken its items for good.
//! What protects something from a killed process is a lock. One that was killed between adding one and the
//! notification delays a waiter by at most two seconds.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{ArenaError, Shared, ShmSafe, shared_handle};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::{Gate, Waiters, deadline_after};

/// Set while a waiter wants to be the next to enter.
const CLAIMED: u32 = 1 << 31;

/// A counter that processes take from and give back to, and wait for while it is 0.
///
/// It behaves like `multiprocessing.Semaphore`, or with [`bounded`](Self::bounded) like
/// `BoundedSemaphore`. Clones and copies sent to other processes, in a message or as an
/// argument, are the same semaphore. What a killed process had acquired is not given back.
///
/// # Examples
///
/// ```
/// use procession::sync::Semaphore;
///
/// let seats = Semaphore::new(2)?;
/// seats.acquire(None)?;
/// seats.acquire(None)?;
/// assert!(!seats.try_acquire()); // full
/// seats.release()?;
/// assert_eq!(seats.value(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Semaphore {
    state: Shared<SemaphoreState>,
    spin: SpinBudget,
}

/// Why a semaphore could not be made or released.
#[derive(Debug)]
#[non_exhaustive]
pub enum SemaphoreError {
    /// The value would exceed the maximum.
    AboveMaximum {
        /// The maximum.
        maximum: u32,
    },
    /// There is no shared memory for it.
    Arena(ArenaError),
}

impl Semaphore {
    /// The highest value of any semaphore, as on Linux.
    pub const MAXIMUM: u32 = i32::MAX as u32;

    /// Makes a semaphore that so many can acquire before somebody has to wait.
    ///
    /// # Errors
    ///
    /// - [`SemaphoreError::AboveMaximum`] when `value` is above [`MAXIMUM`](Self::MAXIMUM).
    /// - [`SemaphoreError::Arena`] when there is no shared memory for it.
    pub fn new(value: u32) -> Result<Self, SemaphoreError> {
        Self::bounded(value, Self::MAXIMUM)
    }

    /// Makes a semaphore whose value starts at `value` and never exceeds `maximum`.
    ///
    /// # Errors
    ///
    /// - [`SemaphoreError::AboveMaximum`] when `value` is above `maximum`, or that above
    ///   [`MAXIMUM`](Self::MAXIMUM).
    /// - [`SemaphoreError::Arena`] when there is no shared memory for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::sync::{Semaphore, SemaphoreError};
    ///
    /// let full = Semaphore::bounded(3, 3)?;
    /// assert!(matches!(full.release(), Err(SemaphoreError::AboveMaximum { maximum: 3 })));
    /// # Ok::<(), SemaphoreError>(())
    /// ```
    pub fn bounded(value: u32, maximum: u32) -> Result<Self, SemaphoreError> {
        let most = maximum.min(Self::MAXIMUM);
        if value.max(maximum) > most {
            return Err(SemaphoreError::AboveMaximum { maximum: most });
        }
        let state = Shared::new(|state: &SemaphoreState| state.set_up(value, maximum))
            .map_err(SemaphoreError::Arena)?;
        Ok(Self { state, spin: SpinBudget::new() })
    }

    /// Blocks until the value is above 0, and takes one from it; or until `deadline` has passed.
    ///
    /// Without a deadline it waits for ever; one in the past means that it does not wait. A
    /// release wakes one waiter; one that has waited for some milliseconds comes before all others.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` has passed.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread. Nothing was taken;
    ///   call again to go on waiting.
    #[inline]
    pub fn acquire(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        match self.state.take() {
            Some(()) => Ok(()),
            None => self.state.wait(&self.spin, deadline),
        }
    }

    /// Blocks as [`acquire`](Self::acquire) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_for(&self, timeout: Duration) -> Result<(), WaitError> {
        self.acquire(deadline_after(timeout))
    }

    /// Takes one from the value if it is above 0, and says whether it was.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.state.take().is_some()
    }

    /// Adds one to the value and wakes one waiter.
    ///
    /// # Errors
    ///
    /// [`SemaphoreError::AboveMaximum`] when the value is at its maximum; it stays there.
    #[inline]
    pub fn release(&self) -> Result<(), SemaphoreError> {
        self.state.release()
    }

    /// The value at this moment; another process may change it at any time.
    pub fn value(&self) -> u32 {
        self.state.value.load(Ordering::SeqCst) & !CLAIMED
    }

    /// The value that the semaphore cannot exceed.
    pub fn maximum(&self) -> u32 {
        self.state.maximum.load(Ordering::Relaxed)
    }
}

shared_handle!(
    Semaphore, "semaphore", [state], |state| Ok(Self { state, spin: SpinBudget::new() });
    open, note, serde
);

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("value", &self.value())
            .field("maximum", &self.maximum())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for SemaphoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveMaximum { maximum } => {
                write!(f, "the value of a semaphore would exceed its maximum of {maximum}")
            }
            Self::Arena(_) => f.write_str("no shared memory for a semaphore"),
        }
    }
}

impl std::error::Error for SemaphoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::AboveMaximum { .. } => None,
            Self::Arena(source) => Some(source),
        }
    }
}

/// What all handles of a semaphore share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SemaphoreState {
    value: AtomicU32,
    maximum: AtomicU32,
    waiters: Waiters,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<SemaphoreState>() == 24 && align_of::<SemaphoreState>() == 4);

// SAFETY: atomic words with a fixed layout and no pointer, all of them counts of which any
// value is possible. Every method works by atomic operations alone.
unsafe impl ShmSafe for SemaphoreState {
    const TAG: u32 = u32::from_le_bytes(*b"sema");
}

impl SemaphoreState {
    /// Makes one outside an arena.
    #[cfg(all(test, loom))]
    fn new(value: u32, maximum: u32) -> Self {
        let state =
            Self { value: AtomicU32::new(0), maximum: AtomicU32::new(0), waiters: Waiters::new() };
        state.set_up(value, maximum);
        state
    }

    /// Fills in a semaphore that nobody shares yet.
    fn set_up(&self, value: u32, maximum: u32) {
        self.value.store(value, Ordering::Relaxed);
        self.maximum.store(maximum, Ordering::Relaxed);
    }

    #[cold]
    fn wait(&self, spin: &SpinBudget, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.waiters.wait(spin, deadline, self)
    }

    /// Takes one if there is one that nobody claims.
    #[inline]
    fn take(&self) -> Option<()> {
        self.change(|value| {
            let claimed = value >> 31;
            (value & !CLAIMED > claimed).then(|| value - 1)
        })
    }

    /// Takes one if there is one, and the claim with it; claims the next one if not.
    fn take_or_claim(&self) -> Option<()> {
        let mut value = self.value.load(Ordering::SeqCst);
        loop {
            let taken = (value & !CLAIMED).checked_sub(1);
            if taken.is_none() && value & CLAIMED != 0 {
                return None;
            }
            match self.replace(value, taken.unwrap_or(value | CLAIMED)) {
                Ok(()) => return taken.map(drop),
                Err(seen) => value = seen,
            }
        }
    }

    #[inline]
    fn release(&self) -> Result<(), SemaphoreError> {
        let maximum = self.maximum.load(Ordering::Relaxed);
        self.change(|value| (value & !CLAIMED < maximum).then_some(value + 1))
            .ok_or(SemaphoreError::AboveMaximum { maximum })?;
        self.waiters.notify_one();
        Ok(())
    }

    /// Replaces the value in one step; leaves it and returns `None` if `change` gives nothing.
    fn change(&self, change: impl Fn(u32) -> Option<u32>) -> Option<()> {
        let mut value = self.value.load(Ordering::SeqCst);
        loop {
            match self.replace(value, change(value)?) {
                Ok(()) => return Some(()),
                Err(seen) => value = seen,
            }
        }
    }

    fn replace(&self, from: u32, to: u32) -> Result<(), u32> {
        self.value.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

impl Gate for SemaphoreState {
    type Pass = ();

    fn enter(&self) -> Option<()> {
        self.take()
    }

    fn enter_or_claim(&self) -> Option<()> {
        self.take_or_claim()
    }

    fn unclaim(&self) {
        if self.value.fetch_and(!CLAIMED, Ordering::SeqCst) & !CLAIMED != 0 {
            self.waiters.notify_one();
        }
    }

    fn enter_past_the_dead(&self) -> Option<()> {
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
