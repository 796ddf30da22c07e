//! What stands behind an object of Python from its `__init__` or `__setstate__` on, and how it is
//! pickled if it lies in shared memory.

use std::sync::OnceLock;

use procession::shm::ArenaError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::{EngineResult, not_packed};

/// Empty between `__new__` and `__init__` or `__setstate__`, and filled once.
pub(crate) struct Late<T>(OnceLock<T>);

impl<T> Late<T> {
    pub(crate) const fn empty() -> Self {
        Self(OnceLock::new())
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// What is there; an error that names `init` if that has not been called.
    #[inline]
    pub(crate) fn made(&self, init: &str) -> PyResult<&T> {
        self.0.get().ok_or_else(|| not_made(init))
    }

    /// Fills it; an error that names `what` if that has happened before.
    pub(crate) fn fill(&self, value: T, what: &str) -> PyResult<()> {
        let again = |_| PyRuntimeError::new_err(format!("{what} is in use already"));
        self.0.set(value).map_err(again)
    }
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self::empty()
    }
}

#[cold]
fn not_made(init: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{init} has not been called"))
}

/// The number that stands for an object in what is being pickled; an error where nothing is.
pub(crate) fn packed(
    object: &Bound<'_, PyAny>,
    noted: Result<u64, ArenaError>,
) -> EngineResult<u64> {
    noted.map_err(|error| not_packed(object, error))
}
