//! Models of the protocol of a semaphore, and faults planted in it.

// Not loom's: dropping one while a planted fault unwinds would abort the test.
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::slice::Pace;

fn acquire(semaphore: &SemaphoreState) {
    semaphore.wait(&SpinBudget::new(), None).unwrap();
}

/// As a waiter that has waited for long.
fn acquire_by_claim(semaphore: &SemaphoreState) {
    semaphore
        .waiters
        .wait_patiently(&SpinBudget::new(), None, Pace::new(Duration::from_secs(3600)), semaphore)
        .unwrap();
}

fn release(semaphore: &SemaphoreState) -> bool {
    semaphore.release().is_ok()
}

/// Two that acquire, and two releases for them.
fn passage(acquires: [fn(&SemaphoreState); 2], release: fn(&SemaphoreState) -> bool) {
    loom::model(move || {
        let semaphore = Arc::new(SemaphoreState::new(0, 2));
        let both = acquires.map(|acquire| {
            let semaphore = semaphore.clone();
            thread::spawn(move || acquire(&semaphore))
        });
        assert!(release(&semaphore) && release(&semaphore));
        both.into_iter().for_each(|one| one.join().unwrap());
        let left = semaphore.value.load(Ordering::SeqCst) & !CLAIMED;
        assert_eq!(left, 0, "one came in too many");
    });
}

/// Two releases where there is room for one.
fn overflow(release: fn(&SemaphoreState) -> bool) {
    loom::model(move || {
        let semaphore = Arc::new(SemaphoreState::new(1, 2));
        let other = semaphore.clone();
        let other = thread::spawn(move || release(&other));
        let released = [release(&semaphore), other.join().unwrap()];
        assert!(released[0] != released[1], "the value exceeds its maximum");
    });
}

#[test]
fn every_release_lets_one_through() {
    passage([acquire, acquire], release);
}

#[test]
fn claimant_and_another_are_both_let_through() {
    passage([acquire, acquire_by_claim], release);
}

#[test]
fn one_of_two_releases_meets_the_maximum() {
    overflow(release);
}

// From here on each model has a fault planted, which loom must find: it shows that the
// models above could fail.

fn acquire_in_two_steps(semaphore: &SemaphoreState) {
    let take = || {
        let value = semaphore.value.load(Ordering::SeqCst);
        (value > 0).then(|| semaphore.value.store(value - 1, Ordering::SeqCst))
    };
    semaphore.waiters.fresh.wait_until(&SpinBudget::new(), None, take).unwrap();
}

fn release_notifying_first(semaphore: &SemaphoreState) -> bool {
    semaphore.waiters.notify_one();
    semaphore.value.fetch_add(1, Ordering::SeqCst);
    true
}

fn release_in_two_steps(semaphore: &SemaphoreState) -> bool {
    let room = semaphore.value.load(Ordering::SeqCst) < 2;
    if room {
        semaphore.value.fetch_add(1, Ordering::SeqCst);
        semaphore.waiters.notify_one();
    }
    room
}

#[test]
#[should_panic(expected = "one came in too many")]
fn planted_acquire_in_two_steps_is_found() {
    passage([acquire_in_two_steps; 2], release);
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_notification_before_the_release_is_found() {
    passage([acquire; 2], release_notifying_first);
}

#[test]
#[should_panic(expected = "the value exceeds its maximum")]
fn planted_release_in_two_steps_is_found() {
    overflow(release_in_two_steps);
}
