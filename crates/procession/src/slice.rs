//! Leaving a wait now and then without a reason, for those who have signals to see to.
//!
//! An interpreter notes in a handler that a signal came, and acts on it later, in between two of its
//! own steps. A signal that comes after the last such look and before the thread sleeps in the
//! kernel interrupts nothing, and nobody would look again before the wait is over. So whoever
//! registers a hook is asked, after a sleep in vain and at most every two seconds by each thread,
//! whether the wait is to be left as if a signal had interrupted it now.
//!
//! Whoever comes back to the wait that it has left goes on where it was, see [`Pace`].

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The longest sleep without a look at what is waited for, and how often the hook is asked. Many may
/// wait for long, and each sleep that ends costs some ten microseconds.
pub(crate) const SLICE: Duration = Duration::from_secs(2);

static HOOK: OnceLock<fn() -> bool> = OnceLock::new();

thread_local! {
    /// When this thread asked the hook last.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The wait that this thread was interrupted in last.
    static LEFT: Cell<Option<(usize, Pace)>> = const { Cell::new(None) };
}

/// Has `leave` called by threads that wait, at most every two seconds each. It must not block, nor use
/// anything else of this crate.
///
/// If it returns true, the call that waits fails with [`WaitError::Interrupted`], or what its errors
/// have in its place, as if a signal handler had run. Nothing is lost by that: call again to go on.
/// Calls that a signal does not end go on by themselves.
///
/// This is for programs whose signal handlers only note that a signal came, as those of interpreters
/// do. The first call decides; a later one changes nothing. A forked child has the same hook.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use procession::sync::{Lock, WaitError, on_slice};
///
/// static STOP: AtomicBool = AtomicBool::new(false); // set by a signal handler
///
/// on_slice(|| STOP.load(Ordering::Relaxed));
/// let lock = Lock::new()?;
/// lock.acquire(None)?;
/// STOP.store(true, Ordering::Relaxed); // comes just before the wait
/// assert_eq!(lock.acquire(None), Err(WaitError::Interrupted));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`WaitError::Interrupted`]: crate::WaitError::Interrupted
pub fn on_slice(leave: fn() -> bool) {
    // A second hook would take the first one's signals away.
    let _ = HOOK.set(leave);
}

/// Whether this thread, which has slept in vain, must leave its wait as if interrupted.
pub(crate) fn must_leave() -> bool {
    let Some(leave) = HOOK.get() else { return false };
    let now = Instant::now();
    let lately = |asked: Instant| now.duration_since(asked) < SLICE;
    if ASKED.get().is_some_and(lately) {
        return false;
    }
    ASKED.set(Some(now));
    leave()
}

/// Calls `poll`, which blocks until the instant it is given, until it finds something or `deadline`
/// has passed; what it found last is returned.
///
/// # Errors
///
/// Those of `poll`; [`Interrupted`](io::ErrorKind::Interrupted) also when the hook says so.
pub(crate) fn poll_in_slices<R>(
    deadline: Option<Instant>,
    found: impl Fn(&R) -> bool,
    mut poll: impl FnMut(Option<Instant>) -> io::Result<R>,
) -> io::Result<R> {
    loop {
        let until = slice_end(deadline);
        let result = poll(until)?;
        if until == deadline || found(&result) {
            return Ok(result);
        }
        if must_leave() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

/// Until when to sleep before the hook is asked; without one, until `deadline`.
pub(crate) fn slice_end(deadline: Option<Instant>) -> Option<Instant> {
    if HOOK.get().is_none() {
        return deadline;
    }
    let end = Instant::now() + SLICE;
    Some(deadline.map_or(end, |at| at.min(end)))
}

/// How a long wait goes on: in slices that grow, with a look at the end of each whether others have
/// died.
///
/// A thread that comes back to a wait in which it was interrupted, before it waits for anything else
/// of the kind, goes on where it was. This is advice: whatever it says, no wait becomes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    slice: Duration,
    end: Instant,
}

impl Pace {
    /// Begins with a slice of this length.
    pub(crate) fn new(slice: Duration) -> Self {
        Self { slice, end: Instant::now() + slice }
    }

    /// When the slice ends.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Whether the slice has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.end <= Instant::now()
    }

    /// The next slice, which is ten times as long, up to `longest`.
    ///
    /// Not less: while many wait for long, it is the sleeps that end in vain which cost.
    pub(crate) fn next(&self, longest: Duration) -> Self {
        Self::new((self.slice * 10).min(longest))
    }

    /// Notes that this thread was interrupted in a wait for `what`.
    pub(crate) fn keep_for<T>(self, what: &T) {
        LEFT.set(Some((std::ptr::from_ref(what).addr(), self)));
    }

    /// What was noted, if this thread was last interrupted in a wait for `what`. It is told once.
    pub(crate) fn kept_for<T>(what: &T) -> Option<Self> {
        let (address, pace) = LEFT.take()?;
        (address == std::ptr::from_ref(what).addr()).then_some(pace)
    }
}

/// A hook for the tests of this crate, which says no except in threads that ask for a yes.
#[cfg(all(test, not(loom)))]
pub(crate) mod testing {
    use std::cell::Cell;

    use super::{ASKED, on_slice};

    thread_local! {
        static ANSWER: Cell<bool> = const { Cell::new(false) };
        static ASKED_TIMES: Cell<u32> = const { Cell::new(0) };
    }

    /// From now on the hook says `answer` in this thread, and has not been asked lately.
    pub(crate) fn answer(answer: bool) {
        on_slice(|| {
            ASKED_TIMES.set(ASKED_TIMES.get() + 1);
            ANSWER.get()
        });
        ANSWER.set(answer);
        ASKED.set(None);
    }

    /// How often the hook was asked in this thread.
    pub(crate) fn asked() -> u32 {
        ASKED_TIMES.get()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn thread_asks_once_in_a_slice() {
        testing::answer(true);
        assert!(must_leave());
        let asked = testing::asked();
        assert!(!must_leave(), "it asked again at once");
        assert_eq!(testing::asked(), asked);
        ASKED.set(Instant::now().checked_sub(SLICE));
        assert!(must_leave());
    }

    #[test]
    fn poll_goes_on_until_something_is_found() {
        testing::answer(false);
        let (mut polls, asked) = (0, testing::asked());
        let found = poll_in_slices(
            None,
            |found: &u32| *found == 3,
            |_until| {
                polls += 1;
                Ok(polls)
            },
        );
        assert_eq!(found.unwrap(), 3);
        assert_eq!(testing::asked(), asked + 1, "the hook is asked once in a slice");
    }

    #[test]
    fn poll_in_vain_is_left_when_the_hook_says_so() {
        testing::answer(true);
        let left = poll_in_slices(None, |found: &bool| *found, |_until| Ok(false));
        assert_eq!(left.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn poll_ends_at_its_deadline() {
        testing::answer(true);
        let soon = Some(Instant::now() + SLICE / 2);
        let seen = poll_in_slices(
            soon,
            |found: &bool| *found,
            |until| {
                assert_eq!(until, soon);
                Ok(false)
            },
        );
        assert!(!seen.unwrap());
    }

    #[test]
    fn slices_grow_quickly_and_no_further_than_the_longest() {
        let slices = |first, longest| {
            let paces =
                std::iter::successors(Some(Pace::new(first)), |pace| Some(pace.next(longest)));
            paces.map(|pace| pace.slice).take(4).collect::<Vec<_>>()
        };
        let [first, second] = [Duration::from_millis(20), Duration::from_millis(200)];
        assert_eq!(slices(first, SLICE), [first, second, SLICE, SLICE]);
    }

    #[test]
    fn only_the_wait_that_was_left_is_gone_on_with() {
        let (one, other) = (1, 2);
        let pace = Pace::new(SLICE).next(SLICE * 4);
        pace.keep_for(&one);
        assert_eq!(Pace::kept_for(&one), Some(pace));
        assert_eq!(Pace::kept_for(&one), None, "told twice");
        pace.keep_for(&one);
        assert_eq!(Pace::kept_for(&other), None);
        assert_eq!(Pace::kept_for(&one), None, "another wait came between");
    }
}
