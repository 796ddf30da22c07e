//! What users call: binding, starting, stopping.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::connection::tls::Tls;
use crate::channel::connection::{Address, EndpointError, Listener};
use crate::error::WaitError;
use crate::manager::ClientId;
use crate::manager::duty::Duty;
use crate::manager::gate::{BELL, DOOR, Gate, Notes};
use crate::manager::references::References;
use crate::manager::worker::{self, Handler};
use crate::primitive::{AtomicU32, FutexError, Ordering, futex};
use crate::slice::{must_leave, slice_end};
use crate::sys::epoll::Epoll;
use crate::sys::fd;

/// Clients that may wait to be let in.
const BACKLOG: i32 = 4096;

/// How long a client may take for its handshake, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest message, in bytes, if nobody says otherwise.
const LONGEST: u64 = 1 << 40;

/// Clients at a time, if nobody says otherwise: more than a process may have descriptors.
const MOST_CLIENTS: usize = 1 << 20;

/// How a server is made; see [`Server::builder`].
#[derive(Debug, Clone)]
pub struct ServerBuilder {
    address: Address,
    key: Vec<u8>,
    backlog: i32,
    patience: Duration,
    limit: u64,
    most_clients: usize,
    keep_file: bool,
    tls: Option<Tls>,
}

impl ServerBuilder {
    /// Sets how many clients may wait to be let in; 4096 if it is not called.
    pub fn backlog(mut self, clients: i32) -> Self {
        self.backlog = clients;
        self
    }

    /// Sets how long a client may take to show the key; 20 s if it is not called.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the longest request, in bytes; 1 TiB if it is not called. A client that announces a
    /// longer one is parted with. Memory is taken as the bytes come, not as they are announced.
    pub fn longest_request(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets how many clients there may be at a time; 1,048,576 if it is not called. One more is
    /// turned away when it has shown the key. A client is a process; of Python's form, a thread.
    pub fn max_clients(mut self, clients: usize) -> Self {
        self.most_clients = clients;
        self
    }

    /// Encrypts all connections. Meant for TCP; see [`Tls::server`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Leaves the socket file where it is when the server is dropped.
    pub fn keep_file(mut self) -> Self {
        self.keep_file = true;
        self
    }

    /// Makes the server. Clients can connect from then on, and wait until it is started.
    ///
    /// # Errors
    ///
    /// Those of [`ListenerBuilder::bind`](crate::channel::connection::ListenerBuilder::bind).
    pub fn bind(self) -> Result<Server, EndpointError> {
        let mut listener = Listener::builder(self.address.clone()).backlog(self.backlog);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            listener = listener.tls(tls.clone());
        }
        if self.keep_file {
            listener = listener.keep_file();
        }
        let listener = listener.bind()?;
        let address = listener.address().clone();
        let failed = |call| {
            let address = address.clone();
            move |source| EndpointError::Os { call, address, source }
        };
        let epoll = Epoll::new().map_err(failed("epoll_create1"))?;
        let bell = fd::eventfd().map_err(failed("eventfd"))?;
        let ended = fd::eventfd().map_err(failed("eventfd"))?;
        epoll.add(listener.as_fd(), DOOR).map_err(failed("epoll_ctl"))?;
        epoll.add(bell.as_fd(), BELL).map_err(failed("epoll_ctl"))?;
        Ok(Server(Arc::new(Shared {
            epoll,
            bell,
            ended,
            listener: Mutex::new(Some(listener)),
            address,
            key: self.key,
            patience: self.patience,
            limit: self.limit,
            most_clients: self.most_clients,
            tls: self.tls,
            began: Instant::now(),
            gate: Mutex::new(Gate::new()),
            duty: Duty::default(),
            references: Mutex::new(References::default()),
            notes: Mutex::new(Notes::default()),
            noted: AtomicBool::new(false),
            stopped: AtomicU32::new(0),
        })))
    }
}

/// What the threads of a server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) epoll: Epoll,
    /// Readable when the thread on duty is to look at the notes.
    pub(super) bell: OwnedFd,
    /// Readable once the server is to stop.
    ended: OwnedFd,
    listener: Mutex<Option<Listener>>,
    address: Address,
    pub(super) key: Vec<u8>,
    pub(super) patience: Duration,
    pub(super) limit: u64,
    pub(super) most_clients: usize,
    pub(super) tls: Option<Tls>,
    /// A moment in the past.
    pub(super) began: Instant,
    gate: Mutex<Gate>,
    pub(super) duty: Duty,
    references: Mutex<References>,
    notes: Mutex<Notes>,
    /// Whether there may be notes.
    noted: AtomicBool,
    /// 1 once the server is to stop.
    stopped: AtomicU32,
}

/// Nothing panics while it has one of these locks, so that none is ever poisoned half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        lock(&self.gate)
    }

    pub(super) fn references(&self) -> MutexGuard<'_, References> {
        lock(&self.references)
    }

    pub(super) fn listener(&self) -> MutexGuard<'_, Option<Listener>> {
        lock(&self.listener)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) != 0
    }

    /// Tells the thread on duty something, which it reads before it next waits.
    pub(super) fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut lock(&self.notes));
        self.noted.store(true, Ordering::Release);
    }

    /// Wakes the thread on duty.
    pub(super) fn ring(&self) {
        // It cannot fail on an eventfd that is open.
        let _ = fd::eventfd_signal(self.bell.as_fd());
    }

    pub(super) fn take_notes(&self) -> Option<Notes> {
        self.noted.swap(false, Ordering::AcqRel).then(|| std::mem::take(&mut *lock(&self.notes)))
    }

    pub(super) fn stop(&self) {
        self.stopped.store(1, Ordering::Release);
        futex::wake(&self.stopped, u32::MAX);
        // It cannot fail on an eventfd that is open.
        let _ = fd::eventfd_signal(self.ended.as_fd());
        self.ring();
        self.duty.stop();
    }
}

/// Holds objects for many processes; see the [module](super).
///
/// On drop it stops. The process that has it may be killed: the system then closes its sockets,
/// and every call of every client fails at once. A socket file stays then.
///
/// # Examples
///
/// A server with one object, a list of numbers that grows with every request:
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use procession::channel::connection::{Address, Client as Connector};
/// use procession::manager::{After, Call, Greeting, Handler, Properly, Server, Worker, greet};
///
/// struct Numbers(Mutex<Vec<u8>>);
///
/// impl Handler for Numbers {
///     fn request(&self, _call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
///         let mut numbers = self.0.lock().unwrap();
///         numbers.extend_from_slice(request);
///         reply.extend_from_slice(&numbers);
///         After::Serve
///     }
///
///     fn restore(&self, _call: &Call<'_>, _object: u64) -> bool {
///         false
///     }
///
///     fn released(&self, _objects: &[u64]) {}
///
///     fn gone(&self, _client: u64, _properly: Properly) {}
///
///     fn work(&self, worker: Worker) {
///         std::thread::spawn(|| worker.run());
///     }
/// }
///
/// let name = format!("procession-example-{}", std::process::id());
/// let server = Server::builder(Address::Abstract(name.into_bytes()), "a key").bind()?;
/// server.start(Arc::new(Numbers(Mutex::default())));
///
/// let connector = Connector::new(server.address().clone()).key("a key");
/// let Greeting::Ours(client) = greet(connector.connect()?, server.address().clone())? else {
///     panic!("this is no server of ours");
/// };
/// assert_eq!(client.call(0, &[1, 2])?, [1, 2]);
/// assert_eq!(client.call(0, &[3])?, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server(Arc<Shared>);

impl Server {
    /// Begins to describe a server at this address, for clients that have this key.
    pub fn builder(address: Address, key: impl Into<Vec<u8>>) -> ServerBuilder {
        ServerBuilder {
            address,
            key: key.into(),
            backlog: BACKLOG,
            patience: PATIENCE,
            limit: LONGEST,
            most_clients: MOST_CLIENTS,
            keep_file: false,
            tls: None,
        }
    }

    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Lets requests be answered from now on, by threads that the handler starts.
    pub fn start(&self, handler: Arc<dyn Handler>) {
        worker::start(&self.0, &handler);
    }

    /// Ends all connections and lets no more clients in. Requests that are being answered go on,
    /// and their replies are lost. A second call does nothing.
    pub fn stop(&self) {
        self.close();
        self.0.stop();
    }

    /// Blocks until [`stop`](Self::stop) was called, or a request was answered with
    /// [`After::Stop`](super::After::Stop), or `deadline`; says whether it was. `None` waits for
    /// ever.
    ///
    /// # Errors
    ///
    /// [`WaitError::Interrupted`] when a signal handler ran in this thread.
    pub fn wait_stopped(&self, deadline: Option<Instant>) -> Result<bool, WaitError> {
        while !self.0.is_stopped() {
            let until = slice_end(deadline);
            match futex::wait(&self.0.stopped, 0, until) {
                Err(FutexError::TimedOut) if until == deadline => return Ok(self.0.is_stopped()),
                Err(FutexError::TimedOut) if must_leave() => return Err(WaitError::Interrupted),
                Err(FutexError::Interrupted) => return Err(WaitError::Interrupted),
                Ok(()) | Err(FutexError::Changed | FutexError::TimedOut) => {}
            }
        }
        Ok(true)
    }

    /// Lets no more clients in, and removes the socket file. Those that are in stay.
    pub fn close(&self) {
        let listener = self.0.listener().take();
        if let Some(listener) = listener {
            // A forked process may have a copy, which would keep it in the set.
            let _ = self.0.epoll.remove(listener.as_fd());
        }
    }

    /// Lets another thread see to the clients until this one has answered its request. To be
    /// called by the handler before it does anything that may take long.
    ///
    /// Does nothing in a thread that answers no request of this server, or has called it already.
    pub fn may_block(&self) {
        worker::leave_duty(&self.0);
    }

    /// Whether the client is connected. That of a client on this host which was killed is false
    /// from the moment on in which others see that it has ended.
    pub fn is_connected(&self, client: ClientId) -> bool {
        let peer = self.0.references().peer(client);
        peer.is_some_and(|peer| !peer.has_hung_up())
    }

    /// Counts one more reference to an object, of a client or of nobody in particular. False, and
    /// nothing is counted, if the client is gone.
    pub fn refer(&self, client: Option<ClientId>, object: u64) -> bool {
        self.0.references().add(client, object)
    }

    /// Does what [`refer`](Self::refer) does, if somebody refers to the object; else false.
    pub fn refer_to_known(&self, client: Option<ClientId>, object: u64) -> bool {
        self.0.references().add_to_known(client, object)
    }

    /// Takes back references of a client, or of nobody in particular: at most those that it has.
    /// True if nobody refers to the object any more.
    pub fn give_up(&self, client: Option<ClientId>, object: u64, count: u64) -> bool {
        self.0.references().remove(client, object, count)
    }

    /// How many references to the object there are.
    pub fn references(&self, object: u64) -> u64 {
        self.0.references().count(object)
    }

    /// All objects that somebody refers to, and how many references to each there are.
    pub fn all_references(&self) -> Vec<(u64, u64)> {
        self.0.references().all()
    }

    /// How many threads answer requests or wait for some.
    pub fn threads(&self) -> usize {
        self.0.duty.threads()
    }
}

/// Readable once the server has stopped, for waiting together with other descriptors.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ended.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::slice::testing;

    #[test]
    fn who_waits_for_the_end_sees_to_signals_and_goes_on() {
        let name = format!("procession-test-of-waiting-{}", std::process::id());
        let server = Server::builder(Address::Abstract(name.into_bytes()), "a key").bind().unwrap();
        testing::answer(true);
        assert_eq!(server.wait_stopped(None), Err(WaitError::Interrupted));
        testing::answer(false);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(server.wait_stopped(Some(soon)), Ok(false));
        assert!(Instant::now() >= soon, "gave up before the deadline");
        server.stop();
        assert_eq!(server.wait_stopped(None), Ok(true));
    }
}
