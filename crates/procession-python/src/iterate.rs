//! `imap` and `imap_unordered`: results as they come, input as it is needed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use procession::pool::raw::{Frames, JobRef, RawBatch};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyIterator, PyList, PyType};

use crate::error::{EngineError, EngineResult};
use crate::generic::generic_alias;
use crate::jobs::{self, Call};
use crate::result::settle;
use crate::wait::{blocking, deadline_after};

/// Where the tasks come from.
pub(crate) struct Source {
    pub(crate) input: Py<PyIterator>,
    pub(crate) job: JobRef,
    /// Objects in a task; 1 for tasks that are no lists.
    pub(crate) chunksize: usize,
    /// Most tasks that are submitted and not yet asked for.
    pub(crate) window: usize,
}

/// Tasks that are submitted as their results are asked for.
pub(crate) struct Stream {
    batch: RawBatch,
    feed: Mutex<Feed>,
}

struct Feed {
    /// Until the input is used up.
    source: Option<Source>,
    /// What the input raised; comes after the results of what it gave before.
    raised: Option<PyErr>,
    /// Tasks submitted and not yet asked for.
    in_flight: usize,
    /// Values of a chunk that was taken apart.
    ready: VecDeque<Py<PyAny>>,
}

impl Stream {
    pub(crate) fn new(py: Python<'_>, batch: RawBatch, source: Source) -> EngineResult<Arc<Self>> {
        let feed =
            Feed { source: Some(source), raised: None, in_flight: 0, ready: VecDeque::new() };
        let stream = Arc::new(Self { batch, feed: Mutex::new(feed) });
        stream.lock(py).fill(py, &stream.batch)?;
        Ok(stream)
    }

    fn lock<'a>(&'a self, py: Python<'_>) -> MutexGuard<'a, Feed> {
        // Nothing is half-changed when an exception of the input passes through.
        self.feed.lock_py_attached(py).unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Submits all that is left, since the pool is about to close.
    pub(crate) fn submit_rest(&self, py: Python<'_>) -> EngineResult<()> {
        let mut feed = self.lock(py);
        if let Some(source) = &mut feed.source {
            source.window = usize::MAX;
        }
        feed.fill(py, &self.batch)
    }
}

impl Feed {
    /// Submits tasks until the window is full, if it is half empty.
    fn fill(&mut self, py: Python<'_>, batch: &RawBatch) -> EngineResult<()> {
        let Some(source) = &self.source else { return Ok(()) };
        if self.in_flight > source.window / 2 {
            return Ok(());
        }
        let input = source.input.clone_ref(py).into_bound(py);
        let call = if source.chunksize > 1 { Call::Items } else { Call::Item };
        let mut frames = Frames::new(&source.job, call.kind());
        let room = source.window - self.in_flight;
        let chunksize = source.chunksize;
        while frames.len() < room {
            match push_next(&mut frames, input.clone(), chunksize) {
                Ok(true) => {}
                Ok(false) => {
                    self.source = None;
                    break;
                }
                Err(error) => {
                    self.source = None;
                    self.raised = Some(error);
                    break;
                }
            }
        }
        self.in_flight += frames.len();
        Ok(blocking(py, || batch.submit(&mut frames))??)
    }
}

/// Adds a task with the next `chunksize` objects, or what is left of them; false if nothing is.
fn push_next(
    frames: &mut Frames,
    mut input: Bound<'_, PyIterator>,
    chunksize: usize,
) -> PyResult<bool> {
    if chunksize == 1 {
        let Some(item) = input.next() else { return Ok(false) };
        return jobs::push(frames, &item?).map(|()| true);
    }
    let chunk = PyList::empty(input.py());
    for item in input.take(chunksize) {
        chunk.append(item?)?;
    }
    if chunk.is_empty() {
        return Ok(false);
    }
    jobs::push(frames, chunk.as_any()).map(|()| true)
}

/// The results of `imap` and `imap_unordered`.
#[pyclass(name = "IMapIterator", module = "procession.pool", frozen, weakref)]
pub(crate) struct PyResultIterator {
    pub(crate) stream: Arc<Stream>,
    pub(crate) chunks: bool,
}

#[pymethods]
impl PyResultIterator {
    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        generic_alias(class, item)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> EngineResult<Py<PyAny>> {
        self.next(py, None)
    }

    /// Return the next result, or raise what the call raised.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<Py<PyAny>> {
        let deadline = deadline_after(timeout);
        loop {
            let mut feed = self.stream.lock(py);
            if let Some(value) = feed.ready.pop_front() {
                return Ok(value);
            }
            feed.fill(py, &self.stream.batch)?;
            drop(feed);
            let next = blocking(py, || self.stream.batch.next(deadline))?;
            let Some((_, outcome)) = next? else { return Err(self.end(py)) };
            self.stream.lock(py).in_flight -= 1;
            let value = settle(py, outcome)?;
            if !self.chunks {
                return Ok(value.unbind());
            }
            let mut feed = self.stream.lock(py);
            for item in value.try_iter()? {
                feed.ready.push_back(item?.unbind());
            }
        }
    }
}

impl PyResultIterator {
    /// What to raise when there are no more results.
    fn end(&self, py: Python<'_>) -> EngineError {
        let raised = self.stream.lock(py).raised.take();
        raised.unwrap_or_else(|| PyStopIteration::new_err(())).into()
    }
}
