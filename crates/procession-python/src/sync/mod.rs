//! Locks and their kin, as the base classes of those in `python/procession/synchronize.py`.
//!
//! The methods that programs call all the time are here and are inherited, so that a call of them
//! runs no Python code. A call that succeeds at once keeps the interpreter.

mod barrier;
mod condition;
mod event;
mod semlock;

pub(crate) use barrier::PyBarrier;
pub(crate) use condition::PyCondition;
pub(crate) use event::PyEvent;
pub(crate) use semlock::{PyBoundedSemaphore, PyLock, PyRLock, PySemLock, PySemaphore};

use std::time::Instant;

use procession::shm::ArenaError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::EngineError;
use crate::wait::deadline_after;

/// A timeout as the original takes it: `None`, or any real number of seconds.
fn deadline(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Instant>> {
    let seconds = timeout.map(|timeout| timeout.extract::<f64>()).transpose()?;
    Ok(deadline_after(seconds))
}

/// What pickling says when it was not able to keep the object alive.
fn not_packed(object: &Bound<'_, PyAny>, error: ArenaError) -> EngineError {
    let ArenaError::OutsideTree = error else { return error.into() };
    // The original's own words, with what is new here.
    let text = match object.get_type().name() {
        Ok(name) => format!(
            "{name} objects should only be shared between processes through inheritance, a queue or a pool"
        ),
        Err(error) => return error.into(),
    };
    PyRuntimeError::new_err(text).into()
}

/// What a method says of an object whose `__init__` has not been called.
fn not_made(class: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{class}.__init__() has not been called"))
}
