//! Pipes to programs, and the folders that they are started in.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Access;
use rustix::io::Errno;

use crate::sys::fd::time_left;
use crate::sys::memory;

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the end of the stream.
    Read,
    /// Room to write, or the loss of the reader.
    Write,
}

/// Blocks until one of `fds` can do what it is waited for, or `deadline`; says for each whether it
/// can.
///
/// All are `false` after the deadline. `None` waits for ever. See
/// [`poll(2)`](https://man7.org/linux/man-pages/man2/poll.2.html).
///
/// # Errors
///
/// `EINTR` when a signal handler ran in this thread; `EBADF` when a descriptor is not open.
pub(crate) fn poll(
    fds: &[(BorrowedFd<'_>, Interest)],
    deadline: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let flags = |interest| match interest {
        Interest::Read => PollFlags::IN,
        Interest::Write => PollFlags::OUT,
    };
    let mut polled: Vec<_> =
        fds.iter().map(|(fd, interest)| PollFd::new(fd, flags(*interest))).collect();
    rustix::event::poll(&mut polled, deadline.map(time_left).as_ref())?;
    if polled.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) {
        return Err(Errno::BADF.into());
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Says whether calls on this end of a pipe are to return at once when they would block.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, nonblocking)?)
}

/// Creates a file in memory that holds `bytes`, to be read from its beginning.
///
/// # Errors
///
/// `EFBIG` when there are more than a file of this process may have (`RLIMIT_FSIZE`), `EMFILE` and
/// `ENFILE` when there are too many descriptors, `ENOSPC` and `ENOMEM` when memory is short.
pub(crate) fn file_of(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memory::memfd("procession-input", bytes.len() as u64)?;
    let mut written = 0;
    while written < bytes.len() {
        // The position in the file, which the reader shares, stays where it is.
        written += rustix::io::pwrite(&file, &bytes[written..], written as u64)?;
    }
    Ok(file)
}

/// Checks that a process of this user can have `path` as its working directory.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR` or `EACCES`, as `chdir` would report.
pub(crate) fn can_enter(path: &Path) -> io::Result<()> {
    // The dot makes it an error that the path leads to something that is no folder.
    Ok(rustix::fs::access(path.join("."), Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    fn ready(reader: &PipeReader, writer: &PipeWriter) -> Vec<bool> {
        let fds = [(reader.as_fd(), Interest::Read), (writer.as_fd(), Interest::Write)];
        poll(&fds, Some(Instant::now())).unwrap()
    }

    #[test]
    fn poll_tells_reading_from_writing() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert_eq!(ready(&reader, &writer), [false, true]);
        set_nonblocking(writer.as_fd(), true).unwrap();
        while writer.write(&[0; 4096]).is_ok() {}
        assert_eq!(ready(&reader, &writer), [true, false], "the pipe is full");
    }

    #[test]
    fn lost_peer_makes_both_ends_ready() {
        let (reader, writer) = io::pipe().unwrap();
        let (other_reader, other_writer) = io::pipe().unwrap();
        drop((writer, other_reader));
        assert_eq!(ready(&reader, &other_writer), [true, true]);
    }

    #[test]
    fn file_is_read_from_its_beginning() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_ne_bytes).collect();
        let mut file = std::fs::File::from(file_of(&bytes).unwrap());
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }

    #[test]
    fn only_folders_can_be_entered() {
        can_enter(Path::new("/")).unwrap();
        let errno = |path: &str| can_enter(Path::new(path)).unwrap_err().raw_os_error();
        assert_eq!(errno("/proc/no such folder"), Some(libc::ENOENT));
        assert_eq!(errno("/proc/self/stat"), Some(libc::ENOTDIR));
    }
}
