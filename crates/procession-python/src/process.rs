//! Children: watching them, and starting programs that become them.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd};

use procession::process::{self, Boot, Child, Exec};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};

use crate::error::{EngineError, EngineResult};
use crate::fork_server::pack;
use crate::wait::{blocking, deadline_after};

/// A child process that was started.
#[pyclass(name = "Child", module = "procession._procession", frozen)]
pub(crate) struct PyChild(pub(crate) Child);

#[pymethods]
impl PyChild {
    /// The process id.
    #[getter]
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// A descriptor that becomes readable when the process has ended.
    #[getter]
    fn sentinel(&self) -> i32 {
        self.0.sentinel().as_raw_fd()
    }

    /// Return the exit code, or None while the process runs.
    fn poll(&self) -> Option<i32> {
        self.0.try_wait().map(|status| status.python_exitcode())
    }

    /// Block until the process has ended and return its exit code; None if the time ran out.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        let deadline = deadline_after(timeout);
        // The only other error is that the time ran out.
        let status = blocking(py, || self.0.wait(deadline))?.ok();
        Ok(status.map(|status| status.python_exitcode()))
    }

    /// Send a signal. Does nothing if the process has ended.
    fn send_signal(&self, signal: i32) -> EngineResult<()> {
        Ok(self.0.send_signal(signal)?)
    }
}

/// Start a program that will call `take_boot`.
///
/// `dump` makes the payload; shared objects may be pickled in it. `inherit` is read after that.
#[pyfunction]
pub(crate) fn start_program(
    py: Python<'_>,
    program: OsString,
    args: Vec<OsString>,
    dump: &Bound<'_, PyAny>,
    inherit: &Bound<'_, PyList>,
    daemon: bool,
) -> EngineResult<PyChild> {
    let payload = pack(dump)?;
    let exec = Exec::new(program)
        .args(args)
        .inherit(inherit.extract::<Vec<i32>>()?)
        .payload(payload)
        .daemon(daemon);
    Ok(PyChild(py.detach(|| exec.start())?))
}

/// What a fresh interpreter was given by the process that started it.
#[pyclass(name = "Boot", module = "procession._procession", frozen)]
pub(crate) struct PyBoot(pub(crate) Boot);

#[pymethods]
impl PyBoot {
    /// What `dump` returned in the parent. Shared objects in it are alive while this object is.
    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.payload())
    }

    /// Whether this interpreter is to be a fork server.
    #[getter]
    fn is_fork_server(&self) -> bool {
        self.0.is_fork_server()
    }
}

/// Become the child that this interpreter was started as; None if it was started otherwise.
#[pyfunction]
pub(crate) fn take_boot(py: Python<'_>) -> EngineResult<Option<PyBoot>> {
    let boot = process::take_boot()?;
    if boot.is_some() {
        forget_boot_variable(py)?;
    }
    Ok(boot.map(PyBoot))
}

/// `os.environ` is a copy that was made when the interpreter started.
fn forget_boot_variable(py: Python<'_>) -> PyResult<()> {
    static ENVIRON: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let environ = ENVIRON.import(py, "os", "environ")?;
    environ.call_method1("pop", (process::BOOT_VARIABLE, py.None())).map(drop)
}

/// Return a descriptor that becomes readable when the calling process has ended.
#[pyfunction]
pub(crate) fn own_sentinel() -> EngineResult<i32> {
    process::own_sentinel().map(IntoRawFd::into_raw_fd).map_err(EngineError::from)
}
