//! Pools of Rust functions.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::batch::Order;
use crate::pool::builder::{Builder, Calls};
use crate::pool::error::PoolError;
use crate::pool::frames::Frames;
use crate::pool::function::{self, Entry};
use crate::pool::job::JobRef;
use crate::pool::map::{self, Items};
use crate::pool::owner::RawPool;
use crate::pool::stats::Stats;
use crate::pool::task::{Task, TaskError, TryError};
use crate::pool::values::Values;

/// A pool of worker processes that run functions of this program.
///
/// A function is given by its name, or as a closure that captures nothing. Arguments and values are
/// serialized with serde. [`init`](crate::process::init) must have been called first in `main`.
///
/// A worker that dies takes with it only the task at hand, which fails with
/// [`TaskError::WorkerDied`] or is run again if [`Builder::retries`] allows it; it is replaced.
///
/// A clone is another handle to the same pool, and so is what [`timeout`](Self::timeout),
/// [`retries`](Self::retries), [`fail_fast`](Self::fail_fast), [`chunk`](Self::chunk) and
/// [`window`](Self::window) return, for calls that are treated another way. Workers end when the last
/// handle is dropped, which waits for that, or when this process ends. They ignore Ctrl-C: what becomes
/// of the pool then is this process's to say.
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
/// A function of several arguments takes a tuple, and a call may be treated in its own way:
///
/// ```
/// use std::time::Duration;
///
/// use procession::pool::{Pool, TaskError};
///
/// fn power(base: u64, exponent: u32) -> u64 {
///     base.pow(exponent)
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::init();
///     let pool = Pool::new(2)?;
///     let powers = pool.map(|(base, exponent)| power(base, exponent), [(2, 10), (3, 2)])?;
///     assert_eq!(powers, [1024, 9]);
///
///     let hanging = pool.timeout(Duration::from_millis(50)).apply(|()| std::thread::park(), ());
///     assert!(matches!(hanging, Err(TaskError::TimedOut(_))));
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    raw: Arc<RawPool>,
    calls: Calls,
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

    pub(super) fn new_with(raw: Arc<RawPool>, calls: Calls) -> Self {
        Self { raw, calls }
    }

    /// Returns the process ids of the workers that live just now.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.raw.worker_pids()
    }

    /// Returns what the pool has done and is doing.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn stats(&self) -> Result<Stats, PoolError> {
        self.raw.stats()
    }

    fn with(&self, change: impl FnOnce(&mut Calls)) -> Self {
        let mut other = self.clone();
        change(&mut other.calls);
        other
    }

    /// Returns a handle to this pool for tasks that may take so long, from when a worker begins them.
    ///
    /// A task that takes longer fails with [`TaskError::TimedOut`]; its worker is killed with `SIGKILL`,
    /// since one that hangs may answer to nothing else, and replaced. A task may hold several items: with
    /// a timeout and no [`chunk`](Self::chunk) it holds one.
    #[must_use]
    pub fn timeout(&self, timeout: Duration) -> Self {
        self.with(|calls| calls.tasks.timeout = Some(timeout))
    }

    /// Returns a handle to this pool for tasks that are run again so often after the worker that ran them
    /// died, whatever [`Builder::retries`] said.
    #[must_use]
    pub fn retries(&self, retries: u32) -> Self {
        self.with(|calls| calls.tasks.retries = Some(retries))
    }

    /// Returns a handle to this pool whose calls of [`map`](Self::map) and [`try_map`](Self::try_map)
    /// return with the first failure, as soon as it happens.
    ///
    /// Tasks that no worker has begun by then are never run. Those that are being run go on, and nobody
    /// waits for them. In iterators over values the other items then are [`TaskError::Cancelled`].
    #[must_use]
    pub fn fail_fast(&self) -> Self {
        self.with(|calls| calls.tasks.fail_fast = true)
    }

    /// Returns a handle to this pool whose calls put so many items into a task. 0 leaves it to the pool:
    /// [`map`](Self::map) measures how long items take, and iterators put one item into a task.
    #[must_use]
    pub fn chunk(&self, items: usize) -> Self {
        self.with(|calls| calls.chunk = NonZero::new(items))
    }

    /// Returns a handle to this pool whose iterators over values have so many tasks for each worker under
    /// way, but at least one. It is four unless set.
    #[must_use]
    pub fn window(&self, tasks: usize) -> Self {
        self.with(|calls| calls.window = NonZero::new(tasks).unwrap_or(NonZero::<usize>::MIN))
    }

    /// Calls `function` with each of `items` and returns the values in the same order.
    ///
    /// Blocks until all are done. The items are packed into tasks of as many as take a worker some
    /// milliseconds, which is measured on the way, or as [`chunk`](Self::chunk) says.
    ///
    /// # Errors
    ///
    /// - The error of the first item that has no value. The other items are done nevertheless, unless
    ///   [`fail_fast`](Self::fail_fast) says otherwise: then it is the first error that happened.
    /// - [`TaskError::Encode`] when an item cannot be serialized. With a chunk size, nothing was submitted
    ///   then; otherwise those before it may have been run.
    /// - [`TaskError::Pool`] when the pool is closed or broken, or the arena has no room.
    pub fn map<F, A, R, I>(&self, function: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.map_entry(function::entry(function), items)
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
        self.chunk(chunk).map(function, items)
    }

    /// As [`map`](Self::map), for a function that may fail: returns the values if all items have one, and
    /// otherwise the error that the function returned for the first that has none.
    ///
    /// # Errors
    ///
    /// - [`TryError::Failed`] with the function's own error.
    /// - [`TryError::Task`] as [`map`](Self::map).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::pool::{Pool, TryError};
    ///
    /// fn halve(x: u32) -> Result<u32, String> {
    ///     if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     procession::init();
    ///     let pool = Pool::new(2)?;
    ///     assert_eq!(pool.try_map(halve, [2, 4])?, [1, 2]);
    ///     match pool.fail_fast().try_map(halve, 7..1_000_000) {
    ///         Err(TryError::Failed(error)) => assert!(error.ends_with("is odd")),
    ///         other => panic!("{other:?}"),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn try_map<F, A, T, E, I>(&self, function: F, items: I) -> Result<Vec<T>, TryError<E>>
    where
        F: Fn(A) -> Result<T, E> + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        T: Serialize + DeserializeOwned,
        E: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let results = self.map_outcomes(function::fallible_entry(function), items)?;
        results
            .into_iter()
            .map(|item| match item {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(TryError::Failed(error)),
                Err(error) => Err(TryError::Task(error)),
            })
            .collect()
    }

    fn map_entry<A, R, I>(&self, entry: Entry, items: I) -> Result<Vec<R>, TaskError>
    where
        A: Serialize,
        R: DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.map_outcomes(entry, items)?.into_iter().collect()
    }

    /// What became of each item; if the first failure was to end the call and did, of the items of that
    /// task alone.
    fn map_outcomes<A, R, I>(
        &self,
        entry: Entry,
        items: I,
    ) -> Result<Vec<Result<R, TaskError>>, TaskError>
    where
        A: Serialize,
        R: DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let frames = Frames::new(&self.job(entry)?, self.kind());
        let mut items = Items::new(items.into_iter(), frames);
        // With a timeout, each item has all of it.
        let chunk = match (self.calls.chunk, self.calls.tasks.timeout) {
            (None, Some(_)) => Some(NonZero::<usize>::MIN),
            (chunk, _) => chunk,
        };
        let batch_in = |order| self.raw.batch_with(order, self.calls.tasks);
        let (batch, outcomes);
        if let Some(chunk) = chunk {
            batch = batch_in(Order::Index)?;
            outcomes = map::run_all(&batch, &mut items, chunk.get())?;
        } else {
            batch = batch_in(Order::Finish)?;
            outcomes = map::run_measured(&batch, &mut items, self.workers())?;
        }
        Ok(items.values(&batch, &outcomes))
    }

    /// Calls `function` with each of `items` and returns an iterator over the values, in the order of the
    /// items.
    ///
    /// Items are drawn while values are taken: as many tasks for each worker are under way as
    /// [`window`](Self::window) says, so `items` may be endless. A task holds one item, or as many as
    /// [`chunk`](Self::chunk) says. Dropping the iterator draws no further items, and tasks that no worker
    /// has begun are never run.
    ///
    /// # Errors
    ///
    /// [`TaskError::Pool`] when the pool is closed or broken.
    pub fn imap<F, A, R, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Values<I::IntoIter, R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.values(function, items.into_iter(), Order::Index)
    }

    /// As [`imap`](Self::imap), with each value as soon as it is there.
    ///
    /// # Errors
    ///
    /// As [`imap`](Self::imap).
    pub fn imap_unordered<F, A, R, I>(
        &self,
        function: F,
        items: I,
    ) -> Result<Values<I::IntoIter, R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.values(function, items.into_iter(), Order::Finish)
    }

    fn values<F, A, R, I>(
        &self,
        function: F,
        items: I,
        order: Order,
    ) -> Result<Values<I, R>, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: Iterator<Item = A>,
    {
        let frames = Frames::new(&self.job(function::entry(function))?, self.kind());
        let batch = self.raw.batch_with(order, self.calls.tasks)?;
        let chunk = self.calls.chunk.map_or(1, NonZero::get);
        let window = self.calls.window.get().saturating_mul(self.workers());
        Ok(Values::new(batch, order, frames, items, chunk, window))
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
        let mut frames = Frames::new(&self.job(function::entry(function))?, self.kind());
        function::push_items(&mut frames, std::slice::from_ref(&argument))?;
        let batch = self.raw.batch_with(Order::Index, self.calls.tasks)?;
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
    fn job(&self, entry: Entry) -> Result<JobRef, TaskError> {
        Ok(self.raw.register_job(&function::job_bytes(entry)?, None)?)
    }

    /// What workers do about the items of a task.
    fn kind(&self) -> u32 {
        if self.calls.tasks.fail_fast { function::UNTIL_FAILURE } else { function::ALL_ITEMS }
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
