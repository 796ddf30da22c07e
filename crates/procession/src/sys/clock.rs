//! The monotonic clock as a number, for words in shared memory.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds on the clock that [`Instant`](std::time::Instant) shows; the same in every process.
pub(crate) fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// As [`now`], as of the last tick of the kernel: some milliseconds late, at a fraction of the cost.
pub(crate) fn last_tick() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse))
}

/// A span in nanoseconds; one of centuries counts as the longest there is.
pub(crate) fn span(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Timespec) -> u64 {
    // The clock counts from the start of the machine, so neither part is negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_count_from_the_same_moment() {
        let tick = last_tick();
        let exact = now();
        assert!(tick <= exact);
        let later = (0..1_000_000_000_u64).any(|_| last_tick() >= exact);
        assert!(later, "the ticks never came up to a moment that has passed");
    }
}
