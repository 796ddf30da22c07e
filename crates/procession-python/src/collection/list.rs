//! `ArenaList`.

use procession::collection::{ByteList, Content, Element, Item, ListGuard};
use procession::shm::ArenaError;
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{IntoPyDict, PyIterator, PyList, PySlice, PyTuple, PyType};

use super::slices::{Index, Positions, Slice, position};
use super::{load, locked, reduced, repr_of, store};
use crate::error::EngineResult;

/// A list that any process of the tree can use; its elements are copies.
#[pyclass(name = "ArenaList", module = "procession._procession", frozen, weakref, generic)]
pub(crate) struct PyArenaList(ByteList);

/// What is wrong with an assignment to an extended slice.
struct SizesDiffer {
    given: usize,
    expected: usize,
}

fn load_all<'py>(py: Python<'py>, contents: &[Content]) -> EngineResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for content in contents {
        list.append(load(py, content)?)?;
    }
    Ok(list)
}

fn store_all(values: &Bound<'_, PyList>) -> EngineResult<Vec<Item>> {
    values.iter().map(|value| store(&value)).collect()
}

fn out_of_range(text: &'static str) -> PyErr {
    PyIndexError::new_err(text)
}

fn kept(guard: &ListGuard<'_>) -> Result<Vec<Element>, ArenaError> {
    Ok((0..guard.len()?).map(Element::Kept).collect())
}

impl PyArenaList {
    /// All elements, copied at one moment, in a list of this process.
    fn to_list<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyList>> {
        load_all(py, &locked(py, &self.0, |guard| guard.values())??)
    }

    /// The same, and the version that the list had then.
    fn at_version<'py>(&self, py: Python<'py>) -> EngineResult<(u64, Bound<'py, PyList>)> {
        let (version, contents) = locked(py, &self.0, |guard| (guard.version(), guard.values()))?;
        Ok((version, load_all(py, &contents?)?))
    }

    /// Calls `act` if the list is still of this version, and says whether.
    fn if_unchanged(
        &self,
        py: Python<'_>,
        version: u64,
        act: impl FnOnce(&mut ListGuard<'_>) -> Result<(), ArenaError> + Send,
    ) -> EngineResult<bool> {
        let done = locked(py, &self.0, |mut guard| {
            if guard.version() != version {
                return Ok(false);
            }
            act(&mut guard).map(|()| true)
        })?;
        Ok(done?)
    }

    fn append_all(&self, values: &Bound<'_, PyList>) -> EngineResult<()> {
        let items = store_all(values)?;
        Ok(locked(values.py(), &self.0, |mut guard| guard.extend(items))??)
    }

    /// The other operand as a list, if it is one.
    fn operand<'py>(other: &Bound<'py, PyAny>) -> EngineResult<Option<Bound<'py, PyList>>> {
        if let Ok(other) = other.cast::<Self>() {
            return other.get().to_list(other.py()).map(Some);
        }
        Ok(other.cast::<PyList>().ok().cloned())
    }

    fn set_slice(&self, slice: Slice, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let py = value.py();
        if let Err(error) = value.try_iter() {
            return Err(if_not_iterable(error, value, slice).into());
        }
        let values = listed(value)?;
        let items = store_all(&values)?;
        let done = locked(py, &self.0, |mut guard| {
            let positions = slice.within(guard.len()?);
            if !slice.is_plain() && positions.count != items.len() {
                let (given, expected) = (items.len(), positions.count);
                return Ok(Err(SizesDiffer { given, expected }));
            }
            assign(&mut guard, positions, items).map(Ok)
        })?;
        let done: Result<Result<(), SizesDiffer>, ArenaError> = done;
        done?.map_err(|SizesDiffer { given, expected }| {
            let text = format!(
                "attempt to assign sequence of size {given} to extended slice of size {expected}"
            );
            PyValueError::new_err(text).into()
        })
    }
}

/// Puts items at positions; at those in a row, of which there may be more or fewer.
fn assign(
    guard: &mut ListGuard<'_>,
    positions: Positions,
    items: Vec<Item>,
) -> Result<(), ArenaError> {
    let Positions { start, step, count } = positions;
    if step == 1 && count == 0 && start == guard.len()? {
        return guard.extend(items);
    }
    let mut elements = kept(guard)?;
    let new = items.into_iter().map(Element::New);
    if step == 1 {
        elements.splice(start..start + count, new);
    } else {
        positions.iter().zip(new).for_each(|(at, new)| elements[at] = new);
    }
    guard.rearrange(elements)
}

/// Removes what is at positions.
fn remove(guard: &mut ListGuard<'_>, positions: Positions) -> Result<(), ArenaError> {
    let Positions { start, step, count } = positions;
    if step == 1 || count <= 1 {
        return guard.remove(start..start + count);
    }
    let mut stays = vec![true; guard.len()?];
    positions.iter().for_each(|at| stays[at] = false);
    let left = stays.iter().enumerate().filter(|(_, stays)| **stays);
    guard.rearrange(left.map(|(at, _)| Element::Kept(at)).collect())
}

/// A list of what an iterable gives.
fn listed<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let list = iterable.py().get_type::<PyList>().call1((iterable,))?;
    Ok(list.cast_into::<PyList>()?)
}

/// What an assignment of this value to a slice raises, where iterating over it raised `error`.
///
/// A list has words of its own for what is not iterable, which depend on the interpreter's version. So
/// one is asked.
fn if_not_iterable(error: PyErr, value: &Bound<'_, PyAny>, slice: Slice) -> PyErr {
    let py = value.py();
    if !error.is_instance_of::<PyTypeError>(py) {
        return error;
    }
    let step = if slice.is_plain() { 1 } else { 2 };
    let asked = PyList::empty(py).as_any().set_item(PySlice::new(py, 0, 0, step), value);
    asked.err().unwrap_or(error)
}

#[pymethods]
impl PyArenaList {
    #[new]
    #[pyo3(signature = (iterable=None, /))]
    fn py_new(iterable: Option<&Bound<'_, PyAny>>) -> EngineResult<Self> {
        let list = Self(ByteList::new()?);
        if let Some(iterable) = iterable {
            list.extend(iterable)?;
        }
        Ok(list)
    }

    /// The list that a `handle_id` stands for.
    #[classmethod]
    #[pyo3(signature = (handle_id, /))]
    fn _open(class: &Bound<'_, PyType>, handle_id: u64) -> EngineResult<Self> {
        let _ = class;
        Ok(Self(ByteList::open(handle_id)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> EngineResult<(Bound<'py, PyAny>, (u64,))> {
        reduced(slf, slf.get().0.note())
    }

    /// The number by which every process of the tree knows the list.
    #[getter]
    fn handle_id(&self) -> u64 {
        self.0.id()
    }

    fn __len__(&self, py: Python<'_>) -> EngineResult<usize> {
        Ok(locked(py, &self.0, |guard| guard.len())??)
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> EngineResult<Bound<'py, PyAny>> {
        let py = index.py();
        match Index::from_python(index)? {
            Index::One(index) => {
                let found = locked(py, &self.0, |guard| match position(index, guard.len()?) {
                    Some(at) => guard.get(at),
                    None => Ok(None),
                })??;
                let content = found.ok_or_else(|| out_of_range("list index out of range"))?;
                load(py, &content)
            }
            Index::Slice(slice) => {
                let contents = locked(py, &self.0, |guard| {
                    let positions = slice.within(guard.len()?);
                    let found = positions.iter().map(|at| guard.get(at));
                    found.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
                })??;
                Ok(load_all(py, &contents)?.into_any())
            }
        }
    }

    fn __setitem__(&self, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let index = match Index::from_python(index)? {
            Index::One(index) => index,
            Index::Slice(slice) => return self.set_slice(slice, value),
        };
        let item = store(value)?;
        let set = locked(value.py(), &self.0, |mut guard| match position(index, guard.len()?) {
            Some(at) => guard.set(at, item),
            None => Ok(false),
        })??;
        if set { Ok(()) } else { Err(out_of_range("list assignment index out of range").into()) }
    }

    fn __delitem__(&self, index: &Bound<'_, PyAny>) -> EngineResult<()> {
        let py = index.py();
        let index = Index::from_python(index)?;
        let deleted = locked(py, &self.0, |mut guard| {
            let len = guard.len()?;
            let positions = match index {
                Index::One(index) => match position(index, len) {
                    Some(start) => Positions { start, step: 1, count: 1 },
                    None => return Ok(false),
                },
                Index::Slice(slice) => slice.within(len),
            };
            remove(&mut guard, positions).map(|()| true)
        })?;
        let deleted: Result<bool, ArenaError> = deleted;
        if deleted? {
            return Ok(());
        }
        Err(out_of_range("list assignment index out of range").into())
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> EngineResult<bool> {
        Ok(self.to_list(value.py())?.contains(value)?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyIterator>> {
        Ok(self.to_list(py)?.try_iter()?)
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyAny>> {
        Ok(self.to_list(py)?.call_method0(intern!(py, "__reversed__"))?)
    }

    fn __repr__(&self, py: Python<'_>) -> EngineResult<String> {
        repr_of(self.0.id(), "[...]", || Ok(self.to_list(py)?.repr()?.extract()?))
    }

    fn __richcmp__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> EngineResult<Bound<'py, PyAny>> {
        match Self::operand(other)? {
            Some(other) => Ok(self.to_list(py)?.rich_compare(other, op)?),
            None => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __add__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let other = match Self::operand(other)? {
            Some(list) => list.into_any(),
            // The list says what is wrong with it.
            None => other.clone(),
        };
        Ok(self.to_list(py)?.into_any().add(other)?)
    }

    fn __radd__<'py>(
        &self,
        py: Python<'py>,
        other: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        match other.cast::<PyList>() {
            Ok(other) => Ok(other.add(self.to_list(py)?)?),
            Err(_) => Ok(py.NotImplemented().into_bound(py)),
        }
    }

    fn __iadd__(&self, other: &Bound<'_, PyAny>) -> EngineResult<()> {
        self.extend(other)
    }

    fn __mul__<'py>(
        &self,
        py: Python<'py>,
        count: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        Ok(self.to_list(py)?.into_any().mul(count)?)
    }

    fn __rmul__<'py>(
        &self,
        py: Python<'py>,
        count: &Bound<'py, PyAny>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        self.__mul__(py, count)
    }

    fn __imul__(&self, count: &Bound<'_, PyAny>) -> EngineResult<()> {
        let py = count.py();
        loop {
            let (version, copy) = self.at_version(py)?;
            let whole = copy.into_any().mul(count)?.cast_into::<PyList>().map_err(PyErr::from)?;
            let items = store_all(&whole)?;
            if self.if_unchanged(py, version, |guard| {
                guard.rearrange(items.into_iter().map(Element::New).collect())
            })? {
                return Ok(());
            }
        }
    }

    /// Add an object behind the last.
    #[pyo3(signature = (value, /))]
    fn append(&self, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let item = store(value)?;
        Ok(locked(value.py(), &self.0, |mut guard| guard.extend(vec![item]))??)
    }

    /// Add all objects of an iterable behind the last, in one step.
    #[pyo3(signature = (iterable, /))]
    fn extend(&self, iterable: &Bound<'_, PyAny>) -> EngineResult<()> {
        self.append_all(&listed(iterable)?)
    }

    /// Insert an object before a position.
    #[pyo3(signature = (index, value, /))]
    fn insert(&self, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let index = index.extract::<isize>()?;
        let item = store(value)?;
        let done = locked(value.py(), &self.0, |mut guard| {
            let len = guard.len()?;
            let start = match index {
                0.. => len.min(index as usize),
                _ => len.saturating_add_signed(index),
            };
            assign(&mut guard, Positions { start, step: 1, count: 0 }, vec![item])
        })?;
        Ok(done?)
    }

    /// Remove the element at a position, which is the last if not given, and return it.
    #[pyo3(signature = (index=-1, /), text_signature = "($self, index=-1, /)")]
    fn pop<'py>(&self, py: Python<'py>, index: isize) -> EngineResult<Bound<'py, PyAny>> {
        let (empty, taken) = locked(py, &self.0, |mut guard| {
            let len = guard.len()?;
            let taken = match position(index, len) {
                Some(at) => guard.take(at)?,
                None => None,
            };
            Ok::<_, ArenaError>((len == 0, taken))
        })??;
        match taken {
            Some(content) => load(py, &content),
            None if empty => Err(out_of_range("pop from empty list").into()),
            None => Err(out_of_range("pop index out of range").into()),
        }
    }

    /// Remove the first element that is equal to a value.
    #[pyo3(signature = (value, /))]
    fn remove(&self, value: &Bound<'_, PyAny>) -> EngineResult<()> {
        let py = value.py();
        loop {
            let (version, copy) = self.at_version(py)?;
            let mut found = None;
            for (at, element) in copy.iter().enumerate() {
                if element.eq(value)? {
                    found = Some(at);
                    break;
                }
            }
            let Some(at) = found else {
                return Err(PyValueError::new_err("list.remove(x): x not in list").into());
            };
            if self.if_unchanged(py, version, |guard| guard.remove(at..at + 1))? {
                return Ok(());
            }
        }
    }

    /// Return the position of the first element that is equal to a value.
    #[pyo3(signature = (value, /, *bounds))]
    fn index<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        bounds: &Bound<'py, PyTuple>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let py = value.py();
        let arguments = PyTuple::new(py, [value])?.as_sequence().concat(bounds.as_sequence())?;
        let arguments = arguments.into_any().cast_into::<PyTuple>().map_err(PyErr::from)?;
        Ok(self.to_list(py)?.getattr(intern!(py, "index"))?.call1(arguments)?)
    }

    /// Return how many elements are equal to a value.
    #[pyo3(signature = (value, /))]
    fn count<'py>(&self, value: &Bound<'py, PyAny>) -> EngineResult<Bound<'py, PyAny>> {
        let py = value.py();
        Ok(self.to_list(py)?.call_method1(intern!(py, "count"), (value,))?)
    }

    /// Reverse the order of the elements.
    fn reverse(&self, py: Python<'_>) -> EngineResult<()> {
        let done = locked(py, &self.0, |mut guard| {
            let mut elements = kept(&guard)?;
            elements.reverse();
            guard.rearrange(elements)
        })?;
        Ok(done?)
    }

    /// Sort the elements, in one step: again, if others change the list meanwhile.
    #[pyo3(signature = (*, key=None, reverse=false))]
    fn sort(
        &self,
        py: Python<'_>,
        key: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = crate::wait::truth)] reverse: bool,
    ) -> EngineResult<()> {
        loop {
            let (version, copy) = self.at_version(py)?;
            let order = sorted_positions(&copy, key, reverse)?;
            if self.if_unchanged(py, version, |guard| {
                guard.rearrange(order.into_iter().map(Element::Kept).collect())
            })? {
                return Ok(());
            }
        }
    }

    /// Return a plain list with copies of all elements.
    fn copy<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyList>> {
        self.to_list(py)
    }

    /// Remove all elements, in one step.
    fn clear(&self, py: Python<'_>) -> EngineResult<()> {
        Ok(locked(py, &self.0, |mut guard| guard.clear())??)
    }
}

/// In which order the elements are to be: positions that the sort of Python has put in order.
fn sorted_positions(
    list: &Bound<'_, PyList>,
    key: Option<&Bound<'_, PyAny>>,
    reverse: bool,
) -> PyResult<Vec<usize>> {
    let py = list.py();
    let keys = match key {
        Some(key) => {
            let keys = PyList::empty(py);
            for element in list {
                keys.append(key.call1((element,))?)?;
            }
            keys
        }
        None => list.clone(),
    };
    let positions = PyList::new(py, 0..keys.len())?;
    let arguments = [("key", keys.getattr("__getitem__")?)].into_py_dict(py)?;
    arguments.set_item("reverse", reverse)?;
    positions.call_method("sort", (), Some(&arguments))?;
    positions.extract()
}
