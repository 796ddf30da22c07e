//! Shared memory of a tree of processes: the arena, its blocks, and who holds them.
//!
//! | file      | what is in it                                                              |
//! |-----------|----------------------------------------------------------------------------|
//! | `arena`   | making and inheriting the arena                                            |
//! | `alloc`   | allocating and freeing blocks, and finding them                            |
//! | `spans`   | small blocks: one state word each                                          |
//! | `runs`    | large blocks: the table of runs                                            |
//! | `members` | the processes of the tree; burying the dead                                |
//! | `refs`    | reference counts and ledgers                                               |
//! | `parcel`  | bytes together with the objects they name                                  |
//! | `shared`  | typed handles to objects                                                   |
//! | `handle`  | what the public handles have in common                                     |
//! | `robust`  | a lock that survives its holder                                            |
//! | `block`   | plain bytes, by themselves and behind a lock                               |
//! | `names`   | memory with a name in the system: who unlinks it                           |
//! | `memory`  | offsets to references: the unsafe part                                     |
//! | `layout`, `word`, `limit`, `error` | offsets, packed words, the limit, errors          |
//!
//! What must always hold: every word can be read by anybody at any time; a block is free, or a
//! living process, an object or a reference in a living process's ledger or in a parcel leads to
//! it, or its owner is dead and not buried yet.

mod alloc;
mod arena;
mod block;
mod error;
mod handle;
mod layout;
mod limit;
mod members;
mod memory;
pub(crate) mod names;
mod parcel;
mod refs;
mod robust;
mod runs;
mod shared;
mod spans;
#[cfg(all(test, not(loom)))]
pub(crate) mod tests;
mod word;

pub use arena::{Arena, ArenaStats};
pub use block::{Block, Word};
pub(crate) use block::{Guarded, GuardedBytes};
pub use error::ArenaError;
pub(crate) use handle::{shared_handle, typed_handle};
#[cfg(all(test, not(loom)))]
pub(crate) use members::NOBODY;
pub(crate) use members::OWNED;
pub(crate) use memory::ShmSafe;
pub use parcel::{Parcel, Pins, is_packing, pack};
pub(crate) use robust::{Liveness, RobustLock, Taken};
pub(crate) use shared::Shared;
pub(crate) use word::Owner;
pub use word::{Handle, Member};

/// Has the system use large pages, if it can, where `len` bytes from `address` on are written for
/// the first time: that is several times faster. For memory that a program is about to fill.
///
/// Never fails, and changes no byte. Only whole pages within the range count.
///
/// # Examples
///
/// ```
/// let mut buffer: Vec<u8> = Vec::with_capacity(64 << 20);
/// procession::shm::prefer_large_pages(buffer.as_ptr().addr(), buffer.capacity());
/// buffer.resize(64 << 20, 7);
/// assert!(buffer.iter().all(|byte| *byte == 7));
/// ```
pub fn prefer_large_pages(address: usize, len: usize) {
    crate::sys::memory::prefer_large_pages(address, len);
}
