//! Python objects to bytes and back.
//!
//! Plain values go through the [codec](crate::codec); all else through the standard library's
//! `ForkingPickler`, with every reducer that was registered there. What that refuses goes by value
//! where it can: `_by_value.py` sees to that.

use std::sync::LazyLock;

use memchr::memmem;
use procession::shm::{self, Block, Pins};
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyByteArray, PyBytes, PyList, PyModule};

use crate::codec;
use crate::draft::{Draft, Mark, draft_onto, with_scratch};
use crate::error::EngineResult;
use crate::pickler;
use crate::received::{ReceivedBuffer, bytes_of};

/// Ends a message that comes with buffers, behind how many there are and their numbers. No pickle
/// ends like that, and none is looked at for it that may come from elsewhere.
const WITH_BUFFERS: &[u8] = b"\xffbuffers";

/// What goes with a pickle.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// They keep the shared objects that it names alive until the bytes have been sent.
    pub(crate) pins: Pins,
    /// Number of bytes that were put into shared memory apart from it.
    pub(crate) apart: u64,
}

/// Appends `value`, pickled, to `out`, and returns what goes with it; `None` where that is nothing.
/// Long buffers, such as those of NumPy arrays, are put into shared memory by themselves, so that
/// only [`load_within_tree`] and [`load_untouched`] can read it.
#[inline]
pub(crate) fn dump(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<Option<Attached>> {
    if codec::encode(value, out) {
        return Ok(None);
    }
    let (pickled, pins) =
        shm::pack(|| draft_onto(out, |draft| pickle(value, draft, true).map(|_form| draft.apart)));
    pickled.map(|apart| Some(Attached { pins, apart }))
}

/// Does what [`dump`] does for a message that is drafted; buffers go apart only if it `may_part`.
#[inline]
pub(crate) fn dump_draft<'py>(
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
    may_part: bool,
) -> PyResult<Option<Pins>> {
    if codec::encode_draft(value, draft) {
        return Ok(None);
    }
    let (pickled, pins) = shm::pack(|| pickle(value, draft, may_part));
    pickled.map(|_form| Some(pins))
}

/// Does what [`dump`] does, for a reader that may be of another tree: shared objects are refused,
/// since nothing would keep them alive on their way.
pub(crate) fn dump_outside<'py>(value: &Bound<'py, PyAny>, draft: &mut Draft<'py>) -> PyResult<()> {
    if !codec::encode_draft(value, draft) {
        pickle(value, draft, false)?;
    }
    Ok(())
}

/// How a pickle holds the functions and classes that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By their names: the pickle of a function is always the same.
    ByName,
    /// Some of them by value, with the closures and globals of this moment.
    ByValue,
}

/// Does what [`dump`] does, for a function; says in addition what form the pickle has.
pub(crate) fn dump_function(
    function: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> PyResult<(Form, Pins)> {
    let (pickled, pins) = shm::pack(|| draft_onto(out, |draft| pickle(function, draft, false)));
    pickled.map(|form| (form, pins))
}

/// Appends what `ForkingPickler`, or cloudpickle in its place, makes of `value`.
fn pickle<'py>(
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
    may_part: bool,
) -> PyResult<Form> {
    static REDUCTION: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let py = value.py();
    let reduction = REDUCTION.get_or_try_init(py, || {
        // By way of ours: the name `multiprocessing.reduction` may have been given away.
        let stdlib = py.import("procession._stdlib")?;
        let reduction = stdlib.call_method1("load", ("reduction",))?;
        reduction.cast_into::<PyModule>().map(Bound::unbind).map_err(PyErr::from)
    })?;
    let mark = draft.mark();
    let refusal = match by_name(reduction.bind(py), value, draft, may_part) {
        Ok(apart) => {
            if !names_what_stays_here(py, draft, mark)? {
                note_buffers(draft, &apart);
                return Ok(Form::ByName);
            }
            None
        }
        Err(error) => Some(error),
    };
    draft.truncate(mark);
    by_value(value, refusal, &mut draft.bytes)
}

/// Appends a pickle by `ForkingPickler`; returns the numbers of the buffers apart from it.
fn by_name<'py>(
    reduction: &Bound<'py, PyModule>,
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
    may_part: bool,
) -> PyResult<Vec<u64>> {
    let py = value.py();
    // Looked up each time, because programs put their own pickler there.
    let class = reduction.getattr(intern!(py, "ForkingPickler"))?;
    if let Some(apart) = pickler::dump(reduction, &class, value, draft, may_part)? {
        return Ok(apart);
    }
    let pickled = class.call_method1(intern!(py, "dumps"), (value,))?;
    append_buffer(&pickled, &mut draft.bytes)?;
    Ok(Vec::new())
}

/// Says whether what was drafted since `mark` names the main module, which only this process has.
fn names_what_stays_here(py: Python<'_>, draft: &Draft<'_>, mark: Mark) -> PyResult<bool> {
    static MAIN: LazyLock<memmem::Finder<'static>> =
        LazyLock::new(|| memmem::Finder::new("__main__"));
    let names_main = |bytes: &[u8]| MAIN.find(bytes).is_some();
    let parts = draft.parts(mark..draft.mark());
    if let [short] = parts[..] {
        return Ok(names_main(short) && !main_comes_along(py)?);
    }
    // Looking through much costs more than asking.
    Ok(!main_comes_along(py)? && parts.into_iter().any(names_main))
}

/// Appends where the buffers of a pickle are.
fn note_buffers(draft: &mut Draft<'_>, apart: &[u64]) {
    if apart.is_empty() {
        return;
    }
    for number in apart {
        draft.bytes.extend_from_slice(&number.to_le_bytes());
    }
    draft.bytes.extend_from_slice(&(apart.len() as u64).to_le_bytes());
    draft.bytes.extend_from_slice(WITH_BUFFERS);
}

/// Takes a message that comes with buffers apart: the pickle, and the numbers.
fn split_buffers(message: &[u8]) -> Option<(&[u8], impl Iterator<Item = u64>)> {
    let (rest, count) = message.strip_suffix(WITH_BUFFERS)?.split_last_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(8)?;
    let (pickle, numbers) = rest.split_at_checked(rest.len().checked_sub(len)?)?;
    let (numbers, _) = numbers.as_chunks::<8>();
    Some((pickle, numbers.iter().map(|number| u64::from_le_bytes(*number))))
}

/// Says whether every child has the main module.
fn main_comes_along(py: Python<'_>) -> PyResult<bool> {
    static COMES_ALONG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COMES_ALONG.import(py, "procession._main_module", "main_comes_along")?.call0()?.extract()
}

/// Appends a pickle with functions and classes by value; `refusal` is what came of pickling by name.
fn by_value(value: &Bound<'_, PyAny>, refusal: Option<PyErr>, out: &mut Vec<u8>) -> PyResult<Form> {
    static INSTEAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let instead = INSTEAD.import(value.py(), "procession._by_value", "pickle_instead")?;
    let (pickled, by_value) =
        instead.call1((value, refusal))?.extract::<(Bound<'_, PyAny>, bool)>()?;
    append_buffer(&pickled, out)?;
    Ok(if by_value { Form::ByValue } else { Form::ByName })
}

fn append_buffer(source: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    pickler::append(&PyBuffer::<u8>::get(source)?, out, source.py())
}

/// The object that `pickle` describes, if the codec can read it.
#[inline]
fn decode<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
    match codec::decode(py, pickle) {
        None => codec::decode_plain_instance(py, pickle),
        value => Ok(value),
    }
}

/// The object that `pickle` describes.
#[inline]
pub(crate) fn load<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match decode(py, pickle)? {
        Some(value) => Ok(value),
        None => unpickle(py, pickle),
    }
}

/// Does what [`load`] does, for a message that is known to come from a process of this tree. It
/// keeps what it names until this returns.
#[inline]
pub(crate) fn load_within_tree<'py>(
    py: Python<'py>,
    message: &[u8],
) -> EngineResult<Bound<'py, PyAny>> {
    if let Some(value) = decode(py, message)? {
        return Ok(value);
    }
    match split_buffers(message) {
        None => Ok(unpickle(py, message)?),
        Some((pickle, numbers)) => unpickle_with(py, pickle, numbers, Buffers::Shown),
    }
}

/// Does what [`load_within_tree`] does, for a message that may be read once more, by another
/// process: what becomes of the object here does not change it.
pub(crate) fn load_untouched<'py>(
    py: Python<'py>,
    message: &[u8],
) -> EngineResult<Bound<'py, PyAny>> {
    match split_buffers(message) {
        None => load_within_tree(py, message),
        Some((pickle, numbers)) => unpickle_with(py, pickle, numbers, Buffers::Copied),
    }
}

/// A message of this tree as bytes: a pickle with buffers apart becomes one with all in it.
pub(crate) fn in_one_piece<'py>(
    py: Python<'py>,
    message: &[u8],
) -> EngineResult<Bound<'py, PyBytes>> {
    let Some((pickle, numbers)) = split_buffers(message) else {
        return Ok(bytes_of(py, message)?);
    };
    let value = unpickle_with(py, pickle, numbers, Buffers::Shown)?;
    Ok(dumps(&value)?)
}

/// What the arrays of a received object are made of. They may be written either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffers {
    /// Where the sender put them.
    Shown,
    /// Copies.
    Copied,
}

/// The object that a pickle with buffers apart describes.
#[cold]
fn unpickle_with<'py>(
    py: Python<'py>,
    pickle: &[u8],
    numbers: impl Iterator<Item = u64>,
    how: Buffers,
) -> EngineResult<Bound<'py, PyAny>> {
    let buffers = PyList::empty(py);
    for number in numbers {
        let shown = ReceivedBuffer(Block::open(number)?).into_pyobject(py)?;
        match how {
            Buffers::Shown => buffers.append(shown)?,
            Buffers::Copied => buffers.append(PyByteArray::from(&shown)?)?,
        }
    }
    let keywords = [("buffers", buffers)].into_py_dict(py)?;
    Ok(unpickler(py)?.call((PyBytes::new(py, pickle),), Some(&keywords))?)
}

fn unpickler(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "_pickle", "loads")
}

fn unpickle<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    unpickle_bytes(PyBytes::new(py, pickle))
}

/// The object that a pickle, which Python has already, describes.
pub(crate) fn unpickle_bytes(pickle: Bound<'_, PyBytes>) -> PyResult<Bound<'_, PyAny>> {
    unpickler(pickle.py())?.call1((pickle,))
}

/// Pickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn dumps<'py>(obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_scratch(|bytes| {
        draft_onto(bytes, |draft| dump_outside(obj, draft))?;
        Ok(PyBytes::new(obj.py(), bytes))
    })
}

/// Unpickle an object as a queue or a pool does.
#[pyfunction]
pub(crate) fn loads<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    load(py, pickle)
}
