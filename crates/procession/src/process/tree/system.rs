//! The processes of the system, and signals that reach no other than the one that is meant.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::process::child::pause;
use crate::process::tree::error::{TreeError, os};
use crate::sys::process::Stat;
use crate::sys::{fd, process, tree};

/// A process, as against a number that several processes have one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) pid: u32,
    start: u64,
}

impl Process {
    /// The process that has the number now, unless it has ended.
    pub(super) fn with_id(pid: u32) -> Result<Option<Self>, TreeError> {
        let stat = process::stat(pid).map_err(|source| os("read", pid, source))?;
        Ok(stat.map(|stat| Self { pid, start: stat.start }))
    }

    /// Whether it has not ended.
    pub(super) fn is_there(self) -> io::Result<bool> {
        Ok(process::start_time(self.pid)? == Some(self.start))
    }

    /// Sends it a signal, and says whether it was there to get it.
    pub(super) fn signal(self, signal: i32) -> io::Result<bool> {
        let Some(pidfd) = open(self.pid)? else { return Ok(false) };
        Ok(self.is_there()? && send(pidfd.as_fd(), signal)?)
    }

    /// Stops it if it is a child of `parent` still, and says whether it was.
    pub(super) fn stop_as_child_of(self, parent: Self) -> io::Result<bool> {
        let Some(pidfd) = open(self.pid)? else { return Ok(false) };
        let expected = Stat { parent: parent.pid, start: self.start };
        Ok(process::stat(self.pid)? == Some(expected)
            && parent.is_there()?
            && send(pidfd.as_fd(), libc::SIGSTOP)?)
    }

    /// Blocks until it has ended, or `deadline`.
    pub(super) fn await_end(self, deadline: Instant) {
        let Ok(Some(pidfd)) = open(self.pid) else { return };
        while self.is_there().unwrap_or(false) && Instant::now() < deadline {
            // A signal handler is no reason to stop waiting. Should `poll` refuse for good, this
            // loop still ends.
            if fd::poll_readable(&[pidfd.as_fd()], Some(deadline)).is_err() {
                pause();
            }
        }
    }
}

/// A pidfd; `None` when no process has this number.
pub(super) fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    match process::pidfd_open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(error) => match error.raw_os_error() {
            // The last two are for numbers of threads, depending on the kernel.
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Sends a signal, and says whether the process had not been reaped.
fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<bool> {
    match process::pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All processes that run, by their parent's number.
pub(super) fn children_by_parent() -> Result<HashMap<u32, Vec<Process>>, TreeError> {
    let failed = |source| os("read /proc", process::getpid(), source);
    let mut children: HashMap<_, Vec<_>> = HashMap::new();
    for pid in tree::pids().map_err(failed)? {
        match process::stat(pid) {
            Ok(Some(Stat { parent, start })) => {
                children.entry(parent).or_default().push(Process { pid, start });
            }
            Ok(None) => {}
            // Another user's, in a system that hides these.
            Err(error) if is_hidden(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(children)
}

fn is_hidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
