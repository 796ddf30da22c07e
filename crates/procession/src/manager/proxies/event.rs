//! Events.

use std::time::Duration;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::{proxy_type, seconds};

proxy_type! {
    /// An event in a manager, which is set or not.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let ready = manager.event()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| ready.set().unwrap());
    ///     ready.wait(None)
    /// })?;
    /// assert!(ready.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    EventProxy
}

impl EventProxy {
    /// Whether it is set.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call), as are those of all methods.
    pub fn is_set(&self) -> Result<bool, CallFailed> {
        self.proxy.call("is_set", ())
    }

    /// Sets it, and wakes all who wait.
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn set(&self) -> Result<(), CallFailed> {
        self.proxy.call("set", ())
    }

    /// Takes it back.
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn clear(&self) -> Result<(), CallFailed> {
        self.proxy.call("clear", ())
    }

    /// Blocks until it is set, for `timeout` at most, and says whether it is. `None` waits for ever.
    ///
    /// # Errors
    ///
    /// As [`is_set`](Self::is_set).
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, CallFailed> {
        self.proxy.call("wait", (timeout.map(seconds),))
    }
}
