//! `multiprocessing.Queue`.

use procession::channel::ByteQueue;
use procession::shm::Pins;
use pyo3::exceptions::{PyAssertionError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::draft::with_draft;
use crate::error::EngineResult;
use crate::late::Late;
use crate::number;
use crate::pickling::{dump_draft, load_within_tree};
use crate::queue::ends::{PyQueueReader, PyQueueWriter};
use crate::queue::train::{load_train, put_train};
use crate::queue::{
    Closed, deadline_of, original, receive, send, set, set_state, state_of, uninitialized,
};
use crate::wait::{blocking, truth};

/// A queue that any process of the tree can put objects into and get them from.
#[pyclass(
    name = "Queue",
    module = "procession._procession",
    subclass,
    frozen,
    dict,
    weakref,
    generic
)]
pub(crate) struct PyQueue {
    /// Empty between `__new__` and `__init__` or `__setstate__`, so that a subclass is free in
    /// what its `__init__` takes; and for good in one that sets the original's attributes itself.
    pub(super) queue: Late<ByteQueue>,
    closed: Closed,
}

impl PyQueue {
    pub(super) fn empty_shell() -> Self {
        Self { queue: Late::empty(), closed: Closed::default() }
    }

    pub(super) fn queue(&self) -> EngineResult<&ByteQueue> {
        self.queue.get().ok_or_else(uninitialized)
    }

    pub(super) fn set(&self, queue: ByteQueue) -> PyResult<()> {
        set(&self.queue, queue)
    }

    /// An error if the queue, or this end of it, is closed in this process.
    #[inline]
    fn check(slf: &Bound<'_, Self>, end: u8) -> PyResult<()> {
        let closed = &slf.get().closed;
        if closed.any() { Self::refuse(slf, end) } else { Ok(()) }
    }

    #[cold]
    fn refuse(slf: &Bound<'_, Self>, end: u8) -> PyResult<()> {
        let closed = &slf.get().closed;
        if closed.has(Closed::QUEUE) {
            return Err(PyValueError::new_err(format!("Queue {slf:?} is closed")));
        }
        closed.check(end)
    }

    /// What comes of an object that cannot be pickled: the exception goes to whoever calls `put`,
    /// unless a subclass wants to have it. The original calls this hook in a thread of its own.
    #[cold]
    fn refused(slf: &Bound<'_, Self>, error: PyErr, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let name = intern!(py, "_on_queue_feeder_error");
        let hook = slf.getattr(name)?;
        if hook.is(py.import("procession.queues")?.getattr("Queue")?.getattr(name)?) {
            return Err(error);
        }
        hook.call1((error, obj)).map(drop)
    }
}

#[pymethods]
impl PyQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::empty_shell()
    }

    #[pyo3(signature = (maxsize=0, *, ctx))]
    fn __init__(&self, maxsize: isize, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
        // The original keeps its locks there; nothing here depends on the start method.
        let _ = ctx;
        let queue = ByteQueue::new(usize::try_from(maxsize).unwrap_or(0))?;
        Ok(self.set(queue)?)
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> EngineResult<Bound<'py, PyAny>> {
        state_of(slf.as_any(), &slf.get().queue)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> EngineResult<()> {
        set_state(slf.as_any(), &slf.get().queue, state)
    }

    /// Put an object into the queue.
    #[pyo3(signature = (obj, block=true, timeout=None))]
    fn put(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<()> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "put", (obj, block, timeout)).map(drop)?);
        };
        Self::check(slf, Closed::WRITER)?;
        with_draft(|draft| {
            let pins: Pins = match dump_draft(obj, draft, true) {
                Ok(pins) => pins.unwrap_or_default(),
                Err(error) => return Ok(Self::refused(slf, error, obj)?),
            };
            draft.with_parts(|parts| {
                send(slf.py(), queue, parts, &pins, || deadline_of(block, timeout))
            })
        })
    }

    /// Remove and return an object from the queue.
    #[pyo3(signature = (block=true, timeout=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "get", (block, timeout))?);
        };
        Self::check(slf, Closed::READER)?;
        let message = receive(slf.py(), queue, || deadline_of(block, timeout))?;
        load_within_tree(slf.py(), message.as_ref())
    }

    /// Put an object into the queue if there is room.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> EngineResult<()> {
        Self::put(slf, obj, false, None)
    }

    /// Remove and return an object if there is one.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> EngineResult<Bound<'py, PyAny>> {
        Self::get(slf, false, None)
    }

    /// Put several objects into the queue, in their order, and return how many there was room for.
    #[pyo3(signature = (objs, block=true, timeout=None))]
    fn put_many(
        slf: &Bound<'_, Self>,
        objs: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<usize> {
        let queue = slf.get().queue()?;
        Self::check(slf, Closed::WRITER)?;
        let deadline = deadline_of(block, timeout);
        with_draft(|draft| {
            let train = load_train(objs, draft)?;
            put_train(slf.py(), queue, &train, draft, deadline)
        })
    }

    /// Remove and return up to `limit` objects, at least one.
    #[pyo3(signature = (limit, block=true, timeout=None))]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = number::limit)] limit: usize,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<Bound<'py, PyList>> {
        let (py, queue) = (slf.py(), slf.get().queue()?);
        Self::check(slf, Closed::READER)?;
        let deadline = deadline_of(block, timeout);
        let messages = blocking(py, || queue.get_many(limit, deadline))??;
        let objects = PyList::empty(py);
        for message in &messages {
            objects.append(load_within_tree(py, message.as_ref())?)?;
        }
        Ok(objects)
    }

    /// Return how many objects are in the queue.
    fn qsize(slf: &Bound<'_, Self>) -> EngineResult<usize> {
        match slf.get().queue.get() {
            Some(queue) => Ok(queue.len()),
            None => Ok(original(slf.as_any(), "qsize", ())?.extract()?),
        }
    }

    /// Say whether there is nothing to get.
    fn empty(slf: &Bound<'_, Self>) -> EngineResult<bool> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "empty", ())?.is_truthy()?);
        };
        slf.get().closed.check(Closed::READER)?;
        Ok(queue.is_empty())
    }

    /// Say whether there is no room to put anything.
    fn full(slf: &Bound<'_, Self>) -> EngineResult<bool> {
        match slf.get().queue.get() {
            Some(queue) => Ok(queue.is_full()),
            None => Ok(original(slf.as_any(), "full", ())?.is_truthy()?),
        }
    }

    /// Close the queue in this process: nothing more is put or got here.
    fn close(slf: &Bound<'_, Self>) -> EngineResult<()> {
        if slf.get().queue.get().is_none() {
            return Ok(original(slf.as_any(), "close", ()).map(drop)?);
        }
        slf.get().closed.close(Closed::QUEUE);
        Ok(())
    }

    /// Do nothing: what was put is in the queue already. The queue must be closed.
    fn join_thread(slf: &Bound<'_, Self>) -> EngineResult<()> {
        if slf.get().queue.get().is_none() {
            return Ok(original(slf.as_any(), "join_thread", ()).map(drop)?);
        }
        if slf.get().closed.has(Closed::QUEUE) {
            return Ok(());
        }
        Err(PyAssertionError::new_err(format!("Queue {slf:?} not closed")).into())
    }

    /// Do nothing: a process never waits for its queues when it ends.
    fn cancel_join_thread(slf: &Bound<'_, Self>) -> EngineResult<()> {
        if slf.get().queue.get().is_none() {
            original(slf.as_any(), "cancel_join_thread", ())?;
        }
        Ok(())
    }

    /// Whether the queue is closed in this process.
    #[getter]
    fn _is_closed(&self) -> bool {
        self.closed.has(Closed::QUEUE)
    }

    /// The most objects in the queue at a time; 0 for as many as there is memory for.
    #[getter]
    fn _limit(&self) -> EngineResult<usize> {
        Ok(self.queue()?.max_items())
    }

    /// Whether the queue is this class's, and not one that a subclass has set up without it.
    #[getter]
    fn _is_native(&self) -> bool {
        self.queue.get().is_some()
    }

    /// Make the object that stands for the end to get from.
    fn _make_reader(&self) -> EngineResult<PyQueueReader> {
        Ok(PyQueueReader::new(self.queue()?.clone(), self.closed.clone()))
    }

    /// Make the object that stands for the end to put into.
    fn _make_writer(&self) -> EngineResult<PyQueueWriter> {
        Ok(PyQueueWriter::new(self.queue()?.clone(), self.closed.clone()))
    }
}
