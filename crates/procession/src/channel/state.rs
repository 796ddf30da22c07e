//! The shared part of a queue, and what every word of it means.
//!
//! A queue is a header object and a chain of 64 KiB chunks, which are blocks that belong to it.
//! Producers append behind `tail` under one robust lock, consumers take at `head` under another,
//! so the two sides meet only where the queue is nearly empty or full.
//!
//! # Positions
//!
//! `head` and `tail` are one word each:
//!
//! | bits  | meaning                                                             |
//! |-------|---------------------------------------------------------------------|
//! | 0–28  | records consumed (published) since the queue was made, modulo 2²⁹    |
//! | 29–41 | offset of the next record in its chunk / 8                           |
//! | 42–63 | unit of the arena that the chunk is; 0 before the first record       |
//!
//! A record is published by the one store of `tail` that moves behind it, and consumed by the one
//! store of `head`. What is between the two words is whole; what is behind `tail` does not count.
//!
//! # Chunks and records
//!
//! A chunk begins with the unit of the next chunk (0 if none) and its own handle. Records follow:
//! a word with the length (bits 0–31) and the kind (32–33), then the payload, padded to 8 bytes.
//!
//! | kind     | payload                                                            |
//! |----------|--------------------------------------------------------------------|
//! | `INLINE` | the message                                                        |
//! | `BLOCK`  | the handle of a parcel that belongs to the queue: a large message, or one that names shared objects |
//! | `JUMP`   | none; the next record is at the start of the next chunk             |
//!
//! # When a process dies
//!
//! | killed                                   | what is left                                     |
//! |------------------------------------------|--------------------------------------------------|
//! | producer, before it stores `tail`        | bytes behind `tail`, overwritten by the next one; perhaps a next chunk, which the next one uses; perhaps a parcel that no record names |
//! | producer, after                          | a whole record                                   |
//! | consumer, before it stores `head`        | nothing happened, but for its claim (below)      |
//! | consumer, after                          | the record is gone with it; perhaps its parcel or an emptied chunk is left over |
//!
//! So the state is valid as it stands. The next holder of a lock that a dead process held sees to
//! the left-overs: with both locks held, every block of the queue that is neither in the chain
//! between `head` and `tail`, nor named by a record there, nor the spare chunk, nor a page of the tables of
//! `watch` and `tally`, is freed.
//!
//! # Claims
//!
//! A pool worker must not take a task without a trace. [`ByteQueue::get_claimed`] writes the
//! first word of the record into the worker's claim word before it stores `head`. Killed in
//! between, the record is still in the queue and the claim is wrong. Therefore the header says
//! which claim word is being written (`claim_block`, `claim_at`) and at which count; the next
//! holder of the lock clears it if `head` has not moved.
//!
//! [`ByteQueue::get_claimed`]: super::bytes::ByteQueue::get_claimed
#![allow(unsafe_code)] // Listed in SAFETY.md.

use crate::primitive::{AtomicU32, AtomicU64};
use crate::shm::{RobustLock, ShmSafe};
use crate::sync::event_count::EventCount;

/// Bytes of a chunk: one unit of the arena, so that a chunk is named by its unit.
pub(super) const CHUNK: u64 = 64 << 10;
/// Where a chunk names the next one.
pub(super) const NEXT: u64 = 0;
/// Where a chunk keeps its own handle.
pub(super) const OWN: u64 = 8;
/// Where the first record of a chunk is.
pub(super) const FIRST_RECORD: u64 = 16;
/// Longer messages get a block of their own and are not copied again.
pub(super) const INLINE_MAX: usize = 8 << 10;

const COUNT_BITS: u32 = 29;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// More records than this cannot be told apart by their count.
pub(super) const MOST_RECORDS: u64 = COUNT_MASK - 1;

/// A place in the chain, and how many records are before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Unit of the chunk, 0 for none yet.
    pub(super) unit: u64,
    /// Offset in the chunk, in bytes.
    pub(super) at: u64,
    /// Number of records before, modulo 2²⁹.
    pub(super) count: u64,
}

impl Position {
    pub(super) fn unpack(word: u64) -> Self {
        let at = (word >> COUNT_BITS & 0x1FFF) * 8;
        Self { unit: word >> 42, at, count: word & COUNT_MASK }
    }

    pub(super) fn pack(self) -> u64 {
        self.unit << 42 | (self.at / 8) << COUNT_BITS | self.count & COUNT_MASK
    }

    /// How many records lie between `head` and this.
    pub(super) fn since(self, head: Self) -> u64 {
        self.count.wrapping_sub(head.count) & COUNT_MASK
    }

    /// The same place in the chain, `records` further on and `bytes` behind.
    pub(super) fn behind(self, bytes: u64, records: u64) -> Self {
        Self { at: self.at + bytes, count: (self.count + records) & COUNT_MASK, ..self }
    }

    /// The offset in the arena.
    pub(super) fn offset(self) -> u64 {
        self.unit * CHUNK + self.at
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Inline,
    Block,
    Jump,
}

/// The word before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: RecordKind,
    pub(super) len: usize,
}

impl RecordHeader {
    pub(super) fn unpack(word: u64) -> Self {
        let kind = match word >> 32 & 3 {
            0 => RecordKind::Inline,
            1 => RecordKind::Block,
            _ => RecordKind::Jump,
        };
        Self { kind, len: word as u32 as usize }
    }

    pub(super) fn pack(self) -> u64 {
        let kind = match self.kind {
            RecordKind::Inline => 0,
            RecordKind::Block => 1,
            RecordKind::Jump => 2,
        };
        kind << 32 | self.len as u64
    }

    /// Bytes of the record with this header.
    pub(super) fn size(self) -> u64 {
        8 + (self.len as u64).next_multiple_of(8)
    }
}

/// The header object of a queue. Each side's words have cache lines of their own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct QueueState {
    pub(super) settings: Settings,
    pub(super) put: PutSide,
    pub(super) got: GetSide,
    pub(super) waiting_for_items: Padded,
    pub(super) waiting_for_room: Padded,
}

/// Written once or seldom.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Settings {
    /// The most records at a time; 0 means as many as memory allows.
    pub(super) max_items: AtomicU64,
    /// 1 after `close`.
    pub(super) closed: AtomicU32,
    /// 1 while left-overs of a dead process wait to be freed.
    pub(super) littered: AtomicU32,
    /// Handle of an empty chunk kept for the next use, 0 for none.
    pub(super) spare: AtomicU64,
    /// Unit of the first chunk, for a consumer that comes before any other.
    pub(super) first: AtomicU64,
    /// Handle of the table of descriptors, see `watch`; 0 while nobody has asked for one.
    pub(super) watched: AtomicU64,
    /// Handle of the table of what is unfinished, see `tally`; 0 if the queue does not count.
    pub(super) tally: AtomicU64,
}

/// The words of the producers.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct PutSide {
    pub(super) lock: RobustLock,
    pub(super) tail: AtomicU64,
    /// The head as a producer saw it last. It is behind the real one, so there is at least as
    /// much room; producers look at the consumers' cache line only when that is not enough.
    pub(super) seen_head: AtomicU64,
}

/// The words of the consumers.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct GetSide {
    pub(super) lock: RobustLock,
    pub(super) head: AtomicU64,
    /// The tail as a consumer saw it last, for the same reason.
    pub(super) seen_tail: AtomicU64,
    pub(super) claim_block: AtomicU64,
    pub(super) claim_at: AtomicU64,
    pub(super) claim_count: AtomicU64,
}

/// An event count on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Padded(pub(super) EventCount);

// SAFETY: atomics and types made of atomics only, in `repr(C)` and aligned to 64 bytes; zero is an
// empty queue, and every value of every word is handled or, for positions, written under a lock
// by this module alone.
unsafe impl ShmSafe for QueueState {
    const TAG: u32 = u32::from_le_bytes(*b"queu");
}

/// A word in the arena that says which record a process has taken and not finished.
///
/// Zero means none. See [`ByteQueue::get_claimed`](super::bytes::ByteQueue::get_claimed).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ClaimWord(pub(super) AtomicU64);

impl ClaimWord {
    /// The first word of the claimed record, 0 for none.
    pub(crate) fn load(&self) -> u64 {
        self.0.load(crate::primitive::Ordering::SeqCst)
    }

    /// Says that the claimed record has been dealt with.
    pub(crate) fn clear(&self) {
        self.0.store(0, crate::primitive::Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn position_survives_packing(unit in 0u64..1 << 22, step in 0u64..1 << 13, count in 0..=COUNT_MASK) {
            let position = Position { unit, at: step * 8, count };
            prop_assert_eq!(Position::unpack(position.pack()), position);
        }

        #[test]
        fn distance_is_right_across_the_wrap(before in 0..=COUNT_MASK, records in 0..=MOST_RECORDS) {
            let head = Position { unit: 1, at: 16, count: before };
            prop_assert_eq!(head.behind(0, records).since(head), records);
        }
    }
}
