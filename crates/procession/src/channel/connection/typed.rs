//! Connections that carry values.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::connection::bytes::{ByteConnection, byte_pipe, byte_pipe_one_way};
use crate::channel::connection::codec::{Codec, Pickle, Postcard};
use crate::channel::connection::error::{RecvError, SendError};
use crate::channel::connection::sharer;
use crate::shm::pack;
use crate::sys::stream;

/// What can be said about an end that does not send, or does not receive.
///
/// There is no value of this type, so nothing can be sent or received there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {}

/// One end of a stream of values: sends values of type `S`, receives those of type `R`.
///
/// Values travel as the codec `C` writes them. By [`Postcard`], which is the usual one, the other
/// end must be a program in Rust with the same types; by [`Pickle`] it is one in Python, which
/// calls `send` and `recv`. [`ByteConnection::values`] and [`ByteConnection::pickles`] choose between
/// them for what a [`Client`](super::Client) or a [`Listener`](super::Listener) has made. For the
/// rest see [`ByteConnection`], on which it is built.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::pipe;
///
/// let (client, server) = pipe::<String, usize>()?;
/// client.send(&"how long?".to_owned())?;
/// server.send(&server.recv()?.len())?;
/// assert_eq!(client.recv()?, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection<S, R, C = Postcard> {
    bytes: ByteConnection,
    values: PhantomData<fn(S, C) -> R>,
}

/// An end that only receives.
pub type Receiver<R> = Connection<Nothing, R>;

/// An end that only sends.
pub type Sender<S> = Connection<S, Nothing>;

/// Makes two connected ends: the first sends `A` and receives `B`, the second the other way round.
///
/// # Errors
///
/// Those of `socketpair(2)`: too many descriptors are open.
pub fn pipe<A, B>() -> io::Result<(Connection<A, B>, Connection<B, A>)> {
    let (one, other) = byte_pipe()?;
    Ok((one.into(), other.into()))
}

/// Makes two connected ends, of which the first receives what the second sends.
///
/// # Errors
///
/// Those of `pipe(2)`: too many descriptors are open.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::pipe_one_way;
///
/// let (receiver, sender) = pipe_one_way::<u32>()?;
/// sender.send(&7)?;
/// assert_eq!(receiver.recv()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pipe_one_way<T>() -> io::Result<(Receiver<T>, Sender<T>)> {
    let (reader, writer) = byte_pipe_one_way()?;
    Ok((reader.into(), writer.into()))
}

impl ByteConnection {
    /// Makes a connection of values with a program in Rust.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::channel::connection::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("localhost", 0)?)?;
    /// let client = Client::new(listener.address().clone()).connect()?.values::<u32, ()>();
    /// let server = listener.accept()?.values::<(), u32>();
    /// client.send(&7)?;
    /// assert_eq!(server.recv()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn values<S, R>(self) -> Connection<S, R> {
        self.into()
    }

    /// Makes a connection of values with a program in Python.
    ///
    /// # Examples
    ///
    /// With `Listener(('localhost', 6000), authkey=b'secret')` at the other end, which answers a
    /// tuple of two numbers with their sum:
    ///
    /// ```no_run
    /// use procession::channel::connection::{Address, Client};
    ///
    /// let client = Client::new(Address::tcp("localhost", 6000)?).key("secret");
    /// let sums = client.connect()?.pickles::<(i64, i64), i64>();
    /// sums.send(&(1, 2))?;
    /// assert_eq!(sums.recv()?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pickles<S, R>(self) -> Connection<S, R, Pickle> {
        self.into()
    }
}

impl<S, R, C> Connection<S, R, C> {
    /// The connection of bytes beneath.
    pub fn bytes(&self) -> &ByteConnection {
        &self.bytes
    }

    /// Whether a value, or the end of the stream, is there; blocks for it for at most `timeout`.
    ///
    /// `None` waits for ever. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`RecvError::SendOnly`].
    pub fn poll(&self, timeout: Option<Duration>) -> Result<bool, RecvError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match self.bytes.poll(deadline) {
                Err(RecvError::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl<S: Serialize, R, C: Codec> Connection<S, R, C> {
    /// Sends a value; blocks while the system takes no more bytes.
    ///
    /// A shared object, such as a queue, is refused: nothing would keep it alive on its way. A
    /// descriptor or another connection can be sent to processes of this machine; see
    /// [`Fd`](super::Fd).
    ///
    /// # Errors
    ///
    /// [`SendError::Serialize`], with nothing sent; else as [`ByteConnection::send`].
    pub fn send(&self, value: &S) -> Result<(), SendError> {
        let mark = sharer::mark();
        let sent = encode::<S, C>(self.bytes.as_fd(), value, mark)
            .and_then(|bytes| self.bytes.send(&bytes));
        if sent.is_err() {
            sharer::withdraw(mark);
        }
        sent
    }
}

/// The message for a value that goes to the other end of `to`; `mark` was taken before.
pub(super) fn encode<S: Serialize, C: Codec>(
    to: BorrowedFd<'_>,
    value: &S,
    mark: u64,
) -> Result<Vec<u8>, SendError> {
    let refused = |why: &str| Err(SendError::Serialize(why.to_owned()));
    let (bytes, pins) = pack(|| encoding(|| C::encode(value)));
    let bytes = bytes.map_err(|error| SendError::Serialize(error.to_string()))?;
    if !pins.is_empty() {
        return refused("a shared object cannot be sent through a connection, only in a queue");
    }
    if sharer::mark() != mark && !stream::is_local(to)? {
        return refused("a descriptor cannot be sent to another machine");
    }
    Ok(bytes)
}

thread_local! {
    /// Whether this thread is serializing a value for a connection.
    static ENCODING: Cell<bool> = const { Cell::new(false) };
}

fn encoding<R>(encode: impl FnOnce() -> R) -> R {
    let outer = ENCODING.replace(true);
    let result = encode();
    ENCODING.set(outer);
    result
}

/// Whether this thread is serializing a value for a connection, whose other end may be a stranger.
pub(crate) fn is_encoding() -> bool {
    ENCODING.get()
}

impl<S, R: DeserializeOwned, C: Codec> Connection<S, R, C> {
    /// Receives a value; blocks while there is none.
    ///
    /// # Errors
    ///
    /// [`RecvError::Deserialize`] when the message, which is gone then, is no `R`; else as
    /// [`ByteConnection::recv`].
    pub fn recv(&self) -> Result<R, RecvError> {
        let message = self.bytes.recv()?;
        C::decode(&message).map_err(|error| RecvError::Deserialize(error.to_string()))
    }
}

impl<S, R, C> From<ByteConnection> for Connection<S, R, C> {
    fn from(bytes: ByteConnection) -> Self {
        Self { bytes, values: PhantomData }
    }
}

impl<S, R, C> From<Connection<S, R, C>> for ByteConnection {
    fn from(connection: Connection<S, R, C>) -> Self {
        connection.bytes
    }
}

impl<S, R, C> AsFd for Connection<S, R, C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bytes.as_fd()
    }
}

impl<S, R, C> fmt::Debug for Connection<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.bytes).finish()
    }
}
