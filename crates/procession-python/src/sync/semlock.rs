//! `multiprocessing.synchronize.SemLock`, from which locks and semaphores derive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use procession::sync::{Holder, LockOutcome, Semaphore};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::error::EngineResult;
use crate::late::{Late, packed};
use crate::sync::gate::{Gate, MUTEX, SEMAPHORE};
use crate::wait::{blocking, deadline_after, truth};

/// The system's number for an argument that it does not take.
const EINVAL: i32 = 22;

/// What locks and semaphores have in common.
#[pyclass(name = "SemLock", module = "procession.synchronize", subclass, frozen, dict, weakref)]
#[derive(Default)]
pub(crate) struct PySemLock {
    gate: Late<Gate>,
    /// Whether an owner died that a call by way of this object has succeeded.
    owner_died: AtomicBool,
    /// Whether such a call raises.
    raises: AtomicBool,
}

/// A function of `procession.synchronize`, for what is seldom needed.
fn helper<'py>(
    py: Python<'py>,
    name: &'static str,
    function: &'static PyOnceLock<Py<PyAny>>,
) -> PyResult<&'py Bound<'py, PyAny>> {
    function.import(py, "procession.synchronize", name)
}

impl PySemLock {
    #[inline]
    pub(crate) fn gate(&self) -> PyResult<&Gate> {
        self.gate.made("SemLock.__init__()")
    }

    fn set(&self, gate: Gate) -> PyResult<()> {
        self.gate.fill(gate, "it")
    }

    pub(super) fn make(&self, kind: i32, value: i32, maxvalue: i32) -> EngineResult<()> {
        let (Ok(value), Ok(maximum)) = (value.try_into(), maxvalue.try_into()) else {
            // What the system says to the original.
            return Err(PyOSError::new_err((EINVAL, "Invalid argument")).into());
        };
        Ok(self.set(Gate::new(kind, value, maximum)?)?)
    }

    pub(super) fn make_lock(&self, kind: i32, on_owner_death: &str) -> EngineResult<()> {
        let raises = match on_owner_death {
            "warn" => false,
            "raise" => true,
            other => {
                let text = format!("on_owner_death is 'warn' or 'raise', not {other:?}");
                return Err(PyValueError::new_err(text).into());
            }
        };
        self.raises.store(raises, Ordering::Relaxed);
        self.make(kind, 1, 1)
    }

    #[inline]
    pub(crate) fn take(
        slf: &Bound<'_, Self>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<bool> {
        let seconds = timeout.map(|timeout| timeout.extract::<f64>()).transpose()?;
        match slf.get().gate()?.try_acquire() {
            Some(outcome) => Self::acquired(slf, outcome),
            None if !block || seconds.is_some_and(|seconds| seconds <= 0.0) => Ok(false),
            None => Self::wait(slf, deadline_after(seconds)),
        }
    }

    #[inline]
    pub(crate) fn free(&self) -> EngineResult<()> {
        self.gate()?.release()
    }

    #[cold]
    fn wait(slf: &Bound<'_, Self>, deadline: Option<Instant>) -> EngineResult<bool> {
        let gate = slf.get().gate()?;
        match blocking(slf.py(), || gate.acquire(deadline))? {
            Ok(outcome) => Self::acquired(slf, outcome),
            Err(_) => Ok(false),
        }
    }

    /// Reports it if the owner died.
    #[inline]
    pub(crate) fn acquired(slf: &Bound<'_, Self>, outcome: LockOutcome) -> EngineResult<bool> {
        match outcome {
            LockOutcome::Acquired => Ok(true),
            LockOutcome::OwnerDied(_) => Self::succeed(slf),
        }
    }

    #[cold]
    fn succeed(slf: &Bound<'_, Self>) -> EngineResult<bool> {
        static REPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let this = slf.get();
        let first = !this.owner_died.swap(true, Ordering::Relaxed);
        let raises = this.raises.load(Ordering::Relaxed);
        if let Err(error) = helper(slf.py(), "_report_death", &REPORT)?.call1((slf, raises, first))
        {
            // Whoever gets an exception does not have the lock.
            this.free()?;
            return Err(error.into());
        }
        Ok(true)
    }

    /// What the representation says: who holds it, and how often that one took it.
    pub(super) fn owner<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        static OWNER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        helper(slf.py(), "_owner", &OWNER)?.call1((slf,))?.extract()
    }
}

#[pymethods]
impl PySemLock {
    /// The highest value of any semaphore.
    #[classattr]
    const SEM_VALUE_MAX: u32 = Semaphore::MAXIMUM;

    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::default()
    }

    #[pyo3(signature = (kind, value, maxvalue, *, ctx))]
    fn __init__(
        &self,
        kind: i32,
        value: i32,
        maxvalue: i32,
        ctx: &Bound<'_, PyAny>,
    ) -> EngineResult<()> {
        // The original names its semaphores by the start method; nothing here depends on it.
        let _ = ctx;
        self.make(kind, value, maxvalue)
    }

    /// The original's class, if that was ever imported; `isinstance` looks here.
    #[getter]
    fn __class__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        helper(slf.py(), "_class_of", &CLASS_OF)?.call1((slf.get_type(),))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let make = helper(slf.py(), "_make", &MAKE)?;
        (make, (slf.get_type(),), slf.call_method0("__getstate__")?).into_pyobject(slf.py())
    }

    fn __getstate__(slf: &Bound<'_, Self>) -> EngineResult<(i32, u64, bool)> {
        let gate = slf.get().gate()?;
        let noted = packed(slf, gate.note())?;
        Ok((gate.kind(), noted, slf.get().raises.load(Ordering::Relaxed)))
    }

    #[pyo3(signature = (state, /))]
    fn __setstate__(&self, state: (i32, u64, bool)) -> EngineResult<()> {
        let (kind, raw, raises) = state;
        self.raises.store(raises, Ordering::Relaxed);
        Ok(self.set(Gate::open(kind, raw)?)?)
    }

    /// Take it, and say whether that succeeded.
    #[pyo3(signature = (block=true, timeout=None))]
    fn acquire(
        slf: &Bound<'_, Self>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<bool> {
        Self::take(slf, block, timeout)
    }

    /// Give it back.
    fn release(&self) -> EngineResult<()> {
        self.free()
    }

    fn __enter__(slf: &Bound<'_, Self>) -> EngineResult<bool> {
        Self::take(slf, true, None)
    }

    #[pyo3(signature = (_type=None, _value=None, _traceback=None, /))]
    fn __exit__(
        &self,
        _type: Option<&Bound<'_, PyAny>>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<()> {
        self.free()
    }

    /// The original keeps a lock of the system beside the object; here it is the object.
    #[getter]
    fn _semlock<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// Say whether it cannot be taken at this moment.
    fn locked(&self) -> PyResult<bool> {
        Ok(self.gate()?.value() == 0)
    }

    /// Whether a process died that held it, and it was taken over by way of this object.
    #[getter]
    fn owner_died(&self) -> bool {
        self.owner_died.load(Ordering::Relaxed)
    }

    /// Return how often this process has taken it.
    fn _count(&self) -> PyResult<u32> {
        Ok(self.gate()?.count())
    }

    /// Say whether the calling thread holds it.
    fn _is_mine(&self) -> PyResult<bool> {
        Ok(self.gate()?.holder() == Holder::ThisThread)
    }

    /// Return how often it can be taken before somebody has to wait.
    pub(super) fn _get_value(&self) -> PyResult<u32> {
        Ok(self.gate()?.value())
    }

    /// Say whether it cannot be taken at this moment.
    fn _is_zero(&self) -> PyResult<bool> {
        self.locked()
    }

    /// Do nothing: a forked child is known as another process.
    fn _after_fork(&self) {}

    /// The original's number for the kind of it.
    #[getter]
    fn kind(&self) -> PyResult<i32> {
        Ok(match self.gate()?.kind() {
            MUTEX => SEMAPHORE,
            kind => kind,
        })
    }

    /// The value that it cannot exceed.
    #[getter]
    fn maxvalue(&self) -> PyResult<u32> {
        Ok(self.gate()?.maximum())
    }

    /// A number that tells it from others in this process.
    #[getter]
    fn handle(slf: &Bound<'_, Self>) -> usize {
        slf.as_ptr() as usize
    }

    /// None: it has no name in the system.
    #[getter]
    fn name(&self) -> Option<&str> {
        None
    }
}
