//! The block of a dict's entries: the truth in the order of insertion, and behind it an index.
//!
//! | words             | contents                                                             |
//! |-------------------|----------------------------------------------------------------------|
//! | 0                 | capacity, a power of two                                              |
//! | 1                 | `used`: how many entries there are, removed ones included             |
//! | 8…                | entries, four words each                                              |
//! | behind            | index: twice as many words as entries; 0, or the number of an entry + 1 |
//!
//! An entry is the hash of its key, the length of the part of the key that is compared (bit 63: the
//! key is opaque), the word of the key and that of the value. One whose value word is 0 was removed,
//! and its key word names nothing any more.
//!
//! The index is derived. A place in it is never emptied, and entries are never used again before the
//! whole block is replaced, so at most half of the places are taken and every search ends.

use crate::collection::item::{self, NOTHING};
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Owner};

const CAPACITY: usize = 0;
const USED: usize = 1;
const ENTRIES: usize = 8;
const ENTRY: usize = 4;
const LEAST: usize = 8;

const OPAQUE: u64 = 1 << 63;

/// What an entry is found by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) hash: u64,
    pub(super) opaque: bool,
    pub(super) bytes: &'a [u8],
}

impl Sought<'_> {
    /// The second word of its entry.
    pub(super) fn length_word(&self) -> u64 {
        self.bytes.len() as u64 | if self.opaque { OPAQUE } else { 0 }
    }
}

/// The four words of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) length: u64,
    pub(super) key: u64,
    pub(super) value: u64,
}

impl Entry {
    pub(super) fn is_opaque(self) -> bool {
        self.length & OPAQUE != 0
    }

    /// How many bytes of the key are compared.
    pub(super) fn compared(self) -> usize {
        (self.length & !OPAQUE) as usize
    }

    pub(super) fn is_live(self) -> bool {
        self.value != NOTHING
    }
}

/// The block of a dict, whose lock is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    words: &'a [AtomicU64],
    capacity: usize,
}

impl<'a> Table<'a> {
    pub(super) fn at(arena: &'a Arena, block: Handle) -> Result<Self, ArenaError> {
        let offset = arena.offset_of(block)?;
        let capacity = arena.word_at(offset).load(Ordering::Relaxed) as usize;
        Ok(Self { words: arena.words_at(offset, Self::words_for(capacity)), capacity })
    }

    /// Makes an empty one with room for `entries`, which belongs to `container` and which nothing
    /// leads to yet.
    pub(super) fn make(
        arena: &'a Arena,
        entries: usize,
        container: Handle,
    ) -> Result<(Handle, Self), ArenaError> {
        let capacity = entries.max(LEAST).next_power_of_two();
        let count = Self::words_for(capacity);
        let block = arena.alloc(8 * count, Owner::Block(container))?;
        let words = arena.words_at(arena.offset_of(block)?, count);
        words[CAPACITY].store(capacity as u64, Ordering::Relaxed);
        let table = Self { words, capacity };
        table.set_used(0);
        table.empty_index();
        Ok((block, table))
    }

    fn words_for(capacity: usize) -> usize {
        ENTRIES + (ENTRY + 2) * capacity
    }

    pub(super) fn capacity(self) -> usize {
        self.capacity
    }

    pub(super) fn used(self) -> usize {
        self.words[USED].load(Ordering::Acquire) as usize
    }

    /// Makes the entries before this one count.
    pub(super) fn set_used(self, used: usize) {
        self.words[USED].store(used as u64, Ordering::Release);
    }

    fn word(self, number: usize, word: usize) -> &'a AtomicU64 {
        &self.words[ENTRIES + ENTRY * number + word]
    }

    pub(super) fn entry(self, number: usize) -> Entry {
        let [hash, length, key, value] =
            [0, 1, 2, 3].map(|word| self.word(number, word).load(Ordering::Relaxed));
        Entry { hash, length, key, value }
    }

    pub(super) fn write(self, number: usize, entry: Entry) {
        let Entry { hash, length, key, value } = entry;
        for (word, content) in [hash, length, key, value].into_iter().enumerate() {
            self.word(number, word).store(content, Ordering::Relaxed);
        }
    }

    /// Replaces the value of an entry; returns the word that was there.
    pub(super) fn set_value(self, number: usize, value: u64) -> u64 {
        let word = self.word(number, 3);
        let old = word.load(Ordering::Relaxed);
        word.store(value, Ordering::Release);
        old
    }

    /// The entries that were not removed, with their numbers.
    pub(super) fn live(self) -> impl DoubleEndedIterator<Item = (usize, Entry)> + use<'a> {
        let entries = (0..self.used()).map(move |number| (number, self.entry(number)));
        entries.filter(|(_, entry)| entry.is_live())
    }

    fn index(self) -> &'a [AtomicU64] {
        &self.words[ENTRIES + ENTRY * self.capacity..]
    }

    /// The places of the index where `hash` may be, in the order in which they are taken.
    fn places(self, hash: u64) -> impl Iterator<Item = &'a AtomicU64> {
        let index = self.index();
        let mask = index.len() - 1;
        let first = (hash ^ hash >> 32) as usize;
        (0..index.len()).map(move |step| &index[first.wrapping_add(step) & mask])
    }

    pub(super) fn find(self, arena: &Arena, sought: &Sought<'_>) -> Option<(usize, Entry)> {
        for place in self.places(sought.hash) {
            let number = match place.load(Ordering::Relaxed) {
                0 => return None,
                number => number as usize - 1,
            };
            let entry = self.entry(number);
            if entry.hash == sought.hash
                && entry.is_live()
                && entry.length == sought.length_word()
                && item::begins_with(arena, entry.key, sought.bytes)
            {
                return Some((number, entry));
            }
        }
        None
    }

    /// Lets an entry be found.
    pub(super) fn enter(self, number: usize, hash: u64) {
        let free = |place: &&AtomicU64| place.load(Ordering::Relaxed) == 0;
        if let Some(place) = self.places(hash).find(free) {
            place.store(number as u64 + 1, Ordering::Relaxed);
        }
    }

    fn empty_index(self) {
        for place in self.index() {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Derives the index from the entries.
    pub(super) fn derive_index(self) {
        self.empty_index();
        for (number, entry) in self.live() {
            self.enter(number, entry.hash);
        }
    }
}
