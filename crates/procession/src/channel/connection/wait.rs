//! Waiting for several things at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::joinable::{JoinableByteQueue, JoinableQueue};
use crate::channel::{ByteQueue, Queue, Readiness};
use crate::slice::poll_in_slices;
use crate::sys::fd;

/// What [`wait`] can wait for: everything with a descriptor, and queues.
pub trait Waitable {
    /// What is to be polled for this.
    ///
    /// # Errors
    ///
    /// Those of [`ByteQueue::readiness`], for a queue.
    fn signal(&self) -> io::Result<Signal<'_>>;
}

/// What is polled for an object; see [`Waitable`].
#[derive(Debug)]
pub struct Signal<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Descriptor(BorrowedFd<'a>),
    Queue(&'a ByteQueue, Arc<Readiness>),
}

impl Signal<'_> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Descriptor(fd) => *fd,
            Source::Queue(_, readiness) => readiness.as_fd(),
        }
    }

    /// Whether the object is ready, as its descriptor says: that of a queue may say so in vain.
    fn confirm(&self) -> bool {
        match &self.0 {
            Source::Descriptor(_) => true,
            Source::Queue(queue, _) => queue.confirm_ready(),
        }
    }
}

impl<T: AsFd> Waitable for T {
    fn signal(&self) -> io::Result<Signal<'_>> {
        Ok(Signal(Source::Descriptor(self.as_fd())))
    }
}

impl Waitable for ByteQueue {
    fn signal(&self) -> io::Result<Signal<'_>> {
        Ok(Signal(Source::Queue(self, self.readiness()?)))
    }
}

impl<T> Waitable for Queue<T> {
    fn signal(&self) -> io::Result<Signal<'_>> {
        self.bytes.signal()
    }
}

impl Waitable for JoinableByteQueue {
    fn signal(&self) -> io::Result<Signal<'_>> {
        ByteQueue::signal(self)
    }
}

impl<T> Waitable for JoinableQueue<T> {
    fn signal(&self) -> io::Result<Signal<'_>> {
        Queue::signal(self)
    }
}

impl Waitable for &ByteQueue {
    fn signal(&self) -> io::Result<Signal<'_>> {
        (**self).signal()
    }
}

impl<T> Waitable for &Queue<T> {
    fn signal(&self) -> io::Result<Signal<'_>> {
        (**self).signal()
    }
}

impl Waitable for &JoinableByteQueue {
    fn signal(&self) -> io::Result<Signal<'_>> {
        (**self).signal()
    }
}

impl<T> Waitable for &JoinableQueue<T> {
    fn signal(&self) -> io::Result<Signal<'_>> {
        (**self).signal()
    }
}

impl Waitable for &dyn Waitable {
    fn signal(&self) -> io::Result<Signal<'_>> {
        (**self).signal()
    }
}

/// Blocks until at least one of `objects` is ready, or `timeout` has passed; returns the indices
/// of all that are ready, in their order.
///
/// A connection is ready when a message or the end of the stream is there, a socket when a read
/// would not block, a child process's handle when it has ended, a queue when there is something to
/// get or it is closed. What is ready stays so until it is read, by whomever. `None` waits for
/// ever; `Some(Duration::ZERO)` only looks. A signal does not end the wait. There is no limit to
/// the number of objects but that of open descriptors.
///
/// # Errors
///
/// Those of `poll(2)`, and of [`ByteQueue::readiness`].
///
/// # Examples
///
/// ```
/// use procession::channel::Queue;
/// use procession::channel::connection::{Waitable, byte_pipe, wait};
///
/// let (quiet, _its_peer) = byte_pipe()?;
/// let (here, there) = byte_pipe()?;
/// there.send(b"hello")?;
/// assert_eq!(wait(&[&quiet, &here], None)?, [1]);
///
/// let queue = Queue::new()?;
/// queue.put(&"hello".to_owned())?;
/// let mixed: [&dyn Waitable; 2] = [&quiet, &queue];
/// assert_eq!(wait(&mixed, None)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait<T: Waitable>(objects: &[T], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let signals = objects.iter().map(Waitable::signal).collect::<io::Result<Vec<_>>>()?;
    let fds: Vec<_> = signals.iter().map(Signal::descriptor).collect();
    loop {
        match fd::poll_readable(&fds, deadline) {
            Ok(polled) => {
                let mut ready = indices(&polled);
                // Whoever polled in vain has waited for nothing yet.
                let in_vain = !ready.is_empty();
                ready.retain(|index| signals[*index].confirm());
                if !(in_vain && ready.is_empty()) {
                    return Ok(ready);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Does what [`wait`] does, for descriptors by their numbers and until a deadline.
///
/// The descriptor of a queue may be readable in vain: see
/// [`ByteQueue::confirm_ready`](crate::channel::ByteQueue::confirm_ready).
///
/// # Errors
///
/// [`Interrupted`](io::ErrorKind::Interrupted) when a signal handler ran in this thread; `EBADF`
/// when a descriptor is not open.
pub fn wait_raw(descriptors: &[RawFd], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
    let poll = |until| fd::poll_readable_raw(descriptors, until);
    Ok(indices(&poll_in_slices(deadline, |ready| ready.contains(&true), poll)?))
}

fn indices(ready: &[bool]) -> Vec<usize> {
    ready.iter().enumerate().filter_map(|(index, ready)| ready.then_some(index)).collect()
}
