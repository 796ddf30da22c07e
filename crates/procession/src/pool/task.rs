//! One task of a pool, and what may go wrong with it.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::pool::core::lock;
use crate::pool::error::{PoolError, TaskLost, TimedOut, WorkerDied};
use crate::pool::function::{self, Fault};
use crate::pool::outcome::Outcome;
use crate::pool::owner::RawBatch;
use crate::process::panics::PanicReport;

/// Why a task has no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// Where it panicked, `file:line:column`, if that is known.
        location: Option<String>,
    },
    /// The worker that ran it died: it was killed, it aborted, or the task called `exit`.
    WorkerDied(WorkerDied),
    /// It took longer than it may, and its worker was killed.
    TimedOut(TimedOut),
    /// It was cancelled.
    Cancelled,
    /// The argument could not be serialized. Nothing was submitted.
    Encode {
        /// What the serializer reported.
        reason: String,
    },
    /// The argument could not be deserialized in the worker, or the value here.
    Decode {
        /// Which of the two, and what the deserializer reported.
        reason: String,
    },
    /// The worker could not send the value: it did not serialize, or it did not fit into the arena.
    Unsendable {
        /// What the worker said about it.
        reason: String,
    },
    /// The function lies in a shared library. Only functions of the executable itself have the same
    /// place in every worker.
    NotInExecutable,
    /// The pool was terminated before the task was done.
    Terminated,
    /// The pool did not take the task, or broke.
    Pool(PoolError),
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked { message, location } => {
                let report = PanicReport { message: message.clone(), location: location.clone() };
                write!(f, "the task {report}")
            }
            Self::WorkerDied(died) => died.fmt(f),
            Self::TimedOut(timed_out) => timed_out.fmt(f),
            Self::Cancelled => TaskLost::Cancelled.fmt(f),
            Self::Encode { reason } => write!(f, "the argument could not be serialized: {reason}"),
            Self::Decode { reason } => write!(f, "could not be deserialized: {reason}"),
            Self::Unsendable { reason } => f.write_str(reason),
            Self::NotInExecutable => f.write_str(
                "the function is in a shared library; a worker can only be given functions of the executable",
            ),
            Self::Terminated => TaskLost::Terminated.fmt(f),
            Self::Pool(error) => error.fmt(f),
        }
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Pool(error) => error.source(),
            _ => None,
        }
    }
}

impl From<PoolError> for TaskError {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

impl From<Fault> for TaskError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Panicked(PanicReport { message, location }) => {
                Self::Panicked { message, location }
            }
            Fault::Decode(reason) => Self::Decode { reason: format!("the argument: {reason}") },
            Fault::Encode(reason) => {
                Self::Unsendable { reason: format!("the value could not be serialized: {reason}") }
            }
        }
    }
}

impl From<TaskLost> for TaskError {
    fn from(lost: TaskLost) -> Self {
        match lost {
            TaskLost::WorkerDied(died) => Self::WorkerDied(died),
            TaskLost::TimedOut(timed_out) => Self::TimedOut(timed_out),
            TaskLost::Cancelled => Self::Cancelled,
            TaskLost::Refused(reason) => Self::Unsendable { reason },
            TaskLost::Broken(breakage) => Self::Pool(PoolError::Broken(breakage)),
            TaskLost::Terminated => Self::Terminated,
        }
    }
}

/// Why [`Pool::try_map`](super::Pool::try_map) has no values.
#[derive(Debug)]
#[non_exhaustive]
pub enum TryError<E> {
    /// The function returned this error.
    Failed(E),
    /// An item has neither value nor error.
    Task(TaskError),
}

impl<E: fmt::Display> fmt::Display for TryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Task(error) => error.fmt(f),
        }
    }
}

// For texts as errors too.
impl<E: fmt::Debug + fmt::Display> Error for TryError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(_) => None,
            Self::Task(error) => error.source(),
        }
    }
}

impl<E> From<TaskError> for TryError<E> {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

/// The values of a task with so many items.
pub(super) fn values<R: DeserializeOwned>(
    outcome: &Outcome,
    items: usize,
    mut give: impl FnMut(Result<R, TaskError>),
) {
    match outcome {
        Outcome::Done(reply) | Outcome::Failed(reply) => {
            function::values(reply, items).for_each(give);
        }
        Outcome::Lost(lost) => (0..items).for_each(|_| give(Err(lost.clone().into()))),
    }
}

/// A task that was submitted to a [`Pool`](super::Pool), and its value to come.
///
/// Dropping it does not keep the task from being run; its value is lost then. It is also a future: of the
/// value, and woken from the pool's thread, so that it needs no particular executor.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc;
///
/// use procession::pool::{Pool, TaskError};
///
/// fn hang(_: ()) {
///     loop {
///         std::thread::park();
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::init();
///     let pool = Pool::new(1)?;
///     let first = pool.submit(|x: u32| x * x, 7)?;
///     assert_eq!(first.get()?, 49);
///
///     let (told, heard) = mpsc::channel();
///     pool.submit(|x: u32| x + 1, 1)?.then(move |value| told.send(value).unwrap());
///     assert_eq!(heard.recv()??, 2);
///
///     let endless = pool.submit(hang, ())?;
///     assert!(endless.cancel()?, "it was not done");
///     assert!(matches!(endless.get(), Err(TaskError::Cancelled)));
///     Ok(())
/// }
/// ```
pub struct Task<R> {
    batch: RawBatch,
    outcome: OnceLock<Outcome>,
    /// Whom to wake as a future, once that was arranged.
    waker: Option<Arc<Mutex<Option<Waker>>>>,
    // A task does not hold an `R`, it makes one.
    returns: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    pub(super) fn new(batch: RawBatch) -> Self {
        Self { batch, outcome: OnceLock::new(), waker: None, returns: PhantomData }
    }

    /// Ends the task, if it is not done: it is never run, or its worker is killed with `SIGKILL` and
    /// replaced. Returns whether the task was cancelled by this; it then fails with
    /// [`TaskError::Cancelled`].
    ///
    /// # Errors
    ///
    /// [`PoolError::Arena`] when there is no room to tell the workers; [`PoolError::WrongProcess`] in a
    /// forked child.
    pub fn cancel(&self) -> Result<bool, PoolError> {
        Ok(self.batch.cancel(true)? > 0)
    }

    /// Says whether a worker runs the task just now.
    pub fn is_running(&self) -> bool {
        self.batch.is_running()
    }

    /// Blocks until the task is done, well or not.
    ///
    /// # Errors
    ///
    /// [`PoolError::WrongProcess`] in a forked child.
    pub fn wait(&self) -> Result<(), PoolError> {
        self.wait_until(None)
    }

    /// Says whether the task is done, well or not.
    pub fn is_ready(&self) -> bool {
        self.batch.is_complete()
    }

    /// Blocks until the task is done or `timeout` has passed, and says whether it is done.
    ///
    /// A timeout of zero only looks.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        // A deadline too far away to be expressed is none.
        self.wait_until(Instant::now().checked_add(timeout)).is_ok()
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), PoolError> {
        loop {
            match self.batch.wait(deadline) {
                // A signal handler ran; that is no reason to stop waiting.
                Err(PoolError::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl<R: DeserializeOwned> Task<R> {
    /// Blocks until the task is done, and returns its value.
    ///
    /// # Errors
    ///
    /// [`TaskError`] says why it has none.
    pub fn get(self) -> Result<R, TaskError> {
        self.wait_until(None)?;
        self.value()
    }

    /// Blocks until the task is done or `timeout` has passed. Returns its value, or `None` if it is not
    /// done.
    ///
    /// A timeout of zero only looks. Each call after the task was done returns the value anew.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<R>, TaskError> {
        match self.wait_until(Instant::now().checked_add(timeout)) {
            Ok(()) => self.value().map(Some),
            Err(PoolError::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has `call` called with the value when the task is done, on the pool's thread. What it does keeps
    /// the pool from replacing workers and from calling others meanwhile; a panic in it is printed.
    /// It is called at once, here, if the pool has ended.
    pub fn then(self, call: impl FnOnce(Result<R, TaskError>) + Send + 'static)
    where
        R: 'static,
    {
        let this = Arc::new(self);
        let done = Arc::clone(&this);
        let called = this.batch.on_complete(Box::new(move || call(done.value())));
        if let Err(error) = called {
            // A forked child has nobody to call back; its parent does.
            tracing::warn!(%error, "nobody will be called back");
        }
    }

    fn value(&self) -> Result<R, TaskError> {
        let outcome = self.outcome.get_or_init(|| {
            let taken = self.batch.take(0);
            taken.unwrap_or(Outcome::Lost(TaskLost::Terminated))
        });
        let mut value = Err(TaskError::Terminated);
        values(outcome, 1, |result| value = result);
        value
    }
}

impl<R: DeserializeOwned> Future for Task<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.outcome.get().is_none() && !self.batch.is_complete() {
            let waker = self.arrange_waking()?;
            *lock(&waker) = Some(context.waker().clone());
            // The callback may have run before that.
            if !self.batch.is_complete() {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.value())
    }
}

impl<R> Task<R> {
    fn arrange_waking(&mut self) -> Result<Arc<Mutex<Option<Waker>>>, PoolError> {
        if let Some(waker) = &self.waker {
            return Ok(Arc::clone(waker));
        }
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let woken = Arc::clone(&waker);
        let wake = move || {
            let waker = lock(&woken).take();
            waker.into_iter().for_each(Waker::wake);
        };
        self.batch.on_complete(Box::new(wake))?;
        self.waker = Some(Arc::clone(&waker));
        Ok(waker)
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("batch", &self.batch).finish_non_exhaustive()
    }
}
