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
use crate::shm::{ArenaError, Handle, Shared, ShmSafe};
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

    /// The number that stands for the condition, without its lock, in the data which
    /// [`pack`](crate::shm::pack) is packing on this thread, for serializers that know nothing of
    /// serde.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] outside of `pack`.
    pub fn note(&self) -> Result<u64, ArenaError> {
        self.state.pack().map(Handle::raw)
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
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::sync::roster::{TestHome, test_who};

    fn state() -> ConditionState {
        ConditionState { roster: Roster::new() }
    }

    #[test]
    fn wait_gives_the_lock_up_and_takes_it_again_as_often_as_it_was() {
        let lock = RLock::new().unwrap();
        let condition = Condition::new(lock.clone()).unwrap();
        assert!(matches!(condition.wait(None), Err(ConditionError::NotOwner)));
        lock.acquire(None).unwrap();
        lock.acquire(None).unwrap();
        let notifier = {
            let (lock, condition) = (lock.clone(), condition.clone());
            thread::spawn(move || {
                lock.acquire(None).unwrap();
                let notified = condition.notify_all();
                lock.release().unwrap();
                notified
            })
        };
        let returned = condition.wait(None).unwrap();
        assert_eq!(returned, Returned { wake: Wake::Notified, lock: LockOutcome::Acquired });
        assert_eq!((lock.depth(), lock.holder()), (2, Holder::ThisThread));
        assert_eq!(notifier.join().unwrap(), 1);
    }

    #[test]
    fn wait_gives_up_at_its_deadline_with_the_lock_held() {
        let lock = Lock::new().unwrap();
        let condition = Condition::new(lock.clone()).unwrap();
        lock.acquire(None).unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(5)] {
            let start = Instant::now();
            assert_eq!(condition.wait_for(wait).unwrap().wake, Wake::TimedOut);
            assert!(start.elapsed() >= wait);
            assert_eq!(lock.holder(), Holder::ThisThread);
        }
        assert_eq!(condition.waiters(), 0);
        assert_eq!(condition.notify_all(), 0, "nobody waits any more");
    }

    #[test]
    fn notification_is_for_those_who_wait_longest_and_for_nobody_later() {
        let (state, home) = (state(), TestHome::of(0));
        let seats: Vec<_> =
            (1..=3).map(|slot| state.enter(&home, test_who(slot)).unwrap()).collect();
        assert_eq!(state.notify(&home, 2), 2);
        let later = state.enter(&home, test_who(4)).unwrap();
        let told = |seat: &&Seat| seat.state() == NOTIFIED;
        assert_eq!(seats.iter().map(told).collect::<Vec<_>>(), [true, true, false]);
        assert!(!told(&later));
        assert!(state.leave(&home, seats[1]) && !state.leave(&home, seats[2]));
    }

    #[test]
    fn heir_of_the_dead_is_one_who_waited_when_the_notification_was_made() {
        let (state, home) = (state(), TestHome::of(0));
        for slot in 1..=3 {
            state.enter(&home, test_who(slot)).unwrap();
        }
        assert_eq!(state.notify(&home, 1), 1);
        home.bury(1);
        home.bury(2);
        state.inherit(&home);
        let told = |slot: u32| {
            let seats = state.roster.seats(&home);
            let seat = |seat: &Seat| seat.who() == Some(test_who(slot)) && seat.state() == NOTIFIED;
            seats.filter(|found| seat(found)).count()
        };
        assert_eq!([told(1), told(2), told(3)], [0, 0, 1], "the second was dead as well");
    }

    #[test]
    fn notification_of_the_dead_is_not_for_those_who_came_later() {
        let (state, home) = (state(), TestHome::of(0));
        state.enter(&home, test_who(1)).unwrap();
        assert_eq!(state.notify(&home, 1), 1);
        let later = state.enter(&home, test_who(2)).unwrap();
        home.bury(1);
        state.inherit(&home);
        assert!(later.is_waiting());
        assert_eq!(state.roster.seats(&home).filter(|seat| seat.who().is_some()).count(), 1);
    }

    #[test]
    fn seats_of_the_dead_are_used_again() {
        let (state, home) = (state(), TestHome::of(0));
        let all = state.roster.seats(&home).count() as u32;
        for slot in 1..=all {
            state.enter(&home, test_who(slot)).unwrap();
        }
        assert_eq!(state.notify(&home, 1), 1);
        home.bury(1);
        home.bury(2);
        assert!(state.enter(&home, test_who(100)).is_ok());
        assert!(state.enter(&home, test_who(101)).is_ok());
        assert!(state.enter(&home, test_who(102)).is_err(), "the others are alive");
    }

    #[test]
    fn waiter_that_is_dropped_leaves_its_notification_to_the_next() {
        let lock = Lock::new().unwrap();
        let condition = Condition::new(lock.clone()).unwrap();
        lock.acquire(None).unwrap();
        let first = condition.enter().unwrap();
        let (send, receive) = mpsc::channel();
        let second = {
            let (lock, condition) = (lock.clone(), condition.clone());
            thread::spawn(move || {
                lock.acquire(None).unwrap();
                let waiter = condition.enter().unwrap();
                send.send(()).unwrap();
                let slept = waiter.sleep(None);
                slept.map(|()| waiter.leave())
            })
        };
        receive.recv().unwrap();
        assert_eq!(condition.notify(1), 1);
        drop(first);
        assert_eq!(second.join().unwrap(), Ok(true));
    }

    #[test]
    fn every_notification_wakes_one_thread() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 500;
        let lock = Lock::new().unwrap();
        let condition = Condition::new(lock.clone()).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (lock, condition) = (lock.clone(), condition.clone());
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        lock.acquire(None).unwrap();
                        assert_eq!(condition.wait(None).unwrap().wake, Wake::Notified);
                        lock.release().unwrap();
                    }
                })
            })
            .collect();
        let mut notified = 0;
        while notified < THREADS * ROUNDS {
            lock.acquire(None).unwrap();
            notified += condition.notify(2);
            lock.release().unwrap();
            thread::yield_now();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(condition.waiters(), 0);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::primitive::{AtomicU32, Ordering};
    use crate::sync::lock::LockState;
    use crate::sync::roster::{TestHome, test_who};

    /// A condition with its lock, and something that changes under it.
    struct Model {
        state: ConditionState,
        lock: LockState,
        ready: AtomicU32,
    }

    type Wait = fn(&Model, u32);

    impl Model {
        fn new() -> Arc<Self> {
            let (lock, ready) = (LockState::new(), AtomicU32::new(0));
            Arc::new(Self { state: ConditionState { roster: Roster::new() }, lock, ready })
        }

        fn acquire(&self, slot: u32) {
            self.lock.wait(test_who(slot), &SpinBudget::new(), None, |_| false).unwrap();
        }

        fn sleep(&self, home: &TestHome, seat: &Seat) {
            seat.wait(&SpinBudget::new(), None, |_| (), |_| None).unwrap();
            assert!(self.state.leave(home, seat));
        }

        /// Waits until there is something, and takes it.
        fn wait(&self, slot: u32) {
            let home = TestHome::of(slot);
            self.acquire(slot);
            while self.ready.load(Ordering::Relaxed) == 0 {
                let seat = self.state.enter(&home, test_who(slot)).unwrap();
                self.lock.release().unwrap();
                self.sleep(&home, seat);
                self.acquire(slot);
            }
            self.ready.fetch_sub(1, Ordering::Relaxed);
            self.lock.release().unwrap();
        }

        fn put(&self, slot: u32, count: usize) {
            self.acquire(slot);
            self.ready.fetch_add(1, Ordering::Relaxed);
            self.state.notify(&TestHome::of(slot), count);
            self.lock.release().unwrap();
        }
    }

    /// One that waits for something, and one that makes it be there.
    fn one_and_one(wait: Wait) {
        loom::model(move || {
            let model = Model::new();
            let waiter = {
                let model = model.clone();
                thread::spawn(move || wait(&model, 1))
            };
            model.put(2, 1);
            waiter.join().unwrap();
        });
    }

    /// Two that wait, without a lock around, for two notifications.
    fn two_seats(notify: fn(&ConditionState, &TestHome)) {
        loom::model(move || {
            let model = Model::new();
            let home = TestHome::of(3);
            let sleepers = [1, 2].map(|slot| {
                // Both are there before the first notification.
                model.state.enter(&home, test_who(slot)).unwrap();
                let model = model.clone();
                thread::spawn(move || {
                    let home = TestHome::of(slot);
                    let mine = |seat: &&Seat| seat.who() == Some(test_who(slot));
                    let seat = model.state.roster.seats(&home).find(mine).unwrap();
                    model.sleep(&home, seat);
                })
            });
            notify(&model.state, &home);
            notify(&model.state, &home);
            sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        });
    }

    /// One whose time runs out while it is notified, and another one that waits.
    fn leaver(leave: fn(&ConditionState, &TestHome, &Seat) -> bool) {
        loom::model(move || {
            let model = Model::new();
            let home = TestHome::of(3);
            let seat = model.state.enter(&home, test_who(1)).unwrap();
            let notifier = {
                let model = model.clone();
                thread::spawn(move || model.state.notify(&TestHome::of(2), 1))
            };
            let notified = leave(&model.state, &home, seat);
            assert_eq!(notifier.join().unwrap(), usize::from(notified), "a notification is lost");
        });
    }

    #[test]
    fn no_notification_is_lost_between_release_and_sleep() {
        one_and_one(Model::wait);
    }

    #[test]
    fn two_notifications_wake_two() {
        two_seats(|state, home| assert_eq!(state.notify(home, 1), 1));
    }

    #[test]
    fn whoever_leaves_knows_whether_it_was_notified() {
        leaver(|state, home, seat| state.leave(home, seat));
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn wait_releasing_before_it_enters(model: &Model, slot: u32) {
        let home = TestHome::of(slot);
        model.acquire(slot);
        while model.ready.load(Ordering::Relaxed) == 0 {
            model.lock.release().unwrap();
            let seat = model.state.enter(&home, test_who(slot)).unwrap();
            model.sleep(&home, seat);
            model.acquire(slot);
        }
        model.lock.release().unwrap();
    }

    fn leave_without_the_lock(_: &ConditionState, _: &TestHome, seat: &Seat) -> bool {
        let notified = seat.state() == NOTIFIED;
        seat.leave();
        notified
    }

    fn notify_without_the_lock(state: &ConditionState, home: &TestHome) {
        let seat = state.roster.seats(home).find(|seat| seat.is_waiting()).unwrap();
        seat.notify();
        seat.tell(NOTIFIED, 2);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_release_before_entering_is_found() {
        one_and_one(wait_releasing_before_it_enters);
    }

    #[test]
    #[should_panic(expected = "a notification is lost")]
    fn planted_leaving_without_the_lock_is_found() {
        leaver(leave_without_the_lock);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_notification_before_the_telling_is_found() {
        two_seats(notify_without_the_lock);
    }
}
