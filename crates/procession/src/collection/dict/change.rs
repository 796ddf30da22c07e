//! What changes a dict.

use std::collections::{BTreeMap, HashMap};

use crate::collection::dict::DictGuard;
use crate::collection::dict::key::{Change, Key, NewKey, StoredKey};
use crate::collection::item::{self, Content, Item, NOTHING};
use crate::collection::table::{Entry, Sought, Table};
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{ArenaError, Handle, Owner};

/// Words of a journal before its pairs: the number of entries afterwards, and how many pairs.
const JOURNAL_HEAD: usize = 2;

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
    pub(super) fn complete(
        &self,
        table: Table<'_>,
        journal: Handle,
    ) -> Result<Vec<u64>, ArenaError> {
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

    pub(super) fn touch(&self, keys: bool) {
        let raise = |word: &AtomicU64| {
            word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        };
        raise(&self.state.version);
        if keys {
            raise(&self.state.keys_version);
        }
    }
}
