//! `ArenaDict`.

use procession::collection::{ByteDict, Change, Content, Item, StoredKey};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple, PyType};

use super::keys::{KeyForm, Known, OwnedKey, at_key, load_key};
use super::{load, locked, reduced, repr_of, store};
use crate::error::EngineResult;

/// A dict that any process of the tree can use; its values are copies.
#[pyclass(name = "ArenaDict", module = "procession._procession", frozen, weakref, generic, mapping)]
pub(crate) struct PyArenaDict(ByteDict);

impl PyArenaDict {
    /// All keys and values, copied at one moment, in a dict of this process.
    fn to_dict<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyDict>> {
        let copy = PyDict::new(py);
        for (key, value) in locked(py, &self.0, |guard| guard.entries())?? {
            copy.set_item(load_key(py, &key)?, load(py, &value)?)?;
        }
        Ok(copy)
    }

    fn loaded_keys<'py>(
        &self,
        py: Python<'py>,
        keys: &[StoredKey],
    ) -> EngineResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for key in keys {
            list.append(load_key(py, key)?)?;
        }
        Ok(list)
    }

    /// What is under a key, or what comes of taking it out.
    fn find(&self, key: &Bound<'_, PyAny>, take: bool) -> EngineResult<Option<Content>> {
        let form = KeyForm::to_find(key)?;
        at_key(&self.0, key, &form, |guard, target| match target.key {
            Some(key) if take => guard.take(key),
            Some(key) => guard.get(key),
            None => Ok(None),
        })
    }

    /// Puts everything in that is in `entries`, in one step.
    fn put_all(&self, entries: &Bound<'_, PyDict>) -> EngineResult<()> {
        let py = entries.py();
        let mut prepared = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            prepared.push((KeyForm::to_put(&key)?, store(&value)?));
        }
        let (forms, mut values): (Vec<_>, Vec<Item>) = prepared.into_iter().unzip();
        loop {
            let found = self.compare(entries, &forms)?;
            let done = locked(py, &self.0, |mut guard| {
                let current = match &found {
                    Some((version, _)) => guard.keys_version() == *version,
                    None => guard.opaque() == 0,
                };
                if !current {
                    return Err(values);
                }
                let none = Vec::new();
                let found = found.as_ref().map_or(&none, |(_, found)| found);
                let absent = None;
                let keys = forms.iter().enumerate();
                let keys =
                    keys.map(|(at, form)| form.target_after(found.get(at).unwrap_or(&absent)));
                let changes = keys.zip(values).map(|(key, value)| Change { key: key.new, value });
                Ok(guard.extend(changes.collect()))
            })?;
            values = match done {
                Ok(result) => return Ok(result?),
                Err(values) => values,
            };
        }
    }

    /// Which of the keys are there, and at what version of the dict; `None` if the engine can tell.
    fn compare(
        &self,
        entries: &Bound<'_, PyDict>,
        forms: &[KeyForm],
    ) -> EngineResult<Option<(u64, Vec<Option<OwnedKey>>)>> {
        let py = entries.py();
        let foreign = forms.iter().any(KeyForm::is_foreign);
        if !foreign && locked(py, &self.0, |guard| guard.opaque())? == 0 {
            return Ok(None);
        }
        let known = Known::read(py, &self.0, foreign)?;
        let found = entries.keys().iter().map(|key| known.find(&key)).collect::<PyResult<_>>()?;
        Ok(Some((known.version, found)))
    }

    /// The other operand as a dict, if it is one.
    fn operand<'py>(other: &Bound<'py, PyAny>) -> EngineResult<Option<Bound<'py, PyDict>>> {
        if let Ok(other) = other.cast::<Self>() {
            return other.get().to_dict(other.py()).map(Some);
        }
        Ok(other.cast::<PyDict>().ok().cloned())
    }
}

/// A dict made as `dict(*args, **kwargs)` is.
fn collect<'py>(
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let entries = arguments.py().get_type::<PyDict>().call(arguments, keywords)?;
    Ok(entries.cast_into::<PyDict>()?)
}

fn missing(key: &Bound<'_, PyAny>) -> PyErr {
    // In a tuple, since a tuple by itself would be taken for the arguments.
    PyKeyError::new_err((key.clone().unbind(),))
}

#[pymethods]
impl PyArenaDict {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn py_new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> EngineResult<Self> {
        let dict = Self(ByteDict::new()?);
        if !args.is_empty() || kwargs.is_some() {
            dict.put_all(&collect(args, kwargs)?)?;
        }
        Ok(dict)
    }

    /// Make a dict with these keys, all with the same value.
    #[classmethod]
    #[pyo3(signature = (iterable, value=None, /))]
    fn fromkeys(
        class: &Bound<'_, PyType>,
        iterable: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
    ) -> EngineResult<Self> {
        let plain = class.py().get_type::<PyDict>();
        let entries = plain.call_method1("fromkeys", (iterable, value))?.cast_into::<PyDict>();
        let dict = Self(ByteDict::new()?);
        dict.put_all(&entries.map_err(PyErr::from)?)?;
        Ok(dict)
    }

    /// The dict that a `handle_id` stands for.
    #[classmethod]
    #[pyo3(signature = (handle_id, /))]
    fn _open(class: &Bound<'_, PyType>, handle_id: u64) -> EngineResult<Self> {
        let _ = class;
        Ok(Self(ByteDict::open(handle_id)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> EngineResult<(Bound<'py, PyAny>, (u64,))> {
        reduced(slf, slf.get().0.note())
    }

    /// The number by which every process of the tree knows the dict.
    #[getter]
    fn handle_id(&self) -> u64 {
        self.0.id()
    }

    fn __len__(&self, py: Python<'_>) -> EngineResult<usize> {
        Ok(locked(py, &self.0, |guard| guard.len())?)
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> EngineResult<bool> {
        let form = KeyForm::to_find(key)?;
        at_key(&self.0, key, &form, |guard, target| match target.key {
            Some(key) => guard.contains(key),
            None => Ok(false),
        })
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyAny>) -> EngineResult<Bound<'py, PyAny>> {
        match self.find(key, false)? {
            Some(content) => load(key.py(), &content),
            None => Err(missing(key).into()),
        }
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let form = KeyForm::to_put(key)?;
        let value = store(value)?;
        at_key(&self.0, key, &form, |guard, target| guard.insert(&target.new, value))?;
        Ok(())
    }

    fn __delitem__(&self, key: &Bound<'_, PyAny>) -> EngineResult<()> {
        let form = KeyForm::to_find(key)?;
        let removed = at_key(&self.0, key, &form, |guard, target| match target.key {
            Some(key) => guard.remove(key),
            None => Ok(false),
        })?;
        if removed { Ok(()) } else { Err(missing(key).into()) }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyIterator>> {
        Ok(self.keys(py)?.try_iter()?)
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyAny>> {
        Ok(self.keys(py)?.call_method0("__reversed__")?)
    }

    fn __repr__(&self, py: Python<'_>) -> EngineResult<String> {
        repr_of(self.0.id(), "{...}", || Ok(self.to_dict(py)?.repr()?.extract()?))
    }

    fn __richcmp__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> EngineResult<Bound<'py, PyAny>> {
        match Self::operand(other)? {
            Some(other) if matches!(op, CompareOp::Eq | CompareOp::Ne) => {
                Ok(self.to_dict(py)?.rich_compare(other, op)?)
            }
            _ => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __or__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let Some(other) = Self::operand(other)? else {
            return Ok(py.NotImplemented().into_bound(py));
        };
        let both = self.to_dict(py)?;
        both.update(other.as_mapping())?;
        Ok(both.into_any())
    }

    fn __ror__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let Some(other) = Self::operand(other)? else {
            return Ok(py.NotImplemented().into_bound(py));
        };
        let both = other.copy()?;
        both.update(self.to_dict(py)?.as_mapping())?;
        Ok(both.into_any())
    }

    fn __ior__(&self, other: &Bound<'_, PyAny>) -> EngineResult<()> {
        self.update(&PyTuple::new(other.py(), [other])?, None)
    }

    /// Return the value under the key, or `default` if there is none.
    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> EngineResult<Option<Bound<'py, PyAny>>> {
        match self.find(key, false)? {
            Some(content) => load(key.py(), &content).map(Some),
            None => Ok(default),
        }
    }

    /// Remove a key and return its value, or `default` if it is not there.
    #[pyo3(signature = (key, /, *default))]
    fn pop<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: &Bound<'py, PyTuple>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        if default.len() > 1 {
            let text = format!("pop expected at most 2 arguments, got {}", default.len() + 1);
            return Err(PyTypeError::new_err(text).into());
        }
        match self.find(key, true)? {
            Some(content) => load(key.py(), &content),
            None if default.is_empty() => Err(missing(key).into()),
            None => Ok(default.get_item(0)?),
        }
    }

    /// Remove the last key and return it with its value.
    fn popitem<'py>(
        &self,
        py: Python<'py>,
    ) -> EngineResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        match locked(py, &self.0, |mut guard| guard.pop_last())?? {
            Some((key, value)) => Ok((load_key(py, &key)?, load(py, &value)?)),
            None => Err(PyKeyError::new_err("popitem(): dictionary is empty").into()),
        }
    }

    /// Return the value under the key; if there is none, put `default` there and return it.
    #[pyo3(signature = (key, default=None, /))]
    fn setdefault<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let py = key.py();
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        let form = KeyForm::to_put(key)?;
        let value = store(&default)?;
        let found = at_key(&self.0, key, &form, |guard, target| {
            let found = target.key.map(|key| guard.get(key)).transpose()?.flatten();
            if found.is_none() {
                guard.insert(&target.new, value)?;
            }
            Ok(found)
        })?;
        found.map_or(Ok(default), |content| load(py, &content))
    }

    /// Put several values in, in one step: from a mapping or from pairs, and from keywords.
    #[pyo3(signature = (*args, **kwargs))]
    fn update(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> EngineResult<()> {
        if args.len() > 1 {
            let text = format!("update expected at most 1 argument, got {}", args.len());
            return Err(PyTypeError::new_err(text).into());
        }
        let entries = collect(args, kwargs)?;
        if entries.is_empty() { Ok(()) } else { self.put_all(&entries) }
    }

    /// Return the keys, copied at one moment.
    fn keys<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyList>> {
        let keys = locked(py, &self.0, |guard| guard.keys())??;
        self.loaded_keys(py, &keys)
    }

    /// Return the values, copied at one moment.
    fn values<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for value in locked(py, &self.0, |guard| guard.values())?? {
            list.append(load(py, &value)?)?;
        }
        Ok(list)
    }

    /// Return pairs of keys and values, copied at one moment.
    fn items<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (key, value) in locked(py, &self.0, |guard| guard.entries())?? {
            list.append((load_key(py, &key)?, load(py, &value)?))?;
        }
        Ok(list)
    }

    /// Return a plain dict with copies of all keys and values.
    fn copy<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyDict>> {
        self.to_dict(py)
    }

    /// Remove all keys, in one step.
    fn clear(&self, py: Python<'_>) -> EngineResult<()> {
        Ok(locked(py, &self.0, |mut guard| guard.clear())??)
    }
}
