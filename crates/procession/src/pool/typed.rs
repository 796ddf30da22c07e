//! Pools of Rust functions.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::batch::Order;
use crate::pool::error::{LaunchError, PoolError};
use crate::pool::frames::Frames;
use crate::pool::function::{self, FunctionRunner, ITEMS};
use crate::pool::job::JobRef;
use crate::pool::owner::{Launched, Launcher, Options, RawPool};
use crate::pool::task::{self, Task, TaskError};
use crate::pool::transport::WorkerBoot;
use crate::pool::unordered::Unordered;
use crate::pool::worker;
use crate::process::{self, StartMethod, available_cpus};
use crate::sys::process as system;

/// Tasks per worker that a map is cut into unless told otherwise: few enough to cost little, and more
/// than one, so that a slow task does not keep the others waiting at the end.
const TASKS_PER_WORKER: usize = 4;
/// Exit code of a worker that could not go on.
const EXIT_CANNOT_SERVE: i32 = 1;

/// A pool of worker processes that run functions of this program.
///
/// A function is given by its name, or as a closure that captures nothing. Arguments and values are
/// serialized with serde. [`init`](crate::process::init) must have been called first in `main`.
///
/// A worker that dies takes with it only the task at hand, which fails with
/// [`TaskError::WorkerDied`] or is run again if [`Builder::retries`] allows it; it is replaced. Workers
/// end when the pool is dropped, or when this process ends.
///
/// # Examples
///
/// ```
/// use procession::pool::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::process::init(); // first in main
///     let pool = Pool::new(2)?;
///     assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
///     assert_eq!(pool.apply(|text: String| text.len(), "hello".to_owned())?, 5);
///     Ok(())
/// }
/// ```
///
/// A closure that captures something has no place in the executable, and is refused:
///
/// ```compile_fail
/// fn main() {
///     procession::process::init();
///     let factor = 3;
///     let pool = procession::pool::Pool::new(2).unwrap();
///     let _ = pool.map(move |x: u32| x * factor, 0..4);
/// }
/// ```
#[derive(Debug)]
pub struct Pool {
    raw: Arc<RawPool>,
    chunk: Option<NonZero<usize>>,
}

/// Settings for a [`Pool`].
#[derive(Debug, Clone)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    workers: usize,
    retries: u32,
    method: StartMethod,
    chunk: Option<NonZero<usize>>,
    name: String,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: available_cpus(),
            retries: 0,
            method: StartMethod::default(),
            chunk: None,
            name: "worker".to_owned(),
        }
    }
}

impl Builder {
    /// Settings for a pool with one worker for each processor this process may use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of workers.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how many times a task is run again after the worker that ran it died. 0 unless set: only
    /// the caller knows whether a task that was half done may be done again.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how the first workers are started. Those that replace a dead one are always spawned, as the
    /// pool then has a thread of its own.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets how many items make a task of [`Pool::map`] and [`Pool::imap_unordered`]. 0 leaves it to the
    /// pool.
    pub fn chunk(mut self, items: usize) -> Self {
        self.chunk = NonZero::new(items);
        self
    }

    /// Sets what the workers are called, before a dash and their number: `worker` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Starts the workers. Does not wait until they are ready.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NoWorkers`] when the number of workers is 0.
    /// - [`PoolError::Launch`] when a worker cannot be started.
    /// - [`PoolError::Arena`] and [`PoolError::Os`] when there is no room, or the system refuses.
    pub fn build(self) -> Result<Pool, PoolError> {
        let Self { workers, retries, method, chunk, name } = self;
        let launcher = FunctionLauncher { method, name, creator: thread::current().id() };
        let raw = RawPool::start(Options { workers, retries }, Box::new(launcher))?;
        Ok(Pool { raw: Arc::new(raw), chunk })
    }
}

impl Pool {
    /// Starts a pool of so many workers.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new(workers: usize) -> Result<Self, PoolError> {
        Builder::new().workers(workers).build()
    }

    /// Settings for a pool with one worker for each processor this process may use.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> usize {
        self.raw.workers()
    }

    /// Returns the process ids of the workers that live just now.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.raw.worker_pids()
    }

    /// Calls `function` with each of `items` and returns the values in the same order.
    ///
    /// Blocks until all are done. The items are packed into tasks: about four for each worker, or as
    /// [`Builder::chunk`] says.
    ///
    /// # Errors
    ///
    /// - The error of the first item that has no value. The other items are done nevertheless.
    /// - [`TaskError::Encode`] when an item cannot be serialized; nothing was submitted then.
    /// - [`TaskError::Pool`] when the pool is closed or broken, or the arena has no room.
    pub fn map<F, A, R, I>(&self, function: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let items = items.into_iter();
        if let Some(chunk) = self.chunk {
            return self.map_chunked(chunk.get(), function, items);
        }
        match items.size_hint() {
            (least, Some(most)) if least == most => {
                self.map_chunked(self.fair_chunk(most), function, items)
            }
            _ => {
                let items: Vec<A> = items.collect();
                self.map_chunked(self.fair_chunk(items.len()), function, items)
            }
        }
    }

    /// As [`map`](Self::map), with `chunk` items in each task.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    ///
    /// # Panics
    ///
    /// Panics if `chunk` is 0.
    pub fn map_chunked<F, A, R, I>(
        &self,
        chunk: usize,
        function: F,
        items: I,
    ) -> Result<Vec<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        assert!(chunk > 0, "a task needs at least one item");
        let mut frames = Frames::new(&self.job(function)?, ITEMS);
        let mut items = items.into_iter();
        let mut buffer = Vec::new();
        let mut total = 0;
        while take_up_to(&mut items, chunk, &mut buffer) {
            function::push_items(&mut frames, &buffer)?;
            total += buffer.len();
        }
        let batch = self.raw.batch(Order::Index)?;
        uninterrupted(|| batch.submit(&mut frames))?;
        uninterrupted(|| batch.wait(None))?;
        let mut values = Vec::with_capacity(total);
        for (number, outcome) in batch.take_all().iter().enumerate() {
            let items = chunk.min(total - number * chunk);
            task::values(outcome, items, |value| values.push(value));
        }
        values.into_iter().collect()
    }

    /// Calls `function` with each of `items` and returns an iterator over the values, each as soon as it
    /// is there.
    ///
    /// Items are drawn while values are taken: at most four tasks for each worker are under way, so
    /// `items` may be endless. A task holds one item, or as many as [`Builder::chunk`] says. Dropping
    /// the iterator draws no further items.
    ///
    /// # Errors
    ///
    /// [`TaskError::Pool`] when the pool is closed or broken.
    pub fn imap_unordered<F, A, R, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Unordered<I::IntoIter, R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let job = self.job(function)?;
        let batch = self.raw.batch(Order::Finish)?;
        let chunk = self.chunk.map_or(1, NonZero::get);
        let window = TASKS_PER_WORKER * self.workers();
        Ok(Unordered::new(batch, job, items.into_iter(), chunk, window))
    }

    /// Calls `function` with `argument` in a worker and returns the value. Blocks until it is there.
    ///
    /// # Errors
    ///
    /// [`TaskError`] says why there is no value.
    pub fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.submit(function, argument)?.get()
    }

    /// Has `function` called with `argument` in a worker, and returns at once.
    ///
    /// # Errors
    ///
    /// - [`TaskError::Encode`] when the argument cannot be serialized.
    /// - [`TaskError::Pool`] when the pool is closed or broken, or the arena has no room.
    pub fn submit<F, A, R>(&self, function: F, argument: A) -> Result<Task<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut frames = Frames::new(&self.job(function)?, ITEMS);
        function::push_items(&mut frames, std::slice::from_ref(&argument))?;
        let batch = self.raw.batch(Order::Index)?;
        uninterrupted(|| batch.submit(&mut frames))?;
        Ok(Task::new(batch))
    }

    /// Takes no more tasks. The workers exit when those at hand are done; values can still be taken.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn close(&self) -> Result<(), PoolError> {
        self.raw.close()
    }

    /// Blocks until all workers of a closed or terminated pool have ended.
    ///
    /// # Errors
    ///
    /// - [`PoolError::NotClosed`] when the pool still takes tasks.
    /// - [`PoolError::WrongProcess`] in a forked child.
    pub fn join(&self) -> Result<(), PoolError> {
        uninterrupted(|| self.raw.join(None))
    }

    /// As [`join`](Self::join), for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join), and [`PoolError::TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), PoolError> {
        let deadline = Instant::now().checked_add(timeout);
        uninterrupted(|| self.raw.join(deadline))
    }

    /// Ends the workers, by force if they do not go soon, and blocks until they are gone. Tasks that were
    /// not done fail with [`TaskError::Terminated`].
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn terminate(&self) -> Result<(), PoolError> {
        uninterrupted(|| self.raw.terminate())
    }

    /// The job for a function.
    fn job<F, A, R>(&self, _function: F) -> Result<JobRef, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a worker can be given a function by its name, or a closure that captures nothing; pass what it needs with each item",
            );
        }
        Ok(self.raw.register_job(&function::job_bytes::<F, A, R>()?, None)?)
    }

    /// The number of items in a task, if there are so many and each worker gets four tasks.
    fn fair_chunk(&self, items: usize) -> usize {
        items.div_ceil(TASKS_PER_WORKER * self.workers()).max(1)
    }
}

/// Replaces what is in `buffer` by up to `most` further items. Returns whether there were any.
pub(super) fn take_up_to<A>(
    items: &mut impl Iterator<Item = A>,
    most: usize,
    buffer: &mut Vec<A>,
) -> bool {
    buffer.clear();
    buffer.extend(items.take(most));
    !buffer.is_empty()
}

/// Calls again as long as signals interrupt.
pub(super) fn uninterrupted<T>(
    mut call: impl FnMut() -> Result<T, PoolError>,
) -> Result<T, PoolError> {
    loop {
        match call() {
            Err(PoolError::Interrupted) => {}
            result => return result,
        }
    }
}

/// Starts workers that run functions of this executable.
#[derive(Debug)]
struct FunctionLauncher {
    method: StartMethod,
    name: String,
    /// The thread that makes the pool and may fork. The pool's own may not, as it is a second one.
    creator: ThreadId,
}

impl Launcher for FunctionLauncher {
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError> {
        let method = match self.method {
            StartMethod::Fork if thread::current().id() != self.creator => StartMethod::Spawn,
            method => method,
        };
        let name = format!("{}-{}", self.name, boot.seat() + 1);
        let builder = process::Builder::new().name(name.clone()).daemon(true).start_method(method);
        let worker = builder.spawn(work, boot)?;
        Ok(Launched { child: worker.into_child(), name })
    }
}

/// What a worker process does.
fn work(boot: WorkerBoot) {
    if let Err(error) = worker::serve(&boot, &mut FunctionRunner::default()) {
        eprintln!("procession: a pool worker cannot go on: {error}");
        system::exit_now(EXIT_CANNOT_SERVE);
    }
}
