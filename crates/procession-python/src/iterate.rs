//! `imap` and `imap_unordered`: results as they come, input as it is needed.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procession::pool::raw::{JobRef, RawBatch};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyIterator, PyList};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{EngineError, EngineResult};
use crate::jobs::{Call, Pack};
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
    /// Whether they may have to be carried out again.
    pub(crate) retried: bool,
}

/// Tasks that are submitted as their results are asked for.
pub(crate) struct Stream {
    batch: RawBatch,
    /// Whether the value of a task is a list of results.
    chunks: bool,
    /// Whoever has it may lock `feed`.
    turn: Mutex<()>,
    /// Locked and let go of by threads that are attached to the interpreter, so that it is either locked
    /// or not for all of a garbage collection, which looks at it several times.
    feed: Mutex<Feed>,
}

/// The feed, locked.
struct Turn<'a> {
    // Goes first.
    feed: MutexGuard<'a, Feed>,
    _turn: MutexGuard<'a, ()>,
}

impl Deref for Turn<'_> {
    type Target = Feed;

    fn deref(&self) -> &Feed {
        &self.feed
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Feed {
        &mut self.feed
    }
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
    /// A chunk has failed. There the original ends, since it takes chunks apart in a generator.
    failed: bool,
}

impl Stream {
    pub(crate) fn new(py: Python<'_>, batch: RawBatch, source: Source) -> EngineResult<Arc<Self>> {
        let chunks = source.chunksize > 1;
        let feed = Feed {
            source: Some(source),
            raised: None,
            in_flight: 0,
            ready: VecDeque::new(),
            failed: false,
        };
        let stream = Arc::new(Self { batch, chunks, turn: Mutex::new(()), feed: Mutex::new(feed) });
        stream.lock(py).fill(py, &stream.batch)?;
        Ok(stream)
    }

    fn lock<'a>(&'a self, py: Python<'_>) -> Turn<'a> {
        // Nothing is half-changed when an exception of the input passes through.
        let turn = self.turn.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { feed, _turn: turn }
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
        let mut pack = Pack::new(&source.job, call, source.retried);
        let (window, chunksize) = (source.window, source.chunksize);
        while self.in_flight < window {
            match push_next(&mut pack, input.clone(), chunksize) {
                Ok(true) => {
                    self.in_flight += 1;
                    pack.submit_if_full(py, batch)?;
                }
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
        pack.submit(py, batch)
    }
}

/// Adds a task with the next `chunksize` objects, or what is left of them; false if nothing is.
fn push_next(
    pack: &mut Pack,
    mut input: Bound<'_, PyIterator>,
    chunksize: usize,
) -> PyResult<bool> {
    if chunksize == 1 {
        let Some(item) = input.next() else { return Ok(false) };
        return pack.push(&item?).map(|()| true);
    }
    let chunk = PyList::empty(input.py());
    for item in input.take(chunksize) {
        chunk.append(item?)?;
    }
    if chunk.is_empty() {
        return Ok(false);
    }
    pack.push(chunk.as_any()).map(|()| true)
}

/// The results of `imap`.
#[pyclass(name = "IMapIterator", module = "procession.pool", subclass, frozen, weakref, generic)]
pub(crate) struct PyIMapIterator(Arc<Stream>);

/// The results of `imap_unordered`.
#[pyclass(
    name = "IMapUnorderedIterator",
    module = "procession.pool",
    extends = PyIMapIterator,
    frozen
)]
pub(crate) struct PyIMapUnorderedIterator;

#[pymethods]
impl PyIMapIterator {
    // The input may be a generator whose frame holds the iterator.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.feed.try_lock() {
            Ok(feed) => feed.source.iter().try_for_each(|source| visit.call(&source.input)),
            Err(_) => Ok(()),
        }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> EngineResult<Py<PyAny>> {
        self.next(py, None)
    }

    /// Read no more input, and give up the tasks that are not done.
    ///
    /// Those that a worker has begun are carried out nevertheless, unless `running` is true.
    #[pyo3(signature = (running=false))]
    fn cancel(&self, py: Python<'_>, running: bool) -> EngineResult<()> {
        let stream = &self.0;
        // What the input holds goes after the lock has been let go.
        let source = stream.lock(py).source.take();
        drop(source);
        Ok(py.detach(|| stream.batch.cancel(running)).map(drop)?)
    }

    /// Return the next result, or raise what the call raised.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<Py<PyAny>> {
        let stream = &self.0;
        let deadline = deadline_after(timeout);
        loop {
            if let Some(value) = stream.prepare_next(py)? {
                return Ok(value);
            }
            let next = blocking(py, || stream.batch.next(deadline))??;
            let Some((_, outcome)) = next else { return Err(stream.end(py)) };
            if let Some(value) = stream.take_in(settle(py, outcome), py)? {
                return Ok(value);
            }
        }
    }
}

impl PyIMapIterator {
    pub(crate) fn new(
        py: Python<'_>,
        stream: Arc<Stream>,
        ordered: bool,
    ) -> EngineResult<Py<Self>> {
        if ordered {
            return Ok(Py::new(py, Self(stream))?);
        }
        let initializer = PyClassInitializer::from(Self(stream));
        let iterator = Py::new(py, initializer.add_subclass(PyIMapUnorderedIterator))?;
        Ok(iterator.into_bound(py).into_super().unbind())
    }
}

impl Stream {
    /// A value that is here already; otherwise sees to it that enough tasks are under way.
    fn prepare_next(&self, py: Python<'_>) -> EngineResult<Option<Py<PyAny>>> {
        let mut feed = self.lock(py);
        if let Some(value) = feed.ready.pop_front() {
            return Ok(Some(value));
        }
        if feed.failed {
            return Err(PyStopIteration::new_err(()).into());
        }
        feed.fill(py, &self.batch)?;
        Ok(None)
    }

    /// Counts a task off, and returns its value, unless that is a chunk.
    fn take_in(
        &self,
        value: PyResult<Bound<'_, PyAny>>,
        py: Python<'_>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let mut feed = self.lock(py);
        feed.in_flight -= 1;
        feed.failed |= self.chunks && value.is_err();
        let value = value?;
        if !self.chunks {
            return Ok(Some(value.unbind()));
        }
        for item in value.try_iter()? {
            feed.ready.push_back(item?.unbind());
        }
        Ok(None)
    }

    /// What to raise when there are no more results.
    fn end(&self, py: Python<'_>) -> EngineError {
        let raised = self.lock(py).raised.take();
        raised.unwrap_or_else(|| PyStopIteration::new_err(())).into()
    }
}
