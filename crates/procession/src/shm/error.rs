//! What can go wrong with the arena.

use std::fmt;
use std::io;

use crate::shm::word::Handle;

/// Why the arena could not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ArenaError {
    /// The block would take the arena over its limit.
    OutOfMemory {
        /// Size of the block, in bytes.
        requested: u64,
        /// What is in use, in bytes.
        used: u64,
        /// The limit, in bytes; `PROCESSION_ARENA_MAX` sets another.
        limit: u64,
    },
    /// The object that the handle named is gone.
    Stale {
        /// The handle.
        handle: Handle,
    },
    /// The tree has as many processes as an arena can tell apart.
    TooManyProcesses {
        /// How many that is.
        limit: usize,
    },
    /// One object is referred to by more handles than can be counted.
    TooManyReferences,
    /// A shared object was serialized outside a message, a task or a process argument.
    OutsideTree,
    /// A descriptor handed over by the parent is no arena of this version.
    NotAnArena,
    /// The parent died while it started this process.
    ParentDied,
    /// The operating system refused.
    Os {
        /// The system call that failed.
        call: &'static str,
        /// What it reported.
        source: io::Error,
    },
}

impl ArenaError {
    /// The system's number for this failure, such as `EMFILE`; `None` if the system had no part.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(super) fn os(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { call, source }
    }
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { requested, used, limit } => write!(
                f,
                "no room for {requested} bytes of shared memory: {used} of {limit} bytes are in use \
                 (PROCESSION_ARENA_MAX sets another limit)"
            ),
            Self::Stale { handle } => {
                write!(f, "the shared object {handle:?} no longer exists")
            }
            Self::TooManyProcesses { limit } => {
                write!(f, "the process tree already has {limit} processes")
            }
            Self::TooManyReferences => f.write_str("too many references to one shared object"),
            Self::OutsideTree => f.write_str(
                "a shared object can be serialized only into a message, a task or the arguments of \
                 a process",
            ),
            Self::NotAnArena => {
                f.write_str("the inherited descriptor is not an arena of this version")
            }
            Self::ParentDied => f.write_str("the parent died while it started this process"),
            Self::Os { call, .. } => write!(f, "{call} failed"),
        }
    }
}

impl std::error::Error for ArenaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}
