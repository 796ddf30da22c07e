//! The arena: blocks for the shared objects of a whole tree of processes.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::error::ArenaError;
use crate::shm::layout::{Layout, MAGIC, UNIT, header};
use crate::shm::limit;
use crate::shm::memory::Memory;
use crate::shm::names;
use crate::shm::robust::RobustLock;
use crate::shm::word::Member;
use crate::sys::process;

/// The shared memory of a tree of processes.
///
/// The first process that needs shared memory makes one arena; all processes that it starts,
/// and those that they start, share it. There is nothing to open or to clean up: the memory is
/// a file without a name and goes with the last process of the tree.
#[derive(Debug)]
pub struct Arena {
    pub(super) memory: Memory,
    pub(super) layout: Layout,
    /// This process in the table, 0 before it has registered.
    pub(super) me: AtomicU32,
}

static CURRENT: OnceLock<Arena> = OnceLock::new();
/// Held while `CURRENT` is being filled.
static SETUP: Mutex<()> = Mutex::new(());

/// A snapshot of what an arena holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Bytes in blocks that are in use, spans of small blocks counted whole.
    pub used: u64,
    /// Bytes that may have pages: those in use and the freed ones kept for reuse.
    pub committed: u64,
    /// The most that may be committed, in bytes.
    pub limit: u64,
    /// Bytes of real memory behind the arena, its tables included.
    pub resident: u64,
    /// Number of blocks in use.
    pub blocks: usize,
    /// Number of processes that are registered.
    pub members: usize,
}

impl Arena {
    /// The arena of this process's tree, made by the first call in the tree.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Os`] when the system gives no memory or address space.
    #[inline]
    pub fn current() -> Result<&'static Self, ArenaError> {
        match CURRENT.get() {
            Some(arena) => Ok(arena),
            None => Self::first(),
        }
    }

    #[cold]
    fn first() -> Result<&'static Self, ArenaError> {
        let _setup = SETUP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arena) = CURRENT.get() {
            return Ok(arena);
        }
        let arena = Self::create(limit::limit())?;
        arena.note_first_process();
        prepare_process();
        Ok(CURRENT.get_or_init(|| arena))
    }

    /// Whether this process has an arena already.
    pub fn exists() -> bool {
        CURRENT.get().is_some()
    }

    /// Takes over the arena that the parent made, as the process `me`.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NotAnArena`] when `fd` is something else, or this process has an arena;
    /// [`ArenaError::ParentDied`] when there is nobody left to belong to.
    pub(crate) fn attach(fd: OwnedFd, me: Member) -> Result<&'static Self, ArenaError> {
        let _setup = SETUP.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = Memory::adopt(fd)?;
        let found =
            [header::MAGIC, header::UNITS].map(|at| memory.word(at).load(Ordering::Acquire));
        if found != [MAGIC, memory.units() as u64] {
            return Err(ArenaError::NotAnArena);
        }
        let layout = Layout::new(memory.units());
        let arena = Self { memory, layout, me: AtomicU32::new(0) };
        CURRENT.set(arena).map_err(|_| ArenaError::NotAnArena)?;
        prepare_process();
        let arena = CURRENT.get().ok_or(ArenaError::NotAnArena)?;
        if arena.become_member(me) { Ok(arena) } else { Err(ArenaError::ParentDied) }
    }

    /// Makes an arena of its own; only the first one of a process becomes the current one.
    pub(super) fn create(limit: u64) -> Result<Self, ArenaError> {
        let memory = Memory::create()?;
        let layout = Layout::new(memory.units());
        memory.word(header::UNITS).store(layout.units as u64, Ordering::Relaxed);
        let limit_units = (limit / UNIT).clamp(1, layout.units as u64);
        memory.word(header::LIMIT).store(limit_units, Ordering::Relaxed);
        memory.word(header::TOP).store(layout.first_unit as u64, Ordering::Relaxed);
        memory.word(header::MAGIC).store(MAGIC, Ordering::Release);
        Ok(Self { memory, layout, me: AtomicU32::new(0) })
    }

    /// The descriptor that a child needs to [`attach`](Self::attach).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// What the arena holds just now.
    pub fn stats(&self) -> ArenaStats {
        let runs = self.runs();
        let mut blocks = 0;
        self.for_each_block(|_, _, _| blocks += 1);
        ArenaStats {
            used: runs.used() as u64 * UNIT,
            committed: runs.committed() as u64 * UNIT,
            limit: runs.limit as u64 * UNIT,
            resident: self.memory.resident(),
            blocks,
            members: self.member_count(),
        }
    }

    pub(super) fn lock_at(&self, offset: u64) -> &RobustLock {
        self.memory.lock(offset)
    }

    /// A word of a structure whose block is known to be alive.
    pub(crate) fn word_at(&self, offset: u64) -> &AtomicU64 {
        self.memory.word(offset)
    }

    /// Words of a structure whose block is known to be alive.
    pub(crate) fn words_at(&self, offset: u64, count: usize) -> &[AtomicU64] {
        self.memory.words(offset, count)
    }

    /// Bytes of a structure whose block is known to be alive and left alone meanwhile.
    pub(crate) fn bytes_at(&self, offset: u64, len: usize) -> &[u8] {
        self.memory.bytes(offset, len)
    }

    /// Writes into a structure whose block is known to be alive and this process's to write.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) {
        self.memory.write(offset, bytes);
    }

    /// Where `word`, which lies in the arena, is.
    ///
    /// # Panics
    ///
    /// Panics if it lies elsewhere.
    pub(crate) fn offset_of_word(&self, word: &AtomicU64) -> u64 {
        self.memory.offset_of(std::ptr::from_ref(word).addr())
    }
}

/// Has this process and its forked children do what an arena asks of them.
fn prepare_process() {
    process::on_fork_child(forget_me);
    process::at_exit(names::unlink_at_exit);
    process::at_exit(say_goodbye);
}

/// Runs when this process ends by `exit`.
extern "C" fn say_goodbye() {
    if let Some(arena) = CURRENT.get() {
        arena.mark_ended_normally();
    }
}

/// Runs in a child right after `fork`, where only atomic stores are allowed.
extern "C" fn forget_me() {
    if let Some(arena) = CURRENT.get() {
        arena.me.store(0, Ordering::Relaxed);
    }
}
