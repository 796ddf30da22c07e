//! `multiprocessing.SimpleQueue`.

use procession::channel::ByteQueue;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::draft::with_draft;
use crate::error::EngineResult;
use crate::late::Late;
use crate::pickling::{dump_draft, load_within_tree};
use crate::queue::ends::{PyQueueReader, PyQueueWriter};
use crate::queue::{Closed, original, receive, send, set, set_state, state_of, uninitialized};

/// A queue without limits of size or time.
#[pyclass(
    name = "SimpleQueue",
    module = "procession._procession",
    subclass,
    frozen,
    dict,
    weakref,
    generic
)]
pub(crate) struct PySimpleQueue {
    /// As in a queue.
    pub(super) queue: Late<ByteQueue>,
    closed: Closed,
}

impl PySimpleQueue {
    fn queue(&self) -> EngineResult<&ByteQueue> {
        self.queue.get().ok_or_else(uninitialized)
    }

    fn set(&self, queue: ByteQueue) -> PyResult<()> {
        set(&self.queue, queue)
    }
}

#[pymethods]
impl PySimpleQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self { queue: Late::empty(), closed: Closed::default() }
    }

    #[pyo3(signature = (*, ctx))]
    fn __init__(&self, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
        let _ = ctx;
        Ok(self.set(ByteQueue::new(0)?)?)
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> EngineResult<Bound<'py, PyAny>> {
        state_of(slf.as_any(), &slf.get().queue)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> EngineResult<()> {
        set_state(slf.as_any(), &slf.get().queue, state)
    }

    /// Put an object into the queue.
    fn put(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> EngineResult<()> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "put", (obj,)).map(drop)?);
        };
        slf.get().closed.check(Closed::WRITER)?;
        with_draft(|draft| {
            let pins = dump_draft(obj, draft, true)?.unwrap_or_default();
            draft.with_parts(|parts| send(slf.py(), queue, parts, &pins, || None))
        })
    }

    /// Remove and return an object from the queue; wait for one if there is none.
    fn get<'py>(slf: &Bound<'py, Self>) -> EngineResult<Bound<'py, PyAny>> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "get", ())?);
        };
        slf.get().closed.check(Closed::READER)?;
        let message = receive(slf.py(), queue, || None)?;
        load_within_tree(slf.py(), message.as_ref())
    }

    /// Say whether there is nothing to get.
    fn empty(slf: &Bound<'_, Self>) -> EngineResult<bool> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "empty", ())?.is_truthy()?);
        };
        slf.get().closed.check(Closed::READER)?;
        Ok(queue.is_empty())
    }

    /// Close the queue in this process: nothing more is put or got here.
    fn close(slf: &Bound<'_, Self>) -> EngineResult<()> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "close", ()).map(drop)?);
        };
        slf.get().closed.close(Closed::READER | Closed::WRITER);
        queue.forget_readiness();
        Ok(())
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
