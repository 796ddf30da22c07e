//! A message that is being received.

use std::os::fd::AsFd;

use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::error::RecvError;
use crate::channel::connection::turn::Turned;
use crate::slice::must_leave;

/// Up to so many bytes are read into memory that is filled with zeros before.
pub(super) const SHORT: u64 = 4096;

/// A message on its way in. While it lives, no other thread receives from the connection.
///
/// Dropped before it was read to its end, it is lost; the next one is received whole.
#[derive(Debug)]
pub struct Incoming<'a> {
    connection: &'a ByteConnection,
    _turn: Turned<'a>,
    length: u64,
    left: u64,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(connection: &'a ByteConnection, turn: Turned<'a>, length: u64) -> Self {
        Self { connection, _turn: turn, length, left: length }
    }
}

impl Incoming<'_> {
    /// Length of the message, in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads the message to the beginning of `buffer`, from where an earlier call stopped.
    ///
    /// # Errors
    ///
    /// [`RecvError::Interrupted`] when a signal handler ran: call again with the same buffer to go
    /// on. [`RecvError::Truncated`] when the other end was closed in the middle.
    ///
    /// # Panics
    ///
    /// Panics if the buffer is shorter than the message.
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<(), RecvError> {
        assert!(buffer.len() as u64 >= self.length, "the message does not fit");
        while self.left > 0 {
            // Both fit into the buffer, so into a `usize`.
            let range = (self.length - self.left) as usize..self.length as usize;
            match self.connection.read(&mut buffer[range])? {
                0 => return Err(self.truncated()),
                count => self.left -= count as u64,
            }
            self.see_to_signals()?;
        }
        Ok(())
    }

    /// Reads the message to the end of `buffer`, from where an earlier call stopped.
    ///
    /// # Errors
    ///
    /// As [`read_into`](Self::read_into), and [`RecvError::OutOfMemory`].
    pub fn read_onto(&mut self, buffer: &mut Vec<u8>) -> Result<(), RecvError> {
        let no_memory = RecvError::OutOfMemory { length: self.length };
        let Ok(left) = usize::try_from(self.left) else { return Err(no_memory) };
        // Memory that nothing was written to costs nothing, so a liar gains nothing by this.
        if buffer.try_reserve_exact(left).is_err() {
            return Err(no_memory);
        }
        while self.left > 0 {
            let count = self.read_some_onto(buffer)?;
            self.left -= count as u64;
            self.see_to_signals()?;
        }
        Ok(())
    }

    fn read_some_onto(&self, buffer: &mut Vec<u8>) -> Result<usize, RecvError> {
        let fd = self.connection.fd.as_fd();
        // The buffer may have more room than what is left of the message. To fill a little with zeros
        // costs less than to ask a pipe whether there is something.
        let exact = self.left > SHORT && (buffer.capacity() - buffer.len()) as u64 <= self.left;
        let count = if exact {
            self.connection.arrivals.read_more_onto(fd, buffer)?
        } else {
            let start = buffer.len();
            buffer.resize(start + self.left as usize, 0);
            let result = self.connection.read(&mut buffer[start..]);
            buffer.truncate(start + *result.as_ref().unwrap_or(&0));
            result?
        };
        if count == 0 { Err(self.truncated()) } else { Ok(count) }
    }

    /// Fails when the rest has to wait. A signal that comes while bytes are copied interrupts nothing.
    fn see_to_signals(&self) -> Result<(), RecvError> {
        if self.left > 0 && must_leave() { Err(RecvError::Interrupted) } else { Ok(()) }
    }

    fn truncated(&self) -> RecvError {
        self.connection.ended(RecvError::Truncated { missing: Some(self.left) })
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.connection.place.give_up(self.left);
        }
    }
}
