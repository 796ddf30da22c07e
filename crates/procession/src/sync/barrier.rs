//! A place where processes wait until all of them have come.
//!
//! What is here is the handle; the protocol is in `barrier/state.rs`.

mod state;

use std::fmt;
use std::time::{Duration, Instant};

use crate::primitive::Ordering;
use crate::shm::{ArenaError, Shared, shared_handle};
use crate::sync::barrier::state::{BROKEN, BarrierState, Came, PHASE};
use crate::sync::roster::{InArena, Seat};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::deadline_after;
use crate::sync::who::Who;

/// Lets a number of threads, of any processes of the tree, wait for each other.
///
/// It behaves like `multiprocessing.Barrier`. Clones and copies sent to other processes, in a message
/// or as an argument, are the same barrier. Once all have come it can be used again.
///
/// If one of those that wait gives up or is killed, the barrier breaks: the others get an error, and
/// so does everybody who comes later, until somebody resets it. A death is noticed within about two
/// seconds.
///
/// # Examples
///
/// ```
/// use procession::sync::Barrier;
///
/// let barrier = Barrier::new(2)?;
/// let other = {
///     let barrier = barrier.clone();
///     std::thread::spawn(move || barrier.wait(None))
/// };
/// let mine = barrier.wait(None)?;
/// let other = other.join().unwrap()?;
/// assert_eq!(mine + other, 1); // one was the first and got 0, one the second
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    state: Shared<BarrierState>,
    spin: SpinBudget,
}

/// Why nobody, or not this waiter, got through.
#[derive(Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// Somebody gave up or was killed, or the barrier was reset.
    Broken,
    /// The deadline has passed. The barrier is broken now.
    TimedOut,
    /// A signal handler ran in this thread. This waiter counts as not having come.
    Interrupted,
    /// A barrier for nobody.
    NoParties,
    /// There is no shared memory for it, or for one more waiter.
    Arena(ArenaError),
}

impl Barrier {
    /// Makes a barrier for so many.
    ///
    /// # Errors
    ///
    /// [`BarrierError::NoParties`] for 0, [`BarrierError::Arena`] when there is no shared memory.
    pub fn new(parties: u32) -> Result<Self, BarrierError> {
        if parties == 0 {
            return Err(BarrierError::NoParties);
        }
        let set_up = |state: &BarrierState| state.parties.store(parties, Ordering::Relaxed);
        let state = Shared::new(set_up).map_err(BarrierError::Arena)?;
        Ok(Self { state, spin: SpinBudget::new() })
    }

    /// Blocks until all have come, and returns how many had come before this one.
    ///
    /// Without a deadline it waits for ever. When `deadline` passes first, the barrier breaks.
    ///
    /// # Errors
    ///
    /// [`BarrierError::Broken`], [`BarrierError::TimedOut`], [`BarrierError::Interrupted`] and
    /// [`BarrierError::Arena`].
    pub fn wait(&self, deadline: Option<Instant>) -> Result<usize, BarrierError> {
        self.wait_with(deadline, || ())
    }

    /// Blocks as [`wait`](Self::wait) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, timeout: Duration) -> Result<usize, BarrierError> {
        self.wait(deadline_after(timeout))
    }

    /// Waits as [`wait`](Self::wait) does; if this is the last to come, calls `action` before all go
    /// on. If that panics, the barrier breaks.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_with(
        &self,
        deadline: Option<Instant>,
        action: impl FnOnce(),
    ) -> Result<usize, BarrierError> {
        match self.come(deadline)? {
            Arrival::Waiting(place) => place.wait(deadline),
            Arrival::Last(last) => {
                action();
                last.let_all_go()
            }
        }
    }

    /// Takes a place, for callers that have something to do between coming and going on. Blocks only
    /// while the action of an earlier time goes on, until `deadline`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn come(&self, deadline: Option<Instant>) -> Result<Arrival<'_>, BarrierError> {
        let home = InArena(&self.state);
        let who = Who::here();
        let came = self.state.come(home, who, &self.spin, deadline)?;
        Ok(match came {
            Came::Last { time } => Arrival::Last(LastComer { barrier: self, who, time }),
            Came::Waiting { time, index, seat } => {
                Arrival::Waiting(Place { barrier: self, seat, time, index })
            }
        })
    }

    /// Breaks the barrier: those who wait, and those who come later, get an error.
    pub fn abort(&self) {
        self.state.break_it(InArena(&self.state));
    }

    /// Makes the barrier as new. Those who wait get an error.
    pub fn reset(&self) {
        self.state.reset(InArena(&self.state));
    }

    /// Whether the barrier is broken.
    pub fn is_broken(&self) -> bool {
        self.state.phase() & PHASE == BROKEN
    }

    /// How many must come.
    pub fn parties(&self) -> u32 {
        self.state.parties.load(Ordering::Relaxed)
    }

    /// How many wait at this moment.
    pub fn waiters(&self) -> usize {
        self.state.roster.seats(InArena(&self.state)).filter(|seat| seat.is_waiting()).count()
    }
}

shared_handle!(
    Barrier, "barrier", [state], |state| Ok(Self { state, spin: SpinBudget::new() });
    open, note, serde
);

/// Which one of the parties this is.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// One that has to wait.
    Waiting(Place<'a>),
    /// The one that the others wait for.
    Last(LastComer<'a>),
}

/// The place of one that waits. If it is dropped, this one counts as not having come.
#[derive(Debug)]
#[must_use = "a place that is dropped is given back"]
pub struct Place<'a> {
    barrier: &'a Barrier,
    seat: &'a Seat,
    time: u64,
    index: usize,
}

impl Place<'_> {
    /// Blocks until the last one lets all go, and returns how many had come before this one.
    ///
    /// # Errors
    ///
    /// As [`Barrier::wait`]. After [`BarrierError::Interrupted`] it can be called again.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<usize, BarrierError> {
        let state = &*self.barrier.state;
        let home = InArena(&self.barrier.state);
        state.wait(home, self.seat, self.time, &self.barrier.spin, deadline).map(|()| self.index)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let state = &*self.barrier.state;
        state.leave(InArena(&self.barrier.state), self.seat);
    }
}

/// The one that came last, and lets the others go on. If it is dropped before, the barrier breaks.
#[derive(Debug)]
#[must_use = "the others wait for it"]
pub struct LastComer<'a> {
    barrier: &'a Barrier,
    who: Who,
    time: u64,
}

impl LastComer<'_> {
    /// Lets all go on, and returns how many had come before this one.
    ///
    /// # Errors
    ///
    /// [`BarrierError::Broken`] when the barrier was broken or reset meanwhile.
    pub fn let_all_go(self) -> Result<usize, BarrierError> {
        let state = &*self.barrier.state;
        if !state.let_all_go(InArena(&self.barrier.state), self.who, self.time) {
            return Err(BarrierError::Broken);
        }
        // Nothing is left to be broken.
        std::mem::forget(self);
        Ok(state.parties() - 1)
    }
}

impl Drop for LastComer<'_> {
    fn drop(&mut self) {
        let home = InArena(&self.barrier.state);
        self.barrier.state.break_acting(home, self.who, self.time);
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties())
            .field("waiters", &self.waiters())
            .field("is_broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => {
                "the barrier is broken: one of those it waited for gave up or was killed"
            }
            Self::TimedOut => "not all came to the barrier in time; it is broken now",
            Self::Interrupted => "a signal handler ran while this thread waited at a barrier",
            Self::NoParties => "a barrier is for at least one",
            Self::Arena(_) => "no shared memory for a barrier or one more waiter",
        })
    }
}

impl std::error::Error for BarrierError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Arena(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
