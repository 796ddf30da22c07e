//! Where things are in the arena.
//!
//! ```text
//! unit 0        header: magic, size, limit, locks, counters, hints
//!               table of processes (`SLOTS` entries of 256 bytes)
//!               hint bits: for each class of small blocks one bit per unit
//!               table of runs: one word per unit
//!               states of large blocks: one word per unit
//! first unit    runs
//! ```
//!
//! A unit is 64 KiB. All of it is sparse: pages that nobody has touched cost nothing.

use crate::shm::word::{ALIGN, SLOTS};

/// Bytes in a unit.
pub(super) const UNIT: u64 = 64 << 10;
/// A [`Handle`](super::Handle) counts in steps of 64 bytes in 32 bits.
pub(super) const MOST_UNITS: usize = ((1 << 32) * ALIGN / UNIT) as usize;
/// With less address space than this an arena is of no use.
pub(super) const LEAST_UNITS: usize = ((64 << 20) / UNIT) as usize;

/// Says that the file is an arena of this layout. Change it with any change of the layout.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"process2");

/// Sizes of small blocks, in bytes. The large ones are what fits twice, three times… in a span.
pub(super) const CLASSES: [u64; 19] = [
    64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8128, 10_880, 13_056,
    16_320, 21_760, 32_704,
];
/// The largest small block.
pub(super) const LARGEST_SMALL: u64 = CLASSES[CLASSES.len() - 1];

/// Bytes at the start of a span before its state words.
pub(super) const SPAN_HEADER: u64 = 8;

/// The class that fits `len` bytes.
pub(super) fn class_of(len: u64) -> usize {
    CLASSES.partition_point(|size| *size < len)
}

/// How many blocks a span of each class holds.
const BLOCKS: [u64; CLASSES.len()] = {
    let mut table = [0; CLASSES.len()];
    let mut class = 0;
    while class < CLASSES.len() {
        let mut blocks = UNIT / CLASSES[class];
        while first_block(blocks) + blocks * CLASSES[class] > UNIT {
            blocks -= 1;
        }
        table[class] = blocks;
        class += 1;
    }
    table
};

/// How many blocks of class `class` a span holds.
pub(super) fn blocks_in_span(class: usize) -> u64 {
    BLOCKS[class]
}

/// Where the first of `blocks` blocks begins in its span.
pub(super) const fn first_block(blocks: u64) -> u64 {
    (SPAN_HEADER + 8 * blocks).next_multiple_of(ALIGN)
}

/// Offsets of the words of the header.
pub(super) mod header {
    use super::super::runs::BINS;
    use super::CLASSES;

    pub(in crate::shm) const MAGIC: u64 = 0;
    pub(in crate::shm) const UNITS: u64 = 8;
    pub(in crate::shm) const LIMIT: u64 = 16;
    /// Counts the spans that were made.
    pub(in crate::shm) const SPAN_EPOCH: u64 = 24;
    pub(in crate::shm) const RUNS_LOCK: u64 = 64;
    pub(in crate::shm) const TOP: u64 = 72;
    pub(in crate::shm) const WARM: u64 = 80;
    pub(in crate::shm) const COLD: u64 = 88;
    pub(in crate::shm) const MEMBERS_LOCK: u64 = 128;
    /// Where the search for a free slot begins.
    pub(in crate::shm) const NEXT_SLOT: u64 = 136;
    /// The slot that was looked at last for an orphan.
    pub(in crate::shm) const SWEEP: u64 = 152;
    /// One past the highest slot that was ever used.
    pub(in crate::shm) const SLOTS_USED: u64 = 144;
    /// The first process of the tree, and what its pid is a number in.
    pub(in crate::shm) const FIRST_PID: u64 = 160;
    pub(in crate::shm) const FIRST_STARTED: u64 = 168;
    pub(in crate::shm) const PID_NAMESPACE: u64 = 176;
    /// Not 0 once the tree has names to unlink.
    pub(in crate::shm) const HAS_NAMES: u64 = 184;
    /// Counts the named memory that was made.
    pub(in crate::shm) const DRAFTS: u64 = 192;
    pub(in crate::shm) const BIN: u64 = 256;
    /// For each class the hint word where a free block was found last, a cache line each.
    pub(in crate::shm) const CLASS_HINT: u64 = BIN + 8 * BINS as u64;
    pub(in crate::shm) const END: u64 = CLASS_HINT + 64 * CLASSES.len() as u64;
}

/// Offsets of the words of one entry in the table of processes.
pub(super) mod slot {
    /// Phase and generation, see `members`.
    pub(in crate::shm) const PHASE: u64 = 0;
    pub(in crate::shm) const PID: u64 = 8;
    /// What tells the process from a later one with its pid, see `sys::process::birth_mark`.
    pub(in crate::shm) const BIRTH: u64 = 16;
    /// The member that reserved the slot.
    pub(in crate::shm) const PARENT: u64 = 24;
    /// Handle of the first block of the ledger.
    pub(in crate::shm) const LEDGER: u64 = 32;
    /// Where the search for a free entry of the ledger begins.
    pub(in crate::shm) const CURSOR: u64 = 40;
    /// Held by a thread of the process while it changes a reference count.
    pub(in crate::shm) const OP_LOCK: u64 = 48;
    /// The generation of the last member here that ended of its own accord.
    pub(in crate::shm) const ENDED: u64 = 56;
    /// The change of a reference count under way, see `refs`.
    pub(in crate::shm) const OP: u64 = 64;
    pub(in crate::shm) const OP_TARGET: u64 = 72;
    pub(in crate::shm) const OP_PLACE: u64 = 80;
    /// The last change that others have seen done.
    pub(in crate::shm) const OP_DONE: u64 = 88;
    /// The members that this process is a forked copy of, the nearest first.
    pub(in crate::shm) const LINEAGE: u64 = 128;
    pub(in crate::shm) const LINEAGE_LEN: usize = 8;
    pub(in crate::shm) const SIZE: u64 = 256;
}

/// Where the tables of an arena with so many units are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) units: usize,
    pub(super) slots_at: u64,
    hints_at: u64,
    pub(super) runs_at: u64,
    pub(super) states_at: u64,
    pub(super) first_unit: usize,
}

impl Layout {
    pub(super) fn new(units: usize) -> Self {
        let slots_at = header::END.next_multiple_of(4096);
        let hints_at = (slots_at + SLOTS as u64 * slot::SIZE).next_multiple_of(4096);
        let hint_bytes = Self::hint_words(units) as u64 * 8 * CLASSES.len() as u64;
        let runs_at = (hints_at + hint_bytes).next_multiple_of(4096);
        let states_at = (runs_at + 8 * units as u64).next_multiple_of(4096);
        let end = states_at + 8 * units as u64;
        let first_unit = end.div_ceil(UNIT) as usize;
        Self { units, slots_at, hints_at, runs_at, states_at, first_unit }
    }

    fn hint_words(units: usize) -> usize {
        units.div_ceil(64)
    }

    pub(super) fn hints_of_class(self, class: usize) -> u64 {
        self.hints_at + (class * Self::hint_words(self.units)) as u64 * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_class_fit_their_span_and_are_aligned() {
        for (class, size) in CLASSES.iter().enumerate() {
            assert_eq!(size % ALIGN, 0);
            let blocks = blocks_in_span(class);
            assert!(blocks >= 2 && first_block(blocks) + blocks * size <= UNIT, "class {class}");
            assert_eq!(class_of(*size), class);
            assert_eq!(class_of(*size - 1), class);
        }
    }

    #[test]
    fn tables_do_not_overlap_and_leave_most_to_blocks() {
        for units in [LEAST_UNITS, 4096, MOST_UNITS] {
            let layout = Layout::new(units);
            assert!(layout.first_unit < units / 2, "{units} units");
            assert!(layout.hints_of_class(CLASSES.len()) <= layout.runs_at);
        }
    }
}
