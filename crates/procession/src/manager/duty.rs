//! Which of a server's threads looks after the sockets.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Threads that wait for the duty at most. One more ends, so that those that many blocked requests
/// needed do not stay for ever.
const MOST_WAITING: usize = 8;

/// The duty of one thread of the server.
#[derive(Debug, Default)]
pub(super) struct Duty {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: usize,
    /// Threads that there are, those that are about to start included.
    threads: usize,
    stopped: bool,
}

impl Duty {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a thread that is about to start. False if the server has stopped.
    pub(super) fn expect_thread(&self) -> bool {
        let mut state = self.state();
        if !state.stopped {
            state.threads += 1;
        }
        !state.stopped
    }

    /// Counts a thread no more that has ended, or could not be started.
    pub(super) fn forget_thread(&self) {
        self.state().threads -= 1;
    }

    /// Blocks until it is this thread's duty; false if the thread is not needed any more.
    pub(super) fn take(&self) -> bool {
        let mut state = self.state();
        if state.taken && state.waiting >= MOST_WAITING {
            return false;
        }
        state.waiting += 1;
        while state.taken && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        let taken = !state.stopped;
        state.taken |= taken;
        taken
    }

    /// Leaves the duty to another thread. True if there is none, so that one must be started.
    pub(super) fn give_up(&self) -> bool {
        let mut state = self.state();
        state.taken = false;
        let nobody = state.waiting == 0;
        drop(state);
        self.changed.notify_one();
        nobody
    }

    /// Lets all threads end that wait for the duty or come for it.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.state().threads
    }
}
