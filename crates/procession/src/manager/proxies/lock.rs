//! Locks.

use std::marker::PhantomData;
use std::time::Duration;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::{call_quietly, proxy_type, seconds};
use crate::manager::proxy::Proxy;

/// Takes a lock or a permit; blocks until it is there.
pub(super) fn acquire(proxy: &Proxy) -> Result<(), CallFailed> {
    // A lock that has no limit of time is always taken in the end.
    proxy.call::<_, bool>("acquire", ()).map(drop)
}

/// Takes a lock or a permit if that takes no longer than `timeout`, zero to only try.
pub(super) fn acquire_timeout(proxy: &Proxy, timeout: Duration) -> Result<bool, CallFailed> {
    if timeout.is_zero() {
        return proxy.call("acquire", (false,));
    }
    proxy.call("acquire", (true, seconds(timeout)))
}

proxy_type! {
    /// A lock in a manager.
    ///
    /// It belongs to no thread: any may release it.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let lock = manager.lock()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.try_lock()?.is_none());
    /// drop(guard);
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    LockProxy
}

/// Has a [`LockProxy`] locked, and releases it on drop, which blocks until the server has answered.
#[derive(Debug)]
#[must_use = "dropped at once, it releases the lock at once"]
pub struct LockGuard<'a>(&'a Proxy);

impl LockProxy {
    /// Blocks until the lock is taken.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn lock(&self) -> Result<LockGuard<'_>, CallFailed> {
        acquire(&self.proxy)?;
        Ok(LockGuard(&self.proxy))
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>, CallFailed> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Blocks until the lock is taken, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<LockGuard<'_>>, CallFailed> {
        Ok(acquire_timeout(&self.proxy, timeout)?.then(|| LockGuard(&self.proxy)))
    }

    /// Releases the lock, whoever has taken it: for one whose guard was forgotten, or that another
    /// process has left to this one.
    ///
    /// # Errors
    ///
    /// [`CallFailed::Raised`] of the class `RuntimeError` when nobody has it.
    pub fn release(&self) -> Result<(), CallFailed> {
        self.proxy.call("release", ())
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        call_quietly(self.0, "release");
    }
}

proxy_type! {
    /// A lock in a manager that its owner, a thread of a process, can take several times.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let lock = manager.rlock()?;
    /// let outer = lock.lock()?;
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    RLockProxy
}

/// Has an [`RLockProxy`] locked once, and releases that on drop, which blocks until the server has
/// answered. It stays in its thread.
#[derive(Debug)]
#[must_use = "dropped at once, it releases the lock at once"]
pub struct RLockGuard<'a> {
    proxy: &'a Proxy,
    of_this_thread: PhantomData<*const ()>,
}

impl RLockProxy {
    /// Blocks until the lock is taken once more.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn lock(&self) -> Result<RLockGuard<'_>, CallFailed> {
        acquire(&self.proxy)?;
        Ok(self.guard())
    }

    /// Takes the lock once more if no other thread has it.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, CallFailed> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Blocks until the lock is taken once more, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<RLockGuard<'_>>, CallFailed> {
        let taken = acquire_timeout(&self.proxy, timeout)?;
        Ok(taken.then(|| self.guard()))
    }

    fn guard(&self) -> RLockGuard<'_> {
        RLockGuard { proxy: &self.proxy, of_this_thread: PhantomData }
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        call_quietly(self.proxy, "release");
    }
}
