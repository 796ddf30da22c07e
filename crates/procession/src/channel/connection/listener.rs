//! The end that is connected with.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::entrance::{Entrance, Progress};
use crate::channel::connection::error::{EndpointError, HandshakeError};
use crate::channel::connection::handshake::{Attempts, Side};
use crate::channel::connection::tls::Tls;
use crate::channel::connection::turn::Turn;
use crate::slice::poll_in_slices;
use crate::sys::stream::{self, Place};
use crate::sys::{fd, process};

/// How long a client may be silent in a handshake, if nobody says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Clients in a handshake at a time. One more takes the place of the one that came first.
const MOST_CLIENTS: usize = 128;

/// How a listener is made; see [`Listener::builder`].
#[derive(Debug, Clone)]
pub struct ListenerBuilder {
    address: Address,
    backlog: i32,
    key: Option<Vec<u8>>,
    patience: Duration,
    keep_file: bool,
    limit: u64,
    tls: Option<Tls>,
}

impl ListenerBuilder {
    /// Encrypts all connections. Meant for TCP; see [`Tls::server`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets the connections refuse messages of more than `bytes` bytes; see
    /// [`ByteConnection::set_limit`].
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets how many clients may wait to be accepted; 1 if it is not called.
    pub fn backlog(mut self, clients: i32) -> Self {
        self.backlog = clients;
        self
    }

    /// Sets the key that clients must have. Without one nothing is proved or checked.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how long a client may be silent in a handshake; 20 s if it is not called.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Leaves the socket file where it is when the listener is dropped.
    pub fn keep_file(mut self) -> Self {
        self.keep_file = true;
        self
    }

    /// Makes the listener. Clients can connect from then on, and wait until they are accepted.
    ///
    /// # Errors
    ///
    /// [`EndpointError::InUse`], [`EndpointError::TooLong`], [`EndpointError::Os`];
    /// [`EndpointError::Handshake`] when the TLS that it was given is a client's.
    pub fn bind(self) -> Result<Listener, EndpointError> {
        #[cfg(feature = "tls")]
        self.tls.as_ref().map_or(Ok(()), Tls::check_server).map_err(HandshakeError::from)?;
        let place = self.address.place()?;
        let failed = |call| move |source| (call, source);
        // A client that gives up between `poll` and `accept` must not make `accept` block.
        let made = stream::socket_for(&place, false).map_err(failed("socket")).and_then(|socket| {
            if matches!(place, Place::Tcp(_)) {
                // Those that are accepted inherit it. Slower without, and no reason not to listen.
                let _ = stream::send_without_delay(&socket);
            }
            stream::bind_and_listen(socket.as_fd(), &place, self.backlog)
                .map_err(failed("bind"))?;
            let place = stream::local_place(socket.as_fd()).map_err(failed("getsockname"))?;
            Ok((socket, place))
        });
        let (socket, place) = made.map_err(|(call, source)| self.address.failed(call, source))?;
        let file = match &place {
            Place::File(_) if !self.keep_file => SocketFile::of(&self.address),
            _ => None,
        };
        Ok(Listener {
            socket,
            address: place.into(),
            key: self.key,
            patience: self.patience,
            limit: self.limit,
            tls: self.tls,
            accepting: Turn::new(),
            spin: Attempts::new(),
            pending: Mutex::new((0, Vec::new())),
            _file: file,
        })
    }
}

/// Waits for others to connect with, at an address.
///
/// Clients may be [`Client`](super::Client)s or those of Python's `multiprocessing.connection`.
/// With a key, both sides prove that they have it; a client that is silent, sends garbage or dies
/// meanwhile holds up no other.
///
/// On drop nobody can connect any more, and the socket file, if there is one, is removed, but only
/// by the process that made it. It stays if that process is killed; an abstract address leaves
/// nothing.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{Address, Client, Listener};
///
/// let name = format!("procession-example-{}", std::process::id());
/// let listener = Listener::bind(Address::Abstract(name.into_bytes()))?;
/// let client = Client::new(listener.address().clone()).connect()?;
/// let server = listener.accept()?;
/// client.send(b"hello")?;
/// assert_eq!(server.recv()?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Address,
    key: Option<Vec<u8>>,
    patience: Duration,
    /// The longest message that its connections receive, in bytes.
    limit: u64,
    tls: Option<Tls>,
    accepting: Turn,
    /// How long it pays to look for clients without sleeping.
    spin: Attempts,
    /// Clients in a handshake, and with which process. Empty while a thread accepts.
    pending: Mutex<(u32, Vec<Pending>)>,
    _file: Option<SocketFile>,
}

/// A client in a handshake.
#[derive(Debug)]
struct Pending {
    socket: OwnedFd,
    address: Address,
    entrance: Entrance,
    /// When it will have been silent for too long.
    deadline: Option<Instant>,
}

/// What a look has found.
enum Seen {
    Accepted(Accepted),
    /// There is a client, or more of its handshake.
    Progress,
}

impl Pending {
    /// Goes as far as what has come allows; true when the connection can be used.
    fn advance(&mut self) -> Result<bool, HandshakeError> {
        loop {
            match self.entrance.advance(self.socket.as_fd())? {
                Progress::Waiting => return Ok(false),
                Progress::Done => return Ok(true),
                Progress::Secured => self.entrance.exchange(&mut self.socket)?,
            }
        }
    }
}

/// A connection, and the address of the client.
type Accepted = (ByteConnection, Address);

impl Listener {
    /// Begins to describe a listener at this address.
    pub fn builder(address: Address) -> ListenerBuilder {
        ListenerBuilder {
            address,
            backlog: 1,
            key: None,
            patience: PATIENCE,
            keep_file: false,
            limit: u64::MAX,
            tls: None,
        }
    }

    /// Makes a listener without a key.
    ///
    /// # Errors
    ///
    /// As [`ListenerBuilder::bind`].
    pub fn bind(address: Address) -> Result<Self, EndpointError> {
        Self::builder(address).bind()
    }

    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Blocks until a client has connected and shown the key. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Handshake`] when a client had another key or sent something else; call
    /// again for the next one. Clients that go away or stay silent are passed over.
    pub fn accept(&self) -> Result<ByteConnection, EndpointError> {
        loop {
            match self.accept_until(None) {
                Err(EndpointError::Interrupted) => {}
                result => return result.map(|(connection, _)| connection),
            }
        }
    }

    /// Blocks until a client has connected and shown the key, or `deadline`; also says where the
    /// client is.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Interrupted`] when a signal handler ran in this thread,
    /// [`EndpointError::TimedOut`]; else as [`accept`](Self::accept).
    pub fn accept_until(&self, deadline: Option<Instant>) -> Result<Accepted, EndpointError> {
        let _turn = self.accepting.take()?;
        let mut pending = self.take_pending();
        let result = self.accept_with(&mut pending, deadline);
        self.put_pending(pending);
        if let Ok((connection, _)) = &result {
            connection.set_limit(self.limit);
        }
        result
    }

    /// Adds the descriptors that become readable when there is something to do for
    /// [`accept_until`](Self::accept_until), by their numbers; returns when a client will have been
    /// silent for too long.
    pub(super) fn watch(&self, descriptors: &mut Vec<RawFd>) -> Option<Instant> {
        descriptors.push(self.socket.as_raw_fd());
        let pending = self.pending.try_lock().ok()?;
        descriptors.extend(pending.1.iter().map(|client| client.socket.as_raw_fd()));
        pending.1.iter().filter_map(|client| client.deadline).min()
    }

    /// Whether its connections are encrypted.
    #[cfg(feature = "tokio")]
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Has an epoll instance look at the same descriptors as [`watch`](Self::watch); those that are
    /// closed leave it by themselves.
    #[cfg(feature = "tokio")]
    pub(super) fn watch_with(&self, epoll: BorrowedFd<'_>) -> io::Result<()> {
        fd::epoll_add(epoll, self.socket.as_fd())?;
        let Ok(pending) = self.pending.try_lock() else { return Ok(()) };
        pending.1.iter().try_for_each(|client| fd::epoll_add(epoll, client.socket.as_fd()))
    }

    /// The clients in a handshake with this process. Those of a process that this one was forked
    /// from are let go of; they stay connected with that one.
    fn take_pending(&self) -> Vec<Pending> {
        // It is this thread's turn, so only a forked child can find the lock taken: by a thread
        // that it does not have.
        let Ok(mut stored) = self.pending.try_lock() else { return Vec::new() };
        if stored.1.is_empty() {
            return Vec::new();
        }
        let (owner, pending) = std::mem::take(&mut *stored);
        if owner == process::getpid() { pending } else { Vec::new() }
    }

    fn put_pending(&self, pending: Vec<Pending>) {
        if pending.is_empty() {
            return;
        }
        if let Ok(mut stored) = self.pending.try_lock() {
            *stored = (process::getpid(), pending);
        }
    }

    fn accept_with(
        &self,
        pending: &mut Vec<Pending>,
        deadline: Option<Instant>,
    ) -> Result<Accepted, EndpointError> {
        self.spin.begin();
        let mut knocked = true;
        loop {
            if knocked && let Some(accepted) = self.accept_waiting(pending)? {
                return Ok(accepted);
            }
            if let Some(accepted) = advance(pending, self.patience)? {
                return Ok(accepted);
            }
            let few = pending.len() <= 1;
            if few {
                let in_time = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                match self.spin.spin(in_time, || self.look(pending).transpose()) {
                    Some(Ok(Seen::Accepted(accepted))) => return Ok(accepted),
                    Some(Ok(Seen::Progress)) => continue,
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
            knocked = self.wait(pending, deadline)?;
            if few {
                self.spin.was_in_vain();
            }
        }
    }

    /// Looks for what is most likely to come: a client, or the next message of the first one.
    fn look(&self, pending: &mut Vec<Pending>) -> Result<Option<Seen>, EndpointError> {
        let steps = |pending: &[Pending]| pending.first().map(|client| client.entrance.progress());
        let before = steps(pending);
        let accepted = if pending.is_empty() {
            self.accept_waiting(pending)?
        } else {
            advance(pending, self.patience)?
        };
        Ok(match accepted {
            Some(accepted) => Some(Seen::Accepted(accepted)),
            None => (steps(pending) != before).then_some(Seen::Progress),
        })
    }

    /// Takes a client that has connected. One is done with that if there is nothing to prove.
    fn accept_waiting(
        &self,
        pending: &mut Vec<Pending>,
    ) -> Result<Option<Accepted>, EndpointError> {
        let (socket, place) = loop {
            match stream::accept(self.socket.as_fd()) {
                Ok(client) => break client,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    // The client gave up before it was its turn.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => return Err(self.address.failed("accept", error)),
                },
            }
        };
        let address = Address::from(place);
        if self.key.is_none() && self.tls.is_none() {
            return Ok(Some((ByteConnection::with(socket, true, true), address)));
        }
        match self.begin(&address, socket.as_fd()) {
            Ok(entrance) => {
                if pending.len() >= MOST_CLIENTS {
                    pending.remove(0);
                }
                let deadline = Instant::now().checked_add(self.patience);
                pending.push(Pending { socket, address, entrance, deadline });
            }
            Err(error) => passed_over(&address, &error),
        }
        Ok(None)
    }

    fn begin(&self, address: &Address, socket: BorrowedFd<'_>) -> Result<Entrance, HandshakeError> {
        Entrance::start(Side::Listener, self.tls.as_ref(), self.key.as_deref(), address, socket)
    }

    /// Waits until somebody connects or sends, and puts those out who were silent for too long; says
    /// whether somebody has connected.
    fn wait(
        &self,
        pending: &mut Vec<Pending>,
        deadline: Option<Instant>,
    ) -> Result<bool, EndpointError> {
        let first = pending.iter().filter_map(|client| client.deadline).chain(deadline).min();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.socket.as_fd()];
        fds.extend(pending.iter().map(|client| client.socket.as_fd()));
        let poll = |until| fd::poll_readable(&fds, until);
        let ready = poll_in_slices(first, |ready| ready.contains(&true), poll)
            .map_err(|source| self.address.failed("poll", source))?;
        if ready.contains(&true) {
            return Ok(ready[0]);
        }
        let now = Instant::now();
        pending.retain(|client| {
            let late = client.deadline.is_some_and(|deadline| deadline <= now);
            if late {
                client.entrance.turn_away(client.socket.as_fd());
                passed_over(&client.address, &HandshakeError::TimedOut { after: self.patience });
            }
            !late
        });
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(EndpointError::TimedOut);
        }
        Ok(false)
    }
}

/// Lets each client get on with its handshake; returns one that is done.
fn advance(
    pending: &mut Vec<Pending>,
    patience: Duration,
) -> Result<Option<Accepted>, EndpointError> {
    let mut index = 0;
    while let Some(client) = pending.get_mut(index) {
        let before = client.entrance.progress();
        match client.advance() {
            Ok(false) => {
                if client.entrance.progress() != before {
                    client.deadline = Instant::now().checked_add(patience);
                }
                index += 1;
            }
            Ok(true) => {
                let client = pending.remove(index);
                let connection = ByteConnection::with(client.socket, true, true)
                    .with_cause(client.entrance.cause());
                return Ok(Some((connection, client.address)));
            }
            Err(error) => {
                let client = pending.remove(index);
                if error != HandshakeError::Gone {
                    return Err(error.into());
                }
                passed_over(&client.address, &error);
            }
        }
    }
    Ok(None)
}

fn passed_over(client: &Address, error: &HandshakeError) {
    tracing::debug!("passed over {client}: {error}");
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The file of a Unix socket, removed on drop by the process that made it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    maker: u32,
}

impl SocketFile {
    fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Unix(path) => Some(Self { path: absolute(path), maker: process::getpid() }),
            _ => None,
        }
    }
}

/// The same file when the working directory has changed.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.maker == process::getpid() {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
