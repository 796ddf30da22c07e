//! The headers of the containers, and what every word of them means.
//!
//! All words are written with the lock held. A zeroed header is an empty container.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use crate::primitive::AtomicU64;
use crate::shm::{RobustLock, ShmSafe};

/// The header object of a dict.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct DictState {
    pub(super) lock: RobustLock,
    /// Raised with every change.
    pub(super) version: AtomicU64,
    /// Raised with every change of the set of keys or of their order.
    pub(super) keys_version: AtomicU64,
    /// Handle of the block of entries, 0 for none; see `table`.
    pub(super) table: AtomicU64,
    /// Handle of a journal that is to be completed, 0 for none.
    pub(super) pending: AtomicU64,
    /// The last number given to an opaque key.
    pub(super) serial: AtomicU64,
    /// What hashes begin with, so that no program can choose keys that collide. Never changes.
    pub(super) seed: AtomicU64,
    /// Derived: how many keys there are.
    pub(super) live: AtomicU64,
    /// Derived: how many of them are opaque.
    pub(super) opaque: AtomicU64,
    /// Derived: no entry from this one on is in use.
    pub(super) end: AtomicU64,
}

// SAFETY: a lock and atomics, in `repr(C)` and aligned to 64 bytes; zero is an empty dict, and all
// words are only looked at and changed with the lock held, by this module alone.
unsafe impl ShmSafe for DictState {
    const TAG: u32 = u32::from_le_bytes(*b"dict");
}

/// The header object of a list.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ListState {
    pub(super) lock: RobustLock,
    /// Raised with every change.
    pub(super) version: AtomicU64,
    /// Handle of the block of words, 0 for none; see `vector`.
    pub(super) vector: AtomicU64,
}

// SAFETY: as for `DictState`.
unsafe impl ShmSafe for ListState {
    const TAG: u32 = u32::from_le_bytes(*b"list");
}

/// What stands in front of the bytes of a large value: nothing. They are written before anybody
/// else can see them, and never again.
#[derive(Debug)]
pub(super) struct Payload;

// SAFETY: it has no bytes.
unsafe impl ShmSafe for Payload {
    const TAG: u32 = u32::from_le_bytes(*b"payl");
}
