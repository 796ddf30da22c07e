//! Keys: to look for, to put in, and as they lie in a dict.

use crate::collection::item::{Content, Item};
use crate::collection::table::Entry;
use crate::shm::{Arena, ArenaError, Pins};

/// A key to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// One that is compared by these bytes.
    Bytes(&'a [u8]),
    /// One that only those who use the dict can compare, by the number that it was given.
    Opaque(u64),
}

/// A key under which something is put in.
#[derive(Debug, Clone, Copy)]
pub enum NewKey<'a> {
    /// One that is compared by its bytes.
    Bytes {
        /// What is compared.
        bytes: &'a [u8],
        /// What is kept beside them, by the first one that puts this key in.
        label: &'a [u8],
        /// The shared objects that the label names.
        pins: &'a Pins,
    },
    /// One more key that only those who use the dict can compare. They have made sure that it is
    /// not there yet.
    Opaque {
        /// What the key is.
        label: &'a [u8],
        /// The shared objects that the label names.
        pins: &'a Pins,
    },
    /// The opaque key of this number. If it is gone, nothing is put in.
    Known(u64),
}

/// One of several changes that are made at once.
#[derive(Debug)]
pub struct Change<'a> {
    /// Under which key something is put in.
    pub key: NewKey<'a>,
    /// What.
    pub value: Item,
}

/// A key that was read from a dict.
#[derive(Debug)]
pub struct StoredKey {
    content: Content,
    compared: usize,
    opaque: bool,
}

impl StoredKey {
    pub(super) fn read(arena: &Arena, entry: Entry) -> Result<Self, ArenaError> {
        let content = Content::read(arena, entry.key)?;
        Ok(Self { content, compared: entry.compared(), opaque: entry.is_opaque() })
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.content.split_at_checked(self.compared).unwrap_or_default()
    }

    /// How the dict finds it.
    pub fn key(&self) -> Key<'_> {
        let (bytes, _) = self.parts();
        match bytes.first_chunk() {
            Some(number) if self.opaque => Key::Opaque(u64::from_le_bytes(*number)),
            _ => Key::Bytes(bytes),
        }
    }

    /// What is kept beside it.
    pub fn label(&self) -> &[u8] {
        self.parts().1
    }
}
