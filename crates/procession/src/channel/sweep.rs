//! Cleaning up behind dead producers and consumers.

use std::collections::HashSet;

use crate::channel::bytes::ByteQueue;
use crate::channel::state::{CHUNK, NEXT, OWN, RecordKind};
use crate::primitive::Ordering;
use crate::shm::{Arena, Handle};

impl ByteQueue {
    /// Takes back a claim whose record was not consumed, and counts what was; the lock of the
    /// consumers is held, and the one before died with it.
    pub(super) fn repair_claim(&self) {
        let Ok(arena) = Arena::current() else { return };
        self.repair_tally();
        let got = &self.state.got;
        let block = Handle::from_raw(got.claim_block.swap(0, Ordering::AcqRel));
        let unconsumed = got.claim_count.load(Ordering::Relaxed) == self.head().count;
        // The claim word's own block may be gone with its pool.
        if unconsumed && arena.offset_of(block).is_ok() {
            arena.word_at(got.claim_at.load(Ordering::Relaxed)).store(0, Ordering::SeqCst);
        }
    }

    /// Frees the blocks of the queue that nothing in it leads to.
    #[cold]
    pub(super) fn sweep(&self, arena: &Arena) {
        // Always in this order, and nobody else holds one while taking the other.
        let _put = self.state.put.lock.lock(arena);
        let got = self.state.got.lock.lock(arena);
        if got.owner_died.is_some() {
            self.repair_claim();
        }
        let mut reachable = self.reachable(arena);
        reachable.insert(self.state.settings.spare.load(Ordering::Acquire));
        reachable.extend(self.table_pages().into_iter().map(Handle::raw));
        reachable.extend(self.tally_pages().into_iter().map(Handle::raw));
        for block in arena.children_of(self.state.handle()) {
            if !reachable.contains(&block.raw()) {
                arena.free(block);
            }
        }
        self.state.settings.littered.store(0, Ordering::SeqCst);
    }

    /// The handles of all chunks from the head on, and of all parcels in records.
    fn reachable(&self, arena: &Arena) -> HashSet<u64> {
        let mut found = HashSet::new();
        let mut chunk = |unit: u64| {
            found.insert(arena.word_at(unit * CHUNK + OWN).load(Ordering::Relaxed));
        };
        let head = self.head();
        let mut unit = match head.unit {
            0 => self.state.settings.first.load(Ordering::Acquire),
            unit => unit,
        };
        while unit != 0 {
            chunk(unit);
            unit = arena.word_at(unit * CHUNK + NEXT).load(Ordering::Acquire);
        }
        let mut at = head;
        for _ in 0..self.tail().since(head) {
            let (record, header) = self.record(arena, at);
            if header.kind == RecordKind::Block {
                found.insert(arena.word_at(record.offset() + 8).load(Ordering::Relaxed));
            }
            at = record.behind(header.size(), 1);
        }
        found
    }
}
