//! Models of the protocol of a barrier, and faults planted in it.
#![allow(unsafe_code)] // Listed in SAFETY.md.

// Not loom's: dropping one while a planted fault unwinds would abort the test.
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;
use crate::sync::roster::{TestHome, test_who};

struct Model {
    state: BarrierState,
    /// What each party writes before it comes, and the others read after.
    written: [UnsafeCell<u32>; 2],
}

// SAFETY: a cell is written before the barrier and read behind it; loom reports it if that is
// not enough.
unsafe impl Sync for Model {}

type Pass = fn(&BarrierState, &TestHome, Who);

fn pass(state: &BarrierState, home: &TestHome, who: Who) {
    let spin = SpinBudget::new();
    match state.come(home, who, &spin, None).unwrap() {
        Came::Last { time } => assert!(state.let_all_go(home, who, time)),
        Came::Waiting { time, seat, .. } => {
            state.wait(home, seat, time, &spin, None).unwrap();
            state.leave(home, seat);
        }
    }
}

/// Two that come, so many times.
fn meeting(rounds: u32, pass: Pass) {
    loom::model(move || {
        let written = [UnsafeCell::new(0), UnsafeCell::new(0)];
        let model = Arc::new(Model { state: BarrierState::new(2), written });
        let party = move |model: &Model, slot: usize| {
            let (home, who) = (TestHome::of(slot as u32), test_who(slot as u32));
            model.written[slot].with_mut(|value| {
                // SAFETY: nobody reads it before this party has come.
                unsafe { *value = 1 }
            });
            for _ in 0..rounds {
                pass(&model.state, &home, who);
            }
            // SAFETY: the other party has come, and writes no more.
            let seen = model.written[1 - slot].with(|value| unsafe { *value });
            assert_eq!(seen, 1, "the other has not come");
        };
        let other = {
            let model = model.clone();
            thread::spawn(move || party(&model, 1))
        };
        party(&model, 0);
        other.join().unwrap();
    });
}

/// One that waits, and an abort.
fn abort(abort: fn(&BarrierState, &TestHome)) {
    loom::model(move || {
        let state = Arc::new(BarrierState::new(2));
        let waiter = {
            let state = state.clone();
            thread::spawn(move || {
                let (home, spin) = (TestHome::of(0), SpinBudget::new());
                let Ok(came) = state.come(&home, test_who(0), &spin, None) else { return };
                let Came::Waiting { time, seat, .. } = came else { unreachable!() };
                assert!(state.wait(&home, seat, time, &spin, None).is_err());
            })
        };
        abort(&state, &TestHome::of(1));
        waiter.join().unwrap();
    });
}

#[test]
fn two_meet_and_see_what_the_other_wrote() {
    meeting(1, pass);
}

#[test]
fn two_meet_twice() {
    meeting(2, pass);
}

#[test]
fn abort_reaches_one_that_waits() {
    abort(|state, home| state.break_it(home));
}

// From here on each model has a fault planted, which loom must find: it shows that the
// models above could fail.

fn pass_without_waiting(state: &BarrierState, home: &TestHome, who: Who) {
    let spin = SpinBudget::new();
    match state.come(home, who, &spin, None).unwrap() {
        Came::Last { time } => assert!(state.let_all_go(home, who, time)),
        Came::Waiting { seat, .. } => state.leave(home, seat),
    }
}

fn abort_without_the_seats(state: &BarrierState, home: &TestHome) {
    let _locked = state.roster.lock(home);
    state.set_phase(0, BROKEN);
}

#[test]
#[should_panic(expected = "the other has not come")]
fn planted_passage_without_the_other_is_found() {
    meeting(1, pass_without_waiting);
}

#[test]
#[should_panic(expected = "deadlock")]
fn planted_abort_that_tells_nobody_is_found() {
    abort(abort_without_the_seats);
}
