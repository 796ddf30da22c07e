//! Waiting for a condition that is kept elsewhere.
//!
//! The condition (a queue holds a record, a semaphore is above zero) lives in words of its owner.
//! An [`EventCount`] beside it lets processes sleep until it may have become true, and costs
//! whoever makes it true one load and one branch while nobody sleeps.
//!
//! # Shared state
//!
//! | word           | bits  | meaning                                                           |
//! |----------------|-------|-------------------------------------------------------------------|
//! | `word`         | 0–15  | sleepers announced and not yet notified; never fewer than there are |
//! |                | 16–31 | notifications that met a sleeper, modulo 2^16                     |
//! | `notifier_cpu` | all   | CPU of the last such notification plus 1; 0 while there was none  |
//!
//! Zeroed memory is valid. Both halves of `word` change in one step, and it is the futex word.
//!
//! | step       | who      | does                                                               |
//! |------------|----------|--------------------------------------------------------------------|
//! | announce   | sleeper  | sleepers + 1; remembers the word                                   |
//! | look again | sleeper  | looks at the condition                                             |
//! | sleep      | sleeper  | sleeps in the kernel while the word is as remembered               |
//! | withdraw   | sleeper  | leaving without being woken: sleepers − 1, if no notification came since |
//! | notify     | notifier | sleepers − n, notifications + 1, then wakes n; nothing if there are none |
//! | clear      | notifier | woke fewer than n: sleepers = 0, if the word is as `notify` left it |
//!
//! # Why nobody sleeps through a notification
//!
//! - The notifier makes the condition true and then looks for sleepers; the sleeper announces
//!   itself and then looks at the condition. In the single order of sequentially consistent
//!   operations one of the two comes second and sees the other.
//! - A sleeper whose announcement was counted off, but who does not sleep yet, finds another
//!   notification number in the word, so the kernel does not let it sleep.
//! - *Withdraw* and *clear* cannot take away another's announcement. The same notification
//!   number means that nobody has counted off what was announced under it. A waker that found
//!   fewer sleepers than announced has emptied the kernel's queue; who announced before it will
//!   find the number changed, and who announced since has changed the word.
//! - A wake-up may reach another sleeper than the one counted off, even one announced
//!   later. So a woken sleeper leaves its announcement to the one left behind: it neither
//!   withdraws it nor goes back to sleep on it.
//! - A word that another sleeper's announcement changed sends the sleeper round its loop once
//!   more. It stays announced, as long as the notification number is the same.
//!
//! The sleeper count can be too high (a sleeper was killed, or met a notification on its way
//! out). The first notification that notices pays one needless system call and clears it.
//!
//! # When a process dies
//!
//! A sleeper killed at any step leaves the count too high, see above. A notifier killed between
//! counting off and waking, or a woken sleeper killed before it acts, may leave others asleep
//! with the condition true. Nobody therefore sleeps longer than [`SLICE`] without a look.
//!
//! # When a signal comes just before a sleep
//!
//! After a sleep in vain the waiter asks whether it must leave, see `slice.rs`.
//!
//! # Spinning
//!
//! Before it announces itself a waiter spins, within its [`SpinBudget`], unless the last
//! notification came from its own CPU (see [`WakerCpu`]).

use std::time::Instant;

use crate::error::WaitError;
use crate::primitive::{AtomicU32, FutexError, Ordering, fence, futex};
use crate::slice::{self, SLICE};
use crate::sync::spin::{SpinBudget, WakerCpu};

/// The part of the word that counts sleepers.
const SLEEPERS: u32 = 0xFFFF;
/// One notification, in the other part.
const NOTIFICATION: u32 = SLEEPERS + 1;

/// How a sleep ended that did not end the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slept {
    /// A notifier chose this sleeper.
    Woken,
    /// The slice passed, or the word had changed.
    NotWoken,
}

/// Lets processes sleep until a condition kept elsewhere may have become true.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EventCount {
    word: AtomicU32,
    notifier_cpu: WakerCpu,
}

// Part of the layout of everything that waits.
#[cfg(not(loom))]
const _: () = assert!(size_of::<EventCount>() == 8 && align_of::<EventCount>() == 4);

impl EventCount {
    /// Makes one with nobody waiting, as zeroed memory is.
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0), notifier_cpu: WakerCpu::default() }
    }

    /// Blocks until `ready` gives a value, and returns it.
    ///
    /// A deadline in the past means a single look. `ready` must read the condition with `SeqCst`
    /// (or take it with a read-modify-write); it is called any number of times, and never again
    /// after it gave a value.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] and [`WaitError::Interrupted`]; `ready` gave no value then.
    pub(crate) fn wait_until<R>(
        &self,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(WaitError::TimedOut);
        }
        let spins = !self.notifier_cpu.is_here();
        if let Some(value) = spins.then(|| spin.spin(left, &mut ready)).flatten() {
            return Ok(value);
        }
        let start = Instant::now();
        let result = self.park(deadline, ready);
        if !self.notifier_cpu.is_here() {
            spin.learn_from_sleep(result.is_ok().then(|| start.elapsed()));
        }
        result
    }

    /// Wakes up to `count` sleepers; without a system call if nobody sleeps.
    ///
    /// The caller has just made the condition true with a `SeqCst` store or read-modify-write.
    /// Where the waiters wait for different things, a `count` of `u32::MAX` must wake them all.
    /// Returns how many were asleep and are awake now.
    #[inline]
    pub(crate) fn notify(&self, count: u32) -> usize {
        // To loom a `SeqCst` access is no more than acquire and release; the fence says what the
        // load means.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::SeqCst) & SLEEPERS == 0 {
            0
        } else {
            self.notify_sleepers(count)
        }
    }

    #[cold]
    fn notify_sleepers(&self, count: u32) -> usize {
        let Some((left, counted_off)) = self.count_off(count) else { return 0 };
        self.notifier_cpu.note();
        let woken = futex::wake(&self.word, counted_off);
        if woken < counted_off as usize {
            self.clear(left);
        }
        woken
    }

    /// Takes up to `count` announcements and gives a new notification number. Returns the word
    /// as it left it and how many it took; `None` if there were none.
    fn count_off(&self, count: u32) -> Option<(u32, u32)> {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            let counted_off = (word & SLEEPERS).min(count);
            if counted_off == 0 {
                return None;
            }
            let left = (word - counted_off).wrapping_add(NOTIFICATION);
            match self.replace(word, left) {
                Ok(()) => return Some((left, counted_off)),
                Err(seen) => word = seen,
            }
        }
    }

    /// Forgets announcements behind which nobody sleeps, unless the word has changed since.
    fn clear(&self, left: u32) {
        // A change means that somebody announced itself or notified: then the count is theirs.
        let _ = self.replace(left, left & !SLEEPERS);
    }

    /// Sleeps and looks, in turns.
    #[cold]
    fn park<R>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Result<R, WaitError> {
        let mut standing = None;
        loop {
            let announced = self.keep_or_announce(standing);
            if let Some(value) = ready() {
                self.withdraw(announced);
                return Ok(value);
            }
            let slept = self.sleep(announced, deadline);
            // Being woken uses up an announcement, whosever it was.
            standing = (slept != Ok(Slept::Woken)).then_some(announced);
            let end = match ready() {
                Some(value) => Some(Ok(value)),
                None => end_in_vain(slept).map(Err),
            };
            if let Some(end) = end {
                standing.inspect(|&announced| self.withdraw(announced));
                return end;
            }
        }
    }

    /// Announces a sleeper and returns the word that shows it.
    fn announce(&self) -> u32 {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            // At the brim the count stays: it is then far too high already.
            let announced = if word & SLEEPERS == SLEEPERS { word } else { word + 1 };
            match self.replace(word, announced) {
                Ok(()) => break self.announced(announced),
                Err(seen) => word = seen,
            }
        }
    }

    /// Makes sure that this sleeper is announced, and returns the word that shows it.
    fn keep_or_announce(&self, standing: Option<u32>) -> u32 {
        let word = self.word.load(Ordering::SeqCst);
        match standing {
            Some(announced) if same_notification(word, announced) => self.announced(word),
            _ => self.announce(),
        }
    }

    /// The look at the condition comes after the announcement, whatever loads it is made of.
    fn announced(&self, word: u32) -> u32 {
        fence(Ordering::SeqCst);
        word
    }

    /// Takes back an announcement that nobody has counted off.
    fn withdraw(&self, announced: u32) {
        let mut word = self.word.load(Ordering::SeqCst);
        while same_notification(word, announced) && word & SLEEPERS != 0 {
            match self.replace(word, word - 1) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// Sleeps for a slice at most. An error ends the wait; everything else asks for a look.
    fn sleep(&self, announced: u32, deadline: Option<Instant>) -> Result<Slept, WaitError> {
        let slice_end = Instant::now() + SLICE;
        let until = deadline.map_or(slice_end, |at| at.min(slice_end));
        match futex::wait(&self.word, announced, Some(until)) {
            Ok(()) => Ok(Slept::Woken),
            Err(FutexError::Interrupted) => Err(WaitError::Interrupted),
            Err(FutexError::TimedOut) if until != slice_end => Err(WaitError::TimedOut),
            Err(FutexError::TimedOut | FutexError::Changed) => Ok(Slept::NotWoken),
        }
    }

    fn replace(&self, from: u32, to: u32) -> Result<(), u32> {
        self.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

/// The error that ends a wait after a sleep in vain; `None` if it goes on.
fn end_in_vain(slept: Result<Slept, WaitError>) -> Option<WaitError> {
    // Before the deadline: whose time runs out in slices would never ask.
    if slice::must_leave() { Some(WaitError::Interrupted) } else { slept.err() }
}

fn same_notification(one: u32, other: u32) -> bool {
    one & !SLEEPERS == other & !SLEEPERS
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
