//! Ending processes together with what they started.

use procession::process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::EngineResult;

/// Kill a process and everything below it, and return the ids of those that were killed.
#[pyfunction]
#[pyo3(signature = (pid, including_parent=true))]
pub(crate) fn kill_process_tree(
    py: Python<'_>,
    pid: i32,
    including_parent: bool,
) -> EngineResult<Vec<u32>> {
    // To `os.kill` a negative number is a group of processes.
    let pid = u32::try_from(pid)
        .map_err(|_| PyValueError::new_err(format!("{pid} is not the id of a process")))?;
    Ok(py.detach(|| process::kill_process_tree(pid, including_parent))?)
}
