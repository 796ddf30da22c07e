//! What can go wrong with a pool, and with one task of it.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::WaitError;
use crate::process::ExitStatus;
use crate::shm::ArenaError;

/// Why a [`Launcher`](super::raw::Launcher) could not start a worker.
pub type LaunchError = Box<dyn Error + Send + Sync>;

/// Why a call on a pool failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool of no workers was asked for.
    NoWorkers,
    /// The pool was closed or terminated before.
    Closed,
    /// `join` was called on a pool that still takes tasks, so that it would wait for ever.
    NotClosed,
    /// A forked child used the pool of its parent.
    WrongProcess {
        /// Process id of the one that may.
        owner: u32,
    },
    /// The workers of this pool cannot start.
    Broken(Arc<Breakage>),
    /// A worker could not be started.
    Launch(LaunchError),
    /// The arena has no room for the pool, or for the tasks although all others were done.
    Arena(ArenaError),
    /// The batch was cancelled and takes no more tasks.
    Cancelled,
    /// Workers were to run on a processor that this process may not use, or on none at all.
    Affinity {
        /// The processor; `None` for an empty set.
        cpu: Option<usize>,
    },
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran in this thread. Call again to go on.
    Interrupted,
    /// The operating system refused what the pool's thread needs.
    Os {
        /// The system call that failed.
        call: &'static str,
        /// What it reported.
        source: io::Error,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("a pool needs at least one worker"),
            Self::Closed => f.write_str("the pool is closed"),
            Self::NotClosed => {
                f.write_str("the pool still takes tasks; close or terminate it first")
            }
            Self::WrongProcess { owner } => {
                write!(f, "the pool belongs to process {owner}; a forked child cannot use it")
            }
            Self::Broken(breakage) => breakage.fmt(f),
            Self::Launch(_) => f.write_str("a worker could not be started"),
            Self::Arena(_) => f.write_str("the arena has no room"),
            Self::Cancelled => {
                f.write_str("the tasks were cancelled; no more can be added to them")
            }
            Self::Affinity { cpu: Some(cpu) } => {
                write!(f, "processor {cpu} is not among those that this process may use")
            }
            Self::Affinity { cpu: None } => f.write_str("a worker needs at least one processor"),
            Self::TimedOut => WaitError::TimedOut.fmt(f),
            Self::Interrupted => WaitError::Interrupted.fmt(f),
            Self::Os { call, .. } => write!(f, "{call} failed"),
        }
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Launch(source) => Some(source.as_ref()),
            Self::Arena(source) => Some(source),
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<ArenaError> for PoolError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<WaitError> for PoolError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::TimedOut,
            WaitError::Interrupted => Self::Interrupted,
        }
    }
}

/// Why a pool gave up for good: its workers die before they are ready to work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breakage {
    /// What the last worker said, or how it ended.
    pub reason: String,
    /// How the last worker ended; `None` if none could be started at all.
    pub status: Option<ExitStatus>,
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool is broken, its workers cannot start: {}", self.reason)
    }
}

impl Error for Breakage {}

/// A worker ended in the middle of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerDied {
    /// Process id of the worker.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Which task it was, counted from 0 in its batch.
    pub task: usize,
    /// How many times the task was begun.
    pub attempts: u32,
    /// Whether the worker was killed while the kernel ended processes of its control group for want of
    /// memory: most likely it was one of them.
    pub out_of_memory: bool,
}

impl fmt::Display for WorkerDied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, status, task, attempts, out_of_memory } = self;
        write!(f, "worker {name} (pid {pid}) ended during task {task}: {status}")?;
        if *attempts > 1 {
            write!(f, " (attempt {attempts})")?;
        }
        if *out_of_memory {
            f.write_str("; the kernel is ending processes for want of memory: use fewer workers, or give each task less to hold")?;
        }
        Ok(())
    }
}

impl Error for WorkerDied {}

/// A task took longer than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut {
    /// Process id of the worker that ran it, which was killed.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How long the task may take.
    pub timeout: Duration,
    /// Which task it was, counted from 0 in its batch.
    pub task: usize,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, timeout, task } = self;
        write!(f, "task {task} took longer than {timeout:?}; worker {name} (pid {pid}) was killed")
    }
}

impl Error for TimedOut {}

/// Why a task has no result, if it was not the task's own doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TaskLost {
    /// The worker that ran it died.
    WorkerDied(WorkerDied),
    /// It took longer than it may, and its worker was killed.
    TimedOut(TimedOut),
    /// It was cancelled, or another task of its batch failed and ended the batch.
    Cancelled,
    /// The worker could not find the function, or could not send the result.
    Refused(String),
    /// The pool broke first.
    Broken(Arc<Breakage>),
    /// The pool was terminated first.
    Terminated,
}

impl fmt::Display for TaskLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerDied(died) => died.fmt(f),
            Self::TimedOut(timed_out) => timed_out.fmt(f),
            Self::Cancelled => f.write_str("the task was cancelled"),
            Self::Refused(reason) => f.write_str(reason),
            Self::Broken(breakage) => breakage.fmt(f),
            Self::Terminated => f.write_str("the pool was terminated before the task was done"),
        }
    }
}

impl Error for TaskLost {}
