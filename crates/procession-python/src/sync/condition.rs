//! `multiprocessing.Condition`.

use std::time::Instant;

use procession::sync::{Condition, ConditionLock, ConditionWaiter, Holder, LockOutcome};
use pyo3::exceptions::{PyAssertionError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::EngineResult;
use crate::late::{Late, packed};
use crate::sync::deadline;
use crate::sync::gate::Gate;
use crate::sync::semlock::PySemLock;
use crate::wait::blocking;

/// The engine's condition, and its lock as Python knows it.
struct Inner {
    condition: Condition,
    lock: Py<PySemLock>,
}

/// Lets processes wait until another one, which holds the same lock, notifies them.
#[pyclass(name = "Condition", module = "procession._procession", subclass, frozen, weakref)]
pub(crate) struct PyCondition {
    inner: Late<Inner>,
}

impl PyCondition {
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.made("Condition.__init__()")
    }

    fn set(&self, condition: Condition, lock: &Bound<'_, PySemLock>) -> PyResult<()> {
        let inner = Inner { condition, lock: lock.clone().unbind() };
        self.inner.fill(inner, "the condition")
    }

    /// The condition, if the calling thread holds its lock.
    fn owned(&self, otherwise: &'static str) -> PyResult<&Inner> {
        let inner = self.inner()?;
        if inner.condition.lock().holder() != Holder::ThisThread {
            return Err(PyAssertionError::new_err(otherwise));
        }
        Ok(inner)
    }
}

fn engine_lock(lock: &Bound<'_, PySemLock>) -> PyResult<ConditionLock> {
    Ok(match lock.get().gate()? {
        Gate::Lock(lock) => lock.clone().into(),
        Gate::RLock(lock) => lock.clone().into(),
        Gate::Semaphore(_) => {
            return Err(PyTypeError::new_err("the lock of a condition is a Lock or an RLock"));
        }
    })
}

/// Sleeps, and takes the lock again whatever happens meanwhile. Says whether it was notified, how
/// the lock was taken, and what a signal handler raised.
fn sleep(
    py: Python<'_>,
    waiter: ConditionWaiter<'_>,
    deadline: Option<Instant>,
) -> (bool, LockOutcome, PyResult<()>) {
    // A signal handler that raises ends the wait.
    let mut raised = blocking(py, || waiter.sleep(deadline)).map(drop);
    loop {
        match blocking(py, || waiter.acquire_again()) {
            Ok(Ok(outcome)) => return (waiter.leave(), outcome, raised),
            // Nothing but a signal ends it, and `blocking` sees to those.
            Ok(Err(_)) => {}
            Err(error) => raised = Err(error),
        }
    }
}

#[pymethods]
impl PyCondition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self { inner: Late::empty() }
    }

    #[pyo3(signature = (lock, /))]
    fn __init__(&self, lock: &Bound<'_, PySemLock>) -> EngineResult<()> {
        Ok(self.set(Condition::new(engine_lock(lock)?)?, lock)?)
    }

    fn __getstate__(slf: &Bound<'_, Self>) -> EngineResult<(Py<PySemLock>, u64)> {
        let inner = slf.get().inner()?;
        let noted = packed(slf, inner.condition.note())?;
        Ok((inner.lock.clone_ref(slf.py()), noted))
    }

    #[pyo3(signature = (state, /))]
    fn __setstate__(&self, state: (Bound<'_, PySemLock>, u64)) -> EngineResult<()> {
        let (lock, raw) = state;
        Ok(self.set(Condition::open(raw, engine_lock(&lock)?)?, &lock)?)
    }

    /// Take the lock, and say whether that succeeded.
    #[pyo3(signature = (block=None, timeout=None))]
    fn acquire<'py>(
        &self,
        py: Python<'py>,
        block: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> EngineResult<bool> {
        let block = block.map_or(Ok(true), |block| block.is_truthy())?;
        PySemLock::take(self.inner()?.lock.bind(py), block, timeout)
    }

    /// Give the lock back.
    fn release(&self) -> EngineResult<()> {
        self.inner()?.lock.get().free()
    }

    fn __enter__(&self, py: Python<'_>) -> EngineResult<bool> {
        PySemLock::take(self.inner()?.lock.bind(py), true, None)
    }

    #[pyo3(signature = (_type=None, _value=None, _traceback=None, /))]
    fn __exit__(
        &self,
        _type: Option<&Bound<'_, PyAny>>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<()> {
        self.release()
    }

    /// Release the lock, block until notified, and take the lock again. Say whether it was notified.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> EngineResult<bool> {
        let inner = self.owned("must acquire() condition before using wait()")?;
        let deadline = deadline(timeout)?;
        let (notified, outcome, raised) = sleep(py, inner.condition.enter()?, deadline);
        raised?;
        PySemLock::acquired(inner.lock.bind(py), outcome)?;
        Ok(notified)
    }

    /// Wake up to `n` of those who wait, those who have waited longest first.
    #[pyo3(signature = (n=1))]
    fn notify(&self, n: isize) -> PyResult<()> {
        let inner = self.owned("lock is not owned")?;
        inner.condition.notify(usize::try_from(n).unwrap_or(0));
        Ok(())
    }

    /// Wake all who wait.
    fn notify_all(&self) -> PyResult<()> {
        self.notify(isize::MAX)
    }

    /// The lock.
    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PySemLock>> {
        Ok(self.inner()?.lock.clone_ref(py))
    }

    /// Return how many wait at this moment.
    fn _waiters(&self) -> PyResult<usize> {
        Ok(self.inner()?.condition.waiters())
    }
}
