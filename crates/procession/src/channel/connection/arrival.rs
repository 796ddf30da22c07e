//! How a receiver waits for a message to begin: it looks for a while, and then sleeps.
//!
//! Waking a process that sleeps in a system call takes tens of microseconds, so a receiver first
//! looks without blocking, for as long as that has paid lately (see [`SpinBudget`]). Each look is
//! a system call, unless both ends have a [`Bell`], a word in shared memory that the sender changes
//! after each write, and only when it has changed the descriptor is looked at: not even once before,
//! if this end has received all that was announced. Who is wrong about that, because another
//! process receives from the same end or the sender has no bell, finds out when it goes to sleep.
//!
//! A signal that comes while nobody sleeps in a system call interrupts none. So sleep ends after a
//! second at the latest, as if by a signal, and the caller sees to those that came. In the middle of
//! a message, too, nobody sleeps but in `poll`, and in slices.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::channel::connection::carry::Bell;
use crate::primitive::{AtomicU32, Ordering};
use crate::slice::poll_in_slices;
use crate::sync::spin::SpinBudget;
use crate::sys::{fd, stream};

/// The longest sleep.
const SLICE: Duration = Duration::from_secs(1);

/// Of a sleep, this part counts when it is judged whether spinning would have paid. While both
/// ends sleep, a message takes two wake-ups, each of which may cost more than the longest spin; a
/// receiver that counted them would never find out that its partner is quick.
const COUNTED: u32 = 4;

/// Bytes that a pipe takes which is said to be writable; `PIPE_BUF`.
const TAKEN: usize = 4096;

/// How a descriptor is read and written without blocking, which its first use finds out.
mod way {
    pub(super) const SOCKET: u32 = 0;
    pub(super) const PIPE: u32 = 1;
    /// Not at all.
    pub(super) const NONE: u32 = 2;
}

/// What a receiver has learned about waiting for messages.
#[derive(Debug)]
pub(super) struct Arrivals {
    spin: SpinBudget,
    way: AtomicU32,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { spin: SpinBudget::new(), way: AtomicU32::new(way::SOCKET) }
    }

    /// Reads at least one byte, or none at the end of the stream; blocks while there is nothing.
    ///
    /// # Errors
    ///
    /// Those of `read(2)`; `Interrupted` also after a second.
    pub(super) fn read(
        &self,
        fd: BorrowedFd<'_>,
        bell: Option<&Bell>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let count = self.read_first(fd, bell, buffer)?;
        if let Some(bell) = bell
            && count > 0
        {
            bell.answered();
        }
        Ok(count)
    }

    /// Does what [`read`](Self::read) does, for one that is told of what was received.
    fn read_first(
        &self,
        fd: BorrowedFd<'_>,
        bell: Option<&Bell>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        if let Some(result) = self.spin_until(bell, None, || self.look(fd, buffer)) {
            return result;
        }
        self.sleep_until(bell, || {
            // One that does not block is not waited for.
            if stream::blocks(fd)? && !fd::poll_readable(&[fd], Some(Instant::now() + SLICE))?[0] {
                return Err(io::ErrorKind::Interrupted.into());
            }
            stream::read(fd, buffer)
        })
    }

    /// Waits until there is something to read, or the end, until `deadline`; says whether there is.
    ///
    /// # Errors
    ///
    /// Those of `poll(2)`; `Interrupted` also after a second.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        bell: Option<&Bell>,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let start = Instant::now();
        let readable = |at| fd::poll_readable(&[fd], Some(at)).map(|ready| ready[0]);
        let left = deadline.map(|at| at.saturating_duration_since(start));
        if left.is_some_and(|left| left.is_zero()) {
            return readable(start);
        }
        let look = || match readable(start) {
            Ok(false) => None,
            result => Some(result),
        };
        if let Some(result) = self.spin_until(bell, left, look) {
            return result;
        }
        self.sleep_until(bell, || {
            let slice = Instant::now() + SLICE;
            let ready = readable(deadline.map_or(slice, |at| at.min(slice)))?;
            let early = deadline.is_none_or(|at| at > slice);
            if !ready && early { Err(io::ErrorKind::Interrupted.into()) } else { Ok(ready) }
        })
    }

    /// Calls `look` once, unless nothing can be there, and then again for a short time, each time
    /// that the bell has rung.
    fn spin_until<R>(
        &self,
        bell: Option<&Bell>,
        limit: Option<Duration>,
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        // Before the first look, so that no message after it is missed.
        let mut rung = bell.map(Bell::rung);
        let mut look = |rung: Option<u32>| {
            let found = look();
            if let (None, Some(bell), Some(rung)) = (&found, bell, rung) {
                bell.set_quiet(rung);
            }
            found
        };
        let quiet = bell.zip(rung).is_some_and(|(bell, rung)| bell.is_quiet(rung));
        if !quiet && let Some(found) = look(rung) {
            return Some(found);
        }
        if bell.is_some_and(Bell::rings_here) {
            return None;
        }
        self.spin.spin(limit, || {
            let now = bell.map(Bell::rung);
            if now.is_some() && now == rung {
                return None;
            }
            rung = now;
            look(now)
        })
    }

    fn sleep_until<R>(
        &self,
        bell: Option<&Bell>,
        sleep: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let start = Instant::now();
        let result = sleep();
        if !bell.is_some_and(Bell::rings_here) {
            self.spin.learn_from_sleep(result.is_ok().then(|| start.elapsed() / COUNTED));
        }
        result
    }

    /// Writes from `parts`, as far as that is taken at once; blocks only on a descriptor that cannot be
    /// written to otherwise, and seldom there.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`; `WouldBlock` when nothing is taken.
    pub(super) fn write(&self, fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.way.load(Ordering::Relaxed) == way::SOCKET {
            match stream::send_some(fd, parts) {
                Err(error) if stream::is_no_socket(&error) => self.find_way(fd),
                result => return result,
            }
        }
        if self.way.load(Ordering::Relaxed) == way::PIPE {
            match stream::write_some(fd, parts) {
                Err(error) if stream::is_no_way(&error) => {
                    self.way.store(way::NONE, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        if !fd::poll_writable(fd, Some(Instant::now()))? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What is writable takes this much.
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
        stream::write(fd, &[IoSlice::new(&first[..first.len().min(TAKEN)])])
    }

    /// Reads more of a message into `buffer`: at least one byte, or none at the end of the stream.
    /// Blocks while there is nothing.
    ///
    /// # Errors
    ///
    /// Those of `read(2)`; `Interrupted` also when signals are to be seen to.
    pub(super) fn read_more(&self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(result) = self.look(fd, buffer) {
                return result;
            }
            wait_readable(fd)?;
            if self.way.load(Ordering::Relaxed) == way::NONE {
                match stream::read(fd, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
        }
    }

    /// Does what [`read_more`](Self::read_more) does, behind what `buffer` holds, as far as its
    /// capacity goes.
    ///
    /// # Errors
    ///
    /// As [`read_more`](Self::read_more).
    pub(super) fn read_more_onto(
        &self,
        fd: BorrowedFd<'_>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<usize> {
        loop {
            let socket = self.way.load(Ordering::Relaxed) == way::SOCKET;
            if !socket {
                wait_readable(fd)?;
            }
            let result = if socket {
                stream::receive_now_onto(fd, buffer)
            } else {
                stream::read_onto(fd, buffer)
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_readable(fd)?,
                Err(error) if socket && stream::is_no_socket(&error) => self.find_way(fd),
                result => return result,
            }
        }
    }

    /// Notes how a descriptor that is no socket is used.
    fn find_way(&self, fd: BorrowedFd<'_>) {
        // Other files may say that they would block, and that they would not.
        let way = if stream::is_pipe(fd) { way::PIPE } else { way::NONE };
        self.way.store(way, Ordering::Relaxed);
    }

    /// Reads what is there; `None` if nothing is, or it cannot be told without blocking.
    fn look(&self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            let way = self.way.load(Ordering::Relaxed);
            let result = match way {
                way::SOCKET => stream::receive_now(fd, buffer),
                way::PIPE => stream::read_now(fd, buffer),
                _ => return None,
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if way == way::SOCKET && stream::is_no_socket(&error) => {
                    self.find_way(fd);
                }
                // The system has no such call for this descriptor; reading tells what else it is.
                Err(_) if way == way::PIPE => self.way.store(way::NONE, Ordering::Relaxed),
                result => return Some(result),
            }
        }
    }
}

/// Waits until there is something to read, or the end.
fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let poll = |until| fd::poll_readable(&[fd], until);
    poll_in_slices(None, |ready| ready.contains(&true), poll).map(drop)
}
