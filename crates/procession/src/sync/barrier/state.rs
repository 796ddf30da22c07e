//! What all handles of a barrier share, and how it changes.
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

use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::ShmSafe;
use crate::sync::barrier::BarrierError;
use crate::sync::event_count::EventCount;
use crate::sync::roster::{Home, Locked, Roster, Seat, WAITING};
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::earlier;
use crate::sync::who::Who;

const FILLING: u64 = 0;
const ACTING: u64 = 1;
pub(super) const BROKEN: u64 = 2;
/// The bits of the phase.
pub(super) const PHASE: u64 = 3;
/// One more time, in the other bits.
const TIME: u64 = 4;

/// States of a seat whose waiter is to go on.
const PASSED: u32 = 1;
const REFUSED: u32 = 2;

/// How often whoever waits for an action to end looks whether its process still lives.
const LOOK: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 100 });

/// What all handles of a barrier share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct BarrierState {
    phase: AtomicU64,
    last: AtomicU64,
    pub(super) parties: AtomicU32,
    turn: EventCount,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
    pub(super) roster: Roster,
}

// SAFETY: atomic words with a fixed layout and no pointer, and any value of them is possible. Every
// method works by atomic operations alone.
unsafe impl ShmSafe for BarrierState {
    const TAG: u32 = u32::from_le_bytes(*b"barr");
}

/// What has become of one that came.
pub(super) enum Came<'a> {
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
    pub(super) fn new(parties: u32) -> Self {
        Self {
            phase: AtomicU64::new(0),
            last: AtomicU64::new(0),
            parties: AtomicU32::new(parties),
            turn: EventCount::new(),
            _reserved: AtomicU32::new(0),
            roster: Roster::new(),
        }
    }

    pub(super) fn phase(&self) -> u64 {
        self.phase.load(Ordering::SeqCst)
    }

    pub(super) fn set_phase(&self, time: u64, phase: u64) {
        self.phase.store(time | phase, Ordering::SeqCst);
    }

    pub(super) fn parties(&self) -> usize {
        self.parties.load(Ordering::Relaxed) as usize
    }

    pub(super) fn come<'a, H: Home<'a>>(
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

    pub(super) fn wait<'a, H: Home<'a>>(
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
    pub(super) fn look_around<'a, H: Home<'a>>(
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
    pub(super) fn break_acting<'a>(&'a self, home: impl Home<'a>, last: Who, time: u64) {
        let locked = self.roster.lock(home);
        if self.is_acting(last, time) {
            self.break_under(locked, time);
        }
    }

    fn is_acting(&self, who: Who, time: u64) -> bool {
        self.phase() == time | ACTING && self.last.load(Ordering::SeqCst) == who.raw()
    }

    /// Lets all go on, unless the barrier was broken or reset meanwhile; says which.
    pub(super) fn let_all_go<'a>(&'a self, home: impl Home<'a>, who: Who, time: u64) -> bool {
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

    pub(super) fn break_it<'a>(&'a self, home: impl Home<'a>) {
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

    pub(super) fn reset<'a>(&'a self, home: impl Home<'a>) {
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

    pub(super) fn leave<'a>(&'a self, home: impl Home<'a>, seat: &Seat) {
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
