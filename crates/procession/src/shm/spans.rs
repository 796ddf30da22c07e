//! Small blocks: a span is 64 KiB cut into blocks of one size, with one state word per block.
//!
//! The state words are the whole truth: a block is taken by one compare-and-swap from free to
//! "owned by this process", so from the first instant on it is known whose it is, and whoever
//! buries a dead process finds its blocks by looking at the words. There is no list whose links
//! could be left half changed.
//!
//! What makes a search short are hints, and a wrong hint costs time, never correctness:
//!
//! | word     | written by                     | if its writer dies just before or after |
//! |----------|--------------------------------|-----------------------------------------|
//! | state    | taker, releaser                | free, or owned by the dead process      |
//! | `cursor` | whoever took a block           | the search starts somewhere else        |
//! | hint bit | cleared by a taker that found the span full, set by every releaser | see below |
//!
//! A clear hint bit with a free block in the span would lose that block until the next release
//! in the span. A taker therefore looks at the words again after it has cleared the bit. Either
//! the releaser's set comes after the clear and stands, or it comes before, and then the taker's
//! second look sees the free word (both are read-modify-writes of the same word, so the later one
//! has seen the earlier one and all that happened before it). A releaser killed between the two
//! steps leaves the bit clear; the burial sets it again.

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::word::{Owner, State};

/// The words of one span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) states: &'a [AtomicU64],
    pub(super) cursor: &'a AtomicU64,
    pub(super) hint: Hint<'a>,
}

/// One bit of the map that says which spans may have a free block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint<'a> {
    pub(super) word: &'a AtomicU64,
    pub(super) mask: u64,
}

impl Hint<'_> {
    pub(super) fn set(self) {
        self.word.fetch_or(self.mask, Ordering::AcqRel);
    }

    pub(super) fn clear(self) {
        self.word.fetch_and(!self.mask, Ordering::AcqRel);
    }
}

impl Span<'_> {
    /// Takes a free block for `owner`: its index and its state from now on.
    pub(super) fn take(self, owner: Owner) -> Option<(usize, State)> {
        let start = self.cursor.load(Ordering::Relaxed) as usize % self.states.len();
        let order = (start..self.states.len()).chain(0..start);
        for index in order {
            if let Some(state) = self.take_at(index, owner) {
                self.cursor.store(index as u64 + 1, Ordering::Relaxed);
                return Some((index, state));
            }
        }
        self.hint.clear();
        if self.has_free() {
            self.hint.set();
        }
        None
    }

    pub(super) fn take_at(self, index: usize, owner: Owner) -> Option<State> {
        let word = &self.states[index];
        let seen = word.load(Ordering::Relaxed);
        let state = State::unpack(seen);
        if !state.is_free() {
            return None;
        }
        let taken = state.reborn(owner);
        word.compare_exchange(seen, taken.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(taken)
    }

    /// Makes the block free that `state` was read from; false if it has changed meanwhile.
    pub(super) fn release(self, index: usize, state: State) -> bool {
        let freed = state.freed().pack();
        let done = self.states[index]
            .compare_exchange(state.pack(), freed, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if done {
            self.hint.set();
        }
        done
    }

    /// Whether a block is free just now.
    pub(super) fn has_free(self) -> bool {
        self.states.iter().any(|word| State::unpack(word.load(Ordering::Acquire)).is_free())
    }

    /// Takes every block of the span for `owner`, or none.
    pub(super) fn take_whole(self, owner: Owner) -> bool {
        for index in 0..self.states.len() {
            if self.take_at(index, owner).is_none() {
                for (taken, word) in self.states[..index].iter().enumerate() {
                    self.release(taken, State::unpack(word.load(Ordering::Relaxed)));
                }
                return false;
            }
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::shm::word::Member;

    #[test]
    fn full_span_says_so_and_a_release_is_found() {
        let states: Vec<_> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let (cursor, bits) = (AtomicU64::new(0), AtomicU64::new(1));
        let span = Span { states: &states, cursor: &cursor, hint: Hint { word: &bits, mask: 1 } };
        let owner = Owner::Member(Member::new(3, 1));
        let taken: Vec<_> = (0..3).map(|_| span.take(owner).unwrap()).collect();
        assert!(span.take(owner).is_none());
        assert_eq!(bits.load(Ordering::Relaxed), 0, "a full span is not looked at again");
        let (index, state) = taken[1];
        assert!(span.release(index, state));
        assert!(!span.release(index, state), "freeing twice does nothing");
        assert_eq!(bits.load(Ordering::Relaxed), 1);
        let (again, reborn) = span.take(owner).unwrap();
        assert_eq!(again, index);
        assert_ne!(reborn.generation, state.generation, "an old handle is stale");
    }

    #[test]
    fn whole_span_is_taken_only_when_all_is_free() {
        let states: Vec<_> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let (cursor, bits) = (AtomicU64::new(0), AtomicU64::new(1));
        let span = Span { states: &states, cursor: &cursor, hint: Hint { word: &bits, mask: 1 } };
        let owner = Owner::Member(Member::new(3, 1));
        let (index, state) = span.take(owner).unwrap();
        assert!(!span.take_whole(owner));
        assert!(span.release(index, state));
        assert!(span.take_whole(owner));
        assert!(!span.has_free());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::shm::word::Member;

    struct Words {
        states: Vec<AtomicU64>,
        cursor: AtomicU64,
        bits: AtomicU64,
    }

    impl Words {
        fn new(blocks: usize) -> Arc<Self> {
            Arc::new(Self {
                states: (0..blocks).map(|_| AtomicU64::new(0)).collect(),
                cursor: AtomicU64::new(0),
                bits: AtomicU64::new(1),
            })
        }

        fn span(&self) -> Span<'_> {
            let hint = Hint { word: &self.bits, mask: 1 };
            Span { states: &self.states, cursor: &self.cursor, hint }
        }
    }

    fn owner(slot: usize) -> Owner {
        Owner::Member(Member::new(slot, 1))
    }

    #[test]
    fn loom_no_block_is_taken_twice() {
        loom::model(|| {
            let words = Words::new(2);
            let peer = words.clone();
            let peer = thread::spawn(move || peer.span().take(owner(1)).map(|taken| taken.0));
            let mine = words.span().take(owner(2)).map(|taken| taken.0);
            let theirs = peer.join().unwrap();
            assert!(mine.is_some() && theirs.is_some() && mine != theirs);
        });
    }

    /// `release` as given must leave the hint set whenever a block is free in the end.
    fn released_block_stays_findable(release: fn(Span<'_>, usize, State)) {
        loom::model(move || {
            let words = Words::new(1);
            let (index, state) = words.span().take(owner(1)).unwrap();
            let peer = words.clone();
            let taker = thread::spawn(move || peer.span().take(owner(2)).is_some());
            release(words.span(), index, state);
            if !taker.join().unwrap() {
                assert!(words.span().has_free());
                assert_eq!(words.bits.load(Ordering::SeqCst), 1, "a free block is out of sight");
            }
        });
    }

    #[test]
    fn loom_released_block_stays_findable() {
        released_block_stays_findable(|span, index, state| assert!(span.release(index, state)));
    }

    #[test]
    #[should_panic(expected = "out of sight")]
    fn loom_sees_the_fault_of_setting_the_hint_first() {
        released_block_stays_findable(|span, index, state| {
            span.hint.set();
            span.states[index].store(state.freed().pack(), Ordering::SeqCst);
        });
    }
}
