//! The dict of bytes.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::collection::item::{self, Content, Item, NOTHING};
use crate::collection::state::DictState;
use crate::collection::table::{Entry, Sought, Table};
use crate::error::WaitError;
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins, Shared, Taken};

/// Words of a journal before its pairs: the number of entries afterwards, and how many pairs.
const JOURNAL_HEAD: usize = 2;

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
    fn read(arena: &Arena, entry: Entry) -> Result<Self, ArenaError> {
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

    /// The dict that `raw`, a number from [`note`](Self::note), stands for.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when there is no such dict any more.
    pub fn open(raw: u64) -> Result<Self, ArenaError> {
        Shared::open(Handle::from_raw(raw)).map(|state| Self { state })
    }

    /// The number that stands for the dict in the data which [`pack`](crate::shm::pack) is packing
    /// on this thread, for serializers that know nothing of serde.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutsideTree`] outside of `pack`.
    pub fn note(&self) -> Result<u64, ArenaError> {
        self.state.pack().map(Handle::raw)
    }

    /// The number by which every process of the tree knows the dict. It keeps nothing alive.
    pub fn id(&self) -> u64 {
        self.state.handle().raw()
    }

    /// Blocks until this process alone uses the dict. Signals do not end the wait.
    ///
    /// Others wait as long as the guard lives; a thread that has one must not ask for another.
    pub fn lock(&self) -> DictGuard<'_> {
        let arena = arena();
        DictGuard::new(self, arena, self.state.lock.lock(arena))
    }

    /// Locks the dict if nobody has it locked.
    pub fn try_lock(&self) -> Option<DictGuard<'_>> {
        let arena = arena();
        self.state.lock.lock_now(arena).map(|taken| DictGuard::new(self, arena, taken))
    }

    /// Blocks until the dict is locked, until `deadline`; `None` means for ever.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] at the deadline, [`WaitError::Interrupted`] when a signal handler has
    /// run while it waited.
    pub fn lock_until(&self, deadline: Option<Instant>) -> Result<DictGuard<'_>, WaitError> {
        let arena = arena();
        let taken = self.state.lock.lock_until(arena, deadline)?;
        Ok(DictGuard::new(self, arena, taken))
    }

    /// Whether two handles are of the same dict.
    pub fn is_same(&self, other: &Self) -> bool {
        self.state.handle() == other.state.handle()
    }
}

/// The arena that every shared object of this process lives in.
pub(super) fn arena() -> &'static Arena {
    // Whoever has a shared object has the arena, and nobody takes it away.
    Arena::current().expect("the arena of a shared object is there")
}

impl Serialize for ByteDict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ByteDict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Shared::deserialize(deserializer).map(|state| Self { state })
    }
}

/// A dict that this process has locked; dropping it lets others go on.
pub struct DictGuard<'a> {
    state: &'a Shared<DictState>,
    arena: &'static Arena,
    _taken: Taken<'a>,
}

/// A new entry, before it is in the table.
struct Fresh {
    hash: u64,
    length: u64,
    key: Item,
    value: Item,
}

impl Fresh {
    fn is_opaque(&self) -> bool {
        let Self { hash, length, .. } = *self;
        Entry { hash, length, key: NOTHING, value: NOTHING }.is_opaque()
    }

    fn into_entry(self) -> Entry {
        let Self { hash, length, key, value } = self;
        Entry { hash, length, key: key.into_word(), value: value.into_word() }
    }
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

/// Changing.
impl DictGuard<'_> {
    /// Puts a value in, in place of the one that is under the key, if there is one. False only if
    /// the key was [`NewKey::Known`] and is gone.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when shared memory is at its limit; nothing has changed then.
    pub fn insert(&mut self, key: &NewKey<'_>, value: Item) -> Result<bool, ArenaError> {
        if let Some((table, number, _)) = self.find_new(key)? {
            value.give(self.arena, self.state.handle())?;
            let old = table.set_value(number, value.into_word());
            self.touch(false);
            item::free(self.arena, old);
            return Ok(true);
        }
        let Some(fresh) = self.fresh(key, value)? else { return Ok(false) };
        let table = self.room_for(1)?;
        self.give(&fresh)?;
        self.append(table, vec![fresh]);
        Ok(true)
    }

    /// Makes several changes at once: all of them are seen, or none, also if this process is killed
    /// in the middle. Of several values under one key, the last one counts.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when shared memory is at its limit; nothing has changed then.
    pub fn extend(&mut self, changes: Vec<Change<'_>>) -> Result<(), ArenaError> {
        // First, since making room gives entries other numbers.
        self.room_for(self.count_missing(&changes)?)?;
        let (replaced, fresh) = self.sort_out(changes)?;
        let Some(table) = self.table()? else { return Ok(()) };
        for fresh in &fresh {
            self.give(fresh)?;
        }
        for value in replaced.values() {
            value.give(self.arena, self.state.handle())?;
        }
        if replaced.is_empty() {
            self.append(table, fresh);
            return Ok(());
        }
        self.replace(table, replaced, fresh)
    }

    /// Removes a key and returns its value, if it is there.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); nothing has changed then.
    pub fn take(&mut self, key: Key<'_>) -> Result<Option<Content>, ArenaError> {
        let Some((table, number, entry)) = self.find(key)? else { return Ok(None) };
        let content = Content::read(self.arena, entry.value)?;
        self.strike(table, number, entry);
        Ok(Some(content))
    }

    /// Removes a key and its value; false if it is not there.
    ///
    /// # Errors
    ///
    /// As [`contains`](Self::contains).
    pub fn remove(&mut self, key: Key<'_>) -> Result<bool, ArenaError> {
        let Some((table, number, entry)) = self.find(key)? else { return Ok(false) };
        self.strike(table, number, entry);
        Ok(true)
    }

    /// Removes the last key and returns it with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); nothing has changed then.
    pub fn pop_last(&mut self) -> Result<Option<(StoredKey, Content)>, ArenaError> {
        let Some(table) = self.table()? else { return Ok(None) };
        let end = self.state.end.load(Ordering::Relaxed) as usize;
        let entries = (0..end.min(table.used())).map(|number| (number, table.entry(number)));
        let Some((number, entry)) = entries.rev().find(|(_, entry)| entry.is_live()) else {
            return Ok(None);
        };
        let key = StoredKey::read(self.arena, entry)?;
        let value = Content::read(self.arena, entry.value)?;
        self.strike(table, number, entry);
        self.state.end.store(number as u64, Ordering::Relaxed);
        Ok(Some((key, value)))
    }

    /// Removes all keys.
    ///
    /// # Errors
    ///
    /// As [`contains`](Self::contains).
    pub fn clear(&mut self) -> Result<(), ArenaError> {
        let Some(table) = self.table()? else { return Ok(()) };
        let block = self.state.table.load(Ordering::Relaxed);
        self.state.table.store(0, Ordering::Release);
        for derived in [&self.state.live, &self.state.opaque, &self.state.end] {
            derived.store(0, Ordering::Relaxed);
        }
        self.touch(true);
        for (_, entry) in table.live() {
            item::free(self.arena, entry.key);
            item::free(self.arena, entry.value);
        }
        self.arena.free(Handle::from_raw(block));
        Ok(())
    }

    fn find_new(
        &self,
        key: &NewKey<'_>,
    ) -> Result<Option<(Table<'static>, usize, Entry)>, ArenaError> {
        match *key {
            NewKey::Bytes { bytes, .. } => self.find(Key::Bytes(bytes)),
            NewKey::Known(number) => self.find(Key::Opaque(number)),
            NewKey::Opaque { .. } => Ok(None),
        }
    }

    /// An entry for a key that is not there; `None` for one that should be.
    fn fresh(&self, key: &NewKey<'_>, value: Item) -> Result<Option<Fresh>, ArenaError> {
        let number;
        let (bytes, label, pins, opaque) = match *key {
            NewKey::Bytes { bytes, label, pins } => (bytes, label, pins, false),
            NewKey::Opaque { label, pins } => {
                // Numbers are used up before they are used, so none is given twice.
                let next = self.state.serial.load(Ordering::Relaxed) + 1;
                self.state.serial.store(next, Ordering::Release);
                number = next.to_le_bytes();
                (&number[..], label, pins, true)
            }
            NewKey::Known(_) => return Ok(None),
        };
        let sought = Sought { hash: self.hash(bytes), opaque, bytes };
        let key = Item::whole(&[bytes, label], pins)?;
        Ok(Some(Fresh { hash: sought.hash, length: sought.length_word(), key, value }))
    }

    fn count_missing(&self, changes: &[Change<'_>]) -> Result<usize, ArenaError> {
        let mut missing = 0;
        for change in changes {
            missing += usize::from(self.find_new(&change.key)?.is_none());
        }
        Ok(missing)
    }

    /// Tells the values to be replaced, by the numbers of their entries, from what is new.
    fn sort_out(
        &self,
        changes: Vec<Change<'_>>,
    ) -> Result<(BTreeMap<usize, Item>, Vec<Fresh>), ArenaError> {
        let (mut replaced, mut fresh) = (BTreeMap::new(), Vec::<Fresh>::new());
        let mut known = HashMap::new();
        for Change { key, value } in changes {
            if let Some((_, number, _)) = self.find_new(&key)? {
                replaced.insert(number, value);
                continue;
            }
            if let NewKey::Bytes { bytes, .. } = key
                && let Some(at) = known.insert(bytes, fresh.len())
            {
                known.insert(bytes, at);
                fresh[at].value = value;
                continue;
            }
            fresh.extend(self.fresh(&key, value)?);
        }
        Ok((replaced, fresh))
    }

    fn give(&self, fresh: &Fresh) -> Result<(), ArenaError> {
        fresh.key.give(self.arena, self.state.handle())?;
        fresh.value.give(self.arena, self.state.handle())
    }

    /// Writes new entries where nobody looks yet; returns the number of the last, plus one.
    fn write(&self, table: Table<'_>, fresh: Vec<Fresh>) -> (usize, u64) {
        let mut used = table.used();
        let mut opaque = 0;
        for fresh in fresh {
            opaque += u64::from(fresh.is_opaque());
            table.write(used, fresh.into_entry());
            used += 1;
        }
        (used, opaque)
    }

    /// Adds entries for which there is room and which belong to the dict.
    fn append(&mut self, table: Table<'_>, fresh: Vec<Fresh>) {
        let before = table.used();
        let (used, opaque) = self.write(table, fresh);
        table.set_used(used);
        self.derive_from(table, before, opaque);
    }

    /// Brings what is derived up to date with the entries from `before` on, which are new.
    fn derive_from(&self, table: Table<'_>, before: usize, opaque: u64) {
        let used = table.used();
        for number in before..used {
            table.enter(number, table.entry(number).hash);
        }
        let add = |word: &AtomicU64, count: u64| {
            word.store(word.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        };
        add(&self.state.live, (used - before) as u64);
        add(&self.state.opaque, opaque);
        self.state.end.store(used as u64, Ordering::Relaxed);
        self.touch(used != before);
    }

    /// Replaces values and adds entries, by way of a journal.
    fn replace(
        &mut self,
        table: Table<'_>,
        replaced: BTreeMap<usize, Item>,
        fresh: Vec<Fresh>,
    ) -> Result<(), ArenaError> {
        let count = replaced.len();
        let len = JOURNAL_HEAD + 2 * count;
        let journal = self.arena.alloc(8 * len, Owner::Block(self.state.handle()))?;
        let words = self.arena.words_at(self.arena.offset_of(journal)?, len);
        let before = table.used();
        let (used, opaque) = self.write(table, fresh);
        let pairs = replaced.into_iter().flat_map(|(at, value)| [at as u64, value.into_word()]);
        for (word, content) in
            words.iter().zip([used as u64, count as u64].into_iter().chain(pairs))
        {
            word.store(content, Ordering::Relaxed);
        }
        self.state.pending.store(journal.raw(), Ordering::Release);
        let old = self.complete(table, journal)?;
        self.state.pending.store(0, Ordering::Release);
        self.derive_from(table, before, opaque);
        old.into_iter().for_each(|word| item::free(self.arena, word));
        self.arena.free(journal);
        Ok(())
    }

    /// Does what a journal says; returns the words of the values that were replaced.
    fn complete(&self, table: Table<'_>, journal: Handle) -> Result<Vec<u64>, ArenaError> {
        let offset = self.arena.offset_of(journal)?;
        let head = self.arena.words_at(offset, JOURNAL_HEAD);
        let [used, count] = [0, 1].map(|word| head[word].load(Ordering::Relaxed) as usize);
        let words = self.arena.words_at(offset, JOURNAL_HEAD + 2 * count);
        let (pairs, _) = words[JOURNAL_HEAD..].as_chunks::<2>();
        let replace = |[number, value]: &[crate::primitive::AtomicU64; 2]| {
            let number = number.load(Ordering::Relaxed) as usize;
            table.set_value(number, value.load(Ordering::Relaxed))
        };
        let old = pairs.iter().map(replace).collect();
        table.set_used(used);
        Ok(old)
    }

    /// Removes an entry.
    fn strike(&mut self, table: Table<'_>, number: usize, entry: Entry) {
        table.set_value(number, NOTHING);
        let less = |word: &AtomicU64| {
            word.store(word.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        };
        less(&self.state.live);
        if entry.is_opaque() {
            less(&self.state.opaque);
        }
        self.touch(true);
        item::free(self.arena, entry.key);
        item::free(self.arena, entry.value);
    }

    /// A table with room for so many more entries.
    fn room_for(&self, more: usize) -> Result<Table<'static>, ArenaError> {
        let old = self.table()?;
        if let Some(table) = old
            && table.used() + more <= table.capacity()
        {
            return Ok(table);
        }
        let needed = self.len() + more;
        // Half of it is free afterwards, so that this pays for as many insertions.
        let (block, table) = Table::make(self.arena, needed + self.len(), self.state.handle())?;
        for (number, (_, entry)) in old.iter().flat_map(|old| old.live()).enumerate() {
            table.write(number, entry);
            table.enter(number, entry.hash);
        }
        table.set_used(self.len());
        let before = self.state.table.load(Ordering::Relaxed);
        self.state.table.store(block.raw(), Ordering::Release);
        self.state.end.store(table.used() as u64, Ordering::Relaxed);
        if before != 0 {
            self.arena.free(Handle::from_raw(before));
        }
        Ok(table)
    }

    fn touch(&self, keys: bool) {
        let raise = |word: &AtomicU64| {
            word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        };
        raise(&self.state.version);
        if keys {
            raise(&self.state.keys_version);
        }
    }
}

/// After a death.
impl DictGuard<'_> {
    /// Makes good what the holder before, which was killed, may have left.
    #[cold]
    fn recover(&self) -> Result<(), ArenaError> {
        let table = self.table()?;
        let pending = Handle::from_raw(self.state.pending.load(Ordering::Acquire));
        if let Some(table) = table
            && !pending.is_none()
        {
            self.complete(table, pending)?;
        }
        self.state.pending.store(0, Ordering::Release);
        let (mut live, mut opaque) = (0, 0);
        if let Some(table) = table {
            table.derive_index();
            for (_, entry) in table.live() {
                live += 1;
                opaque += u64::from(entry.is_opaque());
            }
        }
        self.state.live.store(live, Ordering::Relaxed);
        self.state.opaque.store(opaque, Ordering::Relaxed);
        let end = table.map_or(0, |table| table.used() as u64);
        self.state.end.store(end, Ordering::Relaxed);
        self.touch(true);
        self.sweep(table);
        Ok(())
    }

    /// Frees the blocks of the dict that nothing in it leads to.
    fn sweep(&self, table: Option<Table<'_>>) {
        let mut reachable = HashSet::from([self.state.table.load(Ordering::Relaxed)]);
        for (_, entry) in table.iter().flat_map(|table| table.live()) {
            let blocks = [entry.key, entry.value].into_iter().filter_map(item::block_of);
            reachable.extend(blocks.map(Handle::raw));
        }
        free_others(self.arena, self.state.handle(), &reachable);
    }

    /// Number of blocks that belong to the dict.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.arena.children_of(self.state.handle()).len()
    }
}

/// Frees the blocks of a container but for these.
pub(super) fn free_others(arena: &Arena, container: Handle, kept: &HashSet<u64>) {
    for block in arena.children_of(container) {
        if !kept.contains(&block.raw()) {
            arena.free(block);
        }
    }
}

impl fmt::Debug for DictGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DictGuard").field("len", &self.len()).finish_non_exhaustive()
    }
}
