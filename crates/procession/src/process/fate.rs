//! How the children of a fork server ended, as their client learns it.
//!
//! The system tells a process's status to its parent alone, and the parent of these children is the
//! fork server. One [`Board`] in the arena, shared by client, fork server and children, has a place
//! for each of them.
//!
//! # Shared state
//!
//! A place is one word: a number (bits 0–31), the state (32–39) and a code (40–47).
//!
//! | state | name | set by | meaning | number |
//! |-------|------|--------|---------|--------|
//! | 0 | `FREE` | – | never used | – |
//! | 1 | `ASKED` | client | a child is asked for | – |
//! | 2 | `BORN` | child | it is a process of the tree | its process id |
//! | 3 | `LEAVING` | child | it is about to exit, with the code | its process id |
//! | 4 | `EXITED` | fork server | it was reaped | the exit code |
//! | 5 | `KILLED` | fork server | it was reaped | the signal; bit 8 if a core was dumped |
//! | 6 | `LOST` | fork server | it has ended, and somebody else reaped it | – |
//!
//! 4 to 6 are final. They are written after the child has ended, so that of child and fork server
//! never both write. The client gives a place to another child when the state is final, or when
//! neither child nor fork server is there any more.
//!
//! # Memory ordering
//!
//! All is in the word. Final states are stored with `SeqCst`, as the client may sleep on `ended`.
//!
//! # When a process dies
//!
//! - The child: the fork server reaps it and writes.
//! - The fork server: nobody will write any more, and the children that are left belong to the
//!   system's first process. A client that sees a child's end finds `LEAVING`, and takes the code, or
//!   something less, and then the status is unknown.
//! - The client: the board goes with the last process that holds it.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::primitive::{AtomicU64, Ordering};
use crate::process::child::Child;
use crate::process::status::ExitStatus;
use crate::shm::{Arena, ArenaError, Handle, Shared, ShmSafe};
use crate::sync::event_count::EventCount;
use crate::sync::spin::SpinBudget;
use crate::sys::process;

/// As many as an arena can have processes.
pub(crate) const PLACES: usize = 4096;

/// How long a client waits for a word of the fork server before it looks whether that has died.
const PATIENCE: Duration = Duration::from_millis(2);

const ASKED: u64 = 1;
const BORN: u64 = 2;
const LEAVING: u64 = 3;
const EXITED: u64 = 4;
const KILLED: u64 = 5;
const LOST: u64 = 6;

const CORE_DUMPED: u32 = 1 << 8;
const CODE_SHIFT: u32 = 40;

fn pack(state: u64, number: u32) -> u64 {
    state << 32 | u64::from(number)
}

/// The block. See the head of this file.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Board {
    /// Notified when a final state was written.
    ended: EventCount,
    places: [AtomicU64; PLACES],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Board>() == 8 + 8 * PLACES && align_of::<Board>() == 8);

// SAFETY: `repr(C)`, atomic integers only: every bit pattern is a value, zero is a fresh board, there
// is no pointer in it, and other processes may change it at any time.
unsafe impl ShmSafe for Board {
    const TAG: u32 = u32::from_le_bytes(*b"fate");
}

/// What a place says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Nothing of the child yet.
    Asked,
    /// The child runs, or was killed.
    Born { pid: u32 },
    /// The child was about to exit.
    Leaving { pid: u32, code: i32 },
    /// The child has ended.
    Ended(ExitStatus),
}

impl Board {
    fn place(&self, place: u32) -> &AtomicU64 {
        // A place comes from the client, which knows how many there are.
        &self.places[place as usize % PLACES]
    }

    fn read(&self, place: u32) -> Word {
        let word = self.place(place).load(Ordering::SeqCst);
        let number = word as u32;
        match word >> 32 & 0xFF {
            BORN => Word::Born { pid: number },
            LEAVING => Word::Leaving { pid: number, code: (word >> CODE_SHIFT) as u8 as i32 },
            EXITED => Word::Ended(ExitStatus::Code(number as i32)),
            KILLED => Word::Ended(ExitStatus::Signal {
                signal: (number & !CORE_DUMPED) as i32,
                core_dumped: number & CORE_DUMPED != 0,
            }),
            LOST => Word::Ended(ExitStatus::Unknown),
            _ => Word::Asked,
        }
    }

    /// Says how the child ended. For the fork server, which has reaped it.
    pub(crate) fn record(&self, place: u32, status: ExitStatus) {
        let word = match status {
            ExitStatus::Code(code) => pack(EXITED, code as u32),
            ExitStatus::Signal { signal, core_dumped } => {
                pack(KILLED, signal as u32 | if core_dumped { CORE_DUMPED } else { 0 })
            }
            ExitStatus::Unknown => pack(LOST, 0),
        };
        self.place(place).store(word, Ordering::SeqCst);
        self.ended.notify(u32::MAX);
    }

    /// Blocks until the fork server has said how the child ended, or `deadline`.
    fn await_end(&self, place: u32, deadline: Instant) -> Option<ExitStatus> {
        static SPIN: OnceLock<SpinBudget> = OnceLock::new();
        let ready = || match self.read(place) {
            Word::Ended(status) => Some(status),
            _ => None,
        };
        // Out of time or interrupted by a signal: the caller looks at the fork server and comes again.
        self.ended.wait_until(SPIN.get_or_init(SpinBudget::new), Some(deadline), ready).ok()
    }
}

/// A board as the client has it, with the places that are not in use.
#[derive(Debug)]
pub(crate) struct Fates {
    board: Shared<Board>,
    free: Mutex<Free>,
    /// The process that gives out places.
    client: u32,
}

#[derive(Debug)]
struct Free {
    /// Places that were given back.
    returned: Vec<u32>,
    /// The first place that was never given out.
    fresh: u32,
}

impl Fates {
    /// Makes a board with all places free.
    pub(crate) fn new() -> Result<Self, ArenaError> {
        Ok(Self {
            board: Shared::new(|_: &Board| {})?,
            free: Mutex::new(Free { returned: Vec::new(), fresh: 0 }),
            client: process::getpid(),
        })
    }

    /// The number by which the fork server knows the board.
    pub(crate) fn handle(&self) -> Handle {
        self.board.handle()
    }

    /// Takes a place for a child of `server`; `None` when all are taken.
    pub(crate) fn reserve(self: &Arc<Self>, server: &Child) -> Option<Fate> {
        let place = self.lock().take()?;
        self.board.place(place).store(pack(ASKED, 0), Ordering::SeqCst);
        Some(Fate { fates: self.clone(), place, server: server.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // No change can panic half-way.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    fn take(&mut self) -> Option<u32> {
        if let Some(place) = self.returned.pop() {
            return Some(place);
        }
        let place = self.fresh;
        ((place as usize) < PLACES).then(|| {
            self.fresh += 1;
            place
        })
    }
}

/// The place of one child. Given back on drop, which must come after the child's end.
#[derive(Debug)]
pub(crate) struct Fate {
    fates: Arc<Fates>,
    place: u32,
    server: Child,
}

impl Fate {
    /// The number of the place on the board.
    pub(crate) fn place(&self) -> u32 {
        self.place
    }

    /// How the child ended, if that is written down already.
    pub(crate) fn recorded(&self) -> Option<ExitStatus> {
        match self.fates.board.read(self.place) {
            Word::Ended(status) => Some(status),
            _ => None,
        }
    }

    /// Blocks until it is known how the child ended, which it has done: for as long as the fork server
    /// takes to reap it, or to die.
    pub(crate) fn status(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.fates.board.await_end(self.place, Instant::now() + PATIENCE)
            {
                return status;
            }
            if !self.server.is_alive() {
                return self.last_word();
            }
        }
    }

    /// What is known of a child that has ended as well as the fork server.
    fn last_word(&self) -> ExitStatus {
        match self.fates.board.read(self.place) {
            Word::Ended(status) => status,
            Word::Leaving { code, .. } => ExitStatus::Code(code),
            Word::Asked | Word::Born { .. } => ExitStatus::Unknown,
        }
    }

    /// The process id of the child, if it came to life under a fork server that has died since.
    pub(crate) fn born(&self) -> Option<u32> {
        match self.fates.board.read(self.place) {
            Word::Born { pid } | Word::Leaving { pid, .. } => Some(pid),
            Word::Asked | Word::Ended(_) => None,
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        // A forked copy must leave the place alone, and the lock too: a thread may have held it.
        if process::getpid() == self.fates.client {
            self.fates.lock().returned.push(self.place);
        }
    }
}

/// The place of this very process, if a fork server has made it.
#[derive(Debug)]
struct Own {
    board: Shared<Board>,
    place: u32,
    pid: u32,
}

/// A process comes from a fork server once at most. Its forked copies find another process id here.
static OWN: OnceLock<Own> = OnceLock::new();

/// Says that this process, a child of a fork server, has come to life, and remembers its place.
pub(crate) fn come_to_life(board: Shared<Board>, place: u32) {
    let pid = process::getpid();
    board.place(place).store(pack(BORN, pid), Ordering::SeqCst);
    // It is set already only if a forked copy of a fork server's child serves forks itself; its exit
    // is not announced then.
    let _ = OWN.set(Own { board, place, pid });
}

/// Says that this process is about to exit with `code`, of which the lowest 8 bits count.
///
/// To be called right before the exit. It is known then that this process was not killed, and a
/// lock that it holds stays held (see [`Lock`](crate::sync::Lock)). If a fork server made this
/// process and is killed, its client still learns the code. Costs one system call at most.
///
/// # Examples
///
/// ```no_run
/// procession::process::announce_exit(3);
/// std::process::exit(3);
/// ```
pub fn announce_exit(code: i32) {
    if Arena::exists()
        && let Ok(arena) = Arena::current()
    {
        arena.mark_ended_normally();
    }
    let Some(own) = OWN.get() else { return };
    if own.pid == process::getpid() {
        let word = u64::from(code as u8) << CODE_SHIFT | pack(LEAVING, own.pid);
        own.board.place(own.place).store(word, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_status_can_be_read_again() {
        let board = Shared::new(|_: &Board| {}).unwrap();
        let killed = ExitStatus::Signal { signal: 9, core_dumped: false };
        let dumped = ExitStatus::Signal { signal: 64, core_dumped: true };
        for status in [ExitStatus::Code(0), ExitStatus::Code(255), killed, dumped] {
            board.record(7, status);
            assert_eq!(board.read(7), Word::Ended(status));
        }
        board.record(7, ExitStatus::Unknown);
        assert_eq!(board.read(7), Word::Ended(ExitStatus::Unknown));
        assert_eq!(board.read(8), Word::Asked, "the neighbour is untouched");
    }

    #[test]
    fn announced_code_is_read_with_the_process_id() {
        let board = Shared::new(|_: &Board| {}).unwrap();
        come_to_life(board.clone(), 1);
        let pid = process::getpid();
        assert_eq!(board.read(1), Word::Born { pid });
        announce_exit(-1);
        assert_eq!(board.read(1), Word::Leaving { pid, code: 255 });
    }

    #[test]
    fn places_are_given_out_once_and_end() {
        let mut free = Free { returned: vec![3], fresh: PLACES as u32 - 1 };
        assert_eq!(free.take(), Some(3));
        assert_eq!(free.take(), Some(PLACES as u32 - 1));
        assert_eq!(free.take(), None);
        free.returned.push(9);
        assert_eq!(free.take(), Some(9));
    }
}
