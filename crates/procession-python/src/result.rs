//! `multiprocessing.pool.ApplyResult` and `MapResult`.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use procession::pool::raw::{Outcome, PoolError, RawBatch};
use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{EngineError, EngineResult};
use crate::failure::raised_by_task;
use crate::pickling::load_within_tree;
use crate::wait::{blocking, deadline_after};

/// The value or exception of one task.
pub(crate) fn settle<'py>(py: Python<'py>, outcome: Outcome) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Outcome::Done(reply) => Ok(load_within_tree(py, &reply)?),
        Outcome::Failed(reply) => Err(raised_by_task(py, &reply)),
        Outcome::Lost(lost) => Err(EngineError::from(lost).into()),
    }
}

/// What the values of the tasks make up together.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// There is one task, and its value is the result.
    Single,
    /// A list of the values.
    List,
    /// Each value is a list; the result is one list of all their items.
    Chunks,
}

/// What the user wants to be called with the value, or with what was raised.
pub(crate) type Callbacks = (Option<Py<PyAny>>, Option<Py<PyAny>>);

/// The result of a call that a pool carries out.
#[pyclass(name = "ApplyResult", module = "procession.pool", subclass, frozen, weakref, generic)]
pub(crate) struct PyApplyResult {
    batch: Arc<RawBatch>,
    shape: Shape,
    /// Once the tasks are done, and somebody asked.
    settled: OnceLock<Settled>,
    /// Held while the outcomes are collected, which runs Python code.
    settling: Mutex<()>,
    /// Where there are callbacks: the result is ready only when they have been called.
    called_back: Option<Called>,
}

/// The result of several calls: a list of what they return.
#[pyclass(name = "MapResult", module = "procession.pool", extends = PyApplyResult, frozen)]
pub(crate) struct PyMapResult;

/// The value of a call, or what it raised.
type Settled = Result<Py<PyAny>, Py<PyBaseException>>;

#[derive(Default)]
struct Called {
    over: Mutex<bool>,
    changed: Condvar,
}

/// A thread that waits for a callback looks this often whether a signal came.
const SLICE: Duration = Duration::from_millis(50);

impl Called {
    fn is_over(&self) -> bool {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_over(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits a while; true if it is over.
    fn wait(&self, deadline: Option<Instant>) -> bool {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(over, slice, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl PyApplyResult {
    /// The result of all tasks that `batch` has now.
    pub(crate) fn new(
        py: Python<'_>,
        batch: RawBatch,
        shape: Shape,
        callbacks: Option<Callbacks>,
    ) -> EngineResult<Py<Self>> {
        let callbacks = callbacks.filter(|wanted| !matches!(wanted, (None, None)));
        let batch = Arc::new(batch);
        let this = Self {
            batch: Arc::clone(&batch),
            shape,
            settled: OnceLock::new(),
            settling: Mutex::new(()),
            called_back: callbacks.as_ref().map(|_| Called::default()),
        };
        let result = match shape {
            Shape::Single => Py::new(py, this)?,
            Shape::List | Shape::Chunks => {
                let initializer = PyClassInitializer::from(this).add_subclass(PyMapResult);
                Py::new(py, initializer)?.into_bound(py).into_super().unbind()
            }
        };
        if let Some(callbacks) = callbacks {
            let this = result.clone_ref(py);
            batch.on_complete(Box::new(move || {
                // Without an interpreter nobody is left to be called.
                Python::try_attach(|py| this.get().call_back(py, &callbacks));
            }))?;
        }
        Ok(result)
    }

    /// Tells the user; runs on the pool's thread.
    fn call_back(&self, py: Python<'_>, callbacks: &Callbacks) {
        let (callback, value) = match self.settled(py) {
            Ok(value) => (&callbacks.0, value.clone_ref(py)),
            Err(error) => (&callbacks.1, error.clone_ref(py).into_any()),
        };
        if let Some(callback) = callback
            && let Err(error) = callback.call1(py, (value,))
        {
            error.write_unraisable(py, Some(callback.bind(py)));
        }
        self.called_back.iter().for_each(Called::set_over);
    }

    fn is_ready(&self) -> bool {
        self.called_back.as_ref().map_or_else(|| self.batch.is_complete(), Called::is_over)
    }

    /// Waits for the result; false if the time ran out.
    fn complete(&self, py: Python<'_>, deadline: Option<Instant>) -> EngineResult<bool> {
        match blocking(py, || self.batch.wait(deadline))? {
            Ok(()) => {}
            Err(PoolError::TimedOut) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(called) = &self.called_back else { return Ok(true) };
        while !py.detach(|| called.wait(deadline)) {
            py.check_signals()?;
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn settled(&self, py: Python<'_>) -> &Settled {
        if let Some(settled) = self.settled.get() {
            return settled;
        }
        let _settling = self.settling.lock_py_attached(py);
        self.settled.get_or_init(|| match self.collect(py) {
            Ok(value) => Ok(value.unbind()),
            Err(error) => Err(error.into_value(py)),
        })
    }

    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // The tasks before it may have been cancelled because of it.
        if let Some(outcome) = self.batch.first_failure().and_then(|index| self.batch.take(index)) {
            settle(py, outcome)?;
        }
        let mut outcomes = self.batch.take_all().into_iter();
        match self.shape {
            Shape::Single => match outcomes.next() {
                Some(outcome) => settle(py, outcome),
                None => Err(PyValueError::new_err("the call has no task")),
            },
            Shape::List => {
                let values = outcomes.map(|outcome| settle(py, outcome));
                Ok(PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            Shape::Chunks => {
                let values = PyList::empty(py);
                for outcome in outcomes {
                    settle(py, outcome)?.try_iter()?.try_for_each(|item| values.append(item?))?;
                }
                Ok(values.into_any())
            }
        }
    }
}

#[pymethods]
impl PyApplyResult {
    // An exception holds the frames that it passed through, and one of them the result.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.settled.get() {
            Some(Ok(value)) => visit.call(value),
            Some(Err(error)) => visit.call(error),
            None => Ok(()),
        }
    }

    /// Block until the call is done and return its value, or raise what it raised.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<Py<PyAny>> {
        if !self.complete(py, deadline_after(timeout))? {
            return Err(PoolError::TimedOut.into());
        }
        match self.settled(py) {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(PyErr::from_value(error.bind(py).clone().into_any()).into()),
        }
    }

    /// Block until the call is done or the time ran out.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<()> {
        self.complete(py, deadline_after(timeout)).map(drop)
    }

    /// Say whether the call is done.
    fn ready(&self) -> bool {
        self.is_ready()
    }

    /// Give the call up, and say whether that was in time; with `running` false, only if not begun.
    #[pyo3(signature = (running=true))]
    fn cancel(&self, py: Python<'_>, running: bool) -> EngineResult<bool> {
        Ok(py.detach(|| self.batch.cancel(running))? > 0)
    }

    /// Say whether a worker has begun it and not done it.
    fn running(&self) -> bool {
        self.batch.is_running()
    }

    /// Have `call` called, without arguments, on the pool's thread once the call is done.
    ///
    /// The result does not wait for that before it is ready.
    fn add_done_callback(&self, call: Py<PyAny>) -> EngineResult<()> {
        let call = Box::new(move || {
            // Without an interpreter nobody is left to be called.
            Python::try_attach(|py| {
                if let Err(error) = call.call0(py) {
                    error.write_unraisable(py, Some(call.bind(py)));
                }
            });
        });
        Ok(self.batch.on_complete(call)?)
    }

    /// Wait for the call in a coroutine, without blocking its loop.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let future = slf.py().import("procession.aio")?.call_method1("future_of", (slf,))?;
        future.call_method0("__await__")
    }

    /// Return how many of the tasks are done, and how many there are.
    fn _progress(&self) -> (usize, usize) {
        let total = self.batch.len();
        (total - self.batch.unfinished().min(total), total)
    }

    /// Say whether the call returned rather than raised. It must be done.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let this = slf.get();
        if !this.is_ready() {
            return Err(PyValueError::new_err(format!("{slf:?} not ready")));
        }
        Ok(this.settled(slf.py()).is_ok())
    }
}
