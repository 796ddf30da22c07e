//! Locks and semaphores: what derives from `SemLock`.
//!
//! Each class has the methods that matter for speed as its own. The interpreter calls a native method
//! faster if the object is of the very class that has it, and not of one that inherits it.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::EngineResult;
use crate::sync::gate::{MUTEX, RECURSIVE_MUTEX, SEMAPHORE};
use crate::sync::semlock::PySemLock;
use crate::wait::truth;

/// Adds what all classes have to the methods of one: `methods!(way to SemLock, initializer; methods)`.
///
/// `__new__` takes anything, so that a subclass is free in what its `__init__` takes. The attribute
/// comes from the caller, because PyO3 looks names up where that stands.
macro_rules! methods {
    ($($up:ident).+, $new:expr; $hash:tt $pymethods:tt impl $class:ident { $($own:tt)+ }) => {
        $hash $pymethods
        impl $class {
            #[new]
            #[pyo3(signature = (*_args, **_kwargs))]
            fn py_new(
                _args: &Bound<'_, PyTuple>,
                _kwargs: Option<&Bound<'_, PyAny>>,
            ) -> PyClassInitializer<Self> {
                $new.add_subclass(Self)
            }

            $($own)+

            /// Take it, and say whether that succeeded.
            #[pyo3(signature = (block=true, timeout=None))]
            fn acquire(
                slf: &Bound<'_, Self>,
                #[pyo3(from_py_with = truth)] block: bool,
                timeout: Option<&Bound<'_, PyAny>>,
            ) -> EngineResult<bool> {
                PySemLock::take(slf$(.$up())+, block, timeout)
            }

            /// Give it back.
            fn release(slf: &Bound<'_, Self>) -> EngineResult<()> {
                slf$(.$up())+.get().free()
            }

            fn __enter__(slf: &Bound<'_, Self>) -> EngineResult<bool> {
                PySemLock::take(slf$(.$up())+, true, None)
            }

            #[pyo3(signature = (_type=None, _value=None, _traceback=None, /))]
            fn __exit__(
                slf: &Bound<'_, Self>,
                _type: Option<&Bound<'_, PyAny>>,
                _value: Option<&Bound<'_, PyAny>>,
                _traceback: Option<&Bound<'_, PyAny>>,
            ) -> EngineResult<()> {
                slf$(.$up())+.get().free()
            }
        }
    };
}

/// A lock that is held by one thread of one process, and that anybody may release.
#[pyclass(name = "Lock", module = "procession.synchronize", extends = PySemLock, subclass, frozen)]
pub(crate) struct PyLock;

methods! {
    as_super, PyClassInitializer::from(PySemLock::default());

    #[pymethods]
    impl PyLock {
        #[pyo3(signature = (*, ctx, on_owner_death="warn"))]
        fn __init__(
            slf: &Bound<'_, Self>,
            ctx: &Bound<'_, PyAny>,
            on_owner_death: &str,
        ) -> EngineResult<()> {
            let _ = ctx;
            slf.as_super().get().make_lock(MUTEX, on_owner_death)
        }

        fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
            let (owner, _) = PySemLock::owner(slf.as_super())?;
            Ok(format!("<{}(owner={owner})>", slf.get_type().name()?))
        }
    }
}

/// A lock that its holder may take again, and must release as often.
#[pyclass(name = "RLock", module = "procession.synchronize", extends = PySemLock, subclass, frozen)]
pub(crate) struct PyRLock;

methods! {
    as_super, PyClassInitializer::from(PySemLock::default());

    #[pymethods]
    impl PyRLock {
        #[pyo3(signature = (*, ctx, on_owner_death="warn"))]
        fn __init__(
            slf: &Bound<'_, Self>,
            ctx: &Bound<'_, PyAny>,
            on_owner_death: &str,
        ) -> EngineResult<()> {
            let _ = ctx;
            slf.as_super().get().make_lock(RECURSIVE_MUTEX, on_owner_death)
        }

        fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
            let (owner, count) = PySemLock::owner(slf.as_super())?;
            Ok(format!("<{}({owner}, {count})>", slf.get_type().name()?))
        }
    }
}

/// A counter that processes take from and give back to, and wait for while it is zero.
#[pyclass(name = "Semaphore", module = "procession.synchronize", extends = PySemLock, subclass, frozen)]
pub(crate) struct PySemaphore;

methods! {
    as_super, PyClassInitializer::from(PySemLock::default());

    #[pymethods]
    impl PySemaphore {
        #[pyo3(signature = (value=1, *, ctx))]
        fn __init__(slf: &Bound<'_, Self>, value: i32, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
            let _ = ctx;
            slf.as_super().get().make(SEMAPHORE, value, i32::MAX)
        }

        /// Return the value at this moment.
        fn get_value(slf: &Bound<'_, Self>) -> PyResult<u32> {
            slf.as_super().get()._get_value()
        }

        fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
            let value = slf.as_super().get()._get_value()?;
            Ok(format!("<{}(value={value})>", slf.get_type().name()?))
        }
    }
}

/// A semaphore whose value cannot exceed what it was at first.
#[pyclass(
    name = "BoundedSemaphore", module = "procession.synchronize", extends = PySemaphore, subclass, frozen
)]
pub(crate) struct PyBoundedSemaphore;

methods! {
    as_super.as_super,
    PyClassInitializer::from(PySemLock::default()).add_subclass(PySemaphore);

    #[pymethods]
    impl PyBoundedSemaphore {
        #[pyo3(signature = (value=1, *, ctx))]
        fn __init__(slf: &Bound<'_, Self>, value: i32, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
            let _ = ctx;
            slf.as_super().as_super().get().make(SEMAPHORE, value, value)
        }

        fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
            let gate = slf.as_super().as_super().get().gate()?;
            let (value, maximum) = (gate.value(), gate.maximum());
            Ok(format!("<{}(value={value}, maxvalue={maximum})>", slf.get_type().name()?))
        }
    }
}
