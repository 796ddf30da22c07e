//! What can go wrong with a container.

use std::fmt;

use crate::shm::ArenaError;

/// Why a container of typed values could not do what was asked. It is as it was before.
#[derive(Debug)]
#[non_exhaustive]
pub enum CollectionError {
    /// Shared memory is at its limit, or there is none.
    Arena(ArenaError),
    /// The key or the value cannot be serialized; the text says why.
    Serialize(String),
    /// What is in the container is no value of the type; the text says why.
    Deserialize(String),
}

impl fmt::Display for CollectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arena(_) => f.write_str("shared memory for the container failed"),
            Self::Serialize(reason) => write!(f, "cannot serialize: {reason}"),
            Self::Deserialize(reason) => {
                write!(f, "what is in the container is of another type: {reason}")
            }
        }
    }
}

impl std::error::Error for CollectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Arena(source) => Some(source),
            _ => None,
        }
    }
}

impl From<ArenaError> for CollectionError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error)
    }
}
