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
