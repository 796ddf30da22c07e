//! `multiprocessing.connection.wait`.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use procession::channel::connection::{ByteConnection, wait_raw};
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::connection::PyConnection;
use crate::error::EngineResult;
use crate::wait::{blocking, deadline_after};

/// Wait until an object in object_list is ready, and return a list of those that are.
#[pyfunction]
#[pyo3(signature = (object_list, timeout=None))]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    object_list: &Bound<'py, PyAny>,
    timeout: Option<f64>,
) -> EngineResult<Bound<'py, PyList>> {
    let deadline = deadline_after(timeout);
    let objects = object_list.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    // Kept open until the end, so that no number comes to stand for something else.
    let mut held = Vec::new();
    let numbers = objects
        .iter()
        .map(|object| descriptor_of(object, &mut held))
        .collect::<PyResult<Vec<_>>>()?;
    let ready = blocking(py, || wait_raw(&numbers, deadline))??;
    Ok(PyList::new(py, ready.into_iter().map(|index| &objects[index]))?)
}

fn descriptor_of(
    object: &Bound<'_, PyAny>,
    held: &mut Vec<Arc<ByteConnection>>,
) -> PyResult<RawFd> {
    if let Ok(connection) = object.cast::<PyConnection>() {
        let end = connection.get().end()?;
        let number = end.as_raw_fd();
        held.push(end);
        return Ok(number);
    }
    let number = match object.cast::<PyInt>() {
        Ok(number) => number.extract(),
        Err(_) => fileno_of(object),
    };
    match number {
        Ok(number) if number >= 0 => Ok(number),
        Ok(number) => Err(PyValueError::new_err(format!("Invalid file descriptor: {number}"))),
        Err(error) => Err(error),
    }
}

fn fileno_of(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = object.py();
    object.call_method0(intern!(py, "fileno")).and_then(|number| number.extract()).map_err(
        |error| {
            let no_file = error.is_instance_of::<PyAttributeError>(py)
                || error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyValueError>(py);
            if !no_file {
                return error;
            }
            let invalid = PyValueError::new_err(format!("Invalid file object: {object:?}"));
            invalid.set_cause(py, Some(error));
            invalid
        },
    )
}
