//! Conditions.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::manager::failed::CallFailed;
use crate::manager::proxies::{call_quietly, lock, proxy_type, seconds};
use crate::manager::proxy::Proxy;

proxy_type! {
    /// A condition in a manager: a recursive lock, and notifications for those who wait without it.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let (changed, items) = (manager.condition()?, manager.list::<u32>()?);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let guard = changed.lock().unwrap();
    ///         items.push(&7).unwrap();
    ///         guard.notify_all().unwrap();
    ///     });
    ///     let guard = changed.lock()?;
    ///     guard.wait_for(|| Ok(!items.is_empty()?), None)
    /// })?;
    /// assert_eq!(items.pop()?, Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ConditionProxy
}

/// Has the lock of a [`ConditionProxy`], and releases it on drop, which blocks until the server has
/// answered. It stays in its thread.
#[derive(Debug)]
#[must_use = "dropped at once, it releases the lock at once"]
pub struct ConditionGuard<'a> {
    proxy: &'a Proxy,
    of_this_thread: PhantomData<*const ()>,
}

impl ConditionProxy {
    /// Blocks until the lock is taken.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn lock(&self) -> Result<ConditionGuard<'_>, CallFailed> {
        lock::acquire(&self.proxy)?;
        Ok(ConditionGuard { proxy: &self.proxy, of_this_thread: PhantomData })
    }
}

impl ConditionGuard<'_> {
    /// Lets go of the lock, blocks until a notification comes, and takes the lock again; for
    /// `timeout` at most, not counting what the lock takes. `None` waits for ever. Says whether there
    /// was a notification.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, CallFailed> {
        self.proxy.call("wait", (timeout.map(seconds),))
    }

    /// Waits for notifications until `predicate` is true, for `timeout` at most, and says whether it
    /// is.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`], and those of `predicate`.
    pub fn wait_for(
        &self,
        mut predicate: impl FnMut() -> Result<bool, CallFailed>,
        timeout: Option<Duration>,
    ) -> Result<bool, CallFailed> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if predicate()? {
                return Ok(true);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            self.wait(left)?;
        }
    }

    /// Wakes `count` of those who wait.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn notify(&self, count: usize) -> Result<(), CallFailed> {
        self.proxy.call("notify", (count,))
    }

    /// Wakes all who wait.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn notify_all(&self) -> Result<(), CallFailed> {
        self.proxy.call("notify_all", ())
    }
}

impl Drop for ConditionGuard<'_> {
    fn drop(&mut self) {
        call_quietly(self.proxy, "release");
    }
}
