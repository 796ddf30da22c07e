//! What `multiprocessing.Barrier` works with.

use std::time::Instant;

use procession::sync::{Arrival, Barrier};
use pyo3::prelude::*;

use crate::error::EngineResult;
use crate::late::{Late, packed};
use crate::sync::deadline;
use crate::wait::blocking;

/// A place where processes wait until all of them have come.
#[pyclass(name = "Barrier", module = "procession._procession", frozen)]
pub(crate) struct PyBarrier {
    barrier: Late<Barrier>,
}

impl PyBarrier {
    fn barrier(&self) -> PyResult<&Barrier> {
        self.barrier.made("Barrier.__init__()")
    }

    fn fill(&self, barrier: Barrier) -> PyResult<()> {
        self.barrier.fill(barrier, "the barrier")
    }

    fn pass(
        py: Python<'_>,
        barrier: &Barrier,
        deadline: Option<Instant>,
        action: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<usize> {
        match blocking(py, || barrier.come(deadline))?? {
            Arrival::Waiting(place) => Ok(blocking(py, || place.wait(deadline))??),
            Arrival::Last(last) => {
                // If it raises, `last` is dropped, and the barrier breaks.
                action.map(Bound::call0).transpose()?;
                Ok(last.let_all_go()?)
            }
        }
    }
}

#[pymethods]
impl PyBarrier {
    #[new]
    #[pyo3(signature = (parties=None))]
    fn py_new(parties: Option<i64>) -> EngineResult<Self> {
        let made = Self { barrier: Late::empty() };
        if let Some(parties) = parties {
            made.fill(Barrier::new(parties.clamp(0, i64::from(u32::MAX)) as u32)?)?;
        }
        Ok(made)
    }

    fn __getstate__(slf: &Bound<'_, Self>) -> EngineResult<(u64,)> {
        Ok((packed(slf, slf.get().barrier()?.note())?,))
    }

    #[pyo3(signature = (state, /))]
    fn __setstate__(&self, state: (u64,)) -> EngineResult<()> {
        Ok(self.fill(Barrier::open(state.0)?)?)
    }

    /// Block until all have come, and return how many had come before. The last calls `action`.
    #[pyo3(signature = (timeout=None, action=None))]
    fn wait(
        &self,
        py: Python<'_>,
        timeout: Option<&Bound<'_, PyAny>>,
        action: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<usize> {
        Self::pass(py, self.barrier()?, deadline(timeout)?, action)
    }

    /// Make the barrier as new; those who wait get an error.
    fn reset(&self) -> PyResult<()> {
        self.barrier()?.reset();
        Ok(())
    }

    /// Break the barrier.
    fn abort(&self) -> PyResult<()> {
        self.barrier()?.abort();
        Ok(())
    }

    /// How many must come.
    #[getter]
    fn parties(&self) -> PyResult<u32> {
        Ok(self.barrier()?.parties())
    }

    /// How many wait at this moment.
    #[getter]
    fn n_waiting(&self) -> PyResult<usize> {
        Ok(self.barrier()?.waiters())
    }

    /// Whether the barrier is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.barrier()?.is_broken())
    }
}
