//! Who holds a lock, or waits: a thread of a process.
//!
//! | bits  | meaning                                                          |
//! |-------|------------------------------------------------------------------|
//! | 0–30  | the process, as a [`Member`]                                     |
//! | 31    | free for the object that keeps the word                          |
//! | 32–63 | the thread, by a number that its process gave it; 0 for "unknown" |
//!
//! The system's own thread numbers would do as well, but cost a system call after each fork. These
//! are kept by the copy of the thread in a forked child, which is another member.

use std::fmt;

use crate::shm::{Arena, Member};

/// The bits of a process.
pub(crate) const MEMBER: u64 = (1 << 31) - 1;
/// The bit that is not used here.
pub(crate) const SPARE: u64 = 1 << 31;

/// One thread of one process of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(u64);

impl Who {
    pub(crate) fn new(member: Member, thread: u32) -> Self {
        Self(u64::from(thread) << 32 | u64::from(member.raw()))
    }

    /// The calling thread.
    #[inline]
    pub(crate) fn here() -> Self {
        Self::new(arena().me(), thread::number())
    }

    /// The number that stands for the thread in shared memory. Its spare bit is clear.
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    /// The thread that a word names; `None` if it names none. The spare bit does not matter.
    pub(crate) fn from_raw(word: u64) -> Option<Self> {
        Member::from_raw((word & MEMBER) as u32).map(|_| Self(word & !SPARE))
    }

    pub(crate) fn member(self) -> Member {
        Member::from_raw((self.0 & MEMBER) as u32).expect("made of a member")
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, thread {}", self.member(), self.0 >> 32)
    }
}

/// The arena that every shared object of this process lives in.
#[inline]
pub(crate) fn arena() -> &'static Arena {
    // Whoever has a shared object has the arena, and nobody takes it away.
    Arena::current().expect("the arena of a shared object is there")
}

#[cfg(not(loom))]
mod thread {
    use std::cell::Cell;

    use crate::primitive::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(1);

    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }

    /// The number of the calling thread in its process, never 0.
    #[inline]
    pub(super) fn number() -> u32 {
        match NUMBER.get() {
            0 => give(),
            number => number,
        }
    }

    #[cold]
    fn give() -> u32 {
        // After 2³² threads two may have the same; neither can be older than the process.
        let number = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        NUMBER.set(number);
        number
    }
}

/// Models say who acts.
#[cfg(loom)]
mod thread {
    pub(super) fn number() -> u32 {
        1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_differ_and_stay_the_same() {
        let here = Who::here();
        assert_eq!(here, Who::here());
        let there = std::thread::spawn(Who::here).join().unwrap();
        assert_ne!(here, there);
        assert_eq!(here.member(), there.member());
    }

    #[test]
    fn word_is_read_back_without_its_spare_bit() {
        let here = Who::here();
        assert_eq!(Who::from_raw(here.raw() | SPARE), Some(here));
        assert_eq!(Who::from_raw(0), None);
        assert_eq!(Who::from_raw(u64::from(crate::shm::NOBODY)), None);
    }
}
