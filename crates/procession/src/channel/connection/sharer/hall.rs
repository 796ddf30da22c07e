//! Where those are served who ask for a descriptor.
//!
//! All that is done here is done without waiting; the thread of the [service](super::service) waits.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::channel::connection::error::EndpointError;
use crate::channel::connection::handshake::Inbox;
use crate::channel::connection::listener::{Listener, PATIENCE};
use crate::channel::connection::sharer::ReadRequest;
use crate::sys::{fd, stream};

/// Clients served at a time. One more takes the place of the one that came first.
const MOST_CLIENTS: usize = 128;

/// When no descriptor is left to accept a client with, how long until the next attempt.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// What the thread of a service works on.
#[derive(Debug)]
pub(super) struct Hall {
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

impl Hall {
    /// Nobody is in it yet.
    pub(super) fn new(listener: Listener) -> Result<Self, EndpointError> {
        let no_bell = |source| listener.address().failed("eventfd", source);
        Ok(Self {
            bell: fd::eventfd().map_err(no_bell)?,
            listener,
            halt: false,
            clients: Vec::new(),
            descriptors: BTreeMap::new(),
            pause: None,
        })
    }

    /// Lets a new thread work here.
    pub(super) fn admit_thread(&mut self) {
        self.halt = false;
        // It was rung for the last thread.
        let _ = fd::eventfd_drain(self.bell.as_fd());
    }

    /// Tells the thread that works here to end.
    pub(super) fn halt_thread(&mut self) {
        self.halt = true;
        // It fails for no descriptor that is open.
        let _ = fd::eventfd_signal(self.bell.as_fd());
    }

    /// Whether the thread is to end.
    pub(super) fn is_halted(&self) -> bool {
        self.halt
    }

    /// Puts a descriptor away for whoever asks for this number.
    pub(super) fn keep(&mut self, number: u64, descriptor: OwnedFd) {
        let thread = thread::current().id();
        self.descriptors.insert(number, Kept { descriptor, thread });
    }

    /// Closes what this thread has put away under numbers above `mark`.
    pub(super) fn withdraw(&mut self, mark: u64) {
        let me = thread::current().id();
        self.descriptors.retain(|number, kept| *number <= mark || kept.thread != me);
    }

    /// Does all that can be done without waiting; returns what to wait for, and until when.
    pub(super) fn work(&mut self, read: ReadRequest) -> (Vec<RawFd>, Option<Instant>) {
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
