//! The packed words of the arena: who a process is, which block is meant, what a block is.
//!
//! | word     | bits                                                                        |
//! |----------|-----------------------------------------------------------------------------|
//! | `Member` | 0–11 slot in the table of processes, 12–30 its generation, never 0 as a whole |
//! | `Handle` | 0–31 offset of the block / 64, 32–59 generation of the block; 0 is "none"   |
//! | `State`  | 0–31 owner, 32–59 generation, 60 object, 61 parcel, 62–63 kind              |
//!
//! A generation changes whenever the slot or the block changes hands, so that an old number is
//! recognised and not taken for its successor.

use std::fmt;

/// Number of process slots in an arena; also the bits of a slot number in a [`Member`].
pub(super) const SLOT_BITS: u32 = 12;
/// How many processes one tree can have at a time.
pub(super) const SLOTS: usize = 1 << SLOT_BITS;
const MEMBER_GENERATIONS: u32 = 1 << 19;

/// Every block starts at a multiple of this many bytes.
pub(super) const ALIGN: u64 = 64;

const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// One process of a tree, living or dead: its slot in the arena's table and a generation that
/// tells it from earlier and later users of that slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member(u32);

impl Member {
    pub(super) fn new(slot: usize, generation: u32) -> Self {
        debug_assert!(slot < SLOTS && generation != 0 && generation < MEMBER_GENERATIONS);
        Self(generation << SLOT_BITS | slot as u32)
    }

    /// Takes a number that [`raw`](Self::raw) gave; `None` for zero or an impossible one.
    pub(crate) fn from_raw(bits: u32) -> Option<Self> {
        (bits >> SLOT_BITS != 0 && bits < 1 << 31).then_some(Self(bits))
    }

    /// The number that stands for this process in shared memory: never 0, below 2³¹.
    pub(crate) fn raw(self) -> u32 {
        self.0
    }

    pub(super) fn slot(self) -> usize {
        self.0 as usize & (SLOTS - 1)
    }

    pub(super) fn generation(self) -> u32 {
        self.0 >> SLOT_BITS
    }

    /// The generation after `generation`, which is never 0.
    pub(super) fn next_generation(generation: u32) -> u32 {
        let next = (generation + 1) % MEMBER_GENERATIONS;
        if next == 0 { 1 } else { next }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({}.{})", self.slot(), self.generation())
    }
}

/// Names one block of the arena, the same number in every process of the tree.
///
/// A handle to a block that was freed is recognised as stale by its generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(u64);

impl Handle {
    /// Names no block.
    pub const NONE: Self = Self(0);

    pub(super) fn new(offset: u64, generation: u32) -> Self {
        debug_assert!(offset.is_multiple_of(ALIGN) && offset / ALIGN <= u64::from(u32::MAX));
        Self((u64::from(generation) << 32) | (offset / ALIGN))
    }

    /// Takes back a number that [`raw`](Self::raw) gave.
    pub fn from_raw(bits: u64) -> Self {
        Self(bits)
    }

    /// The handle as a number, to be kept in shared memory or in a message.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// Whether this is [`NONE`](Self::NONE).
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn offset(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) * ALIGN
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:#x}.{})", self.offset(), self.generation())
    }
}

/// Who frees a block: the process that owns it, or the object that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One process; whoever buries it frees the block.
    Member(Member),
    /// A reference-counted object; the block goes when the object goes.
    Block(Handle),
}

/// What a block is just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody's. Zeroed memory reads as this.
    Free,
    /// Owned by the process in the owner bits.
    OfMember(Member),
    /// Owned by the object whose offset / 64 is in the owner bits.
    OfBlock(u32),
    /// A reference-counted object, owned by its references.
    Shared,
}

/// The one word that says what a block is. Each change is a single compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) kind: Kind,
    /// The block begins with places that hold references (see `parcel`).
    pub(super) parcel: bool,
    /// The block begins with the header of a reference-counted object (see `refs`).
    pub(super) object: bool,
    pub(super) generation: u32,
}

impl State {
    pub(super) fn unpack(word: u64) -> Self {
        let owner = word as u32;
        let kind = match word >> 62 {
            0 => Kind::Free,
            // A damaged owner reads as free rather than as somebody's.
            1 => Member::from_raw(owner).map_or(Kind::Free, Kind::OfMember),
            2 => Kind::OfBlock(owner),
            _ => Kind::Shared,
        };
        Self {
            kind,
            parcel: word >> 61 & 1 == 1,
            object: word >> 60 & 1 == 1,
            generation: (word >> 32 & GENERATION_MASK) as u32,
        }
    }

    pub(super) fn pack(self) -> u64 {
        let (tag, owner) = match self.kind {
            Kind::Free => (0, 0),
            Kind::OfMember(member) => (1, member.raw()),
            Kind::OfBlock(offset) => (2, offset),
            Kind::Shared => (3, 0),
        };
        tag << 62
            | u64::from(self.parcel) << 61
            | u64::from(self.object) << 60
            | (u64::from(self.generation) & GENERATION_MASK) << 32
            | u64::from(owner)
    }

    pub(super) fn is_free(self) -> bool {
        self.kind == Kind::Free
    }

    /// The state of the same block for its next user.
    pub(super) fn reborn(self, owner: Owner) -> Self {
        let generation = next_generation(self.generation);
        Self { kind: owner.into(), parcel: false, object: false, generation }
    }

    /// The state of the same block when it is free again.
    pub(super) fn freed(self) -> Self {
        Self { kind: Kind::Free, parcel: false, object: false, ..self }
    }
}

impl From<Owner> for Kind {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Member(member) => Self::OfMember(member),
            Owner::Block(handle) => Self::OfBlock((handle.offset() / ALIGN) as u32),
        }
    }
}

fn next_generation(generation: u32) -> u32 {
    let next = (u64::from(generation) + 1) & GENERATION_MASK;
    if next == 0 { 1 } else { next as u32 }
}

/// A first generation for the blocks of the span number `epoch`, far from those of the spans
/// that had the memory before, so that their handles are not taken for new ones.
pub(super) fn first_generation(epoch: u64) -> u32 {
    (epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - GENERATION_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn state_survives_packing(slot in 0..SLOTS, member_gen in 1u32..MEMBER_GENERATIONS,
                                  generation in 0u32..1 << GENERATION_BITS, parcel: bool,
                                  object: bool, offset: u32, which in 0..4) {
            let kind = match which {
                0 => Kind::Free,
                1 => Kind::OfMember(Member::new(slot, member_gen)),
                2 => Kind::OfBlock(offset),
                _ => Kind::Shared,
            };
            let state = State { kind, parcel, object, generation };
            prop_assert_eq!(State::unpack(state.pack()), state);
        }

        #[test]
        fn handle_keeps_offset_and_generation(unit: u32, generation in 1u32..1 << GENERATION_BITS) {
            let handle = Handle::new(u64::from(unit) * ALIGN, generation);
            prop_assert_eq!(handle.offset(), u64::from(unit) * ALIGN);
            prop_assert_eq!(handle.generation(), generation);
            prop_assert!(!handle.is_none());
        }
    }

    #[test]
    fn zeroed_memory_is_a_free_block() {
        assert!(State::unpack(0).is_free());
    }

    #[test]
    fn generations_never_become_zero() {
        assert_eq!(next_generation(GENERATION_MASK as u32), 1);
        assert_eq!(Member::next_generation(MEMBER_GENERATIONS - 1), 1);
    }
}
