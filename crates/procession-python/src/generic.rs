//! `Queue[int]` and the like, for annotations.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The class with a parameter that type checkers look at and nobody else.
pub(crate) fn generic_alias<'py>(
    class: &Bound<'py, PyType>,
    item: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static ALIAS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    ALIAS.import(class.py(), "types", "GenericAlias")?.call1((class, item))
}
