//! How long to spin before going to sleep.
//!
//! Waking a sleeping process costs 20 µs and more on a virtual machine, a spinning one answers in
//! well under a microsecond. So every wait spins first, for as long as spinning has paid lately.
//!
//! # How the budget adapts
//!
//! A [`SpinBudget`] belongs to one wait site of one process and lives in that process's own
//! memory, because what pays differs from site to site and needs no agreement between processes.
//!
//! | what happened                                                       | budget        |
//! |---------------------------------------------------------------------|---------------|
//! | the condition came true while spinning                              | doubles       |
//! | it came true during a sleep shorter than the ceiling                | doubles       |
//! | the sleep was longer, or it did not come true at all                | halves        |
//! | the waker runs on this very CPU                                     | left as it is |
//!
//! It stays between 2 µs and 50 µs. The ceiling is about what a wake-up costs, so a wait
//! that spins in vain takes at most twice what the better choice would have taken. The floor is
//! too short to be noticed next to a sleep, and long enough to notice a partner that has become
//! quick. The second row is what finds a partner that answers in 10 µs or 20 µs: no spinning at
//! the floor would ever see it answer.
//!
//! `PROCESSION_SPIN_US` replaces the ceiling (and the floor, where that is higher). 0 turns
//! spinning off, which is also the default where the machine, or its share, has one CPU only.
//!
//! # Time
//!
//! A clock read inside the loop would cost as much as several looks at the condition, so time is
//! counted in spin hints. How many fit into a microsecond differs thirtyfold between processors
//! and is measured once per process, at the first wait that finds nothing.

use std::time::Duration;

use crate::primitive::{AtomicU32, Ordering, spin_hint};

/// The budget starts at this part of the ceiling.
const START_DIVISOR: u32 = 4;

/// Spin hints to spend at one wait site before sleeping; adapts to what spinning brings there.
#[derive(Debug, Default)]
pub(crate) struct SpinBudget {
    /// In spin hints; 0 until the first wait.
    hints: AtomicU32,
}

impl SpinBudget {
    /// Makes the budget of one wait site. Cheap: nothing is measured before the first wait.
    pub(crate) fn new() -> Self {
        Self { hints: AtomicU32::new(0) }
    }

    /// Makes the budget what it is at the beginning, if it is less.
    pub(crate) fn raise_to_start(&self) {
        let tuning = tuning::get();
        self.set(&tuning, self.hints(&tuning).max(tuning.start()));
    }

    /// Makes the budget the largest there is, for an attempt after a long time without.
    pub(crate) fn raise_to_ceiling(&self) {
        let tuning = tuning::get();
        self.set(&tuning, tuning.ceiling());
    }

    /// Spins until `ready` gives a value, within the budget and `limit`; `None` if it gave none.
    pub(crate) fn spin<R>(
        &self,
        limit: Option<Duration>,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let tuning = tuning::get();
        let mut left = tuning.within(limit, self.hints(&tuning));
        let mut burst = 1;
        while left > 0 {
            for _ in 0..burst.min(left) {
                spin_hint();
            }
            if let Some(value) = ready() {
                self.double(&tuning);
                return Some(value);
            }
            left = left.saturating_sub(burst);
            burst = (burst * 2).min(tuning.longest_burst());
        }
        None
    }

    /// Draws the lesson from a wait that had to sleep. `slept` is how long, up to the condition
    /// coming true; `None` if it did not.
    pub(crate) fn learn_from_sleep(&self, slept: Option<Duration>) {
        let tuning = tuning::get();
        if slept.is_some_and(|slept| slept <= tuning.ceiling_time()) {
            self.double(&tuning);
        } else {
            self.halve(&tuning);
        }
    }

    /// How much to spin this time.
    fn hints(&self, tuning: &Tuning) -> u32 {
        if tuning.is_off() {
            return 0;
        }
        match self.hints.load(Ordering::Relaxed) {
            0 => tuning.start(),
            hints => hints,
        }
    }

    fn double(&self, tuning: &Tuning) {
        self.set(tuning, self.hints(tuning).saturating_mul(2));
    }

    fn halve(&self, tuning: &Tuning) {
        self.set(tuning, self.hints(tuning) / 2);
    }

    fn set(&self, tuning: &Tuning, hints: u32) {
        if tuning.is_off() {
            return;
        }
        let hints = hints.clamp(tuning.floor(), tuning.ceiling());
        // Threads that share the budget may overwrite each other: it is advice. Writing only
        // what changes keeps the line shared between them.
        if hints != self.hints.load(Ordering::Relaxed) {
            self.hints.store(hints, Ordering::Relaxed);
        }
    }
}

impl Clone for SpinBudget {
    /// The copy starts with what the original has learned.
    fn clone(&self) -> Self {
        Self { hints: AtomicU32::new(self.hints.load(Ordering::Relaxed)) }
    }
}

/// What holds for every budget of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuning {
    /// Spin hints that fit into a microsecond; at least 1.
    hints_per_us: u32,
    /// The longest spin, in microseconds; 0 means never.
    ceiling_us: u32,
}

// In a model nothing is measured or read from the environment.
#[cfg_attr(loom, allow(dead_code))]
impl Tuning {
    /// The longest a user can ask for: beyond it, spinning is a busy loop.
    const MOST_CEILING_US: u32 = 10_000;
    const DEFAULT_CEILING_US: u32 = 50;
    const FLOOR_US: u32 = 2;
    const MOST_HINTS_PER_US: u32 = 10_000;

    fn is_off(&self) -> bool {
        self.ceiling_us == 0
    }

    fn ceiling(&self) -> u32 {
        self.hints_per_us * self.ceiling_us
    }

    fn floor(&self) -> u32 {
        self.hints_per_us * self.ceiling_us.min(Self::FLOOR_US)
    }

    fn start(&self) -> u32 {
        (self.ceiling() / START_DIVISOR).max(self.floor())
    }

    fn ceiling_time(&self) -> Duration {
        Duration::from_micros(u64::from(self.ceiling_us))
    }

    /// Hints between two looks once the wait is no longer fresh: a quarter of a microsecond, so
    /// that whoever makes the condition true seldom has its cache line taken away.
    fn longest_burst(&self) -> u32 {
        (self.hints_per_us / 4).max(1)
    }

    /// `hints`, or as many as fit into `limit` if those are fewer.
    fn within(&self, limit: Option<Duration>, hints: u32) -> u32 {
        let Some(limit) = limit else { return hints };
        let fitting = limit.as_micros().saturating_mul(u128::from(self.hints_per_us));
        hints.min(u32::try_from(fitting).unwrap_or(u32::MAX))
    }

    /// The ceiling asked for in `PROCESSION_SPIN_US`, in microseconds; `None` if it is no number.
    fn parse_ceiling(text: &str) -> Option<u32> {
        text.trim().parse::<u32>().ok().map(|us| us.min(Self::MOST_CEILING_US))
    }
}

/// The CPU of whoever last woke a sleeper, in shared memory: a hint whether to spin.
///
/// A waiter that spins on the CPU that the other side needs only keeps it from running: there a
/// round trip took 18 times as long as with sleeping at once. The waker notes its CPU down only
/// when it wakes somebody, which keeps the common path free of it. That is often enough: a
/// waiter that was wrong about the place sleeps, and is woken with the right one noted.
///
/// Yielding the CPU to the waker instead of sleeping was tried: it halves the round trip on a
/// CPU that the two have to themselves, but beside a busy program each yield may cost a whole
/// time slice, and round trips became up to twenty times slower.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct WakerCpu {
    /// The CPU's number plus 1; 0 while nobody was woken.
    cpu: AtomicU32,
}

impl WakerCpu {
    /// Notes that the caller is about to wake somebody.
    pub(crate) fn note(&self) {
        let cpu = this_cpu();
        if self.cpu.load(Ordering::Relaxed) != cpu {
            self.cpu.store(cpu, Ordering::Relaxed);
        }
    }

    /// Notes what another one does.
    pub(crate) fn take_over(&self, other: &Self) {
        self.cpu.store(other.cpu.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether the last waker was on the CPU that the caller is on.
    pub(crate) fn is_here(&self) -> bool {
        let cpu = self.cpu.load(Ordering::Relaxed);
        cpu != 0 && cpu == this_cpu()
    }
}

/// The number of the CPU this thread runs on, plus 1. To the model checker all are elsewhere.
fn this_cpu() -> u32 {
    if cfg!(loom) { 0 } else { crate::sys::cpu::current_cpu().wrapping_add(1) }
}

/// Finds out how to spin, if this process does not know yet. Children that are forked later know too,
/// and need not each read what the system says of processors.
pub(crate) fn tune() {
    tuning::get();
}

#[cfg(not(loom))]
mod tuning {
    use std::hint::black_box;
    use std::time::Instant;

    use super::{Duration, Tuning, spin_hint};
    use crate::primitive::{AtomicU32, AtomicU64, Ordering};

    /// `hints_per_us << 32 | ceiling_us`; 0 until measured. Not a `OnceLock`: a process forked
    /// while another thread measures would wait for that thread for ever.
    static TUNING: AtomicU64 = AtomicU64::new(0);

    pub(super) fn get() -> Tuning {
        match TUNING.load(Ordering::Relaxed) {
            0 => find_out(),
            packed => Tuning { hints_per_us: (packed >> 32) as u32, ceiling_us: packed as u32 },
        }
    }

    /// Threads may do this at the same time; any one's result is as good.
    #[cold]
    fn find_out() -> Tuning {
        let tuning = Tuning { hints_per_us: hints_per_us(), ceiling_us: ceiling_us() };
        let packed = u64::from(tuning.hints_per_us) << 32 | u64::from(tuning.ceiling_us);
        TUNING.store(packed, Ordering::Relaxed);
        tuning
    }

    fn ceiling_us() -> u32 {
        if let Ok(text) = std::env::var("PROCESSION_SPIN_US") {
            if let Some(asked) = Tuning::parse_ceiling(&text) {
                return asked;
            }
            tracing::warn!(value = %text, "PROCESSION_SPIN_US is not a number of microseconds");
        }
        // Not the CPUs of this process: where each process is kept on a CPU of its own, spinning
        // pays as much as elsewhere. Where all are kept on one, `WakerCpu` tells.
        if crate::sys::cpu::shared_cpus() > 1 { Tuning::DEFAULT_CEILING_US } else { 0 }
    }

    /// Measures the spin loop. The quickest of several rounds counts: the others were disturbed.
    fn hints_per_us() -> u32 {
        const ROUNDS: usize = 4;
        const HINTS: u32 = 200;
        let best = (0..ROUNDS).map(|_| time_of(HINTS)).min().unwrap_or(Duration::ZERO);
        let per_us = u128::from(HINTS) * 1000 / best.as_nanos().max(1);
        u32::try_from(per_us).unwrap_or(u32::MAX).clamp(1, Tuning::MOST_HINTS_PER_US)
    }

    fn time_of(hints: u32) -> Duration {
        let word = AtomicU32::new(0);
        let start = Instant::now();
        for _ in 0..hints {
            spin_hint();
            black_box(black_box(&word).load(Ordering::SeqCst));
        }
        start.elapsed()
    }
}

/// Under the model checker nothing spins: it tries every interleaving as it is.
#[cfg(loom)]
mod tuning {
    use super::Tuning;

    pub(super) fn get() -> Tuning {
        Tuning { hints_per_us: 1, ceiling_us: 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const TUNING: Tuning = Tuning { hints_per_us: 40, ceiling_us: 50 };
    const OFF: Tuning = Tuning { hints_per_us: 40, ceiling_us: 0 };

    #[test]
    fn budget_doubles_up_to_the_ceiling() {
        let budget = SpinBudget::new();
        for _ in 0..10 {
            budget.double(&TUNING);
        }
        assert_eq!(budget.hints(&TUNING), TUNING.ceiling(), "success must end at the ceiling");
    }

    #[test]
    fn budget_halves_down_to_the_floor_and_recovers() {
        let budget = SpinBudget::new();
        for _ in 0..10 {
            budget.halve(&TUNING);
        }
        assert_eq!(budget.hints(&TUNING), TUNING.floor(), "failure must end at the floor");
        assert!(TUNING.floor() > 0, "at a floor of nothing it could never learn again");
        budget.double(&TUNING);
        assert_eq!(budget.hints(&TUNING), 2 * TUNING.floor());
    }

    #[test]
    fn budget_is_raised_to_its_start_but_not_lowered() {
        let tuning = tuning::get();
        let budget = SpinBudget::new();
        budget.learn_from_sleep(None);
        budget.raise_to_start();
        let start = SpinBudget::new().hints(&tuning);
        assert_eq!(budget.hints(&tuning), start);
        budget.double(&tuning);
        let more = budget.hints(&tuning);
        budget.raise_to_start();
        assert_eq!(budget.hints(&tuning), more);
    }

    #[test]
    fn budget_can_be_raised_to_its_ceiling() {
        let tuning = tuning::get();
        let budget = SpinBudget::new();
        budget.learn_from_sleep(None);
        budget.raise_to_ceiling();
        assert_eq!(budget.hints(&tuning), tuning.ceiling());
    }

    #[test]
    fn nothing_spins_when_spinning_is_off() {
        let budget = SpinBudget::new();
        budget.double(&OFF);
        assert_eq!(budget.hints(&OFF), 0);
    }

    #[test]
    fn spin_never_outlasts_the_time_left() {
        assert_eq!(TUNING.within(Some(Duration::from_micros(3)), 1000), 120);
        assert_eq!(TUNING.within(Some(Duration::MAX), 1000), 1000);
        assert_eq!(TUNING.within(None, 1000), 1000);
    }

    #[test]
    fn ceiling_is_read_as_microseconds() {
        assert_eq!(Tuning::parse_ceiling("0"), Some(0));
        assert_eq!(Tuning::parse_ceiling(" 20 "), Some(20));
        assert_eq!(Tuning::parse_ceiling("4000000000"), Some(Tuning::MOST_CEILING_US));
        assert_eq!(Tuning::parse_ceiling("fast"), None);
    }

    #[test]
    fn spin_returns_what_ready_gives() {
        let mut looks = 0;
        let budget = SpinBudget::new();
        let value = budget.spin(None, || {
            looks += 1;
            (looks == 3).then_some(7)
        });
        assert_eq!(value, if tuning::get().is_off() { None } else { Some(7) });
    }

    #[test]
    fn measured_tuning_is_usable() {
        let tuning = tuning::get();
        assert!(tuning.hints_per_us >= 1 && tuning.hints_per_us <= Tuning::MOST_HINTS_PER_US);
        assert!(tuning.ceiling_us <= Tuning::MOST_CEILING_US);
    }
}
