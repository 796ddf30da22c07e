//! The one place where errors of the engine become Python exceptions.
//!
//! Built-in exceptions come first, then those of the original. Our own two, in
//! `python/procession/errors.py`, are for cases in which the original hangs.

use std::error::Error;
use std::fmt::Write;
use std::io;

use procession::WaitError;
use procession::channel::connection::{
    EndpointError, HandshakeError, RecvError, RedeemError, SendError,
};
use procession::channel::{GetError, PutError, TaskDoneError, TasksError};
use procession::manager::CallError;
use procession::memory::NameError;
use procession::pool::raw::{PoolError, ServeError, TaskLost, WorkerDied};
use procession::process::{BootError, SpawnError, TreeError};
use procession::shm::ArenaError;
use procession::sync::{BarrierError, ConditionError, LockError, SemaphoreError};
use pyo3::exceptions::{
    PyAssertionError, PyConnectionResetError, PyEOFError, PyMemoryError, PyOSError, PyRuntimeError,
    PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wait::Interruption;

/// Exceptions that are defined in Python.
mod python {
    use pyo3::import_exception;

    // Imported when it is raised for the first time.
    import_exception!(concurrent.futures, CancelledError);
    import_exception!(procession.context, AuthenticationError);
    import_exception!(procession.context, BufferTooShort);
    import_exception!(procession.errors, BrokenPoolError);
    import_exception!(procession.errors, ProcessError);
    import_exception!(procession.errors, TasksLostError);
    import_exception!(procession.errors, TaskTimeoutError);
    import_exception!(procession.errors, TimeoutError);
    import_exception!(procession.errors, WorkerDiedError);
    import_exception!(queue, Empty);
    import_exception!(queue, Full);
    import_exception!(socket, gaierror);
    import_exception!(threading, BrokenBarrierError);
}

/// Numbers of errors for which the engine has cases of its own.
mod io_number {
    pub(super) const ETIMEDOUT: i32 = 110;
    pub(super) const ECONNREFUSED: i32 = 111;
}

/// An exception made of an error of the engine, or one that Python code raised.
#[derive(Debug)]
pub(crate) struct EngineError(PyErr);

/// What methods that call the engine return.
pub(crate) type EngineResult<T> = Result<T, EngineError>;

impl From<PyErr> for EngineError {
    fn from(error: PyErr) -> Self {
        Self(error)
    }
}

impl From<EngineError> for PyErr {
    fn from(error: EngineError) -> Self {
        error.0
    }
}

/// The text of an error, with those of its causes behind it.
fn text_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a `String` does not fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// An `OSError`, of the subclass that goes with its number.
fn os_error(error: &dyn Error, source: &io::Error) -> PyErr {
    match source.raw_os_error() {
        Some(errno) => PyOSError::new_err((errno, text_of(error))),
        None => PyOSError::new_err(text_of(error)),
    }
}

impl From<io::Error> for EngineError {
    fn from(error: io::Error) -> Self {
        Self(os_error(&error, &error))
    }
}

impl From<ArenaError> for EngineError {
    fn from(error: ArenaError) -> Self {
        Self(match &error {
            ArenaError::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
            ArenaError::Os { source, .. } => os_error(&error, source),
            _ => PyRuntimeError::new_err(text_of(&error)),
        })
    }
}

/// What pickling says of a shared object that it was not able to keep alive.
pub(crate) fn not_packed(object: &Bound<'_, PyAny>, error: ArenaError) -> EngineError {
    let ArenaError::OutsideTree = error else { return error.into() };
    // The original's own words, with what is new here.
    let text = match object.get_type().name() {
        Ok(name) => format!(
            "{name} objects should only be shared between processes through inheritance, a queue or a pool"
        ),
        Err(error) => return error.into(),
    };
    PyRuntimeError::new_err(text).into()
}

impl From<NameError> for EngineError {
    fn from(error: NameError) -> Self {
        let name = match &error {
            NameError::AlreadyExists { name }
            | NameError::NotFound { name }
            | NameError::Empty { name }
            | NameError::Os { name, .. } => name.clone(),
            NameError::ZeroByte { .. } => {
                return Self(PyValueError::new_err("embedded null character"));
            }
            other => return Self(PyOSError::new_err(text_of(other))),
        };
        // As the original, with the name beside the text.
        Self(match error.errno() {
            Some(errno) => PyOSError::new_err((errno, text_of(&error), name)),
            None => PyOSError::new_err(text_of(&error)),
        })
    }
}

impl From<SpawnError> for EngineError {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::Arena(source) => source.into(),
            SpawnError::Os { ref source, .. } => Self(os_error(&error, source)),
            SpawnError::ForkServerDied { .. } => {
                Self(PyConnectionResetError::new_err(text_of(&error)))
            }
            SpawnError::TooManyDescriptors { .. } | SpawnError::ZeroByte { .. } => {
                Self(PyValueError::new_err(error.to_string()))
            }
            _ => Self(PyRuntimeError::new_err(text_of(&error))),
        }
    }
}

impl From<BootError> for EngineError {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Arena(source) => source.into(),
            BootError::Os { ref source, .. } => Self(os_error(&error, source)),
            _ => Self(PyRuntimeError::new_err(text_of(&error))),
        }
    }
}

impl From<TreeError> for EngineError {
    fn from(error: TreeError) -> Self {
        Self(match error.errno() {
            // The number makes it a ProcessLookupError or a PermissionError.
            Some(errno) => PyOSError::new_err((errno, text_of(&error))),
            None => PyValueError::new_err(text_of(&error)),
        })
    }
}

impl From<PutError> for EngineError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Full => Self(python::Full::new_err(())),
            PutError::Arena(source) => source.into(),
            _ => Self(PyRuntimeError::new_err(text_of(&error))),
        }
    }
}

impl From<GetError> for EngineError {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Empty => Self(python::Empty::new_err(())),
            GetError::Arena(source) => source.into(),
            _ => Self(PyRuntimeError::new_err(text_of(&error))),
        }
    }
}

impl From<TaskDoneError> for EngineError {
    fn from(error: TaskDoneError) -> Self {
        match error {
            TaskDoneError::Arena(source) => source.into(),
            // These are the original's own words.
            other => Self(PyValueError::new_err(other.to_string())),
        }
    }
}

impl From<TasksError> for EngineError {
    fn from(error: TasksError) -> Self {
        match error {
            TasksError::Arena(source) => source.into(),
            TasksError::Lost { pid, tasks } => {
                Self(python::TasksLostError::new_err((error.to_string(), pid, tasks)))
            }
            other => Self(PyRuntimeError::new_err(other.to_string())),
        }
    }
}

impl From<SendError> for EngineError {
    fn from(error: SendError) -> Self {
        Self(match &error {
            SendError::Os { source } => os_error(&error, source),
            SendError::Reentrant => PyRuntimeError::new_err(error.to_string()),
            _ => PyOSError::new_err(error.to_string()),
        })
    }
}

impl From<RecvError> for EngineError {
    fn from(error: RecvError) -> Self {
        Self(match &error {
            RecvError::EndOfStream => PyEOFError::new_err(error.to_string()),
            RecvError::OutOfMemory { .. } => PyMemoryError::new_err(error.to_string()),
            RecvError::Os { source } => os_error(&error, source),
            RecvError::Reentrant => PyRuntimeError::new_err(error.to_string()),
            _ => PyOSError::new_err(error.to_string()),
        })
    }
}

impl From<HandshakeError> for EngineError {
    fn from(error: HandshakeError) -> Self {
        Self(match error {
            // What it was in the original, which reads with `recv_bytes`.
            HandshakeError::Gone => PyEOFError::new_err(error.to_string()),
            HandshakeError::TimedOut { .. } => PyTimeoutError::new_err(error.to_string()),
            // The original's own words.
            HandshakeError::Rejected => {
                python::AuthenticationError::new_err("digest sent was rejected")
            }
            _ => python::AuthenticationError::new_err(error.to_string()),
        })
    }
}

impl From<EndpointError> for EngineError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::Handshake(error) => error.into(),
            EndpointError::Reentrant => Self(PyRuntimeError::new_err(error.to_string())),
            EndpointError::TimedOut => Self(PyTimeoutError::new_err(error.to_string())),
            EndpointError::Unresolved { .. } => Self(python::gaierror::new_err(text_of(&error))),
            _ => Self(match error.errno() {
                // The number makes it a ConnectionRefusedError or a FileNotFoundError.
                Some(errno) => PyOSError::new_err((errno, text_of(&error))),
                None if is_reset(&error) => PyConnectionResetError::new_err(text_of(&error)),
                None => PyOSError::new_err(text_of(&error)),
            }),
        }
    }
}

/// Whether the other end has gone in the middle of it, as no call of the system but the end of the
/// stream says.
fn is_reset(error: &EndpointError) -> bool {
    matches!(error, EndpointError::Os { source, .. } if source.kind() == io::ErrorKind::ConnectionReset)
}

impl From<RedeemError> for EngineError {
    fn from(error: RedeemError) -> Self {
        // As the original, which connects and then reads; the numbers choose the subclasses.
        Self(match error {
            RedeemError::Endpoint(error) => return error.into(),
            RedeemError::Withdrawn { .. } => PyEOFError::new_err(error.to_string()),
            RedeemError::Gone { .. } => {
                PyOSError::new_err((io_number::ECONNREFUSED, error.to_string()))
            }
            RedeemError::TimedOut { .. } => {
                PyOSError::new_err((io_number::ETIMEDOUT, error.to_string()))
            }
            RedeemError::Descriptor(RecvError::Os { ref source }) => os_error(&error, source),
            other => PyRuntimeError::new_err(text_of(&other)),
        })
    }
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        Self(match &error {
            // The number makes it a BrokenPipeError or a ConnectionResetError.
            CallError::ServerGone { source: Some(source), .. } => os_error(&error, source),
            CallError::ServerGone { .. } => PyEOFError::new_err(error.to_string()),
            _ => PyOSError::new_err(error.to_string()),
        })
    }
}

/// The exception for a message that does not fit where it was to go, with the message in it.
pub(crate) fn buffer_too_short(message: Bound<'_, PyBytes>) -> EngineError {
    EngineError(python::BufferTooShort::new_err((message.unbind(),)))
}

impl From<WaitError> for EngineError {
    fn from(_: WaitError) -> Self {
        // As in the original, without a text.
        Self(python::TimeoutError::new_err(()))
    }
}

impl From<LockError> for EngineError {
    fn from(error: LockError) -> Self {
        // The original's own words.
        Self(match error {
            LockError::NotOwner => {
                PyAssertionError::new_err("attempt to release recursive lock not owned by thread")
            }
            _ => PyValueError::new_err("semaphore or lock released too many times"),
        })
    }
}

impl From<SemaphoreError> for EngineError {
    fn from(error: SemaphoreError) -> Self {
        match error {
            SemaphoreError::Arena(source) => source.into(),
            // The original's own words.
            _ => Self(PyValueError::new_err("semaphore or lock released too many times")),
        }
    }
}

impl From<ConditionError> for EngineError {
    fn from(error: ConditionError) -> Self {
        match error {
            ConditionError::Arena(source) => source.into(),
            other => Self(PyAssertionError::new_err(other.to_string())),
        }
    }
}

impl From<BarrierError> for EngineError {
    fn from(error: BarrierError) -> Self {
        Self(match error {
            BarrierError::Arena(source) => return source.into(),
            BarrierError::NoParties => PyValueError::new_err(error.to_string()),
            other => python::BrokenBarrierError::new_err(other.to_string()),
        })
    }
}

impl From<PoolError> for EngineError {
    fn from(error: PoolError) -> Self {
        Self(match error {
            PoolError::Closed => PyValueError::new_err("Pool not running"),
            PoolError::NotClosed => PyValueError::new_err("Pool is still running"),
            PoolError::NoWorkers => PyValueError::new_err("Number of processes must be at least 1"),
            PoolError::Broken(breakage) => python::BrokenPoolError::new_err(breakage.to_string()),
            PoolError::Arena(source) => return source.into(),
            PoolError::Os { ref source, .. } => os_error(&error, source),
            PoolError::TimedOut => python::TimeoutError::new_err(()),
            PoolError::Cancelled => python::CancelledError::new_err(error.to_string()),
            PoolError::Affinity { .. } => PyValueError::new_err(error.to_string()),
            // The launcher is Python code, so this is what it raised.
            PoolError::Launch(source) => match source.downcast::<PyErr>() {
                Ok(raised) => *raised,
                Err(other) => PyRuntimeError::new_err(text_of(other.as_ref())),
            },
            other => PyRuntimeError::new_err(text_of(&other)),
        })
    }
}

impl From<ServeError> for EngineError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Arena(source) => source.into(),
            ServeError::Affinity(source) => source.into(),
            other => Self(PyRuntimeError::new_err(text_of(&other))),
        }
    }
}

impl From<TaskLost> for EngineError {
    fn from(lost: TaskLost) -> Self {
        Self(match lost {
            TaskLost::WorkerDied(death) => worker_died(&death),
            TaskLost::Cancelled => python::CancelledError::new_err(lost.to_string()),
            TaskLost::TimedOut(ref late) => {
                let timeout = late.timeout.as_secs_f64();
                let text = format!(
                    "task {} took longer than {timeout} seconds; worker {} (pid {}) was killed",
                    late.task, late.name, late.pid,
                );
                python::TaskTimeoutError::new_err((text, late.pid, timeout, late.task))
            }
            TaskLost::Broken(breakage) => python::BrokenPoolError::new_err(breakage.to_string()),
            other => python::ProcessError::new_err(other.to_string()),
        })
    }
}

fn worker_died(death: &WorkerDied) -> PyErr {
    let exitcode = death.status.python_exitcode();
    let WorkerDied { pid, task, out_of_memory, .. } = *death;
    python::WorkerDiedError::new_err((death.to_string(), pid, exitcode, task, out_of_memory))
}

impl Interruption for WaitError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for BarrierError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for PutError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for GetError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for TasksError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for PoolError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for io::Error {
    fn is_interruption(&self) -> bool {
        self.kind() == io::ErrorKind::Interrupted
    }
}

impl Interruption for SendError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for RecvError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for CallError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for EndpointError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruption for RedeemError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}
