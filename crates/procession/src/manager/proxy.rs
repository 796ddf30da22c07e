//! Proxies: what stands in a process for an object in a manager.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::connection::{self, Address};
use crate::manager::failed::{CallFailed, ProxyError};
use crate::manager::proxy_form::Token;
use crate::manager::remote_link::{
    Key, Link, PATIENCE, Reference, being_read, key_of, key_of_others, reading,
};
use crate::pickle::{self, Value};
use crate::process::keepsake;
use crate::shm;

/// Stands for an object in a manager, and calls its methods.
///
/// The manager may be one of this crate, of its Python package, or of Python's standard library.
/// Methods are called by name; the kinds that every manager has are in
/// [`proxies`](crate::manager::proxies) with methods of their own.
///
/// Clones stand for the same object, and any number of threads may call through them at the same
/// time. A call blocks until the server has answered; a signal does not end that. When the server
/// dies, all calls fail at once with [`CallFailed::ServerGone`].
///
/// # How long the object lives
///
/// As long as any process has a proxy for it. A process that dies is as one that has dropped its
/// proxies, if the server is of this crate or its Python package; one of the standard library does
/// not notice. Dropping the last proxy tells the server and does not wait for it, except that a
/// server of the standard library may take up to a second.
///
/// # Handing proxies on
///
/// A proxy can be an argument of a process, part of a message and an argument or result of a call.
/// Whoever hands one over must keep it until the receiver has it: only for a process that is started
/// is that done by itself, until that process ends. A proxy among the arguments of a process, in a
/// [`Queue`](crate::channel::Queue) or in a task of a pool brings the server's key along. In other
/// messages it has none, so that the receiver must know it, because it has connected with the server
/// before or by [`use_key`](crate::manager::use_key). To programs in Python it becomes a proxy of
/// theirs, and theirs become one of these.
///
/// A process that was forked goes on with the proxies that it inherited, through a connection of
/// its own.
///
/// # Examples
///
/// ```
/// use procession::manager::Manager;
///
/// let server = Manager::builder().serve(|_registry| {})?;
/// let manager = server.connect()?;
/// let list = manager.create("list", ([1, 2],))?;
/// list.call::<_, ()>("append", (3,))?;
/// assert_eq!(list.call::<_, usize>("__len__", ())?, 3);
/// let failed = list.call::<_, i64>("__getitem__", (7,)).unwrap_err();
/// assert_eq!(failed.raised().unwrap().class, "IndexError");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    token: Token,
    /// Of the process that has used it last.
    reference: Mutex<Arc<Reference>>,
}

/// What a reply holds.
enum Answer {
    Value(Value),
    Proxy(Proxy),
}

impl Proxy {
    /// Calls a method of the object.
    ///
    /// `args` is a tuple of the arguments, `()` if there are none. They are written, and the result
    /// is read, as [`pickle`] says; `R` may be a `Proxy` where the method returns one.
    ///
    /// # Errors
    ///
    /// [`CallFailed::Raised`] if the method raised an exception, and the others.
    pub fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        args: A,
    ) -> Result<R, CallFailed> {
        self.call_with(method, args, ())
    }

    /// Does what [`call`](Self::call) does, with keyword arguments: a map, or a struct with fields
    /// of their names, or `()` for none.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn call_with<A: Serialize, K: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        args: A,
        keywords: K,
    ) -> Result<R, CallFailed> {
        let reference = self.reference()?;
        let link = reference.link();
        match self.ask(&reference, method, &args, &keywords)? {
            Answer::Value(value) => reading(link, || read(value)),
            // It is dropped when the result refers to the object as well.
            Answer::Proxy(proxy) => reading(link, || read(proxy.0.token.to_proxy(None))),
        }
    }

    /// Calls a method whose result stays in the server, and returns a proxy for that.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); [`CallFailed::Decode`] if the result is a value.
    pub fn call_proxy<A: Serialize>(&self, method: &str, args: A) -> Result<Self, CallFailed> {
        let reference = self.reference()?;
        match self.ask(&reference, method, &args, &())? {
            Answer::Proxy(proxy) => Ok(proxy),
            Answer::Value(value) => reading(reference.link(), || read(value)),
        }
    }

    /// Calls a method in Rust that returns a `Result`.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] with what the method has returned as its error;
    /// [`ProxyError::Call`] for all else.
    pub fn call_result<A: Serialize, T: DeserializeOwned, E: DeserializeOwned>(
        &self,
        method: &str,
        args: A,
    ) -> Result<T, ProxyError<E>> {
        self.call(method, args).map_err(ProxyError::of)
    }

    /// The kind of the object, as it is registered with the manager.
    pub fn typeid(&self) -> &str {
        &self.0.token.typeid
    }

    /// The object's name in the server.
    pub fn id(&self) -> &str {
        &self.0.token.id
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.0.token.address
    }

    /// The names of the object's methods.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn methods(&self) -> Result<Vec<String>, CallFailed> {
        let arguments = vec![self.0.token.to_value()];
        let value = self.reference()?.link().function("get_methods", arguments, Vec::new())?;
        read(value)
    }

    /// Takes over a reference that the server has counted for this process.
    pub(super) fn adopt(link: &Arc<Link>, token: Token) -> Result<Self, CallFailed> {
        let reference = link.adopt(&token.id)?;
        Ok(Self::new(token, reference))
    }

    fn new(token: Token, reference: Reference) -> Self {
        Self(Arc::new(Shared { token, reference: Mutex::new(noted(reference)) }))
    }

    /// Refers to an object that a pickle names.
    fn restore(token: Token, key: Option<Key>) -> Result<Self, CallFailed> {
        let link = link_for(&token.address, key)?;
        let reference = link.refer(&token)?;
        // The server may have told another of its addresses than the one that is used here.
        let token = Token { address: link.address().clone(), ..token };
        Ok(Self::new(token, reference))
    }

    /// This process's reference.
    fn reference(&self) -> Result<Arc<Reference>, CallFailed> {
        let mut current = self.lock();
        if !current.link().is_mine() {
            // Inherited through a fork: the parent keeps its own for the time being.
            let key = current.link().key().clone();
            let link = Link::to(&self.0.token.address, &key, Some(PATIENCE))?;
            *current = noted(link.refer(&self.0.token)?);
        }
        Ok(current.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Reference>> {
        // Nothing panics under the lock.
        self.0.reference.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<A: Serialize, K: Serialize>(
        &self,
        reference: &Reference,
        method: &str,
        args: &A,
        keywords: &K,
    ) -> Result<Answer, CallFailed> {
        let (args, keywords) = (arguments(args)?, keyword_arguments(keywords)?);
        let id = self.0.token.id.as_str().into();
        let request = vec![id, method.into(), Value::Tuple(args), Value::Dict(keywords)];
        let link = reference.link();
        match link.call(&Value::Tuple(request))? {
            (kind, value) if kind == "#RETURN" => Ok(Answer::Value(value)),
            (kind, Value::Tuple(parts)) if kind == "#PROXY" => {
                Ok(Answer::Proxy(self.returned(link, parts)?))
            }
            (kind, value) => Err(link.error_of(&kind, value)),
        }
    }

    /// The proxy of a reply, for which the server has counted a reference.
    fn returned(&self, link: &Arc<Link>, parts: Vec<Value>) -> Result<Self, CallFailed> {
        let [exposed, token] = <[Value; 2]>::try_from(parts).map_err(|_| link.nonsense())?;
        let token = Token::from_value(token).ok_or_else(|| link.nonsense())?;
        let address = self.0.token.address.clone();
        Self::adopt(link, Token { address, exposed: Some(exposed), ..token })
    }

    /// The key, if what this thread is serializing goes to no stranger.
    fn key_to_hand_over(&self) -> Option<Key> {
        let inside = shm::is_packing() && !connection::is_encoding();
        inside.then(|| self.lock().link().key().clone())
    }
}

/// References of this process, for the children that are forked.
static HELD: Mutex<Vec<Weak<Reference>>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<Weak<Reference>>> {
    // Nothing panics under the lock.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn noted(reference: Reference) -> Arc<Reference> {
    keepsake::on_fork(references);
    let reference = Arc::new(reference);
    let mut held = held();
    if held.len() == held.capacity() {
        held.retain(|other| other.strong_count() > 0);
    }
    held.push(Arc::downgrade(&reference));
    reference
}

fn references() -> Vec<keepsake::Keepsake> {
    let held: Vec<Arc<Reference>> = held().iter().filter_map(Weak::upgrade).collect();
    // Outside of the lock, as what is not kept may be dropped for good.
    let kept = held.into_iter().filter(|reference| reference.link().is_mine());
    kept.map(|reference| reference as keepsake::Keepsake).collect()
}

/// The way to the server of a proxy that has come from somewhere.
fn link_for(address: &Address, key: Option<Key>) -> Result<Arc<Link>, CallFailed> {
    let source = being_read();
    if let Some(link) = &source
        && key.is_none()
        && is_same(link.address(), address)
    {
        return Ok(link.clone());
    }
    let of_source = || source.as_ref().map(|link| link.key().clone());
    let key = key.or_else(|| key_of(address)).or_else(of_source).or_else(key_of_others);
    let key = key.ok_or_else(|| CallFailed::NoKey { address: address.clone() })?;
    Link::to(address, &key, Some(PATIENCE))
}

/// Whether a server that was reached at `used` may say of itself that it is at `told`.
fn is_same(used: &Address, told: &Address) -> bool {
    match (used, told) {
        (Address::Tcp(used), Address::Tcp(told)) => {
            used == told || (told.ip().is_unspecified() && used.port() == told.port())
        }
        _ => used == told,
    }
}

/// Arguments as a request has them.
pub(super) fn arguments<A: Serialize>(args: &A) -> Result<Vec<Value>, CallFailed> {
    let mismatch = || {
        let text = "the arguments must be a tuple, such as `(1,)` for one of them";
        CallFailed::Encode { source: pickle::Error::Mismatch(text.to_owned()) }
    };
    match pickle::to_value(args).map_err(|source| CallFailed::Encode { source })? {
        Value::Tuple(args) => Ok(args),
        Value::None => Ok(Vec::new()),
        _ => Err(mismatch()),
    }
}

/// Keyword arguments as a request has them.
pub(super) fn keyword_arguments<K: Serialize>(
    keywords: &K,
) -> Result<Vec<(Value, Value)>, CallFailed> {
    let mismatch = || {
        let text = "keyword arguments must be a map or a struct";
        CallFailed::Encode { source: pickle::Error::Mismatch(text.to_owned()) }
    };
    match pickle::to_value(keywords).map_err(|source| CallFailed::Encode { source })? {
        Value::Dict(keywords) => Ok(keywords),
        Value::None => Ok(Vec::new()),
        _ => Err(mismatch()),
    }
}

/// A value of the type that is asked for.
pub(super) fn read<R: DeserializeOwned>(value: Value) -> Result<R, CallFailed> {
    pickle::from_value(value).map_err(|source| CallFailed::Decode { source })
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Token { typeid, address, id, .. } = &self.0.token;
        f.debug_struct("Proxy")
            .field("typeid", typeid)
            .field("address", address)
            .field("id", id)
            .finish_non_exhaustive()
    }
}

/// Whether they stand for the same object.
impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.0.token, &other.0.token);
        one.address == other.address && one.id == other.id
    }
}

impl Eq for Proxy {}

/// As Python writes proxies.
impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refused = |failed: CallFailed| S::Error::custom(connection::noted(failed.to_string()));
        let reference = self.reference().map_err(refused)?;
        keepsake::note(|| reference);
        self.0.token.to_proxy(self.key_to_hand_over().as_ref()).serialize(serializer)
    }
}

/// Refers to the object, for which it connects with the server if this process has not yet.
impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (token, key) = Token::from_proxy(value)
            .ok_or_else(|| D::Error::custom("this is no proxy for an object in a manager"))?;
        Self::restore(token, key)
            .map_err(|failed| D::Error::custom(connection::noted(failed.to_string())))
    }
}
