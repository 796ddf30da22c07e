//! Pipes that say yes or no by being readable or not, and that other processes of the same user can
//! reach by the number they have in their owner.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

/// Creates a pipe on which no call blocks, the end for reading first; `exec` closes both.
pub(crate) fn create() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// The number that tells the pipe from all others that there are.
pub(crate) fn identity(pipe: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(pipe)?.st_ino)
}

/// Opens the pipe `identity` that process `pid` has open as `number`, for both directions.
///
/// `None` if that process has no such pipe there, or has ended. See
/// [`proc_pid_fd(5)`](https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html).
///
/// # Errors
///
/// `EACCES` or `EPERM` for a process of another user, `EMFILE` or `ENFILE` when there are too many
/// descriptors.
pub(crate) fn open_of(pid: u32, number: u32, identity: u64) -> io::Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/fd/{number}");
    // Looked at before it is opened: opening something else could do something to it.
    match rustix::fs::stat(&path) {
        Ok(stat) if is_pipe(&stat, identity) => {}
        Ok(_) => return Ok(None),
        Err(error) => return gone(error),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(pipe) if is_pipe(&rustix::fs::fstat(&pipe)?, identity) => Ok(Some(pipe)),
        Ok(_) => Ok(None),
        Err(error) => gone(error),
    }
}

fn is_pipe(stat: &Stat, identity: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && stat.st_ino == identity
}

/// What an error says of the process: that it is gone, or nothing.
fn gone(error: Errno) -> io::Result<Option<OwnedFd>> {
    match error {
        Errno::NOENT | Errno::SRCH | Errno::NXIO => Ok(None),
        other => Err(other.into()),
    }
}

/// Puts one byte into an empty pipe, or takes all out; does nothing if it is so already.
pub(crate) fn set_readable(pipe: BorrowedFd<'_>, readable: bool) -> io::Result<()> {
    if !readable {
        return drain(pipe);
    }
    if rustix::io::ioctl_fionread(pipe)? == 0 {
        rustix::io::write(pipe, &[1])?;
    }
    Ok(())
}

fn drain(pipe: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match rustix::io::read(pipe, &mut [0_u8; 64]) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::sys::fd::poll_readable;
    use crate::sys::process::getpid;

    fn is_readable(pipe: &OwnedFd) -> bool {
        poll_readable(&[pipe.as_fd()], Some(std::time::Instant::now())).unwrap()[0]
    }

    #[test]
    fn pipe_is_reached_by_its_number_and_says_what_it_is_told() {
        let (read, _write) = create().unwrap();
        let number = read.as_raw_fd() as u32;
        let other = open_of(getpid(), number, identity(read.as_fd()).unwrap()).unwrap().unwrap();
        for readable in [true, true, false, false, true] {
            set_readable(other.as_fd(), readable).unwrap();
            assert_eq!(is_readable(&read), readable);
        }
    }

    #[test]
    fn what_is_not_the_pipe_is_not_opened() {
        let (read, _write) = create().unwrap();
        let (other, _its_write) = create().unwrap();
        let wanted = identity(read.as_fd()).unwrap();
        assert!(open_of(getpid(), other.as_raw_fd() as u32, wanted).unwrap().is_none());
        assert!(open_of(getpid(), 1 << 20, wanted).unwrap().is_none());
        assert!(open_of(u32::MAX >> 1, 0, wanted).unwrap().is_none(), "there is no such process");
    }
}
