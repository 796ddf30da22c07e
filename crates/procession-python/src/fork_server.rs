//! The fork server: the client's side and the server's.

use std::ffi::OsString;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use procession::process::{self, Exec, ForkServer, Zygote};
use procession::shm::{self, Parcel, Pins};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::EngineResult;
use crate::forks::fork_into;
use crate::process::{PyBoot, PyChild};
use crate::wait::blocking;

/// Bytes for a child, with the shared objects that they name kept alive.
#[pyclass(name = "Parcel", module = "procession._procession", frozen)]
pub(crate) struct PyParcel(Parcel);

#[pymethods]
impl PyParcel {
    #[new]
    fn py_new(dump: &Bound<'_, PyAny>) -> PyResult<Self> {
        pack(dump).map(Self)
    }
}

/// Calls `dump` for the bytes, and pins the shared objects that are pickled meanwhile.
pub(crate) fn pack(dump: &Bound<'_, PyAny>) -> PyResult<Parcel> {
    let (payload, pins) = shm::pack(|| PyBuffer::<u8>::get(&dump.call0()?)?.to_vec(dump.py()));
    Ok(Parcel::new(payload?, pins))
}

/// A process that children are copies of.
#[pyclass(name = "ForkServer", module = "procession._procession", frozen)]
pub(crate) struct PyForkServer(ForkServer);

#[pymethods]
impl PyForkServer {
    #[new]
    fn py_new(
        py: Python<'_>,
        program: OsString,
        args: Vec<OsString>,
        payload: Vec<u8>,
    ) -> EngineResult<Self> {
        let parcel = Parcel::new(payload, Pins::default());
        let exec = Exec::new(program).args(args).payload(parcel);
        Ok(Self(py.detach(|| ForkServer::start(exec))?))
    }

    /// The process id.
    #[getter]
    fn pid(&self) -> u32 {
        self.0.child().pid()
    }

    /// Say whether it can be asked for children.
    fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// Ask for a child, which gets the parcel and copies of the descriptors.
    fn spawn(
        &self,
        py: Python<'_>,
        parcel: &PyParcel,
        descriptors: Vec<RawFd>,
        daemon: bool,
    ) -> EngineResult<PyChild> {
        Ok(PyChild(py.detach(|| self.0.spawn_raw(&parcel.0, &descriptors, daemon))?))
    }

    /// End it, and wait until it has ended. Its children go on.
    fn stop(&self, py: Python<'_>) -> EngineResult<()> {
        self.0.child().kill()?;
        // Without a deadline it can only have ended.
        let _ended = blocking(py, || self.0.child().wait(None))?;
        Ok(())
    }
}

/// The fork server itself.
#[pyclass(name = "Zygote", module = "procession._procession", frozen)]
pub(crate) struct PyZygote(Mutex<Option<Zygote>>);

#[pymethods]
impl PyZygote {
    #[new]
    fn py_new(boot: &PyBoot) -> EngineResult<Self> {
        Ok(Self(Mutex::new(Some(Zygote::from_boot(&boot.0)?))))
    }

    /// Fork children for the client until it is gone, and return None then.
    ///
    /// In a child: return what it was given, and its descriptors.
    fn serve(&self, py: Python<'_>) -> EngineResult<Option<(PyBoot, Vec<RawFd>)>> {
        let mut zygote = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or_else(|| PyRuntimeError::new_err("this fork server is over"))?;
        while let Some(request) = blocking(py, || zygote.next_request())?? {
            let prepared = match request.prepare() {
                Ok(prepared) => prepared,
                Err(error) => {
                    zygote.failed(request, &error.to_string());
                    continue;
                }
            };
            match fork_into(py, prepared, request.is_daemon()) {
                Ok(Some((_, pid))) => zygote.forked(request, pid),
                Ok(None) => {
                    let (boot, descriptors) = request.into_child(zygote)?;
                    let raw = descriptors.into_iter().map(IntoRawFd::into_raw_fd).collect();
                    return Ok(Some((PyBoot(boot), raw)));
                }
                Err(error) => zygote.failed(request, &error.to_string()),
            }
        }
        Ok(None)
    }
}

/// Say with which code this process is about to exit, in case its fork server cannot tell.
#[pyfunction]
pub(crate) fn announce_exit(code: i32) {
    process::announce_exit(code);
}
