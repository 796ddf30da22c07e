//! Python objects to bytes and back.
//!
//! Plain values go through the [codec](crate::codec); all else through the standard library's
//! `ForkingPickler`, with every reducer that was registered there.

use std::cell::Cell;

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
    pickled.map(|()| Some(pins))
}

/// Appends what `ForkingPickler` makes of `value`.
fn forking_pickler(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    static REDUCTION: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = value.py();
    let reduction = REDUCTION.get_or_try_init(py, || {
        // By way of ours: the name `multiprocessing.reduction` may have been given away.
        let stdlib = py.import("procession._stdlib")?;
        stdlib.getattr("reduction")?.cast_into::<PyModule>().map(Bound::unbind).map_err(PyErr::from)
    })?;
    // Looked up each time, because programs put their own pickler there.
    let pickler = reduction.bind(py).getattr(intern!(py, "ForkingPickler"))?;
    let pickled = pickler.call_method1(intern!(py, "dumps"), (value,))?;
    append_buffer(&pickled, out)
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
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(py, "pickle", "loads")?;
    loads.call1((PyBytes::new(py, pickle),))
}

/// Pickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn dumps<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_scratch(|bytes| {
        // Without `pack`: nothing would keep shared objects alive for the reader.
        if !codec::encode(obj, bytes) {
            forking_pickler(obj, bytes)?;
        }
        Ok(PyBytes::new(obj.py(), bytes))
    })
}

/// Unpickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    load(py, pickle)
}
