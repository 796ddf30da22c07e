//! Tasks of a pool: how a call is written down for a worker, and carried out there.

use procession::pool::raw::{Frames, JobRef, RawBatch};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::error::EngineResult;
use crate::pickling::{dump, load_untouched, load_within_tree};
use crate::wait::blocking;

/// Tasks written down before the first of them are submitted.
const MOST_TASKS: usize = 16 << 10;

/// The same in bytes. Workers can begin with what is there, and the memory that they are done with
/// serves for the tasks that follow.
const MOST_BYTES: u64 = 4 << 20;

/// In the number of a task's [`Call`]: it may have to be carried out again.
const RETRIED: u32 = 1 << 8;

/// What the payload of a task holds, and how the function is called with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// One object: `f(item)`.
    Item,
    /// Several in one iterable: `f(*item)`.
    Star,
    /// A tuple and a dict: `f(*args, **kwds)`.
    Full,
    /// A list of objects: `[f(item) for item in items]`.
    Items,
    /// A list of iterables: `[f(*item) for item in items]`.
    Stars,
}

impl Call {
    const ALL: [Self; 5] = [Self::Item, Self::Star, Self::Full, Self::Items, Self::Stars];

    /// The number that a task carries for it.
    fn kind(self) -> u32 {
        self as u32
    }

    fn of_kind(kind: u32) -> PyResult<Self> {
        let known = Self::ALL.into_iter().find(|call| call.kind() == kind);
        known.ok_or_else(|| PyValueError::new_err(format!("task of unknown kind {kind}")))
    }
}

/// Tasks on their way to the pool.
pub(crate) struct Pack {
    frames: Frames,
    /// Number of bytes in them and apart from them.
    weight: u64,
}

impl Pack {
    /// Makes an empty one. If tasks may have to be carried out again, they are `retried`.
    pub(crate) fn new(job: &JobRef, call: Call, retried: bool) -> Self {
        let kind = if retried { call.kind() | RETRIED } else { call.kind() };
        Self { frames: Frames::new(job, kind), weight: 0 }
    }

    /// Adds a task with `value` as its payload.
    #[inline]
    pub(crate) fn push(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (weight, mut attached) = (&mut self.weight, None);
        self.frames.push_with(|bytes| -> PyResult<()> {
            let before = bytes.len();
            attached = dump(value, bytes)?;
            *weight += (bytes.len() - before) as u64;
            Ok(())
        })?;
        if let Some(attached) = attached {
            self.weight += attached.apart;
            self.frames.pin(attached.pins);
        }
        Ok(())
    }

    /// Submits the tasks if it is time for that.
    #[inline]
    pub(crate) fn submit_if_full(&mut self, py: Python<'_>, batch: &RawBatch) -> EngineResult<()> {
        if self.frames.len() >= MOST_TASKS || self.weight >= MOST_BYTES {
            self.submit(py, batch)?;
        }
        Ok(())
    }

    /// Submits the tasks.
    pub(crate) fn submit(&mut self, py: Python<'_>, batch: &RawBatch) -> EngineResult<()> {
        if !self.frames.is_empty() {
            blocking(py, || batch.submit(&mut self.frames))??;
        }
        self.weight = 0;
        Ok(())
    }
}

/// Carries out a task in a worker.
#[inline]
pub(crate) fn perform<'py>(
    function: &Bound<'py, PyAny>,
    kind: u32,
    payload: &[u8],
) -> EngineResult<Bound<'py, PyAny>> {
    let py = function.py();
    let payload = match kind & RETRIED {
        0 => load_within_tree(py, payload)?,
        _ => load_untouched(py, payload)?,
    };
    Ok(call(function, Call::of_kind(kind & !RETRIED)?, payload)?)
}

#[inline]
fn call<'py>(
    function: &Bound<'py, PyAny>,
    call: Call,
    payload: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    match call {
        Call::Item => function.call1((payload,)),
        Call::Star => function.call1(arguments(payload)?),
        Call::Full => {
            let (args, kwds) = payload.extract::<(Bound<'_, PyTuple>, Bound<'_, PyDict>)>()?;
            function.call(args, Some(&kwds).filter(|kwds| !kwds.is_empty()))
        }
        Call::Items => each(payload, |item| function.call1((item,))),
        Call::Stars => each(payload, |item| function.call1(arguments(item)?)),
    }
}

/// The arguments of a starred call, from any iterable.
fn arguments<'py>(item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let item = match item.cast_into_exact::<PyTuple>() {
        Ok(tuple) => return Ok(tuple),
        Err(error) => error.into_inner(),
    };
    let items = item.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(item.py(), items)
}

fn each<'py>(
    items: Bound<'py, PyAny>,
    call: impl Fn(Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let results = PyList::empty(items.py());
    for item in items.try_iter()? {
        results.append(call(item?)?)?;
    }
    Ok(results.into_any())
}
