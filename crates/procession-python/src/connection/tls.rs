//! What a connection shows and whom it trusts.

use std::time::Duration;

use procession::channel::connection::{Tls, TlsError, finish_tunnels as finish};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{EngineError, EngineResult};

/// Certificates and a key, for either end of a connection.
#[pyclass(name = "Tls", module = "procession._procession", frozen)]
pub(crate) struct PyTls {
    server: Option<Tls>,
    client: Option<Tls>,
    named: bool,
}

#[pymethods]
impl PyTls {
    #[new]
    fn py_new(
        certificate: Option<Vec<u8>>,
        key: Option<Vec<u8>>,
        ca: Option<Vec<u8>>,
        mutual: bool,
        server_name: Option<&str>,
    ) -> EngineResult<Self> {
        let shown = certificate.zip(key);
        let mut server = shown.as_ref().map(|(chain, key)| Tls::server(chain, key)).transpose()?;
        if let (Some(tls), Some(ca), true) = (&server, &ca, mutual) {
            server = Some(tls.clone().require_certificate(ca)?);
        }
        let mut client = ca.as_deref().map(Tls::client).transpose()?;
        if let (Some(tls), Some((chain, key))) = (&client, &shown) {
            client = Some(tls.clone().client_certificate(chain, key)?);
        }
        if let (Some(tls), Some(name)) = (&client, server_name) {
            client = Some(tls.clone().server_name(name)?);
        }
        Ok(Self { server, client, named: server_name.is_some() })
    }
}

impl PyTls {
    pub(crate) fn of_server(&self) -> PyResult<Tls> {
        self.server
            .clone()
            .ok_or_else(|| PyValueError::new_err("to listen, TLS needs a certificate and its key"))
    }

    /// For connecting with a host, which is who must be there if nothing else was said.
    pub(crate) fn of_client(&self, host: Option<&str>) -> EngineResult<Tls> {
        let client = self.client.clone().ok_or_else(|| {
            PyValueError::new_err("to connect, TLS needs the certificates that it is to trust: ca")
        })?;
        match host {
            Some(host) if !self.named => Ok(client.server_name(host)?),
            _ => Ok(client),
        }
    }
}

/// Send on what was sent through connections with TLS, and say whether it is done.
#[pyfunction]
pub(crate) fn finish_tunnels(py: Python<'_>, timeout: f64) -> bool {
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
    py.detach(|| finish(timeout))
}

impl From<TlsError> for EngineError {
    fn from(error: TlsError) -> Self {
        Self::from(PyValueError::new_err(error.to_string()))
    }
}
