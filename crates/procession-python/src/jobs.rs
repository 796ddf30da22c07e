//! Tasks of a pool: how a call is written down for a worker, and carried out there.

use procession::pool::raw::Frames;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::pickling::{dump, load};

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
    pub(crate) fn kind(self) -> u32 {
        self as u32
    }

    fn of_kind(kind: u32) -> PyResult<Self> {
        let known = Self::ALL.into_iter().find(|call| call.kind() == kind);
        known.ok_or_else(|| PyValueError::new_err(format!("task of unknown kind {kind}")))
    }
}

/// Adds a task with `value` as its payload.
#[inline]
pub(crate) fn push(frames: &mut Frames, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut named = None;
    frames.push_with(|bytes| dump(value, bytes).map(|pins| named = pins))?;
    if let Some(pins) = named {
        frames.pin(pins);
    }
    Ok(())
}

/// Carries out a task in a worker.
#[inline]
pub(crate) fn perform<'py>(
    function: &Bound<'py, PyAny>,
    kind: u32,
    payload: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let payload = load(py, payload)?;
    match Call::of_kind(kind)? {
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
