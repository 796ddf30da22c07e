//! Event counts of one process: announcements, deadlines, and threads that wait.

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
