//! Descriptors for processes that will ask for them later.
//!
//! A descriptor that is named in a message must be kept by somebody until the message is read. Its
//! sender keeps it: [`share`] puts it away under a number, and whoever learns the number and where
//! to ask fetches it, once, with [`Redeem`].
//!
//! # On the wire
//!
//! As in CPython: the client connects, both prove that they have the key, the client sends one
//! message that says which descriptor it wants, and gets the descriptor with one byte. CPython 3.14
//! and newer acknowledge that with the byte `A` and want to be acknowledged; older ones neither send
//! nor read it. So `A` is always sent, nobody minding if it is not read, and never waited for: the
//! server leaves the connection open until the client has closed it.
//!
//! | died                              | what becomes of it                                      |
//! |-----------------------------------|---------------------------------------------------------|
//! | the process that shared           | the address is gone with it: [`RedeemError::Gone`]      |
//! | client, before it got the descriptor | if it had asked, the descriptor is closed; else it stays, until [`stop_sharing`] |
//!
//! # The thread
//!
//! There is one per key, from the first descriptor on until [`stop_sharing`] or the end of the
//! process. It holds back all signals, never blocks on a client, and works on the [`Hall`], where
//! all is that it needs, under its lock; it waits without the lock. So the child of a fork finds the
//! hall whole and closes all of it: were the child to keep the listening socket, clients would wait
//! for somebody who has died. Whoever forks ends the threads for that time, with [`pause_sharing`].
//! In the child of another fork that fell into a moment of work, it all stays open until the child
//! ends; clients give up after [`PATIENCE`].

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::client::{Client, Connecting};
use crate::channel::connection::error::{EndpointError, HandshakeError, RecvError, SendError};
use crate::channel::connection::handshake::Inbox;
use crate::channel::connection::listener::{Listener, PATIENCE};
use crate::channel::connection::tls;
use crate::sys::per_process::PerProcess;
use crate::sys::{fd, process, stream};

/// A key that is made for what one process shares.
pub(super) type Secret = [u8; 32];

/// Says which descriptor a request is for; `None` if it is no request.
pub type ReadRequest = fn(&[u8]) -> Option<u64>;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Clients served at a time. One more takes the place of the one that came first.
const MOST_CLIENTS: usize = 128;

/// When no descriptor is left to accept a client with, how long until the next attempt.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// The byte that acknowledges a descriptor.
const ACKNOWLEDGEMENT: &[u8] = b"A";

static SHARER: PerProcess<Mutex<Sharer>> = PerProcess::new();

thread_local! {
    /// The number of what this thread has shared last; 0 before.
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// All that this process shares.
#[derive(Debug, Default)]
struct Sharer {
    last_number: u64,
    services: Vec<Arc<Service>>,
    secret: Option<Secret>,
}

/// What is shared under one key.
#[derive(Debug)]
struct Service {
    key: Vec<u8>,
    read: ReadRequest,
    address: Address,
    /// Taken out when sharing ends, and in the child of a fork.
    hall: Mutex<Option<Hall>>,
    thread: Mutex<Option<Running>>,
}

/// What the thread of a service works on.
#[derive(Debug)]
struct Hall {
    listener: Listener,
    /// Readable when the thread is to look at `halt`.
    bell: OwnedFd,
    halt: bool,
    clients: Vec<Guest>,
    descriptors: BTreeMap<u64, Kept>,
    /// Not to accept anybody before.
    pause: Option<Instant>,
}

/// A descriptor that was put away, and by which thread.
#[derive(Debug)]
struct Kept {
    descriptor: OwnedFd,
    thread: ThreadId,
}

/// A client that has shown the key.
#[derive(Debug)]
struct Guest {
    socket: OwnedFd,
    inbox: Inbox,
    /// When it will have been silent for too long.
    deadline: Option<Instant>,
    served: bool,
}

/// A thread, and what tells that it has ended.
#[derive(Debug)]
struct Running {
    thread: thread::JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

/// Puts a descriptor away until somebody fetches it with [`Redeem`], and returns where to ask and
/// the number to ask for. Does not block.
///
/// Whoever wants it must have `key`; `read` says what they want. A number is good for one time. What
/// nobody asks for is kept until [`stop_sharing`], or the end of the process.
///
/// # Errors
///
/// [`EndpointError::Os`] when the system has no socket, or no thread, for those who will ask.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use std::time::Duration;
/// use procession::channel::connection::{ByteConnection, Redeem, byte_pipe, share, stop_sharing};
///
/// fn number(request: &[u8]) -> Option<u64> {
///     Some(u64::from_le_bytes(request.try_into().ok()?))
/// }
///
/// let (here, there) = byte_pipe()?;
/// let (address, which) = share(there.into(), b"a key", number)?;
/// let patience = Duration::from_secs(20);
/// let mut redeem = Redeem::start(&address, b"a key", &which.to_le_bytes(), patience)?;
/// ByteConnection::new(redeem.finish()?)?.send(b"hello")?;
/// assert_eq!(here.recv()?, b"hello");
/// assert!(stop_sharing(None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn share(
    descriptor: OwnedFd,
    key: &[u8],
    read: ReadRequest,
) -> Result<(Address, u64), EndpointError> {
    sharer().share(descriptor, key, read)
}

/// Does what [`share`] does, with a key that nobody has but who is told; returns it as well.
pub(super) fn share_by_secret(
    descriptor: OwnedFd,
    read: ReadRequest,
) -> Result<(Address, u64, Secret), EndpointError> {
    let mut sharer = sharer();
    let secret = match sharer.secret {
        Some(secret) => secret,
        None => *sharer.secret.insert(random().map_err(no_randomness)?),
    };
    let (address, number) = sharer.share(descriptor, &secret, read)?;
    Ok((address, number, secret))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream::random_bytes(&mut bytes)?;
    Ok(bytes)
}

fn no_randomness(source: io::Error) -> EndpointError {
    Address::Unnamed.failed("getrandom", source)
}

/// Closes all that is shared and was not fetched, and ends the threads of [`share`]; the next call
/// of that starts afresh. Blocks until they have ended, for at most `timeout`; says whether they
/// have.
pub fn stop_sharing(timeout: Option<Duration>) -> bool {
    let services = std::mem::take(&mut sharer().services);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut ended = true;
    for service in services {
        ended &= service.halt(deadline);
        let hall = service.hall().take();
        drop(hall);
    }
    ended
}

/// What [`withdraw`] is told, so that it leaves alone what was shared before.
pub(crate) fn mark() -> u64 {
    LAST.get()
}

/// Takes back what this thread has shared since [`mark`]: the message that named it is not sent.
pub(crate) fn withdraw(mark: u64) {
    if LAST.get() == mark {
        return;
    }
    let me = thread::current().id();
    for service in &sharer().services {
        if let Some(hall) = service.hall().as_mut() {
            hall.descriptors.retain(|number, kept| *number <= mark || kept.thread != me);
        }
    }
}

/// Closes what the process that this one was forked from shares. To be called in the child of a
/// fork.
///
/// A child that does not call it does so before it shares something itself.
pub fn forget_shared() {
    drop(sharer());
    tls::forget();
}

/// Ends the threads of [`share`] for a fork, and the one that encrypts for connections; clients wait. They go on when what this returns is
/// dropped, but not in the child, which calls [`forget_shared`].
pub fn pause_sharing() -> PausedSharing {
    let services = sharer().services.clone();
    for service in &services {
        service.halt(None);
    }
    PausedSharing { services, process: process::getpid(), _tunnels: tls::pause() }
}

/// What [`pause_sharing`] returns.
#[derive(Debug)]
#[must_use = "dropping it lets the threads go on"]
pub struct PausedSharing {
    services: Vec<Arc<Service>>,
    process: u32,
    _tunnels: tls::PausedPump,
}

impl Drop for PausedSharing {
    fn drop(&mut self) {
        if self.process != process::getpid() {
            return;
        }
        for service in &self.services {
            if let Err(error) = service.run() {
                // Without its thread nobody can fetch anything, and is told so at once.
                tracing::error!("what is shared is lost: {error}");
                drop(service.hall().take());
            }
        }
    }
}

fn sharer() -> MutexGuard<'static, Sharer> {
    let of_this_process = SHARER.get(|inherited| {
        if let Ok(mut sharer) = inherited.try_lock() {
            sharer.services.iter().for_each(|service| service.abandon());
            sharer.services.clear();
        }
    });
    // No change of it can panic half-way.
    of_this_process.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sharer {
    fn share(
        &mut self,
        descriptor: OwnedFd,
        key: &[u8],
        read: ReadRequest,
    ) -> Result<(Address, u64), EndpointError> {
        let service = self.service(key, read)?;
        self.last_number += 1;
        let number = self.last_number;
        let kept = Kept { descriptor, thread: thread::current().id() };
        if let Some(hall) = service.hall().as_mut() {
            hall.descriptors.insert(number, kept);
        }
        LAST.set(number);
        Ok((service.address.clone(), number))
    }

    /// The service with a key, which is started if there is none.
    fn service(&mut self, key: &[u8], read: ReadRequest) -> Result<Arc<Service>, EndpointError> {
        let same = |service: &&Arc<Service>| service.key == key && service.hall().is_some();
        if let Some(service) = self.services.iter().find(same) {
            return Ok(service.clone());
        }
        let service = Arc::new(Service::open(key, read)?);
        service.run()?;
        self.services.push(service.clone());
        Ok(service)
    }
}

impl Service {
    fn open(key: &[u8], read: ReadRequest) -> Result<Self, EndpointError> {
        let random = u64::from_ne_bytes(random().map_err(no_randomness)?);
        let name = format!("procession-{}-{random:016x}", process::getpid());
        let listener = Listener::builder(Address::Abstract(name.into_bytes()))
            .key(key)
            .backlog(BACKLOG)
            .bind()?;
        let address = listener.address().clone();
        let hall = Hall {
            listener,
            bell: fd::eventfd().map_err(|source| address.failed("eventfd", source))?,
            halt: false,
            clients: Vec::new(),
            descriptors: BTreeMap::new(),
            pause: None,
        };
        Ok(Self {
            key: key.to_owned(),
            read,
            address,
            hall: Mutex::new(Some(hall)),
            thread: Mutex::new(None),
        })
    }

    fn hall(&self) -> MutexGuard<'_, Option<Hall>> {
        // What panics under it leaves a client in its place, at worst.
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, if it does not run.
    fn run(self: &Arc<Self>) -> Result<(), EndpointError> {
        let mut running = self.running();
        if running.is_some() {
            // Of two threads that fork, the other one has let it go on.
            return Ok(());
        }
        match self.hall().as_mut() {
            // Sharing has been ended meanwhile.
            None => return Ok(()),
            Some(hall) => {
                hall.halt = false;
                // It was rung for the last thread.
                let _ = fd::eventfd_drain(hall.bell.as_fd());
            }
        }
        let (ending, ended) = mpsc::channel();
        let service = self.clone();
        let serve = move || {
            let _ending: mpsc::Sender<()> = ending;
            process::block_all_signals();
            service.serve();
        };
        let named = thread::Builder::new().name("procession-fds".to_owned());
        let thread =
            named.spawn(serve).map_err(|source| self.address.failed("pthread_create", source))?;
        *running = Some(Running { thread, ended });
        Ok(())
    }

    /// Ends the thread, and says whether it has ended by `deadline`.
    fn halt(&self, deadline: Option<Instant>) -> bool {
        let mut running = self.running();
        if let Some(hall) = self.hall().as_mut() {
            hall.halt = true;
            // It fails for no descriptor that is open.
            let _ = fd::eventfd_signal(hall.bell.as_fd());
        }
        let Some(running) = running.take() else { return true };
        let ended = match deadline {
            None => true,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Nothing is ever sent: the other end is dropped by the thread when it ends.
                running.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
            }
        };
        if ended {
            // It panics for nothing that a client can do; if it did, it has ended as well.
            let _ = running.thread.join();
        }
        ended
    }

    /// Closes what the child of a fork has inherited.
    fn abandon(&self) {
        if let Ok(mut hall) = self.hall.try_lock() {
            drop(hall.take());
        }
    }

    /// What the thread does.
    fn serve(&self) {
        loop {
            let (descriptors, deadline) = match self.hall().as_mut() {
                None => return,
                Some(hall) if hall.halt => return,
                Some(hall) => hall.work(self.read),
            };
            // A descriptor that another thread has closed meanwhile is found out by the next round.
            let _ = fd::poll_readable_raw(&descriptors, deadline);
        }
    }
}

impl Hall {
    /// Does all that can be done without waiting; returns what to wait for, and until when.
    fn work(&mut self, read: ReadRequest) -> (Vec<RawFd>, Option<Instant>) {
        let now = Instant::now();
        if self.pause.is_none_or(|until| until <= now) {
            self.pause = self.accept(now).err().and_then(|_| now.checked_add(SHORT_OF_DESCRIPTORS));
        }
        let Self { clients, descriptors, .. } = self;
        clients.retain_mut(|guest| guest.advance(descriptors, read, now));
        let mut watched = vec![self.bell.as_raw_fd()];
        let mut deadline = self.pause;
        if deadline.is_none() {
            deadline = self.listener.watch(&mut watched);
        }
        watched.extend(self.clients.iter().map(|guest| guest.socket.as_raw_fd()));
        let silent = self.clients.iter().filter_map(|guest| guest.deadline);
        (watched, silent.chain(deadline).min())
    }

    /// Takes in the clients that have shown the key by now.
    fn accept(&mut self, now: Instant) -> Result<(), EndpointError> {
        loop {
            match self.listener.accept_until(Some(now)) {
                Ok((connection, _)) => {
                    if self.clients.len() >= MOST_CLIENTS {
                        self.clients.remove(0);
                    }
                    self.clients.push(Guest {
                        socket: connection.into(),
                        inbox: Inbox::default(),
                        deadline: now.checked_add(PATIENCE),
                        served: false,
                    });
                }
                Err(EndpointError::TimedOut | EndpointError::Interrupted) => return Ok(()),
                // The next one may know the key.
                Err(EndpointError::Handshake(error)) => tracing::debug!("turned away: {error}"),
                Err(error) => {
                    tracing::warn!("cannot accept those who want what is shared: {error}");
                    return Err(error);
                }
            }
        }
    }
}

impl Guest {
    /// Does what the client asks for, if it has asked; false when it is done.
    fn advance(
        &mut self,
        descriptors: &mut BTreeMap<u64, Kept>,
        read: ReadRequest,
        now: Instant,
    ) -> bool {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return false;
        }
        if self.served {
            // Anything, and be it the end, says that it has the descriptor.
            let heard = stream::receive_now(self.socket.as_fd(), &mut [0]);
            return heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        }
        match self.inbox.receive(self.socket.as_fd()) {
            Ok(None) => true,
            Ok(Some(request)) => {
                let kept = read(&request).and_then(|number| descriptors.remove(&number));
                self.served = true;
                kept.is_some_and(|kept| self.give(&kept.descriptor))
            }
            Err(_) => false,
        }
    }

    /// Sends a descriptor, and says whether it went.
    fn give(&self, descriptor: &OwnedFd) -> bool {
        let result = fd::send_fds(self.socket.as_fd(), &[1], &[descriptor.as_fd()]);
        if let Err(error) = &result {
            tracing::debug!("a shared descriptor was closed, who wanted it is gone: {error}");
        }
        result.is_ok()
    }
}

/// Why a descriptor was not to be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedeemError {
    /// The process that shared it has died, or has stopped sharing.
    Gone {
        /// Where it was to be had.
        address: Address,
    },
    /// It was fetched before, or has been withdrawn.
    Withdrawn {
        /// Where it was to be had.
        address: Address,
    },
    /// The process that shared it did not answer in time.
    TimedOut {
        /// Where it was to be had.
        address: Address,
    },
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// The process that shared it could not be asked: it has another key, for example.
    Endpoint(EndpointError),
    /// Something else than one descriptor came, or no more descriptors can be open here.
    Descriptor(RecvError),
}

impl fmt::Display for RedeemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone { address } => write!(
                f,
                "the process that shared the descriptor has died or does not share it any more: \
                 nobody listens at {address}"
            ),
            Self::Withdrawn { address } => write!(
                f,
                "the descriptor is not to be had at {address}: it was fetched before, which can be \
                 done once, or the process that shared it has just died"
            ),
            Self::TimedOut { address } => write!(
                f,
                "the process that shared the descriptor did not answer at {address} within {} s",
                PATIENCE.as_secs()
            ),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Endpoint(_) => f.write_str("cannot ask for the descriptor"),
            Self::Descriptor(_) => f.write_str("cannot receive the descriptor"),
        }
    }
}

impl Error for RedeemError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Endpoint(source) => Some(source),
            Self::Descriptor(source) => Some(source),
            _ => None,
        }
    }
}

/// A descriptor that is being fetched from the process that shares it.
#[derive(Debug)]
pub struct Redeem {
    address: Address,
    request: Vec<u8>,
    connecting: Connecting,
    connection: Option<ByteConnection>,
    asked: bool,
    deadline: Option<Instant>,
}

impl Redeem {
    /// Prepares to fetch what was shared with [`share`], or by Python's
    /// `multiprocessing.resource_sharer`; `request` says what. Does not block.
    ///
    /// # Errors
    ///
    /// [`RedeemError::Endpoint`] when there is no socket to ask with.
    pub fn start(
        address: &Address,
        key: &[u8],
        request: &[u8],
        timeout: Duration,
    ) -> Result<Self, RedeemError> {
        let client = Client::new(address.clone()).key(key).timeout(timeout);
        let connecting = client.start().map_err(RedeemError::Endpoint)?;
        Ok(Self {
            address: address.clone(),
            request: request.to_owned(),
            connecting,
            connection: None,
            asked: false,
            deadline: Instant::now().checked_add(timeout),
        })
    }

    /// Blocks until the descriptor is there, which `exec` closes. To be called again after an
    /// interruption only.
    ///
    /// # Errors
    ///
    /// [`RedeemError`] has one variant for each.
    pub fn finish(&mut self) -> Result<OwnedFd, RedeemError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connecting.finish().map_err(|error| self.not_connected(error))?,
        };
        let connection = self.connection.insert(connection);
        if !self.asked {
            connection.send(&self.request).map_err(|error| not_asked(error, &self.address))?;
            self.asked = true;
        }
        match connection.poll(self.deadline) {
            Ok(true) => {}
            Ok(false) => return Err(RedeemError::TimedOut { address: self.address.clone() }),
            Err(error) => return Err(not_received(error, &self.address)),
        }
        let descriptor =
            connection.recv_descriptor().map_err(|error| not_received(error, &self.address))?;
        // Those who do not expect it have closed their end, or do so without reading it.
        let _ = stream::send_now(connection.as_fd(), ACKNOWLEDGEMENT);
        Ok(descriptor)
    }

    fn not_connected(&self, error: EndpointError) -> RedeemError {
        let address = self.address.clone();
        match error {
            EndpointError::Interrupted => RedeemError::Interrupted,
            EndpointError::Refused { .. } | EndpointError::Handshake(HandshakeError::Gone) => {
                RedeemError::Gone { address }
            }
            EndpointError::TimedOut | EndpointError::Handshake(HandshakeError::TimedOut { .. }) => {
                RedeemError::TimedOut { address }
            }
            other => RedeemError::Endpoint(other),
        }
    }
}

fn not_asked(error: SendError, address: &Address) -> RedeemError {
    match error {
        SendError::Interrupted => RedeemError::Interrupted,
        _ => RedeemError::Withdrawn { address: address.clone() },
    }
}

fn not_received(error: RecvError, address: &Address) -> RedeemError {
    match error {
        RecvError::Interrupted => RedeemError::Interrupted,
        RecvError::EndOfStream => RedeemError::Withdrawn { address: address.clone() },
        // The other end was closed before it had read all.
        RecvError::Os { source } if source.kind() == io::ErrorKind::ConnectionReset => {
            RedeemError::Withdrawn { address: address.clone() }
        }
        other => RedeemError::Descriptor(other),
    }
}
