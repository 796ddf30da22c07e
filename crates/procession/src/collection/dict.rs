//! The dict of bytes: the handle, and what looks without changing anything.

mod change;
pub(super) mod key;
mod recover;

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::collection::dict::key::{Key, StoredKey};
use crate::collection::handle::shared_container;
use crate::collection::item::Content;
use crate::collection::state::DictState;
use crate::collection::table::{Entry, Sought, Table};
use crate::primitive::Ordering;
use crate::shm::{Arena, ArenaError, Handle, Shared, Taken};

/// A dictionary of bytes that any process of the tree can use.
///
/// The order is that of insertion: a value that is replaced keeps its place, a key that was removed
/// and put in again goes to the end.
///
/// Everything is done with the dict [locked](Self::lock), also reading; several calls on one guard
/// are one step for all others. A process that is killed at any moment leaves the dict as it was
/// before or after the call that it was in. See the [module](crate::collection) for how.
///
/// # Examples
///
/// ```
/// use procession::collection::{ByteDict, Item, Key, NewKey};
/// use procession::shm::Pins;
///
/// let none = Pins::default();
/// let dict = ByteDict::new()?;
/// let key = NewKey::Bytes { bytes: b"key", label: b"", pins: &none };
/// dict.lock().insert(&key, Item::new(&[b"value"], &none)?)?;
/// assert_eq!(&*dict.lock().get(Key::Bytes(b"key"))?.unwrap(), b"value");
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ByteDict {
    state: Shared<DictState>,
}

impl ByteDict {
    /// Makes an empty dict.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new() -> Result<Self, ArenaError> {
        let seed = RandomState::new().build_hasher().finish();
        Shared::new(|state: &DictState| state.seed.store(seed, Ordering::Relaxed))
            .map(|state| Self { state })
    }
}

shared_container!(ByteDict, DictGuard, "dict");

/// A dict that this process has locked; dropping it lets others go on.
pub struct DictGuard<'a> {
    state: &'a Shared<DictState>,
    arena: &'static Arena,
    _taken: Taken<'a>,
}

/// Looking.
impl<'a> DictGuard<'a> {
    fn new(dict: &'a ByteDict, arena: &'static Arena, taken: Taken<'a>) -> Self {
        let died = taken.owner_died.is_some();
        let guard = Self { state: &dict.state, arena, _taken: taken };
        if died {
            // What cannot be read now cannot be read by the call that follows, which says so.
            let _ = guard.recover();
        }
        guard
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.state.live.load(Ordering::Relaxed) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the keys are opaque.
    pub fn opaque(&self) -> usize {
        self.state.opaque.load(Ordering::Relaxed) as usize
    }

    /// A number that is another one after every change.
    pub fn version(&self) -> u64 {
        self.state.version.load(Ordering::Relaxed)
    }

    /// A number that is another one after every change of the set of keys, but stays when a value
    /// is replaced.
    pub fn keys_version(&self) -> u64 {
        self.state.keys_version.load(Ordering::Relaxed)
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when shared memory is damaged.
    pub fn contains(&self, key: Key<'_>) -> Result<bool, ArenaError> {
        Ok(self.find(key)?.is_some())
    }

    /// The value under a key.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no memory for what the value names.
    pub fn get(&self, key: Key<'_>) -> Result<Option<Content>, ArenaError> {
        match self.find(key)? {
            Some((_, _, entry)) => Content::read(self.arena, entry.value).map(Some),
            None => Ok(None),
        }
    }

    /// All keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn keys(&self) -> Result<Vec<StoredKey>, ArenaError> {
        self.entries_as(StoredKey::read)
    }

    /// The opaque keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn opaque_keys(&self) -> Result<Vec<StoredKey>, ArenaError> {
        let Some(table) = self.table()? else { return Ok(Vec::new()) };
        let opaque = table.live().filter(|(_, entry)| entry.is_opaque());
        opaque.map(|(_, entry)| StoredKey::read(self.arena, entry)).collect()
    }

    /// All values, in the order of their keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn values(&self) -> Result<Vec<Content>, ArenaError> {
        self.entries_as(|arena, entry| Content::read(arena, entry.value))
    }

    /// All keys with their values, in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn entries(&self) -> Result<Vec<(StoredKey, Content)>, ArenaError> {
        self.entries_as(|arena, entry| {
            Ok((StoredKey::read(arena, entry)?, Content::read(arena, entry.value)?))
        })
    }

    fn entries_as<R>(
        &self,
        read: impl Fn(&Arena, Entry) -> Result<R, ArenaError>,
    ) -> Result<Vec<R>, ArenaError> {
        let Some(table) = self.table()? else { return Ok(Vec::new()) };
        table.live().map(|(_, entry)| read(self.arena, entry)).collect()
    }

    fn table(&self) -> Result<Option<Table<'static>>, ArenaError> {
        match self.state.table.load(Ordering::Relaxed) {
            0 => Ok(None),
            raw => Table::at(self.arena, Handle::from_raw(raw)).map(Some),
        }
    }

    fn find(&self, key: Key<'_>) -> Result<Option<(Table<'static>, usize, Entry)>, ArenaError> {
        let Some(table) = self.table()? else { return Ok(None) };
        let number;
        let (bytes, opaque) = match key {
            Key::Bytes(bytes) => (bytes, false),
            Key::Opaque(raw) => {
                number = raw.to_le_bytes();
                (&number[..], true)
            }
        };
        let sought = Sought { hash: self.hash(bytes), opaque, bytes };
        Ok(table.find(self.arena, &sought).map(|(number, entry)| (table, number, entry)))
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.state.seed.load(Ordering::Relaxed));
        hasher.write(bytes);
        hasher.finish()
    }
}

impl fmt::Debug for DictGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DictGuard").field("len", &self.len()).finish_non_exhaustive()
    }
}
