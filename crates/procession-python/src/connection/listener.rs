//! Listeners and clients.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procession::channel::connection::{Address, Client, Listener};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::connection::{PyConnection, PyTls};
use crate::error::{EngineError, EngineResult};
use crate::number;
use crate::wait::blocking;

/// A socket that others connect with.
#[pyclass(name = "Listener", module = "procession._procession", frozen)]
pub(crate) struct PyListener(Mutex<Option<Arc<Listener>>>);

impl PyListener {
    fn state(&self) -> MutexGuard<'_, Option<Arc<Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> PyResult<Arc<Listener>> {
        self.state().clone().ok_or_else(|| PyOSError::new_err("listener is closed"))
    }
}

#[pymethods]
impl PyListener {
    #[new]
    #[pyo3(signature = (address, backlog, authkey, patience, max_message, tls=None))]
    fn py_new(
        address: &Bound<'_, PyAny>,
        backlog: i32,
        authkey: Option<Vec<u8>>,
        patience: f64,
        #[pyo3(from_py_with = number::max_message)] max_message: Option<u64>,
        tls: Option<PyRef<'_, PyTls>>,
    ) -> EngineResult<Self> {
        let py = address.py();
        let mut builder = Listener::builder(to_address(address)?)
            .backlog(backlog)
            // It is removed when the program ends, too: the package sees to that.
            .keep_file()
            .max_message(max_message.unwrap_or(u64::MAX))
            .patience(Duration::try_from_secs_f64(patience).unwrap_or(Duration::MAX));
        if let Some(key) = authkey {
            builder = builder.key(key);
        }
        if let Some(tls) = tls {
            builder = builder.tls(tls.of_server()?);
        }
        Ok(Self(Mutex::new(Some(Arc::new(py.detach(|| builder.bind())?)))))
    }

    /// Where it listens.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, self.open()?.address())
    }

    /// The descriptor of the socket.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.open()?.as_fd().as_raw_fd())
    }

    /// Wait for a client, and return the connection with it and its address.
    fn accept<'py>(&self, py: Python<'py>) -> EngineResult<(PyConnection, Bound<'py, PyAny>)> {
        let listener = self.open()?;
        let (connection, address) = blocking(py, || listener.accept_until(None))??;
        Ok((PyConnection::with(connection, None), to_python(py, &address)?))
    }

    /// Close the socket.
    fn close(&self) {
        let listener = self.state().take();
        drop(listener);
    }
}

/// Describes how to connect with a listener.
pub(crate) fn connector(
    address: &Bound<'_, PyAny>,
    authkey: Option<Vec<u8>>,
    tls: Option<&PyTls>,
) -> EngineResult<Client> {
    let mut client = Client::new(to_address(address)?);
    if let Some(key) = authkey {
        client = client.key(key);
    }
    if let Some(tls) = tls {
        let host = match address.cast::<PyTuple>() {
            Ok(pair) => Some(pair.get_item(0)?.extract::<String>()?),
            Err(_) => None,
        };
        client = client.tls(tls.of_client(host.as_deref())?);
    }
    Ok(client)
}

/// Connect with a listener.
#[pyfunction]
#[pyo3(signature = (address, authkey, max_message, tls=None, timeout=None))]
pub(crate) fn connect(
    address: &Bound<'_, PyAny>,
    authkey: Option<Vec<u8>>,
    #[pyo3(from_py_with = number::max_message)] max_message: Option<u64>,
    tls: Option<PyRef<'_, PyTls>>,
    timeout: Option<f64>,
) -> EngineResult<PyConnection> {
    let py = address.py();
    let mut client =
        connector(address, authkey, tls.as_deref())?.max_message(max_message.unwrap_or(u64::MAX));
    if let Some(seconds) = timeout {
        client = client.timeout(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let mut connecting = client.start()?;
    let connection = blocking(py, || connecting.finish())??;
    Ok(PyConnection::with(connection, None))
}

/// The address that Python has for a socket: a pair of host and port, a path, or an abstract name
/// behind a zero.
pub(crate) fn to_address(address: &Bound<'_, PyAny>) -> EngineResult<Address> {
    if let Ok(pair) = address.cast::<PyTuple>() {
        let (host, port) = (pair.get_item(0)?.extract::<String>()?, pair.get_item(1)?.extract()?);
        return Ok(address.py().detach(|| Address::tcp(&host, port))?);
    }
    let name = match address.cast::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes().to_vec(),
        Err(_) => address.extract::<PathBuf>()?.as_os_str().as_bytes().to_vec(),
    };
    match name.split_first() {
        Some((0, rest)) => Ok(Address::Abstract(rest.to_vec())),
        Some(_) if name.contains(&0) => {
            Err(EngineError::from(PyValueError::new_err("embedded null byte")))
        }
        _ => Ok(Address::unix(OsStr::from_bytes(&name))),
    }
}

/// The address as Python's sockets would say it.
pub(crate) fn to_python<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Tcp(SocketAddr::V4(address)) => {
            (address.ip().to_string(), address.port()).into_bound_py_any(py)
        }
        Address::Tcp(SocketAddr::V6(address)) => {
            let host = address.ip().to_string();
            (host, address.port(), address.flowinfo(), address.scope_id()).into_bound_py_any(py)
        }
        Address::Unix(path) => path.as_os_str().into_bound_py_any(py),
        Address::Abstract(name) => {
            Ok(PyBytes::new(py, &[b"\0", name.as_slice()].concat()).into_any())
        }
        _ => Ok(PyString::new(py, "").into_any()),
    }
}
