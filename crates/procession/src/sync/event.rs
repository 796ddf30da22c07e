//! A flag that processes wait for.
//!
//! # Shared state
//!
//! | word      | bits | meaning                                            |
//! |-----------|------|----------------------------------------------------|
//! | `word`    | 0    | whether the flag is set                            |
//! |           | 1–31 | how many times it was set, modulo 2³¹              |
//! | `waiters` |      | notified, all of them, when the flag is set        |
//!
//! Zeroed memory is a flag that is not set.
//!
//! A waiter remembers how many times the flag was set when it came. It goes on when the flag is set,
//! or when that number has changed: then the flag was set meanwhile, and cleared again before the
//! waiter could look. So whoever waited when the flag was set is let through.
//!
//! # Memory ordering
//!
//! Setting releases, and waiting and looking acquire: what was written before the flag was set is
//! visible to whoever has seen it set. Setting is sequentially consistent, as the event count asks.
//!
//! # When a process dies
//!
//! One that sets the flag and is killed before it notifies delays the waiters by at most two seconds. A
//! waiter that is killed costs a needless system call.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{ArenaError, Shared, ShmSafe, shared_handle};
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::deadline_after;

const SET: u32 = 1;
/// One more time that the flag was set.
const TIME: u32 = 2;

/// A flag, not set at first, that any process of the tree can set, clear and wait for.
///
/// It behaves like `multiprocessing.Event`. Clones and copies sent to other processes, in a message
/// or as an argument, are the same event. It has no owner: when a process dies, the flag stays as it
/// is.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use procession::sync::{Event, WaitError};
///
/// let event = Event::new()?;
/// assert_eq!(event.wait_for(Duration::from_millis(1)), Err(WaitError::TimedOut));
/// event.set();
/// event.wait(None)?; // returns at once
/// event.clear();
/// assert!(!event.is_set());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Event {
    state: Shared<EventState>,
    spin: SpinBudget,
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    ///
    /// Any [`ArenaError`] that keeps a few bytes of shared memory from being allocated.
    pub fn new() -> Result<Self, ArenaError> {
        Ok(Self { state: Shared::new(|_| ())?, spin: SpinBudget::new() })
    }

    /// Sets the flag and wakes all who wait for it; without a system call if nobody does.
    #[inline]
    pub fn set(&self) {
        self.state.set();
    }

    /// Clears the flag. Who waited while it was set is let through nevertheless.
    #[inline]
    pub fn clear(&self) {
        self.state.word.fetch_and(!SET, Ordering::SeqCst);
    }

    /// Whether the flag is set at this moment.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.state.word.load(Ordering::SeqCst) & SET != 0
    }

    /// Blocks until the flag is set, or `deadline` has passed.
    ///
    /// Without a deadline it waits for ever; one in the past only looks.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` has passed.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread; call again to go on
    ///   waiting.
    #[inline]
    pub fn wait(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.state.wait(&self.spin, deadline)
    }

    /// Blocks as [`wait`](Self::wait) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait(deadline_after(timeout))
    }
}

shared_handle!(
    Event, "event", [state], |state| Ok(Self { state, spin: SpinBudget::new() }); open, note, serde
);

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}

/// What all handles of an event share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EventState {
    word: AtomicU32,
    waiters: EventCount,
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<EventState>() == 12 && align_of::<EventState>() == 4);

// SAFETY: atomic words with a fixed layout and no pointer; of `word` any value is a flag and a
// number, the rest is counts. Every method works by atomic operations alone.
unsafe impl ShmSafe for EventState {
    const TAG: u32 = u32::from_le_bytes(*b"evnt");
}

impl EventState {
    /// Makes one outside an arena.
    #[cfg(all(test, loom))]
    fn new() -> Self {
        Self { word: AtomicU32::new(0), waiters: EventCount::new() }
    }

    #[inline]
    fn set(&self) {
        let mut word = self.word.load(Ordering::SeqCst);
        while word & SET == 0 {
            let set = word.wrapping_add(TIME) | SET;
            let order = Ordering::SeqCst;
            match self.word.compare_exchange(word, set, order, order) {
                Ok(_) => {
                    self.waiters.notify(u32::MAX);
                    return;
                }
                Err(seen) => word = seen,
            }
        }
    }

    #[inline]
    fn wait(&self, spin: &SpinBudget, deadline: Option<Instant>) -> Result<(), WaitError> {
        let start = self.word.load(Ordering::SeqCst);
        if start & SET != 0 {
            return Ok(());
        }
        self.wait_since(start, spin, deadline)
    }

    /// Blocks until the flag, which was not set in the word `start`, has been set.
    fn wait_since(
        &self,
        start: u32,
        spin: &SpinBudget,
        deadline: Option<Instant>,
    ) -> Result<(), WaitError> {
        // Every other word means that it was set since.
        let was_set = || (self.word.load(Ordering::SeqCst) != start).then_some(());
        self.waiters.wait_until(spin, deadline, was_set)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn flag_is_set_until_it_is_cleared() {
        let event = Event::new().unwrap();
        assert!(!event.is_set());
        event.set();
        event.set();
        assert!(event.is_set());
        assert_eq!(event.wait(Some(Instant::now())), Ok(()));
        event.clear();
        event.clear();
        assert!(!event.is_set());
    }

    #[test]
    fn wait_gives_up_at_its_deadline() {
        let event = Event::new().unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(5)] {
            let start = Instant::now();
            assert_eq!(event.wait_for(wait), Err(WaitError::TimedOut));
            assert!(start.elapsed() >= wait);
        }
    }

    #[test]
    fn waiter_goes_on_though_the_flag_is_cleared_at_once() {
        let event = Event::new().unwrap();
        let start = event.state.word.load(Ordering::SeqCst);
        event.set();
        event.clear();
        let now = Some(Instant::now());
        assert_eq!(event.state.wait_since(start, &event.spin, now), Ok(()));
        assert_eq!(event.wait(now), Err(WaitError::TimedOut), "this one came later");
    }

    #[test]
    fn all_waiters_are_let_through() {
        let event = Event::new().unwrap();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let event = event.clone();
                thread::spawn(move || event.wait(None))
            })
            .collect();
        event.set();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    fn wait(event: &EventState) {
        event.wait(&SpinBudget::new(), None).unwrap();
    }

    /// Two that wait, while the flag is set.
    fn passage(set: fn(&EventState)) {
        loom::model(move || {
            let event = Arc::new(EventState::new());
            let both =
                [event.clone(), event.clone()].map(|event| thread::spawn(move || wait(&event)));
            set(&event);
            both.into_iter().for_each(|one| one.join().unwrap());
        });
    }

    /// One that has come to wait, and a flag that is cleared as soon as it was set.
    fn flash(set: fn(&EventState)) {
        loom::model(move || {
            let event = Arc::new(EventState::new());
            let start = event.word.load(Ordering::SeqCst);
            let waiter = {
                let event = event.clone();
                thread::spawn(move || event.wait_since(start, &SpinBudget::new(), None).unwrap())
            };
            set(&event);
            event.word.fetch_and(!SET, Ordering::SeqCst);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn all_who_wait_are_let_through() {
        passage(EventState::set);
    }

    #[test]
    fn waiter_is_let_through_though_the_flag_is_cleared() {
        flash(EventState::set);
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn set_waking_one(event: &EventState) {
        event.word.fetch_or(SET, Ordering::SeqCst);
        event.waiters.notify(1);
    }

    fn set_without_a_number(event: &EventState) {
        event.word.fetch_or(SET, Ordering::SeqCst);
        event.waiters.notify(u32::MAX);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_waking_of_one_is_found() {
        passage(set_waking_one);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_set_without_a_number_is_found() {
        flash(set_without_a_number);
    }
}
