//! When a worker has done enough, and makes room for a fresh one.

use std::time::Duration;

use crate::pool::transport::Limits;
use crate::sys::{clock, cpu};

/// How often a worker looks at its memory at most. That costs some microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How worn a worker is.
#[derive(Debug)]
pub(super) struct Wear {
    limits: Limits,
    tasks: u64,
    /// When to look at the memory again, in nanoseconds.
    next_look: u64,
}

impl Wear {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, tasks: 0, next_look: 0 }
    }

    /// Counts a task. Returns whether it was the worker's last.
    pub(super) fn is_worn(&mut self) -> bool {
        self.tasks += 1;
        let spent = self.limits.tasks != 0 && self.tasks >= self.limits.tasks;
        spent || (self.limits.memory != 0 && self.is_too_large())
    }

    fn is_too_large(&mut self) -> bool {
        let now = clock::last_tick();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + clock::span(LOOK_EVERY);
        // A size that cannot be read is none to act on.
        cpu::own_memory().is_ok_and(|bytes| bytes > self.limits.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_without_limits_is_never_worn() {
        let mut wear = Wear::new(Limits::default());
        assert!((0..1000).all(|_| !wear.is_worn()));
    }

    #[test]
    fn last_task_is_the_one_that_reaches_the_limit() {
        let mut wear = Wear::new(Limits { tasks: 3, memory: 0 });
        let worn = [(); 3].map(|()| wear.is_worn());
        assert_eq!(worn, [false, false, true]);
    }

    #[test]
    fn worker_that_has_grown_is_worn() {
        let limit = cpu::own_memory().unwrap() + (64 << 20);
        let mut wear = Wear::new(Limits { tasks: 0, memory: limit });
        assert!(!wear.is_worn());
        let grown = vec![1_u8; 192 << 20];
        while !wear.is_worn() {}
        assert_eq!(grown[grown.len() - 1], 1);
    }
}
