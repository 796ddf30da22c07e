//! A message that is being sent.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use smallvec::SmallVec;

use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::error::SendError;
use crate::channel::connection::frame::Header;
use crate::channel::connection::turn::Turned;
use crate::primitive::Ordering;
use crate::slice::{must_leave, poll_in_slices};
use crate::sys::{fd, stream};

/// So many parts of a message are written at once.
const PARTS: usize = 8;

/// A message that is not longer than this, with its header, is put together before it is written.
const AT_ONCE: usize = 256;

/// Whether a descriptor has no room at the moment.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The first of what is behind `sent` bytes of all this, in as many parts as are written at once.
fn behind<'a>(sent: usize, header: &'a [u8], parts: &[&'a [u8]]) -> SmallVec<[IoSlice<'a>; PARTS]> {
    let mut skip = sent;
    let mut rest = SmallVec::new();
    for part in std::iter::once(&header).chain(parts) {
        let skipped = skip.min(part.len());
        skip -= skipped;
        if skipped < part.len() {
            rest.push(IoSlice::new(&part[skipped..]));
        }
        if rest.len() == PARTS {
            break;
        }
    }
    rest
}

/// A message on its way out. While it lives, no other thread sends on the connection.
///
/// Dropped when a part of it has been sent, it leaves the connection [torn](SendError::Torn).
#[derive(Debug)]
pub struct Outgoing<'a> {
    connection: &'a ByteConnection,
    _turn: Turned<'a>,
    header: Header,
    /// Of header and message together.
    sent: usize,
    length: usize,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(connection: &'a ByteConnection, turn: Turned<'a>, length: usize) -> Self {
        Self { connection, _turn: turn, header: Header::of(length), sent: 0, length }
    }
}

impl Outgoing<'_> {
    /// Whether a part of the message has been sent, so that it must be sent to its end.
    pub fn is_underway(&self) -> bool {
        self.sent > 0
    }

    /// Sends the message, from where an earlier call stopped.
    ///
    /// # Errors
    ///
    /// [`SendError::Interrupted`] when a signal handler ran: call again with the same message to
    /// go on. [`SendError::Os`] when the other end is closed.
    ///
    /// # Panics
    ///
    /// Panics if the message is not as long as was said when it was begun.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_parts(&[message])
    }

    /// Sends the message, which is in several parts, one behind the other, as
    /// [`send`](Self::send) does.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Panics if the parts together are not as long as was said when the message was begun.
    pub fn send_parts(&mut self, parts: &[&[u8]]) -> Result<(), SendError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(length, self.length, "not the length in the header");
        let header = self.header;
        let total = header.bytes().len() + length;
        while self.sent < total {
            match self.send_rest(parts, total) {
                Ok(count) => {
                    self.sent += count;
                    if let Some(bell) = &self.connection.bell {
                        bell.ring();
                    }
                    // A signal that comes while bytes are copied interrupts nothing.
                    if self.sent < total && must_leave() {
                        return Err(SendError::Interrupted);
                    }
                }
                Err(error) if is_full(&error) && self.may_wait()? => {
                    let poll = |until| fd::poll_writable(self.connection.fd.as_fd(), until);
                    poll_in_slices(None, |ready| *ready, poll)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether it is waited for room. One that does not block says so instead, as long as nothing of
    /// the message is on its way.
    fn may_wait(&self) -> io::Result<bool> {
        Ok(self.sent > 0 || stream::blocks(self.connection.fd.as_fd())?)
    }

    /// Sends some of what is left of `total` bytes.
    fn send_rest(&self, parts: &[&[u8]], total: usize) -> io::Result<usize> {
        let (fd, arrivals) = (self.connection.fd.as_fd(), &self.connection.arrivals);
        if total > AT_ONCE {
            return arrivals.write(fd, &behind(self.sent, self.header.bytes(), parts));
        }
        let mut whole = SmallVec::<[u8; AT_ONCE]>::new();
        whole.extend_from_slice(self.header.bytes());
        for part in parts {
            whole.extend_from_slice(part);
        }
        arrivals.write(fd, &[IoSlice::new(&whole[self.sent..])])
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        if self.sent > 0 && self.sent < self.header.bytes().len() + self.length {
            self.connection.torn.store(1, Ordering::Relaxed);
        }
    }
}
