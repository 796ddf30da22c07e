//! Forks that the interpreter makes.

use std::sync::{Mutex, PoisonError};

use procession::process::PreparedFork;
use procession::shm::Arena;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::{EngineError, EngineResult};
use crate::process::PyChild;

/// A fork that is about to happen.
#[pyclass(name = "PreparedFork", module = "procession._procession", frozen)]
pub(crate) struct PyPreparedFork(Mutex<Option<PreparedFork>>);

impl PyPreparedFork {
    fn take(&self) -> PyResult<PreparedFork> {
        let mut prepared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.take().ok_or_else(|| PyRuntimeError::new_err("this fork is over"))
    }
}

#[pymethods]
impl PyPreparedFork {
    #[new]
    fn py_new(py: Python<'_>) -> EngineResult<Self> {
        let prepared = py.detach(PreparedFork::prepare)?;
        Ok(Self(Mutex::new(Some(prepared))))
    }

    /// In the parent: take charge of the child.
    fn in_parent(&self, py: Python<'_>, pid: u32) -> EngineResult<PyChild> {
        let prepared = self.take()?;
        py.detach(|| prepared.in_parent(pid)).map(PyChild).map_err(EngineError::from)
    }

    /// In the parent: leave the child to others.
    fn in_parent_unwatched(&self) -> PyResult<()> {
        self.take().map(PreparedFork::in_parent_unwatched)
    }

    /// In the child: become the process that was prepared for.
    fn in_child(&self, daemon: bool) -> EngineResult<()> {
        self.take()?.in_child(daemon).map_err(EngineError::from)
    }

    /// Nothing was forked.
    fn abandon(&self) -> PyResult<()> {
        self.take().map(PreparedFork::abandon)
    }
}

/// Say whether this process has any shared object or child, so that a fork must be prepared.
#[pyfunction]
pub(crate) fn in_use() -> bool {
    Arena::exists()
}
