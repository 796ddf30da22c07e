//! Reference counts that survive a death in the middle of a change.
//!
//! An object begins with one word: its count (bits 44–63), and which process changed it last
//! (slot, bits 32–43) with which of its changes (sequence number, bits 0–31). A reference is held
//! by a *place*: a word in the arena that contains the object's handle while it counts. Places
//! are in the ledger of a process or in a parcel, so that they are found when their owner dies.
//!
//! A change has three steps, under the lock in the process's slot:
//!
//! 1. write down the intent in the slot: target, place, and then kind with a new sequence number;
//! 2. change the count by compare-and-swap, leaving slot and sequence number in the word;
//! 3. write or clear the place, and clear the intent.
//!
//! Whoever buries a process with an intent must know whether step 2 happened. It did if the word
//! still names that change. If somebody has changed the count since, that one has, before its own
//! compare-and-swap, raised `OP_DONE` in the slot of the change it replaced. So: done if the word
//! or `OP_DONE` says so, else not done, and the dead can no longer do it.
//!
//! | died                | the burial                                                      |
//! |---------------------|-----------------------------------------------------------------|
//! | before step 2       | forgets the intent                                              |
//! | between 2 and 3     | writes (clears) the place; a count of 0 makes the object the dead process's, and it is freed with its blocks |
//! | within or after 3   | the same again, which changes nothing                           |

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::layout::slot;
use crate::shm::robust::Taken;
use crate::shm::word::{Handle, Kind, Member, Owner, State};

/// Bytes before the value of an object: the count, and flags.
pub(super) const OBJECT_HEADER: u64 = 64;
const FLAGS: u64 = 8;
/// What type of object it is.
pub(super) const TAG: u64 = 16;
/// How many bytes of data lie behind the value.
pub(super) const LENGTH: u64 = 24;
const HAS_CHILDREN: u64 = 1;

const ACQUIRE: u64 = 1;
const RELEASE: u64 = 2;

const MOST_REFERENCES: u64 = (1 << 20) - 1;

/// A count together with the change that brought it about.
#[derive(Debug, Clone, Copy)]
struct Count {
    references: u64,
    slot: usize,
    sequence: u32,
}

impl Count {
    fn unpack(word: u64) -> Self {
        Self { references: word >> 44, slot: (word >> 32) as usize & 0xFFF, sequence: word as u32 }
    }

    fn pack(self) -> u64 {
        self.references << 44 | (self.slot as u64) << 32 | u64::from(self.sequence)
    }
}

/// A written intent; step 3 clears it.
struct Intent<'a> {
    op: &'a AtomicU64,
    sequence: u32,
    _lock: Taken<'a>,
}

impl Intent<'_> {
    fn clear(self) {
        self.op.store(u64::from(self.sequence) << 8, Ordering::Release);
    }
}

impl Arena {
    fn begin(&self, kind: u64, target: Handle, place: u64) -> Intent<'_> {
        let at = self.me().slot();
        let lock = self.lock_at(self.slot_at(at) + slot::OP_LOCK).lock(self);
        let op = self.slot_word(at, slot::OP);
        let sequence = ((op.load(Ordering::Relaxed) >> 8) as u32).wrapping_add(1);
        self.slot_word(at, slot::OP_TARGET).store(target.raw(), Ordering::Relaxed);
        self.slot_word(at, slot::OP_PLACE).store(place, Ordering::Relaxed);
        op.store(u64::from(sequence) << 8 | kind, Ordering::Release);
        Intent { op, sequence, _lock: lock }
    }

    /// Puts `change`d references into the count at `word`; `None` leaves it as it is.
    fn count(
        &self,
        word: &AtomicU64,
        sequence: u32,
        change: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        let slot = self.me().slot();
        loop {
            let seen = word.load(Ordering::Acquire);
            let old = Count::unpack(seen);
            let references = change(old.references)?;
            self.tell_done(old);
            let new = Count { references, slot, sequence }.pack();
            if word.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(references);
            }
        }
    }

    /// Records that the change in `count` happened, as it is about to be overwritten.
    fn tell_done(&self, count: Count) {
        let done = self.slot_word(count.slot, slot::OP_DONE);
        let mut seen = done.load(Ordering::Acquire);
        while (count.sequence.wrapping_sub(seen as u32) as i32) > 0 {
            let new = u64::from(count.sequence);
            match done.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Lets `place` hold a reference to the object.
    pub(super) fn acquire(&self, object: Handle, place: u64) -> Result<(), ArenaError> {
        let found = self.object_place(object)?;
        let intent = self.begin(ACQUIRE, object, place);
        let word = self.memory.word(found);
        let more = |references| (1..MOST_REFERENCES).contains(&references).then(|| references + 1);
        if self.count(word, intent.sequence, more).is_none() {
            intent.clear();
            let gone = Count::unpack(word.load(Ordering::Relaxed)).references == 0;
            return Err(if gone {
                ArenaError::Stale { handle: object }
            } else {
                ArenaError::TooManyReferences
            });
        }
        self.memory.word(place).store(object.raw(), Ordering::Release);
        intent.clear();
        Ok(())
    }

    /// Lets go of the reference in `place`, and frees the object if it was the last.
    pub(super) fn let_go(&self, object: Handle, place: u64) {
        let Ok(found) = self.object_place(object) else {
            self.memory.word(place).store(0, Ordering::Release);
            return;
        };
        let intent = self.begin(RELEASE, object, place);
        let fewer = |references: u64| references.checked_sub(1);
        let left = self.count(self.memory.word(found), intent.sequence, fewer);
        let last = left == Some(0) && self.claim_object(object, self.me());
        self.memory.word(place).store(0, Ordering::Release);
        intent.clear();
        if last {
            self.free_for(object, self.me());
        }
    }

    /// Where the object begins.
    fn object_place(&self, object: Handle) -> Result<u64, ArenaError> {
        let place = self.place(object)?;
        let state = State::unpack(place.state.load(Ordering::Acquire));
        if state.kind == Kind::Shared {
            Ok(place.offset)
        } else {
            Err(ArenaError::Stale { handle: object })
        }
    }

    /// Makes `member` the owner of an object that nobody refers to any more.
    fn claim_object(&self, object: Handle, member: Member) -> bool {
        let Ok(place) = self.place(object) else { return false };
        let state = State::unpack(place.state.load(Ordering::Acquire));
        let claimed = State { kind: Kind::OfMember(member), ..state };
        state.kind == Kind::Shared && self.change(place, object, state, claimed).is_ok()
    }

    /// Makes the block, which this process owns, an object held by `place` alone. The type tag
    /// and the value behind the header are in place.
    pub(super) fn make_object(&self, block: Handle, place: u64) -> Result<(), ArenaError> {
        let found = self.place(block)?;
        let at = self.me().slot();
        let latest = (self.slot_word(at, slot::OP).load(Ordering::Relaxed) >> 8) as u32;
        // Another thread may be in the middle of the latest change; the one before is done.
        let sequence = latest.wrapping_sub(1);
        let count = Count { references: 1, slot: at, sequence };
        self.memory.word(found.offset).store(count.pack(), Ordering::Relaxed);
        self.memory.word(found.offset + FLAGS).store(0, Ordering::Relaxed);
        // A place that names a block which is no object yet counts for nothing.
        self.memory.word(place).store(block.raw(), Ordering::Release);
        let state = State::unpack(found.state.load(Ordering::Acquire));
        let object = State { kind: Kind::Shared, object: true, ..state };
        self.change(found, block, state, object)
    }

    /// Notes that blocks belong to this object, so that they are looked for when it goes.
    pub(super) fn mark_parent(&self, object: Handle) -> Result<(), ArenaError> {
        let flags = self.memory.word(self.place(object)?.offset + FLAGS);
        if flags.load(Ordering::Relaxed) & HAS_CHILDREN == 0 {
            flags.fetch_or(HAS_CHILDREN, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Frees a block that this process or an object owns, with all that belongs to it.
    pub(crate) fn free(&self, handle: Handle) {
        let me = self.me();
        let Ok(place) = self.place(handle) else { return };
        let state = State::unpack(place.state.load(Ordering::Acquire));
        if let Kind::OfBlock(_) = state.kind {
            let mine = State { kind: Kind::OfMember(me), ..state };
            if self.change(place, handle, state, mine).is_err() {
                return;
            }
        }
        self.free_for(handle, me);
    }

    /// Frees a block of `owner`, which is this process or one that it buries. Killed at any point
    /// in here, the next burial does the rest.
    pub(super) fn free_for(&self, handle: Handle, owner: Member) {
        let Ok(place) = self.place(handle) else { return };
        let state = State::unpack(place.state.load(Ordering::Acquire));
        if state.kind != Kind::OfMember(owner) {
            return;
        }
        if state.parcel {
            self.empty_parcel(handle);
        }
        let flags = self.memory.word(place.offset + FLAGS);
        if state.object && flags.load(Ordering::Acquire) & HAS_CHILDREN != 0 {
            for child in self.children_of(handle) {
                self.free(child);
            }
        }
        self.release(place);
    }

    /// Completes or forgets the change that a dead process was making.
    pub(super) fn finish_op_of(&self, dead: Member) {
        let at = dead.slot();
        let op = self.slot_word(at, slot::OP);
        let word = op.load(Ordering::Acquire);
        let (kind, sequence) = (word & 0xFF, (word >> 8) as u32);
        if kind == 0 {
            return;
        }
        let target = Handle::from_raw(self.slot_word(at, slot::OP_TARGET).load(Ordering::Acquire));
        let place = self.slot_word(at, slot::OP_PLACE).load(Ordering::Acquire);
        let done = self.was_done(target, at, sequence);
        match kind {
            ACQUIRE if done => self.memory.word(place).store(target.raw(), Ordering::Release),
            RELEASE if done => {
                let unused = self.object_place(target).is_ok_and(|found| {
                    Count::unpack(self.memory.word(found).load(Ordering::Acquire)).references == 0
                });
                if unused {
                    self.claim_object(target, dead);
                }
                self.memory.word(place).store(0, Ordering::Release);
            }
            _ => {}
        }
        op.store(u64::from(sequence) << 8, Ordering::Release);
    }

    fn was_done(&self, target: Handle, slot: usize, sequence: u32) -> bool {
        // The word first: a change that replaces it raises `OP_DONE` before.
        let in_word = self.object_place(target).is_ok_and(|found| {
            let count = Count::unpack(self.memory.word(found).load(Ordering::Acquire));
            count.slot == slot && count.sequence == sequence
        });
        let done = self.slot_word(slot, slot::OP_DONE).load(Ordering::Acquire) as u32;
        in_word || done.wrapping_sub(sequence) as i32 >= 0
    }
}

/// The ledger of a process: blocks full of places.
mod ledger {
    use super::*;

    /// Bytes of a ledger block: enough for nearly every process.
    const BLOCK: usize = 32_704;
    const ENTRIES: usize = BLOCK / 8 - 1;

    impl Arena {
        /// Offset of entry `index` of the ledger of `member`, if the ledger is that long.
        fn entry_at(&self, member: Member, index: usize) -> Option<u64> {
            let mut block = self.ledger_head(member);
            for _ in 0..index / ENTRIES {
                block = self.next_block(block)?;
            }
            let place = self.place(block).ok()?;
            Some(place.offset + 8 + 8 * (index % ENTRIES) as u64)
        }

        fn ledger_head(&self, member: Member) -> Handle {
            let word = self.slot_word(member.slot(), slot::LEDGER);
            Handle::from_raw(word.load(Ordering::Acquire))
        }

        fn next_block(&self, block: Handle) -> Option<Handle> {
            let offset = self.place(block).ok()?.offset;
            let next = Handle::from_raw(self.memory.word(offset).load(Ordering::Acquire));
            (!next.is_none()).then_some(next)
        }

        fn ledger_blocks(&self, member: Member) -> Vec<Handle> {
            let head = self.ledger_head(member);
            let first = (!head.is_none()).then_some(head);
            std::iter::successors(first, |block| self.next_block(*block)).collect()
        }

        /// A place in the ledger of this process, set aside with [`RESERVED`]: its index.
        fn reserve_entry(&self) -> Result<usize, ArenaError> {
            let me = self.me();
            let cursor = self.slot_word(me.slot(), slot::CURSOR);
            loop {
                let blocks = self.ledger_blocks(me);
                let len = blocks.len() * ENTRIES;
                let start = cursor.load(Ordering::Relaxed) as usize;
                let start = if start < len { start } else { 0 };
                for index in (start..len).chain(0..start) {
                    let block = self.place(blocks[index / ENTRIES])?;
                    let place = block.offset + 8 + 8 * (index % ENTRIES) as u64;
                    let word = self.memory.word(place);
                    if word.load(Ordering::Relaxed) == 0
                        && word
                            .compare_exchange(0, RESERVED, Ordering::AcqRel, Ordering::Relaxed)
                            .is_ok()
                    {
                        cursor.store(index as u64 + 1, Ordering::Relaxed);
                        return Ok(index);
                    }
                }
                self.add_ledger_block(me)?;
            }
        }

        /// Appends an empty block to the ledger of `member`: this process, or a child that is
        /// about to be its copy.
        fn add_ledger_block(&self, member: Member) -> Result<(), ArenaError> {
            let block = self.alloc(BLOCK, Owner::Member(member))?;
            let place = self.place(block)?;
            self.memory.zero(place.offset, BLOCK as u64);
            let lock = self.lock_at(self.slot_at(member.slot()) + slot::OP_LOCK).lock(self);
            let tail = match self.ledger_blocks(member).last() {
                Some(last) => self.memory.word(self.place(*last)?.offset),
                None => self.slot_word(member.slot(), slot::LEDGER),
            };
            tail.store(block.raw(), Ordering::Release);
            drop(lock);
            Ok(())
        }

        /// Makes the block an object that this process holds; the index of its ledger entry.
        pub(in crate::shm) fn adopt_object(&self, block: Handle) -> Result<usize, ArenaError> {
            let index = self.reserve_entry()?;
            let place = self.own_entry(index)?;
            self.make_object(block, place)?;
            Ok(index)
        }

        /// Adds a reference to the object to this process's ledger.
        pub(in crate::shm) fn hold(&self, object: Handle) -> Result<usize, ArenaError> {
            let index = self.reserve_entry()?;
            let place = self.own_entry(index)?;
            if let Err(error) = self.acquire(object, place) {
                self.memory.word(place).store(0, Ordering::Release);
                return Err(error);
            }
            Ok(index)
        }

        fn own_entry(&self, index: usize) -> Result<u64, ArenaError> {
            let missing = ArenaError::Stale { handle: Handle::NONE };
            self.entry_at(self.me(), index).ok_or(missing)
        }

        /// Drops the reference in entry `index`, which `holder` made: this process, or one that
        /// it is a forked copy of.
        pub(in crate::shm) fn drop_held(&self, object: Handle, index: usize, holder: Member) {
            let me = self.me();
            if holder != me && !self.descends_from(me, holder) {
                return;
            }
            let Some(place) = self.entry_at(me, index) else { return };
            if self.memory.word(place).load(Ordering::Acquire) == object.raw() {
                self.slot_word(me.slot(), slot::CURSOR).store(index as u64, Ordering::Relaxed);
                self.let_go(object, place);
            }
        }

        fn descends_from(&self, member: Member, ancestor: Member) -> bool {
            (0..slot::LINEAGE_LEN).any(|at| {
                let word = self.slot_word(member.slot(), slot::LINEAGE + 8 * at as u64);
                word.load(Ordering::Relaxed) == u64::from(ancestor.raw())
            })
        }

        /// Gives `child` every reference that this process holds, at the same places of its
        /// ledger, as a forked copy of this process will hold them.
        pub(crate) fn copy_references_to(&self, child: Member) -> Result<(), ArenaError> {
            let me = self.me();
            self.copy_lineage(me, child);
            for (number, block) in self.ledger_blocks(me).into_iter().enumerate() {
                self.add_ledger_block(child)?;
                let from = self.place(block)?.offset;
                for entry in 0..ENTRIES {
                    let held =
                        self.memory.word(from + 8 + 8 * entry as u64).load(Ordering::Acquire);
                    if held == 0 || held == RESERVED {
                        continue;
                    }
                    let index = number * ENTRIES + entry;
                    if let Some(place) = self.entry_at(child, index) {
                        // An object that another thread has dropped meanwhile is not the
                        // child's either.
                        let _ = self.acquire(Handle::from_raw(held), place);
                    }
                }
            }
            Ok(())
        }

        fn copy_lineage(&self, me: Member, child: Member) {
            let line = |member: Member, at: usize| {
                self.slot_word(member.slot(), slot::LINEAGE + 8 * at as u64)
            };
            line(child, 0).store(u64::from(me.raw()), Ordering::Relaxed);
            for at in 1..slot::LINEAGE_LEN {
                let older = line(me, at - 1).load(Ordering::Relaxed);
                line(child, at).store(older, Ordering::Relaxed);
            }
        }

        /// Drops every reference in the ledger of a dead process.
        pub(in crate::shm) fn drop_ledger_of(&self, dead: Member) {
            for block in self.ledger_blocks(dead) {
                let Ok(place) = self.place(block) else { continue };
                for entry in 0..ENTRIES as u64 {
                    let at = place.offset + 8 + 8 * entry;
                    let held = self.memory.word(at).load(Ordering::Acquire);
                    if held != 0 && held != RESERVED {
                        self.let_go(Handle::from_raw(held), at);
                    }
                }
            }
        }
    }

    /// An entry that a thread is about to fill. No handle has this value: generations are not 0.
    const RESERVED: u64 = 1;
}
