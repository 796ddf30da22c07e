//! Semaphores.

use std::time::Duration;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::{lock, proxy_type};

proxy_type! {
    /// A semaphore in a manager. Its permits belong to nobody: those of a process that dies are not
    /// given back.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let places = manager.semaphore(1)?;
    /// places.acquire()?;
    /// assert!(!places.try_acquire()?);
    /// places.release()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    SemaphoreProxy
}

impl SemaphoreProxy {
    /// Blocks until a permit is taken.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn acquire(&self) -> Result<(), CallFailed> {
        lock::acquire(&self.proxy)
    }

    /// Takes a permit if there is one, and says whether it did.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn try_acquire(&self) -> Result<bool, CallFailed> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// Blocks until a permit is taken, for `timeout` at most, and says whether one was.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool, CallFailed> {
        lock::acquire_timeout(&self.proxy, timeout)
    }

    /// Gives a permit back.
    ///
    /// # Errors
    ///
    /// [`CallFailed::Raised`] of the class `ValueError` when a bounded semaphore has all of its
    /// permits.
    pub fn release(&self) -> Result<(), CallFailed> {
        self.proxy.call("release", ())
    }
}
