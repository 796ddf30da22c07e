//! One task of a pool, and what may go wrong with it.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::pool::error::{PoolError, TaskLost, WorkerDied};
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
            TaskLost::Refused(reason) => Self::Unsendable { reason },
            TaskLost::Broken(breakage) => Self::Pool(PoolError::Broken(breakage)),
            TaskLost::Terminated => Self::Terminated,
        }
    }
}

/// The values of a task with so many items.
pub(super) fn values<R: DeserializeOwned>(
    outcome: &Outcome,
    items: usize,
    mut give: impl FnMut(Result<R, TaskError>),
) {
    match outcome {
        Outcome::Done(reply) => function::values(reply, items).for_each(give),
        Outcome::Failed(reason) => {
            let reason = String::from_utf8_lossy(reason);
            (0..items).for_each(|_| give(Err(TaskError::Decode { reason: reason.to_string() })));
        }
        Outcome::Lost(lost) => (0..items).for_each(|_| give(Err(lost.clone().into()))),
    }
}

/// A task that was submitted to a [`Pool`](super::Pool), and its value to come.
///
/// Dropping it does not keep the task from being run; its value is lost then.
pub struct Task<R> {
    batch: RawBatch,
    outcome: OnceLock<Outcome>,
    // A task does not hold an `R`, it makes one.
    returns: PhantomData<fn() -> R>,
}

impl<R> Task<R> {
    pub(super) fn new(batch: RawBatch) -> Self {
        Self { batch, outcome: OnceLock::new(), returns: PhantomData }
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

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("batch", &self.batch).finish_non_exhaustive()
    }
}
