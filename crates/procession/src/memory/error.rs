//! What can go wrong with shared data.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::shm::Member;

/// What taking a lock gives: the data, or the data of an owner that died.
pub type LockResult<T> = Result<T, OwnerDied<T>>;

/// The process that held the lock was killed, and the lock was taken over: the data may be
/// half-changed.
///
/// Told once, to the next one that takes the lock. The data is inside; whoever goes on vouches for
/// it.
///
/// # Examples
///
/// ```
/// use procession::memory::{OwnerDied, Value};
///
/// let value = Value::new(5_u64)?;
/// let number = value.get().unwrap_or_else(OwnerDied::into_inner);
/// assert_eq!(number, 5);
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
pub struct OwnerDied<T> {
    data: T,
    owner: Member,
}

impl<T> OwnerDied<T> {
    pub(super) fn new(data: T, owner: Member) -> Self {
        Self { data, owner }
    }

    /// Returns the data, as the dead process left it.
    pub fn into_inner(self) -> T {
        self.data
    }

    /// Returns the process that died.
    pub fn owner(&self) -> Member {
        self.owner
    }
}

impl<T> fmt::Debug for OwnerDied<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for OwnerDied<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.owner;
        write!(
            f,
            "the process that held the lock was killed ({owner:?}): its data may be half-changed"
        )
    }
}

impl<T> std::error::Error for OwnerDied<T> {}

/// Why named memory could not be made, opened or unlinked.
#[derive(Debug)]
#[non_exhaustive]
pub enum NameError {
    /// The name is taken.
    AlreadyExists {
        /// The name.
        name: OsString,
    },
    /// There is nothing under the name.
    NotFound {
        /// The name.
        name: OsString,
    },
    /// There is a file under the name, with no byte in it, or none was asked for.
    Empty {
        /// The name; none if no byte was asked for.
        name: OsString,
    },
    /// The name has a zero byte in it, and names of the system end there.
    ZeroByte {
        /// The name.
        name: OsString,
    },
    /// The operating system refused.
    Os {
        /// The name.
        name: OsString,
        /// What it reported.
        source: io::Error,
    },
}

impl NameError {
    /// The system's number for this failure, such as `EEXIST`.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::AlreadyExists { .. } => Some(Errno::EXIST.raw_os_error()),
            Self::NotFound { .. } => Some(Errno::NOENT.raw_os_error()),
            Self::Empty { .. } | Self::ZeroByte { .. } => Some(Errno::INVAL.raw_os_error()),
            Self::Os { source, .. } => source.raw_os_error(),
        }
    }

    pub(super) fn new(name: &OsStr, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            _ if name.as_bytes().contains(&0) => Self::ZeroByte { name },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { name },
            io::ErrorKind::NotFound => Self::NotFound { name },
            _ => Self::Os { name, source },
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyExists { name } => write!(f, "shared memory {name:?} already exists"),
            Self::NotFound { name } => write!(f, "there is no shared memory {name:?}"),
            Self::Empty { name } => write!(f, "shared memory {name:?} would have no bytes"),
            Self::ZeroByte { name } => write!(f, "the name {name:?} has a zero byte in it"),
            Self::Os { name, .. } => write!(f, "shared memory {name:?} is not to be had"),
        }
    }
}

impl std::error::Error for NameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}
