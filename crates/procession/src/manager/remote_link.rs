//! The ways from this process to the servers of managers.
//!
//! A process has one way to each server, which its proxies share: to a server of this crate or of
//! its Python package one connection for all threads ([`Client`]), to one of the standard library
//! what `remote_plain.rs` describes. A forked process begins with none, and connects when it first
//! needs to.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::channel::connection::tls::Tls;
use crate::channel::connection::{Address, Client as Connector, EndpointError, HandshakeError};
use crate::manager::client::{Client, Greeting, greet_until};
use crate::manager::error::CallError;
use crate::manager::failed::{CallFailed, RemoteException};
use crate::manager::proxy_form::Token;
use crate::manager::remote_plain::Plain;
use crate::pickle::Value;
use crate::sys::per_process::PerProcess;
use crate::sys::process;

/// How long connecting may take where nobody has said so.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What managers and clients prove to each other to have.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(Arc<[u8]>);

impl Key {
    pub(super) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What a process knows of servers.
#[derive(Debug, Default)]
struct Known {
    links: Vec<Weak<Link>>,
    /// The keys by which servers were reached, also after the last proxy is gone.
    keys: Vec<(Address, Key)>,
    /// The key for all others.
    key: Option<Key>,
    /// By which encryption servers are reached.
    tls: Vec<(Address, Tls)>,
}

static KNOWN: PerProcess<Mutex<Known>> = PerProcess::new();

fn known() -> MutexGuard<'static, Known> {
    // Nothing panics under the lock.
    let mut inherited = None;
    let mine = KNOWN.get(|parents| {
        // A thread that this process does not have may have been in the middle of it.
        let parents = parents.try_lock().ok();
        inherited = parents.map(|them| (them.keys.clone(), them.key.clone(), them.tls.clone()));
    });
    let mut mine = mine.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((keys, key, tls)) = inherited {
        (mine.keys, mine.key, mine.tls) = (keys, key, tls);
    }
    mine
}

/// Names the key of servers that this process gets proxies for in messages, and has not connected
/// with by itself.
///
/// A process that was forked knows the keys of its parent; a proxy that is an argument of a process
/// brings its key along. A message has no key in it: whoever reads it might not be meant to have it.
pub fn use_key(key: impl Into<Vec<u8>>) {
    known().key = Some(Key::new(key));
}

/// Has this process, and those that are forked from it, connect with the server at this address by
/// TLS from now on. `tls` is a client's, see [`Tls::client`].
#[cfg(feature = "tls")]
pub fn use_tls(address: &Address, tls: Tls) {
    let mut known = known();
    known.tls.retain(|(other, _)| other != address);
    known.tls.push((address.clone(), tls));
}

/// The key of the server at this address, as far as this process knows.
pub(super) fn key_of(address: &Address) -> Option<Key> {
    let known = known();
    let of_server = known.keys.iter().rev().find(|(other, _)| other == address);
    of_server.map(|(_, key)| key.clone())
}

/// The key for servers of which none is known.
pub(super) fn key_of_others() -> Option<Key> {
    known().key.clone()
}

thread_local! {
    /// The way by which what is being read has come.
    static READING: RefCell<Vec<Arc<Link>>> = const { RefCell::new(Vec::new()) };
}

/// The way by which what this thread is reading has come.
pub(super) fn being_read() -> Option<Arc<Link>> {
    READING.with_borrow(|links| links.last().cloned())
}

/// Reads something that has come by a way.
pub(super) fn reading<R>(link: &Arc<Link>, read: impl FnOnce() -> R) -> R {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            READING.with_borrow_mut(|links| drop(links.pop()));
        }
    }
    READING.with_borrow_mut(|links| links.push(link.clone()));
    let _done = Done;
    read()
}

/// The number of this thread. No other thread of this process has it, also no later one.
pub(super) fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A way to a server.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    key: Key,
    /// The process that has it.
    process: u32,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Ours(Box<Client>),
    Plain(Plain),
}

impl Link {
    /// The way of this process to a server; connects if there is none yet.
    pub(super) fn to(
        address: &Address,
        key: &Key,
        patience: Option<Duration>,
    ) -> Result<Arc<Self>, CallFailed> {
        if let Some(link) = find(address, key) {
            return Ok(link);
        }
        let made = Arc::new(Self::connect(address, key, patience)?);
        let again = find(address, key);
        let mut known = known();
        // Another thread may have been quicker, and has the proxies of this process already.
        let link = again.unwrap_or(made);
        known.links.retain(|other| other.strong_count() > 0);
        known.links.push(Arc::downgrade(&link));
        known.keys.retain(|(other, _)| other != address);
        known.keys.push((address.clone(), key.clone()));
        drop(known);
        Ok(link)
    }

    fn connect(
        address: &Address,
        key: &Key,
        patience: Option<Duration>,
    ) -> Result<Self, CallFailed> {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let failed = |source| CallFailed::NotConnected { address: address.clone(), source };
        let connection = connector(address, key, patience).connect().map_err(failed)?;
        let greeting = greet_until(connection, address.clone(), deadline).map_err(failed)?;
        let way = match greeting {
            Greeting::Ours(client) => Way::Ours(client),
            Greeting::Plain => Way::Plain(Plain::new(address.clone(), key.clone(), patience)),
        };
        let (address, key) = (address.clone(), key.clone());
        Ok(Self { address, key, process: process::getpid(), way })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Process id of the server, if it tells.
    pub(super) fn server(&self) -> Option<u32> {
        match &self.way {
            Way::Ours(client) => Some(client.server()),
            Way::Plain(_) => None,
        }
    }

    /// Whether it is of this process, and not of the one that this one was forked from.
    pub(super) fn is_mine(&self) -> bool {
        self.process == process::getpid()
    }

    fn is_usable(&self) -> bool {
        self.is_mine()
            && match &self.way {
                Way::Ours(client) => client.is_usable(),
                Way::Plain(plain) => !plain.is_gone(),
            }
    }

    /// Calls a method of an object; returns the kind of the reply and what is in it.
    pub(super) fn call(&self, request: &Value) -> Result<(String, Value), CallFailed> {
        let request = request.to_pickle().map_err(|source| CallFailed::Encode { source })?;
        let reply = match &self.way {
            Way::Ours(client) => client.call(thread_number(), &request)?,
            Way::Plain(plain) => plain.call(&request)?,
        };
        self.parse(&reply)
    }

    /// Calls a function of the server itself and returns its result.
    pub(super) fn function(
        &self,
        name: &str,
        arguments: Vec<Value>,
        keywords: Vec<(Value, Value)>,
    ) -> Result<Value, CallFailed> {
        let request = function_request(name, arguments, keywords);
        let request = request.to_pickle().map_err(|source| CallFailed::Encode { source })?;
        let reply = match &self.way {
            Way::Ours(client) => client.call(thread_number(), &request)?,
            Way::Plain(plain) => plain.function(&request)?,
        };
        match self.parse(&reply)? {
            (kind, value) if kind == "#RETURN" => Ok(value),
            (kind, value) => Err(self.error_of(&kind, value)),
        }
    }

    fn parse(&self, reply: &[u8]) -> Result<(String, Value), CallFailed> {
        match Value::from_pickle(reply) {
            Ok(Value::Tuple(parts)) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::Str(kind), value]) => Ok((kind, value)),
                _ => Err(self.nonsense()),
            },
            Ok(_) => Err(self.nonsense()),
            Err(source) => Err(CallFailed::Decode { source }),
        }
    }

    /// The error that a reply of this kind stands for.
    pub(super) fn error_of(&self, kind: &str, value: Value) -> CallFailed {
        let exception = match (kind, value) {
            ("#ERROR", exception) => RemoteException::from_exception(exception),
            ("#TRACEBACK" | "#UNSERIALIZABLE", Value::Str(text)) => {
                RemoteException::from_traceback(text)
            }
            _ => return self.nonsense(),
        };
        CallFailed::Raised(Box::new(exception))
    }

    pub(super) fn nonsense(&self) -> CallFailed {
        CallFailed::Protocol { address: self.address.clone() }
    }

    /// Takes over a reference that the server has counted for this process.
    pub(super) fn adopt(self: &Arc<Self>, id: &str) -> Result<Reference, CallFailed> {
        let number = self.number_of(id)?;
        if let Way::Ours(client) = &self.way {
            client.adopt(number);
        }
        Ok(Reference { link: self.clone(), id: id.to_owned(), number })
    }

    /// Refers to an object.
    pub(super) fn refer(self: &Arc<Self>, token: &Token) -> Result<Reference, CallFailed> {
        let gone = || CallFailed::ObjectGone {
            address: self.address.clone(),
            typeid: token.typeid.clone(),
            id: token.id.clone(),
        };
        let number = self.number_of(&token.id)?;
        match &self.way {
            Way::Ours(client) if client.refer_again(number) => {}
            Way::Ours(client) => {
                if !count(client, number)? {
                    return Err(gone());
                }
            }
            Way::Plain(_) => {
                let counted = self.function("incref", vec![token.id.as_str().into()], Vec::new());
                let unknown = |raised: &RemoteException| raised.is("KeyError");
                counted.map_err(|failed| match failed.raised() {
                    Some(raised) if unknown(raised) => gone(),
                    _ => failed,
                })?;
            }
        }
        Ok(Reference { link: self.clone(), id: token.id.clone(), number })
    }

    /// The number that a server of this crate has for an object; others have their own names.
    fn number_of(&self, id: &str) -> Result<u64, CallFailed> {
        match &self.way {
            Way::Ours(_) => u64::from_str_radix(id, 16).map_err(|_| self.nonsense()),
            Way::Plain(_) => Ok(0),
        }
    }

    fn give_up(&self, reference: &Reference) {
        match &self.way {
            Way::Ours(client) => client.give_up(reference.number),
            Way::Plain(plain) if self.is_mine() => plain.give_up(&reference.id),
            Way::Plain(_) => {}
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // What is locked stays so: another thread may go on with it.
        if let Way::Ours(client) = &self.way {
            client.say_goodbye();
        }
    }
}

/// Has the server count a reference of this process; false if there is no such object.
fn count(client: &Client, number: u64) -> Result<bool, CallError> {
    let pending = client.start_referring(&[number])?;
    let reply = loop {
        match pending.finish() {
            Err(CallError::Interrupted) => {}
            result => break result?,
        }
    };
    let exists = reply.missing().is_empty();
    if exists {
        client.adopt(number);
    }
    Ok(exists)
}

/// How to connect with a server.
pub(super) fn connector(address: &Address, key: &Key, patience: Option<Duration>) -> Connector {
    let connector = encrypted(address, Connector::new(address.clone()).key(key.bytes()));
    match patience {
        Some(patience) => connector.timeout(patience),
        None => connector,
    }
}

#[cfg(feature = "tls")]
fn encrypted(address: &Address, connector: Connector) -> Connector {
    let tls = known().tls.iter().find(|(other, _)| other == address).map(|(_, tls)| tls.clone());
    match tls {
        Some(tls) => connector.tls(tls),
        None => connector,
    }
}

#[cfg(not(feature = "tls"))]
fn encrypted(_address: &Address, connector: Connector) -> Connector {
    connector
}

/// What a server is sent that is to call one of its own functions.
pub(super) fn function_request(
    name: &str,
    arguments: Vec<Value>,
    keywords: Vec<(Value, Value)>,
) -> Value {
    let parts = vec![Value::None, name.into(), Value::Tuple(arguments), Value::Dict(keywords)];
    Value::Tuple(parts)
}

fn find(address: &Address, key: &Key) -> Option<Arc<Link>> {
    let known: Vec<Arc<Link>> = known().links.iter().filter_map(Weak::upgrade).collect();
    // Outside of the lock: the last one that has a way may let go of it here.
    let fits = |link: &&Arc<Link>| link.address == *address && link.key == *key && link.is_usable();
    known.iter().find(fits).cloned()
}

/// One reference of this process to an object; given up on drop.
#[derive(Debug)]
pub(super) struct Reference {
    link: Arc<Link>,
    id: String,
    number: u64,
}

impl Reference {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.link.give_up(self);
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// What a failure to connect says to somebody who has called a server that was there before.
pub(super) fn gone_if_refused(address: &Address, error: EndpointError) -> CallFailed {
    let address = address.clone();
    match error {
        EndpointError::Refused { source, .. } => {
            CallFailed::ServerGone { address, pid: None, source: Some(source) }
        }
        // It died before it came to let this process in.
        EndpointError::Handshake(HandshakeError::Gone) => {
            CallFailed::ServerGone { address, pid: None, source: None }
        }
        EndpointError::Os { source, .. } if is_reset(&source) => {
            CallFailed::ServerGone { address, pid: None, source: Some(source) }
        }
        source => CallFailed::NotConnected { address, source },
    }
}
