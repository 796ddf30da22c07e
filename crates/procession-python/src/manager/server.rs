//! A manager's server, without its objects.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use procession::manager::{ClientId, Server};
use pyo3::prelude::*;

use crate::connection::{PyTls, to_address, to_python};
use crate::error::EngineResult;
use crate::manager::host::Host;
use crate::wait::{blocking, deadline_after};

/// The sockets, threads and reference counts of a manager's server.
#[pyclass(name = "ManagerServer", module = "procession._procession", frozen)]
pub(crate) struct PyManagerServer(Server);

#[pymethods]
impl PyManagerServer {
    #[new]
    #[pyo3(signature = (address, authkey, tls=None, max_clients=None, max_message=None, patience=None))]
    fn py_new(
        address: &Bound<'_, PyAny>,
        authkey: Vec<u8>,
        tls: Option<PyRef<'_, PyTls>>,
        max_clients: Option<usize>,
        max_message: Option<u64>,
        patience: Option<f64>,
    ) -> EngineResult<Self> {
        let py = address.py();
        // The file is removed when the program ends, too: the package sees to that.
        let mut builder = Server::builder(to_address(address)?, authkey).keep_file();
        if let Some(tls) = tls {
            builder = builder.tls(tls.of_server()?);
        }
        if let Some(clients) = max_clients {
            builder = builder.max_clients(clients);
        }
        if let Some(bytes) = max_message {
            builder = builder.longest_request(bytes);
        }
        if let Some(seconds) = patience {
            builder =
                builder.patience(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        Ok(Self(py.detach(|| builder.bind())?))
    }

    /// Where it listens.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, self.0.address())
    }

    /// Answer requests from now on; `host` has the objects, and those of type `quick` never block.
    fn start(&self, host: &Bound<'_, PyAny>, quick: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = host.py();
        let host = Arc::new(Host::new(host, quick)?);
        py.detach(|| self.0.start(host));
        Ok(())
    }

    /// Let no more clients in.
    fn close(&self) {
        self.0.close();
    }

    /// End all connections.
    fn stop(&self) {
        self.0.stop();
    }

    /// A descriptor that is readable once the server is stopped.
    fn fileno(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }

    /// Block until the server is stopped; False if the time ran out.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = deadline_after(timeout);
        Ok(blocking(py, || self.0.wait_stopped(deadline))?.unwrap_or(false))
    }

    /// Let another thread see to the clients until this one has answered its request.
    fn may_block(&self, py: Python<'_>) {
        py.detach(|| self.0.may_block());
    }

    /// Say whether a client is connected.
    fn is_connected(&self, client: ClientId) -> bool {
        self.0.is_connected(client)
    }

    /// Count one more reference; False if the client is gone.
    fn refer(&self, client: Option<ClientId>, number: u64) -> bool {
        self.0.refer(client, number)
    }

    /// Count one more reference if there is one; else False.
    fn refer_to_known(&self, client: Option<ClientId>, number: u64) -> bool {
        self.0.refer_to_known(client, number)
    }

    /// Take a reference back; True if there is none left.
    fn give_up(&self, client: Option<ClientId>, number: u64) -> bool {
        self.0.give_up(client, number, 1)
    }

    /// How many references to an object there are.
    fn references(&self, number: u64) -> u64 {
        self.0.references(number)
    }

    /// How many references to each object there are.
    fn all_references(&self) -> HashMap<u64, u64> {
        self.0.all_references().into_iter().collect()
    }

    /// How many threads there are.
    fn threads(&self) -> usize {
        self.0.threads()
    }
}
