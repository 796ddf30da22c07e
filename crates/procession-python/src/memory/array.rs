//! `ctypes` arrays behind a lock.

use pyo3::prelude::*;
use pyo3::types::slice::PySliceIndices;
use pyo3::types::{PyInt, PySlice, PyTuple};

use crate::memory::cells::Cells;
use crate::memory::synchronized::{Attached, PySynchronizedBase};

/// An array in shared memory together with a lock.
#[pyclass(
    name = "SynchronizedArray",
    module = "procession._procession",
    extends = PySynchronizedBase,
    subclass,
    frozen
)]
pub(crate) struct PySynchronizedArray;

#[pymethods]
impl PySynchronizedArray {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyAny>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(PySynchronizedBase::empty()).add_subclass(Self)
    }

    fn __len__(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let attached = slf.as_super().get().attached()?;
        match &attached.cells {
            Some(cells) => Ok(cells.len()),
            None => attached.obj.bind(slf.py()).len(),
        }
    }

    fn __getitem__<'py>(
        slf: &Bound<'py, Self>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Attached { obj, guard, cells, .. } = slf.as_super().get().attached()?;
        guard.with(py, || match cells {
            Some(cells) if let Some(found) = get(cells, index)? => Ok(found),
            _ => obj.bind(py).get_item(index),
        })
    }

    fn __setitem__(
        slf: &Bound<'_, Self>,
        index: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let Attached { obj, guard, cells, .. } = slf.as_super().get().attached()?;
        guard.with(py, || match cells {
            Some(cells) if set(cells, index, value)? => Ok(()),
            _ => obj.bind(py).set_item(index, value),
        })
    }
}

/// What is at an index or a slice; `None` if only `ctypes` can tell.
#[inline]
fn get<'py>(cells: &Cells, index: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(at) = position(cells, index) {
        return cells.get(index.py(), at);
    }
    let Some(slice) = indices(cells, index)? else { return Ok(None) };
    let steps = (0..slice.slicelength).map(|step| {
        // Within the array, as `indices` has seen to.
        (slice.start + slice.step * step as isize).cast_unsigned()
    });
    cells.get_slice(index.py(), steps).map(Some)
}

/// Writes to an index or a slice; false if only `ctypes` can do it.
#[inline]
fn set(cells: &Cells, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Some(at) = position(cells, index) {
        return Ok(cells.set(at, value));
    }
    let Some(slice) = indices(cells, index)? else { return Ok(false) };
    let fits = slice.step == 1 && value.len().is_ok_and(|len| len == slice.slicelength);
    Ok(fits && cells.set_all(slice.start.cast_unsigned(), value))
}

/// The place that an `int` in range stands for.
#[inline]
fn position(cells: &Cells, index: &Bound<'_, PyAny>) -> Option<usize> {
    let number: isize = index.cast_exact::<PyInt>().ok()?.extract().ok()?;
    let at = if number < 0 { number.checked_add_unsigned(cells.len())? } else { number };
    usize::try_from(at).ok().filter(|at| *at < cells.len())
}

fn indices(cells: &Cells, index: &Bound<'_, PyAny>) -> PyResult<Option<PySliceIndices>> {
    let Ok(slice) = index.cast_exact::<PySlice>() else { return Ok(None) };
    let len = isize::try_from(cells.len())?;
    slice.indices(len).map(Some)
}
