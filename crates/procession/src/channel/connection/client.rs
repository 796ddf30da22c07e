//! The end that connects.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::entrance::{Entrance, Progress};
use crate::channel::connection::error::{EndpointError, HandshakeError};
use crate::channel::connection::handshake::{Attempts, Side};
use crate::channel::connection::listener::PATIENCE;
use crate::channel::connection::tls::Tls;
use crate::slice::poll_in_slices;
use crate::sys::fd;
use crate::sys::stream::{self, Place};

thread_local! {
    /// What this thread has learned about waiting for listeners in a handshake.
    static SPIN: Attempts = Attempts::new();
}

/// How to connect with a [`Listener`](super::Listener), or one of Python's.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::{Address, Client, Listener};
///
/// let listener = Listener::builder(Address::tcp("localhost", 0)?).key("secret").bind()?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || {
///     let connection = Client::new(address).key("secret").connect().unwrap();
///     connection.send(b"hello").unwrap();
/// });
/// assert_eq!(listener.accept()?.recv()?, b"hello");
/// client.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    key: Option<Vec<u8>>,
    timeout: Option<Duration>,
    patience: Duration,
    limit: u64,
    tls: Option<Tls>,
}

impl Client {
    /// Describes a connection with the listener at this address.
    pub fn new(address: Address) -> Self {
        Self { address, key: None, timeout: None, patience: PATIENCE, limit: u64::MAX, tls: None }
    }

    /// Where it connects to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sets the key that both must have. Without one nothing is proved or checked.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Bounds how long [`connect`](Self::connect) takes. Without one it waits for as long as the
    /// listener does not accept.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long the listener may be silent once it has begun to prove who it is; 20 s if it is
    /// not called. Before that, a client waits until it is accepted.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Encrypts the connection. Meant for TCP; see [`Tls::client`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets the connection refuse messages of more than `bytes` bytes; see
    /// [`ByteConnection::set_limit`].
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Connects, and proves and checks the key if there is one. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Refused`] when nobody listens there, [`EndpointError::Handshake`],
    /// [`EndpointError::TimedOut`], [`EndpointError::TooLong`], [`EndpointError::Os`].
    pub fn connect(&self) -> Result<ByteConnection, EndpointError> {
        let mut connecting = self.start()?;
        loop {
            match connecting.finish() {
                Err(EndpointError::Interrupted) => {}
                result => return result,
            }
        }
    }

    /// Prepares to connect, without blocking.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn start(&self) -> Result<Connecting, EndpointError> {
        #[cfg(feature = "tls")]
        self.tls.as_ref().map_or(Ok(()), Tls::check_client).map_err(HandshakeError::from)?;
        let place = self.address.place()?;
        // A TCP connect that blocks and is interrupted goes on in the background, with no way to
        // wait for it.
        let blocking = !matches!(place, Place::Tcp(_));
        let socket = stream::socket_for(&place, blocking)
            .map_err(|source| self.address.failed("socket", source))?;
        Ok(Connecting {
            deadline: self.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            client: self.clone(),
            place,
            socket: Some(socket),
            stage: Stage::New,
            silence: None,
        })
    }
}

/// A connection that is coming about.
#[derive(Debug)]
pub struct Connecting {
    client: Client,
    place: Place,
    deadline: Option<Instant>,
    /// Until the connection is handed out.
    socket: Option<OwnedFd>,
    stage: Stage,
    /// When the listener will have been silent for too long.
    silence: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    New,
    /// A TCP connection is being made in the background.
    Underway,
    Connected,
    Entering(Box<Entrance>),
}

impl Connecting {
    /// Blocks until there is a connection. To be called again after an interruption only.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Interrupted`] when a signal handler ran in this thread: call again to go
    /// on. Else as [`Client::connect`].
    ///
    /// # Panics
    ///
    /// Panics when called after it has returned a connection.
    pub fn finish(&mut self) -> Result<ByteConnection, EndpointError> {
        let mut socket = self.socket.take().expect("the connection has been handed out");
        match self.advance(&mut socket) {
            Ok(entrance) => {
                let connection =
                    ByteConnection::with(socket, true, true).with_cause(entrance.cause());
                connection.set_limit(self.client.limit);
                Ok(connection)
            }
            Err(error) => {
                self.socket = Some(socket);
                Err(error)
            }
        }
    }

    fn advance(&mut self, socket: &mut OwnedFd) -> Result<Box<Entrance>, EndpointError> {
        loop {
            // It is put back unless all is done, or has failed for good.
            match std::mem::replace(&mut self.stage, Stage::New) {
                Stage::New => self.stage = self.connect(socket)?,
                Stage::Underway => {
                    self.stage = Stage::Underway;
                    self.wait_connected(socket)?;
                    self.stage = Stage::Connected;
                }
                Stage::Connected => {
                    let Client { tls, key, address, .. } = &self.client;
                    let (tls, key) = (tls.as_ref(), key.as_deref());
                    SPIN.with(Attempts::begin);
                    let entrance =
                        Entrance::start(Side::Client, tls, key, address, socket.as_fd())?;
                    self.stage = Stage::Entering(Box::new(entrance));
                }
                Stage::Entering(mut entrance) => {
                    let before = entrance.progress();
                    match advance_in_time(&mut entrance, socket)? {
                        Progress::Done => return Ok(entrance),
                        Progress::Secured => entrance.exchange(socket)?,
                        Progress::Waiting => {
                            if entrance.progress() != before {
                                self.silence = Instant::now().checked_add(self.client.patience);
                            }
                            self.stage = Stage::Entering(entrance);
                            self.wait_readable(socket)?;
                            SPIN.with(Attempts::was_in_vain);
                            continue;
                        }
                    }
                    self.silence = Instant::now().checked_add(self.client.patience);
                    self.stage = Stage::Entering(entrance);
                }
            }
        }
    }

    fn connect(&self, socket: &OwnedFd) -> Result<Stage, EndpointError> {
        let failed = |source| self.failed(source);
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(EndpointError::TimedOut);
        }
        if !matches!(self.place, Place::Tcp(_)) {
            // Without room in the listener's backlog this blocks, and a socket that does not
            // block would be refused.
            if left.is_some() {
                stream::set_connect_timeout(socket.as_fd(), left).map_err(failed)?;
            }
            stream::connect(socket.as_fd(), &self.place).map_err(failed)?;
            if left.is_some() {
                stream::set_connect_timeout(socket.as_fd(), None).map_err(failed)?;
            }
            return Ok(Stage::Connected);
        }
        stream::send_without_delay(socket).map_err(failed)?;
        // On this machine the first call connects, and the second one says so.
        for _ in 0..2 {
            match stream::connect(socket.as_fd(), &self.place) {
                Ok(()) => {
                    stream::let_block(socket.as_fd()).map_err(failed)?;
                    return Ok(Stage::Connected);
                }
                Err(error) if stream::is_underway(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Stage::Underway)
    }

    fn wait_connected(&self, socket: &OwnedFd) -> Result<(), EndpointError> {
        let failed = |source| self.failed(source);
        let poll = |until| fd::poll_writable(socket.as_fd(), until);
        if !poll_in_slices(self.deadline, |ready| *ready, poll).map_err(failed)? {
            return Err(EndpointError::TimedOut);
        }
        stream::connect_result(socket.as_fd()).map_err(failed)?;
        stream::let_block(socket.as_fd()).map_err(failed)
    }

    fn wait_readable(&self, socket: &OwnedFd) -> Result<(), EndpointError> {
        let poll = |until| fd::poll_readable(&[socket.as_fd()], until);
        let first = self.deadline.into_iter().chain(self.silence).min();
        let ready = poll_in_slices(first, |ready| ready.contains(&true), poll)
            .map_err(|source| self.failed(source))?;
        if ready[0] {
            return Ok(());
        }
        let after = match self.client.timeout {
            Some(timeout) if self.deadline == first => timeout,
            _ => self.client.patience,
        };
        Err(HandshakeError::TimedOut { after }.into())
    }

    fn failed(&self, source: io::Error) -> EndpointError {
        // What a Unix socket says whose time to connect has run out.
        if source.kind() == io::ErrorKind::WouldBlock {
            return EndpointError::TimedOut;
        }
        self.client.address.failed("connect", source)
    }
}

/// Goes on as far as what has come allows; looks for a short time for what has not come yet.
fn advance_in_time(entrance: &mut Entrance, socket: &OwnedFd) -> Result<Progress, HandshakeError> {
    let mut progress = entrance.advance(socket.as_fd())?;
    while progress == Progress::Waiting {
        let before = entrance.progress();
        let look = || match entrance.advance(socket.as_fd()) {
            Ok(Progress::Waiting) if entrance.progress() == before => None,
            result => Some(result),
        };
        match SPIN.with(|attempts| attempts.spin(None, look)) {
            Some(result) => progress = result?,
            None => break,
        }
    }
    Ok(progress)
}
