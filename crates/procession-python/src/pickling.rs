//! Python objects to bytes and back.
//!
//! Plain values go through the [codec](crate::codec); all else through the standard library's
//! `ForkingPickler`, with every reducer that was registered there. What that refuses goes by value
//! where it can: `_by_value.py` sees to that.

use std::cell::Cell;

use memchr::memmem;
use procession::shm::{self, Pins};
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyModule};

use crate::codec;

/// A scratch buffer larger than this is not kept for the next message, in bytes.
const KEEP: usize = 4 << 20;

thread_local! {
    /// Memory for the message being made, kept from the last one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends `f` an empty buffer. A call from within `f`, as pickling may make, gets another one.
#[inline]
pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let result = f(&mut buffer);
    if buffer.capacity() <= KEEP {
        SCRATCH.set(buffer);
    }
    result
}

/// Appends `value`, pickled, to `out`. The pins keep the shared objects that it names alive
/// until the bytes have been sent; `None` where it can name none.
#[inline]
pub(crate) fn dump(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<Option<Pins>> {
    if codec::encode(value, out) {
        return Ok(None);
    }
    let (pickled, pins) = shm::pack(|| forking_pickler(value, out));
    pickled.map(|_form| Some(pins))
}

/// Does what [`dump`] does, for a reader that may be of another tree: shared objects are refused,
/// since nothing would keep them alive on their way.
pub(crate) fn dump_outside(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    if !codec::encode(value, out) {
        forking_pickler(value, out)?;
    }
    Ok(())
}

/// How a pickle holds the functions and classes that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By their names: the pickle of a function is always the same.
    ByName,
    /// Some of them by value, with the closures and globals of this moment.
    ByValue,
}

/// Does what [`dump`] does, for a function; says in addition what form the pickle has.
pub(crate) fn dump_function(
    function: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> PyResult<(Form, Pins)> {
    let (pickled, pins) = shm::pack(|| forking_pickler(function, out));
    pickled.map(|form| (form, pins))
}

/// Appends what `ForkingPickler`, or cloudpickle in its place, makes of `value`.
fn forking_pickler(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
    static REDUCTION: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = value.py();
    let reduction = REDUCTION.get_or_try_init(py, || {
        // By way of ours: the name `multiprocessing.reduction` may have been given away.
        let stdlib = py.import("procession._stdlib")?;
        let reduction = stdlib.call_method1("load", ("reduction",))?;
        reduction.cast_into::<PyModule>().map(Bound::unbind).map_err(PyErr::from)
    })?;
    // Looked up each time, because programs put their own pickler there.
    let pickler = reduction.bind(py).getattr(intern!(py, "ForkingPickler"))?;
    match pickler.call_method1(intern!(py, "dumps"), (value,)) {
        Ok(pickled) => {
            let start = out.len();
            append_buffer(&pickled, out)?;
            // The name of a module that only this process has.
            if memmem::find(&out[start..], b"__main__").is_none() || main_comes_along(py)? {
                return Ok(Form::ByName);
            }
            out.truncate(start);
            by_value(value, None, out)
        }
        Err(error) => by_value(value, Some(error), out),
    }
}

/// Says whether every child has the main module.
fn main_comes_along(py: Python<'_>) -> PyResult<bool> {
    static COMES_ALONG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COMES_ALONG.import(py, "procession._by_value", "main_comes_along")?.call0()?.extract()
}

/// Appends a pickle with functions and classes by value; `refusal` is what came of pickling by name.
fn by_value(value: &Bound<'_, PyAny>, refusal: Option<PyErr>, out: &mut Vec<u8>) -> PyResult<Form> {
    static INSTEAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let instead = INSTEAD.import(value.py(), "procession._by_value", "pickle_instead")?;
    let (pickled, by_value) =
        instead.call1((value, refusal))?.extract::<(Bound<'_, PyAny>, bool)>()?;
    append_buffer(&pickled, out)?;
    Ok(if by_value { Form::ByValue } else { Form::ByName })
}

fn append_buffer(source: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let buffer = PyBuffer::<u8>::get(source)?;
    let start = out.len();
    out.resize(start + buffer.len_bytes(), 0);
    buffer.copy_to_slice(source.py(), &mut out[start..])
}

/// The object that `pickle` describes.
#[inline]
pub(crate) fn load<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match codec::decode(py, pickle) {
        Some(value) => Ok(value),
        None => unpickle(py, pickle),
    }
}

fn unpickle<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    unpickle_bytes(PyBytes::new(py, pickle))
}

/// The object that a pickle, which Python has already, describes.
pub(crate) fn unpickle_bytes(pickle: Bound<'_, PyBytes>) -> PyResult<Bound<'_, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(pickle.py(), "_pickle", "loads")?;
    loads.call1((pickle,))
}

/// Pickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn dumps<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_scratch(|bytes| {
        dump_outside(obj, bytes)?;
        Ok(PyBytes::new(obj.py(), bytes))
    })
}

/// Unpickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    load(py, pickle)
}
