//! The block of a list's words.
//!
//! | words  | contents                                                       |
//! |--------|----------------------------------------------------------------|
//! | 0      | capacity                                                       |
//! | 1      | `range`: number of the first word (bits 32–63), how many there are (0–31) |
//! | 2…     | the words                                                      |

use std::ops::Range;

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Owner};

const CAPACITY: usize = 0;
const RANGE: usize = 1;
const WORDS: usize = 2;
const LEAST: usize = 14;
/// More than this cannot be told in `range`.
const MOST: usize = u32::MAX as usize;

/// The block of a list, whose lock is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vector<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Vector<'a> {
    pub(super) fn at(arena: &'a Arena, block: Handle) -> Result<Self, ArenaError> {
        let offset = arena.offset_of(block)?;
        let capacity = arena.word_at(offset).load(Ordering::Relaxed) as usize;
        Ok(Self { words: arena.words_at(offset, WORDS + capacity) })
    }

    /// Makes an empty one with room for at least `capacity` words, which belongs to `container` and
    /// which nothing leads to yet.
    pub(super) fn make(
        arena: &'a Arena,
        capacity: usize,
        container: Handle,
    ) -> Result<(Handle, Self), ArenaError> {
        let capacity = capacity.max(LEAST);
        // What is too much to be told is too much for the arena.
        let bytes = if capacity > MOST { usize::MAX } else { 8 * (WORDS + capacity) };
        let block = arena.alloc(bytes, Owner::Block(container))?;
        let words = arena.words_at(arena.offset_of(block)?, WORDS + capacity);
        words[CAPACITY].store(capacity as u64, Ordering::Relaxed);
        let vector = Self { words };
        vector.set_range(0..0);
        Ok((block, vector))
    }

    pub(super) fn range(self) -> Range<usize> {
        let word = self.words[RANGE].load(Ordering::Acquire);
        let start = (word >> 32) as usize;
        start..start + word as u32 as usize
    }

    /// Makes exactly these words count.
    pub(super) fn set_range(self, range: Range<usize>) {
        let word = (range.start as u64) << 32 | range.len() as u64;
        self.words[RANGE].store(word, Ordering::Release);
    }

    pub(super) fn len(self) -> usize {
        self.range().len()
    }

    /// How many more words there is room for behind the last.
    pub(super) fn room(self) -> usize {
        self.words.len() - WORDS - self.range().end
    }

    /// A word that counts, by its position in the list.
    pub(super) fn word(self, position: usize) -> Option<u64> {
        let range = self.range();
        (position < range.len())
            .then(|| self.words[WORDS + range.start + position].load(Ordering::Relaxed))
    }

    /// The words that count.
    pub(super) fn words(self) -> impl DoubleEndedIterator<Item = u64> + use<'a> {
        let Range { start, end } = self.range();
        self.words[WORDS + start..WORDS + end].iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// Replaces a word that counts; returns what was there.
    pub(super) fn replace(self, position: usize, word: u64) -> u64 {
        let place = &self.words[WORDS + self.range().start + position];
        let old = place.load(Ordering::Relaxed);
        place.store(word, Ordering::Release);
        old
    }

    /// Writes a word behind those that count.
    pub(super) fn write_behind(self, distance: usize, word: u64) {
        self.words[WORDS + self.range().end + distance].store(word, Ordering::Relaxed);
    }
}
