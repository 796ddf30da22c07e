//! The process that started this one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::error::WaitError;
use crate::process::child::{ended_sentinel, pause};
use crate::process::identity;
use crate::slice::poll_in_slices;
use crate::sys::{fd, process};

/// The client of the fork server that made this process: its process id and pidfd.
///
/// For all others the parent is the one that `getppid` tells of, so nothing need be kept.
static CLIENT: Mutex<Option<(u32, Arc<OwnedFd>)>> = Mutex::new(None);

/// Notes whom the fork server works for that has made this process.
pub(crate) fn note(client: u32, pidfd: Arc<OwnedFd>) {
    *lock() = Some((client, pidfd));
}

/// The process that started this one, as [`parent`] returns it.
#[derive(Debug, Clone)]
pub struct ParentProcess {
    name: String,
    pid: u32,
    /// A pidfd, or a descriptor that is readable as that of a process that has ended.
    sentinel: OnceLock<Arc<OwnedFd>>,
}

/// Returns the process that started this one; `None` in a process that was not started by this crate.
///
/// The child of a fork server was started by the process that the fork server works for.
///
/// # Examples
///
/// ```
/// use procession::process;
///
/// fn parents_pid(_: ()) -> Option<u32> {
///     process::parent().map(|parent| parent.pid())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     process::init();
///     assert!(process::parent().is_none());
///     let handle = process::spawn(parents_pid, ())?;
///     assert_eq!(handle.join()?, Some(std::process::id()));
///     Ok(())
/// }
/// ```
pub fn parent() -> Option<ParentProcess> {
    let (name, pid) = identity::parent()?;
    Some(ParentProcess { name, pid, sentinel: OnceLock::new() })
}

impl ParentProcess {
    /// Returns its name: `"main"` for the first process of the tree.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id. After its end the system may give it to another.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        match client(self.pid) {
            Some(pidfd) => !is_readable(pidfd.as_fd()),
            // The system gives the children of the dead to another process.
            None => process::getppid() == self.pid,
        }
    }

    /// Returns a descriptor that becomes readable when the parent has ended, for `poll` and the like.
    ///
    /// Closed when this value is dropped.
    ///
    /// # Errors
    ///
    /// What [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html) reports, such as
    /// `EMFILE`.
    pub fn sentinel(&self) -> io::Result<BorrowedFd<'_>> {
        if self.sentinel.get().is_none() {
            let opened = self.open()?;
            // Another thread may have been first; its descriptor is as good.
            let _ = self.sentinel.set(opened);
        }
        let sentinel = self.sentinel.get().ok_or(io::ErrorKind::NotFound)?;
        Ok(sentinel.as_fd())
    }

    fn open(&self) -> io::Result<Arc<OwnedFd>> {
        if let Some(pidfd) = client(self.pid) {
            return Ok(pidfd);
        }
        let opened = process::pidfd_open(self.pid);
        // If it still is the parent, the pidfd is of no later process with its number.
        if process::getppid() == self.pid { opened } else { ended_sentinel() }.map(Arc::new)
    }

    /// Blocks until it has ended. `None` waits for ever; a deadline in the past only looks.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` passes first.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        loop {
            let poll =
                |until| self.sentinel().and_then(|sentinel| fd::poll_readable(&[sentinel], until));
            match poll_in_slices(deadline, |ended| ended.contains(&true), poll) {
                Ok(ready) if ready.first() == Some(&true) => return Ok(()),
                Ok(_) => return Err(WaitError::TimedOut),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return Err(WaitError::Interrupted);
                }
                // No descriptor is left to wait on.
                Err(_) if !self.is_alive() => return Ok(()),
                Err(_) if deadline.is_some_and(|at| at <= Instant::now()) => {
                    return Err(WaitError::TimedOut);
                }
                Err(_) => pause(),
            }
        }
    }
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let now = Some(Instant::now());
    fd::poll_readable(&[descriptor], now).is_ok_and(|ready| ready.first() == Some(&true))
}

/// The pidfd of `pid`, if a fork server made this process and works for that one.
fn client(pid: u32) -> Option<Arc<OwnedFd>> {
    lock().as_ref().filter(|(client, _)| *client == pid).map(|(_, pidfd)| pidfd.clone())
}

fn lock() -> MutexGuard<'static, Option<(u32, Arc<OwnedFd>)>> {
    // No change can panic half-way.
    CLIENT.lock().unwrap_or_else(PoisonError::into_inner)
}
