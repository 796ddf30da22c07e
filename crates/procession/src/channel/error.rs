//! Why a message was not sent or received.

use std::fmt;

use crate::error::WaitError;
use crate::shm::ArenaError;

/// Why [`put`](super::ByteQueue::put) did not enqueue. Nothing was enqueued.
#[derive(Debug)]
#[non_exhaustive]
pub enum PutError {
    /// The queue was full until the deadline.
    Full,
    /// The queue was closed.
    Closed,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// The value could not be serialized; the serializer's own words.
    Serialize(String),
    /// There was no memory for the message.
    Arena(ArenaError),
}

/// Why [`get`](super::ByteQueue::get) returned nothing. Nothing was taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// The queue was empty until the deadline.
    Empty,
    /// The queue is empty and was closed: nothing will come.
    Closed,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// The message was taken, but is no value of this type; the deserializer's own words.
    Deserialize(String),
    /// The arena does not let itself be used.
    Arena(ArenaError),
}

/// Why [`task_done`](super::JoinableByteQueue::task_done) did nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskDoneError {
    /// Nothing is unfinished: it was called more often than messages were put in.
    TooMany,
    /// There was no memory to count in.
    Arena(ArenaError),
}

/// Why [`join`](super::JoinableByteQueue::join) returned although something may be unfinished.
#[derive(Debug)]
#[non_exhaustive]
pub enum TasksError {
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// A process died that had taken messages and not said that they are done. They count as done
    /// from now on.
    Lost {
        /// Process id of the dead one; of the last, if there were several.
        pid: u32,
        /// How many messages were lost since the call.
        tasks: u64,
    },
    /// The arena does not let itself be used.
    Arena(ArenaError),
}

impl fmt::Display for TaskDoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("task_done() called too many times"),
            Self::Arena(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for TasksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("timed out, and some tasks are not done"),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Lost { pid, tasks } => write!(
                f,
                "process {pid} died and had taken tasks that it had not done: {tasks} lost, which \
                 count as done from now on; put them again if they matter",
            ),
            Self::Arena(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TaskDoneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Arena(error) = self { Some(error) } else { None }
    }
}

impl std::error::Error for TasksError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Arena(error) = self { Some(error) } else { None }
    }
}

impl From<ArenaError> for TaskDoneError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<ArenaError> for TasksError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::Closed => f.write_str("the queue is closed"),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Serialize(why) => write!(f, "the value cannot be serialized: {why}"),
            Self::Arena(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::Closed => f.write_str("the queue is empty and closed"),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Deserialize(why) => write!(f, "the message cannot be deserialized: {why}"),
            Self::Arena(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Arena(error) = self { Some(error) } else { None }
    }
}

impl std::error::Error for GetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Arena(error) = self { Some(error) } else { None }
    }
}

impl From<ArenaError> for PutError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<ArenaError> for GetError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}

impl From<WaitError> for PutError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::Full,
            WaitError::Interrupted => Self::Interrupted,
        }
    }
}

impl From<WaitError> for GetError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => Self::Empty,
            WaitError::Interrupted => Self::Interrupted,
        }
    }
}
