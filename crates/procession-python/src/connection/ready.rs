//! `multiprocessing.connection.wait`.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use procession::channel::connection::{ByteConnection, wait_raw};
use procession::channel::{ByteQueue, Readiness};
use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::connection::PyConnection;
use crate::error::EngineResult;
use crate::queue::{queue_behind, readiness_of};
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
    let mut held = Held::default();
    let numbers = objects
        .iter()
        .map(|object| descriptor_of(object, &mut held))
        .collect::<EngineResult<Vec<_>>>()?;
    let ready = loop {
        let ready = blocking(py, || wait_raw(&numbers, deadline))??;
        let polled_none = ready.is_empty();
        let ready: Vec<_> =
            ready.into_iter().filter(|index| held.confirm_ready(numbers[*index])).collect();
        // A queue may say in vain that it is ready; then nothing has been waited for yet.
        if polled_none || !ready.is_empty() {
            break ready;
        }
    };
    Ok(PyList::new(py, ready.into_iter().map(|index| &objects[index]))?)
}

/// What is kept open during a wait.
#[derive(Default)]
struct Held {
    connections: Vec<Arc<ByteConnection>>,
    queues: Vec<(ByteQueue, Arc<Readiness>)>,
}

impl Held {
    /// Whether what has this descriptor is ready, now that the descriptor says so.
    fn confirm_ready(&self, number: RawFd) -> bool {
        let queue = self.queues.iter().find(|(_, readiness)| readiness.as_raw_fd() == number);
        queue.is_none_or(|(queue, _)| queue.confirm_ready())
    }
}

fn descriptor_of(object: &Bound<'_, PyAny>, held: &mut Held) -> EngineResult<RawFd> {
    if let Some(queue) = queue_behind(object)? {
        let readiness = readiness_of(object.py(), &queue)?;
        let number = readiness.as_raw_fd();
        held.queues.push((queue, readiness));
        return Ok(number);
    }
    if let Ok(connection) = object.cast::<PyConnection>() {
        let end = connection.get().end()?;
        let number = end.as_raw_fd();
        held.connections.push(end);
        return Ok(number);
    }
    let number = match object.cast::<PyInt>() {
        Ok(number) => number.extract(),
        Err(_) => fileno_of(object),
    };
    match number {
        Ok(number) if number >= 0 => Ok(number),
        Ok(number) => {
            let text = format!("Invalid file descriptor: {number}");
            Err(PyValueError::new_err(text).into())
        }
        Err(error) => Err(error.into()),
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
