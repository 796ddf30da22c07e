//! The functions of a pool, as bytes that every worker can read.
//!
//! A function is stored once and named by tasks, so a thousand tasks carry a thousand numbers and not
//! a thousand copies. It stays for as long as somebody holds a [`JobRef`]: the caller, a batch with
//! unfinished tasks, or the short list of functions that were used last.

use std::sync::Arc;

use crate::pool::transport::Transport;
use crate::shm::{ArenaError, Pins};

/// How many functions are remembered after their last use.
const REMEMBERED: usize = 32;

/// A function that workers of one pool can run.
#[derive(Debug, Clone)]
pub struct JobRef(Arc<Job>);

#[derive(Debug)]
struct Job {
    transport: Arc<dyn Transport>,
    handle: u64,
    /// Kept to recognise it; empty if it names shared objects.
    bytes: Box<[u8]>,
}

impl JobRef {
    /// The number that tasks name it by.
    pub(super) fn handle(&self) -> u64 {
        self.0.handle
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn belongs_to(&self, transport: &Arc<dyn Transport>) -> bool {
        Arc::ptr_eq(&self.0.transport, transport)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.transport.drop_job(self.handle);
    }
}

/// The functions used last, the latest at the end.
#[derive(Debug, Default)]
pub(super) struct JobCache {
    jobs: Vec<JobRef>,
}

impl JobCache {
    /// Finds a function with these bytes, or stores it.
    pub(super) fn find_or_store(
        &mut self,
        transport: &Arc<dyn Transport>,
        bytes: &[u8],
    ) -> Result<JobRef, ArenaError> {
        // Comparing lengths tells nearly all apart.
        if let Some(place) = self.jobs.iter().position(|job| *job.0.bytes == *bytes) {
            self.jobs[place..].rotate_left(1);
        } else {
            let handle = transport.store_job(bytes, &Pins::default())?;
            let job = Job { transport: Arc::clone(transport), handle, bytes: bytes.into() };
            if self.jobs.len() == REMEMBERED {
                self.jobs.remove(0);
            }
            self.jobs.push(JobRef(Arc::new(job)));
        }
        Ok(self.jobs[self.jobs.len() - 1].clone())
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }
}

/// Stores a function that names shared objects. It is not remembered: that would keep them alive.
pub(super) fn store_pinned(
    transport: &Arc<dyn Transport>,
    bytes: &[u8],
    pins: &Pins,
) -> Result<JobRef, ArenaError> {
    let handle = transport.store_job(bytes, pins)?;
    let job = Job { transport: Arc::clone(transport), handle, bytes: Box::default() };
    Ok(JobRef(Arc::new(job)))
}
