//! What tests do to workers that they kill in the middle of their work.

use std::hint::black_box;

use procession::process::{JoinError, JoinHandle};

/// Keeps the process busy for a moment, without sleeping.
pub(crate) fn work(rounds: usize) {
    black_box((0..rounds as u64).fold(0, |sum, number| black_box(sum ^ number)));
}

/// Keeps the process busy for a moment that differs from kill to kill, of fewer rounds than `most`.
pub(crate) fn work_before_kill(number: usize, most: usize) {
    work(number * 7919 % most);
}

/// Kills a worker, and fails unless that is what it died of. Blocks until it has ended.
pub(crate) fn kill(worker: JoinHandle<()>) {
    worker.kill().unwrap();
    match worker.join() {
        Err(JoinError::Died { status, .. } | JoinError::NeverStarted { status, .. }) => {
            assert_eq!(status.signal(), Some(9), "a worker died by itself");
        }
        Err(other) => panic!("a worker failed: {other}"),
        Ok(()) => panic!("a worker stopped before it was told to"),
    }
}
