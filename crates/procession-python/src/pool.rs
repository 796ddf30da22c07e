//! The engine of `multiprocessing.pool.Pool`.

use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use procession::pool::raw::{
    Affinity, JobRef, LaunchError, Launched, Launcher, Options, Order, Phase, RawBatch, RawPool,
    TaskOptions, WorkerBoot, WorkerState, WorkerStats,
};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::draft::with_scratch;
use crate::error::EngineResult;
use crate::iterate::{PyIMapIterator, Source, Stream};
use crate::jobs::{Call, Pack};
use crate::number;
use crate::pickling::{Form, dump_function};
use crate::process::PyChild;
use crate::result::{Callbacks, PyApplyResult, Shape};
use crate::wait::blocking;
use crate::worker::PyWorkerBoot;

/// Starts workers by calling Python.
struct PyLauncher(Py<PyAny>);

impl Launcher for PyLauncher {
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError> {
        let launched = Python::try_attach(|py| -> PyResult<Launched> {
            let worker = self.0.bind(py).call1((PyWorkerBoot(boot),))?;
            let (child, name) = worker.extract::<(PyRef<'_, PyChild>, String)>()?;
            Ok(Launched { child: child.0.clone(), name })
        });
        match launched {
            Some(launched) => launched.map_err(LaunchError::from),
            None => Err("the interpreter is shutting down".into()),
        }
    }
}

/// How long a task may take. Python's seconds, of which there must be some.
fn timeout_of(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(PyValueError::new_err(format!("timeout must be positive, not {seconds}")));
    }
    // More than can be represented is for ever.
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// What the caller says about the tasks of a call.
fn options_of(
    timeout: Option<f64>,
    retries: Option<u32>,
    fail_fast: bool,
) -> PyResult<TaskOptions> {
    Ok(TaskOptions { timeout: timeout_of(timeout)?, retries, fail_fast })
}

/// Says after a submission whether one of the tasks before has failed and ended the batch. It is
/// that failure which the caller is to see.
fn is_over(submitted: EngineResult<()>, batch: &RawBatch) -> EngineResult<bool> {
    match submitted {
        Err(_) if batch.first_failure().is_some() => Ok(true),
        submitted => submitted.map(|()| false),
    }
}

/// A limit, of which 0 would be none at all.
fn limit_of(name: &str, limit: Option<&Bound<'_, PyAny>>) -> PyResult<Option<NonZero<u64>>> {
    Ok(number::at_least(name, limit, 1)?.and_then(NonZero::new))
}

/// `"spread"`, or the CPUs of each worker.
fn affinity_of(affinity: Option<&Bound<'_, PyAny>>) -> PyResult<Affinity> {
    let Some(affinity) = affinity else { return Ok(Affinity::Any) };
    if let Ok(word) = affinity.cast::<PyString>() {
        if word == "spread" {
            return Ok(Affinity::Spread);
        }
        return Err(PyValueError::new_err(format!("affinity {word:?} is not known")));
    }
    let set = |cpus: PyResult<Bound<'_, PyAny>>| {
        cpus?.try_iter()?.map(|cpu| number::cpu(&cpu?)).collect::<PyResult<Vec<_>>>()
    };
    let sets = affinity.try_iter()?.map(set).collect::<PyResult<Vec<_>>>();
    let sets = sets.map_err(|error| match error.is_instance_of::<PyTypeError>(affinity.py()) {
        true => PyTypeError::new_err("affinity must be 'spread' or one set of CPUs per worker"),
        false => error,
    })?;
    Ok(Affinity::Sets(sets))
}

/// Worker processes and the tasks that they carry out.
#[pyclass(name = "Pool", module = "procession._procession", frozen)]
pub(crate) struct PyPool {
    /// Always there until it is dropped.
    raw: Option<RawPool>,
    /// How often a task is carried out again, unless its call says otherwise.
    retries: u32,
    /// The function of the last call: mostly it is the function of the next one too.
    last: Mutex<Option<(Py<PyAny>, JobRef)>>,
    /// Iterators with input that is not submitted yet.
    streams: Mutex<Vec<Weak<Stream>>>,
}

impl PyPool {
    fn raw(&self) -> PyResult<&RawPool> {
        self.raw.as_ref().ok_or_else(|| PyRuntimeError::new_err("the pool is being dropped"))
    }

    /// Whether tasks with these options may have to be carried out again.
    fn retried(&self, options: &TaskOptions) -> bool {
        options.retries.unwrap_or(self.retries) > 0
    }

    /// The function, as something that tasks can refer to.
    fn job(&self, function: &Bound<'_, PyAny>) -> EngineResult<JobRef> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, job)) = &*last
            && known.is(function)
        {
            return Ok(job.clone());
        }
        // Pickling runs Python code.
        drop(last);
        let (form, job) = with_scratch(|bytes| -> EngineResult<(Form, JobRef)> {
            let (form, pins) = dump_function(function, bytes)?;
            Ok((form, self.raw()?.register_job(bytes, Some(pins))?))
        })?;
        // Of all others the pickle may be another one next time.
        if form == Form::ByName && function.is_exact_instance_of::<PyFunction>() {
            last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((function.clone().unbind(), job.clone()));
        }
        Ok(job)
    }

    /// Submits one task for every object that `items` gives.
    #[expect(clippy::too_many_arguments, reason = "each says one thing about the call")]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        function: &Bound<'py, PyAny>,
        call: Call,
        shape: Shape,
        callbacks: Option<Callbacks>,
        options: TaskOptions,
        items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    ) -> EngineResult<Py<PyApplyResult>> {
        let job = self.job(function)?;
        let retried = self.retried(&options);
        let batch = self.raw()?.batch_with(Order::Index, options)?;
        let mut pack = Pack::new(&job, call, retried);
        for item in items {
            pack.push(&item?)?;
            if is_over(pack.submit_if_full(py, &batch), &batch)? {
                break;
            }
        }
        is_over(pack.submit(py, &batch), &batch)?;
        PyApplyResult::new(py, batch, shape, callbacks)
    }
}

#[pymethods]
impl PyPool {
    // The function's module may hold the pool.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.last.try_lock() {
            Ok(last) => last.iter().try_for_each(|(function, _)| visit.call(function)),
            Err(_) => Ok(()),
        }
    }

    /// Start the workers. `launch` starts one: it takes a `WorkerBoot` and returns child and name.
    #[new]
    #[pyo3(signature = (
        workers, retries, launch, *, max_memory=None, max_tasks=None, affinity=None
    ))]
    fn py_new(
        py: Python<'_>,
        workers: usize,
        #[pyo3(from_py_with = number::retries)] retries: u32,
        launch: Py<PyAny>,
        max_memory: Option<&Bound<'_, PyAny>>,
        max_tasks: Option<&Bound<'_, PyAny>>,
        affinity: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<Self> {
        let mut options = Options::new(workers);
        options.retries = retries;
        options.max_memory = limit_of("max_memory_per_child", max_memory)?;
        options.max_tasks = limit_of("maxtasksperchild", max_tasks)?;
        options.affinity = affinity_of(affinity)?;
        let launcher = Box::new(PyLauncher(launch));
        let raw = py.detach(|| RawPool::start(options, launcher))?;
        Ok(Self {
            raw: Some(raw),
            retries,
            last: Mutex::new(None),
            streams: Mutex::new(Vec::new()),
        })
    }

    /// Submit one call.
    #[pyo3(signature = (func, args, kwds, callbacks=None, *, timeout=None, retries=None))]
    #[expect(clippy::too_many_arguments, reason = "as Python has them")]
    fn apply(
        &self,
        py: Python<'_>,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        kwds: &Bound<'_, PyDict>,
        callbacks: Option<Callbacks>,
        timeout: Option<f64>,
        #[pyo3(from_py_with = number::retries_if_given)] retries: Option<u32>,
    ) -> EngineResult<Py<PyApplyResult>> {
        let options = options_of(timeout, retries, false)?;
        let payload = PyTuple::new(py, [args.as_any(), kwds.as_any()])?.into_any();
        let items = [Ok(payload)].into_iter();
        self.submit(py, func, Call::Full, Shape::Single, callbacks, options, items)
    }

    /// Submit a call for every object of a list, `chunksize` of them in a task.
    #[pyo3(signature = (
        func, items, chunksize, star, callbacks=None, *, timeout=None, retries=None,
        fail_fast=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "as Python has them")]
    fn map(
        &self,
        py: Python<'_>,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyList>,
        chunksize: usize,
        star: bool,
        callbacks: Option<Callbacks>,
        timeout: Option<f64>,
        #[pyo3(from_py_with = number::retries_if_given)] retries: Option<u32>,
        fail_fast: bool,
    ) -> EngineResult<Py<PyApplyResult>> {
        let options = options_of(timeout, retries, fail_fast)?;
        if chunksize <= 1 {
            let call = if star { Call::Star } else { Call::Item };
            let items = items.iter().map(Ok);
            return self.submit(py, func, call, Shape::List, callbacks, options, items);
        }
        let call = if star { Call::Stars } else { Call::Items };
        let starts = (0..items.len()).step_by(chunksize);
        let chunks = starts.map(|start| Ok(items.get_slice(start, start + chunksize).into_any()));
        self.submit(py, func, call, Shape::Chunks, callbacks, options, chunks)
    }

    /// Submit calls for the objects of an iterable as their results are asked for.
    #[pyo3(signature = (
        func, iterable, chunksize, window, ordered, *, timeout=None, retries=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "as Python has them")]
    fn imap(
        &self,
        py: Python<'_>,
        func: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        chunksize: usize,
        window: usize,
        ordered: bool,
        timeout: Option<f64>,
        #[pyo3(from_py_with = number::retries_if_given)] retries: Option<u32>,
    ) -> EngineResult<Py<PyIMapIterator>> {
        let options = options_of(timeout, retries, false)?;
        let source = Source {
            input: iterable.try_iter()?.unbind(),
            job: self.job(func)?,
            chunksize,
            window,
            retried: self.retried(&options),
        };
        let order = if ordered { Order::Index } else { Order::Finish };
        let stream = Stream::new(py, self.raw()?.batch_with(order, options)?, source)?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&stream));
        drop(streams);
        PyIMapIterator::new(py, stream, ordered)
    }

    /// Number of workers that the pool keeps up.
    #[getter]
    fn workers(&self) -> PyResult<usize> {
        Ok(self.raw()?.workers())
    }

    /// What the pool has done and is doing, in numbers.
    fn stats<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyDict>> {
        let stats = self.raw()?.stats()?;
        let numbers = PyDict::new(py);
        for (name, number) in [
            ("done", stats.done),
            ("failed", stats.failed),
            ("lost", stats.lost),
            ("timed_out", stats.timed_out),
            ("cancelled", stats.cancelled),
            ("waiting", stats.waiting as u64),
            ("running", stats.running as u64),
            ("retries", stats.retries),
            ("deaths", stats.deaths),
            ("restarts", stats.restarts),
        ] {
            numbers.set_item(name, number)?;
        }
        let workers = stats.workers.iter().map(|worker| worker_stats(py, worker));
        numbers.set_item("workers", workers.collect::<PyResult<Vec<_>>>()?)?;
        Ok(numbers)
    }

    /// `RUN`, `CLOSE` or `TERMINATE`; `INHERITED` in a process that does not own the pool.
    #[getter]
    fn state(&self) -> PyResult<&'static str> {
        Ok(match self.raw()?.status().map(|status| status.phase) {
            Ok(Phase::Running) => "RUN",
            Ok(Phase::Closed) => "CLOSE",
            Ok(_) => "TERMINATE",
            // In a copy of the process that owns it.
            Err(_) => "INHERITED",
        })
    }

    /// Take no more calls. Those that were made are carried out.
    fn close(&self, py: Python<'_>) -> EngineResult<()> {
        let streams =
            std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in streams.iter().filter_map(Weak::upgrade) {
            stream.submit_rest(py)?;
        }
        Ok(self.raw()?.close()?)
    }

    /// End the workers, whatever they are doing.
    fn terminate(&self, py: Python<'_>) -> EngineResult<()> {
        let raw = self.raw()?;
        Ok(blocking(py, || raw.terminate())??)
    }

    /// Block until the workers have ended. The pool must be closed or terminated.
    fn join(&self, py: Python<'_>) -> EngineResult<()> {
        let raw = self.raw()?;
        Ok(blocking(py, || raw.join(None))??)
    }
}

fn worker_stats<'py>(py: Python<'py>, worker: &WorkerStats) -> PyResult<Bound<'py, PyDict>> {
    let state = match worker.state {
        WorkerState::Starting => "starting",
        WorkerState::Idle => "idle",
        WorkerState::Running => "running",
        _ => "ending",
    };
    let numbers = PyDict::new(py);
    numbers.set_item("pid", worker.pid)?;
    numbers.set_item("name", &worker.name)?;
    numbers.set_item("state", state)?;
    numbers.set_item("since", worker.since.map(|time| time.as_secs_f64()))?;
    numbers.set_item("tasks", worker.tasks)?;
    numbers.set_item("busy", worker.busy.as_secs_f64())?;
    Ok(numbers)
}

impl Drop for PyPool {
    fn drop(&mut self) {
        let raw = self.raw.take();
        // Ends the workers and waits for a thread that may be waiting for the interpreter. Where
        // there is no interpreter any more, the closure is dropped with the pool in it.
        Python::try_attach(|py| py.detach(move || drop(raw)));
    }
}
