//! What users call who have a manager: describing it, serving, starting it in a process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::connection::tls::Tls;
use crate::channel::connection::{Address, EndpointError};
use crate::manager::host_calls::Host;
use crate::manager::host_process;
use crate::manager::registry::Registry;
use crate::manager::{CallFailed, RemoteManager, Server};
use crate::process::{JoinError, JoinHandle, SpawnError, StartMethod};
use crate::shm::ArenaError;
use crate::sys::{process, stream};

/// How long the process of a manager may take for its end before it is terminated, and again
/// before it is killed; if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a manager is made; see [`Manager::builder`].
#[derive(Clone)]
#[must_use = "a builder makes nothing by itself"]
pub struct ManagerBuilder {
    address: Option<Address>,
    key: Option<Vec<u8>>,
    method: StartMethod,
    patience: Duration,
    tls: Option<Tls>,
}

impl fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("ManagerBuilder")
            .field("address", &self.address)
            .field("start_method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Why there is no manager.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManagerError {
    /// It cannot listen at its address.
    Listen(EndpointError),
    /// Its process cannot listen at its address.
    ListenInProcess {
        /// The process, which has ended.
        pid: u32,
        /// What stood in the way.
        reason: String,
    },
    /// Its process was not started.
    Spawn(SpawnError),
    /// Its process ended before it listened.
    Ended(JoinError),
    /// There is no room in shared memory for what its process is to say.
    Arena(ArenaError),
    /// It was to use TLS in a process of its own. The private key stays in this process: serve here.
    TlsElsewhere,
    /// The system refused something else.
    Os {
        /// The system call that failed.
        call: &'static str,
        /// What it reported.
        source: io::Error,
    },
}

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => write!(f, "the manager cannot listen: {error}"),
            Self::ListenInProcess { pid, reason } => {
                write!(f, "the manager in process {pid} cannot listen: {reason}")
            }
            Self::Spawn(error) => write!(f, "the manager's process was not started: {error}"),
            Self::Ended(error) => write!(f, "the manager did not come to serve: {error}"),
            Self::Arena(error) => write!(f, "there is no room for a manager: {error}"),
            Self::TlsElsewhere => f.write_str(
                "a manager with TLS serves in the process that has the private key: use `serve`",
            ),
            Self::Os { call, .. } => write!(f, "the manager was not started: {call} failed"),
        }
    }
}

impl std::error::Error for ManagerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::ListenInProcess { .. } | Self::TlsElsewhere => None,
            Self::Spawn(error) => Some(error),
            Self::Ended(error) => Some(error),
            Self::Arena(error) => Some(error),
            Self::Os { source, .. } => Some(source),
        }
    }
}

impl ManagerBuilder {
    /// Sets where the manager listens. Without this it is under a name that nobody uses, on this
    /// machine alone; clients are told by [`Manager::address`].
    pub fn address(mut self, address: Address) -> Self {
        self.address = Some(address);
        self
    }

    /// Sets the key that clients must have, and the manager too. Without this it is a random one;
    /// clients are told by [`Manager::authkey`].
    pub fn authkey(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how [`start`](Self::start) starts the manager's process.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets how long the manager's process may take for its end before it is terminated, and as
    /// long again before it is killed; 1 s if it is not called.
    pub fn shutdown_timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Encrypts all connections. Meant for TCP; see
    /// [`Tls::server`](crate::channel::connection::Tls::server). For [`serve`](Self::serve) and
    /// [`serve_forever`](Self::serve_forever); clients in Rust are told by
    /// [`use_tls`](crate::manager::use_tls).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    fn complete(self) -> Result<Plan, ManagerError> {
        let mut random = [0; 40];
        let failed = |source| ManagerError::Os { call: "getrandom", source };
        stream::random_bytes(&mut random).map_err(failed)?;
        let (key, name) = random.split_at(32);
        let address = self.address.unwrap_or_else(|| {
            let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = format!("procession-manager-{}-{digits}", process::getpid());
            Address::Abstract(name.into_bytes())
        });
        let key = self.key.unwrap_or_else(|| key.to_vec());
        let (method, patience, tls) = (self.method, self.patience, self.tls);
        Ok(Plan { address, key, method, patience, tls })
    }

    /// Serves in this process, by threads of its own, until the handle is told to stop or dropped,
    /// or a client asks for it. Returns at once.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Listen`].
    pub fn serve(
        self,
        register: impl FnOnce(&mut Registry),
    ) -> Result<ServingManager, ManagerError> {
        let plan = self.complete()?;
        let host = open(&plan, register)?;
        Ok(ServingManager { host, key: plan.key })
    }

    /// Serves in this process until a client asks it to stop, and returns then. Blocks until then;
    /// a signal does not end that.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Listen`].
    pub fn serve_forever(self, register: impl FnOnce(&mut Registry)) -> Result<(), ManagerError> {
        self.serve(register)?.wait();
        Ok(())
    }

    /// Serves in a process of its own. Blocks until that listens.
    ///
    /// `register` is called in that process. As any function that a process is given, it is one by
    /// name, or a closure that captures nothing.
    ///
    /// The process ends when the manager is dropped or a client asks for it, and also when this
    /// process ends, even if that is killed. It ignores `SIGINT`, which Ctrl-C sends to all
    /// processes at a terminal: when to end is for this process to say.
    ///
    /// # Errors
    ///
    /// - [`ManagerError::Spawn`] as [`Builder::spawn`](crate::process::Builder::spawn).
    /// - [`ManagerError::ListenInProcess`] when the address is taken or there is no such one.
    /// - [`ManagerError::Ended`] when the process died, or `register` panicked.
    /// - [`ManagerError::TlsElsewhere`] when it was given TLS.
    pub fn start<F>(self, register: F) -> Result<Manager, ManagerError>
    where
        F: Fn(&mut Registry) + Copy + Send + 'static,
    {
        let plan = self.complete()?;
        if plan.tls.is_some() {
            return Err(ManagerError::TlsElsewhere);
        }
        let (process, address) = host_process::start(&plan, register)?;
        Ok(Manager {
            process: Some(process),
            owner: crate::sys::process::getpid(),
            address,
            key: plan.key,
            patience: plan.patience,
        })
    }
}

/// A builder with nothing left open.
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) key: Vec<u8>,
    pub(super) method: StartMethod,
    patience: Duration,
    tls: Option<Tls>,
}

impl Plan {
    /// For a process whose start and end are seen to by another one.
    pub(super) fn new(address: Address, key: Vec<u8>) -> Self {
        Self { address, key, method: StartMethod::default(), patience: PATIENCE, tls: None }
    }
}

/// Listens, and serves from then on.
pub(super) fn open(
    plan: &Plan,
    register: impl FnOnce(&mut Registry),
) -> Result<Arc<Host>, ManagerError> {
    let mut registry = Registry::new();
    register(&mut registry);
    let server = Server::builder(plan.address.clone(), plan.key.clone());
    #[cfg(feature = "tls")]
    let server = match &plan.tls {
        Some(tls) => server.tls(tls.clone()),
        None => server,
    };
    let server = server.bind().map_err(ManagerError::Listen)?;
    let mut seed = [0; 8];
    let failed = |source| ManagerError::Os { call: "getrandom", source };
    stream::random_bytes(&mut seed).map_err(failed)?;
    crate::process::panics::watch();
    let host = Arc::new(Host::new(server, registry, u64::from_ne_bytes(seed)));
    host.server().start(host.clone());
    Ok(host)
}

/// A manager in this process; see [`ManagerBuilder::serve`].
///
/// Dropped, it stops, and waits up to a second for calls that are being carried out.
pub struct ServingManager {
    host: Arc<Host>,
    key: Vec<u8>,
}

impl fmt::Debug for ServingManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("ServingManager").field("address", self.address()).finish_non_exhaustive()
    }
}

impl ServingManager {
    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> &Address {
        self.host.server().address()
    }

    /// The key that clients must have.
    pub fn authkey(&self) -> &[u8] {
        &self.key
    }

    /// Ends all connections and lets no more clients in: their calls fail at once. A second call
    /// does nothing.
    pub fn stop(&self) {
        self.host.server().stop();
    }

    /// Blocks until it was stopped, here or by a client, and until no method is being carried out
    /// any more, for which it waits no longer than a second. A signal does not end that.
    pub fn wait(&self) {
        // Interrupted by a handler of the program, which is no reason to stop waiting.
        while self.host.server().wait_stopped(None).is_err() {}
        self.host.server().close();
        self.host.threads.wait_ended();
    }

    /// Connects with it, as another process does.
    ///
    /// # Errors
    ///
    /// [`CallFailed::NotConnected`].
    pub fn connect(&self) -> Result<RemoteManager, CallFailed> {
        RemoteManager::connect(self.address().clone(), self.key.clone())
    }
}

impl Drop for ServingManager {
    fn drop(&mut self) {
        self.stop();
        self.host.threads.wait_ended();
    }
}

/// A manager in a process of its own, which serves objects to any number of processes.
///
/// What it can make and has is in a [`Registry`]: objects of the program's own types, which get
/// methods for clients by [`shared`](macro@crate::shared), and all that Python's `SyncManager` has.
/// Clients are programs in Rust ([`RemoteManager`]) and in Python, with this package or the
/// standard library alone (`BaseManager`, `SyncManager`).
///
/// To serve in this process, see [`ManagerBuilder::serve`].
///
/// # When a process dies
///
/// - A client: what it referred to is dropped, `Lock`s and `RLock`s that it had are let go of,
///   calls of it that wait end, and no item of a queue is handed to it any more. A client of the
///   standard library of Python cannot say that it ends as it should; a `Lock` that it had stays
///   as it is, and its references stay, since nobody knows them.
/// - The manager: all calls of all clients fail at once, with its address and process id. Its
///   objects are gone.
/// - This process: the manager ends.
///
/// # Examples
///
/// ```
/// use procession::manager::{Manager, ProxyError};
///
/// struct Account {
///     cents: u64,
/// }
///
/// #[procession::shared]
/// impl Account {
///     /// Adds to the account and returns what is there.
///     pub fn put(&mut self, cents: u64) -> u64 {
///         self.cents += cents;
///         self.cents
///     }
///
///     /// Takes from the account, or says what is missing.
///     pub fn take(&mut self, cents: u64) -> Result<u64, u64> {
///         let missing = cents.saturating_sub(self.cents);
///         self.cents = self.cents.checked_sub(cents).ok_or(missing)?;
///         Ok(self.cents)
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::init(); // the manager's process goes its own way here
///     let manager = Manager::builder().start(|registry| {
///         registry.register("Account", || Account { cents: 0 });
///     })?;
///
///     // In any process that has the address and the key:
///     let client = manager.connect()?;
///     let account = AccountProxy::from(client.create("Account", ())?);
///     assert_eq!(account.put(500)?, 500);
///     assert!(matches!(account.take(700), Err(ProxyError::Failed(200))));
///     Ok(())
/// }
/// ```
pub struct Manager {
    /// Until the process has ended.
    process: Option<JoinHandle<()>>,
    /// The process that started it.
    owner: u32,
    address: Address,
    key: Vec<u8>,
    patience: Duration,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Manager")
            .field("address", &self.address)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// Begins to describe a manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder {
            address: None,
            key: None,
            method: StartMethod::default(),
            patience: PATIENCE,
            tls: None,
        }
    }

    /// Where it listens; with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The key that clients must have.
    pub fn authkey(&self) -> &[u8] {
        &self.key
    }

    /// Its process id; `None` after its end.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(JoinHandle::pid)
    }

    /// Whether its process has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.process.as_ref().is_some_and(JoinHandle::is_alive)
    }

    /// Connects with it.
    ///
    /// # Errors
    ///
    /// [`CallFailed::NotConnected`].
    pub fn connect(&self) -> Result<RemoteManager, CallFailed> {
        RemoteManager::connect(self.address.clone(), self.key.clone())
    }

    /// Ends its process, and all connections with it: calls fail at once. Blocks until the process
    /// has ended; one that does not end when it is told so is terminated and at last killed, each
    /// after the time that [`ManagerBuilder::shutdown_timeout`] sets.
    ///
    /// Dropping it does the same. In a process that was forked from the one that started it, both
    /// do nothing.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if process::getpid() != self.owner {
            // The process is no child of this one, and not for it to end.
            std::mem::forget(self.process.take());
            return;
        }
        if let Some(process) = self.process.take() {
            host_process::end(&process, &self.address, &self.key, self.patience);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.end();
    }
}
