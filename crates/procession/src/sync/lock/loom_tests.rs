//! Models of the protocol of a lock, and faults planted in it.
#![allow(unsafe_code)] // Listed in SAFETY.md.

// Not loom's: dropping one while a planted fault unwinds would abort the test.
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;
use crate::slice::Pace;

fn who(slot: u32) -> Who {
    Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
}

fn acquire(lock: &LockState, me: Who) {
    lock.wait(me, &SpinBudget::new(), None, |_| false).unwrap();
}

/// As a waiter that has waited for long.
fn acquire_by_claim(lock: &LockState, me: Who) {
    let turn = Turn { lock, who: me, is_lost: |_| false };
    lock.waiters
        .wait_patiently(&SpinBudget::new(), None, Pace::new(Duration::from_secs(3600)), &turn)
        .unwrap();
}

fn release(lock: &LockState) {
    lock.release().unwrap();
}

struct Guarded {
    lock: LockState,
    value: UnsafeCell<u32>,
}

// SAFETY: the value is reached only with the lock held; loom reports it if that is not enough.
unsafe impl Sync for Guarded {}

type Acquire = fn(&LockState, Who);

impl Guarded {
    fn add_one(&self, me: Who, acquire: Acquire, release: fn(&LockState)) {
        acquire(&self.lock, me);
        self.value.with_mut(|value| {
            // SAFETY: see `Sync`.
            unsafe { *value += 1 }
        });
        release(&self.lock);
    }
}

/// Processes that each take the lock, add one to what it guards, and release it.
fn exclusion(acquires: &'static [Acquire], release: fn(&LockState)) {
    loom::model(move || {
        let value = UnsafeCell::new(0);
        let guarded = Arc::new(Guarded { lock: LockState::new(), value });
        let others: Vec<_> = (1..)
            .zip(&acquires[1..])
            .map(|(slot, acquire)| {
                let guarded = guarded.clone();
                thread::spawn(move || guarded.add_one(who(slot), *acquire, release))
            })
            .collect();
        guarded.add_one(who(0), acquires[0], release);
        others.into_iter().for_each(|other| other.join().unwrap());
        guarded.add_one(who(0), acquires[0], release);
    });
}

/// Two processes find the lock in the hands of a dead one.
fn succession(take_over: fn(&LockState, Who) -> Option<Member>) {
    loom::model(move || {
        let lock = Arc::new(LockState::new());
        assert!(lock.take(who(3)));
        let other = {
            let lock = lock.clone();
            thread::spawn(move || take_over(&lock, who(1)))
        };
        let mine = take_over(&lock, who(2));
        let successors = [mine, other.join().unwrap()];
        assert_eq!(successors.iter().flatten().count(), 1, "two hold the lock");
    });
}

fn is_lost(owner: Member) -> bool {
    owner == who(3).member()
}

#[test]
fn two_processes_exclude_each_other() {
    exclusion(&[acquire, acquire], release);
}

#[test]
fn three_processes_exclude_each_other() {
    exclusion(&[acquire, acquire, acquire], release);
}

#[test]
fn claimant_and_others_exclude_each_other_and_all_get_the_lock() {
    exclusion(&[acquire, acquire_by_claim, acquire], release);
}

#[test]
fn claimants_that_give_up_leave_the_lock_to_others() {
    loom::model(|| {
        let lock = Arc::new(LockState::new());
        assert!(lock.take(who(0)));
        let waiter = {
            let lock = lock.clone();
            thread::spawn(move || acquire(&lock, who(1)))
        };
        if lock.take_or_claim(who(2)) {
            unreachable!("it is held");
        }
        lock.release().unwrap();
        lock.unclaim();
        waiter.join().unwrap();
    });
}

#[test]
fn dead_owner_has_one_successor() {
    succession(|lock, me| lock.take_over(me, is_lost));
}

// From here on each model has a fault planted, which loom must find: it shows that the
// models above could fail.

fn acquire_in_two_steps(lock: &LockState, me: Who) {
    let take = || {
        let free = lock.word.load(Ordering::SeqCst) == 0;
        free.then(|| lock.word.store(me.raw(), Ordering::SeqCst))
    };
    lock.waiters.fresh.wait_until(&SpinBudget::new(), None, take).unwrap();
}

fn release_notifying_first(lock: &LockState) {
    lock.waiters.notify_one();
    lock.word.store(0, Ordering::SeqCst);
}

fn release_forgetting_those_who_claim(lock: &LockState) {
    lock.word.fetch_and(CLAIMED, Ordering::SeqCst);
    lock.waiters.fresh.notify(1);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn planted_acquire_in_two_steps_is_found() {
    exclusion(&[acquire_in_two_steps, acquire_in_two_steps], release);
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_notification_before_the_release_is_found() {
    exclusion(&[acquire, acquire], release_notifying_first);
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_release_without_a_word_to_claimants_is_found() {
    exclusion(&[acquire, acquire_by_claim], release_forgetting_those_who_claim);
}

#[test]
#[should_panic(expected = "two hold the lock")]
fn planted_unconditional_succession_is_found() {
    succession(|lock, me| {
        let owner = lock.owner().filter(|owner| is_lost(*owner))?;
        lock.word.store(me.raw(), Ordering::SeqCst);
        Some(owner)
    });
}
