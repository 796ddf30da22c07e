//! Connections and listeners to `await`, on tokio's reactor.
//!
//! What has been read of a message, and what has not been written of one, is kept in the
//! connection and not in the future. So a future can be dropped at any point: no byte is lost, and
//! messages stay whole.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::client::Client;
use crate::channel::connection::codec::Postcard;
use crate::channel::connection::descriptor::text_of_postcard;
use crate::channel::connection::error::{EndpointError, RecvError, SendError};
use crate::channel::connection::frame::{self, Header, Parsed};
use crate::channel::connection::listener::Listener;
use crate::channel::connection::sharer;
use crate::channel::connection::typed::{Connection, encode};
use crate::sys::{fd, stream};

/// Bytes that are read at a time. A peer that only claims to send more costs no memory.
const AT_ONCE: u64 = 64 << 10;

/// One end of a stream of values, as [`Connection`], for async code.
///
/// It must be made and used within a runtime of tokio whose I/O is enabled. Tasks may share it.
/// While it exists the descriptor does not block, in other processes that have a copy of it either.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{AsyncConnection, pipe};
///
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let (here, there) = pipe::<String, usize>()?;
/// let here = AsyncConnection::<String, usize>::new(here)?;
/// let there = AsyncConnection::<usize, String>::new(there)?;
/// here.send(&"how long?".to_owned()).await?;
/// there.send(&there.recv().await?.len()).await?;
/// assert_eq!(here.recv().await?, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsyncConnection<S, R> {
    end: AsyncFd<OwnedFd>,
    receives: bool,
    sends: bool,
    /// The longest message that is received, in bytes.
    limit: u64,
    incoming: Mutex<Vec<u8>>,
    outgoing: Mutex<Outgoing>,
    values: PhantomData<fn(S) -> R>,
}

/// What has not been written yet.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: VecDeque<u8>,
    /// Bytes that have been written since the beginning.
    written: u64,
    /// Set when the system has refused, so that the peer will never see the rest.
    torn: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two steps of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S, R> AsyncConnection<S, R> {
    /// Makes a connection for async code of another one.
    ///
    /// # Errors
    ///
    /// Those of `fcntl(2)` and `epoll_ctl(2)`.
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime of tokio with I/O enabled.
    pub fn new(connection: impl Into<ByteConnection>) -> io::Result<Self> {
        let connection = connection.into();
        stream::set_blocking(connection.as_fd(), false)?;
        let (receives, sends) = (connection.receives(), connection.sends());
        let interest = match (receives, sends) {
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        let limit = connection.limit();
        Ok(Self {
            end: fd::watch(connection.into(), interest)?,
            receives,
            sends,
            limit,
            incoming: Mutex::default(),
            outgoing: Mutex::default(),
            values: PhantomData,
        })
    }

    /// Receives a message of bytes; waits while there is none. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As [`ByteConnection::recv`].
    pub async fn recv_bytes(&self) -> Result<Vec<u8>, RecvError> {
        if !self.receives {
            return Err(RecvError::SendOnly);
        }
        loop {
            let mut ready = self.end.readable().await?;
            let received = ready.try_io(|end| {
                let result = receive(end.as_fd(), self.limit, &mut locked(&self.incoming));
                match result {
                    Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(Some(message)) => Ok(Ok(message)),
                    Err(error) => Ok(Err(error)),
                }
            });
            if let Ok(Ok(received)) = received {
                return received;
            }
        }
    }

    /// Sends a message of bytes; waits while the system takes no more.
    ///
    /// When the future is dropped meanwhile the message is sent all the same, before the next one,
    /// or by [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`ByteConnection::send`].
    pub async fn send_bytes(&self, message: &[u8]) -> Result<(), SendError> {
        if !self.sends {
            return Err(SendError::ReceiveOnly);
        }
        {
            let mut outgoing = locked(&self.outgoing);
            if outgoing.torn {
                return Err(SendError::Torn);
            }
            outgoing.bytes.extend(Header::of(message.len()).bytes());
            outgoing.bytes.extend(message);
        }
        self.flush().await
    }

    /// Waits until all has been sent whose sending was begun before the call.
    ///
    /// # Errors
    ///
    /// As [`ByteConnection::send`].
    pub async fn flush(&self) -> Result<(), SendError> {
        let goal = {
            let outgoing = locked(&self.outgoing);
            outgoing.written + outgoing.bytes.len() as u64
        };
        loop {
            {
                let outgoing = locked(&self.outgoing);
                if outgoing.written >= goal {
                    return Ok(());
                }
                if outgoing.torn {
                    return Err(SendError::Torn);
                }
            }
            let mut ready = self.end.writable().await?;
            let written = ready.try_io(|end| {
                let result = locked(&self.outgoing).write(end.as_fd(), goal);
                match result {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                    other => Ok(other),
                }
            });
            if let Ok(written) = written {
                written??;
            }
        }
    }
}

impl Outgoing {
    /// Writes until `goal` bytes have been written, or no more are taken.
    fn write(&mut self, end: BorrowedFd<'_>, goal: u64) -> io::Result<()> {
        while self.written < goal {
            let (first, second) = self.bytes.as_slices();
            let parts = [io::IoSlice::new(first), io::IoSlice::new(second)];
            match stream::write(end, &parts) {
                Ok(count) => {
                    self.bytes.drain(..count);
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = error.kind() != io::ErrorKind::WouldBlock;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Reads what is there, up to the end of a message; `None` if it is not there yet.
fn receive(
    end: BorrowedFd<'_>,
    limit: u64,
    received: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, RecvError> {
    loop {
        let (header, needed) = match frame::parse(received) {
            Parsed::Needs(needed) => (needed, needed as u64),
            Parsed::Length(length) if length > limit => {
                return Err(RecvError::TooLong { length, limit });
            }
            Parsed::Length(length) => {
                let header = frame::length_of_header(received);
                (header, (header as u64).saturating_add(length))
            }
            Parsed::Nonsense => {
                return Err(RecvError::TooLong { length: u64::MAX, limit: i32::MAX as u64 });
            }
        };
        let missing = needed - received.len() as u64;
        if missing == 0 {
            let message = received.split_off(header);
            received.clear();
            return Ok(Some(message));
        }
        let begun = !received.is_empty();
        let start = received.len();
        // Less than 64 KiB, so it fits.
        received.resize(start + missing.min(AT_ONCE) as usize, 0);
        let result = stream::read(end, &mut received[start..]);
        received.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) if begun => return Err(RecvError::Truncated { missing: Some(missing) }),
            Ok(0) => return Err(RecvError::EndOfStream),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl<S: Serialize, R> AsyncConnection<S, R> {
    /// Sends a value; waits while the system takes no more bytes.
    ///
    /// # Errors
    ///
    /// As [`Connection::send`]; when the future is dropped, as [`send_bytes`](Self::send_bytes).
    pub async fn send(&self, value: &S) -> Result<(), SendError> {
        let mark = sharer::mark();
        let bytes = encode::<S, Postcard>(self.as_fd(), value, mark)
            .inspect_err(|_| sharer::withdraw(mark));
        self.send_bytes(&bytes?).await
    }
}

impl<S, R: DeserializeOwned> AsyncConnection<S, R> {
    /// Receives a value; waits while there is none. Dropping the future loses nothing.
    ///
    /// A descriptor within the value is fetched at once, which blocks until the process that sent it
    /// has answered; see [`Fd`](super::Fd).
    ///
    /// # Errors
    ///
    /// As [`Connection::recv`].
    pub async fn recv(&self) -> Result<R, RecvError> {
        let message = self.recv_bytes().await?;
        postcard::from_bytes(&message)
            .map_err(|error| RecvError::Deserialize(text_of_postcard(&error)))
    }
}

impl<S, R> TryFrom<Connection<S, R>> for AsyncConnection<S, R> {
    type Error = io::Error;

    fn try_from(connection: Connection<S, R>) -> io::Result<Self> {
        Self::new(connection)
    }
}

impl<S, R> AsFd for AsyncConnection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.get_ref().as_fd()
    }
}

impl<S, R> fmt::Debug for AsyncConnection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncConnection").field(self.end.get_ref()).finish()
    }
}

/// Waits for others to connect with, as [`Listener`], in async code.
///
/// Clients that are silent too long in a handshake are put out when somebody else does something.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{Address, AsyncListener, Client, Listener};
///
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let listener = Listener::builder(Address::tcp("localhost", 0)?).key("secret").bind()?;
/// let listener = AsyncListener::new(listener)?;
/// let client = Client::new(listener.address().clone()).key("secret");
/// let (server, client) = tokio::join!(
///     listener.accept::<u32, String>(),
///     client.connect_async::<String, u32>(),
/// );
/// client?.send(&"hello".to_owned()).await?;
/// assert_eq!(server?.recv().await?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AsyncListener {
    /// Readable when the listener or a client in a handshake is.
    watched: AsyncFd<OwnedFd>,
    listener: Listener,
}

impl AsyncListener {
    /// Makes a listener for async code of another one.
    ///
    /// # Errors
    ///
    /// Those of `epoll_create(2)` and `epoll_ctl(2)`; `Unsupported` for a listener with TLS, whose
    /// connections are accepted by a thread and can be awaited from then on.
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime of tokio with I/O enabled.
    pub fn new(listener: Listener) -> io::Result<Self> {
        if listener.is_encrypted() {
            // A socket that a tunnel has taken over would stay in the set that is watched here.
            let why = "a listener with TLS cannot be awaited; accept in a thread";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let watched = fd::epoll()?;
        listener.watch_with(watched.as_fd())?;
        Ok(Self { watched: fd::watch(watched, Interest::READABLE)?, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        self.listener.address()
    }

    /// Waits until a client has connected and shown the key. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`].
    pub async fn accept<S, R>(&self) -> Result<AsyncConnection<S, R>, EndpointError> {
        loop {
            let mut ready =
                self.watched.readable().await.map_err(|error| self.failed("epoll", error))?;
            match self.listener.accept_until(Some(Instant::now())) {
                Ok((connection, _)) => {
                    return AsyncConnection::new(connection)
                        .map_err(|error| self.failed("epoll_ctl", error));
                }
                Err(EndpointError::TimedOut) => {
                    self.listener
                        .watch_with(self.watched.get_ref().as_fd())
                        .map_err(|error| self.failed("epoll_ctl", error))?;
                    if !self.is_ready()? {
                        ready.clear_ready();
                    }
                }
                Err(EndpointError::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether there is more to do, such as for a client that was not watched a moment ago.
    fn is_ready(&self) -> Result<bool, EndpointError> {
        fd::poll_readable(&[self.watched.get_ref().as_fd()], Some(Instant::now()))
            .map(|ready| ready[0])
            .map_err(|error| self.failed("poll", error))
    }

    fn failed(&self, call: &'static str, source: io::Error) -> EndpointError {
        self.address().failed(call, source)
    }
}

impl Client {
    /// Does what [`connect`](Self::connect) does, in async code. It is done by a thread of the
    /// runtime; when the future is dropped that goes on, until its end or the
    /// [`timeout`](Self::timeout).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Panics outside of a runtime of tokio with I/O enabled.
    pub async fn connect_async<S, R>(&self) -> Result<AsyncConnection<S, R>, EndpointError> {
        let client = self.clone();
        let connected = tokio::task::spawn_blocking(move || client.connect()).await;
        // The runtime is shutting down.
        let connected = connected.map_err(io::Error::other);
        let failed = |source| self.address().failed("connect", source);
        AsyncConnection::new(connected.map_err(failed)??).map_err(failed)
    }
}
