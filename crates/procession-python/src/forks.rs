//! Forks: those that start a child of ours, and those that the program makes by itself.
//!
//! Either way the interpreter's own `os.fork` is called, which runs the hooks registered here on
//! its way. They are native functions because a child copies each page of memory that it writes
//! to, and running Python code writes.

use std::cell::RefCell;

use procession::channel::connection::{PausedSharing, forget_shared, pause_sharing};
use procession::process::{PreparedFork, without_output};
use procession::shm::Arena;
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{EngineError, EngineResult};
use crate::process::PyChild;

/// The fork that a thread is about to make.
struct Pending {
    prepared: PreparedFork,
    daemon: bool,
    /// Whether the caller takes charge of the child.
    watched: bool,
}

thread_local! {
    static PENDING: RefCell<Option<Pending>> = const { RefCell::new(None) };
    static PAUSED: RefCell<Option<PausedSharing>> = const { RefCell::new(None) };
}

/// Write out what was printed, fork, and return the child; in the child itself, None.
#[pyfunction]
pub(crate) fn fork(py: Python<'_>, daemon: bool) -> EngineResult<Option<PyChild>> {
    let prepared = PreparedFork::prepare()?;
    write_out(py)?;
    match fork_into(py, prepared, daemon)? {
        Some((prepared, pid)) => Ok(Some(PyChild(prepared.in_parent(pid)?))),
        None => {
            forget_unwritten(py);
            Ok(None)
        }
    }
}

/// What the program prints to.
fn streams(py: Python<'_>) -> impl Iterator<Item = Bound<'_, PyAny>> {
    let sys = py.import(intern!(py, "sys")).into_iter();
    sys.flat_map(|sys| [sys.getattr("stdout"), sys.getattr("stderr")]).flatten()
}

/// Writes what is buffered for standard output and error.
///
/// Just before the fork, so that it waits for threads that write at this moment: what they have locked
/// the child could never take.
fn write_out(py: Python<'_>) -> PyResult<()> {
    for stream in streams(py) {
        match stream.call_method0(intern!(py, "flush")) {
            // There is none, or it is closed.
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {}
            Err(error) if error.is_instance_of::<PyValueError>(py) => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// In the child: forgets what other threads have printed since, which the parent will write.
fn forget_unwritten(py: Python<'_>) {
    for stream in streams(py) {
        let number = stream.call_method0(intern!(py, "fileno"));
        // Where there is no descriptor, or nothing open, nothing can be written twice.
        if let Ok(number) = number.and_then(|number| number.extract()) {
            let _ = without_output(number, || stream.call_method0(intern!(py, "flush")));
        }
    }
}

/// Forks. Returns what was prepared and the child's process id; in the child itself `None`.
pub(crate) fn fork_into(
    py: Python<'_>,
    prepared: PreparedFork,
    daemon: bool,
) -> PyResult<Option<(PreparedFork, u32)>> {
    PENDING.set(Some(Pending { prepared, daemon, watched: true }));
    let pid = py.import(intern!(py, "os"))?.call_method0(intern!(py, "fork"));
    // Dropping it, if there is an error, gives the child's place back.
    let pending = PENDING.take();
    let pid: u32 = pid?.extract()?;
    Ok(pending.map(|pending| (pending.prepared, pid)))
}

/// Prepare a fork that the program makes by itself.
#[pyfunction]
fn before_fork() -> EngineResult<()> {
    PAUSED.set(Some(pause_sharing()));
    let expected = PENDING.with_borrow(Option::is_some);
    // Where there is no shared object and no child, there is nothing to prepare.
    if !expected && Arena::exists() {
        let prepared = PreparedFork::prepare()?;
        PENDING.set(Some(Pending { prepared, daemon: false, watched: false }));
    }
    Ok(())
}

/// Leave the child of a fork that the program made by itself to the program.
#[pyfunction]
fn after_fork_in_parent() {
    PAUSED.set(None);
    let pending = PENDING.with_borrow_mut(|pending| pending.take_if(|fork| !fork.watched));
    if let Some(fork) = pending {
        fork.prepared.in_parent_unwatched();
    }
}

/// Become the process that was prepared for.
#[pyfunction]
fn after_fork_in_child(py: Python<'_>) -> EngineResult<()> {
    PAUSED.set(None);
    forget_shared();
    let Some(fork) = PENDING.take() else { return Ok(()) };
    match fork.prepared.in_child(fork.daemon) {
        // The parent has died, and what this child was started for with it.
        Err(_) if fork.watched => leave(py),
        result => result.map_err(EngineError::from),
    }
}

/// Ends a child that must not return into the code of its parent.
fn leave(py: Python<'_>) -> EngineResult<()> {
    py.import("os")?.call_method1("_exit", (1,)).map(drop).map_err(EngineError::from)
}

/// Has the interpreter call the hooks above around each fork.
pub(crate) fn watch_forks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, module)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork_in_parent, module)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, module)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(drop)
}
