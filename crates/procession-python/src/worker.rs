//! The worker's side of a pool.

use std::collections::HashMap;

use procession::pool::raw::{self, Job, Reply, RunStatus, Runner, WorkerBoot};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::error::EngineResult;
use crate::failure;
use crate::jobs;
use crate::pickling::{dump, load};

/// Functions that a worker keeps at hand; when there are more, it starts afresh.
const FUNCTIONS: usize = 128;

/// What a worker needs to find its pool.
#[pyclass(name = "WorkerBoot", module = "procession._procession", frozen)]
pub(crate) struct PyWorkerBoot(pub(crate) WorkerBoot);

#[pymethods]
impl PyWorkerBoot {
    /// Say why the worker cannot start. It must end then.
    fn start_failed(&self, reason: &str) {
        self.0.start_failed(reason);
    }

    /// Run where the pool wants this worker to be. `serve` does so too; this is for what comes before.
    fn prepare(&self) -> EngineResult<()> {
        Ok(self.0.prepare()?)
    }

    /// Carry out tasks until the pool closes, at most `tasks` of them.
    #[pyo3(signature = (tasks=None))]
    fn serve(&self, py: Python<'_>, tasks: Option<u64>) -> EngineResult<()> {
        let mut worker = Worker { functions: HashMap::new(), left: tasks, raised: None };
        let served = py.detach(|| raw::serve(&self.0, &mut worker));
        match worker.raised {
            Some(error) => Err(error.into()),
            None => Ok(served?),
        }
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> EngineResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let py = slf.py();
        let bytes = slf.get().0.to_bytes()?;
        let rebuild = py.get_type::<Self>().getattr("_rebuild")?;
        Ok((rebuild, (PyBytes::new(py, &bytes),)))
    }

    #[classmethod]
    fn _rebuild(_class: &Bound<'_, PyType>, pickle: &[u8]) -> EngineResult<Self> {
        Ok(Self(WorkerBoot::from_bytes(pickle)?))
    }
}

/// Carries out tasks.
struct Worker {
    /// By the handle of their job.
    functions: HashMap<u64, Py<PyAny>>,
    /// Tasks until it makes room for a fresh worker; `None` for never.
    left: Option<u64>,
    /// What a signal handler raised while the worker was idle.
    raised: Option<PyErr>,
}

impl Worker {
    fn function<'a, 'py>(
        &'a mut self,
        py: Python<'py>,
        job: Job<'_>,
    ) -> PyResult<&'a Bound<'py, PyAny>> {
        if !self.functions.contains_key(&job.handle) {
            let function = load(py, job.bytes)?.unbind();
            if self.functions.len() == FUNCTIONS {
                self.functions.clear();
            }
            self.functions.insert(job.handle, function);
        }
        Ok(self.functions[&job.handle].bind(py))
    }
}

impl Runner for Worker {
    fn run(&mut self, job: Job<'_>, kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus {
        Python::attach(|py| {
            let result = self
                .function(py, job)
                .and_then(|function| Ok(jobs::perform(function, kind, payload)?));
            match result {
                Ok(value) => match dump(&value, reply.bytes()) {
                    Ok(attached) => {
                        attached.into_iter().for_each(|attached| reply.pin(attached.pins));
                        return RunStatus::Done;
                    }
                    Err(error) => {
                        reply.clear();
                        failure::reply_unsendable(py, error, &value, reply);
                    }
                },
                Err(error) => failure::reply_raised(py, error, reply),
            }
            RunStatus::Failed
        })
    }

    fn retire(&mut self) -> bool {
        let Some(left) = &mut self.left else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    fn interrupted(&mut self) -> bool {
        Python::attach(|py| match py.check_signals() {
            // Ctrl-C goes to all processes at a terminal; what becomes of the pool is for the
            // process that owns it to say.
            Err(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => {
                self.raised = Some(error);
                false
            }
            _ => true,
        })
    }
}
