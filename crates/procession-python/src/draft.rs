//! A message in the making.

use std::cell::Cell;
use std::ops::Range;

use procession::shm::Pins;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Texts and bytes of at least this size are not copied into the draft: they are written where
/// the message goes to, straight from the object.
pub(crate) const LONG: usize = 16 << 10;

/// Memory for drafts that is larger than this is not kept for the next message, in bytes.
const KEEP: usize = 4 << 20;

thread_local! {
    /// Memory for the message being made, kept from the last one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends `f` an empty buffer. A call from within `f`, as pickling may make, gets another one.
#[inline]
pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let result = f(&mut buffer);
    if buffer.capacity() <= KEEP {
        SCRATCH.set(buffer);
    }
    result
}

/// Does what [`with_scratch`] does, for a message of which a part may lie elsewhere.
#[inline]
pub(crate) fn with_draft<'py, R>(f: impl FnOnce(&mut Draft<'py>) -> R) -> R {
    with_scratch(|scratch| {
        let mut draft = Draft { bytes: std::mem::take(scratch), ..Draft::default() };
        let result = f(&mut draft);
        *scratch = draft.bytes;
        result
    })
}

/// Lends `f` a draft that begins with what is in `out`, which has all of it afterwards.
pub(crate) fn draft_onto<'py, R>(out: &mut Vec<u8>, f: impl FnOnce(&mut Draft<'py>) -> R) -> R {
    let mut draft = Draft { bytes: std::mem::take(out), ..Draft::default() };
    let result = f(&mut draft);
    *out = draft.flatten();
    result
}

/// A text or bytes that belong at a place of a message and lie where they are.
#[derive(Debug)]
pub(crate) struct Insert<'py> {
    /// How many bytes of the draft are in front of it.
    pub(crate) at: usize,
    pub(crate) object: Bound<'py, PyAny>,
}

impl Insert<'_> {
    /// The bytes of a `bytes`, or of a text in UTF-8.
    pub(crate) fn bytes(&self) -> &[u8] {
        if let Ok(bytes) = self.object.cast::<PyBytes>() {
            return bytes.as_bytes();
        }
        // Only a text that has an UTF-8 form is inserted, and that stays with it.
        let text = self.object.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
        text.unwrap_or_default().as_bytes()
    }
}

/// The bytes of a message, or of several one behind the other, without what is inserted.
#[derive(Debug, Default)]
pub(crate) struct Draft<'py> {
    pub(crate) bytes: Vec<u8>,
    /// In the order of their places.
    pub(crate) inserts: Vec<Insert<'py>>,
    /// Number of bytes that were put into shared memory apart from the message.
    pub(crate) apart: u64,
}

/// How far a draft has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    bytes: usize,
    inserts: usize,
}

impl<'py> Draft<'py> {
    pub(crate) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), inserts: self.inserts.len() }
    }

    /// Forgets what came behind `mark`.
    pub(crate) fn truncate(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.inserts.truncate(mark.inserts);
    }

    /// How many bytes came behind `mark`.
    pub(crate) fn len_since(&self, mark: Mark) -> usize {
        let inserts = &self.inserts[mark.inserts..];
        self.bytes.len() - mark.bytes + inserts.iter().map(|part| part.bytes().len()).sum::<usize>()
    }

    /// Copies what is inserted to its place. What comes before the first insert is not touched: it
    /// may be a whole pack of other messages.
    fn flatten(self) -> Vec<u8> {
        let Self { mut bytes, inserts, .. } = self;
        let mut source_end = bytes.len();
        let added: usize = inserts.iter().map(|insert| insert.bytes().len()).sum();
        bytes.resize(source_end + added, 0);
        let mut end = bytes.len();
        for insert in inserts.iter().rev() {
            let behind = source_end - insert.at;
            bytes.copy_within(insert.at..source_end, end - behind);
            end -= behind;
            let inserted = insert.bytes();
            bytes[end - inserted.len()..end].copy_from_slice(inserted);
            end -= inserted.len();
            source_end = insert.at;
        }
        bytes
    }

    /// Lends `f` the parts of the message, which are many only if it is long.
    #[inline]
    pub(crate) fn with_parts<R>(&self, f: impl FnOnce(&[&[u8]]) -> R) -> R {
        if self.inserts.is_empty() {
            return f(&[&self.bytes]);
        }
        f(&self.parts(Mark::default()..self.mark()))
    }

    /// The parts of what lies between two marks.
    pub(crate) fn parts(&self, range: Range<Mark>) -> Vec<&[u8]> {
        let Range { start, end } = range;
        let mut parts = Vec::new();
        let mut at = start.bytes;
        for insert in &self.inserts[start.inserts..end.inserts] {
            parts.push(&self.bytes[at..insert.at]);
            parts.push(insert.bytes());
            at = insert.at;
        }
        parts.push(&self.bytes[at..end.bytes]);
        parts
    }
}

/// Several messages in one draft, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Train {
    cars: Vec<Car>,
}

/// One message of several.
#[derive(Debug)]
pub(crate) struct Car {
    range: Range<Mark>,
    /// Shared objects that it names.
    pub(crate) pins: Option<Pins>,
}

impl Train {
    /// Adds what was drafted since `start`.
    pub(crate) fn add(&mut self, draft: &Draft<'_>, start: Mark, pins: Option<Pins>) {
        let pins = pins.filter(|pins| !pins.is_empty());
        self.cars.push(Car { range: start..draft.mark(), pins });
    }

    pub(crate) fn cars(&self) -> &[Car] {
        &self.cars
    }
}

impl Car {
    /// Whether it is one piece of bytes and no more.
    pub(crate) fn is_plain(&self) -> bool {
        self.pins.is_none() && self.range.start.inserts == self.range.end.inserts
    }

    pub(crate) fn parts<'a>(&self, draft: &'a Draft<'_>) -> Vec<&'a [u8]> {
        draft.parts(self.range.clone())
    }

    /// The bytes of a plain one.
    pub(crate) fn bytes<'a>(&self, draft: &'a Draft<'_>) -> &'a [u8] {
        &draft.bytes[self.range.start.bytes..self.range.end.bytes]
    }
}
