//! The owner's side of a pool, in bytes.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::pool::batch::{Batch, Callback, Goal, Next, Order, TaskOptions};
use crate::pool::core::{Core, Phase, lock};
use crate::pool::error::{LaunchError, PoolError};
use crate::pool::frames::Frames;
use crate::pool::job::{self, JobRef};
use crate::pool::outcome::Outcome;
use crate::pool::stats::Stats;
use crate::pool::supervisor::Supervisor;
use crate::pool::transport::{ArenaTransport, Limits, Transport, WorkerBoot};
use crate::primitive::Ordering;
use crate::process::Child;
use crate::shm::Pins;
use crate::sync::spin;
use crate::sys::cpu;

/// How to set up a [`RawPool`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Number of worker processes, at least 1.
    pub workers: usize,
    /// How many times a task is submitted again after the worker that ran it died.
    pub retries: u32,
    /// After how many tasks a worker is replaced by a fresh one; `None` for never.
    pub max_tasks: Option<NonZero<u64>>,
    /// A worker that has more memory to itself than this, in bytes, is replaced after the task at hand.
    /// Counted is what is resident and neither shared nor of a file. It looks after a task, at most every
    /// 10 milliseconds.
    pub max_memory: Option<NonZero<u64>>,
    /// Where the workers run.
    pub affinity: Affinity,
}

impl Options {
    /// A pool of so many workers that runs no task twice.
    pub fn new(workers: usize) -> Self {
        let (max_tasks, max_memory) = (None, None);
        Self { workers, retries: 0, max_tasks, max_memory, affinity: Affinity::Any }
    }

    fn limits(&self) -> Limits {
        let number = |limit: Option<NonZero<u64>>| limit.map_or(0, NonZero::get);
        Limits { tasks: number(self.max_tasks), memory: number(self.max_memory) }
    }
}

/// On which processors workers run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Affinity {
    /// On all that this process may use.
    #[default]
    Any,
    /// On one each, in turn.
    Spread,
    /// The first worker on the first set of processors, and so on; from the front again if there are
    /// more workers than sets.
    Sets(Vec<Vec<usize>>),
}

impl Affinity {
    /// The sets, checked; none if it does not matter.
    fn sets(&self) -> Result<Vec<Vec<usize>>, PoolError> {
        let source = |source| PoolError::Os { call: "sched_getaffinity", source };
        let Self::Sets(sets) = self else {
            return match self {
                Self::Spread => Ok(cpu::allowed_cpus()
                    .map_err(source)?
                    .into_iter()
                    .map(|cpu| vec![cpu])
                    .collect()),
                _ => Ok(Vec::new()),
            };
        };
        let allowed = cpu::allowed_cpus().map_err(source)?;
        if sets.is_empty() || sets.iter().any(Vec::is_empty) {
            return Err(PoolError::Affinity { cpu: None });
        }
        match sets.iter().flatten().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(PoolError::Affinity { cpu: Some(*cpu) }),
            None => Ok(sets.clone()),
        }
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
    /// - [`PoolError::Affinity`] when a worker is to run where it cannot.
    /// - [`PoolError::Launch`] when one of the workers cannot be started; the others are ended.
    /// - [`PoolError::Arena`] and [`PoolError::Os`] when there is no room, or the system refuses.
    pub fn start(options: Options, launcher: Box<dyn Launcher>) -> Result<Self, PoolError> {
        if options.workers == 0 {
            return Err(PoolError::NoWorkers);
        }
        let sets = options.affinity.sets()?;
        let transport: Arc<dyn Transport> = Arc::new(ArenaTransport::new(options.limits(), sets)?);
        let core = Arc::new(Core::new(transport, options.workers, options.retries)?);
        spin::tune();
        let supervisor = Supervisor::launch_all(Arc::clone(&core), launcher)?;
        Ok(Self { core, thread: Mutex::new(Some(supervisor.start()?)) })
    }

    /// Returns the number of workers that the pool keeps up.
    pub fn workers(&self) -> usize {
        self.core.workers
    }

    /// Returns the process ids of the workers that live just now.
    pub fn worker_pids(&self) -> Vec<u32> {
        if !self.core.home.is_here() {
            return Vec::new();
        }
        lock(&self.core.posts).iter().map(|post| post.child.pid()).collect()
    }

    /// Returns what the pool has done and is doing. Takes no results in, and disturbs no worker.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn stats(&self) -> Result<Stats, PoolError> {
        self.core.home.check()?;
        Ok(self.core.stats())
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
        self.batch_with(order, TaskOptions::default())
    }

    /// As [`batch`](Self::batch), for tasks that are treated as `options` say.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub fn batch_with(&self, order: Order, options: TaskOptions) -> Result<RawBatch, PoolError> {
        self.check_open()?;
        let batch = self.core.add_batch(order, options);
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
    /// - [`PoolError::Cancelled`] when the batch was cancelled, or ended with a failure.
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

    /// Cancels what is not done: the outcomes are there when this returns.
    ///
    /// Tasks that no worker has begun are never run. With `running`, workers that run one are killed with
    /// `SIGKILL` and replaced; otherwise such tasks go on and have the outcome that they come to. A task
    /// that is done before the pool can put an end to it counts as done. The batch takes no more tasks.
    /// Returns how many tasks were cancelled.
    ///
    /// # Errors
    ///
    /// - [`PoolError::Arena`] when there is no room to tell the workers. The tasks go on, and the batch
    ///   takes no more.
    /// - [`PoolError::WrongProcess`] in a forked child.
    pub fn cancel(&self, running: bool) -> Result<usize, PoolError> {
        self.core.home.check()?;
        self.core.cancel(&self.batch, running)
    }

    /// Says whether a worker runs a task of this batch just now. Takes nothing in.
    pub fn is_running(&self) -> bool {
        self.is_here() && self.core.is_running(self.batch.id)
    }

    /// Returns the number of the task whose failure has ended the batch, if one has. Takes nothing in.
    pub fn first_failure(&self) -> Option<usize> {
        if self.is_here() { self.batch.first_failure() } else { None }
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
