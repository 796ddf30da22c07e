//! `ctypes` objects behind a lock.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::late::Late;
use crate::memory::block::PyBlock;
use crate::memory::cells::{Cells, Kind};
use crate::memory::guard::Guard;

/// What every wrapper has, once `_attach` was called.
pub(super) struct Attached {
    pub(super) obj: Py<PyAny>,
    lock: Py<PyAny>,
    pub(super) guard: Guard,
    /// Where the numbers are, if the object is a plain number or an array of them in a block.
    pub(super) cells: Option<Cells>,
}

/// A `ctypes` object together with a lock.
#[pyclass(name = "SynchronizedBase", module = "procession._procession", subclass, frozen)]
pub(crate) struct PySynchronizedBase(Late<Attached>);

impl PySynchronizedBase {
    pub(super) fn empty() -> Self {
        Self(Late::empty())
    }

    #[inline]
    pub(super) fn attached(&self) -> PyResult<&Attached> {
        self.0.made("__init__()")
    }
}

#[pymethods]
impl PySynchronizedBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::empty()
    }

    /// Wrap an object. If it is `length` numbers of a plain type at the start of a block, these are
    /// given as well.
    #[pyo3(signature = (obj, lock, block=None, typecode=None, length=1))]
    fn _attach(
        &self,
        obj: &Bound<'_, PyAny>,
        lock: &Bound<'_, PyAny>,
        block: Option<&Bound<'_, PyBlock>>,
        typecode: Option<char>,
        length: usize,
    ) -> PyResult<()> {
        let kind = typecode.and_then(Kind::of).zip(block);
        let cells = kind.map(|(kind, block)| Cells::new(kind, block.get().0.clone(), length));
        let guard = Guard::of(lock)?;
        let (obj, lock) = (obj.clone().unbind(), lock.clone().unbind());
        let attached = Attached { obj, lock, guard, cells };
        self.0.fill(attached, "the wrapper")
    }

    #[getter]
    fn _obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.attached()?.obj.clone_ref(py))
    }

    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.attached()?.lock.clone_ref(py))
    }

    /// The lock's own method.
    #[getter]
    fn acquire(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.attached()?.guard.acquire().clone_ref(py))
    }

    /// The lock's own method.
    #[getter]
    fn release(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.attached()?.guard.release().clone_ref(py))
    }

    /// Return the object that is wrapped.
    fn get_obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._obj(py)
    }

    /// Return the lock.
    fn get_lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._lock(py)
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.attached()?.lock.bind(py).call_method0(intern!(py, "__enter__"))
    }

    #[pyo3(signature = (*args))]
    fn __exit__<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        self.attached()?.lock.bind(py).call_method1(intern!(py, "__exit__"), args)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(attached) = self.0.get() else { return Ok(()) };
        visit.call(&attached.obj)?;
        visit.call(&attached.lock)?;
        attached.guard.traverse(&visit)
    }
}

/// A number in shared memory together with a lock.
#[pyclass(
    name = "SynchronizedValue",
    module = "procession._procession",
    extends = PySynchronizedBase,
    subclass,
    frozen
)]
pub(crate) struct PySynchronizedValue;

#[pymethods]
impl PySynchronizedValue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyAny>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(PySynchronizedBase::empty()).add_subclass(Self)
    }

    /// The number, read and written with the lock held.
    #[getter]
    fn value<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let attached = slf.as_super().get().attached()?;
        attached.guard.with(py, || match &attached.cells {
            Some(cells) if let Some(number) = cells.get(py, 0)? => Ok(number),
            _ => attached.obj.bind(py).getattr(intern!(py, "value")),
        })
    }

    #[setter]
    fn set_value(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let attached = slf.as_super().get().attached()?;
        attached.guard.with(py, || match &attached.cells {
            Some(cells) if cells.set(0, value) => Ok(()),
            _ => attached.obj.bind(py).setattr(intern!(py, "value"), value),
        })
    }
}

/// An attribute of a wrapped object, read and written with the lock held.
#[pyclass(name = "LockedField", module = "procession._procession", frozen)]
pub(crate) struct PyLockedField(Py<PyString>);

#[pymethods]
impl PyLockedField {
    #[new]
    fn py_new(name: Bound<'_, PyString>) -> Self {
        Self(name.unbind())
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: &Bound<'py, PyAny>,
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = owner;
        if instance.is_none() {
            return Ok(slf.clone().into_any());
        }
        let attached = instance.cast::<PySynchronizedBase>()?.get().attached()?;
        let py = slf.py();
        attached.guard.with(py, || attached.obj.bind(py).getattr(&slf.get().0))
    }

    fn __set__(
        slf: &Bound<'_, Self>,
        instance: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let attached = instance.cast::<PySynchronizedBase>()?.get().attached()?;
        let py = slf.py();
        attached.guard.with(py, || attached.obj.bind(py).setattr(&slf.get().0, value))
    }

    fn __delete__(&self, py: Python<'_>, instance: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = instance;
        Err(PyAttributeError::new_err(format!("cannot delete {}", self.0.bind(py))))
    }
}
