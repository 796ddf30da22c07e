//! Taking out of a queue.

use std::time::Instant;

use crate::channel::bytes::ByteQueue;
use crate::channel::error::GetError;
use crate::channel::message::Message;
use crate::channel::state::{
    CHUNK, ClaimWord, FIRST_RECORD, NEXT, OWN, Position, RecordHeader, RecordKind,
};
use crate::primitive::Ordering;
use crate::shm::{Arena, ArenaError, Handle, Owner};

/// A record that has been read and not yet consumed.
enum Read {
    Copied(Message),
    Parcel(Handle),
}

impl ByteQueue {
    pub(super) fn take_one(
        &self,
        arena: &Arena,
        claim: Option<&ClaimWord>,
        deadline: Option<Instant>,
    ) -> Result<Option<Message>, GetError> {
        let lock = self.lock_get(arena, deadline)?;
        let head = self.head();
        if self.items_for_get(head) == 0 {
            drop(lock);
            self.tell_emptiness(arena);
            return Ok(None);
        }
        let (read, behind) = self.read(arena, head)?;
        if let Some(claim) = claim {
            self.write_claim(arena, claim, head, &read)?;
        }
        let taking = self.begin_taking(arena, head)?;
        self.consume(arena, head, behind);
        if let Some(taking) = taking {
            taking.finish(1);
        }
        let message = self.receive(arena, read)?;
        drop(lock);
        self.tell_room(1);
        self.tell_emptiness(arena);
        Ok(Some(message))
    }

    pub(super) fn take_up_to(
        &self,
        arena: &Arena,
        max: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<Message>, GetError> {
        let lock = self.lock_get(arena, deadline)?;
        let head = self.head();
        let count = self.items_for_get(head).min(max as u64) as usize;
        let mut messages = Vec::with_capacity(count);
        let mut parcels = Vec::new();
        let mut behind = head;
        for index in 0..count {
            let read;
            (read, behind) = self.read(arena, behind)?;
            match read {
                Read::Copied(message) => messages.push(message),
                Read::Parcel(handle) => parcels.push((index, handle)),
            }
        }
        let taking = self.begin_taking(arena, head)?;
        self.consume(arena, head, behind);
        if let Some(taking) = taking {
            taking.finish(count as u64);
        }
        for (index, handle) in parcels {
            messages.insert(index, self.receive(arena, Read::Parcel(handle))?);
        }
        drop(lock);
        self.tell_room(count as u32);
        self.tell_emptiness(arena);
        Ok(messages)
    }

    pub(super) fn tell_room(&self, count: u32) {
        if self.state.settings.max_items.load(Ordering::Relaxed) != 0 && count > 0 {
            self.state.waiting_for_room.0.notify(count);
        }
    }

    /// Where the record that begins at `position`, or behind a jump there, really is.
    pub(super) fn record(&self, arena: &Arena, position: Position) -> (Position, RecordHeader) {
        let mut at = position;
        if at.unit == 0 {
            let first = self.state.settings.first.load(Ordering::Acquire);
            at = Position { unit: first, at: FIRST_RECORD, ..at };
        }
        loop {
            let header = RecordHeader::unpack(arena.word_at(at.offset()).load(Ordering::Relaxed));
            if header.kind != RecordKind::Jump {
                return (at, header);
            }
            let next = arena.word_at(at.unit * CHUNK + NEXT).load(Ordering::Acquire);
            at = Position { unit: next, at: FIRST_RECORD, ..at };
        }
    }

    fn read(&self, arena: &Arena, position: Position) -> Result<(Read, Position), ArenaError> {
        let (at, header) = self.record(arena, position);
        let body = at.offset() + 8;
        let read = match header.kind {
            RecordKind::Block => {
                Read::Parcel(Handle::from_raw(arena.word_at(body).load(Ordering::Relaxed)))
            }
            _ => Read::Copied(Message::copied(arena.bytes_at(body, header.len))),
        };
        Ok((read, at.behind(header.size(), 1)))
    }

    /// Moves the head from `head` to `behind`, and puts the chunks in between away.
    fn consume(&self, arena: &Arena, head: Position, behind: Position) {
        self.state.got.head.store(behind.pack(), Ordering::SeqCst);
        let mut unit = match head.unit {
            0 => self.state.settings.first.load(Ordering::Acquire),
            unit => unit,
        };
        while unit != 0 && unit != behind.unit {
            let chunk = unit * CHUNK;
            let next = arena.word_at(chunk + NEXT).load(Ordering::Acquire);
            let own = Handle::from_raw(arena.word_at(chunk + OWN).load(Ordering::Relaxed));
            self.recycle(arena, own);
            unit = next;
        }
    }

    fn recycle(&self, arena: &Arena, chunk: Handle) {
        let spare = &self.state.settings.spare;
        let kept =
            spare.compare_exchange(0, chunk.raw(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !kept {
            arena.free(chunk);
        }
    }

    fn receive(&self, arena: &Arena, read: Read) -> Result<Message, ArenaError> {
        match read {
            Read::Copied(message) => Ok(message),
            Read::Parcel(handle) => {
                arena.give(handle, Owner::Member(arena.me()))?;
                Ok(Message::parcel(handle))
            }
        }
    }

    fn write_claim(
        &self,
        arena: &Arena,
        claim: &ClaimWord,
        head: Position,
        read: &Read,
    ) -> Result<(), ArenaError> {
        let bytes = match read {
            Read::Copied(message) => message.as_ref(),
            Read::Parcel(handle) => arena.parcel_bytes(*handle)?,
        };
        let first = bytes.first_chunk::<8>().map_or(0, |word| u64::from_le_bytes(*word));
        let at = arena.offset_of_word(&claim.0);
        let block = arena.block_around(at).map_or(0, Handle::raw);
        let got = &self.state.got;
        got.claim_count.store(head.count, Ordering::Relaxed);
        got.claim_at.store(at, Ordering::Relaxed);
        got.claim_block.store(block, Ordering::Release);
        claim.0.store(first, Ordering::SeqCst);
        Ok(())
    }
}
