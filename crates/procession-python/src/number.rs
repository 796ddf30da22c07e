//! Whole numbers that a program gives, and what it is told where there can be none like it.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

/// Reads a whole number. A `ValueError` says what is allowed if it is none of those; other objects
/// are a `TypeError`.
fn within(name: &str, value: &Bound<'_, PyAny>, least: u64, most: u64) -> PyResult<u64> {
    let number = match value.extract::<u64>() {
        Ok(number) => Some(number),
        // Less than nothing, or more than fits anywhere.
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => None,
        Err(error) => return Err(error),
    };
    if let Some(number) = number.filter(|number| (least..=most).contains(number)) {
        return Ok(number);
    }
    let allowed =
        if value.lt(least)? { format!("at least {least}") } else { format!("at most {most}") };
    Err(PyValueError::new_err(format!("{name} must be {allowed}, not {value}")))
}

/// A number from `least` on, or none at all.
pub(crate) fn at_least(
    name: &str,
    value: Option<&Bound<'_, PyAny>>,
    least: u64,
) -> PyResult<Option<u64>> {
    value.map(|value| within(name, value, least, u64::MAX)).transpose()
}

/// The number of a CPU.
pub(crate) fn cpu(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    size("the number of a CPU", value)
}

/// How often a task is carried out again.
pub(crate) fn retries(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    // It fits, being no more than that.
    within("retries", value, 0, u64::from(u32::MAX)).map(|number| number as u32)
}

/// How often a task is carried out again, if a call says anything about it.
pub(crate) fn retries_if_given(value: &Bound<'_, PyAny>) -> PyResult<Option<u32>> {
    if value.is_none() { Ok(None) } else { retries(value).map(Some) }
}

/// How many objects are wanted.
pub(crate) fn limit(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    size("limit", value)
}

fn size(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    // It fits, being no more than that.
    within(name, value, 0, usize::MAX as u64).map(|number| number as usize)
}

/// The longest message, in bytes, if a program says anything about it.
pub(crate) fn max_message(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    at_least("max_message", Some(value).filter(|value| !value.is_none()), 0)
}
