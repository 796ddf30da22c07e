//! The connection of a process with a server.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use crate::channel::connection::{Address, ByteConnection, EndpointError, RecvError, SendError};
use crate::manager::error::CallError;
use crate::manager::inbox::{Inbox, NoReply, Slot};
use crate::manager::inflow::{self, Message};
use crate::manager::tally::Tally;
use crate::manager::wire::{self, REPLY_HEAD};
use crate::sys::{fd, process, stream};

/// What a server says to a client of this crate.
#[derive(Debug)]
pub enum Greeting {
    /// It speaks the form of this crate.
    Ours(Box<Client>),
    /// It speaks Python's own form alone, and has closed the connection.
    Plain,
}

/// Asks the server at the other end of a new connection in which form it speaks.
///
/// Blocks until it has answered. A signal does not end that.
///
/// # Errors
///
/// [`EndpointError::Os`] when the server has closed the connection or died.
pub fn greet(connection: ByteConnection, address: Address) -> Result<Greeting, EndpointError> {
    greet_until(connection, address, None)
}

/// Does what [`greet`] does, for no longer than until `deadline`.
pub(super) fn greet_until(
    connection: ByteConnection,
    address: Address,
    deadline: Option<Instant>,
) -> Result<Greeting, EndpointError> {
    let failed = |call| {
        let address = address.clone();
        move |source| EndpointError::Os { call, address, source }
    };
    connection.send(wire::HELLO).map_err(|error| failed("send")(send_source(error)))?;
    if deadline.is_some() && !is_answered(&connection, deadline) {
        return Err(EndpointError::TimedOut);
    }
    let reply = connection.recv().map_err(|error| failed("recv")(recv_source(error)))?;
    let Some(pid) = wire::parse_welcome(&reply) else { return Ok(Greeting::Plain) };
    let socket = OwnedFd::from(connection);
    stream::set_blocking(socket.as_fd(), false).map_err(failed("fcntl"))?;
    Ok(Greeting::Ours(Box::new(Client {
        socket,
        address,
        server: pid,
        owner: process::getpid(),
        inbox: Inbox::new(),
        tally: Mutex::new(Tally::default()),
        sending: Mutex::new(Vec::new()),
    })))
}

/// Whether an answer, or the end of the connection, came in time.
fn is_answered(connection: &ByteConnection, deadline: Option<Instant>) -> bool {
    loop {
        match connection.poll(deadline) {
            Err(RecvError::Interrupted) => {}
            Ok(answered) => return answered,
            // It is told when the answer is read.
            Err(_) => return true,
        }
    }
}

fn send_source(error: SendError) -> std::io::Error {
    match error {
        SendError::Os { source } => source,
        other => std::io::Error::other(other),
    }
}

fn recv_source(error: RecvError) -> std::io::Error {
    match error {
        RecvError::Os { source } => source,
        RecvError::EndOfStream => std::io::ErrorKind::ConnectionReset.into(),
        other => std::io::Error::other(other),
    }
}

/// The one connection of this process with a [`Server`](super::Server).
///
/// Any number of threads may call through it at the same time; their calls do not wait for each
/// other. It knows to which objects the process refers, and tells the server of the first and of
/// the last reference to each; when the process ends, however it ends, the server takes back what
/// is left. In a process that was forked from the one that connected it does nothing: such a
/// process needs a connection of its own.
///
/// When the server dies, all calls fail at once with [`CallError::ServerGone`]. For an example see
/// [`Server`](super::Server).
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    address: Address,
    /// Process id of the server.
    server: u32,
    /// The process that connected.
    owner: u32,
    inbox: Inbox,
    tally: Mutex<Tally>,
    /// Held while something is sent; the memory for it.
    sending: Mutex<Vec<u8>>,
}

/// A call that was sent and is not answered yet. Dropped, it is given up, and its reply is lost.
#[derive(Debug)]
pub struct Pending<'a> {
    client: &'a Client,
    slot: Arc<Slot>,
}

impl Client {
    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Process id of the server, as it says itself.
    pub fn server(&self) -> u32 {
        self.server
    }

    /// Whether this process is the one that connected, and the server has not closed the
    /// connection as far as is known. Does not block.
    pub fn is_usable(&self) -> bool {
        if process::getpid() != self.owner || self.inbox.has_ended() {
            return false;
        }
        match stream::look(self.socket.as_fd(), &mut [0]) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// Sends a request and blocks until it is answered. A signal does not end that.
    ///
    /// `thread` is any number that is the thread's own in this process.
    ///
    /// # Errors
    ///
    /// [`CallError::ServerGone`], [`CallError::Protocol`].
    pub fn call(&self, thread: u64, request: &[u8]) -> Result<Vec<u8>, CallError> {
        let pending = self.start(thread, request)?;
        loop {
            match pending.finish() {
                Err(CallError::Interrupted) => {}
                result => return result.map(|reply| reply.to_vec()),
            }
        }
    }

    /// Sends a request; blocks while the server takes nothing.
    ///
    /// # Errors
    ///
    /// [`CallError::ServerGone`].
    pub fn start(&self, thread: u64, request: &[u8]) -> Result<Pending<'_>, CallError> {
        let (number, slot) = self.inbox.expect();
        let pending = Pending { client: self, slot };
        self.send(&wire::call_head(number, thread), request)?;
        Ok(pending)
    }

    /// Asks the server to count references to objects that this process may not refer to yet.
    ///
    /// # Errors
    ///
    /// [`CallError::ServerGone`].
    pub fn start_referring(&self, objects: &[u64]) -> Result<Pending<'_>, CallError> {
        let (number, slot) = self.inbox.expect();
        let pending = Pending { client: self, slot };
        self.send(&wire::refer(number, objects), &[])?;
        Ok(pending)
    }

    /// Notes a reference that the server has counted for this process: to an object that it has
    /// made for it, or that [`start_referring`](Self::start_referring) was answered about.
    pub fn adopt(&self, object: u64) {
        self.tally().adopt(object);
    }

    /// Notes one more reference; false if this process has none yet, so that the server must be
    /// asked.
    pub fn refer_again(&self, object: u64) -> bool {
        self.tally().add(object)
    }

    /// Gives a reference up. The server is told if it was the last one; this does not wait for it.
    pub fn give_up(&self, object: u64) {
        if process::getpid() != self.owner {
            return;
        }
        self.tally().remove(object);
        // Another thread is sending; it looks for what has been given up when it is done.
        match self.sending.try_lock() {
            Ok(buffer) => self.flush(buffer),
            Err(TryLockError::Poisoned(poisoned)) => self.flush(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// The objects that this process refers to, and how often.
    pub fn references(&self) -> Vec<(u64, u64)> {
        self.tally().all()
    }

    /// Tells the server that this process is about to end as it should. Without that, the server
    /// takes the end of the connection for a sudden death, and has what was locked released.
    pub fn say_goodbye(&self) {
        if process::getpid() == self.owner {
            // A server that is gone need not know.
            let _ = self.send(wire::FAREWELL, &[]);
        }
    }

    /// Ends the connection; calls that wait for a reply fail.
    pub fn close(&self) {
        if process::getpid() == self.owner {
            fd::shut_down(self.socket.as_fd());
            self.inbox.end();
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Nothing panics under the lock.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message of two parts, and before it what has been given up.
    fn send(&self, head: &[u8], rest: &[u8]) -> Result<(), CallError> {
        let mut buffer = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.clear();
        self.append_given_up(&mut buffer);
        let rest = if inflow::append_parts(&mut buffer, head, rest) { &[] } else { rest };
        let sent = inflow::send(self.socket.as_fd(), [&buffer, rest], || ());
        self.flush(buffer);
        sent.map_err(|source| {
            self.inbox.end();
            self.gone(Some(source))
        })
    }

    /// Tells the server what has been given up until nothing is left of it.
    fn flush<'a>(&'a self, mut buffer: MutexGuard<'a, Vec<u8>>) {
        loop {
            buffer.clear();
            if self.append_given_up(&mut buffer) {
                if inflow::send(self.socket.as_fd(), [&buffer, &[]], || ()).is_err() {
                    // The server is gone, and what this process referred to with it.
                    return;
                }
                continue;
            }
            drop(buffer);
            // Somebody may have come who could not send because this thread did.
            if !self.tally().has_given_up() {
                return;
            }
            let Ok(again) = self.sending.try_lock() else { return };
            buffer = again;
        }
    }

    fn append_given_up(&self, buffer: &mut Vec<u8>) -> bool {
        let given_up = self.tally().take_given_up();
        if !given_up.is_empty() {
            inflow::append(buffer, &wire::give_up(&given_up));
        }
        !given_up.is_empty()
    }

    fn gone(&self, source: Option<std::io::Error>) -> CallError {
        CallError::ServerGone { address: self.address.clone(), pid: self.server, source }
    }
}

/// A reply.
#[derive(Debug)]
pub struct Reply(Message);

impl std::ops::Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[REPLY_HEAD..]
    }
}

impl Reply {
    /// Of the reply to [`Client::start_referring`]: the objects that there are not.
    pub fn missing(&self) -> Vec<u64> {
        wire::words(self).unwrap_or_default()
    }
}

impl Pending<'_> {
    /// Blocks until the reply has come.
    ///
    /// # Errors
    ///
    /// [`CallError::Interrupted`] when a signal handler ran in this thread: call again to go on.
    /// [`CallError::ServerGone`], [`CallError::Protocol`].
    pub fn finish(&self) -> Result<Reply, CallError> {
        match self.client.inbox.wait(&self.slot, self.client.socket.as_fd()) {
            Ok(message) => Ok(Reply(message)),
            Err(NoReply::Interrupted) => Err(CallError::Interrupted),
            Err(NoReply::Ended(source)) => Err(self.client.gone(source)),
            Err(NoReply::Nonsense) => Err(CallError::Protocol {
                address: self.client.address.clone(),
                pid: self.client.server,
            }),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.client.inbox.forget(&self.slot);
    }
}
