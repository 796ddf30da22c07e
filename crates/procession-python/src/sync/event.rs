//! `multiprocessing.Event`.

use procession::sync::Event;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::EngineResult;
use crate::late::{Late, packed};
use crate::sync::deadline;
use crate::wait::blocking;

/// A flag that any process of the tree can set, clear and wait for.
#[pyclass(name = "Event", module = "procession._procession", subclass, frozen, weakref)]
pub(crate) struct PyEvent {
    event: Late<Event>,
}

impl PyEvent {
    #[inline]
    fn event(&self) -> PyResult<&Event> {
        self.event.made("Event.__init__()")
    }

    fn fill(&self, event: Event) -> PyResult<()> {
        self.event.fill(event, "the event")
    }
}

#[pymethods]
impl PyEvent {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self { event: Late::empty() }
    }

    #[pyo3(signature = (*, ctx))]
    fn __init__(&self, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
        // The original keeps its locks there; nothing here depends on the start method.
        let _ = ctx;
        Ok(self.fill(Event::new()?)?)
    }

    fn __getstate__(slf: &Bound<'_, Self>) -> EngineResult<(u64,)> {
        Ok((packed(slf, slf.get().event()?.note())?,))
    }

    #[pyo3(signature = (state, /))]
    fn __setstate__(&self, state: (u64,)) -> EngineResult<()> {
        Ok(self.fill(Event::open(state.0)?)?)
    }

    /// Say whether the flag is set.
    fn is_set(&self) -> PyResult<bool> {
        Ok(self.event()?.is_set())
    }

    /// Set the flag and wake all who wait for it.
    fn set(&self) -> PyResult<()> {
        self.event()?.set();
        Ok(())
    }

    /// Clear the flag.
    fn clear(&self) -> PyResult<()> {
        self.event()?.clear();
        Ok(())
    }

    /// Block until the flag is set, and say whether it was in time.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> EngineResult<bool> {
        let event = self.event()?;
        let deadline = deadline(timeout)?;
        if event.is_set() {
            return Ok(true);
        }
        Ok(blocking(py, || event.wait(deadline))?.is_ok())
    }
}
