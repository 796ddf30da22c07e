//! Who waits: a table of seats, each for one thread.
//!
//! A condition and a barrier must know their waiters one by one: to wake those that were there at a
//! certain moment and no others, and to notice when one of them is killed.
//!
//! # Shared state
//!
//! | word      | of     | meaning                                                         |
//! |-----------|--------|-----------------------------------------------------------------|
//! | `lock`    | roster | held for a change of the table, and for a look at all of it     |
//! | `tickets` | roster | the last ticket that was given out                              |
//! | `more`    | roster, bench | the next bench of seats, a block that belongs to the object |
//! | `who`     | seat   | the thread that has the seat; 0 while it is free                |
//! | `ticket`  | seat   | when the thread came                                            |
//! | `state`   | seat   | [`WAITING`], or what it was told, by numbers of the object's own |
//! | `event`   | seat   | where the thread sleeps until `state` says more                 |
//!
//! Zeroed memory is an empty roster. There are as many seats as were ever needed at a time.
//!
//! - Entering, with the lock: `ticket` and `state` of a free seat, then `who`.
//! - Telling, with the lock: `state`; then the waiter is notified, after the lock is released, as
//!   that may take a system call. A notification that reaches the next user of the seat makes that
//!   one look, and no more.
//! - Leaving: `who` = 0. A thread that was told something leaves without the lock, since nobody else
//!   changes its seat any more; one that was not must have the lock, to find out that it was not.
//!
//! # When a process dies
//!
//! - A waiter: its seat stays taken. What was told to it may have to be told to another one: the
//!   object finds seats of the dead, and frees them, when a waiter's slice ends and before the
//!   roster grows.
//! - The holder of the lock: every change is a store or stands for itself, so there is nothing to
//!   repair. A bench that it was about to add belongs to the object already and is lost until the
//!   object goes.
//! - One that has told, before it notified: the waiter looks within two seconds.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{ArenaError, Handle, Liveness, Member, RobustLock, Shared, ShmSafe, Taken};
use crate::slice::Pace;
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;
use crate::sync::waiters::earlier;
use crate::sync::who::{Who, arena};

/// State of a seat whose thread was not told anything yet.
pub(crate) const WAITING: u32 = 0;

/// How many seats a roster has from the start, and how many are added at a time.
const FIRST_SEATS: usize = 8;
const MORE_SEATS: usize = 31;

const FIRST_SLICE: Duration = Duration::from_millis(if cfg!(loom) { 3_600_000 } else { 20 });
/// A look at the others costs some microseconds, and there may be many who wait for long.
const LONGEST_SLICE: Duration = Duration::from_secs(2);

/// The place of one waiter.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Seat {
    who: AtomicU64,
    ticket: AtomicU64,
    state: AtomicU32,
    event: EventCount,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
}

/// The table of waiters.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Roster {
    lock: RobustLock,
    /// Keeps the layout the same for all compilers.
    _reserved: AtomicU32,
    tickets: AtomicU64,
    more: AtomicU64,
    seats: [Seat; FIRST_SEATS],
}

/// More seats, in a block of their own.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Bench {
    more: AtomicU64,
    seats: [Seat; MORE_SEATS],
}

// Part of the layout of the arena.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Seat>() == 32 && size_of::<Roster>() == 24 + 32 * FIRST_SEATS);

// SAFETY: atomic words with a fixed layout and no pointer. `more` is checked before it is used, and
// of the others any value is possible. Every method works by atomic operations alone.
unsafe impl ShmSafe for Bench {
    const TAG: u32 = u32::from_le_bytes(*b"seat");
}

/// Where a roster lies, and what is known of processes there.
pub(crate) trait Home<'a>: Liveness + Copy {
    /// A bench that was added; `None` if there is none by this name.
    fn bench(self, bench: Handle) -> Option<&'a Bench>;

    /// Adds an empty bench.
    fn add_bench(self) -> Result<Handle, ArenaError>;
}

/// The object in the arena that the roster is a part of.
#[derive(Debug)]
pub(crate) struct InArena<'a, T>(pub(crate) &'a Shared<T>);

impl<T> Clone for InArena<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for InArena<'_, T> {}

impl<T> Liveness for InArena<'_, T> {
    fn me(&self) -> Member {
        arena().me()
    }

    fn is_alive(&self, member: Member) -> bool {
        arena().is_alive(member)
    }
}

impl<'a, T: ShmSafe> Home<'a> for InArena<'a, T> {
    fn bench(self, bench: Handle) -> Option<&'a Bench> {
        self.0.part(bench).ok()
    }

    fn add_bench(self) -> Result<Handle, ArenaError> {
        self.0.add_part::<Bench>()
    }
}

impl Seat {
    pub(crate) fn who(&self) -> Option<Who> {
        Who::from_raw(self.who.load(Ordering::SeqCst))
    }

    pub(crate) fn state(&self) -> u32 {
        self.state.load(Ordering::SeqCst)
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.who.load(Ordering::SeqCst) != 0 && self.state() == WAITING
    }

    /// Tells the waiter something, which is to be notified when the lock is released. Until when
    /// others had come is noted in place of the ticket, for whoever inherits what was told.
    pub(crate) fn tell(&self, state: u32, until: u64) {
        self.ticket.store(until, Ordering::Relaxed);
        self.state.store(state, Ordering::SeqCst);
    }

    /// Wakes the waiter; without a system call if it does not sleep.
    pub(crate) fn notify(&self) {
        self.event.notify(1);
    }

    /// Frees the seat.
    pub(crate) fn leave(&self) {
        self.who.store(0, Ordering::SeqCst);
    }

    /// Blocks until the waiter was told something, and returns what. `look` is called now and then,
    /// and when time has run out, which it is told; if it gives something the wait is over.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] and [`WaitError::Interrupted`]. The seat is still taken.
    pub(crate) fn wait<R>(
        &self,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        told: impl Fn(u32) -> R,
        mut look: impl FnMut(bool) -> Option<R>,
    ) -> Result<R, WaitError> {
        let mut pace = Pace::kept_for(self).unwrap_or_else(|| Pace::new(FIRST_SLICE));
        let state = || Some(self.state()).filter(|state| *state != WAITING);
        loop {
            let until = earlier(deadline, pace.end());
            let error = match self.event.wait_until(spin, Some(until), state) {
                Ok(state) => return Ok(told(state)),
                Err(error) => error,
            };
            let interrupted = error == WaitError::Interrupted;
            let late = !interrupted && deadline == Some(until);
            // One that is interrupted again and again must look as well.
            if !interrupted || pace.is_over() {
                if let Some(result) = look(late) {
                    return Ok(result);
                }
                pace = pace.next(LONGEST_SLICE);
            }
            if interrupted {
                pace.keep_for(self);
            }
            if interrupted || late {
                return Err(error);
            }
        }
    }
}

impl Roster {
    /// Makes one outside an arena.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self {
            lock: RobustLock::new(),
            _reserved: AtomicU32::new(0),
            tickets: AtomicU64::new(0),
            more: AtomicU64::new(0),
            seats: std::array::from_fn(|_| Seat {
                who: AtomicU64::new(0),
                ticket: AtomicU64::new(0),
                state: AtomicU32::new(0),
                event: EventCount::new(),
                _reserved: AtomicU32::new(0),
            }),
        }
    }

    /// Takes the lock.
    pub(crate) fn lock<'a, H: Home<'a>>(&'a self, home: H) -> Locked<'a, H> {
        Locked { roster: self, home, _taken: self.lock.lock(&home) }
    }

    /// All seats, taken or not. Without the lock they may change meanwhile.
    pub(crate) fn seats<'a, H: Home<'a>>(
        &'a self,
        home: H,
    ) -> impl Iterator<Item = &'a Seat> + use<'a, H> {
        let next = move |more: &AtomicU64| {
            let more = Handle::from_raw(more.load(Ordering::Acquire));
            if more.is_none() { None } else { home.bench(more) }
        };
        let benches = std::iter::successors(next(&self.more), move |bench| next(&bench.more));
        self.seats.iter().chain(benches.flat_map(|bench| &bench.seats))
    }

    /// Wakes all that were told something.
    pub(crate) fn notify_told<'a>(&'a self, home: impl Home<'a>) {
        self.seats(home).filter(|seat| seat.state() != WAITING).for_each(Seat::notify);
    }
}

/// A roster whose lock is held.
#[derive(Debug)]
pub(crate) struct Locked<'a, H> {
    roster: &'a Roster,
    home: H,
    _taken: Taken<'a>,
}

impl<'a, H: Home<'a>> Locked<'a, H> {
    /// Gives `who` a seat. If none is free, `tidy` may free those of the dead; else there will be
    /// more seats.
    pub(crate) fn enter(&self, who: Who, tidy: impl FnOnce(&Self)) -> Result<&'a Seat, ArenaError> {
        if let Some(seat) = self.take_free(who) {
            return Ok(seat);
        }
        tidy(self);
        loop {
            if let Some(seat) = self.take_free(who) {
                return Ok(seat);
            }
            let bench = self.home.add_bench()?;
            self.last_link().store(bench.raw(), Ordering::Release);
        }
    }

    fn take_free(&self, who: Who) -> Option<&'a Seat> {
        let seat = self.seats().find(|seat| seat.who.load(Ordering::SeqCst) == 0)?;
        let ticket = self.last_ticket() + 1;
        self.roster.tickets.store(ticket, Ordering::Relaxed);
        seat.ticket.store(ticket, Ordering::Relaxed);
        seat.state.store(WAITING, Ordering::SeqCst);
        seat.who.store(who.raw(), Ordering::SeqCst);
        Some(seat)
    }

    fn last_link(&self) -> &'a AtomicU64 {
        let mut link = &self.roster.more;
        while let Some(bench) = self.home.bench(Handle::from_raw(link.load(Ordering::Acquire))) {
            link = &bench.more;
        }
        link
    }

    /// The ticket of whoever came last.
    pub(crate) fn last_ticket(&self) -> u64 {
        self.roster.tickets.load(Ordering::Relaxed)
    }

    pub(crate) fn seats(&self) -> impl Iterator<Item = &'a Seat> + use<'a, H> {
        self.roster.seats(self.home)
    }

    /// The seats of those who wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &'a Seat> + use<'a, H> {
        self.seats().filter(|seat| seat.is_waiting())
    }

    /// The seat of whoever has waited longest, of those whose ticket is not above `until`.
    pub(crate) fn oldest(&self, until: u64) -> Option<&'a Seat> {
        self.waiting().filter(|seat| seat.ticket() <= until).min_by_key(|seat| seat.ticket())
    }

    /// Releases the lock.
    pub(crate) fn unlock(self) -> H {
        self.home
    }

    /// Whether the process of whoever has the seat is dead.
    pub(crate) fn is_dead(&self, seat: &Seat) -> bool {
        seat.who().is_some_and(|who| !self.home.is_alive(who.member()))
    }
}

/// A home for models and tests: no more than the first seats, and whoever is not listed is alive.
#[cfg(test)]
pub(crate) struct TestHome {
    me: Member,
    dead: std::sync::Mutex<Vec<Member>>,
}

#[cfg(test)]
impl TestHome {
    pub(crate) fn of(slot: u32) -> Self {
        Self { me: test_who(slot).member(), dead: std::sync::Mutex::default() }
    }

    /// Lets a process be dead from now on.
    pub(crate) fn bury(&self, slot: u32) {
        self.dead.lock().unwrap().push(test_who(slot).member());
    }
}

/// The first thread of some process.
#[cfg(test)]
pub(crate) fn test_who(slot: u32) -> Who {
    Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
}

#[cfg(test)]
impl Liveness for &TestHome {
    fn me(&self) -> Member {
        self.me
    }

    fn is_alive(&self, member: Member) -> bool {
        !self.dead.lock().unwrap().contains(&member)
    }
}

#[cfg(test)]
impl<'a> Home<'a> for &'a TestHome {
    fn bench(self, _bench: Handle) -> Option<&'a Bench> {
        None
    }

    fn add_bench(self) -> Result<Handle, ArenaError> {
        Err(ArenaError::TooManyReferences)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[repr(transparent)]
    struct Table(Roster);

    // SAFETY: as `Bench`.
    unsafe impl ShmSafe for Table {
        const TAG: u32 = u32::from_le_bytes(*b"tabl");
    }

    fn enter(table: &Shared<Table>, number: u32) {
        let home = InArena(table);
        let who = Who::new(arena().me(), number);
        table.0.lock(home).enter(who, |_| ()).unwrap();
    }

    #[test]
    fn roster_grows_and_keeps_the_order() {
        let table: Shared<Table> = Shared::new(|_| ()).unwrap();
        for number in 1..=100 {
            enter(&table, number);
        }
        let home = InArena(&table);
        let locked = table.0.lock(home);
        assert_eq!(locked.waiting().count(), 100);
        for number in 1..=100_u32 {
            let seat = locked.oldest(u64::MAX).unwrap();
            assert_eq!(seat.who(), Some(Who::new(arena().me(), number)), "not in order");
            seat.tell(1, locked.last_ticket());
        }
        assert!(locked.oldest(u64::MAX).is_none());
    }

    #[test]
    fn seats_are_used_again() {
        let table: Shared<Table> = Shared::new(|_| ()).unwrap();
        for number in 1..=100 {
            enter(&table, number);
            let home = InArena(&table);
            let locked = table.0.lock(home);
            locked.waiting().for_each(Seat::leave);
        }
        assert_eq!(table.0.seats(InArena(&table)).count(), FIRST_SEATS, "it has grown");
    }

    #[test]
    fn those_who_came_later_are_not_among_the_oldest() {
        let table: Shared<Table> = Shared::new(|_| ()).unwrap();
        enter(&table, 1);
        let home = InArena(&table);
        let until = table.0.lock(home).last_ticket();
        enter(&table, 2);
        let locked = table.0.lock(home);
        locked.oldest(until).unwrap().leave();
        assert!(locked.oldest(until).is_none());
    }

    #[test]
    fn no_room_for_more_seats_is_an_error() {
        let (roster, home) = (Roster::new(), TestHome::of(1));
        let locked = roster.lock(&home);
        for slot in 0..FIRST_SEATS as u32 {
            locked.enter(test_who(slot), |_| ()).unwrap();
        }
        assert!(locked.enter(test_who(0), |_| ()).is_err());
        let tidied = locked.enter(test_who(0), |locked| locked.oldest(u64::MAX).unwrap().leave());
        assert!(tidied.is_ok());
    }
}
