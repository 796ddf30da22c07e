//! Why a tree was not ended.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a tree of processes was not ended, or not all of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum TreeError {
    /// There is no such process, or it has ended already.
    NotFound {
        /// The process id.
        pid: u32,
    },
    /// That process must not be killed. Nothing was done.
    Refused {
        /// The process id.
        pid: u32,
        /// Why not.
        reason: &'static str,
    },
    /// The operating system refused. All others that were found have been killed.
    Os {
        /// The system call that failed, e.g. `"pidfd_send_signal"`.
        call: &'static str,
        /// The process that it was about.
        pid: u32,
        /// What it reported: `EPERM` when the process belongs to another user, `EMFILE` when no
        /// descriptor was left.
        source: io::Error,
    },
}

impl TreeError {
    /// Returns the system's number for this failure, such as `ESRCH` or `EPERM`; `None` if the system
    /// had no part.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NotFound { .. } => Some(libc::ESRCH),
            Self::Refused { .. } => None,
            Self::Os { source, .. } => source.raw_os_error(),
        }
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { pid } => write!(f, "there is no process {pid}, or it has ended"),
            Self::Refused { pid, reason } => {
                write!(f, "the tree of process {pid} is not killed: {reason}")
            }
            Self::Os { call, pid, .. } => {
                write!(f, "process {pid} could not be ended with its tree: {call} failed")
            }
        }
    }
}

impl Error for TreeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

pub(super) fn os(call: &'static str, pid: u32, source: io::Error) -> TreeError {
    TreeError::Os { call, pid, source }
}
