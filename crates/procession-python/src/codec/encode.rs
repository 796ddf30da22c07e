//! The writing half.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::codec::{MAX_DEPTH, MAX_OBJECTS, PROTOCOL, op};
use crate::draft::{Draft, Insert, LONG};

/// Texts up to this many bytes may occur more than once: repeating one costs no more than the
/// pickler's memo would.
const SHORT_TEXT: usize = 32;

/// Appends `value` to `out` as a pickle, if it is plain, and says whether it was.
///
/// If it was not, `out` is as it was. Runs no Python code.
#[inline]
pub(crate) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    write(value, out, None)
}

/// Does what [`encode`] does; long texts and bytes are inserted and not copied.
#[inline]
pub(crate) fn encode_draft<'py>(value: &Bound<'py, PyAny>, draft: &mut Draft<'py>) -> bool {
    let inserts = draft.inserts.len();
    let plain = write(value, &mut draft.bytes, Some(&mut draft.inserts));
    if !plain {
        draft.inserts.truncate(inserts);
    }
    plain
}

#[inline]
fn write<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    inserts: Option<&mut Vec<Insert<'py>>>,
) -> bool {
    let start = out.len();
    out.extend_from_slice(&[op::PROTO, PROTOCOL]);
    let plain = scalar(value, out) || object(value, out, inserts);
    if plain {
        out.push(op::STOP);
    } else {
        out.truncate(start);
    }
    plain
}

/// Appends the pickle of an instance of the class that has this name in this module, with `state` for
/// its attributes, if those are plain; says whether they were. If not, `draft` is as it was.
pub(super) fn encode_instance<'py>(
    module: &str,
    name: &str,
    state: &Bound<'py, PyDict>,
    draft: &mut Draft<'py>,
) -> bool {
    if [module, name].iter().any(|part| part.contains('\n')) {
        return false;
    }
    let mark = draft.mark();
    let out = &mut draft.bytes;
    // No plain value begins like that, so a decoder gives up at once.
    out.extend_from_slice(&[op::PROTO, PROTOCOL, op::GLOBAL]);
    for part in [module, name] {
        out.extend_from_slice(part.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(&[op::EMPTY_TUPLE, op::NEWOBJ]);
    if !state.is_empty() {
        let seen = Seen { objects: 0, places: [0; MAX_OBJECTS] };
        let inserts = Some(&mut draft.inserts);
        if !(Encoder { out, inserts, seen }).dict(state, 0) {
            draft.truncate(mark);
            return false;
        }
        draft.bytes.push(op::BUILD);
    }
    draft.bytes.push(op::STOP);
    true
}

/// Writes a number, `None` or a truth value.
#[inline]
fn scalar(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    if let Ok(value) = value.cast_exact::<PyInt>() {
        return int(value, out);
    }
    if value.is_none() {
        out.push(op::NONE);
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        out.push(op::BINFLOAT);
        out.extend_from_slice(&float.value().to_be_bytes());
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { op::TRUE } else { op::FALSE });
    } else {
        return false;
    }
    true
}

#[inline]
fn int(int: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> bool {
    let Ok(int) = int.extract::<i64>() else { return false };
    if let Ok(byte) = u8::try_from(int) {
        out.extend_from_slice(&[op::BININT1, byte]);
    } else if let Ok(short) = u16::try_from(int) {
        let [low, high] = short.to_le_bytes();
        out.extend_from_slice(&[op::BININT2, low, high]);
    } else if let Ok(word) = i32::try_from(int) {
        out.push(op::BININT);
        out.extend_from_slice(&word.to_le_bytes());
    } else {
        long(int, out);
    }
    true
}

/// Two's complement in as few bytes as show the sign, as the pickler writes it.
fn long(int: i64, out: &mut Vec<u8>) {
    let bits = 65 - if int < 0 { int.leading_ones() } else { int.leading_zeros() };
    let bytes = bits.div_ceil(8) as u8;
    out.extend_from_slice(&[op::LONG1, bytes]);
    out.extend_from_slice(&int.to_le_bytes()[..usize::from(bytes)]);
}

/// Writes a text or a container.
fn object<'py>(
    value: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    inserts: Option<&mut Vec<Insert<'py>>>,
) -> bool {
    let seen = Seen { objects: 0, places: [0; MAX_OBJECTS] };
    Encoder { out, inserts, seen }.object(value, 0)
}

struct Encoder<'a, 'py> {
    out: &'a mut Vec<u8>,
    /// Where long texts and bytes go, if not into `out`.
    inserts: Option<&'a mut Vec<Insert<'py>>>,
    seen: Seen,
}

/// Where the containers and longer texts of the value lie, to find one that occurs twice.
struct Seen {
    objects: usize,
    places: [usize; MAX_OBJECTS],
}

impl Seen {
    /// Counts one more object. False if it was there before or there are too many.
    fn note(&mut self, object: &Bound<'_, PyAny>) -> bool {
        let place = object.as_ptr() as usize;
        let known = &self.places[..self.objects];
        if known.contains(&place) {
            return false;
        }
        self.count(place)
    }

    /// Counts one more object, whether or not it was there before.
    fn count(&mut self, place: usize) -> bool {
        let Some(slot) = self.places.get_mut(self.objects) else { return false };
        *slot = place;
        self.objects += 1;
        true
    }
}

impl<'py> Encoder<'_, 'py> {
    /// Writes a text or a container.
    fn object(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> bool {
        if let Ok(text) = value.cast_exact::<PyString>() {
            // A lone surrogate has no UTF-8; the pickler knows what to do with it.
            let Ok(utf8) = text.to_str() else { return false };
            let instructions = [op::SHORT_BINUNICODE, op::BINUNICODE, op::BINUNICODE8];
            return self.text(value, utf8.as_bytes(), instructions);
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            let instructions = [op::SHORT_BINBYTES, op::BINBYTES, op::BINBYTES8];
            return self.text(value, bytes.as_bytes(), instructions);
        }
        if depth == MAX_DEPTH {
            return false;
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.tuple(tuple, depth)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, depth)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, depth)
        } else {
            false
        }
    }

    fn text(&mut self, object: &Bound<'py, PyAny>, bytes: &[u8], op: [u8; 3]) -> bool {
        let counted =
            if bytes.len() <= SHORT_TEXT { self.seen.count(0) } else { self.seen.note(object) };
        if !counted {
            return false;
        }
        if let Ok(length) = u8::try_from(bytes.len()) {
            self.out.extend_from_slice(&[op[0], length]);
        } else if let Ok(length) = u32::try_from(bytes.len()) {
            self.out.push(op[1]);
            self.out.extend_from_slice(&length.to_le_bytes());
        } else {
            self.out.push(op[2]);
            self.out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
        match &mut self.inserts {
            Some(inserts) if bytes.len() >= LONG => {
                inserts.push(Insert { at: self.out.len(), object: object.clone() });
            }
            _ => self.out.extend_from_slice(bytes),
        }
        true
    }

    #[inline]
    fn member(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> bool {
        scalar(value, self.out) || self.object(value, depth + 1)
    }

    fn tuple(&mut self, tuple: &Bound<'py, PyTuple>, depth: usize) -> bool {
        let close = match tuple.len() {
            0 => {
                self.out.push(op::EMPTY_TUPLE);
                return true;
            }
            1 => op::TUPLE1,
            2 => op::TUPLE2,
            3 => op::TUPLE3,
            _ => op::TUPLE,
        };
        if !self.seen.note(tuple) {
            return false;
        }
        if close == op::TUPLE {
            self.out.push(op::MARK);
        }
        if !tuple.iter_borrowed().all(|item| self.member(&item, depth)) {
            return false;
        }
        self.out.push(close);
        true
    }

    fn list(&mut self, list: &Bound<'py, PyList>, depth: usize) -> bool {
        if !self.seen.note(list) {
            return false;
        }
        self.out.push(op::EMPTY_LIST);
        if list.is_empty() {
            return true;
        }
        self.out.push(op::MARK);
        if !list.iter().all(|item| self.member(&item, depth)) {
            return false;
        }
        self.out.push(op::APPENDS);
        true
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>, depth: usize) -> bool {
        if !self.seen.note(dict) {
            return false;
        }
        self.out.push(op::EMPTY_DICT);
        if dict.is_empty() {
            return true;
        }
        self.out.push(op::MARK);
        if !dict.iter().all(|(key, item)| self.member(&key, depth) && self.member(&item, depth)) {
            return false;
        }
        self.out.push(op::SETITEMS);
        true
    }
}
