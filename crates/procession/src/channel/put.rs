//! Appending to a queue.

use crate::channel::bytes::ByteQueue;
use crate::channel::state::{
    CHUNK, FIRST_RECORD, INLINE_MAX, NEXT, OWN, Position, RecordHeader, RecordKind,
};
use crate::channel::watch::Locked;
use crate::primitive::Ordering;
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins};

/// The body of a message on its way into a record.
pub(super) enum Body<'a> {
    Inline(&'a [u8]),
    Parcel(ParcelGuard<'a>),
}

/// Frees a parcel unless it was handed to the queue.
pub(super) struct ParcelGuard<'a> {
    arena: &'a Arena,
    handle: Handle,
}

impl Drop for ParcelGuard<'_> {
    fn drop(&mut self) {
        if !self.handle.is_none() {
            self.arena.free(self.handle);
        }
    }
}

/// The lock of the producers is held.
impl ByteQueue {
    pub(super) fn body<'a>(
        arena: &'a Arena,
        parts: &[&'a [u8]],
        pins: &Pins,
    ) -> Result<Body<'a>, ArenaError> {
        if let [payload] = parts
            && payload.len() <= INLINE_MAX
            && pins.is_empty()
        {
            return Ok(Body::Inline(payload));
        }
        let handle = arena.store_parcel(parts, pins, Owner::Member(arena.me()))?;
        Ok(Body::Parcel(ParcelGuard { arena, handle }))
    }

    /// Writes a record at `tail`, where nobody looks before it is published; returns the position
    /// behind it.
    pub(super) fn append(
        &self,
        arena: &Arena,
        tail: Position,
        body: &mut Body<'_>,
    ) -> Result<Position, ArenaError> {
        let header = match body {
            Body::Inline(payload) => RecordHeader { kind: RecordKind::Inline, len: payload.len() },
            Body::Parcel(_) => RecordHeader { kind: RecordKind::Block, len: 8 },
        };
        let at = self.make_room(arena, tail, header.size())?;
        let offset = at.offset();
        match body {
            Body::Inline(payload) => arena.write_at(offset + 8, payload),
            Body::Parcel(parcel) => {
                arena.give(parcel.handle, Owner::Block(self.state.handle()))?;
                arena.word_at(offset + 8).store(parcel.handle.raw(), Ordering::Relaxed);
                parcel.handle = Handle::NONE;
            }
        }
        arena.word_at(offset).store(header.pack(), Ordering::Relaxed);
        Ok(at.behind(header.size(), 1))
    }

    /// Lets consumers see what lies before `tail`. Descriptors say so first: a producer killed in
    /// between leaves one that is readable in vain, and never one that is not.
    pub(super) fn publish(&self, arena: &Arena, tail: Position, watched: Option<Locked<'_>>) {
        if let Some(watched) = &watched {
            watched.set(arena, true);
        }
        self.state.put.tail.store(tail.pack(), Ordering::SeqCst);
    }

    /// The place for a record of `size` bytes: at `tail`, or in the next chunk.
    fn make_room(&self, arena: &Arena, tail: Position, size: u64) -> Result<Position, ArenaError> {
        // A jump must fit behind the record.
        if tail.unit != 0 && tail.at + size + 8 <= CHUNK {
            return Ok(tail);
        }
        let link = if tail.unit == 0 {
            &self.state.settings.first
        } else {
            arena.word_at(tail.unit * CHUNK + NEXT)
        };
        // A producer that died may have linked a chunk already.
        let mut next = link.load(Ordering::Relaxed);
        if next == 0 {
            next = self.new_chunk(arena)?;
            link.store(next, Ordering::Release);
        }
        if tail.unit != 0 {
            let jump = RecordHeader { kind: RecordKind::Jump, len: 0 };
            arena.word_at(tail.offset()).store(jump.pack(), Ordering::Relaxed);
        }
        Ok(Position { unit: next, at: FIRST_RECORD, count: tail.count })
    }

    /// An empty chunk, as the number of its unit.
    fn new_chunk(&self, arena: &Arena) -> Result<u64, ArenaError> {
        let spare = self.state.settings.spare.swap(0, Ordering::AcqRel);
        let chunk = if spare == 0 {
            arena.alloc(CHUNK as usize, Owner::Block(self.state.handle()))?
        } else {
            Handle::from_raw(spare)
        };
        let offset = arena.offset_of(chunk)?;
        arena.word_at(offset + NEXT).store(0, Ordering::Relaxed);
        arena.word_at(offset + OWN).store(chunk.raw(), Ordering::Relaxed);
        Ok(offset / CHUNK)
    }
}
