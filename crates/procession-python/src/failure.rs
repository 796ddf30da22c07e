//! Exceptions on their way from a worker to the caller.
//!
//! A failed task's reply is a pickled pair: the traceback as text, and the pickled exception.
//! That the exception is a pickle within the pickle lets the caller say what went wrong even
//! where the exception itself cannot be brought back. The Python half, `_failure.py`, knows how
//! exceptions pickle.

use procession::pool::raw::Reply;
use procession::shm;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyTuple};

use crate::codec;
use crate::pickling::{dump, load};

fn helper(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static HELPER: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let helper =
        HELPER.get_or_try_init(py, || py.import("procession._failure").map(Bound::unbind))?;
    Ok(helper.bind(py))
}

/// Writes the reply of a task that raised `error`.
pub(crate) fn reply_raised(py: Python<'_>, error: PyErr, reply: &mut Reply) {
    reply_with(py, reply, "describe", (error.into_value(py),));
}

/// Writes the reply of a task that returned `value`, which did not pickle because of `error`.
pub(crate) fn reply_unsendable(
    py: Python<'_>,
    error: PyErr,
    value: &Bound<'_, PyAny>,
    reply: &mut Reply,
) {
    reply_with(py, reply, "describe_unsendable", (error.into_value(py), value));
}

fn reply_with<'py>(
    py: Python<'py>,
    reply: &mut Reply,
    method: &str,
    args: impl PyCallArgs<'py> + IntoPyObject<'py, Target = PyTuple>,
) {
    let (described, pins) = shm::pack(|| {
        let pair = helper(py)?.getattr(method)?.call1(args)?;
        dump(&pair, reply.bytes()).map(drop)
    });
    match described {
        Ok(()) => reply.pin(pins),
        Err(error) => {
            reply.clear();
            // A text without surrogates and an empty pickle: always plain.
            if let Ok(pair) = (error.to_string(), b"".as_slice()).into_pyobject(py) {
                codec::encode(&pair.into_any(), reply.bytes());
            }
        }
    }
}

/// The exception that a failed task's reply describes.
pub(crate) fn raised_by_task(py: Python<'_>, reply: &[u8]) -> PyErr {
    let rebuild = || -> PyResult<PyErr> {
        let pair = load(py, reply)?.cast_into::<PyTuple>()?;
        Ok(PyErr::from_value(helper(py)?.getattr("rebuild")?.call1(pair)?))
    };
    rebuild().unwrap_or_else(|error| error)
}
