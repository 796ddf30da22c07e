//! `Queue`, `JoinableQueue` and `SimpleQueue` of `multiprocessing`.
//!
//! `plain`, `joinable` and `simple` have a class each, `ends` the objects that stand for the two ends
//! of a queue, `train` puts several objects at a time. The classes that users see are made of
//! these in `python/procession/queues.py`.

mod ends;
mod joinable;
mod plain;
mod simple;
mod train;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use procession::channel::{ByteQueue, GetError, Message, PutError, Readiness};
use procession::shm::Pins;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

pub(crate) use ends::{PyQueueReader, PyQueueWriter};
pub(crate) use joinable::PyJoinableQueue;
pub(crate) use plain::PyQueue;
pub(crate) use simple::PySimpleQueue;

use crate::error::{EngineError, EngineResult};
use crate::late::{Late, packed};
use crate::wait::{at_once, blocking, deadline_after};

/// Messages from this size on are copied with the interpreter let go of, in bytes.
const LARGE: usize = 64 << 10;

/// What this process has closed of a queue; the others do not care.
#[derive(Debug, Default, Clone)]
pub(crate) struct Closed(Arc<AtomicU8>);

impl Closed {
    const READER: u8 = 1;
    const WRITER: u8 = 2;
    const QUEUE: u8 = 4;

    #[inline]
    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn has(&self, part: u8) -> bool {
        self.0.load(Ordering::Relaxed) & part != 0
    }

    fn close(&self, part: u8) {
        self.0.fetch_or(part, Ordering::Relaxed);
    }

    /// An error, in the original's own words, if this part is closed.
    #[inline]
    fn check(&self, part: u8) -> PyResult<()> {
        if self.has(part) { Err(PyOSError::new_err("handle is closed")) } else { Ok(()) }
    }
}

/// Puts a message, first without blocking and then until `deadline`.
#[inline]
fn send(
    py: Python<'_>,
    queue: &ByteQueue,
    parts: &[&[u8]],
    pins: &Pins,
    deadline: impl FnOnce() -> Option<Instant>,
) -> EngineResult<()> {
    if matches!(parts, [bytes] if bytes.len() < LARGE) {
        match queue.put_parts(parts, pins, at_once()) {
            // Also without being full it may have waited, for another process in the middle of a put.
            Err(PutError::Full | PutError::Interrupted) => {}
            result => return Ok(result?),
        }
    }
    let deadline = deadline();
    Ok(blocking(py, || queue.put_parts(parts, pins, deadline))??)
}

/// Gets a message, first without blocking and then until `deadline`.
#[inline]
fn receive(
    py: Python<'_>,
    queue: &ByteQueue,
    deadline: impl FnOnce() -> Option<Instant>,
) -> EngineResult<Message> {
    match queue.get(at_once()) {
        // As for `send`.
        Err(GetError::Empty | GetError::Interrupted) => {}
        result => return Ok(result?),
    }
    let deadline = deadline();
    Ok(blocking(py, || queue.get(deadline))??)
}

/// When a call with these arguments gives up.
#[inline]
fn deadline_of(block: bool, timeout: Option<f64>) -> Option<Instant> {
    if block { deadline_after(timeout) } else { at_once() }
}

/// Calls the original's method on an object that a subclass has set up without us.
#[cold]
fn original<'py>(
    object: &Bound<'py, PyAny>,
    method: &str,
    arguments: impl IntoPyObject<
        'py,
        Target = PyTuple,
        Output = Bound<'py, PyTuple>,
        Error: Into<PyErr>,
    >,
) -> PyResult<Bound<'py, PyAny>> {
    static CALL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let arguments = arguments.into_pyobject(py).map_err(Into::into)?;
    CALL.import(py, "procession.queues", "_call_original")?.call1((object, method, arguments))
}

/// The queue behind an object, or behind one of its ends, as `connection.wait` looks at it.
pub(crate) fn queue_behind(object: &Bound<'_, PyAny>) -> EngineResult<Option<ByteQueue>> {
    if let Ok(queue) = object.cast::<PyQueue>() {
        return Ok(queue.get().queue.get().cloned());
    }
    if let Ok(queue) = object.cast::<PySimpleQueue>() {
        return Ok(queue.get().queue.get().cloned());
    }
    match object.cast::<PyQueueReader>() {
        Ok(reader) => reader.get().open().map(|queue| Some(queue.clone())).map_err(Into::into),
        Err(_) => Ok(None),
    }
}

/// The descriptor that tells when a queue has something, made now if it was not before.
pub(crate) fn readiness_of(py: Python<'_>, queue: &ByteQueue) -> EngineResult<Arc<Readiness>> {
    // Kept with the interpreter held, as in a fork, so that no child finds this half done.
    if let Some(known) = queue.known_readiness() {
        return Ok(known);
    }
    let made = py.detach(|| queue.make_readiness())?;
    Ok(queue.keep_readiness(made))
}

/// Gives an object the queue that it stands for from then on.
fn set(cell: &Late<ByteQueue>, queue: ByteQueue) -> PyResult<()> {
    cell.fill(queue, "the queue")
}

/// What is pickled for an object: the number of its queue, or what the original makes of it.
fn state_of<'py>(
    object: &Bound<'py, PyAny>,
    cell: &Late<ByteQueue>,
) -> EngineResult<Bound<'py, PyAny>> {
    let Some(queue) = cell.get() else {
        return Ok(original(object, "__getstate__", ())?);
    };
    Ok((packed(object, queue.note())?,).into_pyobject(object.py())?.into_any())
}

/// Takes over what [`state_of`] gave.
fn set_state(
    object: &Bound<'_, PyAny>,
    cell: &Late<ByteQueue>,
    state: &Bound<'_, PyAny>,
) -> EngineResult<()> {
    match state.extract::<(u64,)>() {
        Ok((handle,)) => Ok(set(cell, ByteQueue::open(handle)?)?),
        Err(_) => Ok(original(object, "__setstate__", (state,)).map(drop)?),
    }
}

/// For an object whose `__init__` has not run.
fn uninitialized() -> EngineError {
    PyRuntimeError::new_err("the __init__() of the queue has not been called").into()
}
