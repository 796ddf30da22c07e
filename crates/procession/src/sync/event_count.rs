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
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::primitive::AtomicU64;

    /// Only a deadlock takes this long.
    const DEADLOCK: Duration = Duration::from_secs(30);

    fn sleepers(event: &EventCount) -> u32 {
        event.word.load(Ordering::SeqCst) & SLEEPERS
    }

    #[test]
    fn deadline_in_the_past_means_a_single_look() {
        let event = EventCount::new();
        let mut looks = 0;
        let result = event.wait_until(&SpinBudget::new(), Some(Instant::now()), || {
            looks += 1;
            None::<()>
        });
        assert_eq!((result, looks), (Err(WaitError::TimedOut), 1));
    }

    #[test]
    fn condition_is_looked_at_even_after_the_deadline() {
        let event = EventCount::new();
        let past = Some(Instant::now());
        assert_eq!(event.wait_until(&SpinBudget::new(), past, || Some(5)), Ok(5));
    }

    #[test]
    fn timed_out_waiter_leaves_no_announcement() {
        let event = EventCount::new();
        let soon = Instant::now() + Duration::from_millis(5);
        let result = event.wait_until(&SpinBudget::new(), Some(soon), || None::<()>);
        assert_eq!(result, Err(WaitError::TimedOut));
        assert!(Instant::now() >= soon, "gave up before the deadline");
        assert_eq!(sleepers(&event), 0, "the next notification would make a system call");
    }

    #[test]
    fn waiter_that_must_leave_does_so_without_a_trace() {
        let event = EventCount::new();
        let soon = Instant::now() + Duration::from_millis(5);
        slice::testing::answer(true);
        let result = event.wait_until(&SpinBudget::new(), Some(soon), || None::<()>);
        assert_eq!(result, Err(WaitError::Interrupted));
        assert_eq!(sleepers(&event), 0, "the next notification would make a system call");
        let result = event.wait_until(&SpinBudget::new(), Some(soon), || None::<()>);
        assert_eq!(result, Err(WaitError::TimedOut), "the deadline is as it was");
    }

    #[test]
    fn waiter_that_must_leave_takes_what_came_meanwhile() {
        let event = EventCount::new();
        slice::testing::answer(true);
        let mut looks = 0;
        let result = event.park(Some(Instant::now()), || {
            looks += 1;
            (looks == 2).then_some(5)
        });
        assert_eq!(result, Ok(5));
    }

    #[test]
    fn notification_clears_announcements_of_the_dead() {
        let event = EventCount::new();
        for _ in 0..1000 {
            event.announce();
        }
        event.notify(1);
        assert_eq!(sleepers(&event), 0, "each of them would cost a system call");
    }

    #[test]
    fn sleeper_count_stops_at_its_brim() {
        let event = EventCount::new();
        event.word.store(SLEEPERS, Ordering::SeqCst);
        assert_eq!(event.announce(), SLEEPERS, "the count ran over into the notifications");
    }

    #[test]
    fn notification_number_wraps_without_touching_the_count() {
        let event = EventCount::new();
        event.word.store(!SLEEPERS | 3, Ordering::SeqCst);
        assert_eq!(event.count_off(2), Some((1, 2)));
    }

    #[test]
    fn every_notification_reaches_a_sleeper() {
        const ITEMS: u64 = 20_000;
        const CONSUMERS: usize = 4;
        let shared = Arc::new((AtomicU64::new(0), EventCount::new()));
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || consume(&shared, ITEMS / CONSUMERS as u64))
            })
            .collect();
        for _ in 0..ITEMS {
            shared.0.fetch_add(1, Ordering::SeqCst);
            shared.1.notify(1);
        }
        for consumer in consumers {
            consumer.join().unwrap();
        }
        assert_eq!(shared.0.load(Ordering::SeqCst), 0);
    }

    fn consume((items, event): &(AtomicU64, EventCount), count: u64) {
        let spin = SpinBudget::new();
        for _ in 0..count {
            let deadline = Some(Instant::now() + DEADLOCK);
            let take = || {
                let update = |items: u64| items.checked_sub(1);
                items.fetch_update(Ordering::SeqCst, Ordering::SeqCst, update).ok()
            };
            event.wait_until(&spin, deadline, take).expect("an item was put and none came");
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    // Not loom's: dropping one while a planted fault unwinds would abort the test.
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// A counter of items with an event count beside it: the smallest thing that waits.
    struct Items {
        count: AtomicU32,
        event: EventCount,
    }

    impl Items {
        fn new() -> Arc<Self> {
            Arc::new(Self { count: AtomicU32::new(0), event: EventCount::new() })
        }

        fn put(&self) {
            self.count.fetch_add(1, Ordering::SeqCst);
            self.event.notify(1);
        }

        fn try_take(&self) -> Option<()> {
            let mut count = self.count.load(Ordering::SeqCst);
            while count > 0 {
                let order = Ordering::SeqCst;
                match self.count.compare_exchange(count, count - 1, order, order) {
                    Ok(_) => return Some(()),
                    Err(seen) => count = seen,
                }
            }
            None
        }

        fn take(&self) {
            self.event.wait_until(&SpinBudget::new(), None, || self.try_take()).unwrap();
        }
    }

    /// Runs `action` in a thread of its own.
    fn in_thread(items: &Arc<Items>, action: fn(&Items)) -> thread::JoinHandle<()> {
        let items = items.clone();
        thread::spawn(move || action(&items))
    }

    /// One sleeper, and a notifier that may take its item back before the sleeper sees it.
    fn stolen_item(taker: fn(&Items), put: fn(&Items)) {
        loom::model(move || {
            let items = Items::new();
            let sleeper = in_thread(&items, taker);
            put(&items);
            if items.try_take().is_some() {
                put(&items);
            }
            sleeper.join().unwrap();
        });
    }

    /// One sleeper that comes twice, for two items.
    fn one_and_two(taker: fn(&Items), put: fn(&Items)) {
        loom::model(move || {
            let items = Items::new();
            let both = items.clone();
            let sleeper = thread::spawn(move || {
                taker(&both);
                taker(&both);
            });
            put(&items);
            put(&items);
            sleeper.join().unwrap();
        });
    }

    /// Two sleepers, two items.
    fn two_and_two(taker: fn(&Items), put: fn(&Items)) {
        loom::model(move || {
            let items = Items::new();
            let sleepers = [in_thread(&items, taker), in_thread(&items, taker)];
            put(&items);
            put(&items);
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        });
    }

    /// Two sleepers, and the first item is there before its notification.
    fn late_notification(taker: fn(&Items)) {
        loom::model(move || {
            let items = Items::new();
            items.count.store(1, Ordering::SeqCst);
            let sleeper = in_thread(&items, Items::take);
            let notifier = in_thread(&items, |items| {
                items.event.notify(1);
                items.put();
            });
            taker(&items);
            sleeper.join().unwrap();
            notifier.join().unwrap();
        });
    }

    #[test]
    fn no_sleeper_sleeps_through_a_notification() {
        stolen_item(Items::take, Items::put);
    }

    #[test]
    fn sleeper_that_comes_back_is_notified_again() {
        one_and_two(Items::take, Items::put);
    }

    #[test]
    fn two_notifications_reach_two_sleepers() {
        two_and_two(Items::take, Items::put);
    }

    #[test]
    fn sleeper_that_leaves_takes_back_only_its_own_announcement() {
        late_notification(Items::take);
    }

    // From here on each model has a fault planted, which loom must find: it shows that the
    // models above could fail.

    fn take_without_a_second_look(items: &Items) {
        while items.try_take().is_none() {
            let announced = items.event.announce();
            items.event.sleep(announced, None).unwrap();
        }
    }

    fn take_withdrawing_whatever_is_there(items: &Items) {
        loop {
            let announced = items.event.announce();
            if items.try_take().is_some() {
                return items.event.withdraw(items.event.word.load(Ordering::SeqCst));
            }
            items.event.sleep(announced, None).unwrap();
        }
    }

    fn put_looking_for_sleepers_first(items: &Items) {
        let sleepers = items.event.word.load(Ordering::SeqCst) & SLEEPERS;
        items.count.fetch_add(1, Ordering::SeqCst);
        if sleepers != 0 {
            items.event.notify(1);
        }
    }

    fn put_without_a_new_number(items: &Items) {
        items.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let word = items.event.word.load(Ordering::SeqCst);
        if word & SLEEPERS != 0 {
            items.event.word.fetch_sub(1, Ordering::SeqCst);
            futex::wake(&items.event.word, 1);
        }
    }

    fn put_clearing_whatever_is_there(items: &Items) {
        items.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if items.event.count_off(1).is_some() && futex::wake(&items.event.word, 1) == 0 {
            items.event.word.fetch_and(!SLEEPERS, Ordering::SeqCst);
        }
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_no_second_look_is_found() {
        stolen_item(take_without_a_second_look, Items::put);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_withdrawal_of_anothers_announcement_is_found() {
        late_notification(take_withdrawing_whatever_is_there);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_look_for_sleepers_first_is_found() {
        stolen_item(Items::take, put_looking_for_sleepers_first);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_unchanged_number_is_found() {
        two_and_two(Items::take, put_without_a_new_number);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn planted_clearing_of_anothers_announcement_is_found() {
        one_and_two(Items::take, put_clearing_whatever_is_there);
    }
}
