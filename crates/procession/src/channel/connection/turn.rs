//! Whose turn it is to send on a connection, or to receive from it.
//!
//! One word: 0, or the id of the process whose thread has the turn and, in the highest bit, whether
//! another thread sleeps. A lock of the standard library would be shorter, but a signal must be
//! able to end the wait, and the child of a fork must not wait for a thread that it does not
//! have: there, the id is that of another process, and the turn is free to take.

use crate::error::WaitError;
use crate::primitive::{AtomicU32, FutexError, Ordering, futex};
use crate::sys::process;

const WAITED_FOR: u32 = 1 << 31;

/// Lets one thread of the process do something at a time.
#[derive(Debug)]
pub(super) struct Turn(AtomicU32);

/// The turn of one thread; it ends on drop.
#[derive(Debug)]
pub(super) struct Turned<'a>(&'a Turn);

impl Turn {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Blocks until it is this thread's turn.
    ///
    /// # Errors
    ///
    /// [`WaitError::Interrupted`] when a signal handler ran in this thread.
    pub(super) fn take(&self) -> Result<Turned<'_>, WaitError> {
        let me = process::getpid();
        let mut mine = me;
        loop {
            let seen = self.0.load(Ordering::Relaxed);
            if seen & !WAITED_FOR != me {
                if self.0.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    return Ok(Turned(self));
                }
                continue;
            }
            let asleep = seen | WAITED_FOR;
            let told = self.0.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed);
            if told.is_err() {
                continue;
            }
            if futex::wait(&self.0, asleep, None) == Err(FutexError::Interrupted) {
                return Err(WaitError::Interrupted);
            }
            // Others may sleep as well, and would not be woken if this thread did not say so.
            mine = me | WAITED_FOR;
        }
    }
}

impl Drop for Turned<'_> {
    fn drop(&mut self) {
        if self.0.0.swap(0, Ordering::Release) & WAITED_FOR != 0 {
            futex::wake(&self.0.0, 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU64;
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
    fn turn_of_a_thread_of_another_process_is_free() {
        let turn = Turn::new();
        // As the child of a fork finds it whose parent was sending just then.
        turn.0.store((process::getpid() + 1) | WAITED_FOR, Ordering::Relaxed);
        drop(turn.take().unwrap());
        assert_eq!(turn.0.load(Ordering::Relaxed), 0);
    }
}
