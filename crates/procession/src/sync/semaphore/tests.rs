//! Semaphores of one process.

use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn value_runs_from_its_start_to_its_maximum() {
    let semaphore = Semaphore::bounded(1, 2).unwrap();
    semaphore.release().unwrap();
    let above = semaphore.release();
    assert!(matches!(above, Err(SemaphoreError::AboveMaximum { maximum: 2 })));
    assert!(semaphore.try_acquire() && semaphore.try_acquire());
    assert!(!semaphore.try_acquire(), "there were only two");
    assert_eq!((semaphore.value(), semaphore.maximum()), (0, 2));
}

#[test]
fn start_above_the_maximum_is_refused() {
    let cases =
        [Semaphore::bounded(3, 2), Semaphore::new(u32::MAX), Semaphore::bounded(0, u32::MAX)];
    for refused in cases {
        assert!(matches!(refused, Err(SemaphoreError::AboveMaximum { .. })));
    }
}

#[test]
fn claim_keeps_one_for_whoever_waited_for_long() {
    let semaphore = Semaphore::new(0).unwrap();
    assert_eq!(semaphore.state.take_or_claim(), None);
    semaphore.release().unwrap();
    assert!(!semaphore.try_acquire(), "it is claimed");
    semaphore.release().unwrap();
    assert!(semaphore.try_acquire(), "only one of the two is claimed");
    assert_eq!(semaphore.value(), 1);
    assert_eq!(semaphore.state.take_or_claim(), Some(()));
    semaphore.release().unwrap();
    assert!(semaphore.try_acquire(), "the claim went with the one who entered");
}

#[test]
fn claim_of_the_dead_holds_nobody_up() {
    let semaphore = Semaphore::new(0).unwrap();
    assert_eq!(semaphore.state.take_or_claim(), None);
    semaphore.release().unwrap();
    // Of the claimant nothing is heard any more.
    assert_eq!(semaphore.acquire(None), Ok(()));
}

#[test]
fn acquire_gives_up_at_its_deadline() {
    let semaphore = Semaphore::new(0).unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        let deadline = Some(Instant::now() + wait);
        assert_eq!(semaphore.acquire(deadline), Err(WaitError::TimedOut));
    }
}

#[test]
fn every_release_lets_one_thread_through() {
    const ROUNDS: u32 = 20_000;
    let (full, empty) = (Semaphore::new(0).unwrap(), Semaphore::new(4).unwrap());
    let takers: Vec<_> = (0..2)
        .map(|_| {
            let (full, empty) = (full.clone(), empty.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    full.acquire(None).unwrap();
                    empty.release().unwrap();
                }
            })
        })
        .collect();
    for _ in 0..2 * ROUNDS {
        empty.acquire(None).unwrap();
        full.release().unwrap();
    }
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    assert_eq!((full.value(), empty.value()), (0, 4));
}
