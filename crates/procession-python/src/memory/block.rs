//! Blocks of the arena.

use procession::shm::Block;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use crate::error::EngineResult;
use crate::late::packed;
use crate::memory::cells::{Cells, Kind};

/// Zeroed memory that any process of the tree can use; it goes with the last of its users.
#[pyclass(name = "Block", module = "procession._procession", subclass, frozen)]
pub(crate) struct PyBlock(pub(super) Block);

#[pymethods]
impl PyBlock {
    #[new]
    #[pyo3(signature = (size, *, handle=None))]
    fn py_new(py: Python<'_>, size: isize, handle: Option<u64>) -> EngineResult<Self> {
        if let Some(handle) = handle {
            return Ok(Self(Block::open(handle)?));
        }
        let len = usize::try_from(size)
            .map_err(|_| PyValueError::new_err(format!("Size {size} out of range")))?;
        if size == isize::MAX {
            return Err(PyOverflowError::new_err(format!("Size {size} too large")).into());
        }
        if len < LARGE {
            return Ok(Self(Block::new(len)?));
        }
        Ok(Self(py.detach(|| Block::new(len))?))
    }

    /// Where the memory is in this process, while this object lives.
    #[getter]
    fn address(&self) -> usize {
        self.0.address()
    }

    /// Number of bytes.
    #[getter]
    fn size(&self) -> usize {
        self.0.len()
    }

    fn __getnewargs_ex__<'py>(
        slf: &Bound<'py, Self>,
    ) -> EngineResult<((usize,), Bound<'py, PyDict>)> {
        let block = &slf.get().0;
        let handle = packed(slf, block.note())?;
        Ok(((block.len(),), [("handle", handle)].into_py_dict(slf.py())?))
    }
}

/// Memory from this size on is zeroed with the interpreter let go of, in bytes.
const LARGE: usize = 1 << 20;

/// Write the items of a list or tuple to the start of a block, as an array of `ctypes` objects.
///
/// False if there is an item that only `ctypes` can convert.
#[pyfunction]
pub(crate) fn fill(
    block: &Bound<'_, PyBlock>,
    typecode: char,
    items: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let Some(kind) = Kind::of(typecode) else { return Ok(false) };
    let cells = Cells::new(kind, block.get().0.clone(), usize::MAX);
    Ok(cells.set_all(0, items))
}
