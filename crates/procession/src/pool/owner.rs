//! The owner's side of a pool, in bytes.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::pool::batch::{Batch, Callback, Goal, Next, Order};
use crate::pool::core::{Core, Phase, lock};
use crate::pool::error::{LaunchError, PoolError};
use crate::pool::frames::Frames;
use crate::pool::job::{self, JobRef};
use crate::pool::outcome::Outcome;
use crate::pool::supervisor::Supervisor;
use crate::pool::transport::{ArenaTransport, Transport, WorkerBoot};
use crate::primitive::Ordering;
use crate::process::Child;
use crate::shm::Pins;

/// How to set up a [`RawPool`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of worker processes, at least 1.
    pub workers: usize,
    /// How many times a task is submitted again after the worker that ran it died.
    pub retries: u32,
}

impl Options {
    /// A pool of so many workers that runs no task twice.
    pub fn new(workers: usize) -> Self {
        Self { workers, retries: 0 }
    }
}

/// Starts the workers of a pool.
pub trait Launcher: Send + Sync {
    /// Starts a process that will give `boot` to [`serve`](super::raw::serve).
    ///
    /// Called by [`RawPool::start`] for the first workers, and on the pool's thread for those that
    /// replace a dead one.
    ///
    /// # Errors
    ///
    /// Whatever keeps the process from being started. Three in a row break a running pool.
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError>;
}

/// A worker that was started.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub child: Child,
    /// What to call it in errors.
    pub name: String,
}

/// What a pool is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolStatus {
    /// How far it has come.
    pub phase: Phase,
    /// How many tasks have no outcome yet.
    pub pending: usize,
    /// How many workers were started in place of one that ended.
    pub restarts: u64,
}

/// A pool of worker processes that run tasks given as bytes.
///
/// Dropping it terminates it, and blocks until the workers are gone. In a forked child it does nothing,
/// and every call is an error.
pub struct RawPool {
    core: Arc<Core>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl RawPool {
    /// Starts the workers and the pool's thread.
    ///
    /// Does not wait until the workers are ready.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NoWorkers`] when none are asked for.
    /// - [`PoolError::Launch`] when one of the workers cannot be started; the others are ended.
    /// - [`PoolError::Arena`] and [`PoolError::Os`] when there is no room, or the system refuses.
    pub fn start(options: Options, launcher: Box<dyn Launcher>) -> Result<Self, PoolError> {
        if options.workers == 0 {
            return Err(PoolError::NoWorkers);
        }
        let transport: Arc<dyn Transport> = Arc::new(ArenaTransport::new()?);
        let core = Arc::new(Core::new(transport, options.workers, options.retries)?);
        let supervisor = Supervisor::launch_all(Arc::clone(&core), launcher)?;
        Ok(Self { core, thread: Mutex::new(Some(supervisor.start()?)) })
    }

    /// Returns the number of workers that the pool keeps up.
    pub fn workers(&self) -> usize {
        self.core.workers
    }

    /// Returns the process ids of the workers that live just now.
    pub fn worker_pids(&self) -> Vec<u32> {
        if self.core.home.is_here() { lock(&self.core.pids).clone() } else { Vec::new() }
    }

    /// Makes a function known to the workers, as the bytes that their runner understands.
    ///
    /// The same bytes again give the same job, if it was used not long ago. `pins` belong to bytes
    /// that name shared objects.
    ///
    /// # Errors
    ///
    /// [`PoolError::Arena`] when there is no room; otherwise as [`batch`](Self::batch).
    pub fn register_job(&self, bytes: &[u8], pins: Option<Pins>) -> Result<JobRef, PoolError> {
        self.check_open()?;
        let transport = &self.core.transport;
        let job = match pins {
            Some(pins) if !pins.is_empty() => job::store_pinned(transport, bytes, &pins),
            _ => lock(&self.core.jobs).find_or_store(transport, bytes),
        };
        Ok(job?)
    }

    /// Begins a batch, to which tasks are then submitted.
    ///
    /// # Errors
    ///
    /// - [`PoolError::Closed`] and [`PoolError::Broken`] when the pool takes no tasks.
    /// - [`PoolError::WrongProcess`] in a forked child.
    pub fn batch(&self, order: Order) -> Result<RawBatch, PoolError> {
        self.check_open()?;
        let batch = self.core.add_batch(order);
        Ok(RawBatch { core: Arc::clone(&self.core), batch, submitting: Mutex::new(()) })
    }

    /// Takes in what the workers have finished, without waiting.
    pub fn drain(&self) {
        if self.core.home.is_here() {
            self.core.drain();
        }
    }

    /// Returns what the pool is doing.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn status(&self) -> Result<PoolStatus, PoolError> {
        self.core.home.check()?;
        self.core.drain();
        Ok(PoolStatus {
            phase: self.core.phase(),
            pending: self.core.pending(),
            restarts: self.core.restarts.load(Ordering::Relaxed),
        })
    }

    /// Takes no more tasks; the workers exit when those at hand are done.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn close(&self) -> Result<(), PoolError> {
        self.core.home.check()?;
        self.core.close();
        Ok(())
    }

    /// Ends the workers, by force if they do not go soon, and blocks until they are gone. Unfinished
    /// tasks are lost. Inside a callback of the pool it does not block.
    ///
    /// # Errors
    ///
    /// - [`PoolError::WrongProcess`] in a forked child.
    /// - [`PoolError::Interrupted`] when a signal handler ran. The workers are being ended all the
    ///   same; call again to wait for that.
    pub fn terminate(&self) -> Result<(), PoolError> {
        self.core.home.check()?;
        self.core.end(Phase::Terminated);
        self.wait_finished(None)
    }

    /// Blocks until all workers of a closed or terminated pool have ended. Inside a callback of the pool
    /// it does not block.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NotClosed`] when the pool still takes tasks.
    /// - [`PoolError::TimedOut`] when `deadline` passes first; `None` waits for ever.
    /// - [`PoolError::Interrupted`] when a signal handler ran. Nothing has changed.
    /// - [`PoolError::WrongProcess`] in a forked child.
    pub fn join(&self, deadline: Option<Instant>) -> Result<(), PoolError> {
        self.core.home.check()?;
        if matches!(self.core.phase(), Phase::Running) {
            return Err(PoolError::NotClosed);
        }
        self.wait_finished(deadline)
    }

    fn wait_finished(&self, deadline: Option<Instant>) -> Result<(), PoolError> {
        if self.is_own_thread() {
            return Ok(());
        }
        self.core.wait_finished(deadline)?;
        lock(&self.core.jobs).clear();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // It has nothing left to do; a panic in it was printed.
            let _ = thread.join();
        }
        Ok(())
    }

    /// Whether this is a callback, which the pool's thread cannot run and finish at the same time.
    fn is_own_thread(&self) -> bool {
        let thread = lock(&self.thread);
        thread.as_ref().is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    fn check_open(&self) -> Result<(), PoolError> {
        self.core.home.check()?;
        self.core.check_open()
    }
}

impl Drop for RawPool {
    fn drop(&mut self) {
        if !self.core.home.is_here() {
            // What it holds is the parent's.
            std::mem::forget(Arc::clone(&self.core));
            return;
        }
        // Signals cannot keep it from ending; the wait is bounded by the pool's thread.
        while let Err(PoolError::Interrupted) = self.terminate() {}
    }
}

impl fmt::Debug for RawPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawPool").field("workers", &self.core.workers).finish_non_exhaustive()
    }
}

/// Tasks of one pool whose outcomes are collected together.
///
/// Dropping it throws away the outcomes that were not taken, also those to come; the tasks are run
/// nevertheless.
pub struct RawBatch {
    core: Arc<Core>,
    batch: Arc<Batch>,
    /// Held for the whole of a submission, so that an interrupted one can be taken back.
    submitting: Mutex<()>,
}

impl RawBatch {
    /// Submits the tasks in `frames` and empties it. Their numbers follow those submitted before.
    ///
    /// Blocks only while the arena is full and other tasks of the pool are under way.
    ///
    /// # Errors
    ///
    /// - [`PoolError::Closed`] and [`PoolError::Broken`] when the pool takes no tasks.
    /// - [`PoolError::Arena`] when the tasks do not fit into the arena. `frames` then holds those that
    ///   were not submitted.
    /// - [`PoolError::Interrupted`] when a signal handler ran while it was blocked. Call again with the
    ///   same `frames` to go on.
    /// - [`PoolError::WrongProcess`] in a forked child.
    ///
    /// # Panics
    ///
    /// Panics if the function in `frames` was registered with another pool.
    pub fn submit(&self, frames: &mut Frames) -> Result<(), PoolError> {
        self.core.home.check()?;
        assert!(frames.job().belongs_to(&self.core.transport), "a function of another pool");
        let _submitting = lock(&self.submitting);
        self.core.submit(&self.batch, frames)
    }

    /// Returns how many tasks were submitted.
    pub fn len(&self) -> usize {
        if self.is_here() { self.batch.len() } else { 0 }
    }

    /// Says whether no task was submitted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what the workers have finished, and returns how many tasks have no outcome yet.
    pub fn unfinished(&self) -> usize {
        if !self.is_here() {
            return 0;
        }
        self.core.drain();
        self.batch.unfinished()
    }

    /// Takes in what the workers have finished, and says whether every task has its outcome.
    pub fn is_complete(&self) -> bool {
        self.unfinished() == 0
    }

    /// Blocks until every task has its outcome.
    ///
    /// `None` waits for ever; a deadline in the past only looks.
    ///
    /// # Errors
    ///
    /// - [`PoolError::TimedOut`] when `deadline` passes first.
    /// - [`PoolError::Interrupted`] when a signal handler ran in this thread. Nothing has changed.
    /// - [`PoolError::WrongProcess`] in a forked child.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<(), PoolError> {
        self.core.home.check()?;
        let look = || (self.batch.unfinished() == 0).then_some(());
        let needs = || self.batch.unfinished();
        Ok(self.core.wait_for(deadline, Some((&self.batch, Goal::All)), look, needs)?)
    }

    /// Returns the outcome of one task, if it has one that was not taken before. Takes nothing in.
    pub fn take(&self, index: usize) -> Option<Outcome> {
        if self.is_here() { self.batch.take(index) } else { None }
    }

    /// Returns the outcomes that are there and were not taken before, in the order of submission.
    /// Takes nothing in.
    pub fn take_all(&self) -> Vec<Outcome> {
        if self.is_here() { self.batch.take_all() } else { Vec::new() }
    }

    /// Blocks until there is another outcome, and returns it with the number of its task; `None` if
    /// every task submitted so far had its outcome taken.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn next(&self, deadline: Option<Instant>) -> Result<Option<(usize, Outcome)>, PoolError> {
        self.core.home.check()?;
        // Without taking results in: a thousand may have come at once.
        if let Some(found) = self.look_for_next() {
            return Ok(found);
        }
        let watched = Some((&*self.batch, Goal::Any));
        Ok(self.core.wait_for(deadline, watched, || self.look_for_next(), || 1)?)
    }

    /// As [`next`](Self::next), but returns up to `most` outcomes, as many as are there; none only
    /// where `next` returns `None`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn next_many(
        &self,
        most: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<(usize, Outcome)>, PoolError> {
        let mut outcomes = Vec::new();
        if most == 0 {
            return Ok(outcomes);
        }
        outcomes.extend(self.next(deadline)?);
        while let (1.., true) = (outcomes.len(), outcomes.len() < most) {
            let Next::Outcome(index, outcome) = self.batch.next() else { break };
            outcomes.push((index, outcome));
        }
        Ok(outcomes)
    }

    /// Has `call` called on the pool's thread once every task submitted so far has its outcome, however
    /// it came by it; in this call, if the pool has ended.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn on_complete(&self, call: Box<dyn FnOnce() + Send>) -> Result<(), PoolError> {
        self.core.home.check()?;
        self.core.arm(&self.batch, Callback(call));
        Ok(())
    }

    /// The next outcome, or that there is none to come; `None` if that is not known yet.
    fn look_for_next(&self) -> Option<Option<(usize, Outcome)>> {
        match self.batch.next() {
            Next::Outcome(index, outcome) => Some(Some((index, outcome))),
            Next::End => Some(None),
            Next::NotYet => None,
        }
    }

    fn is_here(&self) -> bool {
        self.core.home.is_here()
    }
}

impl Drop for RawBatch {
    fn drop(&mut self) {
        if self.is_here() {
            self.core.abandon(&self.batch);
        } else {
            std::mem::forget((Arc::clone(&self.core), Arc::clone(&self.batch)));
        }
    }
}

impl fmt::Debug for RawBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBatch").field("id", &self.batch.id).finish_non_exhaustive()
    }
}
