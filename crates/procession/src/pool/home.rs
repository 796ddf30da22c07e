//! Which process a pool belongs to.
//!
//! A forked child has a copy of its parent's pool object. It must not touch it: the workers, the
//! results and the pool's thread are the parent's.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pool::error::PoolError;
use crate::sys::process;

/// How many forks lie between this process and the start of its image. Asking the system for the
/// process id costs as much as submitting a task does.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that made something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    forks: u64,
    pid: u32,
}

impl Home {
    /// This process.
    pub(super) fn here() -> Self {
        static WATCHING: Once = Once::new();
        WATCHING.call_once(|| process::on_fork_child(count_fork));
        Self { forks: FORKS.load(Ordering::Relaxed), pid: process::getpid() }
    }

    /// Whether this process is the one.
    pub(super) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }

    pub(super) fn check(self) -> Result<(), PoolError> {
        if self.is_here() { Ok(()) } else { Err(PoolError::WrongProcess { owner: self.pid }) }
    }
}

/// Runs in a child right after `fork`.
extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
