//! The parts of a handshake, for connections of all kinds.

use procession::channel::connection;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::EngineResult;

/// Make a challenge.
#[pyfunction]
pub(crate) fn challenge(py: Python<'_>) -> EngineResult<Bound<'_, PyBytes>> {
    Ok(PyBytes::new(py, &connection::challenge()?))
}

/// Return the answer to a challenge.
#[pyfunction]
pub(crate) fn answer<'py>(
    py: Python<'py>,
    authkey: &[u8],
    message: &[u8],
) -> EngineResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &connection::answer(authkey, message)?))
}

/// Raise AuthenticationError unless the response is the answer to the challenge.
#[pyfunction]
pub(crate) fn verify(authkey: &[u8], message: &[u8], response: &[u8]) -> EngineResult<()> {
    Ok(connection::verify(authkey, message, response)?)
}
