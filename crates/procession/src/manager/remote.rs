//! Managers that run already, here or elsewhere.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::channel::connection::Address;
use crate::manager::failed::CallFailed;
use crate::manager::proxies::{
    ArrayProxy, BarrierProxy, ConditionProxy, DictProxy, EventProxy, JoinableQueueProxy, ListProxy,
    LockProxy, NamespaceProxy, QueueProxy, RLockProxy, SemaphoreProxy, ValueProxy,
};
use crate::manager::proxy::{Proxy, arguments, keyword_arguments, read};
use crate::manager::proxy_form::Token;
use crate::manager::remote_link::{Key, Link, PATIENCE};
use crate::pickle::Value;

/// A manager that runs in another process, of this program or any other, on this machine or another.
///
/// It may be one of this crate, of its Python package (`manager.start()`, or
/// `get_server().serve_forever()`), or of Python's standard library. With the former two this
/// process has one connection, which all its threads share; with the latter, one for each thread.
///
/// What it makes are [`Proxy`]s. They do not depend on this value; clones of it are for the same
/// manager.
///
/// # Examples
///
/// ```
/// use procession::manager::{Manager, RemoteManager};
///
/// let server = Manager::builder().authkey("a key").serve(|_registry| {})?;
/// // In any process, of this machine or, with a TCP address, another one:
/// let manager = RemoteManager::connect(server.address().clone(), "a key")?;
/// let found = manager.dict::<String, u64>()?;
/// found.insert(&"needle".to_owned(), &1)?;
/// assert_eq!(manager.number_of_objects()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RemoteManager {
    address: Address,
    /// Of the process that has used it last.
    link: Arc<Mutex<Arc<Link>>>,
}

impl RemoteManager {
    /// Connects with the manager at this address, which must have the same key.
    ///
    /// Blocks until the server has answered, for 20 s at most.
    ///
    /// # Errors
    ///
    /// [`CallFailed::NotConnected`] when nobody listens there, the keys differ or the server does
    /// not answer.
    pub fn connect(address: Address, key: impl Into<Vec<u8>>) -> Result<Self, CallFailed> {
        Self::connect_timeout(address, key, Some(PATIENCE))
    }

    /// Does what [`connect`](Self::connect) does, and waits for `timeout` at most; `None` waits for
    /// ever.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_timeout(
        address: Address,
        key: impl Into<Vec<u8>>,
        timeout: Option<Duration>,
    ) -> Result<Self, CallFailed> {
        let key = Key::new(key);
        let link = Link::to(&address, &key, timeout)?;
        let manager = Self { address, link: Arc::new(Mutex::new(link)) };
        match manager.dummy() {
            Err(CallFailed::ServerGone { .. }) => {
                // The server that this process knew; there may be another one at its place.
                *manager.way() = Link::to(&manager.address, &key, timeout)?;
                manager.dummy()?;
            }
            result => result?,
        }
        Ok(manager)
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Process id of the server; `None` if it is one of Python's standard library, which do not
    /// tell.
    pub fn server(&self) -> Option<u32> {
        self.way().server()
    }

    /// Has the manager make an object of a kind that is registered with it, such as `"dict"`, and
    /// returns a proxy. `args` is a tuple of the arguments, `()` if there are none.
    ///
    /// # Errors
    ///
    /// [`CallFailed::Raised`] when the manager does not know the kind or the object could not be
    /// made, and the others.
    pub fn create<A: Serialize>(&self, typeid: &str, args: A) -> Result<Proxy, CallFailed> {
        self.create_with(typeid, args, ())
    }

    /// Does what [`create`](Self::create) does, with keyword arguments: a map, or a struct with
    /// fields of their names, or `()` for none.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with<A: Serialize, K: Serialize>(
        &self,
        typeid: &str,
        args: A,
        keywords: K,
    ) -> Result<Proxy, CallFailed> {
        let mut args = arguments(&args)?;
        args.insert(0, typeid.into());
        let link = self.link()?;
        match link.function("create", args, keyword_arguments(&keywords)?)? {
            Value::Tuple(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::Str(id), exposed]) => {
                    let (typeid, address) = (typeid.to_owned(), link.address().clone());
                    let exposed = Some(exposed);
                    Proxy::adopt(&link, Token { typeid, address, id, class: None, exposed })
                }
                _ => Err(link.nonsense()),
            },
            _ => Err(link.nonsense()),
        }
    }

    /// Calls what the manager has registered under a name, such as `"get_task_queue"`, without
    /// arguments, and returns a proxy for what that returns.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn proxy(&self, name: &str) -> Result<Proxy, CallFailed> {
        self.create(name, ())
    }

    /// Ends the server. Its objects are gone then, and calls of their proxies fail.
    ///
    /// # Errors
    ///
    /// [`CallFailed::ServerGone`] when it was gone already, and the others.
    pub fn shutdown(&self) -> Result<(), CallFailed> {
        self.function("shutdown")
    }

    /// How many objects there are that somebody refers to.
    ///
    /// # Errors
    ///
    /// As [`dummy`](Self::dummy).
    pub fn number_of_objects(&self) -> Result<usize, CallFailed> {
        self.function("number_of_objects")
    }

    /// What the server says of its objects, in two lines for each.
    ///
    /// # Errors
    ///
    /// As [`dummy`](Self::dummy).
    pub fn debug_info(&self) -> Result<String, CallFailed> {
        self.function("debug_info")
    }

    /// Has the server do nothing, to see that it is there.
    ///
    /// # Errors
    ///
    /// [`CallFailed::ServerGone`] and [`CallFailed::NotConnected`].
    pub fn dummy(&self) -> Result<(), CallFailed> {
        self.function("dummy")
    }

    /// Makes an empty dictionary.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), as are those of all that follow.
    pub fn dict<K, V>(&self) -> Result<DictProxy<K, V>, CallFailed> {
        Ok(self.proxy("dict")?.into())
    }

    /// Makes an empty list.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn list<T>(&self) -> Result<ListProxy<T>, CallFailed> {
        Ok(self.proxy("list")?.into())
    }

    /// Makes an object without attributes, to which any can be added.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn namespace(&self) -> Result<NamespaceProxy, CallFailed> {
        Ok(self.proxy("Namespace")?.into())
    }

    /// Makes a value. It may be of any type: Python's type codes mean nothing to a manager.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn value<T: Serialize>(&self, value: &T) -> Result<ValueProxy<T>, CallFailed> {
        Ok(self.create("Value", ("O", value))?.into())
    }

    /// Makes an array of numbers, whose type is one of Python's type codes, such as `'i'` or `'d'`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn array<T: Serialize>(
        &self,
        typecode: char,
        numbers: &[T],
    ) -> Result<ArrayProxy<T>, CallFailed> {
        Ok(self.create("Array", (typecode, numbers))?.into())
    }

    /// Makes a queue; at most `max_items` wait in it, or any number if that is 0.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn queue<T>(&self, max_items: usize) -> Result<QueueProxy<T>, CallFailed> {
        Ok(self.create("Queue", (max_items,))?.into())
    }

    /// Makes a queue that can be joined.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn joinable_queue<T>(&self, max_items: usize) -> Result<JoinableQueueProxy<T>, CallFailed> {
        Ok(self.create("JoinableQueue", (max_items,))?.into())
    }

    /// Makes a lock.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn lock(&self) -> Result<LockProxy, CallFailed> {
        Ok(self.proxy("Lock")?.into())
    }

    /// Makes a lock that a thread can take several times.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn rlock(&self) -> Result<RLockProxy, CallFailed> {
        Ok(self.proxy("RLock")?.into())
    }

    /// Makes a semaphore with so many permits.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn semaphore(&self, permits: usize) -> Result<SemaphoreProxy, CallFailed> {
        Ok(self.create("Semaphore", (permits,))?.into())
    }

    /// Makes a semaphore that never has more permits than these.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn bounded_semaphore(&self, permits: usize) -> Result<SemaphoreProxy, CallFailed> {
        Ok(self.create("BoundedSemaphore", (permits,))?.into())
    }

    /// Makes a condition with a recursive lock of its own.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn condition(&self) -> Result<ConditionProxy, CallFailed> {
        Ok(self.proxy("Condition")?.into())
    }

    /// Makes an event that is not set.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn event(&self) -> Result<EventProxy, CallFailed> {
        Ok(self.proxy("Event")?.into())
    }

    /// Makes a barrier for so many threads or processes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn barrier(&self, parties: usize) -> Result<BarrierProxy, CallFailed> {
        Ok(self.create("Barrier", (parties,))?.into())
    }

    fn function<R: serde::de::DeserializeOwned>(&self, name: &str) -> Result<R, CallFailed> {
        read(self.link()?.function(name, Vec::new(), Vec::new())?)
    }

    /// The way of this process, which may have been forked from the one that connected.
    fn link(&self) -> Result<Arc<Link>, CallFailed> {
        let mut link = self.way();
        if !link.is_mine() {
            *link = Link::to(&self.address, link.key(), Some(PATIENCE))?;
        }
        Ok(link.clone())
    }

    fn way(&self) -> MutexGuard<'_, Arc<Link>> {
        // Nothing panics under the lock.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RemoteManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteManager")
            .field("address", self.address())
            .field("server", &self.server())
            .finish_non_exhaustive()
    }
}
