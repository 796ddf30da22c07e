//! Blocking as Python expects it: with the interpreter let go of, and signal handlers run.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use procession::sync::on_slice;
use pyo3::prelude::*;
use rustix::process::getpid;
use rustix::thread::gettid;

/// Errors of blocking calls that say whether a signal cut the call short.
pub(crate) trait Interruption {
    /// Whether nothing happened but a signal.
    fn is_interruption(&self) -> bool;
}

/// Calls `attempt` with the interpreter let go of, again after each signal (PEP 475).
///
/// The outer error is what a signal handler raised, such as `KeyboardInterrupt`.
pub(crate) fn blocking<T, E>(
    py: Python<'_>,
    mut attempt: impl FnMut() -> Result<T, E> + Send,
) -> PyResult<Result<T, E>>
where
    T: Send,
    E: Send + Interruption,
{
    loop {
        match py.detach(&mut attempt) {
            Err(error) if error.is_interruption() => py.check_signals()?,
            result => return Ok(result),
        }
    }
}

/// Has the engine leave waits now and then, as if interrupted, in the thread that runs the handlers.
///
/// A signal that comes after [`blocking`] has looked, and before the thread sleeps, interrupts
/// nothing. Whether one came is not to be learned without running its handler, and that must not
/// happen in the middle of a wait: it may use the same object.
pub(crate) fn watch_signals() {
    // Only a process's first thread is meant; the child of a fork has no other.
    on_slice(|| gettid() == getpid());
}

/// Turns Python's seconds into a deadline. `None` is no limit, zero or less means not to block.
///
/// NaN counts as zero, and more than can be represented as no limit.
pub(crate) fn deadline_after(seconds: Option<f64>) -> Option<Instant> {
    let seconds = seconds?;
    let timeout =
        if seconds > 0.0 { Duration::try_from_secs_f64(seconds).ok()? } else { Duration::ZERO };
    Instant::now().checked_add(timeout)
}

/// A deadline for calls that must not block, without a look at the clock.
#[inline]
pub(crate) fn at_once() -> Option<Instant> {
    static PAST: LazyLock<Instant> = LazyLock::new(Instant::now);
    Some(*PAST)
}

/// Python's idea of true and false, for arguments: `q.get(1)` is a blocking `get`.
pub(crate) fn truth(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.is_truthy()
}
