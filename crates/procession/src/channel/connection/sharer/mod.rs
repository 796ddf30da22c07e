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
//! There is one per [key](service::Service), from the first descriptor on until [`stop_sharing`] or
//! the end of the process. It holds back all signals, never blocks on a client, and works on the
//! [`Hall`](hall::Hall), where all is that it needs, under its lock; it waits without the lock. So the
//! child of a fork finds the hall whole and closes all of it: were the child to keep the listening
//! socket, clients would wait for somebody who has died. Whoever forks ends the threads for that time,
//! with [`pause_sharing`]. In the child of another fork that fell into a moment of work, it all stays
//! open until the child ends; clients give up after [`PATIENCE`](super::listener::PATIENCE).

mod hall;
mod redeem;
mod service;

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::connection::address::Address;
use crate::channel::connection::error::EndpointError;
use crate::channel::connection::sharer::service::{Service, random};
use crate::channel::connection::tls;
use crate::sys::per_process::PerProcess;
use crate::sys::process;

pub use self::redeem::{Redeem, RedeemError};

/// A key that is made for what one process shares.
pub(super) type Secret = [u8; 32];

/// Says which descriptor a request is for; `None` if it is no request.
pub type ReadRequest = fn(&[u8]) -> Option<u64>;

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
        None => *sharer.secret.insert(random()?),
    };
    let (address, number) = sharer.share(descriptor, &secret, read)?;
    Ok((address, number, secret))
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
        service.close();
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
    sharer().services.iter().for_each(|service| service.withdraw(mark));
}

/// Closes what the process that this one was forked from shares. To be called in the child of a
/// fork.
///
/// A child that does not call it does so before it shares something itself.
pub fn forget_shared() {
    drop(sharer());
    tls::forget();
}

/// Ends the threads of [`share`] for a fork, and the one that encrypts for connections; clients wait.
/// They go on when what this returns is dropped, but not in the child, which calls [`forget_shared`].
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
                service.close();
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
        service.keep(number, descriptor);
        LAST.set(number);
        Ok((service.address().clone(), number))
    }

    /// The service with a key, which is started if there is none.
    fn service(&mut self, key: &[u8], read: ReadRequest) -> Result<Arc<Service>, EndpointError> {
        if let Some(service) = self.services.iter().find(|service| service.serves(key)) {
            return Ok(service.clone());
        }
        let service = Arc::new(Service::open(key, read)?);
        service.run()?;
        self.services.push(service.clone());
        Ok(service)
    }
}
