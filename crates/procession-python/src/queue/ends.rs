//! The two ends of a queue, for programs that know it as a pipe: `_reader` and `_writer`.

use std::os::fd::AsRawFd;

use procession::channel::{ByteQueue, GetError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

use crate::draft::with_draft;
use crate::error::EngineResult;
use crate::pickling::{dump_draft, load_within_tree, unpickle_bytes};
use crate::queue::{Closed, readiness_of, receive, send};
use crate::wait::{blocking, deadline_after};

/// The end of a queue to get from.
#[pyclass(name = "QueueReader", module = "procession._procession", frozen, weakref)]
pub(crate) struct PyQueueReader {
    queue: ByteQueue,
    closed: Closed,
}

impl PyQueueReader {
    pub(super) fn new(queue: ByteQueue, closed: Closed) -> Self {
        Self { queue, closed }
    }

    /// The queue, unless this end is closed.
    pub(super) fn open(&self) -> PyResult<&ByteQueue> {
        self.closed.check(Closed::READER).map(|()| &self.queue)
    }
}

#[pymethods]
impl PyQueueReader {
    /// Return a descriptor that is readable while there is something to get.
    fn fileno(&self, py: Python<'_>) -> EngineResult<i32> {
        let queue = self.open()?;
        Ok(readiness_of(py, queue)?.as_raw_fd())
    }

    /// Wait until there is something to get, and say whether there is.
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<bool> {
        let queue = self.open()?;
        if queue.is_ready() {
            return Ok(true);
        }
        let deadline = deadline_after(timeout);
        match blocking(py, || queue.wait_for_message(deadline))? {
            Err(GetError::Empty) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// Remove and return an object from the queue; wait for one if there is none.
    fn recv<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyAny>> {
        let message = receive(py, self.open()?, || None)?;
        load_within_tree(py, message.as_ref())
    }

    /// Remove an object from the queue, and return a pickle of it.
    fn recv_bytes<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyAny>> {
        static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let object = self.recv(py)?;
        Ok(DUMPS.import(py, "_pickle", "dumps")?.call1((object,))?)
    }

    /// Close this end of the queue in this process.
    fn close(&self) {
        self.closed.close(Closed::READER);
        self.queue.forget_readiness();
    }

    /// Whether this end of the queue is closed in this process.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.has(Closed::READER)
    }

    #[getter]
    fn readable(&self) -> bool {
        true
    }

    #[getter]
    fn writable(&self) -> bool {
        false
    }
}

/// The end of a queue to put into.
#[pyclass(name = "QueueWriter", module = "procession._procession", frozen, weakref)]
pub(crate) struct PyQueueWriter {
    queue: ByteQueue,
    closed: Closed,
}

impl PyQueueWriter {
    pub(super) fn new(queue: ByteQueue, closed: Closed) -> Self {
        Self { queue, closed }
    }

    fn open(&self) -> PyResult<&ByteQueue> {
        self.closed.check(Closed::WRITER).map(|()| &self.queue)
    }
}

#[pymethods]
impl PyQueueWriter {
    /// Return a descriptor that is always writable. Nothing is to be written to it.
    fn fileno(&self, py: Python<'_>) -> EngineResult<i32> {
        let queue = self.open()?;
        Ok(readiness_of(py, queue)?.writable().as_raw_fd())
    }

    /// Put an object into the queue.
    fn send(&self, obj: &Bound<'_, PyAny>) -> EngineResult<()> {
        let queue = self.open()?;
        with_draft(|draft| {
            let pins = dump_draft(obj, draft, true)?.unwrap_or_default();
            draft.with_parts(|parts| send(obj.py(), queue, parts, &pins, || None))
        })
    }

    /// Put the object that a pickle describes into the queue.
    fn send_bytes(&self, buf: &Bound<'_, PyAny>) -> EngineResult<()> {
        let bytes = buf.py().get_type::<PyBytes>().call1((buf,))?.cast_into::<PyBytes>();
        self.send(&unpickle_bytes(bytes.map_err(PyErr::from)?)?)
    }

    /// Close this end of the queue in this process.
    fn close(&self) {
        self.closed.close(Closed::WRITER);
    }

    /// Whether this end of the queue is closed in this process.
    #[getter]
    fn closed(&self) -> bool {
        self.closed.has(Closed::WRITER)
    }

    #[getter]
    fn readable(&self) -> bool {
        false
    }

    #[getter]
    fn writable(&self) -> bool {
        true
    }
}
