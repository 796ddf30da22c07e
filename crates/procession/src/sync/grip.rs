//! What the handles of both kinds of locks are made of: how a process takes a lock, and gets past an
//! owner that will never release it.

use std::time::Instant;

use crate::error::WaitError;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{Member, Shared, ShmSafe};
use crate::sync::lock::LockOutcome;
use crate::sync::spin::SpinBudget;
use crate::sync::who::Who;

/// Looking whether a process lives reads a file of `/proc`, too much for every failed try.
pub(super) const TRIES_PER_LOOK: u32 = 64;

/// The state of a lock.
pub(crate) trait Takeable {
    /// Takes the lock if that is possible without waiting.
    fn take(&self, who: Who) -> bool;

    /// Blocks until the lock is taken. `is_lost` says of an owner that it will never release it.
    fn wait(
        &self,
        who: Who,
        spin: &SpinBudget,
        deadline: Option<Instant>,
        is_lost: impl Fn(Member) -> bool,
    ) -> Result<LockOutcome, WaitError>;

    /// Takes the lock if it is free, claimed or not, or if its owner will never release it.
    fn take_past_the_dead(&self, who: Who, is_lost: impl Fn(Member) -> bool)
    -> Option<LockOutcome>;

    /// Whether `owner` will never release a lock of this kind.
    fn is_lost(owner: Member) -> bool;
}

/// A handle to a lock.
pub(super) struct Grip<S> {
    pub(super) state: Shared<S>,
    spin: SpinBudget,
    /// Failed tries of this process; every [`TRIES_PER_LOOK`]th looks after the owner.
    failed_tries: AtomicU32,
}

impl<S> Grip<S> {
    pub(super) fn of(state: Shared<S>) -> Self {
        Self { state, spin: SpinBudget::new(), failed_tries: AtomicU32::new(0) }
    }
}

impl<S> Clone for Grip<S> {
    fn clone(&self) -> Self {
        Self { spin: self.spin.clone(), ..Self::of(self.state.clone()) }
    }
}

impl<S: Takeable + ShmSafe> Grip<S> {
    #[inline]
    pub(super) fn acquire(&self, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        let who = Who::here();
        if self.state.take(who) {
            return Ok(LockOutcome::Acquired);
        }
        self.wait(who, deadline)
    }

    #[cold]
    fn wait(&self, who: Who, deadline: Option<Instant>) -> Result<LockOutcome, WaitError> {
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return self.try_acquire().ok_or(WaitError::TimedOut);
        }
        self.state.wait(who, &self.spin, deadline, S::is_lost)
    }

    #[inline]
    pub(super) fn try_acquire(&self) -> Option<LockOutcome> {
        let who = Who::here();
        if self.state.take(who) {
            Some(LockOutcome::Acquired)
        } else {
            self.look_after_failure(who)
        }
    }

    #[cold]
    fn look_after_failure(&self, who: Who) -> Option<LockOutcome> {
        let tries = self.failed_tries.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if !tries.is_multiple_of(TRIES_PER_LOOK) {
            return None;
        }
        self.state.take_past_the_dead(who, S::is_lost)
    }
}
