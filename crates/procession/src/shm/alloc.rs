//! The blocks of an arena: allocating and freeing them, and finding the one that a handle names.

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::arena::Arena;
use crate::shm::error::ArenaError;
use crate::shm::layout::{
    CLASSES, LARGEST_SMALL, SPAN_HEADER, UNIT, blocks_in_span, class_of, first_block, header,
};
use crate::shm::robust::Taken;
use crate::shm::runs::{BINS, NoRun, Runs, Use};
use crate::shm::spans::{Hint, Span};
use crate::shm::word::{Handle, Kind, Owner, State, first_generation};

/// Freed blocks keep up to this many bytes of pages for the next user: writing to fresh pages
/// is some twenty times slower than to warm ones.
const WARM_BYTES: u64 = 160 << 20;
/// And no more than one part in this many of what may be in use.
const WARM_PART: u64 = 16;

/// A block found in the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) state: &'a AtomicU64,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The span that the block lies in; `None` for a large block.
    span: Option<(Span<'a>, usize)>,
}

impl Arena {
    /// A block of at least `len` bytes. What it holds is left over from its last user.
    ///
    /// # Errors
    ///
    /// [`ArenaError::OutOfMemory`] when it would go over the limit.
    pub(crate) fn alloc(&self, len: usize, owner: Owner) -> Result<Handle, ArenaError> {
        if let Owner::Block(parent) = owner {
            self.mark_parent(parent)?;
        }
        let len = len.max(1) as u64;
        let full = |_| self.out_of_memory(len);
        if len <= LARGEST_SMALL {
            return self.alloc_small(class_of(len), owner).map_err(full);
        }
        let units = len.div_ceil(UNIT) as usize;
        let (unit, state) = self.take_run(units, owner).map_err(full)?;
        Ok(Handle::new(unit as u64 * UNIT, state.generation))
    }

    fn out_of_memory(&self, requested: u64) -> ArenaError {
        let runs = self.runs();
        ArenaError::OutOfMemory {
            requested,
            used: runs.used() as u64 * UNIT,
            limit: runs.limit as u64 * UNIT,
        }
    }

    /// How many bytes the block can hold.
    #[cfg(test)]
    pub(crate) fn capacity(&self, handle: Handle) -> Result<usize, ArenaError> {
        Ok(self.place(handle)?.size as usize)
    }

    /// Hands a block that this process owns to another owner.
    pub(crate) fn give(&self, handle: Handle, to: Owner) -> Result<(), ArenaError> {
        if let Owner::Block(parent) = to {
            self.mark_parent(parent)?;
        }
        let place = self.place(handle)?;
        let state = State::unpack(place.state.load(Ordering::Acquire));
        let given = State { kind: to.into(), ..state };
        self.change(place, handle, state, given)
    }

    pub(super) fn change(
        &self,
        place: Place<'_>,
        handle: Handle,
        from: State,
        to: State,
    ) -> Result<(), ArenaError> {
        place
            .state
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| ())
            .map_err(|_| ArenaError::Stale { handle })
    }

    /// Finds the block that `handle` names, if it is still that block.
    pub(super) fn place(&self, handle: Handle) -> Result<Place<'_>, ArenaError> {
        let stale = ArenaError::Stale { handle };
        let offset = handle.offset();
        let unit = (offset / UNIT) as usize;
        if handle.is_none() || unit < self.layout.first_unit || unit >= self.layout.units {
            return Err(stale);
        }
        let run = self.runs().at(unit);
        let place = match run.usage() {
            Some(Use::Large) if offset.is_multiple_of(UNIT) => self.large(unit, run.len),
            Some(Use::Span(class)) => self.small(unit, class, offset).ok_or(stale)?,
            _ => return Err(stale),
        };
        let state = State::unpack(place.state.load(Ordering::Acquire));
        if state.is_free() || state.generation != handle.generation() {
            return Err(ArenaError::Stale { handle });
        }
        Ok(place)
    }

    fn large(&self, unit: usize, len: usize) -> Place<'_> {
        let state = self.memory.word(self.layout.states_at + 8 * unit as u64);
        Place { state, offset: unit as u64 * UNIT, size: len as u64 * UNIT, span: None }
    }

    fn small(&self, unit: usize, class: usize, offset: u64) -> Option<Place<'_>> {
        let blocks = blocks_in_span(class);
        let inside = (offset % UNIT).checked_sub(first_block(blocks))?;
        let index = inside / CLASSES[class];
        if inside % CLASSES[class] != 0 || index >= blocks {
            return None;
        }
        Some(self.small_at(unit, class, index as usize))
    }

    fn small_at(&self, unit: usize, class: usize, index: usize) -> Place<'_> {
        let span = self.span(unit, class);
        let first = unit as u64 * UNIT + first_block(span.states.len() as u64);
        let offset = first + index as u64 * CLASSES[class];
        Place {
            state: &span.states[index],
            offset,
            size: CLASSES[class],
            span: Some((span, index)),
        }
    }

    fn span(&self, unit: usize, class: usize) -> Span<'_> {
        let base = unit as u64 * UNIT;
        Span {
            states: self.memory.words(base + SPAN_HEADER, blocks_in_span(class) as usize),
            cursor: self.memory.word(base),
            hint: self.hint(unit, class),
        }
    }

    fn hint(&self, unit: usize, class: usize) -> Hint<'_> {
        let word = self.layout.hints_of_class(class) + 8 * (unit as u64 / 64);
        Hint { word: self.memory.word(word), mask: 1 << (unit % 64) }
    }

    fn alloc_small(&self, class: usize, owner: Owner) -> Result<Handle, NoRun> {
        loop {
            if let Some(handle) = self.take_small(class, owner) {
                return Ok(handle);
            }
            self.make_span(class)?;
        }
    }

    fn take_small(&self, class: usize, owner: Owner) -> Option<Handle> {
        let top = self.runs().top.load(Ordering::Acquire).div_ceil(64) as usize;
        let words = self.memory.words(self.layout.hints_of_class(class), top);
        let hint = self.memory.word(header::CLASS_HINT + 64 * class as u64);
        let start = hint.load(Ordering::Relaxed) as usize % words.len().max(1);
        for at in (start..words.len()).chain(0..start) {
            let mut bits = words[at].load(Ordering::Acquire);
            while bits != 0 {
                let unit = at * 64 + bits.trailing_zeros() as usize;
                if let Some((index, state)) = self.span(unit, class).take(owner) {
                    if hint.load(Ordering::Relaxed) != at as u64 {
                        hint.store(at as u64, Ordering::Relaxed);
                    }
                    let place = self.small_at(unit, class, index);
                    return Some(Handle::new(place.offset, state.generation));
                }
                bits &= bits - 1;
            }
        }
        None
    }

    /// Adds a span of free blocks. Until its table word says "span" it is a large block of this
    /// process, so one that is killed on the way leaves nothing behind.
    fn make_span(&self, class: usize) -> Result<(), NoRun> {
        let (unit, _) = self.take_run(1, Owner::Member(self.me()))?;
        let epoch = self.memory.word(header::SPAN_EPOCH).fetch_add(1, Ordering::Relaxed);
        let span = self.span(unit, class);
        let kind = Kind::Free;
        let generation = first_generation(epoch);
        let fresh = State { kind, parcel: false, object: false, generation }.pack();
        span.cursor.store(0, Ordering::Relaxed);
        for word in span.states {
            word.store(fresh, Ordering::Relaxed);
        }
        let _lock = self.lock_runs();
        self.runs().make_span(unit, class);
        span.hint.set();
        Ok(())
    }

    pub(super) fn runs(&self) -> Runs<'_> {
        Runs {
            table: self.memory.words(self.layout.runs_at, self.layout.units),
            states: self.memory.words(self.layout.states_at, self.layout.units),
            first: self.layout.first_unit,
            limit: self.memory.word(header::LIMIT).load(Ordering::Relaxed) as usize,
            top: self.memory.word(header::TOP),
            warm: self.memory.word(header::WARM),
            cold: self.memory.word(header::COLD),
            bins: self.memory.words(header::BIN, BINS),
        }
    }

    pub(super) fn lock_runs(&self) -> Taken<'_> {
        let taken = self.lock_at(header::RUNS_LOCK).lock(self);
        if taken.owner_died.is_some() {
            self.runs().recover();
        }
        taken
    }

    fn take_run(&self, units: usize, owner: Owner) -> Result<(usize, State), NoRun> {
        let _lock = self.lock_runs();
        self.runs().take(units, Use::Large, owner, |first, len| {
            self.memory.give_back(first as u64 * UNIT, len as u64 * UNIT)
        })
    }

    /// Gives the memory of a block back that this process owns. `handle` is stale afterwards.
    pub(super) fn release(&self, place: Place<'_>) {
        let state = State::unpack(place.state.load(Ordering::Acquire));
        match place.span {
            Some((span, index)) => {
                // False only if another thread frees the same block, which then has done it.
                span.release(index, state);
            }
            None => self.release_run(place),
        }
    }

    fn release_run(&self, place: Place<'_>) {
        let unit = (place.offset / UNIT) as usize;
        let warm = self.runs().warm.load(Ordering::Relaxed) * UNIT;
        let most = WARM_BYTES.min(self.runs().limit as u64 * UNIT / WARM_PART);
        let keep = warm + place.size <= most || !self.memory.give_back(place.offset, place.size);
        let _lock = self.lock_runs();
        self.runs().release(unit, keep);
    }

    /// The blocks that belong to an object.
    pub(crate) fn children_of(&self, object: Handle) -> Vec<Handle> {
        self.blocks_of(Owner::Block(object).into())
    }

    /// The blocks that `owner` owns.
    pub(super) fn blocks_of(&self, owner: Kind) -> Vec<Handle> {
        let mut found = Vec::new();
        // With the lock the runs stand still, so that none is missed.
        let _lock = self.lock_runs();
        self.for_each_block(|_, handle, state| {
            if state.kind == owner {
                found.push(handle);
            }
        });
        found
    }

    /// Calls `visit` for each block in use.
    pub(super) fn for_each_block(&self, mut visit: impl FnMut(Place<'_>, Handle, State)) {
        for run in self.runs().iter() {
            match run.usage() {
                Some(Use::Large) => report(self.large(run.first, run.len), &mut visit),
                Some(Use::Span(class)) => {
                    for index in 0..blocks_in_span(class) as usize {
                        report(self.small_at(run.first, class, index), &mut visit);
                    }
                }
                None => {}
            }
        }
    }

    /// Sets the hint of every span that has a free block: one whose releaser was killed may lack
    /// it.
    pub(super) fn restore_hints(&self) {
        for run in self.runs().iter() {
            if let Some(Use::Span(class)) = run.usage() {
                let span = self.span(run.first, class);
                if span.has_free() {
                    span.hint.set();
                }
            }
        }
    }

    /// Gives all memory that is not in use back to the system.
    ///
    /// Freed blocks keep their pages for a while, since warm pages are much faster to write; this
    /// is for a program that knows it will not need as much again. The arena does it by itself
    /// before it refuses a block.
    pub fn trim(&self) {
        for run in self.runs().iter() {
            if let Some(Use::Span(class)) = run.usage() {
                self.trim_span(run.first, class);
            }
        }
        let _lock = self.lock_runs();
        self.runs()
            .cool(&mut |first, len| self.memory.give_back(first as u64 * UNIT, len as u64 * UNIT));
    }

    /// Gives the pages of a span back if none of its blocks is in use. It stays a span, so that
    /// a process that has just looked at it never takes other data for its state words.
    fn trim_span(&self, unit: usize, class: usize) {
        let span = self.span(unit, class);
        if !span.take_whole(Owner::Member(self.me())) {
            return;
        }
        let base = unit as u64 * UNIT;
        let blocks = first_block(span.states.len() as u64).next_multiple_of(4096);
        self.memory.give_back(base + blocks, UNIT - blocks);
        for (index, word) in span.states.iter().enumerate() {
            span.release(index, State::unpack(word.load(Ordering::Relaxed)));
        }
    }

    /// Where a block begins.
    pub(crate) fn offset_of(&self, handle: Handle) -> Result<u64, ArenaError> {
        Ok(self.place(handle)?.offset)
    }

    /// The block in use that contains `offset`.
    pub(crate) fn block_around(&self, offset: u64) -> Option<Handle> {
        let unit = (offset / UNIT) as usize;
        let run = self.runs().at(unit);
        let Some(Use::Span(class)) = run.usage() else { return None };
        let first = unit as u64 * UNIT + first_block(blocks_in_span(class));
        let index = offset.checked_sub(first)? / CLASSES[class];
        let place = self.small_at(unit, class, index as usize);
        let state = State::unpack(place.state.load(Ordering::Acquire));
        (!state.is_free()).then(|| Handle::new(place.offset, state.generation))
    }
}

fn report(place: Place<'_>, visit: &mut impl FnMut(Place<'_>, Handle, State)) {
    let state = State::unpack(place.state.load(Ordering::Acquire));
    if !state.is_free() {
        visit(place, Handle::new(place.offset, state.generation), state);
    }
}
