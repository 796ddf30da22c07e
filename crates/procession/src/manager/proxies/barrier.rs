//! Barriers.

use std::fmt;
use std::time::Duration;

use crate::manager::failed::{CallFailed, ProxyError};
use crate::manager::proxies::{proxy_type, seconds};

/// The barrier is broken: somebody gave up waiting, or broke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier is broken")
    }
}

impl std::error::Error for Broken {}

proxy_type! {
    /// A barrier in a manager, at which a number of threads or processes wait for each other.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let barrier = manager.barrier(2)?;
    /// let first = std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| barrier.wait(None).unwrap());
    ///     barrier.wait(None).unwrap() + other.join().unwrap()
    /// });
    /// assert_eq!(first, 1); // 0 and 1
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    BarrierProxy
}

impl BarrierProxy {
    /// Blocks until all have come, and returns a number that no other of them gets, from 0 on.
    ///
    /// If that takes longer than `timeout`, the barrier breaks, for the others too. `None` waits for
    /// ever.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] when the barrier is broken.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<usize, ProxyError<Broken>> {
        let waited = self.proxy.call("wait", (timeout.map(seconds),));
        waited.map_err(|failed| ProxyError::where_raised(failed, "BrokenBarrierError", Broken))
    }

    /// Breaks the barrier: whoever waits there, or comes later, gets an error.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn abort(&self) -> Result<(), CallFailed> {
        self.proxy.call("abort", ())
    }

    /// Makes the barrier as new; whoever waits there gets an error.
    ///
    /// # Errors
    ///
    /// As [`abort`](Self::abort).
    pub fn reset(&self) -> Result<(), CallFailed> {
        self.proxy.call("reset", ())
    }

    /// How many must come.
    ///
    /// # Errors
    ///
    /// As [`abort`](Self::abort).
    pub fn parties(&self) -> Result<usize, CallFailed> {
        self.proxy.call("__getattribute__", ("parties",))
    }

    /// How many wait.
    ///
    /// # Errors
    ///
    /// As [`abort`](Self::abort).
    pub fn n_waiting(&self) -> Result<usize, CallFailed> {
        self.proxy.call("__getattribute__", ("n_waiting",))
    }

    /// Whether the barrier is broken.
    ///
    /// # Errors
    ///
    /// As [`abort`](Self::abort).
    pub fn is_broken(&self) -> Result<bool, CallFailed> {
        self.proxy.call("__getattribute__", ("broken",))
    }
}
