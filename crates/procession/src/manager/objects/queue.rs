//! `Queue` and `JoinableQueue`, which are one and the same.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::ClientId;
use crate::manager::object::{Answer, Bound, Invocation, Outcome, Raised, Served};
use crate::manager::objects::kept::Kept;
use crate::manager::objects::monitor::{self, Monitor};
use crate::manager::objects::named;
use crate::pickle;

const METHODS: &[&str] =
    &["empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "task_done"];

/// A queue of a manager, first in first out, for clients in any language: what Python's
/// `queue.Queue` is there.
///
/// The program that has the manager uses it by the methods here. An item is handed to nobody who
/// died while waiting for one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use procession::manager::{Queue, QueueError};
///
/// let queue = Queue::new(1);
/// queue.put(&("sweep", 3))?;
/// assert!(matches!(queue.put_timeout(&4, Duration::ZERO), Err(QueueError::Full)));
/// assert_eq!(queue.get::<(String, u32)>()?, ("sweep".to_owned(), 3));
/// assert!(matches!(queue.get_timeout::<u32>(Duration::ZERO), Err(QueueError::Empty)));
/// # Ok::<(), QueueError>(())
/// ```
pub struct Queue {
    /// 0 for no limit.
    maximum: usize,
    state: Monitor<State>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Kept>,
    /// Items that were put in and not reported as done.
    unfinished: u64,
    /// How many wait for something else than an item: room, or that all is done.
    waiting_otherwise: usize,
}

/// Why nothing was put into a [`Queue`], or taken out.
#[derive(Debug)]
#[non_exhaustive]
pub enum QueueError {
    /// There was no item in time.
    Empty,
    /// There was no room in time.
    Full,
    /// The item cannot be written as a pickle, or is not of the type that was asked for. In the
    /// second case it is lost.
    Item(pickle::Error),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no item has come into the queue in time"),
            Self::Full => f.write_str("there was no room in the queue in time"),
            Self::Item(_) => f.write_str("the item cannot be converted"),
        }
    }
}

impl std::error::Error for QueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Item(error) => Some(error),
            Self::Empty | Self::Full => None,
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish_non_exhaustive()
    }
}

pub(super) fn make(call: &mut Invocation<'_>) -> Result<Arc<dyn Served>, Raised> {
    let maximum: Option<i64> = call.bind(&["maxsize"])?.next_if_given()?;
    Ok(Arc::new(Queue::new(usize::try_from(maximum.unwrap_or(0)).unwrap_or(0))))
}

impl Queue {
    /// An empty queue for so many items at most; 0 for as many as there is memory for.
    pub fn new(maximum: usize) -> Self {
        Self { maximum, state: Monitor::default() }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an item in. Blocks while there is no room.
    ///
    /// # Errors
    ///
    /// [`QueueError::Item`].
    pub fn put<T: Serialize + ?Sized>(&self, item: &T) -> Result<(), QueueError> {
        self.put_within(item, None)
    }

    /// Puts an item in. Blocks while there is no room, but no longer than `timeout`; zero does not
    /// block.
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`], [`QueueError::Item`].
    pub fn put_timeout<T: Serialize + ?Sized>(
        &self,
        item: &T,
        timeout: Duration,
    ) -> Result<(), QueueError> {
        self.put_within(item, Some(timeout))
    }

    fn put_within<T: Serialize + ?Sized>(
        &self,
        item: &T,
        timeout: Option<Duration>,
    ) -> Result<(), QueueError> {
        let value = pickle::to_value(item).map_err(QueueError::Item)?;
        match self.push(Kept::local(value), None, timeout) {
            Ok(true) => Ok(()),
            // Only a client can be gone, and there is none.
            Ok(false) | Err(_) => Err(QueueError::Full),
        }
    }

    /// Takes the first item out. Blocks until there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Item`].
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, QueueError> {
        self.get_within(None)
    }

    /// Takes the first item out. Blocks until there is one, but no longer than `timeout`; zero
    /// does not block.
    ///
    /// # Errors
    ///
    /// [`QueueError::Empty`], [`QueueError::Item`].
    pub fn get_timeout<T: DeserializeOwned>(&self, timeout: Duration) -> Result<T, QueueError> {
        self.get_within(Some(timeout))
    }

    fn get_within<T: DeserializeOwned>(&self, timeout: Option<Duration>) -> Result<T, QueueError> {
        match self.pop(None, timeout) {
            Ok(Some(item)) => pickle::from_value(item.value).map_err(QueueError::Item),
            // Only a client can be gone, and there is none.
            Ok(None) | Err(_) => Err(QueueError::Empty),
        }
    }

    /// Notes that an item which was taken out has been dealt with. False if all have been already.
    pub fn task_done(&self) -> bool {
        let mut state = self.state.lock();
        let Some(left) = state.unfinished.checked_sub(1) else { return false };
        state.unfinished = left;
        if left == 0 {
            self.state.notify_all();
        }
        true
    }

    /// Blocks until [`task_done`](Self::task_done) was called for each item that was put in.
    pub fn join(&self) {
        // Only a client can be gone, and there is none.
        let _ = self.wait_done(None);
    }

    fn wait_done(&self, call: Option<&Invocation<'_>>) -> Result<(), Raised> {
        let mut state = self.state.lock();
        state.waiting_otherwise += 1;
        let waited = self.state.wait_until(state, call, None, |state| state.unfinished == 0);
        let waited = waited.map(|_| ());
        self.state.lock().waiting_otherwise -= 1;
        waited
    }

    fn has_room(&self, state: &State) -> bool {
        self.maximum == 0 || state.items.len() < self.maximum
    }

    fn push(
        &self,
        item: Kept,
        call: Option<&Invocation<'_>>,
        timeout: Option<Duration>,
    ) -> Result<bool, Raised> {
        let mut state = self.state.lock();
        if !self.has_room(&state) {
            state.waiting_otherwise += 1;
            let waited = self.state.wait_until(state, call, timeout, |state| self.has_room(state));
            let (mut waited, has_room) = match waited {
                Ok(waited) => waited,
                Err(gone) => {
                    self.state.lock().waiting_otherwise -= 1;
                    return Err(gone);
                }
            };
            waited.waiting_otherwise -= 1;
            if !has_room {
                return Ok(false);
            }
            state = waited;
        }
        state.items.push_back(item);
        state.unfinished += 1;
        // All wait in one place. One wake-up is enough if all of them wait for an item.
        self.state.notify(1 + state.waiting_otherwise);
        Ok(true)
    }

    fn pop(
        &self,
        call: Option<&Invocation<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Option<Kept>, Raised> {
        let state = self.state.lock();
        let (mut state, _) =
            self.state.wait_until(state, call, timeout, |state| !state.items.is_empty())?;
        let item = state.items.pop_front();
        if self.maximum > 0 {
            self.state.notify_all();
        }
        Ok(item)
    }

    fn call_put(&self, call: &mut Invocation<'_>) -> Answer {
        let mut arguments = call.bind(match call.method() {
            "put" => &["item", "block", "timeout"],
            _ => &["item"],
        })?;
        let item = arguments.next()?;
        let timeout = match call.method() {
            "put" => timeout(&mut arguments)?,
            _ => Some(Duration::ZERO),
        };
        let item = Kept::new(item, call);
        if self.push(item, Some(call), timeout)? {
            return Ok(Outcome::none());
        }
        Err(Raised::new("queue", "Full", Vec::new()))
    }

    fn call_get(&self, call: &mut Invocation<'_>) -> Answer {
        let timeout = if call.method() == "get" {
            timeout(&mut call.bind(&["block", "timeout"])?)?
        } else {
            call.bind(&[])?;
            Some(Duration::ZERO)
        };
        match self.pop(Some(call), timeout)? {
            Some(item) => Ok(item.give(call)),
            // The module that Python's own pickles name.
            None => Err(Raised::new("_queue", "Empty", Vec::new())),
        }
    }
}

/// How long to wait; `None` for as long as it takes.
fn timeout(arguments: &mut Bound) -> Result<Option<Duration>, Raised> {
    let block = monitor::flag(arguments, true)?;
    let seconds = monitor::seconds(arguments)?;
    if !block {
        return Ok(Some(Duration::ZERO));
    }
    if seconds.is_some_and(|seconds| seconds < 0.0) {
        return Err(Raised::value_error("'timeout' must be a non-negative number"));
    }
    Ok(monitor::duration(seconds))
}

impl Served for Queue {
    fn methods(&self) -> Vec<String> {
        named(METHODS)
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        match call.method() {
            "put" | "put_nowait" => return self.call_put(call),
            "get" | "get_nowait" => return self.call_get(call),
            _ => {}
        }
        call.bind(&[])?;
        Ok(match call.method() {
            "qsize" => Outcome::of(&self.len())?,
            "empty" => Outcome::of(&self.is_empty())?,
            "full" => Outcome::of(&!self.has_room(&self.state.lock()))?,
            "task_done" => {
                if !self.task_done() {
                    return Err(Raised::value_error("task_done() called too many times"));
                }
                Outcome::none()
            }
            "join" => {
                self.wait_done(Some(call))?;
                Outcome::none()
            }
            _ => return Err(call.unknown_method()),
        })
    }

    fn text(&self) -> String {
        format!("<Queue of {} items>", self.len())
    }

    fn client_gone(&self, _client: ClientId, _killed: bool) {
        drop(self.state.lock());
        self.state.notify_all();
    }
}
