//! Positions in a list, as Python counts them.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PySlice;

/// One position or several of them, of a list of any length.
#[derive(Debug, Clone, Copy)]
pub(super) enum Index {
    One(isize),
    Slice(Slice),
}

/// A slice before the length of the list is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    start: isize,
    stop: isize,
    step: isize,
}

/// The positions that a slice means in a list of some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) start: usize,
    pub(super) step: isize,
    pub(super) count: usize,
}

impl Index {
    pub(super) fn from_python(index: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(slice) = index.cast::<PySlice>() {
            return Slice::from_python(slice).map(Self::Slice);
        }
        match index.extract::<isize>() {
            Ok(position) => Ok(Self::One(position)),
            Err(error) if error.is_instance_of::<PyTypeError>(index.py()) => {
                let class = index.get_type().name()?.to_string();
                let text = format!("list indices must be integers or slices, not {class}");
                Err(PyTypeError::new_err(text))
            }
            Err(error) if error.is_instance_of::<PyOverflowError>(index.py()) => {
                let class = index.get_type().name()?.to_string();
                let text = format!("cannot fit '{class}' into an index-sized integer");
                Err(pyo3::exceptions::PyIndexError::new_err(text))
            }
            Err(error) => Err(error),
        }
    }
}

/// A bound of a slice; one that is too large is the largest there is.
fn bound(value: &Bound<'_, PyAny>, missing: isize) -> PyResult<isize> {
    if value.is_none() {
        return Ok(missing);
    }
    match value.extract::<isize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { isize::MIN } else { isize::MAX })
        }
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(PyTypeError::new_err(
            "slice indices must be integers or None or have an __index__ method",
        )),
        result => result,
    }
}

impl Slice {
    fn from_python(slice: &Bound<'_, PySlice>) -> PyResult<Self> {
        let py = slice.py();
        let step = bound(&slice.getattr(intern!(py, "step"))?, 1)?;
        if step == 0 {
            return Err(PyValueError::new_err("slice step cannot be zero"));
        }
        let (first, behind) = if step < 0 { (isize::MAX, isize::MIN) } else { (0, isize::MAX) };
        let start = bound(&slice.getattr(intern!(py, "start"))?, first)?;
        let stop = bound(&slice.getattr(intern!(py, "stop"))?, behind)?;
        // So that it can be negated.
        Ok(Self { start, stop, step: step.max(-isize::MAX) })
    }

    pub(super) fn is_plain(self) -> bool {
        self.step == 1
    }

    pub(super) fn within(self, len: usize) -> Positions {
        let Self { start, stop, step } = self;
        let len = len as isize;
        // One in front of the first is where a slice backwards ends.
        let (least, most) = if step < 0 { (-1, len - 1) } else { (0, len) };
        let clamp =
            |at: isize| if at < 0 { (at.saturating_add(len)).max(least) } else { at.min(most) };
        let (start, stop) = (clamp(start), clamp(stop));
        let distance = if step < 0 { start - stop } else { stop - start };
        let count = if distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
        Positions { start: start.max(0) as usize, step, count: count as usize }
    }
}

impl Positions {
    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = usize> {
        (0..self.count).map(move |number| {
            let distance = self.step.wrapping_mul(number as isize);
            self.start.wrapping_add_signed(distance)
        })
    }
}

/// The position that a number which may count from the end means; `None` outside.
pub(super) fn position(index: isize, len: usize) -> Option<usize> {
    let at = if index < 0 { len.checked_add_signed(index)? } else { index as usize };
    (at < len).then_some(at)
}
