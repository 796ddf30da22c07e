//! Waiting for a process and for what it returns.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::error::WaitError;
use crate::process::child::Child;
use crate::process::error::JoinError;
use crate::process::exchange::{self, Exchange, Outcome};
use crate::process::panics::PanicReport;
use crate::process::status::ExitStatus;
use crate::shm::Shared;
#[cfg(feature = "tokio")]
use crate::sys::fd;

/// A process that was started, and the value that its function will return.
///
/// Dropping the handle lets the process go on by itself; its value is lost then.
pub struct JoinHandle<R> {
    child: Child,
    name: String,
    exchange: Shared<Exchange>,
    // A handle does not hold an `R`, it makes one.
    returns: PhantomData<fn() -> R>,
}

// A handle can be given to another thread even if the value could not.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<JoinHandle<*const ()>>();
};

impl<R> JoinHandle<R> {
    pub(crate) fn new(child: Child, name: String, exchange: Shared<Exchange>) -> Self {
        Self { child, name, exchange, returns: PhantomData }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the name of the process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says whether the process has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.child.is_alive()
    }

    /// Returns how the process ended, or `None` if it has not.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.try_wait()
    }

    /// Returns a descriptor that becomes readable when the process has ended.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.child.sentinel()
    }

    /// Interrupts the process as Ctrl-C does, with `SIGINT`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn interrupt(&self) -> io::Result<()> {
        self.child.interrupt()
    }

    /// Asks the process to end, with `SIGTERM`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// What [pidfd_send_signal(2)](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html)
    /// reports.
    pub fn terminate(&self) -> io::Result<()> {
        self.child.terminate()
    }

    /// Ends the process at once, with `SIGKILL`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`terminate`](Self::terminate).
    pub fn kill(&self) -> io::Result<()> {
        self.child.kill()
    }

    /// Returns the process without its value.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Lets go of the value and returns the process.
    pub fn into_child(self) -> Child {
        self.child
    }
}

impl<R: DeserializeOwned> JoinHandle<R> {
    /// Blocks until the process has ended, and returns what its function returned.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says which process gave no value, and why: its function panicked, or it ended
    /// before the function returned, or before it was called.
    ///
    /// # Examples
    ///
    /// ```
    /// fn shout(text: String) -> String {
    ///     text.to_uppercase()
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     procession::process::init();
    ///     let handle = procession::process::spawn(shout, "hello".to_owned())?;
    ///     assert_eq!(handle.join()?, "HELLO");
    ///     Ok(())
    /// }
    /// ```
    pub fn join(self) -> Result<R, JoinError> {
        loop {
            // A signal handler may have run; that is no reason to stop waiting.
            if let Ok(status) = self.child.wait(None) {
                return self.value(status);
            }
        }
    }

    /// Does what [`join`](Self::join) does, in async code: waits without blocking the thread.
    ///
    /// The value is lost when the future is dropped; the process goes on.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join). Where tokio cannot watch the process, because no descriptor is left,
    /// this blocks.
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime of tokio with I/O enabled.
    #[cfg(feature = "tokio")]
    pub async fn join_async(self) -> Result<R, JoinError> {
        if let Ok(sentinel) = self.sentinel().try_clone_to_owned()
            && let Ok(sentinel) = fd::watch(sentinel, tokio::io::Interest::READABLE)
        {
            // An error leaves the rest to `join`.
            let _ = sentinel.readable().await;
        }
        self.join()
    }

    /// Blocks until the process has ended or `timeout` has passed. Returns what its function
    /// returned, or `None` if the process has not ended.
    ///
    /// A timeout of zero only looks. Each call after the end returns the value anew.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<R>, JoinError> {
        // A deadline too far away to be expressed is none.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            match self.child.wait(deadline) {
                Ok(status) => return self.value(status).map(Some),
                Err(WaitError::TimedOut) => return Ok(None),
                Err(WaitError::Interrupted) => {}
            }
        }
    }

    fn value(&self, status: ExitStatus) -> Result<R, JoinError> {
        let (name, pid) = (self.name.clone(), self.pid());
        match exchange::read(&self.exchange) {
            Outcome::Returned(bytes) => postcard::from_bytes(&bytes)
                .map_err(|source| JoinError::Decode { name, pid, source: Box::new(source) }),
            Outcome::Panicked(PanicReport { message, location }) => {
                Err(JoinError::Panicked { name, pid, message, location })
            }
            Outcome::Unsendable(reason) => Err(JoinError::Unsendable { name, pid, reason }),
            Outcome::Refused(reason) => {
                Err(JoinError::NeverStarted { name, pid, status, reason: Some(reason) })
            }
            Outcome::New => Err(JoinError::NeverStarted { name, pid, status, reason: None }),
            Outcome::Started => Err(JoinError::Died { name, pid, status }),
        }
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
