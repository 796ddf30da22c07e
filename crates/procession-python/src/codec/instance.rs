//! Objects of plain classes as pickles.
//!
//! What most programs send that is not plain is an instance of a class of theirs with plain attributes.
//! The pickler asks such an object for a tuple that says how to make it again, by way of several
//! calls; what comes of it is always the same, so it is written here as it would be: the class by
//! name, made without arguments, and given its attributes.
//!
//! Only an object that would say nothing else about itself is written. Whoever asks has seen to it
//! that no reducer is registered for its class.
//!
//! What was written is read in the steps of the unpickler, and with the same effect, if the class is
//! imported here and makes its instances as `object` does; else the unpickler reads it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use crate::codec::decode::decode_body;
use crate::codec::encode::encode_instance;
use crate::codec::{PROTOCOL, op};
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

/// The object that a pickle by [`encode_plain_instance`] describes; `None` if this is none, or the
/// unpickler must read it. Runs no code of the program then, but for a module's own `__getattr__`.
///
/// # Errors
///
/// What the class raises when its instance is made, or given its state.
pub(crate) fn decode_plain_instance<'py>(
    py: Python<'py>,
    pickle: &[u8],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(parts) = Parts::of(py, pickle) else { return Ok(None) };
    let usual = Usual::get(py)?;
    let [module, name] = [parts.module, parts.name].map(|part| PyString::new(py, part));
    let Some(class) = usual.look_up(&module, &name)? else { return Ok(None) };
    if !usual.makes(&class)? {
        return Ok(None);
    }
    usual.audit.bind(py).call1((intern!(py, "pickle.find_class"), module, name))?;
    let value = usual.methods[NEW].1.bind(py).call1((class,))?;
    if let Some(state) = &parts.state {
        usual.give(&value, state)?;
    }
    Ok(Some(value))
}

/// What a pickle by [`encode_plain_instance`] consists of.
struct Parts<'a, 'py> {
    module: &'a str,
    name: &'a str,
    state: Option<Bound<'py, PyDict>>,
}

impl<'a, 'py> Parts<'a, 'py> {
    #[inline]
    fn of(py: Python<'py>, pickle: &'a [u8]) -> Option<Self> {
        let [op::PROTO, PROTOCOL, op::GLOBAL, body @ .., op::STOP] = pickle else { return None };
        let (module, body) = line(body)?;
        let (name, body) = line(body)?;
        let state = match body {
            [op::EMPTY_TUPLE, op::NEWOBJ] => None,
            [op::EMPTY_TUPLE, op::NEWOBJ, state @ .., op::BUILD] => {
                Some(decode_body(py, state)?.cast_into_exact::<PyDict>().ok()?)
            }
            _ => return None,
        };
        Some(Self { module, name, state })
    }
}

/// Splits the first line off.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
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
    /// `sys.audit`.
    audit: Py<PyAny>,
    /// Looks for an attribute that is most likely not there, without an exception.
    getattr: Py<PyAny>,
    /// What no attribute is.
    nothing: Py<PyAny>,
}

/// Where `__new__` is among the methods.
const NEW: usize = 4;

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
                audit: py.import("sys")?.getattr("audit")?.unbind(),
                getattr: builtins.getattr("getattr")?.unbind(),
                nothing: object.call0()?.unbind(),
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
        Ok(self.look_up(module, name)?.is_some_and(|found| found.is(class)))
    }

    /// What a module that is imported has by this name.
    fn look_up<'py>(
        &self,
        module: &Bound<'py, PyString>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let modules = self.modules.bind(module.py());
        let Ok(modules) = modules.cast_exact::<PyDict>() else { return Ok(None) };
        let Some(module) = modules.get_item(module)? else { return Ok(None) };
        self.attribute(&module, name)
    }

    /// The attribute of this name, if there is one.
    fn attribute<'py>(
        &self,
        of: &Bound<'py, PyAny>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let nothing = self.nothing.bind(of.py());
        let found = self.getattr.bind(of.py()).call1((of, name, nothing))?;
        Ok((!found.is(nothing)).then_some(found))
    }

    /// Whether this is a class whose instances are made as those of `object`.
    fn makes(&self, class: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (new, usual) = &self.methods[NEW];
        Ok(class.cast_exact::<PyType>().is_ok() && class.getattr(new.bind(class.py()))?.is(usual))
    }

    /// Gives an instance its state, as the unpickler does.
    fn give<'py>(&self, value: &Bound<'py, PyAny>, state: &Bound<'py, PyDict>) -> PyResult<()> {
        let py = value.py();
        if let Some(set) = self.attribute(value, intern!(py, "__setstate__"))? {
            return set.call1((state,)).map(drop);
        }
        let attributes = value.getattr(intern!(py, "__dict__"))?;
        for (name, attribute) in state {
            match name.cast_exact::<PyString>() {
                Ok(name) => attributes.set_item(PyString::intern(py, name.to_str()?), attribute)?,
                Err(_) => attributes.set_item(name, attribute)?,
            }
        }
        Ok(())
    }
}
