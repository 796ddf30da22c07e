//! The protocol of a lock in one process that stands for several.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::primitive::AtomicU32;
use crate::sync::grip::TRIES_PER_LOOK;

fn who(slot: u32) -> Who {
    Who::new(Member::from_raw(1 << 12 | slot).unwrap(), 1)
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(5))
}

/// `acquire` of a process that finds the others dead or alive.
fn acquire(
    lock: &LockState,
    me: Who,
    deadline: Option<Instant>,
    others_live: bool,
) -> Result<LockOutcome, WaitError> {
    let lost = |owner| owner != me.member() && !others_live;
    lock.wait(me, &SpinBudget::new(), deadline, lost)
}

#[test]
fn held_lock_keeps_others_out_and_its_holder_too() {
    let lock = LockState::new();
    assert!(lock.take(who(1)));
    assert!(!lock.take(who(1)), "it is not recursive");
    for me in [who(1), who(2)] {
        assert_eq!(acquire(&lock, me, soon(), true), Err(WaitError::TimedOut));
    }
    assert_eq!(lock.owner(), Some(who(1).member()));
    assert_eq!(lock.holder(who(1)), Holder::ThisThread);
    assert_eq!(lock.holder(Who::new(who(1).member(), 2)), Holder::OtherThread);
    assert_eq!(lock.holder(who(2)), Holder::OtherProcess);
}

#[test]
fn releasing_a_free_lock_is_an_error_and_leaves_it_free() {
    let lock = LockState::new();
    assert_eq!(lock.release(), Err(LockError::NotHeld));
    assert!(lock.take(who(1)));
    assert_eq!(lock.release(), Ok(()));
    assert_eq!(lock.release(), Err(LockError::NotHeld));
    assert_eq!(lock.holder(who(1)), Holder::Nobody);
}

#[test]
fn lock_of_a_dead_owner_is_taken_over_once() {
    let lock = LockState::new();
    assert!(lock.take(who(1)));
    let died = LockOutcome::OwnerDied(who(1).member());
    assert_eq!(acquire(&lock, who(2), None, false), Ok(died));
    assert_eq!(lock.owner(), Some(who(2).member()));
    assert_eq!(acquire(&lock, who(3), soon(), true), Err(WaitError::TimedOut));
}

#[test]
fn death_during_the_wait_is_noticed() {
    let shared = Arc::new((LockState::new(), AtomicBool::new(false)));
    assert!(shared.0.take(who(1)));
    let waiting = shared.clone();
    let waiter = thread::spawn(move || {
        let lost = |_| waiting.1.load(Ordering::SeqCst);
        waiting.0.wait(who(2), &SpinBudget::new(), None, lost)
    });
    shared.1.store(true, Ordering::SeqCst);
    let died = LockOutcome::OwnerDied(who(1).member());
    assert_eq!(waiter.join().unwrap(), Ok(died));
}

#[test]
fn claimed_lock_is_for_those_who_waited_and_nobody_else() {
    let lock = LockState::new();
    assert!(lock.take(who(1)));
    assert!(!lock.take_or_claim(who(2)));
    lock.release().unwrap();
    assert!(!lock.is_held());
    assert!(!lock.take(who(1)), "it is claimed");
    assert_eq!(lock.release(), Err(LockError::NotHeld));
    assert!(lock.take_or_claim(who(3)), "the claim is of all that waited for long");
    lock.release().unwrap();
    assert!(lock.take(who(1)), "the claim went with the one who entered");
}

#[test]
fn claim_of_the_dead_holds_nobody_up() {
    let lock = LockState::new();
    assert!(lock.take(who(1)));
    assert!(!lock.take_or_claim(who(2)));
    lock.release().unwrap();
    // Of the claimant nothing is heard any more.
    assert_eq!(acquire(&lock, who(3), None, true), Ok(LockOutcome::Acquired));
}

#[test]
fn claim_goes_with_a_waiter_that_gives_up() {
    let lock = LockState::new();
    assert!(lock.take(who(1)));
    let later = Some(Instant::now() + Duration::from_millis(10));
    assert_eq!(acquire(&lock, who(2), later, true), Err(WaitError::TimedOut));
    lock.release().unwrap();
    assert!(lock.take(who(3)), "it is still claimed");
}

#[test]
fn repeated_tries_get_past_a_dead_owner() {
    let lock = Lock::new().unwrap();
    // No slot of this test's arena has come this far.
    let dead = Member::from_raw(1 << 30 | 4000).unwrap();
    assert!(lock.grip.state.take(Who::new(dead, 1)));
    let outcome = (0..TRIES_PER_LOOK).find_map(|_| lock.try_acquire());
    assert_eq!(outcome, Some(LockOutcome::OwnerDied(dead)));
}

#[test]
fn clones_are_one_lock() {
    let lock = Lock::new().unwrap();
    let same = lock.clone();
    assert_eq!(lock.acquire(None), Ok(LockOutcome::Acquired));
    assert_eq!(same.acquire_for(Duration::ZERO), Err(WaitError::TimedOut));
    assert_eq!(same.release(), Ok(()), "anybody may release");
    assert!(!lock.is_held());
}

#[test]
fn threads_exclude_each_other() {
    const ROUNDS: u32 = 20_000;
    let lock = Lock::new().unwrap();
    // Two halves that only a holder may see differ.
    let halves = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (lock, halves) = (lock.clone(), halves.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let _: LockOutcome = lock.acquire(None).unwrap();
                    let [a, b] = halves.each_ref().map(|half| half.load(Ordering::Relaxed));
                    assert_eq!(a, b, "two hold the lock");
                    halves[0].store(a + 1, Ordering::Relaxed);
                    halves[1].store(b + 1, Ordering::Relaxed);
                    lock.release().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(halves[1].load(Ordering::Relaxed), 4 * ROUNDS);
}
