//! Whose turn it is to send on a connection, or to receive from it.
//!
//! One word: 0, or the id of the process whose thread has the turn and, in the highest bit, whether
//! another thread sleeps. A lock of the standard library would be shorter, but a signal must be
//! able to end the wait, and the child of a fork must not wait for a thread that it does not
//! have: there, the id is that of another process, and the turn is free to take.
//!
//! A thread that has the turn may want it once more: a signal handler of Python's, which runs
//! between two steps of a send, sends on the same connection. Waiting would be for ever, and going
//! ahead would mix the messages. So the thread is noted as well, by the address of a variable that
//! each has of its own, and is refused.

use crate::primitive::{AtomicU32, AtomicU64, FutexError, Ordering, futex};
use crate::slice;
use crate::sys::process;

const WAITED_FOR: u32 = 1 << 31;

thread_local! {
    static MARK: u8 = const { 0 };
}

/// A number that no other thread has which lives at the same time.
fn this_thread() -> u64 {
    MARK.with(|mark| std::ptr::from_ref(mark).addr() as u64)
}

/// Why it did not become this thread's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnError {
    /// A signal handler ran in this thread.
    Interrupted,
    /// It is this thread's turn already.
    Mine,
}

/// Lets one thread of the process do something at a time.
#[derive(Debug)]
pub(super) struct Turn {
    word: AtomicU32,
    /// The thread that has the turn; 0 where it has not been noted yet, and when nobody has it.
    thread: AtomicU64,
}

/// The turn of one thread; it ends on drop.
#[derive(Debug)]
pub(super) struct Turned<'a>(&'a Turn);

impl Turn {
    pub(super) fn new() -> Self {
        Self { word: AtomicU32::new(0), thread: AtomicU64::new(0) }
    }

    /// Blocks until it is this thread's turn.
    ///
    /// # Errors
    ///
    /// [`TurnError`] has one variant for each.
    pub(super) fn take(&self) -> Result<Turned<'_>, TurnError> {
        let me = process::own_id();
        let mut mine = me;
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & !WAITED_FOR != me {
                let taken =
                    self.word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed);
                if taken.is_ok() {
                    self.thread.store(this_thread(), Ordering::Relaxed);
                    return Ok(Turned(self));
                }
                continue;
            }
            // What another thread notes cannot be taken for this one.
            if self.thread.load(Ordering::Relaxed) == this_thread() {
                return Err(TurnError::Mine);
            }
            let asleep = seen | WAITED_FOR;
            let told =
                self.word.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed);
            if told.is_err() {
                continue;
            }
            let slept = futex::wait(&self.word, asleep, slice::slice_end(None));
            if slept == Err(FutexError::Interrupted) || slice::must_leave() {
                return Err(TurnError::Interrupted);
            }
            // Others may sleep as well, and would not be woken if this thread did not say so.
            mine = me | WAITED_FOR;
        }
    }
}

impl Drop for Turned<'_> {
    fn drop(&mut self) {
        self.0.thread.store(0, Ordering::Relaxed);
        if self.0.word.swap(0, Ordering::Release) & WAITED_FOR != 0 {
            futex::wake(&self.0.word, 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_has_the_turn_at_a_time() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 2000;
        let (turn, counter) = (Turn::new(), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let _turned = turn.take().unwrap();
                        // Two steps: another thread in between would be lost.
                        let seen = counter.load(Ordering::Relaxed);
                        thread::yield_now();
                        counter.store(seen + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(counter.into_inner(), THREADS * ROUNDS);
    }

    #[test]
    fn thread_that_has_the_turn_is_refused_another_one() {
        let turn = Turn::new();
        for _ in 0..2 {
            let turned = turn.take().unwrap();
            assert_eq!(turn.take().unwrap_err(), TurnError::Mine);
            drop(turned);
        }
        drop(turn.take().unwrap());
    }

    #[test]
    fn turn_of_a_thread_of_another_process_is_free() {
        let turn = Turn::new();
        // As the child of a fork finds it whose parent was sending just then.
        turn.word.store((process::getpid() + 1) | WAITED_FOR, Ordering::Relaxed);
        drop(turn.take().unwrap());
        assert_eq!(turn.word.load(Ordering::Relaxed), 0);
    }
}
