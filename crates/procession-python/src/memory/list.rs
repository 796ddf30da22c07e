//! The items of a `ShareableList`.
//!
//! The bytes are laid out as by the original, in numbers of eight bytes: how many items there are;
//! where each slot begins, and where the last one ends; the slots; the format of each item, as a
//! text for `struct`; and in one byte each how to go on from what `struct` makes of it.
//!
//! The original pads texts and bytes with zeros, and takes all zeros off at the end when it reads
//! them, the item's own too. Here an item that ends with zeros has the format `Nsx`, which tells
//! its length; `struct` reads it as well, and the original writes a format of its own over it.

use procession::memory::raw::Mapped;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use crate::error::EngineResult;
use crate::late::Late;

/// Bytes of a number, of a format, and what slots are aligned to.
const WORD: usize = 8;

/// How to go on from what `struct` makes of a slot.
mod code {
    pub(super) const NUMBER: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const NONE: u8 = 3;
}

const INT: &[u8] = b"q";
const FLOAT: &[u8] = b"d";
const BOOL: &[u8] = b"xxxxxxx?";
const NONE: &[u8] = b"xxxxxx?x";

/// The memory of a list, and where things are in it.
struct Table {
    /// The `SharedMemory`, which says whether it was closed.
    shm: Py<PyAny>,
    memory: Mapped,
    /// Where each slot begins, and where the last one ends, from the start of the memory.
    slots: Vec<usize>,
}

impl Table {
    fn len(&self) -> usize {
        self.slots.len() - 1
    }

    fn format_at(&self, position: usize) -> usize {
        self.slots[self.len()] + WORD * position
    }

    fn code_at(&self, position: usize) -> usize {
        self.slots[self.len()] + WORD * self.len() + position
    }

    fn open(&self, py: Python<'_>) -> PyResult<&Mapped> {
        if self.shm.bind(py).getattr(intern!(py, "_buf"))?.is_none() {
            return Err(PyValueError::new_err("the shared memory of the list is closed"));
        }
        Ok(&self.memory)
    }
}

/// The native half of a `ShareableList`.
#[pyclass(name = "ShareableListBase", module = "procession._procession", subclass, frozen)]
pub(crate) struct PyShareableList(Late<Table>);

fn read<const N: usize>(memory: &Mapped, at: usize) -> PyResult<[u8; N]> {
    let mut bytes = [0; N];
    if memory.read(at, &mut bytes) { Ok(bytes) } else { Err(damaged()) }
}

fn read_to_vec(memory: &Mapped, at: usize, len: usize) -> PyResult<Vec<u8>> {
    // Before there is an allocation for them, the bytes must be there.
    if !memory.holds(at, len) {
        return Err(damaged());
    }
    let mut bytes = vec![0; len];
    memory.read(at, &mut bytes);
    Ok(bytes)
}

fn number(memory: &Mapped, at: usize) -> PyResult<usize> {
    usize::try_from(i64::from_ne_bytes(read(memory, at)?)).map_err(|_| damaged())
}

/// Writes `bytes`, and zeros behind them up to `len` bytes.
fn write(memory: &Mapped, at: usize, bytes: &[u8], len: usize) -> PyResult<()> {
    let mut padded = bytes.to_vec();
    padded.resize(len, 0);
    if memory.write(at, &padded) { Ok(()) } else { Err(damaged()) }
}

fn damaged() -> PyErr {
    PyValueError::new_err("the shared memory holds no list, or a damaged one")
}

/// What a format says of a slot.
enum Format {
    Int,
    Float,
    Bool,
    None,
    /// So many bytes; `exact` if none of them is padding.
    Bytes {
        len: usize,
        exact: bool,
    },
}

impl Format {
    fn parse(text: &[u8; WORD]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte != 0)? + 1;
        Some(match &text[..end] {
            INT => Self::Int,
            FLOAT => Self::Float,
            BOOL => Self::Bool,
            NONE => Self::None,
            [digits @ .., b's'] => Self::Bytes { len: parse_len(digits)?, exact: false },
            [digits @ .., b's', b'x'] => Self::Bytes { len: parse_len(digits)?, exact: true },
            _ => return None,
        })
    }
}

fn parse_len(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// An item as it lies in its slot.
struct Item<'a> {
    format: Vec<u8>,
    code: u8,
    bytes: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Item<'a> {
    fn number(format: &[u8], bytes: [u8; WORD]) -> Self {
        Self { format: format.to_vec(), code: code::NUMBER, bytes: bytes.to_vec().into() }
    }

    /// A text or bytes in a slot of `room` bytes.
    fn text(code: u8, bytes: &'a [u8], room: usize) -> PyResult<Self> {
        if bytes.len() > room {
            return Err(PyValueError::new_err("bytes/str item exceeds available storage"));
        }
        let format = if bytes.last() == Some(&0) {
            format!("{}sx", bytes.len())
        } else {
            format!("{room}s")
        };
        if format.len() > WORD {
            let text = format!("an item of {} bytes cannot be stored as it is", bytes.len());
            return Err(PyValueError::new_err(text));
        }
        Ok(Self { format: format.into_bytes(), code, bytes: bytes.into() })
    }

    fn of(value: &'a Bound<'_, PyAny>, room: usize) -> PyResult<Self> {
        if let Ok(text) = value.cast::<PyString>() {
            return Self::text(code::TEXT, text.to_str()?.as_bytes(), room);
        }
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Self::text(code::BYTES, bytes.as_bytes(), room);
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return Ok(Self::number(INT, long(number)?.to_ne_bytes()));
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return Ok(Self::number(FLOAT, number.value().to_ne_bytes()));
        }
        if let Ok(truth) = value.cast_exact::<PyBool>() {
            let bytes = [0, 0, 0, 0, 0, 0, 0, u8::from(truth.is_true())];
            return Ok(Self::number(BOOL, bytes));
        }
        if value.is_none() {
            let item = Self::number(NONE, [0; WORD]);
            return Ok(Self { code: code::NONE, ..item });
        }
        // As the original, which looks the type up in a table.
        Err(PyKeyError::new_err(value.get_type().unbind()))
    }
}

/// The number, or the error of `struct`, which is what the original packs with.
fn long(number: &Bound<'_, PyInt>) -> PyResult<i64> {
    number.extract().or_else(|_| {
        let py = number.py();
        py.import("struct")?.call_method1("pack", ("q", number))?;
        Err(damaged())
    })
}

impl PyShareableList {
    fn table(&self) -> PyResult<&Table> {
        self.0.made("__init__()")
    }

    fn find(table: &Table, position: isize, message: &'static str) -> PyResult<usize> {
        let at =
            if position < 0 { position.checked_add_unsigned(table.len()) } else { Some(position) };
        at.and_then(|at| usize::try_from(at).ok())
            .filter(|at| *at < table.len())
            .ok_or_else(|| PyIndexError::new_err(message))
    }

    fn get<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyAny>> {
        let table = self.table()?;
        let memory = table.open(py)?;
        let format = read(memory, table.format_at(position))?;
        let slot = table.slots[position];
        Ok(match Format::parse(&format).ok_or_else(damaged)? {
            Format::Int => i64::from_ne_bytes(read(memory, slot)?).into_pyobject(py)?.into_any(),
            Format::Float => PyFloat::new(py, f64::from_ne_bytes(read(memory, slot)?)).into_any(),
            Format::Bool => {
                let [.., truth] = read::<WORD>(memory, slot)?;
                PyBool::new(py, truth != 0).to_owned().into_any()
            }
            Format::None => py.None().into_bound(py),
            Format::Bytes { len, exact } => {
                let mut bytes = read_to_vec(memory, slot, len)?;
                if !exact {
                    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                    bytes.truncate(end);
                }
                let [code] = read(memory, table.code_at(position))?;
                decode(py, code, &bytes)?
            }
        })
    }
}

fn decode<'py>(py: Python<'py>, code: u8, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match code {
        code::TEXT => PyString::from_encoded_object(&PyBytes::new(py, bytes), Some(c"utf-8"), None)
            .map(Bound::into_any),
        code::BYTES => Ok(PyBytes::new(py, bytes).into_any()),
        _ => Err(damaged()),
    }
}

/// Where each slot begins, and where the last one ends.
fn read_slots(memory: &Mapped) -> PyResult<Vec<usize>> {
    let len = number(memory, 0)?;
    let first = len.checked_add(2).and_then(|words| words.checked_mul(WORD));
    // Before there is an allocation for them, the numbers must be there.
    let first = first.filter(|first| memory.holds(0, *first)).ok_or_else(damaged)?;
    let slots = (1..=len + 1).map(|word| {
        let offset = number(memory, WORD * word)?;
        first.checked_add(offset).ok_or_else(damaged)
    });
    let slots = slots.collect::<PyResult<Vec<_>>>()?;
    if slots.is_sorted() { Ok(slots) } else { Err(damaged()) }
}

#[pymethods]
impl PyShareableList {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self(Late::empty())
    }

    /// Take the list to be in this memory, where the slots are laid out.
    fn _attach(&self, shm: &Bound<'_, PyAny>) -> EngineResult<()> {
        let fd = shm.getattr(intern!(shm.py(), "_fd"))?.extract()?;
        let memory = Mapped::new(fd)?;
        let slots = read_slots(&memory)?;
        let table = Table { shm: shm.clone().unbind(), memory, slots };
        if !table.memory.holds(table.format_at(0), table.len() * (WORD + 1)) {
            return Err(damaged().into());
        }
        Ok(self.0.fill(table, "the list")?)
    }

    /// The memory that the list is in.
    #[getter]
    fn shm(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.table()?.shm.clone_ref(py))
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.table()?.len())
    }

    fn __getitem__<'py>(&self, py: Python<'py>, position: isize) -> PyResult<Bound<'py, PyAny>> {
        self.get(py, Self::find(self.table()?, position, "index out of range")?)
    }

    fn __setitem__(&self, position: isize, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        let table = self.table()?;
        let at = Self::find(table, position, "assignment index out of range")?;
        let room = table.slots[at + 1] - table.slots[at];
        let item = Item::of(value, room)?;
        let memory = table.open(py)?;
        write(memory, table.format_at(at), &item.format, WORD)?;
        write(memory, table.code_at(at), &[item.code], 1)?;
        write(memory, table.slots[at], &item.bytes, room)
    }

    /// The format of an item, for `struct`.
    fn _get_packing_format(&self, py: Python<'_>, position: isize) -> PyResult<String> {
        let table = self.table()?;
        let at = Self::find(table, position, "Requested position out of range.")?;
        let format: [u8; WORD] = read(table.open(py)?, table.format_at(at))?;
        let end = format.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok(String::from_utf8_lossy(&format[..end]).into_owned())
    }
}
