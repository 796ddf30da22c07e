//! Barriers of one process, and of others that are said to be dead.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;
use crate::sync::roster::{TestHome, test_who};

fn come<'a>(state: &'a BarrierState, home: &'a TestHome, slot: u32) -> Came<'a> {
    state.come(home, test_who(slot), &SpinBudget::new(), None).unwrap()
}

/// One that has to wait.
fn wait<'a>(state: &'a BarrierState, home: &'a TestHome, slot: u32) -> (&'a Seat, u64) {
    match come(state, home, slot) {
        Came::Waiting { seat, time, .. } => (seat, time),
        Came::Last { .. } => panic!("all have come"),
    }
}

/// How the wait of a seat ends that was told something.
fn end(state: &BarrierState, home: &TestHome, seat: &Seat) -> Result<(), BarrierError> {
    state.wait(home, seat, 0, &SpinBudget::new(), None)
}

#[test]
fn all_go_on_when_all_have_come_time_after_time() {
    const PARTIES: u32 = 4;
    const ROUNDS: usize = 200;
    let barrier = Barrier::new(PARTIES).unwrap();
    let actions = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..PARTIES)
        .map(|_| {
            let (barrier, actions) = (barrier.clone(), actions.clone());
            thread::spawn(move || {
                let mut sum = 0;
                for round in 0..ROUNDS {
                    let act = || {
                        assert_eq!(actions.fetch_add(1, Ordering::SeqCst), round);
                    };
                    sum += barrier.wait_with(None, act).unwrap();
                    assert!(actions.load(Ordering::SeqCst) > round, "before all had come");
                }
                sum
            })
        })
        .collect();
    let sum: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(sum, ROUNDS * (1 + 2 + 3), "the places are not 0 to 3 each time");
    assert_eq!((barrier.waiters(), barrier.is_broken()), (0, false));
}

#[test]
fn barrier_for_nobody_is_refused() {
    assert!(matches!(Barrier::new(0), Err(BarrierError::NoParties)));
    assert_eq!(Barrier::new(1).unwrap().wait(None).unwrap(), 0);
}

#[test]
fn one_whose_time_runs_out_breaks_it_until_it_is_reset() {
    let barrier = Barrier::new(2).unwrap();
    let late = barrier.wait_for(Duration::from_millis(5));
    assert!(matches!(late, Err(BarrierError::TimedOut)));
    assert!(barrier.is_broken());
    assert!(matches!(barrier.wait(None), Err(BarrierError::Broken)));
    barrier.reset();
    assert!(!barrier.is_broken());
    let other = {
        let barrier = barrier.clone();
        thread::spawn(move || barrier.wait(None))
    };
    barrier.wait(None).unwrap();
    other.join().unwrap().unwrap();
}

#[test]
fn abort_and_reset_send_those_who_wait_away() {
    for (end_it, broken) in [(Barrier::abort as fn(&Barrier), true), (Barrier::reset, false)] {
        let barrier = Barrier::new(3).unwrap();
        let places = [(); 2].map(|()| match barrier.come(None).unwrap() {
            Arrival::Waiting(place) => place,
            Arrival::Last(_) => panic!("there should be three"),
        });
        assert_eq!(barrier.waiters(), 2);
        end_it(&barrier);
        for place in places {
            assert!(matches!(place.wait(None), Err(BarrierError::Broken)));
        }
        assert_eq!((barrier.waiters(), barrier.is_broken()), (0, broken));
    }
}

#[test]
fn action_that_panics_breaks_it() {
    let barrier = Barrier::new(2).unwrap();
    let Arrival::Waiting(place) = barrier.come(None).unwrap() else { panic!("too early") };
    let elsewhere = barrier.clone();
    let last = thread::spawn(move || elsewhere.wait_with(None, || panic!("on purpose")));
    assert!(last.join().is_err());
    assert!(matches!(place.wait(None), Err(BarrierError::Broken)));
    assert!(barrier.is_broken());
}

#[test]
fn one_that_leaves_is_not_counted_any_more() {
    let barrier = Barrier::new(2).unwrap();
    drop(barrier.come(None).unwrap());
    assert_eq!((barrier.waiters(), barrier.is_broken()), (0, false));
    assert!(matches!(barrier.come(None).unwrap(), Arrival::Waiting(_)));
}

#[test]
fn death_of_one_that_waits_is_seen_by_its_neighbour() {
    let (state, home) = (BarrierState::new(4), TestHome::of(1));
    home.bury(3);
    let [first, second, third] = [1, 2, 3].map(|slot| wait(&state, &home, slot));
    // The first looks after the second, which looks after the third.
    let around = |(seat, time): (&Seat, u64)| state.look_around(&home, seat, time, false);
    assert!(around(first).is_none() && first.0.is_waiting());
    assert!(around(second).is_none());
    for (seat, _) in [first, second, third] {
        assert!(matches!(end(&state, &home, seat), Err(BarrierError::Broken)));
    }
    assert_eq!(state.phase() & PHASE, BROKEN);
}

#[test]
fn death_of_the_last_is_seen_by_those_who_wait_and_those_who_come() {
    let home = TestHome::of(1);
    home.bury(2);
    for waits in [true, false] {
        let state = BarrierState::new(if waits { 2 } else { 1 });
        let waiting = waits.then(|| wait(&state, &home, 1));
        assert!(matches!(come(&state, &home, 2), Came::Last { .. }));
        match waiting {
            Some((seat, time)) => {
                assert!(state.look_around(&home, seat, time, true).is_none());
                assert!(matches!(end(&state, &home, seat), Err(BarrierError::Broken)));
            }
            None => {
                let refused = state.come(&home, test_who(3), &SpinBudget::new(), None);
                assert!(matches!(refused, Err(BarrierError::Broken)));
            }
        }
    }
}

#[test]
fn break_that_was_cut_short_is_found_out() {
    let (state, home) = (BarrierState::new(2), TestHome::of(1));
    let (seat, time) = wait(&state, &home, 1);
    state.set_phase(time, BROKEN);
    let found = state.look_around(&home, seat, time, false);
    assert!(matches!(found, Some(Err(BarrierError::Broken))));
}

#[test]
fn last_one_does_not_let_anybody_go_after_a_reset() {
    let (state, home) = (BarrierState::new(2), TestHome::of(1));
    wait(&state, &home, 1);
    let Came::Last { time } = come(&state, &home, 2) else { panic!("all have come") };
    state.reset(&home);
    let (fresh, _) = wait(&state, &home, 3);
    assert!(!state.let_all_go(&home, test_who(2), time));
    assert!(fresh.is_waiting(), "it came after the reset");
}
