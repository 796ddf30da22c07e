//! What the system tells of any process: whether it runs, whose child it is, and what tells it from
//! others that have its number before or after it.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use crate::sys::fd;
use crate::sys::process::to_pid;

/// More than the longest line of `/proc/PID/stat`: 52 numbers and a name of 64 bytes.
const STAT_LENGTH: usize = 2048;

/// What the system tells of a process that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The id of its parent; 0 if that is out of sight.
    pub(crate) parent: u32,
    /// When it started, in clock ticks since the machine did.
    pub(crate) start: u64,
}

/// When the process `pid` started, in clock ticks since the machine did; `None` if it has ended.
///
/// A pid is used again after its process was reaped; a pid together with a start time is not.
///
/// # Errors
///
/// As [`stat`].
pub(crate) fn start_time(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.start))
}

/// A number that tells the process `pid` from all that had or will have the same pid; `None` if it
/// has ended.
///
/// A process that has ended and is not reaped yet counts as ended. Where pidfds have inodes of their
/// own (Linux 6.9) it is that of the process, at a tenth of the price; elsewhere the start time.
///
/// # Errors
///
/// As [`stat`].
pub(crate) fn birth_mark(pid: u32) -> io::Result<Option<u64>> {
    if !pidfds_have_inodes() {
        return start_time(pid);
    }
    let pidfd = match rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // The number is free, or that of a thread by now.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let ended = fd::poll_readable(&[pidfd.as_fd()], Some(Instant::now()))?;
    if ended.first() == Some(&true) {
        return Ok(None);
    }
    Ok(Some(rustix::fs::fstat(&pidfd)?.st_ino))
}

/// Whether the inode of a pidfd is that of its process alone; before, all shared one.
pub(super) fn pidfds_have_inodes() -> bool {
    /// `PID_FS_MAGIC` in `linux/magic.h`.
    const PID_FS: u64 = 0x5049_4446;
    static HAVE: OnceLock<bool> = OnceLock::new();
    *HAVE.get_or_init(|| {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        own.and_then(rustix::fs::fstatfs).is_ok_and(|system| system.f_type as u64 == PID_FS)
    })
}

/// What the system tells of the process `pid`; `None` if it has ended.
///
/// A process that has ended and is not reaped yet counts as ended. See
/// [`proc_pid_stat(5)`](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
///
/// # Errors
///
/// Any error means that nothing is known, so the process has to be taken as alive: no descriptor
/// left to look with, or a `/proc` that does not show the process although it exists.
pub(crate) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let id = to_pid(pid)?;
    let mut buffer = [0_u8; STAT_LENGTH];
    match read_stat(pid, &mut buffer) {
        Ok(line) => parse_stat(line).ok_or_else(|| Errno::IO.into()),
        // The process ended between the opening and the reading.
        Err(Errno::SRCH) => Ok(None),
        Err(Errno::NOENT) if rustix::process::test_kill_process(id) == Err(Errno::SRCH) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

fn read_stat(pid: u32, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let path = format!("/proc/{pid}/stat");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let len = rustix::io::read(file, &mut *buffer)?;
    Ok(&buffer[..len])
}

/// What a line of `/proc/PID/stat` says: outer `None` for a line that is no such line, inner `None`
/// for a process that has ended.
pub(super) fn parse_stat(line: &[u8]) -> Option<Option<Stat>> {
    // The name, in parentheses, may hold anything, also spaces and parentheses.
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&line[name_end + 1..]).ok()?;
    // The first field here is the third of the line.
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent: u32 = fields.next()?.parse().ok()?;
    let threads: u64 = fields.nth(20 - 5)?.parse().ok()?;
    let start: u64 = fields.nth(22 - 21)?.parse().ok()?;
    let ended = match state {
        // While other threads run, only the main thread is a zombie and the process is not.
        "Z" => threads <= 1,
        "X" | "x" => true,
        _ => false,
    };
    Some((!ended).then_some(Stat { parent, start }))
}
