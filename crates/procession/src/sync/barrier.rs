//! A place where processes wait until all of them have come.
//!
//! # Shared state
//!
//! | word      | meaning                                                                   |
//! |-----------|---------------------------------------------------------------------------|
//! | `phase`   | bits 0–1: what is going on, see below; bits 2–63: how many times it was passed or reset |
//! | `last`    | the thread that came last, which lets the others go on                    |
//! | `parties` | how many must come; written once, before sharing                          |
//! | `turn`    | those who wait for `ACTING` to end; notified when `phase` changes from it |
//! | `roster`  | those who have come, a seat each; all but the last                        |
//!
//! | phase     | meaning                                            | goes to                        |
//! |-----------|----------------------------------------------------|--------------------------------|
//! | `FILLING` | some have come, not all                            | `ACTING`, when the last comes; `BROKEN` |
//! | `ACTING`  | all have come, and the last does what it has to do | `FILLING`, of the next time; `BROKEN` |
//! | `BROKEN`  | nobody gets through                                | `FILLING`, by a reset          |
//!
//! A seat says [`WAITING`], `PASSED` or `REFUSED`. All changes are made with the roster's lock; what is
//! done while the phase is `ACTING` is done without. Who comes during that time waits until it is over.
//!
//! # Memory ordering
//!
//! What anybody wrote before it came is visible to all that got through: each entered under the lock
//! that the last one took after it, and goes on by what that one stored in its seat.
//!
//! # When a process dies
//!
//! - One that waits: the barrier breaks. Each waiter looks after the next one in the table, after
//!   20 ms at first and later every two seconds, so that together they look after all. Nobody looks
//!   after one that waits alone: it counts as having come, and the last of two passes.
//! - The last one, before it has let all others go on: the phase is `ACTING` still, and `last` says
//!   whom to look after. Those that wait break the barrier; some may have got through.
//! - One that breaks or resets the barrier, half-way: it has written the phase first for a break, and
//!   whoever finds that its seat is not of the phase any more goes away as refused. A reset writes the
//!   seats first, and was not one if the phase was not written.
//! - One that should have come and never will: nobody can know. That is what a deadline is for.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{ArenaError, Handle, Shared, ShmSafe};
use crate::sync::event_count::EventCount;
use crate::sync::roster::{Home, InArena, Locked, Roster, Seat, WAITING};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::{deadline_after, earlier};
use crate::sync::who::Who;

const FILLING: u64 = 0;
const ACTING: u64 = 1;
const BROKEN: u64 = 2;
/// The bits of the phase.
const PHASE: u64 = 3;
/// One more time, in the other bits.
const TIME: u64 = 4;

/// States of a seat whose waiter is to go on.
const PASSED: u32 = 1;
const REFUSED: u32 = 2;

/// How often whoever waits for an action to end looks whether its process still lives.
const LOOK: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 100 });

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
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Barrier {
    state: Shared<BarrierState>,
    #[serde(skip)]
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

    /// Opens the barrier that `raw`, which [`note`](Self::note) gave, stands for.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when it is gone.
    pub fn open(raw: u64) -> Result<Self, ArenaError> {
        Ok(Self { state: Shared::open(Handle::from_raw(raw))?, spin: SpinBudget::new() })
    }

    /// The number that stands for the barrier in the data which [`pack`](crate::shm::pack) is packing
    /// on this thread, for serializers that know nothing of serde.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] outside of `pack`.
    pub fn note(&self) -> Result<u64, ArenaError> {
        self.state.pack().map(Handle::raw)
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

/// What all handles of a barrier share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct BarrierState {
    phase: AtomicU64,
    last: AtomicU64,
    parties: AtomicU32,
    turn: EventCount,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
    roster: Roster,
}

// SAFETY: atomic words with a fixed layout and no pointer, and any value of them is possible. Every
// method works by atomic operations alone.
unsafe impl ShmSafe for BarrierState {
    const TAG: u32 = u32::from_le_bytes(*b"barr");
}

/// What has become of one that came.
enum Came<'a> {
    Last { time: u64 },
    Waiting { time: u64, index: usize, seat: &'a Seat },
}

/// What the lock allows to find out at once.
enum Door<'a> {
    Open(Came<'a>),
    /// Wait until the phase is another one.
    Acting(u64),
}

impl BarrierState {
    /// Makes one outside an arena.
    #[cfg(test)]
    fn new(parties: u32) -> Self {
        Self {
            phase: AtomicU64::new(0),
            last: AtomicU64::new(0),
            parties: AtomicU32::new(parties),
            turn: EventCount::new(),
            _reserved: AtomicU32::new(0),
            roster: Roster::new(),
        }
    }

    fn phase(&self) -> u64 {
        self.phase.load(Ordering::SeqCst)
    }

    fn set_phase(&self, time: u64, phase: u64) {
        self.phase.store(time | phase, Ordering::SeqCst);
    }

    fn parties(&self) -> usize {
        self.parties.load(Ordering::Relaxed) as usize
    }

    fn come<'a, H: Home<'a>>(
        &'a self,
        home: H,
        who: Who,
        spin: &SpinBudget,
        deadline: Option<Instant>,
    ) -> Result<Came<'a>, BarrierError> {
        loop {
            match self.enter(home, who)? {
                Door::Open(came) => return Ok(came),
                Door::Acting(phase) => self.await_turn(home, phase, spin, deadline)?,
            }
        }
    }

    fn enter<'a, H: Home<'a>>(&'a self, home: H, who: Who) -> Result<Door<'a>, BarrierError> {
        let locked = self.roster.lock(home);
        let phase = self.phase();
        let time = phase & !PHASE;
        match phase & PHASE {
            FILLING => {}
            ACTING => return Ok(Door::Acting(phase)),
            _ => return Err(BarrierError::Broken),
        }
        let index = locked.waiting().count();
        if index + 1 >= self.parties() {
            self.last.store(who.raw(), Ordering::SeqCst);
            self.set_phase(time, ACTING);
            return Ok(Door::Open(Came::Last { time }));
        }
        // Those who wait are counted, dead or not, until somebody looks after them.
        let tidy = |locked: &Locked<'a, H>| {
            let gone = |seat: &&Seat| !seat.is_waiting() && locked.is_dead(seat);
            locked.seats().filter(gone).for_each(Seat::leave);
        };
        let seat = locked.enter(who, tidy).map_err(BarrierError::Arena)?;
        Ok(Door::Open(Came::Waiting { time, index, seat }))
    }

    /// Waits until the action of those who were there before is over.
    fn await_turn<'a>(
        &'a self,
        home: impl Home<'a>,
        phase: u64,
        spin: &SpinBudget,
        deadline: Option<Instant>,
    ) -> Result<(), BarrierError> {
        let over = || (self.phase() != phase).then_some(());
        let until = earlier(deadline, Instant::now() + LOOK);
        match self.turn.wait_until(spin, Some(until), over) {
            Ok(()) => Ok(()),
            Err(WaitError::TimedOut) if deadline == Some(until) => Err(BarrierError::TimedOut),
            Err(WaitError::TimedOut) => {
                self.look_after_last(home, phase & !PHASE);
                Ok(())
            }
            Err(_) => Err(BarrierError::Interrupted),
        }
    }

    fn wait<'a, H: Home<'a>>(
        &'a self,
        home: H,
        seat: &Seat,
        time: u64,
        spin: &SpinBudget,
        deadline: Option<Instant>,
    ) -> Result<(), BarrierError> {
        let told = |state| if state == PASSED { Ok(()) } else { Err(BarrierError::Broken) };
        // When all have come it is too late to give up.
        let mut deadline = deadline;
        loop {
            let look = |late| self.look_around(home, seat, time, late);
            match seat.wait(spin, deadline, told, look) {
                Ok(result) => return result,
                Err(WaitError::TimedOut) => deadline = None,
                Err(_) => return Err(BarrierError::Interrupted),
            }
        }
    }

    /// What a waiter does when its slice ends. Returns the end of its wait if this is it.
    fn look_around<'a, H: Home<'a>>(
        &'a self,
        home: H,
        seat: &Seat,
        time: u64,
        late: bool,
    ) -> Option<Result<(), BarrierError>> {
        let locked = self.roster.lock(home);
        if seat.state() != WAITING {
            // Told meanwhile: the next look at the seat says what.
            return None;
        }
        match self.phase() {
            phase if phase == time | ACTING => {
                drop(locked);
                self.look_after_last(home, time);
                None
            }
            phase if phase == time | FILLING && late => {
                self.break_under(locked, time);
                Some(Err(BarrierError::TimedOut))
            }
            phase if phase == time | FILLING => {
                if neighbour(&locked, seat).is_some_and(|next| locked.is_dead(next)) {
                    self.break_under(locked, time);
                }
                None
            }
            // Broken or reset by one that was killed before it could say so.
            _ => Some(Err(BarrierError::Broken)),
        }
    }

    /// Breaks the barrier if the one that came last is dead.
    fn look_after_last<'a>(&'a self, home: impl Home<'a>, time: u64) {
        let last = Who::from_raw(self.last.load(Ordering::SeqCst));
        if let Some(last) = last
            && !home.is_alive(last.member())
        {
            self.break_acting(home, last, time);
        }
    }

    /// Breaks the barrier if it is still `last` who acts.
    fn break_acting<'a>(&'a self, home: impl Home<'a>, last: Who, time: u64) {
        let locked = self.roster.lock(home);
        if self.is_acting(last, time) {
            self.break_under(locked, time);
        }
    }

    fn is_acting(&self, who: Who, time: u64) -> bool {
        self.phase() == time | ACTING && self.last.load(Ordering::SeqCst) == who.raw()
    }

    /// Lets all go on, unless the barrier was broken or reset meanwhile; says which.
    fn let_all_go<'a>(&'a self, home: impl Home<'a>, who: Who, time: u64) -> bool {
        let locked = self.roster.lock(home);
        if !self.is_acting(who, time) {
            return false;
        }
        locked.waiting().for_each(|seat| seat.tell(PASSED, 0));
        self.set_phase(time.wrapping_add(TIME), FILLING);
        drop(locked);
        self.notify_all(home);
        true
    }

    fn break_it<'a>(&'a self, home: impl Home<'a>) {
        let locked = self.roster.lock(home);
        let time = self.phase() & !PHASE;
        self.break_under(locked, time);
    }

    fn break_under<'a, H: Home<'a>>(&'a self, locked: Locked<'a, H>, time: u64) {
        self.set_phase(time, BROKEN);
        locked.waiting().for_each(|seat| seat.tell(REFUSED, 0));
        let home = locked.unlock();
        self.notify_all(home);
    }

    fn reset<'a>(&'a self, home: impl Home<'a>) {
        let locked = self.roster.lock(home);
        locked.waiting().for_each(|seat| seat.tell(REFUSED, 0));
        self.set_phase((self.phase() & !PHASE).wrapping_add(TIME), FILLING);
        drop(locked);
        self.notify_all(home);
    }

    fn notify_all<'a>(&'a self, home: impl Home<'a>) {
        self.roster.notify_told(home);
        self.turn.notify(u32::MAX);
    }

    fn leave<'a>(&'a self, home: impl Home<'a>, seat: &Seat) {
        // While it waits it is counted, by one who has the lock.
        let locked = (seat.state() == WAITING).then(|| self.roster.lock(home));
        seat.leave();
        drop(locked);
    }
}

/// The next waiter of another process, in the order of the seats; after the last comes the first.
fn neighbour<'a, H: Home<'a>>(locked: &Locked<'a, H>, seat: &Seat) -> Option<&'a Seat> {
    let me = seat.who()?.member();
    let is_other =
        |other: &&Seat| other.is_waiting() && other.who().is_some_and(|who| who.member() != me);
    let behind = locked.seats().skip_while(|other| !std::ptr::eq(*other, seat));
    behind.skip(1).find(is_other).or_else(|| locked.seats().find(is_other))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;
    use crate::sync::roster::{TestHome, test_who};

    fn come<'a>(state: &'a BarrierState, home: &'a TestHome, slot: u32) -> Came<'a> {
        state.come(home, test_who(slot), &SpinBudget::new(), None).unwrap()
    }

    /// One that has to wait.
    fn wait<'a>(state: &'a BarrierState, home: &'a TestHome, slot: u32) -> (&'a Seat, u64) {
        match come(state, home, slot) {
            Came::Waiting { seat, time, .. } => (seat, time),
            Came::Last { .. } => panic!("all have come"),
        }
    }

    /// How the wait of a seat ends that was told something.
    fn end(state: &BarrierState, home: &TestHome, seat: &Seat) -> Result<(), BarrierError> {
        state.wait(home, seat, 0, &SpinBudget::new(), None)
    }

    #[test]
    fn all_go_on_when_all_have_come_time_after_time() {
        const PARTIES: u32 = 4;
        const ROUNDS: usize = 200;
        let barrier = Barrier::new(PARTIES).unwrap();
        let actions = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..PARTIES)
            .map(|_| {
                let (barrier, actions) = (barrier.clone(), actions.clone());
                thread::spawn(move || {
                    let mut sum = 0;
                    for round in 0..ROUNDS {
                        let act = || {
                            assert_eq!(actions.fetch_add(1, Ordering::SeqCst), round);
                        };
                        sum += barrier.wait_with(None, act).unwrap();
                        assert!(actions.load(Ordering::SeqCst) > round, "before all had come");
                    }
                    sum
                })
            })
            .collect();
        let sum: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, ROUNDS * (1 + 2 + 3), "the places are not 0 to 3 each time");
        assert_eq!((barrier.waiters(), barrier.is_broken()), (0, false));
    }

    #[test]
    fn barrier_for_nobody_is_refused() {
        assert!(matches!(Barrier::new(0), Err(BarrierError::NoParties)));
        assert_eq!(Barrier::new(1).unwrap().wait(None).unwrap(), 0);
    }

    #[test]
    fn one_whose_time_runs_out_breaks_it_until_it_is_reset() {
        let barrier = Barrier::new(2).unwrap();
        let late = barrier.wait_for(Duration::from_millis(5));
        assert!(matches!(late, Err(BarrierError::TimedOut)));
        assert!(barrier.is_broken());
        assert!(matches!(barrier.wait(None), Err(BarrierError::Broken)));
        barrier.reset();
        assert!(!barrier.is_broken());
        let other = {
            let barrier = barrier.clone();
            thread::spawn(move || barrier.wait(None))
        };
        barrier.wait(None).unwrap();
        other.join().unwrap().unwrap();
    }

    #[test]
    fn abort_and_reset_send_those_who_wait_away() {
        for (end_it, broken) in [(Barrier::abort as fn(&Barrier), true), (Barrier::reset, false)] {
            let barrier = Barrier::new(3).unwrap();
            let places = [(); 2].map(|()| match barrier.come(None).unwrap() {
                Arrival::Waiting(place) => place,
                Arrival::Last(_) => panic!("there should be three"),
            });
            assert_eq!(barrier.waiters(), 2);
            end_it(&barrier);
            for place in places {
                assert!(matches!(place.wait(None), Err(BarrierError::Broken)));
            }
            assert_eq!((barrier.waiters(), barrier.is_broken()), (0, broken));
        }
    }

    #[test]
    fn action_that_panics_breaks_it() {
        let barrier = Barrier::new(2).unwrap();
        let Arrival::Waiting(place) = barrier.come(None).unwrap() else { panic!("too early") };
        let elsewhere = barrier.clone();
        let last = thread::spawn(move || elsewhere.wait_with(None, || panic!("on purpose")));
        assert!(last.join().is_err());
        assert!(matches!(place.wait(None), Err(BarrierError::Broken)));
        assert!(barrier.is_broken());
    }

    #[test]
    fn one_that_leaves_is_not_counted_any_more() {
        let barrier = Barrier::new(2).unwrap();
        drop(barrier.come(None).unwrap());
        assert_eq!((barrier.waiters(), barrier.is_broken()), (0, false));
        assert!(matches!(barrier.come(None).unwrap(), Arrival::Waiting(_)));
    }

    #[test]
    fn death_of_one_that_waits_is_seen_by_its_neighbour() {
        let (state, home) = (BarrierState::new(4), TestHome::of(1));
        home.bury(3);
        let [first, second, third] = [1, 2, 3].map(|slot| wait(&state, &home, slot));
        // The first looks after the second, which looks after the third.
        let around = |(seat, time): (&Seat, u64)| state.look_around(&home, seat, time, false);
        assert!(around(first).is_none() && first.0.is_waiting());
        assert!(around(second).is_none());
        for (seat, _) in [first, second, third] {
            assert!(matches!(end(&state, &home, seat), Err(BarrierError::Broken)));
        }
        assert_eq!(state.phase() & PHASE, BROKEN);
    }

    #[test]
    fn death_of_the_last_is_seen_by_those_who_wait_and_those_who_come() {
        let home = TestHome::of(1);
        home.bury(2);
        for waits in [true, false] {
            let state = BarrierState::new(if waits { 2 } else { 1 });
            let waiting = waits.then(|| wait(&state, &home, 1));
            assert!(matches!(come(&state, &home, 2), Came::Last { .. }));
            match waiting {
                Some((seat, time)) => {
                    assert!(state.look_around(&home, seat, time, true).is_none());
                    assert!(matches!(end(&state, &home, seat), Err(BarrierError::Broken)));
                }
                None => {
                    let refused = state.come(&home, test_who(3), &SpinBudget::new(), None);
                    assert!(matches!(refused, Err(BarrierError::Broken)));
                }
            }
        }
    }

    #[test]
    fn break_that_was_cut_short_is_found_out() {
        let (state, home) = (BarrierState::new(2), TestHome::of(1));
        let (seat, time) = wait(&state, &home, 1);
        state.set_phase(time, BROKEN);
        let found = state.look_around(&home, seat, time, false);
        assert!(matches!(found, Some(Err(BarrierError::Broken))));
    }

    #[test]
    fn last_one_does_not_let_anybody_go_after_a_reset() {
        let (state, home) = (BarrierState::new(2), TestHome::of(1));
        wait(&state, &home, 1);
        let Came::Last { time } = come(&state, &home, 2) else { panic!("all have come") };
        state.reset(&home);
        let (fresh, _) = wait(&state, &home, 3);
        assert!(!state.let_all_go(&home, test_who(2), time));
        assert!(fresh.is_waiting(), "it came after the reset");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::sync::roster::{TestHome, test_who};

    struct Model {
        state: BarrierState,
        /// What each party writes before it comes, and the others read after.
        written: [UnsafeCell<u32>; 2],
    }

    // SAFETY: a cell is written before the barrier and read behind it; loom reports it if that is
    // not enough.
    unsafe impl Sync for Model {}

    type Pass = fn(&BarrierState, &TestHome, Who);

    fn pass(state: &BarrierState, home: &TestHome, who: Who) {
        let spin = SpinBudget::new();
        match state.come(home, who, &spin, None).unwrap() {
            Came::Last { time } => assert!(state.let_all_go(home, who, time)),
            Came::Waiting { time, seat, .. } => {
                state.wait(home, seat, time, &spin, None).unwrap();
                state.leave(home, seat);
            }
        }
    }

    /// Two that come, so many times.
    fn meeting(rounds: u32, pass: Pass) {
        loom::model(move || {
            let written = [UnsafeCell::new(0), UnsafeCell::new(0)];
            let model = Arc::new(Model { state: BarrierState::new(2), written });
            let party = move |model: &Model, slot: usize| {
                let (home, who) = (TestHome::of(slot as u32), test_who(slot as u32));
                model.written[slot].with_mut(|value| {
                    // SAFETY: nobody reads it before this party has come.
                    unsafe { *value = 1 }
                });
                for _ in 0..rounds {
                    pass(&model.state, &home, who);
                }
                // SAFETY: the other party has come, and writes no more.
                let seen = model.written[1 - slot].with(|value| unsafe { *value });
                assert_eq!(seen, 1, "the other has not come");
            };
            let other = {
                let model = model.clone();
                thread::spawn(move || party(&model, 1))
            };
            party(&model, 0);
            other.join().unwrap();
        });
    }

    /// One that waits, and an abort.
    fn abort(abort: fn(&BarrierState, &TestHome)) {
        loom::model(move || {
            let state = Arc::new(BarrierState::new(2));
            let waiter = {
                let state = state.clone();
                thread::spawn(move || {
                    let (home, spin) = (TestHome::of(0), SpinBudget::new());
                    let Ok(came) = state.come(&home, test_who(0), &spin, None) else { return };
                    let Came::Waiting { time, seat, .. } = came else { unreachable!() };
                    assert!(state.wait(&home, seat, time, &spin, None).is_err());
                })
            };
            abort(&state, &TestHome::of(1));
            waiter.join().unwrap();
        });
    }

    #[test]
    fn two_meet_and_see_what_the_other_wrote() {
        meeting(1, pass);
    }

    #[test]
    fn two_meet_twice() {
        meeting(2, pass);
    }

    #[test]
    fn abort_reaches_one_that_waits() {
        abort(|state, home| state.break_it(home));
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn pass_without_waiting(state: &BarrierState, home: &TestHome, who: Who) {
        let spin = SpinBudget::new();
        match state.come(home, who, &spin, None).unwrap() {
            Came::Last { time } => assert!(state.let_all_go(home, who, time)),
            Came::Waiting { seat, .. } => state.leave(home, seat),
        }
    }

    fn abort_without_the_seats(state: &BarrierState, home: &TestHome) {
        let _locked = state.roster.lock(home);
        state.set_phase(0, BROKEN);
    }

    #[test]
    #[should_panic(expected = "the other has not come")]
    fn planted_passage_without_the_other_is_found() {
        meeting(1, pass_without_waiting);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_abort_that_tells_nobody_is_found() {
        abort(abort_without_the_seats);
    }
}
