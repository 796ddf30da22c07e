//! Waiting, without a lock that is held, until somebody who holds it says that something changed.
//!
//! # Shared state
//!
//! A [`Roster`] of those who wait. A seat's state is [`WAITING`] or [`NOTIFIED`].
//!
//! | step      | who      | does                                                                |
//! |-----------|----------|---------------------------------------------------------------------|
//! | enter     | waiter   | holds the condition's lock; takes a seat                            |
//! | release   | waiter   | frees the condition's lock, however often it was taken              |
//! | notify    | notifier | with the roster's lock, tells the seats of those who have waited longest, and then wakes them |
//! | sleep     | waiter   | until its seat says `NOTIFIED`, or time has run out                 |
//! | return    | waiter   | takes the condition's lock again, as often as it had it             |
//! | leave     | waiter   | frees its seat                                                      |
//!
//! - A notification is for those who have a seat when it is made; one who enters later can never
//!   have it, since it is written into a seat.
//! - Since a waiter has its seat before it frees the lock, whoever gets the lock after it sees the
//!   seat. So no notification made with the lock held is lost between release and sleep.
//! - A waiter whose time has run out has the roster's lock when it finds that it was not notified,
//!   and frees its seat under it. A notification goes to its seat before, and then it *was* notified,
//!   or to another one.
//!
//! # When a process dies
//!
//! - A waiter that was not notified: its seat stays. A notification may go there.
//! - A waiter that was notified and has not left: other waiters look for such seats when their slices
//!   end, after 20 ms at first and later every two seconds, and pass the notification on to whoever had
//!   waited longest when it was made. If there is nobody it has no meaning any more. A process that
//!   is killed between telling the heir and freeing the seat makes the notification be passed on
//!   twice; a woken waiter must look at what it waits for anyway.
//! - A notifier: has told some, perhaps not all. They sleep for two seconds at most.
//! - The owner of the condition's lock: see `lock.rs` and `rlock.rs`.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::WaitError;
use crate::shm::{ArenaError, Handle, Shared, ShmSafe, shared_handle};
use crate::sync::lock::{Holder, Lock, LockError, LockOutcome};
use crate::sync::rlock::RLock;
use crate::sync::roster::{Home, InArena, Locked, Roster, Seat};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::deadline_after;
use crate::sync::who::Who;

#[cfg(doc)]
use crate::sync::roster::WAITING;

/// State of a seat whose waiter is to return.
const NOTIFIED: u32 = 1;

/// The lock of a condition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ConditionLock {
    /// One that is taken once.
    Lock(Lock),
    /// One that its holder may take again; a wait frees it altogether.
    RLock(RLock),
}

impl From<Lock> for ConditionLock {
    fn from(lock: Lock) -> Self {
        Self::Lock(lock)
    }
}

impl From<RLock> for ConditionLock {
    fn from(lock: RLock) -> Self {
        Self::RLock(lock)
    }
}

impl ConditionLock {
    /// Who holds the lock at this moment.
    pub fn holder(&self) -> Holder {
        match self {
            Self::Lock(lock) => lock.holder(),
            Self::RLock(lock) => lock.holder(),
        }
    }

    /// Frees the lock, and returns how often it was taken.
    fn release_all(&self) -> Result<u32, LockError> {
        match self {
            Self::Lock(lock) => lock.release().map(|()| 1),
            Self::RLock(lock) => lock.release_all(),
        }
    }

    /// Takes the lock as often as it was.
    fn acquire_again(&self, depth: u32) -> Result<LockOutcome, WaitError> {
        match self {
            Self::Lock(lock) => lock.acquire(None),
            Self::RLock(lock) => {
                let outcome = lock.acquire(None)?;
                lock.set_depth(depth);
                Ok(outcome)
            }
        }
    }
}

/// Lets processes wait until another one, which holds the same lock, notifies them.
///
/// It behaves like `multiprocessing.Condition`. Clones and copies sent to other processes, in a
/// message or as an argument, are the same condition, with the same lock.
///
/// A notification wakes only those who were waiting when it was made, the one that has waited
/// longest first. One that was killed before it returned leaves the notification to the next, within
/// about two seconds.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use procession::sync::{Condition, Lock, Wake};
///
/// let lock = Lock::new()?;
/// let changed = Condition::new(lock.clone())?;
/// lock.acquire(None)?;
/// let returned = changed.wait_for(Duration::from_millis(5))?;
/// assert_eq!(returned.wake, Wake::TimedOut); // and the lock is held again
/// lock.release()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Condition {
    state: Shared<ConditionState>,
    lock: ConditionLock,
    #[serde(skip)]
    spin: SpinBudget,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody called `notify`.
    Notified,
    /// The deadline has passed.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
}

/// How a wait ended. The lock is held again, whatever it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// Why the wait is over.
    pub wake: Wake,
    /// How the lock was taken again: a process may have been killed with it meanwhile.
    pub lock: LockOutcome,
}

/// Why there could be no wait.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConditionError {
    /// This thread does not hold the condition's lock.
    NotOwner,
    /// There is no shared memory for one more waiter.
    Arena(ArenaError),
}

impl Condition {
    /// Makes a condition with a lock, which may be used elsewhere too.
    ///
    /// # Errors
    ///
    /// Any [`ArenaError`] that keeps some hundred bytes of shared memory from being allocated.
    pub fn new(lock: impl Into<ConditionLock>) -> Result<Self, ArenaError> {
        Ok(Self { state: Shared::new(|_| ())?, lock: lock.into(), spin: SpinBudget::new() })
    }

    /// Opens the condition that `raw`, which [`note`](Self::note) gave, stands for, with the lock
    /// that it was made with.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when it is gone.
    pub fn open(raw: u64, lock: impl Into<ConditionLock>) -> Result<Self, ArenaError> {
        let state = Shared::open(Handle::from_raw(raw))?;
        Ok(Self { state, lock: lock.into(), spin: SpinBudget::new() })
    }

    /// The lock.
    pub fn lock(&self) -> &ConditionLock {
        &self.lock
    }

    /// Frees the lock, blocks until somebody notifies this waiter or `deadline` has passed, and takes
    /// the lock again.
    ///
    /// Without a deadline it waits for ever; one in the past lets others take the lock and no more.
    /// Taking the lock again has no deadline, and signals do not end it.
    ///
    /// # Errors
    ///
    /// [`ConditionError::NotOwner`] and [`ConditionError::Arena`]. The lock is as it was, and nobody
    /// has waited.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Returned, ConditionError> {
        let waiter = self.enter()?;
        let wake = match waiter.sleep(deadline) {
            Ok(()) => Wake::Notified,
            Err(WaitError::Interrupted) => Wake::Interrupted,
            Err(_) => Wake::TimedOut,
        };
        loop {
            // Only a signal can end this without the lock.
            if let Ok(lock) = waiter.acquire_again() {
                let wake = if waiter.leave() { Wake::Notified } else { wake };
                return Ok(Returned { wake, lock });
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_for(&self, timeout: Duration) -> Result<Returned, ConditionError> {
        self.wait(deadline_after(timeout))
    }

    /// Waits until `done` returns true, which is asked with the lock held, or `deadline` has passed.
    /// Returns what `done` returned last.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::sync::{Condition, Event, Lock};
    ///
    /// let (lock, ready) = (Lock::new()?, Event::new()?);
    /// let changed = Condition::new(lock.clone())?;
    /// let worker = std::thread::spawn({
    ///     let (lock, ready, changed) = (lock.clone(), ready.clone(), changed.clone());
    ///     move || {
    ///         lock.acquire(None).unwrap();
    ///         ready.set();
    ///         changed.notify_all();
    ///         lock.release().unwrap();
    ///     }
    /// });
    /// lock.acquire(None)?;
    /// assert!(changed.wait_until(None, || ready.is_set())?);
    /// lock.release()?;
    /// worker.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut() -> bool,
    ) -> Result<bool, ConditionError> {
        while !done() {
            if self.wait(deadline)?.wake == Wake::TimedOut {
                return Ok(done());
            }
        }
        Ok(true)
    }

    /// Begins a wait whose steps the caller takes one by one: takes a seat and frees the lock.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn enter(&self) -> Result<ConditionWaiter<'_>, ConditionError> {
        if self.lock.holder() != Holder::ThisThread {
            return Err(ConditionError::NotOwner);
        }
        let home = InArena(&self.state);
        let seat = self.state.enter(home, Who::here()).map_err(ConditionError::Arena)?;
        // Drops its seat if the lock turns out not to be held: somebody else has released it.
        let mut waiter = ConditionWaiter { condition: self, seat, depth: 0 };
        waiter.depth = self.lock.release_all().map_err(|_| ConditionError::NotOwner)?;
        Ok(waiter)
    }

    /// Wakes up to `count` of those who wait now, those who have waited longest first; without a
    /// system call if nobody sleeps. Returns how many.
    ///
    /// The caller holds the lock, if what it has changed is to be seen by those who wait.
    pub fn notify(&self, count: usize) -> usize {
        self.state.notify(InArena(&self.state), count)
    }

    /// Wakes all who wait now.
    pub fn notify_all(&self) -> usize {
        self.notify(usize::MAX)
    }

    /// How many wait at this moment and were not notified.
    pub fn waiters(&self) -> usize {
        self.state.roster.seats(InArena(&self.state)).filter(|seat| seat.is_waiting()).count()
    }
}

shared_handle!(Condition, "condition, without its lock,", [state], (); note);

/// A waiter between its release of the lock and its return.
///
/// For callers that have something to do when a signal came in between, as an interpreter has. If it
/// is dropped before [`leave`](Self::leave), the lock is not taken again, and a notification that it
/// had got goes to the next.
#[derive(Debug)]
#[must_use = "a waiter that is dropped has not waited"]
pub struct ConditionWaiter<'a> {
    condition: &'a Condition,
    seat: &'a Seat,
    depth: u32,
}

impl ConditionWaiter<'_> {
    /// Blocks until this waiter was notified, or `deadline` has passed.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` has passed.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread; call again to go on
    ///   waiting.
    pub fn sleep(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let state = &self.condition.state;
        let home = InArena(state);
        let look = |_| {
            state.inherit(home);
            None
        };
        self.seat.wait(&self.condition.spin, deadline, |_| (), look)
    }

    /// Blocks until the lock is held again, as often as it was.
    ///
    /// # Errors
    ///
    /// [`WaitError::Interrupted`] when a signal handler ran in this thread; the lock is not held, call
    /// again.
    pub fn acquire_again(&self) -> Result<LockOutcome, WaitError> {
        self.condition.lock.acquire_again(self.depth)
    }

    /// Ends the wait, and says whether this waiter was notified.
    pub fn leave(self) -> bool {
        let state = &self.condition.state;
        let notified = state.leave(InArena(state), self.seat);
        std::mem::forget(self);
        notified
    }
}

impl Drop for ConditionWaiter<'_> {
    fn drop(&mut self) {
        let state = &self.condition.state;
        let home = InArena(state);
        if state.leave(home, self.seat) {
            state.notify(home, 1);
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition")
            .field("lock", &self.lock)
            .field("waiters", &self.waiters())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOwner => "a condition was waited for by a thread that does not hold its lock",
            Self::Arena(_) => "no shared memory for one more waiter of a condition",
        })
    }
}

impl std::error::Error for ConditionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotOwner => None,
            Self::Arena(source) => Some(source),
        }
    }
}

/// What all handles of a condition share.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ConditionState {
    roster: Roster,
}

// SAFETY: a roster is atomic words with a fixed layout and no pointer, and any value of them is
// possible. Every method works by atomic operations alone.
unsafe impl ShmSafe for ConditionState {
    const TAG: u32 = u32::from_le_bytes(*b"cond");
}

impl ConditionState {
    fn enter<'a, H: Home<'a>>(&'a self, home: H, who: Who) -> Result<&'a Seat, ArenaError> {
        self.roster.lock(home).enter(who, |locked| {
            inherit_all(locked);
            locked.waiting().filter(|seat| locked.is_dead(seat)).for_each(Seat::leave);
        })
    }

    fn notify<'a>(&'a self, home: impl Home<'a>, count: usize) -> usize {
        let locked = self.roster.lock(home);
        let until = locked.last_ticket();
        let mut told = 0;
        let mut only = None;
        while told < count
            && let Some(seat) = locked.oldest(until)
        {
            seat.tell(NOTIFIED, until);
            only = Some(seat);
            told += 1;
        }
        drop(locked);
        match (told, only) {
            (0, _) | (_, None) => {}
            (1, Some(seat)) => seat.notify(),
            _ => self.roster.notify_told(home),
        }
        told
    }

    /// Frees the seat, and says whether its waiter was notified.
    fn leave<'a>(&'a self, home: impl Home<'a>, seat: &Seat) -> bool {
        // While it says that it waits, somebody may be about to change that.
        let locked = (seat.state() != NOTIFIED).then(|| self.roster.lock(home));
        let notified = seat.state() == NOTIFIED;
        seat.leave();
        drop(locked);
        notified
    }

    /// Passes on what was told to those who are dead.
    fn inherit<'a>(&'a self, home: impl Home<'a>) {
        let told = |seat: &Seat| seat.who().is_some() && seat.state() == NOTIFIED;
        if !self.roster.seats(home).any(told) {
            return;
        }
        let heirs = inherit_all(&self.roster.lock(home));
        if heirs {
            self.roster.notify_told(home);
        }
    }
}

/// Passes on what was told to those who are dead, and says whether there was anybody to tell.
fn inherit_all<'a, H: Home<'a>>(locked: &Locked<'a, H>) -> bool {
    let mut heirs = false;
    loop {
        let told = |seat: &&Seat| seat.state() == NOTIFIED && locked.is_dead(seat);
        let Some(dead) = locked.seats().find(told) else { return heirs };
        if let Some(heir) = locked.oldest(dead.ticket()) {
            heir.tell(NOTIFIED, dead.ticket());
            heirs = true;
        }
        dead.leave();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
