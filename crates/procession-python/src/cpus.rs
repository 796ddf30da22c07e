//! How many processors there are to use.

use std::num::NonZeroUsize;
use std::thread;

use pyo3::prelude::*;

/// Return how many processors this process may use, as the scheduler and the control group say.
///
/// From CPython 3.13 on, `-X cpu_count` and `PYTHON_CPU_COUNT` set another number.
#[pyfunction]
pub(crate) fn cpu_count(py: Python<'_>) -> PyResult<usize> {
    let usable = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let os = py.import("os")?;
    let Ok(process_cpu_count) = os.getattr("process_cpu_count") else { return Ok(usable) };
    let Some(counted) = process_cpu_count.call0()?.extract::<Option<usize>>()? else {
        return Ok(usable);
    };
    let overridden = py.import("sys")?.getattr("_get_cpu_count_config")?.call0()?;
    Ok(if overridden.extract::<i64>()? < 0 { counted.min(usable) } else { counted })
}
