//! The threads of a manager.

use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::manager::{Server, Worker};

/// How long threads may take for what they are doing when the manager stops.
const PATIENCE: Duration = Duration::from_secs(1);

/// The threads that answer requests.
#[derive(Debug, Default)]
pub(super) struct Threads {
    running: Arc<Running>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Running {
    count: Mutex<usize>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a thread for as long as there is this.
struct Counted(Arc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.changed.notify_all();
    }
}

impl Threads {
    /// Starts one more. The server stops if there is none that could go on instead.
    pub(super) fn start(&self, server: &Server, worker: Worker) {
        *lock(&self.running.count) += 1;
        let counted = Counted(self.running.clone());
        let started = thread::Builder::new().name("manager".to_owned()).spawn(move || {
            worker.run();
            drop(counted);
        });
        match started {
            Ok(handle) => {
                let mut handles = lock(&self.handles);
                handles.retain(|handle| !handle.is_finished());
                handles.push(handle);
            }
            Err(error) if *lock(&self.running.count) > 0 => {
                tracing::warn!("the manager could not start one more thread: {error}");
            }
            Err(error) => {
                tracing::error!("the manager has no thread and stops: {error}");
                server.stop();
            }
        }
    }

    /// Waits until all have ended, but no longer than a second: what a method of the program does
    /// may take for ever. False if some go on.
    pub(super) fn wait_ended(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut count = lock(&self.running.count);
        while *count > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            count = self
                .running
                .changed
                .wait_timeout(count, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let all = *count == 0;
        drop(count);
        let handles = std::mem::take(&mut *lock(&self.handles));
        let own = thread::current().id();
        for handle in handles {
            if (all || handle.is_finished()) && handle.thread().id() != own {
                // A panic was reported when it happened.
                let _ = handle.join();
            }
        }
        all
    }
}
