//! Queues.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::failed::{CallFailed, ProxyError};
use crate::manager::proxies::{proxy_type, seconds};

/// There was nothing in the queue, up to the end of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

/// There was no room in the queue, up to the end of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is empty")
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is full")
    }
}

impl std::error::Error for Empty {}

impl std::error::Error for Full {}

proxy_type! {
    /// A queue in a manager, with items of type `T`.
    ///
    /// A queue that was shut down in Python, from 3.13 on, fails with
    /// [`CallFailed::Raised`] of the class `ShutDown`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// use std::time::Duration;
    /// use procession::manager::ProxyError;
    /// use procession::manager::proxies::Empty;
    ///
    /// let tasks = manager.queue::<(u32, String)>(0)?;
    /// tasks.put(&(1, "sweep".to_owned()))?;
    /// assert_eq!(tasks.get()?, (1, "sweep".to_owned()));
    /// match tasks.get_timeout(Duration::from_millis(10)) {
    ///     Err(ProxyError::Failed(Empty)) => {}
    ///     other => panic!("there should be nothing: {other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    QueueProxy<T>
}

/// A queue in a manager whose items are counted until they are dealt with; see
/// [`QueueProxy::join`]. Managers make both kinds alike.
pub type JoinableQueueProxy<T> = QueueProxy<T>;

impl<T: Serialize> QueueProxy<T> {
    /// Puts an item in; blocks while there is no room.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn put(&self, item: &T) -> Result<(), CallFailed> {
        self.proxy.call("put", (item,))
    }

    /// Puts an item in; blocks while there is no room, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] when there was no room in that time.
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<(), ProxyError<Full>> {
        let put = self.proxy.call("put", (item, true, seconds(timeout)));
        put.map_err(|failed| ProxyError::where_raised(failed, "Full", Full))
    }

    /// Puts an item in if there is room.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] when there is none.
    pub fn try_put(&self, item: &T) -> Result<(), ProxyError<Full>> {
        let put = self.proxy.call("put", (item, false));
        put.map_err(|failed| ProxyError::where_raised(failed, "Full", Full))
    }
}

impl<T: DeserializeOwned> QueueProxy<T> {
    /// Takes an item out; blocks while there is none.
    ///
    /// If this process is killed meanwhile, a server of this crate or its Python package gives the
    /// item to somebody else.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call); on [`CallFailed::Decode`] the item is gone.
    pub fn get(&self) -> Result<T, CallFailed> {
        self.proxy.call("get", ())
    }

    /// Takes an item out; blocks while there is none, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] when there was none in that time.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, ProxyError<Empty>> {
        let got = self.proxy.call("get", (true, seconds(timeout)));
        got.map_err(|failed| ProxyError::where_raised(failed, "Empty", Empty))
    }

    /// Takes an item out if there is one.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Failed`] when there is none.
    pub fn try_get(&self) -> Result<T, ProxyError<Empty>> {
        let got = self.proxy.call("get", (false,));
        got.map_err(|failed| ProxyError::where_raised(failed, "Empty", Empty))
    }
}

impl<T> QueueProxy<T> {
    /// How many items there are. Others may put some in and take some out at any time.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call).
    pub fn len(&self) -> Result<usize, CallFailed> {
        self.proxy.call("qsize", ())
    }

    /// Whether there is no item.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, CallFailed> {
        self.proxy.call("empty", ())
    }

    /// Whether there is no room for another item.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_full(&self) -> Result<bool, CallFailed> {
        self.proxy.call("full", ())
    }

    /// Says that an item which was taken out has been dealt with.
    ///
    /// # Errors
    ///
    /// [`CallFailed::Raised`] of the class `ValueError` when it is called more often than items were
    /// put in.
    pub fn task_done(&self) -> Result<(), CallFailed> {
        self.proxy.call("task_done", ())
    }

    /// Blocks until [`task_done`](Self::task_done) was called for every item that was put in.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn join(&self) -> Result<(), CallFailed> {
        self.proxy.call("join", ())
    }
}
