//! Conditions of one process, and of others that are said to be dead.

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
    let seats: Vec<_> = (1..=3).map(|slot| state.enter(&home, test_who(slot)).unwrap()).collect();
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
