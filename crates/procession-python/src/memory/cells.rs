//! Numbers in a block, as `ctypes` lays them out.

use procession::shm::Block;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyTuple};

/// What `ctypes` calls the type code of a plain type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Bool,
    Char,
}

impl Kind {
    /// `None` for what is not read and written here, such as `wchar_t` and pointers.
    pub(super) fn of(typecode: char) -> Option<Self> {
        Some(match typecode {
            'b' => Self::I8,
            'B' => Self::U8,
            'h' => Self::I16,
            'H' => Self::U16,
            'i' => Self::I32,
            'I' => Self::U32,
            'l' | 'q' => Self::I64,
            'L' | 'Q' => Self::U64,
            'f' => Self::F32,
            'd' => Self::F64,
            '?' => Self::Bool,
            'c' => Self::Char,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool | Self::Char => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

// `l` and `L` are read as numbers of eight bytes.
const _: () = assert!(size_of::<std::ffi::c_long>() == 8);

/// Numbers of one kind, from the start of a block on.
pub(super) struct Cells {
    kind: Kind,
    block: Block,
    len: usize,
}

impl Cells {
    /// `len` numbers; fewer if there are not so many in the block.
    pub(super) fn new(kind: Kind, block: Block, len: usize) -> Self {
        let len = len.min(block.len() / kind.size());
        Self { kind, block, len }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number at `index`; `None` if there is none in the block.
    #[inline]
    pub(super) fn get<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        macro_rules! number {
            ($type:ty) => {
                match self.block.load::<$type>(index * size_of::<$type>()) {
                    Some(number) => number.into_pyobject(py)?.into_any(),
                    None => return Ok(None),
                }
            };
        }
        Ok(Some(match self.kind {
            Kind::I8 => number!(i8),
            Kind::U8 => number!(u8),
            Kind::I16 => number!(i16),
            Kind::U16 => number!(u16),
            Kind::I32 => number!(i32),
            Kind::U32 => number!(u32),
            Kind::I64 => number!(i64),
            Kind::U64 => number!(u64),
            Kind::F32 => number!(f32),
            Kind::F64 => number!(f64),
            Kind::Bool => match self.block.load::<u8>(index) {
                Some(byte) => PyBool::new(py, byte != 0).to_owned().into_any(),
                None => return Ok(None),
            },
            Kind::Char => match self.block.load::<u8>(index) {
                Some(byte) => PyBytes::new(py, &[byte]).into_any(),
                None => return Ok(None),
            },
        }))
    }

    /// Writes the number at `index`. False, with nothing written, if only `ctypes` can convert the
    /// value or there is no such number in the block.
    #[inline]
    pub(super) fn set(&self, index: usize, value: &Bound<'_, PyAny>) -> bool {
        let at = index * self.kind.size();
        let block = &self.block;
        match self.kind {
            Kind::F32 => real(value).is_some_and(|number| block.store(at, number as f32)),
            Kind::F64 => real(value).is_some_and(|number| block.store(at, number)),
            Kind::Bool => {
                let truth = value.cast_exact::<PyBool>();
                truth.is_ok_and(|truth| block.store(at, u8::from(truth.is_true())))
            }
            Kind::Char => match value.cast_exact::<PyBytes>().map(|bytes| bytes.as_bytes()) {
                Ok([byte]) => block.store(at, *byte),
                _ => false,
            },
            _ => whole(value).is_some_and(|bits| self.store_bits(at, bits)),
        }
    }

    /// Writes as many of the lower bits as there is room for: `ctypes` does not check either.
    #[inline]
    fn store_bits(&self, at: usize, bits: u64) -> bool {
        match self.kind.size() {
            1 => self.block.store(at, bits as u8),
            2 => self.block.store(at, bits as u16),
            4 => self.block.store(at, bits as u32),
            _ => self.block.store(at, bits),
        }
    }

    /// The numbers at `indices`, which are all below `len`, as what `ctypes` makes of a slice: a
    /// list, of characters `bytes`.
    pub(super) fn get_slice<'py>(
        &self,
        py: Python<'py>,
        indices: impl ExactSizeIterator<Item = usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        macro_rules! numbers {
            ($type:ty) => {{
                let load = |index| self.block.load(index * size_of::<$type>());
                PyList::new(py, indices.map(|index| -> $type { load(index).unwrap_or_default() }))
            }};
        }
        let byte = |index| self.block.load::<u8>(index).unwrap_or_default();
        let list = match self.kind {
            Kind::I8 => numbers!(i8),
            Kind::U8 => numbers!(u8),
            Kind::I16 => numbers!(i16),
            Kind::U16 => numbers!(u16),
            Kind::I32 => numbers!(i32),
            Kind::U32 => numbers!(u32),
            Kind::I64 => numbers!(i64),
            Kind::U64 => numbers!(u64),
            Kind::F32 => numbers!(f32),
            Kind::F64 => numbers!(f64),
            Kind::Bool => PyList::new(py, indices.map(|index| byte(index) != 0)),
            Kind::Char => {
                let bytes: Vec<u8> = indices.map(byte).collect();
                return Ok(PyBytes::new(py, &bytes).into_any());
            }
        };
        list.map(Bound::into_any)
    }

    /// Writes the items of a list, a tuple or bytes, from the number at `start` on. False if there
    /// is something that only `ctypes` can convert; some may be written then.
    pub(super) fn set_all(&self, start: usize, items: &Bound<'_, PyAny>) -> bool {
        if let Ok(list) = items.cast_exact::<PyList>() {
            return (start..).zip(list).all(|(index, item)| self.set(index, &item));
        }
        if let Ok(tuple) = items.cast_exact::<PyTuple>() {
            return (start..).zip(tuple).all(|(index, item)| self.set(index, &item));
        }
        match items.cast_exact::<PyBytes>() {
            Ok(bytes) if self.kind == Kind::Char => {
                let mut bytes = (start..).zip(bytes.as_bytes());
                bytes.all(|(index, byte)| self.block.store(index, *byte))
            }
            _ => false,
        }
    }
}

/// The lower 64 bits of an `int`.
#[inline]
fn whole(value: &Bound<'_, PyAny>) -> Option<u64> {
    let number = value.cast_exact::<PyInt>().ok()?;
    match number.extract::<i64>() {
        Ok(signed) => Some(signed.cast_unsigned()),
        Err(_) => number.extract::<u64>().ok(),
    }
}

#[inline]
fn real(value: &Bound<'_, PyAny>) -> Option<f64> {
    value.cast_exact::<PyFloat>().ok().map(|number| number.value())
}
