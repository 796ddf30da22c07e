//! What is shared under one key, and the thread that serves those who have the key.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::channel::connection::address::Address;
use crate::channel::connection::error::EndpointError;
use crate::channel::connection::listener::Listener;
use crate::channel::connection::sharer::ReadRequest;
use crate::channel::connection::sharer::hall::Hall;
use crate::sys::{fd, process, stream};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// What is shared under one key.
#[derive(Debug)]
pub(super) struct Service {
    key: Vec<u8>,
    read: ReadRequest,
    address: Address,
    /// Taken out when sharing ends, and in the child of a fork.
    hall: Mutex<Option<Hall>>,
    thread: Mutex<Option<Running>>,
}

/// A thread, and what tells that it has ended.
#[derive(Debug)]
struct Running {
    thread: thread::JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl Service {
    /// Begins to listen; clients wait until the thread [runs](Self::run).
    pub(super) fn open(key: &[u8], read: ReadRequest) -> Result<Self, EndpointError> {
        let random = u64::from_ne_bytes(random()?);
        let name = format!("procession-{}-{random:016x}", process::getpid());
        let listener = Listener::builder(Address::Abstract(name.into_bytes()))
            .key(key)
            .backlog(BACKLOG)
            .bind()?;
        let address = listener.address().clone();
        Ok(Self {
            key: key.to_owned(),
            read,
            address,
            hall: Mutex::new(Some(Hall::new(listener)?)),
            thread: Mutex::new(None),
        })
    }

    /// Whether it shares, under this key.
    pub(super) fn serves(&self, key: &[u8]) -> bool {
        self.key == key && self.hall().is_some()
    }

    /// Where to ask for what is shared.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Puts a descriptor away for whoever asks for this number.
    pub(super) fn keep(&self, number: u64, descriptor: OwnedFd) {
        if let Some(hall) = self.hall().as_mut() {
            hall.keep(number, descriptor);
        }
    }

    /// Closes what the calling thread has put away under numbers above `mark`.
    pub(super) fn withdraw(&self, mark: u64) {
        if let Some(hall) = self.hall().as_mut() {
            hall.withdraw(mark);
        }
    }

    /// Closes all of it. A thread that works there ends.
    pub(super) fn close(&self) {
        let hall = self.hall().take();
        drop(hall);
    }

    fn hall(&self) -> MutexGuard<'_, Option<Hall>> {
        // What panics under it leaves a client in its place, at worst.
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, if it does not run.
    pub(super) fn run(self: &Arc<Self>) -> Result<(), EndpointError> {
        let mut running = self.running();
        if running.is_some() {
            // Of two threads that fork, the other one has let it go on.
            return Ok(());
        }
        match self.hall().as_mut() {
            // Sharing has been ended meanwhile.
            None => return Ok(()),
            Some(hall) => hall.admit_thread(),
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
    pub(super) fn halt(&self, deadline: Option<Instant>) -> bool {
        let mut running = self.running();
        if let Some(hall) = self.hall().as_mut() {
            hall.halt_thread();
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
    pub(super) fn abandon(&self) {
        if let Ok(mut hall) = self.hall.try_lock() {
            drop(hall.take());
        }
    }

    /// What the thread does.
    fn serve(&self) {
        loop {
            let (descriptors, deadline) = match self.hall().as_mut() {
                None => return,
                Some(hall) if hall.is_halted() => return,
                Some(hall) => hall.work(self.read),
            };
            // A descriptor that another thread has closed meanwhile is found out by the next round.
            let _ = fd::poll_readable_raw(&descriptors, deadline);
        }
    }
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], EndpointError> {
    let mut bytes = [0; N];
    stream::random_bytes(&mut bytes)
        .map_err(|source| Address::Unnamed.failed("getrandom", source))?;
    Ok(bytes)
}
