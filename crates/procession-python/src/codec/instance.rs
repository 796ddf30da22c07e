//! Objects of plain classes as pickles.
//!
//! What most programs send that is not plain is an instance of a class of theirs with plain attributes.
//! The pickler asks such an object for a tuple that says how to make it again, by way of several
//! calls; what comes of it is always the same, so it is written here as it would be: the class by
//! name, made without arguments, and given its attributes.
//!
//! Only an object that would say nothing else about itself is written. Whoever asks has seen to it
//! that no reducer is registered for its class.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use crate::codec::encode::encode_instance;
use crate::draft::Draft;

/// Appends `value` to `draft` as a pickle, if it is an instance of a plain class with plain
/// attributes, and says whether it was. If it was not, `draft` is as it was.
pub(crate) fn encode_plain_instance<'py>(
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
) -> PyResult<bool> {
    let py = value.py();
    let class = value.get_type();
    let usual = Usual::get(py)?;
    if !usual.describes(value, &class)? {
        return Ok(false);
    }
    let state = value.getattr(intern!(py, "__dict__"))?;
    let Ok(state) = state.cast_exact::<PyDict>() else { return Ok(false) };
    if !state.iter().all(|(name, _)| is_plain_name(&name)) {
        return Ok(false);
    }
    let module = class.getattr(intern!(py, "__module__"))?;
    let name = class.getattr(intern!(py, "__qualname__"))?;
    let (Ok(module), Ok(name)) = (module.cast_exact::<PyString>(), name.cast_exact::<PyString>())
    else {
        return Ok(false);
    };
    if !usual.finds(&class, module, name)? {
        return Ok(false);
    }
    let (Ok(module), Ok(name)) = (module.to_str(), name.to_str()) else { return Ok(false) };
    Ok(encode_instance(module, name, state, draft))
}

/// Whether this is the name of an attribute that says nothing about the object to the pickler.
fn is_plain_name(name: &Bound<'_, PyAny>) -> bool {
    name.cast_exact::<PyString>()
        .is_ok_and(|name| name.to_str().is_ok_and(|name| !name.starts_with("__")))
}

/// What a plain class has from `object`, and what its instances look like.
struct Usual {
    methods: [(Py<PyString>, Py<PyAny>); 5],
    layout: [(Py<PyString>, Py<PyAny>); 3],
    /// `sys.modules`.
    modules: Py<PyAny>,
    /// Looks for an attribute that is most likely not there, without an exception.
    getattr: Py<PyAny>,
}

impl Usual {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static USUAL: PyOnceLock<Usual> = PyOnceLock::new();
        USUAL.get_or_try_init(py, || {
            let builtins = py.import("builtins")?;
            let object = builtins.getattr("object")?;
            let plain = builtins.getattr("type")?.call1(("Plain", (), PyDict::new(py)))?;
            let of = |source: &Bound<'_, PyAny>, name: &str| {
                Ok::<_, PyErr>((
                    PyString::intern(py, name).unbind(),
                    source.getattr(name)?.unbind(),
                ))
            };
            Ok(Self {
                methods: [
                    of(&object, "__reduce_ex__")?,
                    of(&object, "__reduce__")?,
                    of(&object, "__getstate__")?,
                    of(&object, "__getattribute__")?,
                    of(&object, "__new__")?,
                ],
                layout: [
                    of(&plain, "__basicsize__")?,
                    of(&plain, "__dictoffset__")?,
                    of(&plain, "__weakrefoffset__")?,
                ],
                modules: py.import("sys")?.getattr("modules")?.unbind(),
                getattr: builtins.getattr("getattr")?.unbind(),
            })
        })
    }

    /// Whether the pickler would learn nothing from `value` but its class and its attributes.
    fn describes(&self, value: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let py = value.py();
        // The class of a class may answer for it.
        if !class.get_type().is(py.get_type::<PyType>()) {
            return Ok(false);
        }
        for (name, size) in &self.layout {
            if !class.getattr(name.bind(py))?.eq(size)? {
                return Ok(false);
            }
        }
        for (name, method) in &self.methods {
            if !class.getattr(name.bind(py))?.is(method) {
                return Ok(false);
            }
        }
        for name in [intern!(py, "__getnewargs_ex__"), intern!(py, "__getnewargs__")] {
            if !self.getattr.bind(py).call1((value, name, py.None()))?.is_none() {
                return Ok(false);
            }
        }
        Ok(value.getattr(intern!(py, "__class__"))?.is(class))
    }

    /// Whether the class is found by these names.
    fn finds(
        &self,
        class: &Bound<'_, PyType>,
        module: &Bound<'_, PyString>,
        name: &Bound<'_, PyString>,
    ) -> PyResult<bool> {
        let modules = self.modules.bind(class.py());
        let Ok(modules) = modules.cast_exact::<PyDict>() else { return Ok(false) };
        let Some(module) = modules.get_item(module)? else { return Ok(false) };
        let found = self.getattr.bind(class.py()).call1((module, name, class.py().None()))?;
        Ok(found.is(class))
    }
}
