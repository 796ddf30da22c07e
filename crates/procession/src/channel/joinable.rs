//! Queues that know when all that was put in has been dealt with.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::bytes::ByteQueue;
use crate::channel::error::{TaskDoneError, TasksError};
use crate::channel::typed::Queue;
use crate::shm::{ArenaError, Handle};

/// A [`ByteQueue`] whose messages count as unfinished until somebody says that they are done.
///
/// It has all methods of a [`ByteQueue`]. A message is unfinished from when it is put in until one
/// more call of [`task_done`](Self::task_done), by any process. When a process dies that had taken
/// messages and said of fewer that they are done, the rest is lost; [`join`](Self::join) says so
/// instead of waiting for ever. At most 2²⁹ messages may be unfinished at a time.
///
/// # Examples
///
/// ```
/// use procession::channel::JoinableByteQueue;
///
/// let queue = JoinableByteQueue::new(0)?;
/// queue.put(b"task", None)?;
/// queue.get(None)?;
/// queue.task_done()?;
/// queue.join(None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct JoinableByteQueue {
    bytes: ByteQueue,
}

impl JoinableByteQueue {
    /// Makes an empty queue that holds at most `max_items` messages; 0 means as many as there is
    /// memory for.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new(max_items: usize) -> Result<Self, ArenaError> {
        ByteQueue::counting(max_items).map(|bytes| Self { bytes })
    }

    /// The queue that `raw`, a number from [`note`](ByteQueue::note), stands for.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Stale`] when there is no such queue any more, or it does not count.
    pub fn open(raw: u64) -> Result<Self, ArenaError> {
        Self::of(ByteQueue::open(raw)?).ok_or(ArenaError::Stale { handle: Handle::from_raw(raw) })
    }

    fn of(bytes: ByteQueue) -> Option<Self> {
        (!bytes.tally.is_none()).then_some(Self { bytes })
    }

    /// Says that one of the messages taken is done.
    ///
    /// It need not be the process that took the message that says so. But what a process has taken
    /// less what it has said is done is what counts as lost if it dies.
    ///
    /// Blocks only while another process does the same.
    ///
    /// # Errors
    ///
    /// [`TaskDoneError::TooMany`] when nothing is unfinished.
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        self.bytes.acknowledge()
    }

    /// Number of messages that were put in and are not done. Exact while nobody puts one in or says
    /// that one is done.
    pub fn unfinished(&self) -> usize {
        self.bytes.unfinished() as usize
    }

    /// Blocks until no message is unfinished, until `deadline`; `None` means for ever.
    ///
    /// # Errors
    ///
    /// [`TasksError::Lost`] when a process died with unfinished messages: that is found out within a
    /// second, told to all who wait at that time, and the messages count as done afterwards. Call
    /// again to wait for the others. [`TasksError::TimedOut`] at the deadline, and
    /// [`TasksError::Interrupted`] when a signal handler has run while it waited.
    pub fn join(&self, deadline: Option<Instant>) -> Result<(), TasksError> {
        self.bytes.wait_until_done(deadline)
    }
}

impl Deref for JoinableByteQueue {
    type Target = ByteQueue;

    fn deref(&self) -> &ByteQueue {
        &self.bytes
    }
}

impl Serialize for JoinableByteQueue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JoinableByteQueue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteQueue::deserialize(deserializer)?;
        Self::of(bytes).ok_or_else(|| D::Error::custom("this queue does not count its messages"))
    }
}

/// A [`Queue`] whose values count as unfinished until somebody says that they are done.
///
/// It has all methods of a [`Queue`]; for the rest see [`JoinableByteQueue`], on which it is built.
///
/// # Examples
///
/// ```
/// use procession::channel::JoinableQueue;
///
/// let queue = JoinableQueue::new()?;
/// queue.put(&"task".to_owned())?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let task = queue.get().unwrap();
///         println!("doing {task}");
///         queue.task_done().unwrap();
///     });
///     queue.join()
/// })?;
/// assert_eq!(queue.unfinished(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinableQueue<T> {
    queue: Queue<T>,
}

impl<T> JoinableQueue<T> {
    /// Makes an empty queue that only memory limits.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new() -> Result<Self, ArenaError> {
        Self::bounded(0)
    }

    /// Makes an empty queue that holds at most `max_items` values; 0 means no limit but memory.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn bounded(max_items: usize) -> Result<Self, ArenaError> {
        ByteQueue::counting(max_items).map(|bytes| Self { queue: Queue::on(bytes) })
    }

    /// Says that one of the values taken is done; see [`JoinableByteQueue::task_done`].
    ///
    /// # Errors
    ///
    /// [`TaskDoneError::TooMany`] when nothing is unfinished.
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        self.queue.bytes.acknowledge()
    }

    /// Number of values that were put in and are not done. Exact while nobody puts one in or says
    /// that one is done.
    pub fn unfinished(&self) -> usize {
        self.queue.bytes.unfinished() as usize
    }

    /// Blocks until no value is unfinished. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`TasksError::Lost`] when a process died with unfinished values; see
    /// [`JoinableByteQueue::join`].
    pub fn join(&self) -> Result<(), TasksError> {
        self.join_until(None)
    }

    /// Blocks until no value is unfinished, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`TasksError::TimedOut`] after that time, else as [`join`](Self::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), TasksError> {
        self.join_until(Instant::now().checked_add(timeout))
    }

    fn join_until(&self, deadline: Option<Instant>) -> Result<(), TasksError> {
        loop {
            match self.queue.bytes.wait_until_done(deadline) {
                Err(TasksError::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl<T> Deref for JoinableQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinableQueue").field(&self.queue.bytes).finish()
    }
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.queue.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let queue = JoinableByteQueue::deserialize(deserializer)?;
        Ok(Self { queue: Queue::on(queue.bytes) })
    }
}
