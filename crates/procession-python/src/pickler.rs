//! The standard library's `ForkingPickler`, made once and used again.
//!
//! Making one costs more than pickling a small object does: the original copies two tables of
//! reducers each time. Here a thread keeps the last one it made, with a table that looks each
//! type up where the original would have found it ([`Reducers`]), and an object to write to that
//! keeps what it is given ([`Sink`]). Programs that have put another pickler in the place of the
//! original, or another `dumps` into it, get what they expect: that is called instead.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::LocalKey;

use procession::shm::Block;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyException, PyKeyError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyModule, PyType};

use crate::codec::encode_plain_instance;
use crate::draft::{Draft, Insert, LONG};
use crate::error::EngineError;

/// Buffers of at least this size are put into shared memory by themselves, in bytes.
const APART: usize = 16 << 10;

/// A pickler whose last message was longer than this is not used again, in bytes: its table of
/// the objects seen stays as large as it was, and is cleared each time.
const USED_AGAIN: usize = 16 << 10;

/// The protocol with buffers apart from the pickle.
const WITH_BUFFERS: u8 = 5;

/// What a pickler writes to.
#[pyclass(frozen)]
struct Sink(Mutex<Written>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// Where each belongs.
    long: Vec<(usize, Py<PyBytes>)>,
    /// Whether buffers may be put apart.
    may_part: bool,
    /// The numbers of the blocks with the buffers that were.
    apart: Vec<u64>,
    /// How many bytes these are.
    apart_bytes: u64,
}

/// Why a buffer goes with the pickle, or nothing goes at all.
enum Refusal {
    /// It is short, or there is no room.
    InBand,
    /// It is that of an array that may not be written.
    ReadOnlyArray,
}

impl Sink {
    fn state(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a buffer apart; `None` if that is done.
    fn part(&self, pickled: &Bound<'_, PyAny>) -> PyResult<Option<Refusal>> {
        // One that is not in one piece is refused; the pickler says so better.
        let Ok(raw) = pickled.call_method0(intern!(pickled.py(), "raw")) else {
            return Ok(Some(Refusal::InBand));
        };
        let buffer = PyBuffer::<u8>::get(&raw)?;
        if buffer.readonly() && is_array(&raw)? {
            return Ok(Some(Refusal::ReadOnlyArray));
        }
        let len = buffer.len_bytes();
        if len < APART || !self.state().may_part {
            return Ok(Some(Refusal::InBand));
        }
        let mut copied = Ok(());
        let block = Block::written(len, |bytes| copied = buffer.copy_to_slice(raw.py(), bytes));
        copied?;
        let Ok(block) = block else { return Ok(Some(Refusal::InBand)) };
        let number = block.note().map_err(EngineError::from)?;
        let mut state = self.state();
        state.apart.push(number);
        state.apart_bytes += len as u64;
        Ok(None)
    }
}

/// Whether these are the bytes of a NumPy array, of a subclass or not.
fn is_array(raw: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = raw.getattr(intern!(raw.py(), "obj"))?.get_type();
    Ok(class.name()? == "ndarray" && class.module()? == "numpy")
}

#[pymethods]
impl Sink {
    /// Takes what the pickler writes.
    fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast_exact::<PyBytes>() {
            let mut state = self.state();
            let written = bytes.as_bytes();
            if written.len() < LONG {
                state.bytes.extend_from_slice(written);
            } else {
                let at = state.bytes.len();
                state.long.push((at, bytes.clone().unbind()));
            }
            return Ok(written.len());
        }
        let buffer = PyBuffer::<u8>::get(data)?;
        append(&buffer, &mut self.state().bytes, data.py())?;
        Ok(buffer.len_bytes())
    }

    /// Takes a buffer, and says whether it should go with the pickle nevertheless.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.part(buffer)? {
            None => Ok(false),
            Some(Refusal::InBand) => Ok(true),
            // With this protocol nobody could write to what arrives; with an older one everybody
            // can, and programs do.
            Some(Refusal::ReadOnlyArray) => Err(PyValueError::new_err("a read-only array")),
        }
    }
}

/// The reducers of a pickler class and of `copyreg`, each as they are at the moment.
#[pyclass(frozen, mapping)]
struct Reducers {
    pickler: Py<PyAny>,
    copyreg: Py<PyAny>,
}

#[pymethods]
impl Reducers {
    fn __getitem__<'py>(&self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        reducer_for(self.pickler.bind(py), self.copyreg.bind(py), class)?
            .ok_or_else(|| PyKeyError::new_err(class.clone().unbind()))
    }
}

/// A pickler that this thread has used before.
struct Kept {
    class: Py<PyAny>,
    pickler: Py<PyAny>,
    sink: Py<Sink>,
}

thread_local! {
    /// One with the protocol that any reader knows.
    static PLAIN: Cell<Option<Kept>> = const { Cell::new(None) };
    /// One that puts buffers apart.
    static PARTING: Cell<Option<Kept>> = const { Cell::new(None) };
}

/// Appends a pickle of `value` by the pickler class of the original's module, and returns the
/// numbers of the buffers that were put into shared memory by themselves: none unless `may_part`.
///
/// Does nothing and returns `None` if a program has put something else in the place of that class.
pub(crate) fn dump<'py>(
    reduction: &Bound<'py, PyModule>,
    class: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
    may_part: bool,
) -> PyResult<Option<Vec<u64>>> {
    if !is_original(reduction, class) {
        return Ok(None);
    }
    match says_nothing_about(class, &value.get_type())
        .and_then(|nothing| Ok(nothing && encode_plain_instance(value, draft)?))
    {
        Ok(true) => return Ok(Some(Vec::new())),
        // The pickler says better what is wrong with the object.
        Err(error) if !error.is_instance_of::<PyException>(class.py()) => return Err(error),
        _ => {}
    }
    if !may_part {
        return run(&PLAIN, class, value, draft, false).map(Some);
    }
    let mark = draft.mark();
    match run(&PARTING, class, value, draft, true) {
        // What came of it with the protocol of the original is what counts.
        Err(error) if error.is_instance_of::<PyException>(class.py()) => {
            draft.truncate(mark);
            run(&PLAIN, class, value, draft, false).map(Some)
        }
        result => result.map(Some),
    }
}

/// Whether neither the pickler nor a reducer has anything to say about objects of a class.
fn says_nothing_about(pickler: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    let own = pickler.getattr(intern!(py, "__dict__"))?;
    for hook in [intern!(py, "reducer_override"), intern!(py, "persistent_id")] {
        if own.contains(hook)? {
            return Ok(false);
        }
    }
    Ok(reducer_for(pickler, copyreg_table(py)?, class)?.is_none())
}

/// What is registered for a class, for the pickler alone or for all.
fn reducer_for<'py>(
    pickler: &Bound<'py, PyAny>,
    copyreg: &Bound<'py, PyAny>,
    class: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let registered = pickler.getattr(intern!(class.py(), "_extra_reducers"))?;
    for table in [&registered, copyreg] {
        if let Some(reducer) = table.cast::<PyDict>()?.get_item(class)? {
            return Ok(Some(reducer));
        }
    }
    Ok(None)
}

fn copyreg_table(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static COPYREG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPYREG.import(py, "copyreg", "dispatch_table")
}

fn run<'py>(
    kept: &'static LocalKey<Cell<Option<Kept>>>,
    class: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
    draft: &mut Draft<'py>,
    may_part: bool,
) -> PyResult<Vec<u64>> {
    let py = value.py();
    let start = draft.mark();
    let used = kept.take().filter(|used| used.class.is(class));
    let used = match used {
        Some(used) => used,
        None => make(class, may_part)?,
    };
    let sink = used.sink.bind(py).get();
    let bytes = std::mem::take(&mut draft.bytes);
    *sink.state() = Written { bytes, may_part, ..Written::default() };
    let pickler = used.pickler.bind(py);
    let dumped = pickler.call_method1(intern!(py, "dump"), (value,));
    let written = std::mem::take(&mut *sink.state());
    draft.bytes = written.bytes;
    draft.inserts.extend(
        written
            .long
            .into_iter()
            .map(|(at, bytes)| Insert { at, object: bytes.into_bound(py).into_any() }),
    );
    dumped?;
    draft.apart += written.apart_bytes;
    if draft.len_since(start) <= USED_AGAIN {
        pickler.call_method0(intern!(py, "clear_memo"))?;
        kept.set(Some(used));
    }
    Ok(written.apart)
}

fn make(class: &Bound<'_, PyAny>, may_part: bool) -> PyResult<Kept> {
    let py = class.py();
    let sink = Bound::new(py, Sink(Mutex::default()))?;
    let pickler = if may_part {
        class.call1((&sink, WITH_BUFFERS, true, &sink))?
    } else {
        class.call1((&sink,))?
    };
    let copyreg = copyreg_table(py)?.clone().unbind();
    let reducers = Reducers { pickler: class.clone().unbind(), copyreg };
    pickler.setattr(intern!(py, "dispatch_table"), reducers)?;
    Ok(Kept { class: class.clone().unbind(), pickler: pickler.unbind(), sink: sink.unbind() })
}

/// Whether the class is the original's and pickles as that does.
fn is_original(reduction: &Bound<'_, PyModule>, class: &Bound<'_, PyAny>) -> bool {
    /// The class, and the function behind its `dumps`.
    static ORIGINAL: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let py = class.py();
    let Ok(dumps) = class.getattr(intern!(py, "dumps")) else { return false };
    let Ok(dumps) = dumps.getattr(intern!(py, "__func__")) else { return false };
    if let Some((original_class, original_dumps)) = ORIGINAL.get(py) {
        return original_class.is(class) && original_dumps.is(&dumps);
    }
    let home = reduction.name().ok();
    let is_from_there = |object: &Bound<'_, PyAny>| {
        let module = object.getattr(intern!(py, "__module__"));
        home.as_ref()
            .is_some_and(|home| module.is_ok_and(|module| module.eq(home).unwrap_or(false)))
    };
    let original = is_from_there(class) && is_from_there(&dumps);
    if original {
        let _ = ORIGINAL.set(py, (class.clone().unbind(), dumps.unbind()));
    }
    original
}

/// Appends the bytes of a buffer.
pub(crate) fn append(buffer: &PyBuffer<u8>, out: &mut Vec<u8>, py: Python<'_>) -> PyResult<()> {
    let start = out.len();
    out.resize(start + buffer.len_bytes(), 0);
    buffer.copy_to_slice(py, &mut out[start..])
}
