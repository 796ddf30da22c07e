//! When two keys are the same.
//!
//! Python's own hashes differ from process to process, so an engine's dict cannot use them. Of most
//! keys there is a *canonical* pickle that equal keys share: `1`, `1.0` and `True` are written as
//! the integer, and a tuple as its canonical elements. The engine compares those bytes. Where they
//! are not the key's own, its pickle is kept beside them, as the first key put in is given back.
//!
//! | canonical                                            | foreign                           |
//! |------------------------------------------------------|-----------------------------------|
//! | `None`, `bool`, `int`, `float` but NaN, `str`, `bytes`, and `tuple`s of those; of exactly these types | all else that can be hashed |
//!
//! A foreign key is opaque to the engine. It may be equal to a canonical one (`Decimal(1) == 1`), so
//! it is looked for among all keys, and a canonical key that is not found among the foreign ones;
//! both outside of the lock, in a Python dict of copies, and again if the keys have changed
//! meanwhile.

use procession::collection::{ByteDict, DictGuard, Key, NewKey, StoredKey};
use procession::shm::{ArenaError, Pins};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};

use super::locked;
use crate::codec;
use crate::draft::with_scratch;
use crate::error::EngineResult;
use crate::pickling::{dump, load_untouched};

/// Deeper tuples are foreign.
const MAX_DEPTH: usize = 16;

/// The instructions of pickles that this writes itself.
mod op {
    pub(super) const PROTO_4: [u8; 2] = [0x80, 4];
    pub(super) const STOP: u8 = b'.';
    pub(super) const MARK: u8 = b'(';
    pub(super) const TUPLE: u8 = b't';
    pub(super) const LONG4: u8 = 0x8b;
    pub(super) const BINUNICODE8: u8 = 0x8d;
}

/// What a key is to the engine.
pub(super) struct KeyForm {
    /// The canonical pickle, none of a foreign key.
    canonical: Option<Vec<u8>>,
    /// The key's own pickle, if that is not canonical and was asked for.
    label: Vec<u8>,
    pins: Pins,
}

/// Where a key is, or would be.
pub(super) struct Target<'a> {
    /// `None` for a foreign key that is not there.
    pub(super) key: Option<Key<'a>>,
    pub(super) new: NewKey<'a>,
}

impl KeyForm {
    /// Of a key to look for. An error, as from a dict, if it cannot be hashed.
    #[inline]
    pub(super) fn to_find(key: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::make(key, false)
    }

    /// Of a key to put in.
    #[inline]
    pub(super) fn to_put(key: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::make(key, true)
    }

    fn make(key: &Bound<'_, PyAny>, labelled: bool) -> PyResult<Self> {
        let mut bytes = Vec::with_capacity(64);
        let own = canonical(key, &mut bytes)?;
        let mut form = Self { canonical: None, label: Vec::new(), pins: Pins::default() };
        if own == Own::Foreign {
            // Raises what a dict raises for what cannot be hashed.
            PyDict::new(key.py()).get_item(key)?;
        } else {
            form.canonical = Some(bytes);
        }
        if labelled && own != Own::Canonical {
            let attached = dump(key, &mut form.label)?;
            form.pins = attached.map(|attached| attached.pins).unwrap_or_default();
        }
        Ok(form)
    }

    /// Where the key is, as far as the engine can tell; `None` if others must be compared with.
    pub(super) fn target(&self, guard: &DictGuard<'_>) -> Result<Option<Target<'_>>, ArenaError> {
        let Some(bytes) = &self.canonical else { return Ok(None) };
        let key = Key::Bytes(bytes);
        let certain = guard.opaque() == 0 || guard.contains(key)?;
        Ok(certain.then(|| Target { key: Some(key), new: self.new_key(bytes) }))
    }

    fn new_key<'a>(&'a self, bytes: &'a [u8]) -> NewKey<'a> {
        NewKey::Bytes { bytes, label: &self.label, pins: &self.pins }
    }

    /// Where the key is, of which is known whether it is among the keys of the dict.
    pub(super) fn target_after<'a>(&'a self, found: &'a Option<OwnedKey>) -> Target<'a> {
        match (found, &self.canonical) {
            (Some(OwnedKey::Opaque(number)), _) => {
                Target { key: Some(Key::Opaque(*number)), new: NewKey::Known(*number) }
            }
            (Some(OwnedKey::Bytes(bytes)), _) | (None, Some(bytes)) => {
                Target { key: Some(Key::Bytes(bytes)), new: self.new_key(bytes) }
            }
            (None, None) => {
                Target { key: None, new: NewKey::Opaque { label: &self.label, pins: &self.pins } }
            }
        }
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.canonical.is_none()
    }
}

/// A key of the engine's, to be used with another lock.
#[derive(Debug)]
pub(super) enum OwnedKey {
    Bytes(Vec<u8>),
    Opaque(u64),
}

/// The keys of a dict as they were at some version.
pub(super) struct Known<'py> {
    pub(super) version: u64,
    /// Numbers of `keys`, by the keys as Python has them.
    numbers: Bound<'py, PyDict>,
    keys: Vec<StoredKey>,
}

impl<'py> Known<'py> {
    /// Copies the keys that the engine cannot compare with: the foreign ones, or all.
    pub(super) fn read(py: Python<'py>, dict: &ByteDict, all: bool) -> EngineResult<Self> {
        let (version, keys) = locked(py, dict, |guard| {
            let keys = if all { guard.keys() } else { guard.opaque_keys() };
            (guard.keys_version(), keys)
        })?;
        let keys = keys?;
        let numbers = PyDict::new(py);
        for (number, key) in keys.iter().enumerate() {
            numbers.set_item(load_key(py, key)?, number)?;
        }
        Ok(Self { version, numbers, keys })
    }

    /// How the engine knows the key that is equal to this one.
    pub(super) fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<OwnedKey>> {
        let Some(number) = self.numbers.get_item(key)? else { return Ok(None) };
        let found = self.keys.get(number.extract::<usize>()?);
        Ok(found.map(|found| match found.key() {
            Key::Bytes(bytes) => OwnedKey::Bytes(bytes.to_vec()),
            Key::Opaque(number) => OwnedKey::Opaque(number),
        }))
    }
}

/// Calls `act` with the dict locked and the place of `key`, which is right as long as the lock is
/// held.
#[inline]
pub(super) fn at_key<R: Send>(
    dict: &ByteDict,
    key: &Bound<'_, PyAny>,
    form: &KeyForm,
    act: impl FnOnce(&mut DictGuard<'_>, Target<'_>) -> Result<R, ArenaError> + Send,
) -> EngineResult<R> {
    let done = locked(key.py(), dict, |mut guard| match form.target(&guard) {
        Ok(Some(target)) => Ok(act(&mut guard, target)),
        Ok(None) => Err(act),
        Err(error) => Ok(Err(error)),
    })?;
    match done {
        Ok(result) => Ok(result?),
        Err(act) => at_compared_key(dict, key, form, act),
    }
}

#[cold]
fn at_compared_key<R: Send>(
    dict: &ByteDict,
    key: &Bound<'_, PyAny>,
    form: &KeyForm,
    mut act: impl FnOnce(&mut DictGuard<'_>, Target<'_>) -> Result<R, ArenaError> + Send,
) -> EngineResult<R> {
    let py = key.py();
    loop {
        let known = Known::read(py, dict, form.is_foreign())?;
        let (version, found) = (known.version, known.find(key)?);
        let done = locked(py, dict, |mut guard| {
            if guard.keys_version() == version {
                return Ok(act(&mut guard, form.target_after(&found)));
            }
            // A canonical key may have come meanwhile.
            match form.target(&guard) {
                Ok(Some(target)) => Ok(act(&mut guard, target)),
                Ok(None) => Err(act),
                Err(error) => Ok(Err(error)),
            }
        })?;
        act = match done {
            Ok(result) => return Ok(result?),
            Err(act) => act,
        };
    }
}

/// The key as it was put in first.
pub(super) fn load_key<'py>(py: Python<'py>, key: &StoredKey) -> EngineResult<Bound<'py, PyAny>> {
    match (key.label(), key.key()) {
        ([], Key::Bytes(bytes)) => load_untouched(py, bytes),
        (label, _) => load_untouched(py, label),
    }
}

/// What the canonical pickle of a key is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// A pickle of the key itself.
    Canonical,
    /// That of another key, which is equal.
    Other,
    /// There is none.
    Foreign,
}

/// Writes the canonical pickle, if there is one.
#[inline]
fn canonical(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<Own> {
    // Most keys are texts, and small numbers.
    if (key.is_exact_instance_of::<PyString>() || key.is_exact_instance_of::<PyInt>())
        && codec::encode(key, out)
    {
        return Ok(Own::Canonical);
    }
    out.extend_from_slice(&op::PROTO_4);
    let own = body(key, out, 0)?;
    out.push(op::STOP);
    Ok(own)
}

/// Writes a canonical pickle without its frame.
fn body(key: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> PyResult<Own> {
    if let Ok(truth) = key.cast_exact::<PyBool>() {
        plain(PyInt::new(key.py(), i64::from(truth.is_true())).as_any(), out);
        return Ok(Own::Other);
    }
    if let Ok(float) = key.cast_exact::<PyFloat>() {
        return float_body(float, out);
    }
    if let Ok(tuple) = key.cast_exact::<PyTuple>() {
        return if depth < MAX_DEPTH { tuple_body(tuple, out, depth) } else { Ok(Own::Foreign) };
    }
    if !key.is_none() && !is_leaf(key) {
        return Ok(Own::Foreign);
    }
    if !plain(key, out) {
        match key.cast_exact::<PyInt>() {
            Ok(int) => long(int, out)?,
            Err(_) => surrogates(key, out)?,
        }
    }
    Ok(Own::Canonical)
}

fn is_leaf(key: &Bound<'_, PyAny>) -> bool {
    key.is_exact_instance_of::<PyInt>()
        || key.is_exact_instance_of::<PyString>()
        || key.is_exact_instance_of::<pyo3::types::PyBytes>()
}

/// Writes what the codec can write, without the frame.
fn plain(key: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    with_scratch(|framed| {
        let written = codec::encode(key, framed);
        if let [_, _, body @ .., _] = &framed[..] {
            out.extend_from_slice(body);
        }
        written
    })
}

fn float_body(float: &Bound<'_, PyFloat>, out: &mut Vec<u8>) -> PyResult<Own> {
    let value = float.value();
    if value.is_nan() {
        return Ok(Own::Foreign);
    }
    if value.is_infinite() || value.fract() != 0.0 {
        plain(float.as_any(), out);
        return Ok(Own::Canonical);
    }
    let int = float.py().get_type::<PyInt>().call1((float,))?;
    body(&int, out, 0)?;
    Ok(Own::Other)
}

fn tuple_body(tuple: &Bound<'_, PyTuple>, out: &mut Vec<u8>, depth: usize) -> PyResult<Own> {
    let mut own = Own::Canonical;
    out.push(op::MARK);
    for item in tuple {
        match body(&item, out, depth + 1)? {
            Own::Foreign => return Ok(Own::Foreign),
            Own::Other => own = Own::Other,
            Own::Canonical => {}
        }
    }
    out.push(op::TUPLE);
    Ok(own)
}

/// Writes an integer of more than 64 bits, as two's complement.
fn long(int: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> PyResult<()> {
    let py = int.py();
    let len = int.call_method0("bit_length")?.extract::<usize>()? / 8 + 1;
    let signed = [("signed", true)].into_py_dict(py)?;
    let bytes = int.call_method("to_bytes", (len, "little"), Some(&signed))?;
    let Ok(short) = u32::try_from(len) else {
        return Err(pyo3::exceptions::PyOverflowError::new_err("the key is too large an integer"));
    };
    out.push(op::LONG4);
    out.extend_from_slice(&short.to_le_bytes());
    out.extend_from_slice(bytes.cast::<pyo3::types::PyBytes>()?.as_bytes());
    Ok(())
}

/// Writes a text that has no UTF-8 form, as the pickler does.
fn surrogates(text: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
    let bytes = bytes.cast::<pyo3::types::PyBytes>()?.as_bytes();
    out.push(op::BINUNICODE8);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
