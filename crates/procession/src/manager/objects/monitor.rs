//! Waiting on behalf of a client, which may die meanwhile.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::manager::object::{Bound, Invocation, Raised};
use crate::manager::objects::slice;
use crate::pickle::Value;

/// A state, and those that wait until it is another one.
#[derive(Debug, Default)]
pub(super) struct Monitor<S> {
    state: Mutex<S>,
    changed: Condvar,
}

impl<S> Monitor<S> {
    pub(super) fn new(state: S) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        // Nothing panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self, waiters: usize) {
        if waiters > 1 {
            self.changed.notify_all();
        } else if waiters > 0 {
            self.changed.notify_one();
        }
    }

    pub(super) fn notify_all(&self) {
        self.changed.notify_all();
    }

    /// Waits until the state is as it should be; false if the time is over before that. A timeout
    /// of `None` waits for ever. An error if the client whose call this is has gone, also where
    /// there was nothing to wait for; without a call it is the program itself that waits.
    pub(super) fn wait_until<'a>(
        &'a self,
        mut state: MutexGuard<'a, S>,
        call: Option<&Invocation<'_>>,
        timeout: Option<Duration>,
        is_ready: impl Fn(&S) -> bool,
    ) -> Result<(MutexGuard<'a, S>, bool), Raised> {
        let deadline = deadline_after(timeout);
        while !is_ready(&state) {
            if is_over(deadline) {
                return Ok((state, false));
            }
            if let Some(call) = call {
                call.may_block();
                // It may be gone already. What goes from here on tells so under the lock.
                self.check(call)?;
            }
            state = self.wait(state, deadline);
        }
        // What is given to a client that is gone would stay with it.
        call.map_or(Ok(()), |call| self.check(call))?;
        Ok((state, true))
    }

    /// An error if the client whose call this is has gone.
    fn check(&self, call: &Invocation<'_>) -> Result<(), Raised> {
        if call.is_connected() {
            return Ok(());
        }
        // The wake-up may have been meant for this client alone, and not all that wait may wait for
        // the same.
        self.changed.notify_all();
        Err(Raised::gone())
    }

    /// Waits for one change, or for nothing at all.
    pub(super) fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, S>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, S> {
        let Some(deadline) = deadline else {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A deadline too far away to be expressed is none.
pub(super) fn deadline_after(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

pub(super) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

/// Seconds as Python gives them, where `None` is no limit; `None` as well if there is no such
/// argument. Negative ones are given as such.
pub(super) fn seconds(arguments: &mut Bound) -> Result<Option<f64>, Raised> {
    match arguments.next_if_given()? {
        None | Some(Value::None) => Ok(None),
        Some(Value::Float(seconds)) => Ok(Some(seconds)),
        Some(value) => {
            let text = "a timeout is a number of seconds, or None";
            let whole = slice::integer(&value).ok_or_else(|| Raised::type_error(text))?;
            Ok(Some(whole as f64))
        }
    }
}

/// Seconds as a time, where less than nothing is nothing and too much is no limit.
pub(super) fn duration(seconds: Option<f64>) -> Option<Duration> {
    seconds.and_then(|seconds| {
        if seconds > 0.0 { Duration::try_from_secs_f64(seconds).ok() } else { Some(Duration::ZERO) }
    })
}

/// Whether an argument is true in Python, or what it is if it was not given.
pub(super) fn flag(arguments: &mut Bound, otherwise: bool) -> Result<bool, Raised> {
    Ok(match arguments.next_if_given()? {
        None => otherwise,
        Some(Value::None) => false,
        Some(value) => slice::integer(&value) != Some(0),
    })
}
