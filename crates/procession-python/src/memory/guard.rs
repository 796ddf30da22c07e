//! The lock around a shared object.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, intern};

/// A lock, as its two methods: it may be any object that has them.
pub(super) struct Guard {
    acquire: Py<PyAny>,
    release: Py<PyAny>,
}

impl Guard {
    pub(super) fn of(lock: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = lock.py();
        Ok(Self {
            acquire: lock.getattr(intern!(py, "acquire"))?.unbind(),
            release: lock.getattr(intern!(py, "release"))?.unbind(),
        })
    }

    /// Calls `access` with the lock held.
    #[inline]
    pub(super) fn with<R>(
        &self,
        py: Python<'_>,
        access: impl FnOnce() -> PyResult<R>,
    ) -> PyResult<R> {
        self.acquire.bind(py).call0()?;
        let result = access();
        self.release.bind(py).call0()?;
        result
    }

    pub(super) fn acquire(&self) -> &Py<PyAny> {
        &self.acquire
    }

    pub(super) fn release(&self) -> &Py<PyAny> {
        &self.release
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.acquire)?;
        visit.call(&self.release)
    }
}
