//! Waiting for several things at a time.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use crate::sys::fd;

/// Blocks until at least one of `objects` is ready, or `timeout` has passed; returns the indices
/// of all that are ready, in their order.
///
/// A connection is ready when a message or the end of the stream is there, a socket when a read
/// would not block, a child process's handle when it has ended. What is ready stays so until it
/// is read. `None` waits for ever; `Some(Duration::ZERO)` only looks. A signal does not end the
/// wait. There is no limit to the number of objects but that of open descriptors.
///
/// # Errors
///
/// Those of `poll(2)`.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{byte_pipe, wait};
///
/// let (quiet, _its_peer) = byte_pipe()?;
/// let (here, there) = byte_pipe()?;
/// there.send(b"hello")?;
/// assert_eq!(wait(&[&quiet, &here], None)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait<T: AsFd>(objects: &[T], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let fds: Vec<_> = objects.iter().map(AsFd::as_fd).collect();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        match fd::poll_readable(&fds, deadline) {
            Ok(ready) => return Ok(indices(&ready)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Does what [`wait`] does, for descriptors by their numbers and until a deadline.
///
/// # Errors
///
/// [`Interrupted`](io::ErrorKind::Interrupted) when a signal handler ran in this thread; `EBADF`
/// when a descriptor is not open.
pub fn wait_raw(descriptors: &[RawFd], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    Ok(indices(&fd::poll_readable_raw(descriptors, deadline)?))
}

fn indices(ready: &[bool]) -> Vec<usize> {
    ready.iter().enumerate().filter_map(|(index, ready)| ready.then_some(index)).collect()
}
