//! Those who wait for a gate to open: a lock to be released, a semaphore to be above zero.
//!
//! What is released goes to whoever comes first, which is mostly a process that runs and did not
//! have to wait. That is fast, and it can go on for ever: where the running processes release and
//! acquire without a pause, one that must be woken always comes too late.
//!
//! So a waiter that has waited for [`PATIENCE`], and comes too late once more, makes a *claim*: it marks the gate, and a marked
//! gate lets only waiters in that have waited for so long. They wait apart from the others, and
//! are woken before them.
//!
//! | waits         | enters by                | is notified                                 |
//! |---------------|--------------------------|---------------------------------------------|
//! | `fresh`       | [`Gate::enter`]          | of each release that wakes no patient one   |
//! | `patient`     | [`Gate::enter_or_claim`] | of each release                             |
//!
//! A mark says that somebody claims, and not who. It goes when somebody enters by it, or gives
//! up. Another patient waiter may still be there then; it marks the gate again the next time it
//! looks, which is at the next release, as that wakes it first.
//!
//! # When a process dies
//!
//! A claimant that is killed leaves its mark, and the gate may stay marked with nobody to enter. But
//! whoever waits has waited for [`FIRST_SLICE`] soon, and enters as a claimant. One that was woken and
//! killed before it entered keeps the others waiting until their slice ends.

use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;

/// How long a waiter lets others go first. In a model no time passes.
const PATIENCE: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 2 });
/// How often a waiter looks at the gate before it looks at the clock. A waiter that starves is woken
/// again and again, so it needs no timer to notice; setting one that soon costs as much as a sleep.
const LOOKS: u32 = 8;
const FIRST_SLICE: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 20 });
/// A look costs some microseconds, and there may be many who wait for long.
const LONGEST_SLICE: Duration = Duration::from_secs(2);

/// What is waited for.
pub(crate) trait Gate {
    /// What it means to have entered.
    type Pass;

    /// Enters if the gate is open and not marked.
    fn enter(&self) -> Option<Self::Pass>;

    /// Enters if the gate is open, and takes the mark away; marks it if it is shut.
    fn enter_or_claim(&self) -> Option<Self::Pass>;

    /// Takes the mark away. Notifies if the gate is open.
    fn unclaim(&self);

    /// Enters if the gate is shut by a process that will never open it. Called now and then.
    fn enter_past_the_dead(&self) -> Option<Self::Pass>;
}

/// The waiters of one gate. Zeroed memory is nobody.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waiters {
    pub(crate) fresh: EventCount,
    pub(crate) patient: EventCount,
}

impl Waiters {
    /// Makes one outside an arena.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self { fresh: EventCount::new(), patient: EventCount::new() }
    }

    /// Wakes one waiter; without a system call if nobody sleeps. The caller has just opened the
    /// gate with a `SeqCst` store or read-modify-write.
    #[inline]
    pub(crate) fn notify_one(&self) {
        if self.patient.notify(1) == 0 {
            self.fresh.notify(1);
        }
    }

    /// Blocks until the gate was entered, or `deadline` has passed.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] and [`WaitError::Interrupted`]; it was not entered then.
    pub(crate) fn wait<G: Gate>(
        &self,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        gate: &G,
    ) -> Result<G::Pass, WaitError> {
        let start = Instant::now();
        if deadline.is_some_and(|at| at <= start) {
            return gate.enter().ok_or(WaitError::TimedOut);
        }
        let mut looks = 0_u32;
        let look = || match gate.enter() {
            Some(pass) => Some(Some(pass)),
            None => {
                looks += 1;
                let patient = looks.is_multiple_of(LOOKS) && start.elapsed() >= PATIENCE;
                patient.then_some(None)
            }
        };
        let until = earlier(deadline, start + FIRST_SLICE);
        match self.fresh.wait_until(spin, Some(until), look) {
            Ok(Some(pass)) => Ok(pass),
            Err(error) if error != WaitError::TimedOut || deadline == Some(until) => Err(error),
            Ok(None) | Err(_) => self.wait_patiently(spin, deadline, gate),
        }
    }

    /// The rest of a wait that lasts.
    #[cold]
    pub(crate) fn wait_patiently<G: Gate>(
        &self,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        gate: &G,
    ) -> Result<G::Pass, WaitError> {
        let mut slice = FIRST_SLICE;
        loop {
            let until = earlier(deadline, Instant::now() + slice);
            let waited = self.patient.wait_until(spin, Some(until), || gate.enter_or_claim());
            if matches!(waited, Err(WaitError::TimedOut))
                && let Some(pass) = gate.enter_past_the_dead()
            {
                return Ok(pass);
            }
            match waited {
                Err(WaitError::TimedOut) if deadline != Some(until) => {}
                Err(error) => {
                    gate.unclaim();
                    return Err(error);
                }
                entered => return entered,
            }
            slice = (slice * 2).min(LONGEST_SLICE);
        }
    }
}

/// Whichever comes first.
pub(crate) fn earlier(deadline: Option<Instant>, at: Instant) -> Instant {
    deadline.map_or(at, |deadline| deadline.min(at))
}

/// When a wait of this length ends; `None` if that is beyond what the clock can tell.
pub(crate) fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
