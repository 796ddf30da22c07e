//! Models of the protocol of an event count, and faults planted in it.

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
