//! Locks and their kin, as the base classes of those in `python/procession/synchronize.py`.
//!
//! The methods that programs call all the time are here and are inherited, so that a call of them
//! runs no Python code. A call that succeeds at once keeps the interpreter.

mod barrier;
mod condition;
mod event;
mod gate;
mod locks;
mod semlock;

pub(crate) use barrier::PyBarrier;
pub(crate) use condition::PyCondition;
pub(crate) use event::PyEvent;
pub(crate) use locks::{PyBoundedSemaphore, PyLock, PyRLock, PySemaphore};
pub(crate) use semlock::PySemLock;

use std::time::Instant;

use pyo3::prelude::*;

use crate::wait::deadline_after;

/// A timeout as the original takes it: `None`, or any real number of seconds.
fn deadline(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Instant>> {
    let seconds = timeout.map(|timeout| timeout.extract::<f64>()).transpose()?;
    Ok(deadline_after(seconds))
}
