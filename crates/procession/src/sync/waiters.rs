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
//! A waiter that a signal interrupts gives up too, but if it comes back it is as patient as it was.
//!
//! # When a process dies
//!
//! A claimant that is killed leaves its mark, and the gate may stay marked with nobody to enter. But
//! whoever waits has waited for [`FIRST_SLICE`] soon, and enters as a claimant. One that was woken and
//! killed before it entered keeps the others waiting until their slice ends.

use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::slice::Pace;
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
        if let Some(pace) = Pace::kept_for(self) {
            return self.wait_patiently(spin, deadline, pace, gate);
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
            Err(WaitError::Interrupted) => {
                Pace::new(FIRST_SLICE).keep_for(self);
                Err(WaitError::Interrupted)
            }
            Err(error) if deadline == Some(until) => Err(error),
            Ok(None) | Err(_) => self.wait_patiently(spin, deadline, Pace::new(FIRST_SLICE), gate),
        }
    }

    /// The rest of a wait that lasts.
    #[cold]
    pub(crate) fn wait_patiently<G: Gate>(
        &self,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        mut pace: Pace,
        gate: &G,
    ) -> Result<G::Pass, WaitError> {
        loop {
            let until = earlier(deadline, pace.end());
            let waited = self.patient.wait_until(spin, Some(until), || gate.enter_or_claim());
            let Err(error) = waited else { return waited };
            let interrupted = error == WaitError::Interrupted;
            // One that is interrupted again and again must look as well.
            if !interrupted || pace.is_over() {
                if let Some(pass) = gate.enter_past_the_dead() {
                    return Ok(pass);
                }
                pace = pace.next(LONGEST_SLICE);
            }
            if interrupted {
                pace.keep_for(self);
            }
            if interrupted || deadline == Some(until) {
                gate.unclaim();
                return Err(error);
            }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::slice::testing;

    /// A gate that stays shut.
    #[derive(Default)]
    struct Shut {
        claimed: Cell<bool>,
        tries: Cell<u32>,
        /// Looks whether who shut it is dead, the last of which says so.
        looks_left: Cell<u32>,
    }

    impl Gate for Shut {
        type Pass = ();

        fn enter(&self) -> Option<()> {
            self.tries.set(self.tries.get() + 1);
            None
        }

        fn enter_or_claim(&self) -> Option<()> {
            self.claimed.set(true);
            None
        }

        fn unclaim(&self) {
            self.claimed.set(false);
        }

        fn enter_past_the_dead(&self) -> Option<()> {
            let left = self.looks_left.get().checked_sub(1);
            self.looks_left.set(left.unwrap_or(0));
            (left == Some(0)).then_some(())
        }
    }

    #[test]
    fn waiter_that_comes_back_is_as_patient_as_it_was() {
        let (waiters, gate) = (Waiters::new(), Shut::default());
        let wait = || waiters.wait(&SpinBudget::new(), None, &gate);
        testing::answer(true);
        assert_eq!(wait(), Err(WaitError::Interrupted));
        let tries = gate.tries.take();
        assert!(tries > 0, "it came as a fresh one");
        testing::answer(true);
        assert_eq!(wait(), Err(WaitError::Interrupted));
        assert_eq!(gate.tries.get(), 0, "it stood behind the fresh ones again");
        assert!(!gate.claimed.get(), "nobody claims, and nobody could enter");
    }

    #[test]
    fn waiter_that_is_interrupted_again_and_again_gets_past_the_dead() {
        let (waiters, gate) = (Waiters::new(), Shut::default());
        gate.looks_left.set(3);
        let mut left = 0;
        loop {
            testing::answer(true);
            match waiters.wait(&SpinBudget::new(), None, &gate) {
                Ok(()) => break,
                Err(error) => assert_eq!(error, WaitError::Interrupted),
            }
            left += 1;
        }
        // Not before each look: a thread that is kept from running for a slice looks at once.
        assert!(left > 0, "it was never interrupted");
    }

    #[test]
    fn another_wait_begins_as_a_fresh_one() {
        let (waiters, others, gate) = (Waiters::new(), Waiters::new(), Shut::default());
        testing::answer(true);
        assert!(waiters.wait(&SpinBudget::new(), None, &gate).is_err());
        gate.tries.take();
        testing::answer(true);
        assert!(others.wait(&SpinBudget::new(), None, &gate).is_err());
        assert!(gate.tries.get() > 0);
    }
}
