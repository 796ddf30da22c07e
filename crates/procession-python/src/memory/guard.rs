//! The lock around a shared object.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::sync::{PyLock, PyRLock, PySemLock};

/// A lock, as its two methods: it may be any object that has them.
pub(super) struct Guard {
    /// The lock, if it is one of ours: then nothing has to be looked up, nor called through Python.
    own: Option<Py<PySemLock>>,
    acquire: Py<PyAny>,
    release: Py<PyAny>,
}

impl Guard {
    pub(super) fn of(lock: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = lock.py();
        // Of these very classes: a subclass may have methods of its own.
        let own = lock.is_exact_instance_of::<PyLock>() || lock.is_exact_instance_of::<PyRLock>();
        Ok(Self {
            own: own
                .then(|| lock.cast::<PySemLock>().map(|lock| lock.clone().unbind()))
                .transpose()?,
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
        if let Some(own) = &self.own {
            PySemLock::take(own.bind(py), true, None)?;
            let result = access();
            own.get().free()?;
            return result;
        }
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
        visit.call(&self.own)?;
        visit.call(&self.acquire)?;
        visit.call(&self.release)
    }
}
