//! Processes by a descriptor that stands for them: signals to them, and how a child has ended.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::sys::process::{check, to_pid};

/// A descriptor for the process `pid`: readable once it has ended, and closed by `exec`.
///
/// See [`pidfd_open(2)`](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
///
/// # Errors
///
/// `ESRCH` when there is no such process, `EINVAL` for 0.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty())?)
}

/// Sends `signal` to the process behind `fd`; 0 only looks whether that could be done.
///
/// See [`pidfd_send_signal(2)`](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html).
///
/// # Errors
///
/// `ESRCH` when the process has been reaped, `EPERM` when it belongs to another user.
pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    let (call, fd, no_flags) = (libc::SYS_pidfd_send_signal, fd.as_raw_fd(), 0_u32);
    // SAFETY: the arguments have the types that the call expects, the descriptor is open, and
    // without an info of the caller's the kernel reads no memory.
    check(unsafe { libc::syscall(call, fd, signal, info, no_flags) })?;
    Ok(())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawStatus {
    /// It left with this code, 0 to 255.
    Exited(i32),
    /// It was killed.
    Signaled {
        /// The number of the signal.
        signal: i32,
        /// Whether its memory was written to a file.
        core_dumped: bool,
    },
}

/// Waits for the child behind `fd` to end and reaps it; `None` if it runs and `block` is false.
///
/// See [`waitid(2)`](https://man7.org/linux/man-pages/man2/waitid.2.html).
///
/// # Errors
///
/// `ECHILD` when it is not a child of this process or has been reaped by someone else, `EINTR`
/// when a signal handler ran in this thread.
pub(crate) fn wait_pidfd(fd: BorrowedFd<'_>, block: bool) -> io::Result<Option<RawStatus>> {
    let mut options = WaitIdOptions::EXITED;
    options.set(WaitIdOptions::NOHANG, !block);
    let status = rustix::process::waitid(WaitId::PidFd(fd), options)?;
    Ok(status.as_ref().and_then(raw_status))
}

fn raw_status(status: &WaitIdStatus) -> Option<RawStatus> {
    let exited = status.exit_status().map(RawStatus::Exited);
    exited.or_else(|| {
        let signal = status.terminating_signal()?;
        Some(RawStatus::Signaled { signal, core_dumped: status.dumped() })
    })
}

/// Whether the process behind the pidfd with this number has ended; true also when no such
/// descriptor is open.
///
/// Safe in a signal handler.
pub(crate) fn has_ended(pidfd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which is borrowed for the call. Any number may be asked about.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0
}

/// Kills and reaps a child that cannot be watched, because no descriptor was left for it.
pub(crate) fn kill_and_reap(pid: u32) {
    let Some(pid) = Pid::from_raw(pid as i32) else { return };
    // It fails only if the child has ended already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let no_options = rustix::process::WaitOptions::empty();
    while matches!(rustix::process::waitpid(Some(pid), no_options), Err(Errno::INTR)) {}
}
