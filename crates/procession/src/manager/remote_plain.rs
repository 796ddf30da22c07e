//! The way to a server of Python's standard library.
//!
//! A connection there serves one thread of the client, and is served by a thread of the server, to
//! which locks belong. So each thread here has a connection of its own, until it ends; and what
//! concerns no method, such as a change of a reference count, is a connection of its own, too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::channel::connection::{Address, ByteConnection, RecvError, SendError};
use crate::manager::failed::{CallFailed, RemoteException};
use crate::manager::remote_link::{
    Key, connector, function_request, gone_if_refused, thread_number,
};
use crate::pickle::Value;

/// How long a server may keep somebody waiting who drops a proxy.
const BRIEF: Duration = Duration::from_secs(1);

/// The connections of threads with one server.
type Connections = Mutex<HashMap<u64, Arc<ByteConnection>>>;

thread_local! {
    /// Where this thread has connections.
    static MINE: RefCell<Mine> = const { RefCell::new(Mine(Vec::new())) };
}

/// Closes the connections of a thread when it ends.
struct Mine(Vec<Weak<Connections>>);

impl Drop for Mine {
    fn drop(&mut self) {
        let number = thread_number();
        for connections in self.0.iter().filter_map(Weak::upgrade) {
            lock(&connections).remove(&number);
        }
    }
}

#[derive(Debug)]
pub(super) struct Plain {
    address: Address,
    key: Key,
    patience: Option<Duration>,
    connections: Arc<Connections>,
    /// Objects of which the server is still to count a reference less.
    given_up: Mutex<Vec<String>>,
    /// Whether the server did not answer somebody who dropped a proxy. Nobody waits for it twice.
    is_stuck: AtomicBool,
    /// Whether the server was not there when it was last needed.
    is_gone: AtomicBool,
}

fn lock(connections: &Connections) -> MutexGuard<'_, HashMap<u64, Arc<ByteConnection>>> {
    // Nothing panics under the lock.
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plain {
    pub(super) fn new(address: Address, key: Key, patience: Option<Duration>) -> Self {
        let (connections, given_up) = (Arc::default(), Mutex::default());
        let (is_stuck, is_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { address, key, patience, connections, given_up, is_stuck, is_gone }
    }

    /// Whether the server was not there when it was last needed.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Sends a request for a method of an object and returns the reply.
    pub(super) fn call(&self, request: &[u8]) -> Result<Vec<u8>, CallFailed> {
        let connection = self.connection()?;
        let reply = self.exchange(&connection, request);
        if reply.is_err() {
            // Half a message may be on its way: the next call begins anew.
            lock(&self.connections).remove(&thread_number());
        } else if self.is_stuck.swap(false, Ordering::Relaxed) {
            self.tell_given_up();
        }
        reply
    }

    /// Sends a request for a function of the server itself and returns the reply.
    pub(super) fn function(&self, request: &[u8]) -> Result<Vec<u8>, CallFailed> {
        self.exchange(&self.connect(self.patience)?, request)
    }

    /// Has the server count one reference to an object less. A server that is gone need not know,
    /// and one that does not answer is told later.
    pub(super) fn give_up(&self, id: &str) {
        self.given_up().push(id.to_owned());
        if !self.is_stuck.load(Ordering::Relaxed) {
            self.tell_given_up();
        }
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<String>> {
        // Nothing panics under the lock.
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_given_up(&self) {
        loop {
            let Some(id) = self.given_up().pop() else { return };
            if let Err(failed) = self.tell_one_given_up(&id) {
                tracing::debug!("a reference to {id} was not given up: {failed}");
                self.is_stuck.store(true, Ordering::Relaxed);
                self.given_up().push(id);
                return;
            }
        }
    }

    fn tell_one_given_up(&self, id: &str) -> Result<(), CallFailed> {
        let request = function_request("decref", vec![id.into()], Vec::new());
        let request = request.to_pickle().map_err(|source| CallFailed::Encode { source })?;
        let connection = self.connect(Some(BRIEF))?;
        self.send(&connection, &request)?;
        let deadline = Instant::now().checked_add(BRIEF);
        loop {
            match connection.poll(deadline) {
                Err(RecvError::Interrupted) => {}
                Ok(true) => return Ok(()),
                Ok(false) => {
                    // It has been told: what was sent lies there until it reads again.
                    self.is_stuck.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => return Err(self.gone(Some(std::io::Error::other(error)))),
            }
        }
    }

    /// The connection of this thread.
    fn connection(&self) -> Result<Arc<ByteConnection>, CallFailed> {
        let number = thread_number();
        if let Some(connection) = lock(&self.connections).get(&number) {
            return Ok(connection.clone());
        }
        let connection = Arc::new(self.connect(self.patience)?);
        let name = std::thread::current().name().unwrap_or("thread").to_owned();
        let request = function_request("accept_connection", vec![name.into()], Vec::new());
        let request = request.to_pickle().map_err(|source| CallFailed::Encode { source })?;
        let reply = self.exchange(&connection, &request)?;
        let welcome = Value::Tuple(vec!["#RETURN".into(), Value::None]);
        match Value::from_pickle(&reply) {
            Ok(reply) if reply == welcome => {}
            Ok(Value::Tuple(parts)) => return Err(self.refused(parts)),
            _ => return Err(CallFailed::Protocol { address: self.address.clone() }),
        }
        lock(&self.connections).insert(number, connection.clone());
        // Where this is called while the thread ends, the connection stays as long as the proxies.
        let _ = MINE.try_with(|mine| {
            let mut mine = mine.borrow_mut();
            mine.0.retain(|connections| connections.strong_count() > 0);
            mine.0.push(Arc::downgrade(&self.connections));
        });
        Ok(connection)
    }

    fn refused(&self, parts: Vec<Value>) -> CallFailed {
        match parts.into_iter().next_back() {
            Some(Value::Str(text)) => {
                CallFailed::Raised(Box::new(RemoteException::from_traceback(text)))
            }
            _ => CallFailed::Protocol { address: self.address.clone() },
        }
    }

    fn connect(&self, patience: Option<Duration>) -> Result<ByteConnection, CallFailed> {
        let connected = connector(&self.address, &self.key, patience).connect();
        connected.map_err(|error| {
            self.is_gone.store(true, Ordering::Relaxed);
            gone_if_refused(&self.address, error)
        })
    }

    fn exchange(&self, connection: &ByteConnection, request: &[u8]) -> Result<Vec<u8>, CallFailed> {
        self.send(connection, request)?;
        connection.recv().map_err(|error| match error {
            RecvError::Os { source } => self.gone(Some(source)),
            RecvError::EndOfStream | RecvError::Truncated { .. } => self.gone(None),
            other => self.gone(Some(std::io::Error::other(other))),
        })
    }

    fn send(&self, connection: &ByteConnection, request: &[u8]) -> Result<(), CallFailed> {
        connection.send(request).map_err(|error| match error {
            SendError::Os { source } => self.gone(Some(source)),
            other => self.gone(Some(std::io::Error::other(other))),
        })
    }

    fn gone(&self, source: Option<std::io::Error>) -> CallFailed {
        self.is_gone.store(true, Ordering::Relaxed);
        CallFailed::ServerGone { address: self.address.clone(), pid: None, source }
    }
}
