//! Messages of bytes over one descriptor.

mod incoming;
mod outgoing;
mod place;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

pub use incoming::Incoming;
pub use outgoing::Outgoing;
use place::Place;

use crate::channel::connection::arrival::Arrivals;
use crate::channel::connection::carry::{Bell, Mailbox};
use crate::channel::connection::error::{RecvError, SendError};
use crate::channel::connection::frame::{self, Parsed};
use crate::channel::connection::tls::Cause;
use crate::channel::connection::turn::Turn;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::{fd, stream};

/// Bytes of a message that nobody wants are read this many at a time.
const SKIPPED_AT_ONCE: usize = 64 << 10;

/// The byte that goes with a descriptor, as CPython sends it: how many there are.
const ONE_DESCRIPTOR: [u8; 1] = [1];

/// One end of a stream of messages, each any number of bytes.
///
/// The other end may be of any process, of this program or another, in Rust or in Python: the
/// bytes on the wire are those of `multiprocessing.connection.Connection`. Threads may share an
/// end; their messages never mix. Processes that share one, such as a parent and the child that
/// it forked, must agree by themselves who uses it.
///
/// Calls block unless they say otherwise. The end is closed on drop. For values instead of bytes
/// there is [`Connection`](super::Connection); for what happens when a process dies, see the
/// [module](super).
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{RecvError, byte_pipe};
///
/// let (here, there) = byte_pipe()?;
/// here.send(b"a message")?;
/// here.send(b"")?;
/// drop(here);
/// assert_eq!(there.recv()?, b"a message");
/// assert_eq!(there.recv()?, b"");
/// assert!(matches!(there.recv(), Err(RecvError::EndOfStream)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ByteConnection {
    fd: OwnedFd,
    receives: bool,
    sends: bool,
    /// The longest message that is received, in bytes.
    limit: AtomicU64,
    sending: Turn,
    /// Not 0 after a message was given up in its middle.
    torn: AtomicU32,
    receiving: Turn,
    place: Place,
    arrivals: Arrivals,
    /// What both ends have in the arena, if they are of one tree.
    bell: Option<Bell>,
    /// Why the stream ended, if the other end of it is a tunnel that broke.
    cause: Option<Cause>,
}

/// Makes two ends of one stream, each for sending and receiving.
///
/// # Errors
///
/// Those of `socketpair(2)`: too many descriptors are open.
pub fn byte_pipe() -> io::Result<(ByteConnection, ByteConnection)> {
    let (one, other) = stream::stream_pair()?;
    Ok((ByteConnection::with(one, true, true), ByteConnection::with(other, true, true)))
}

/// Makes two ends of one stream: the first only receives, the second only sends.
///
/// # Errors
///
/// Those of `pipe(2)`: too many descriptors are open.
pub fn byte_pipe_one_way() -> io::Result<(ByteConnection, ByteConnection)> {
    let (reader, writer) = stream::pipe()?;
    Ok((ByteConnection::with(reader, true, false), ByteConnection::with(writer, false, true)))
}

impl ByteConnection {
    /// Makes a connection of a pipe or of a socket that is connected, and owns it from then on.
    ///
    /// # Errors
    ///
    /// Those of `fcntl(2)`, which is asked what the descriptor was opened for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use procession::channel::connection::ByteConnection;
    ///
    /// let (here, there) = UnixStream::pair()?;
    /// ByteConnection::new(here)?.send(b"hello")?;
    /// assert_eq!(ByteConnection::new(there)?.recv()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        let descriptor = descriptor.into();
        let (receives, sends) = stream::directions(descriptor.as_fd())?;
        Ok(Self::with(descriptor, receives, sends))
    }

    /// Does what [`new`](Self::new) does, for a descriptor of which the caller says whether this
    /// end is to receive and to send.
    pub fn with_directions(descriptor: impl Into<OwnedFd>, receives: bool, sends: bool) -> Self {
        Self::with(descriptor.into(), receives, sends)
    }

    pub(super) fn with(fd: OwnedFd, receives: bool, sends: bool) -> Self {
        Self {
            fd,
            receives,
            sends,
            limit: AtomicU64::new(u64::MAX),
            sending: Turn::new(),
            torn: AtomicU32::new(0),
            receiving: Turn::new(),
            place: Place::new(),
            arrivals: Arrivals::new(),
            bell: None,
            cause: None,
        }
    }

    /// Lets who receives be told why the tunnel broke.
    pub(super) fn with_cause(mut self, cause: Option<Cause>) -> Self {
        self.cause = cause;
        self
    }

    /// What an end of the stream is, or means.
    fn ended(&self, error: RecvError) -> RecvError {
        #[cfg(feature = "tls")]
        if let Some(why) = self.cause.as_ref().and_then(Cause::get) {
            return RecvError::Tls(why);
        }
        error
    }

    /// Lets both ends see by way of a mailbox, which the other end must have too, when something
    /// was sent. Messages are left there and collected by the caller.
    #[must_use]
    pub fn with_mailbox(mut self, mailbox: Mailbox) -> Self {
        self.bell = Some(Bell::new(mailbox));
        self
    }

    /// The mailbox that the end was given.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        self.bell.as_ref().map(Bell::mailbox)
    }

    /// Lets messages of more than `bytes` bytes be refused, before any memory is set aside for
    /// them. Without a call any length is taken.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// The longest message that is received, in bytes; `u64::MAX` if any length is taken.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether this end can receive.
    pub fn receives(&self) -> bool {
        self.receives
    }

    /// Whether this end can send.
    pub fn sends(&self) -> bool {
        self.sends
    }

    /// Sends a message; blocks while the system takes no more bytes. A signal does not end that.
    ///
    /// # Errors
    ///
    /// [`SendError::Os`] when the other end is closed, [`SendError::ReceiveOnly`],
    /// [`SendError::Torn`].
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        let mut outgoing = repeat(|| self.start_sending(message.len()))?;
        repeat(|| outgoing.send(message))
    }

    /// Receives a message; blocks while there is none. A signal does not end that.
    ///
    /// # Errors
    ///
    /// [`RecvError::EndOfStream`] and [`RecvError::Truncated`] when the other end is closed,
    /// [`RecvError::TooLong`], [`RecvError::SendOnly`], [`RecvError::OutOfMemory`].
    pub fn recv(&self) -> Result<Vec<u8>, RecvError> {
        let mut message = Vec::new();
        let mut incoming = repeat(|| self.start_receiving())?;
        repeat(|| incoming.read_onto(&mut message))?;
        Ok(message)
    }

    /// Whether a message, or the end of the stream, is there; blocks for it until `deadline`.
    ///
    /// `None` waits for ever. That the beginning of a message is there is enough.
    ///
    /// # Errors
    ///
    /// [`RecvError::Interrupted`] when a signal handler ran or may have: at least once a second;
    /// [`RecvError::SendOnly`].
    pub fn poll(&self, deadline: Option<Instant>) -> Result<bool, RecvError> {
        if !self.receives {
            return Err(RecvError::SendOnly);
        }
        // A header that was read before a signal came is not in the descriptor any more.
        if self.place.head().1 > 0 {
            return Ok(true);
        }
        Ok(self.arrivals.wait(self.fd.as_fd(), self.bell.as_ref(), deadline)?)
    }

    /// Waits until it is this thread's turn to send, and begins a message of `length` bytes.
    ///
    /// # Errors
    ///
    /// [`SendError::Interrupted`] when a signal handler ran; else as [`send`](Self::send).
    pub fn start_sending(&self, length: usize) -> Result<Outgoing<'_>, SendError> {
        if !self.sends {
            return Err(SendError::ReceiveOnly);
        }
        let turn = self.sending.take()?;
        if self.torn.load(Ordering::Relaxed) != 0 {
            return Err(SendError::Torn);
        }
        Ok(Outgoing::new(self, turn, length))
    }

    /// Waits for a message to come, and says how long it is before any of it is read.
    ///
    /// # Errors
    ///
    /// [`RecvError::Interrupted`] when a signal handler ran or may have: at least once a second;
    /// else as [`recv`](Self::recv).
    pub fn start_receiving(&self) -> Result<Incoming<'_>, RecvError> {
        if !self.receives {
            return Err(RecvError::SendOnly);
        }
        let turn = self.receiving.take()?;
        self.skip_given_up()?;
        let length = self.read_header()?;
        let limit = self.limit.load(Ordering::Relaxed);
        if length > limit {
            // The header stays, so that whoever calls next is told the same.
            return Err(RecvError::TooLong { length, limit });
        }
        self.place.forget_head();
        Ok(Incoming::new(self, turn, length))
    }

    /// Sends a copy of a descriptor, in between messages; the other end must call
    /// [`recv_descriptor`](Self::recv_descriptor), or `multiprocessing.reduction.recv_handle` in
    /// Python, at the same point of the stream.
    ///
    /// # Errors
    ///
    /// [`SendError::Os`] when the other end is closed, or this is no Unix socket.
    pub fn send_descriptor(&self, descriptor: impl AsFd) -> Result<(), SendError> {
        let _outgoing = repeat(|| self.start_sending(0))?;
        let descriptor = [descriptor.as_fd()];
        repeat(|| {
            fd::send_fds(self.fd.as_fd(), &ONE_DESCRIPTOR, &descriptor).map_err(SendError::from)
        })?;
        Ok(())
    }

    /// Receives a descriptor that the other end has sent in between messages; `exec` closes it.
    ///
    /// # Errors
    ///
    /// [`RecvError::NoDescriptor`] when something else came, of which one byte is lost;
    /// [`RecvError::EndOfStream`] when the other end is closed.
    pub fn recv_descriptor(&self) -> Result<OwnedFd, RecvError> {
        if !self.receives {
            return Err(RecvError::SendOnly);
        }
        let _turn = repeat(|| self.receiving.take().map_err(RecvError::from))?;
        repeat(|| self.skip_given_up())?;
        let mut byte = [0];
        let (count, mut descriptors) =
            repeat(|| fd::recv_fds(self.fd.as_fd(), &mut byte, 1).map_err(RecvError::from))?;
        match descriptors.pop() {
            Some(descriptor) => Ok(descriptor),
            None if count == 0 => Err(RecvError::EndOfStream),
            None => Err(RecvError::NoDescriptor),
        }
    }

    /// Reads the rest of a message that was given up. This thread must have the turn.
    fn skip_given_up(&self) -> Result<(), RecvError> {
        let mut left = self.place.given_up();
        if left == 0 {
            return Ok(());
        }
        let mut unwanted = vec![0; SKIPPED_AT_ONCE];
        while left > 0 {
            let part =
                usize::try_from(left).map_or(SKIPPED_AT_ONCE, |left| left.min(SKIPPED_AT_ONCE));
            match self.read(&mut unwanted[..part])? {
                0 => return Err(self.ended(RecvError::Truncated { missing: Some(left) })),
                count => left -= count as u64,
            }
            self.place.give_up(left);
        }
        Ok(())
    }

    /// Reads the header of the next message. This thread must have the turn.
    fn read_header(&self) -> Result<u64, RecvError> {
        let (mut bytes, mut len) = self.place.head();
        loop {
            let needed = match frame::parse(&bytes[..len]) {
                Parsed::Length(length) => return Ok(length),
                Parsed::Needs(needed) => needed,
                Parsed::Nonsense => {
                    let length =
                        u64::from_be_bytes([0, 0, 0, 0, bytes[0], bytes[1], bytes[2], bytes[3]]);
                    let limit = i32::MAX as u64;
                    return Err(RecvError::TooLong { length, limit });
                }
            };
            let part = &mut bytes[len..needed];
            let count = if len == 0 {
                self.arrivals.read(self.fd.as_fd(), self.bell.as_ref(), part)?
            } else {
                self.read(part)?
            };
            match count {
                0 if len == 0 => return Err(self.ended(RecvError::EndOfStream)),
                0 => return Err(self.ended(RecvError::Truncated { missing: None })),
                count => len += count,
            }
            self.place.set_head(&bytes, len);
        }
    }

    /// Reads at least one byte within a message, or none at the end of the stream.
    fn read(&self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        Ok(self.arrivals.read_more(self.fd.as_fd(), buffer)?)
    }
}

/// Errors that may say that a signal cut a call short.
trait Interruptible {
    fn is_interruption(&self) -> bool;
}

impl Interruptible for SendError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

impl Interruptible for RecvError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

/// Calls `attempt` again after each signal.
fn repeat<T, E: Interruptible>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    loop {
        match attempt() {
            Err(error) if error.is_interruption() => {}
            result => return result,
        }
    }
}

impl AsFd for ByteConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for ByteConnection {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<ByteConnection> for OwnedFd {
    fn from(connection: ByteConnection) -> Self {
        connection.fd
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::IoSlice;
    use std::thread;

    use super::incoming::SHORT;
    use super::*;
    use crate::channel::connection::frame::Header;
    use crate::slice::testing;

    /// More than any stream takes while nobody reads.
    const LONG: usize = 32 << 20;

    fn pipes() -> [(ByteConnection, ByteConnection); 2] {
        let (reader, writer) = byte_pipe_one_way().unwrap();
        [(writer, reader), byte_pipe().unwrap()]
    }

    #[test]
    fn receiver_of_a_message_that_stalls_sees_to_signals_and_goes_on() {
        for (sender, receiver) in pipes() {
            for length in [10, 2 * SHORT as usize] {
                let message = vec![7; length];
                let header = Header::of(length);
                stream::write(sender.as_fd(), &[IoSlice::new(header.bytes())]).unwrap();
                let mut incoming = receiver.start_receiving().unwrap();
                let mut received = Vec::new();
                testing::answer(true);
                assert!(matches!(incoming.read_onto(&mut received), Err(RecvError::Interrupted)));
                stream::write(sender.as_fd(), &[IoSlice::new(&message)]).unwrap();
                testing::answer(false);
                incoming.read_onto(&mut received).unwrap();
                assert_eq!(received, message);
            }
        }
    }

    #[test]
    fn sender_to_one_who_does_not_read_sees_to_signals_and_goes_on() {
        for (sender, receiver) in pipes() {
            let message: Vec<u8> = (0..LONG).map(|at| at as u8).collect();
            let mut outgoing = sender.start_sending(LONG).unwrap();
            testing::answer(true);
            // As soon as something was sent, and then while there is no room.
            for _ in 0..2 {
                let sent = outgoing.send(&message);
                assert!(matches!(sent, Err(SendError::Interrupted)), "{sent:?}");
            }
            testing::answer(false);
            let received = thread::spawn(move || receiver.recv().unwrap());
            repeat(|| outgoing.send(&message)).unwrap();
            assert!(received.join().unwrap() == message, "it came out otherwise");
        }
    }

    #[test]
    fn sender_on_a_descriptor_that_does_not_block_is_told_that_there_is_no_room() {
        for (sender, _receiver) in pipes() {
            stream::set_blocking(sender.as_fd(), false).unwrap();
            let refused = loop {
                if let Err(error) = sender.send(&[7; 64]) {
                    break error;
                }
            };
            let SendError::Os { source } = refused else { panic!("{refused}") };
            assert_eq!(source.kind(), io::ErrorKind::WouldBlock);
        }
    }
}
