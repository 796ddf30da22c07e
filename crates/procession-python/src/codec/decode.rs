//! The reading half.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple};

use crate::codec::{PROTOCOL, op};
use crate::received::bytes_of;

/// The value of a pickle made by [`encode`](crate::codec::encode); `None` if this is none.
///
/// Whatever the bytes are, nothing but plain values can come out, and no Python code runs.
#[inline]
pub(crate) fn decode<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
    let [op::PROTO, PROTOCOL, body @ .., op::STOP] = pickle else { return None };
    decode_body(py, body)
}

/// The value that these instructions make, without those around every pickle.
#[inline]
pub(super) fn decode_body<'py>(py: Python<'py>, body: &[u8]) -> Option<Bound<'py, PyAny>> {
    let mut decoder = Decoder { py, left: body };
    let op = decoder.byte()?;
    if let Some(value) = decoder.leaf(op) {
        if decoder.left.is_empty() {
            return Some(value);
        }
        // The first of several values, as in a tuple.
        return decoder.nested(vec![value]);
    }
    decoder.left = body;
    decoder.nested(Vec::new())
}

struct Decoder<'a, 'py> {
    py: Python<'py>,
    left: &'a [u8],
}

impl<'a, 'py> Decoder<'a, 'py> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&first, left) = self.left.split_first()?;
        self.left = left;
        Some(first)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.left.split_first_chunk::<N>()?;
        self.left = left;
        Some(*taken)
    }

    fn take_u64(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(u64::from_le_bytes(self.array()?)).ok()?;
        self.take(length)
    }

    fn take_u32(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        self.take(length)
    }

    fn take_u8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        self.take(length)
    }

    /// Reads the rest of the instruction `op`, if it is one that makes a value by itself.
    #[inline]
    fn leaf(&mut self, op: u8) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        match op {
            op::BININT1 => self.byte().map(|int| int_object(py, int.into())),
            op::BININT2 => self.array().map(|raw| int_object(py, u16::from_le_bytes(raw).into())),
            op::BININT => self.array().map(|raw| int_object(py, i32::from_le_bytes(raw).into())),
            op::LONG1 => self.long(),
            op::NONE => Some(py.None().into_bound(py)),
            op::TRUE => Some(PyBool::new(py, true).to_owned().into_any()),
            op::FALSE => Some(PyBool::new(py, false).to_owned().into_any()),
            op::BINFLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                Some(PyFloat::new(py, value).into_any())
            }
            op::SHORT_BINUNICODE => self.take_u8().and_then(|raw| text_object(py, raw)),
            op::BINUNICODE => self.take_u32().and_then(|raw| text_object(py, raw)),
            op::BINUNICODE8 => self.take_u64().and_then(|raw| text_object(py, raw)),
            op::SHORT_BINBYTES => self.take_u8().map(|raw| PyBytes::new(py, raw).into_any()),
            op::BINBYTES => self.take_u32().and_then(|raw| long_bytes(py, raw)),
            op::BINBYTES8 => self.take_u64().and_then(|raw| long_bytes(py, raw)),
            op::EMPTY_TUPLE => Some(PyTuple::empty(py).into_any()),
            op::EMPTY_LIST => Some(PyList::empty(py).into_any()),
            op::EMPTY_DICT => Some(PyDict::new(py).into_any()),
            _ => None,
        }
    }

    fn long(&mut self) -> Option<Bound<'py, PyAny>> {
        let raw = self.take_u8()?;
        let last = *raw.last()?;
        // Filled up with the sign.
        let mut wide = if last & 0x80 == 0 { [0; 8] } else { [0xff; 8] };
        wide.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(int_object(self.py, i64::from_le_bytes(wide)))
    }

    /// Runs the remaining instructions on a stack, as the unpickler does.
    fn nested(&mut self, mut stack: Vec<Bound<'py, PyAny>>) -> Option<Bound<'py, PyAny>> {
        let mut marks = Vec::new();
        while let Some(op) = self.byte() {
            match op {
                op::MARK => marks.push(stack.len()),
                op::TUPLE1 => fold_tuple(self.py, &mut stack, 1)?,
                op::TUPLE2 => fold_tuple(self.py, &mut stack, 2)?,
                op::TUPLE3 => fold_tuple(self.py, &mut stack, 3)?,
                op::TUPLE => {
                    let items = stack.len().checked_sub(marks.pop()?)?;
                    fold_tuple(self.py, &mut stack, items)?;
                }
                op::APPENDS => extend_list(&mut stack, marks.pop()?)?,
                op::SETITEMS => extend_dict(&mut stack, marks.pop()?)?,
                other => stack.push(self.leaf(other)?),
            }
        }
        let value = stack.pop()?;
        (stack.is_empty() && marks.is_empty()).then_some(value)
    }
}

#[inline]
fn int_object(py: Python<'_>, value: i64) -> Bound<'_, PyAny> {
    let Ok(object) = value.into_pyobject(py);
    object.into_any()
}

fn text_object<'py>(py: Python<'py>, utf8: &[u8]) -> Option<Bound<'py, PyAny>> {
    PyString::from_bytes(py, utf8).ok().map(Bound::into_any)
}

/// Replaces the last `items` values by a tuple of them.
fn fold_tuple<'py>(
    py: Python<'py>,
    stack: &mut Vec<Bound<'py, PyAny>>,
    items: usize,
) -> Option<()> {
    let first = stack.len().checked_sub(items)?;
    let tuple = PyTuple::new(py, stack.drain(first..)).ok()?;
    stack.push(tuple.into_any());
    Some(())
}

/// Moves the values from `mark` on into the list below them.
fn extend_list(stack: &mut Vec<Bound<'_, PyAny>>, mark: usize) -> Option<()> {
    let list = stack.get(mark.checked_sub(1)?)?.cast_exact::<PyList>().ok()?.clone();
    stack.get(mark..)?;
    stack.drain(mark..).try_for_each(|item| list.append(item)).ok()
}

/// Moves the values from `mark` on, keys and values in turn, into the dict below them.
fn extend_dict(stack: &mut Vec<Bound<'_, PyAny>>, mark: usize) -> Option<()> {
    let dict = stack.get(mark.checked_sub(1)?)?.cast_exact::<PyDict>().ok()?.clone();
    let pairs = stack.get(mark..)?.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    // Only plain keys come here, so no user's `__hash__` or `__eq__` runs.
    pairs.into_iter().try_for_each(|pair| dict.set_item(&pair[0], &pair[1])).ok()?;
    stack.truncate(mark);
    Some(())
}

/// The `bytes` with this content; `None` if there is no memory for them.
fn long_bytes<'py>(py: Python<'py>, content: &[u8]) -> Option<Bound<'py, PyAny>> {
    bytes_of(py, content).ok().map(Bound::into_any)
}
