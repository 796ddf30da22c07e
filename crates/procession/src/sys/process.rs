//! Processes: starting them, watching them, and what they know about themselves.
//!
//! | file      | what is in it                                                    |
//! |-----------|------------------------------------------------------------------|
//! | `own`     | copies of this process, what runs in them, its end, its name     |
//! | `spawn`   | starting a fresh program                                         |
//! | `pidfd`   | processes by descriptor: signals to them, how a child has ended  |
//! | `stat`    | what the system tells of any process                             |
//! | `signals` | handlers, what is held back, timers                              |

mod own;
mod pidfd;
mod signals;
mod spawn;
mod stat;

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::process::Pid;

pub(crate) use self::own::{Fork, at_exit, exit_now, fork, on_fork_child, set_name};
pub(crate) use self::pidfd::{
    RawStatus, has_ended, kill_and_reap, pidfd_open, pidfd_send_signal, wait_pidfd,
};
pub(crate) use self::signals::{
    SignalAction, SignalTimer, block_all_signals, block_signal, death_signal, default_signal,
    install_signal_handler, restore_signal, set_parent_death_signal, unblock_signal,
};
pub(crate) use self::spawn::spawn;
pub(crate) use self::stat::{Stat, birth_mark, start_time, stat};

/// The id of this process.
pub(crate) fn getpid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// The id of this process, without a system call where that was asked before.
pub(crate) fn own_id() -> u32 {
    match OWN_ID.load(Ordering::Relaxed) {
        0 => find_own_id(),
        id => id,
    }
}

/// 0 where it has to be asked for.
static OWN_ID: AtomicU32 = AtomicU32::new(0);

#[cold]
fn find_own_id() -> u32 {
    const UNSEEN: u32 = 0;
    const BEGUN: u32 = 1;
    const SEEN: u32 = 2;
    /// Whether forks are seen. The child of a fork that came while another thread was about to see
    /// to that asks each time.
    static FORKS: AtomicU32 = AtomicU32::new(UNSEEN);

    let begun = FORKS.compare_exchange(UNSEEN, BEGUN, Ordering::AcqRel, Ordering::Acquire);
    if begun.is_ok() {
        on_fork_child(forget_own_id);
        FORKS.store(SEEN, Ordering::Release);
    }
    let id = getpid();
    if FORKS.load(Ordering::Acquire) == SEEN {
        OWN_ID.store(id, Ordering::Relaxed);
    }
    id
}

extern "C" fn forget_own_id() {
    OWN_ID.store(0, Ordering::Relaxed);
}

/// The id of the parent; the adopting process if the parent is gone, 0 if it is out of sight.
pub(crate) fn getppid() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn to_pid(pid: u32) -> Result<Pid, Errno> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)
}

/// The number of threads of this process.
///
/// A thread that was joined a moment ago may still be counted: joining waits for the end of its
/// program, and the kernel takes it off its list a little later.
pub(crate) fn thread_count() -> io::Result<usize> {
    // As any folder it counts its subfolders as links, besides its own two: one per thread.
    let links = rustix::fs::stat(c"/proc/self/task")?.st_nlink;
    match usize::try_from(links) {
        Ok(links) if links > 2 => Ok(links - 2),
        _ => Ok(std::fs::read_dir("/proc/self/task")?.count()),
    }
}

/// What a call that returns -1 on failure and leaves the reason in `errno` came to.
fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a call that returns the reason of its failure came to.
fn check_code(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

#[cfg(test)]
mod tests;
