//! Spinning before a sleep, as long as it brings something.
//!
//! What is spun on here is a socket, so each look is a system call, and the other side is a whole
//! program that may have no processor to run on: then spinning takes away the one that it needs,
//! which was seen to make a call eight times as long. So after a few times in vain nothing is spun
//! for a while, longer each time, until one attempt succeeds.
//!
//! Where both sides sleep, each finds that the other takes as long as it takes to wake it, and both
//! would sleep for ever although they answer in a tenth of that. So the attempt after a pause spins
//! for as long as waking the other side takes.

use std::time::Instant;

use crate::primitive::{AtomicU32, Ordering};
use crate::sync::spin::SpinBudget;

/// Times in vain after which a pause is made.
const IN_VAIN: u32 = 3;
/// The longest pause, in waits.
const LONGEST_PAUSE: u32 = 256;

/// Whether to spin at one wait site.
#[derive(Debug, Default)]
pub(super) struct Eager {
    budget: SpinBudget,
    /// Times in vain, in a row.
    failures: AtomicU32,
    /// Waits without spinning that are left.
    pause: AtomicU32,
}

impl Eager {
    /// Looks until there is something, or it is time to sleep.
    pub(super) fn spin<R>(&self, ready: impl FnMut() -> Option<R>) -> Option<R> {
        // Threads that share it may overwrite each other: it is advice.
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.pause.store(pause - 1, Ordering::Relaxed);
            return None;
        }
        if self.failures.load(Ordering::Relaxed) >= IN_VAIN {
            self.budget.raise_to_ceiling();
        }
        let found = self.budget.spin(None, ready);
        let failures = match found {
            Some(_) => 0,
            None => self.failures.load(Ordering::Relaxed).saturating_add(1),
        };
        self.failures.store(failures, Ordering::Relaxed);
        if let Some(beyond) = failures.checked_sub(IN_VAIN) {
            let pause = 1_u32.checked_shl(beyond).unwrap_or(LONGEST_PAUSE);
            self.pause.store(pause.min(LONGEST_PAUSE), Ordering::Relaxed);
        }
        found
    }

    /// Draws the lesson from a sleep that began at this time.
    pub(super) fn learn_from_sleep(&self, since: Instant) {
        self.budget.learn_from_sleep(Some(since.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_in_vain_pauses_and_success_ends_that() {
        let eager = Eager::default();
        let mut looked = 0;
        for _ in 0..10 * LONGEST_PAUSE {
            let mut spun = false;
            eager.spin(|| {
                spun = true;
                None::<()>
            });
            looked += u32::from(spun);
        }
        // Where there is one processor nothing is ever spun.
        assert!(looked < 2 * LONGEST_PAUSE, "spun {looked} times in vain");
        if looked > 0 {
            while eager.spin(|| Some(())).is_none() {}
            assert!(eager.spin(|| Some(())).is_some(), "pauses after a success");
        }
    }
}
