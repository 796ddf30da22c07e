//! Models of the protocol of a condition, and faults planted in it.

// Not loom's: dropping one while a planted fault unwinds would abort the test.
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::primitive::{AtomicU32, Ordering};
use crate::sync::grip::Takeable;
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
