//! Large blocks and spans: runs of 64 KiB units, kept in a table that tiles the arena.
//!
//! The table has one word per unit. Only the word of the first unit of a run means anything; it
//! holds the kind and the length of the run, so the next run begins that many units further:
//!
//! | kind   | meaning                                                                 |
//! |--------|-------------------------------------------------------------------------|
//! | `WARM` | free, its pages are still there: cheap to use again                     |
//! | `COLD` | free, its pages have been given back to the system                      |
//! | `USED` | one large block; its state word says whose                              |
//! | `SPAN` | cut into small blocks of the class in bits 40–47; never anything else again |
//!
//! Every change happens under one robust lock, and each is ordered so that the tiling is valid
//! between any two stores: a split writes the word of the second half (inside a free run, where
//! nobody reads it) before the first half shrinks; a merge is the store of the longer length.
//! `top` ends the tiling and moves last.
//!
//! The counters and the cache of warm runs are derived. When the lock's holder died, the next
//! one rebuilds them from the table ([`Runs::recover`]); nothing else needs repair.

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::word::{Owner, State};

/// How many warm runs are remembered for quick reuse.
pub(super) const BINS: usize = 32;

const WARM: u64 = 1;
const COLD: u64 = 2;
const USED: u64 = 3;
const SPAN: u64 = 4;

/// What a run is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// One large block.
    Large,
    /// Small blocks of this class.
    Span(usize),
}

/// One run of the tiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) len: usize,
    kind: u64,
    class: usize,
}

impl Run {
    fn unpack(first: usize, word: u64) -> Self {
        Self {
            first,
            len: word as u32 as usize,
            kind: word >> 32 & 0xFF,
            class: (word >> 40 & 0xFF) as usize,
        }
    }

    fn pack(kind: u64, class: usize, len: usize) -> u64 {
        (class as u64) << 40 | kind << 32 | len as u64
    }

    pub(super) fn is_free(self) -> bool {
        self.kind == WARM || self.kind == COLD
    }

    /// What the run is used for, `None` if it is free or no run begins here.
    pub(super) fn usage(self) -> Option<Use> {
        match self.kind {
            USED => Some(Use::Large),
            SPAN => Some(Use::Span(self.class)),
            _ => None,
        }
    }
}

/// Why a run could not be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRun {
    /// More than the limit would be in use.
    Limit,
    /// The reservation of address space is used up.
    Reservation,
}

/// The table and its counters; all methods but the readers want the lock held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs<'a> {
    pub(super) table: &'a [AtomicU64],
    /// State words of large blocks, one per unit.
    pub(super) states: &'a [AtomicU64],
    /// First unit that may be used.
    pub(super) first: usize,
    /// Units that may have pages at a time.
    pub(super) limit: usize,
    /// One past the last unit of the tiling.
    pub(super) top: &'a AtomicU64,
    /// Free units with pages.
    pub(super) warm: &'a AtomicU64,
    /// Free units without pages.
    pub(super) cold: &'a AtomicU64,
    /// First units + 1 of warm runs, 0 for none.
    pub(super) bins: &'a [AtomicU64],
}

fn get(word: &AtomicU64) -> usize {
    word.load(Ordering::Relaxed) as usize
}

impl<'a> Runs<'a> {
    /// The run that begins at `unit`, as far as one does.
    pub(super) fn at(self, unit: usize) -> Run {
        Run::unpack(unit, self.table[unit].load(Ordering::Acquire))
    }

    /// The runs of the tiling, in order of address. Without the lock a snapshot that may be torn,
    /// but each run it names has begun at that unit.
    pub(super) fn iter(self) -> impl Iterator<Item = Run> + 'a {
        let mut unit = self.first;
        std::iter::from_fn(move || {
            if unit >= self.top.load(Ordering::Acquire) as usize {
                return None;
            }
            let run = self.at(unit);
            // A length of zero is only seen by an unlocked reader in the middle of a merge.
            unit += run.len.max(1);
            Some(run)
        })
    }

    /// Units that have pages, free ones included.
    pub(super) fn committed(self) -> usize {
        (get(self.top) - self.first).saturating_sub(get(self.cold))
    }

    /// Units in use.
    pub(super) fn used(self) -> usize {
        self.committed().saturating_sub(get(self.warm))
    }

    /// Takes `len` units for `owner`. `give_back` returns the pages of units to the system and
    /// is called when the limit is near.
    pub(super) fn take(
        self,
        len: usize,
        usage: Use,
        owner: Owner,
        mut give_back: impl FnMut(usize, usize) -> bool,
    ) -> Result<(usize, State), NoRun> {
        if let Some(run) = self.warm_run(len) {
            return Ok(self.occupy(run, len, usage, owner));
        }
        if self.committed() + len > self.limit {
            self.cool(&mut give_back);
        }
        let free = get(self.warm) + get(self.cold);
        if let Some(run) = (free >= len).then(|| self.first_fit(len)).flatten() {
            if run.kind == COLD && self.committed() + len > self.limit {
                return Err(NoRun::Limit);
            }
            return Ok(self.occupy(run, len, usage, owner));
        }
        match self.extend(len, usage, owner) {
            Err(NoRun::Reservation) => self.take_merged(len, usage, owner, give_back),
            result => result,
        }
    }

    /// The last resort: all free runs become cold, so that neighbours can be merged, the one at the
    /// end of the tiling with what lies behind it.
    fn take_merged(
        self,
        len: usize,
        usage: Use,
        owner: Owner,
        mut give_back: impl FnMut(usize, usize) -> bool,
    ) -> Result<(usize, State), NoRun> {
        self.cool(&mut give_back);
        if let Some(run) = self.first_fit(len) {
            return Ok(self.occupy(run, len, usage, owner));
        }
        self.retract();
        self.extend(len, usage, owner)
    }

    /// Takes a cold run at the end of the tiling out of it.
    fn retract(self) {
        let Some(last) = self.iter().last().filter(|run| run.kind == COLD) else { return };
        self.top.store(last.first as u64, Ordering::Release);
        self.cold.store((get(self.cold) - last.len) as u64, Ordering::Relaxed);
    }

    /// The best fitting of the remembered warm runs.
    fn warm_run(self, len: usize) -> Option<Run> {
        let (bin, run) = self
            .bins
            .iter()
            .filter_map(|bin| Some((bin, self.at(get(bin).checked_sub(1)?))))
            .filter(|(_, run)| run.kind == WARM && run.len >= len)
            .min_by_key(|(_, run)| run.len)?;
        bin.store(0, Ordering::Relaxed);
        Some(run)
    }

    /// The first warm run of at least `len` units, else the first cold one; merges on its way.
    fn first_fit(self, len: usize) -> Option<Run> {
        let mut cold = None;
        let mut unit = self.first;
        while unit < get(self.top) {
            let run = self.merged(self.at(unit));
            if run.kind == WARM && run.len >= len {
                return Some(run);
            }
            if run.kind == COLD && run.len >= len && cold.is_none() {
                cold = Some(run);
            }
            unit += run.len;
        }
        cold
    }

    /// Joins `run` with the free runs of the same kind behind it.
    fn merged(self, mut run: Run) -> Run {
        if !run.is_free() {
            return run;
        }
        loop {
            let next = run.first + run.len;
            if next >= get(self.top) {
                return run;
            }
            let behind = self.at(next);
            if behind.kind != run.kind {
                return run;
            }
            run.len += behind.len;
            self.table[run.first].store(Run::pack(run.kind, 0, run.len), Ordering::Release);
            // No run begins there any more, so that a remembered `next` is not taken for one.
            self.table[next].store(0, Ordering::Release);
        }
    }

    fn occupy(self, run: Run, len: usize, usage: Use, owner: Owner) -> (usize, State) {
        if run.len > len {
            let rest = run.first + len;
            self.table[rest].store(Run::pack(run.kind, 0, run.len - len), Ordering::Release);
            if run.kind == WARM {
                self.remember(rest);
            }
        }
        let counter = if run.kind == WARM { self.warm } else { self.cold };
        counter.store((get(counter) - len) as u64, Ordering::Relaxed);
        (run.first, self.begin(run.first, len, usage, owner))
    }

    /// Writes the state and then the table word of a run that is now in use.
    fn begin(self, first: usize, len: usize, usage: Use, owner: Owner) -> State {
        let old = State::unpack(self.states[first].load(Ordering::Relaxed));
        let state = old.reborn(owner);
        self.states[first].store(state.pack(), Ordering::Release);
        let word = match usage {
            Use::Large => Run::pack(USED, 0, len),
            Use::Span(class) => Run::pack(SPAN, class, len),
        };
        self.table[first].store(word, Ordering::Release);
        state
    }

    fn extend(self, len: usize, usage: Use, owner: Owner) -> Result<(usize, State), NoRun> {
        let top = get(self.top);
        if self.committed() + len > self.limit {
            return Err(NoRun::Limit);
        }
        if top + len > self.table.len() {
            return Err(NoRun::Reservation);
        }
        let state = self.begin(top, len, usage, owner);
        self.top.store((top + len) as u64, Ordering::Release);
        Ok((top, state))
    }

    /// Turns the large block at `unit` into a span of small ones, whose words are in place.
    pub(super) fn make_span(self, unit: usize, class: usize) {
        self.table[unit].store(Run::pack(SPAN, class, 1), Ordering::Release);
    }

    /// Frees the run that begins at `first`; `warm` says whether its pages are still there.
    pub(super) fn release(self, first: usize, warm: bool) {
        let run = self.at(first);
        let state = State::unpack(self.states[first].load(Ordering::Relaxed));
        self.states[first].store(state.freed().pack(), Ordering::Release);
        let (kind, counter) = if warm { (WARM, self.warm) } else { (COLD, self.cold) };
        self.table[first].store(Run::pack(kind, 0, run.len), Ordering::Release);
        counter.store((get(counter) + run.len) as u64, Ordering::Relaxed);
        self.merged(self.at(first));
        if warm {
            self.remember(first);
        }
    }

    fn remember(self, first: usize) {
        let free = self.bins.iter().position(|bin| match get(bin) {
            0 => true,
            unit => self.at(unit - 1).kind != WARM,
        });
        let bin = free.unwrap_or(first % self.bins.len());
        self.bins[bin].store(first as u64 + 1, Ordering::Relaxed);
    }

    /// Gives the pages of all free runs back to the system.
    pub(super) fn cool(self, give_back: &mut impl FnMut(usize, usize) -> bool) {
        for run in self.iter() {
            if run.kind == WARM && give_back(run.first, run.len) {
                self.table[run.first].store(Run::pack(COLD, 0, run.len), Ordering::Release);
                self.warm.store((get(self.warm) - run.len) as u64, Ordering::Relaxed);
                self.cold.store((get(self.cold) + run.len) as u64, Ordering::Relaxed);
            }
        }
    }

    /// Rebuilds what is derived from the table, after a holder of the lock died.
    pub(super) fn recover(self) {
        for bin in self.bins {
            bin.store(0, Ordering::Relaxed);
        }
        let (mut warm, mut cold) = (0, 0);
        for run in self.iter() {
            let ownerless = run.kind == USED && {
                let word = self.states[run.first].load(Ordering::Relaxed);
                State::unpack(word).is_free()
            };
            if ownerless {
                // Killed in `release`, between the state and the table.
                self.table[run.first].store(Run::pack(WARM, 0, run.len), Ordering::Release);
            }
            match run.kind {
                WARM => warm += run.len,
                COLD => cold += run.len,
                _ if ownerless => warm += run.len,
                _ => {}
            }
        }
        self.warm.store(warm as u64, Ordering::Relaxed);
        self.cold.store(cold as u64, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::shm::word::Member;

    const FIRST: usize = 2;

    struct Owned {
        table: Vec<AtomicU64>,
        states: Vec<AtomicU64>,
        words: [AtomicU64; 3],
        bins: Vec<AtomicU64>,
        limit: usize,
    }

    impl Owned {
        fn new(units: usize, limit: usize) -> Self {
            let zeros = |n| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
            let words = [AtomicU64::new(FIRST as u64), AtomicU64::new(0), AtomicU64::new(0)];
            let (table, states) = (zeros(units), zeros(units));
            Self { table, states, words, bins: zeros(4), limit }
        }

        fn runs(&self) -> Runs<'_> {
            Runs {
                table: &self.table,
                states: &self.states,
                first: FIRST,
                limit: self.limit,
                top: &self.words[0],
                warm: &self.words[1],
                cold: &self.words[2],
                bins: &self.bins,
            }
        }

        /// Panics unless the runs tile the arena and the counters agree with them.
        fn check(&self, live: &BTreeMap<usize, usize>) {
            let runs = self.runs();
            let (mut at, mut warm, mut cold) = (FIRST, 0, 0);
            let mut used = BTreeMap::new();
            for run in runs.iter() {
                assert_eq!(run.first, at);
                assert!(run.len > 0);
                at += run.len;
                match run.kind {
                    WARM => warm += run.len,
                    COLD => cold += run.len,
                    _ => drop(used.insert(run.first, run.len)),
                }
            }
            assert_eq!(at, get(runs.top));
            assert_eq!((warm, cold), (get(runs.warm), get(runs.cold)));
            assert_eq!(&used, live, "blocks in the table are those that are alive");
        }
    }

    fn owner() -> Owner {
        Owner::Member(Member::new(1, 1))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(usize),
        Release(usize, bool),
        Cool,
        Recover,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1usize..9).prop_map(Step::Take),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(at, warm)| Step::Release(at, warm)),
            1 => Just(Step::Cool),
            1 => Just(Step::Recover),
        ]
    }

    proptest! {
        #[test]
        fn runs_behave_like_a_map_of_disjoint_ranges(steps in prop::collection::vec(step(), 1..200)) {
            let owned = Owned::new(64, 40);
            let mut live = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Take(len) => match owned.runs().take(len, Use::Large, owner(), |_, _| true) {
                        Ok((first, _)) => {
                            prop_assert!(live.range(..first + len).next_back()
                                .is_none_or(|(at, other)| at + other <= first), "overlaps");
                            live.insert(first, len);
                        }
                        Err(_) => {
                            let used: usize = live.values().sum();
                            // Only the limit or real fragmentation may refuse.
                            prop_assert!(used + len > 40 || largest_hole(&live) < len);
                        }
                    },
                    Step::Release(pick, warm) => {
                        let Some(first) = live.keys().copied().nth(pick % live.len().max(1)) else { continue };
                        live.remove(&first);
                        owned.runs().release(first, warm);
                    }
                    Step::Cool => owned.runs().cool(&mut |_, _| true),
                    Step::Recover => owned.runs().recover(),
                }
                owned.check(&live);
                prop_assert!(owned.runs().committed() <= 40);
            }
        }
    }

    fn largest_hole(live: &BTreeMap<usize, usize>) -> usize {
        let mut largest = 0;
        let mut at = FIRST;
        for (first, len) in live {
            largest = largest.max(first - at);
            at = first + len;
        }
        largest.max(64 - at)
    }

    #[test]
    fn freed_block_is_used_again_while_it_is_warm() {
        let owned = Owned::new(64, 40);
        let (first, _) = owned.runs().take(4, Use::Large, owner(), |_, _| true).unwrap();
        owned.runs().take(4, Use::Large, owner(), |_, _| true).unwrap();
        owned.runs().release(first, true);
        let (again, _) = owned.runs().take(3, Use::Large, owner(), |_, _| true).unwrap();
        assert_eq!(again, first);
    }

    #[test]
    fn free_run_at_the_end_is_used_together_with_what_lies_behind_it() {
        let owned = Owned::new(12, 40);
        owned.runs().take(4, Use::Large, owner(), |_, _| true).unwrap();
        let (last, _) = owned.runs().take(4, Use::Large, owner(), |_, _| true).unwrap();
        owned.runs().release(last, true);
        let (first, _) = owned.runs().take(6, Use::Large, owner(), |_, _| true).unwrap();
        assert_eq!(first, last);
        owned.check(&BTreeMap::from([(FIRST, 4), (last, 6)]));
    }

    #[test]
    fn recovery_frees_a_block_whose_release_was_cut_short() {
        let owned = Owned::new(64, 40);
        let (first, state) = owned.runs().take(4, Use::Large, owner(), |_, _| true).unwrap();
        owned.states[first].store(state.freed().pack(), Ordering::Relaxed);
        owned.runs().recover();
        owned.check(&BTreeMap::new());
        assert_eq!(owned.runs().used(), 0);
    }
}
