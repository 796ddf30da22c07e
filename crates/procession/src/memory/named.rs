//! Memory with a name that programs of other trees can open.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::memory::error::NameError;
use crate::shm::names;
use crate::sys::memory::{Mapping, file_size};

/// Read and write for the owner, nothing for others.
const MODE: u32 = 0o600;

/// Bytes under a name of the system, such as `shm_open` opens, to share with any program.
///
/// Python's `multiprocessing.shared_memory` finds it by the same name, and the other way round.
/// Within one tree [`Array`](crate::memory::Array) does more, and leaves no name.
///
/// The one that makes it owns the name, and attaching changes nothing about that. The name goes
/// - when anybody calls [`unlink`](Self::unlink);
/// - when the first process of the tree that made it ends normally;
/// - when that process and the maker were killed: then the next process that makes or attaches
///   to named memory through this crate removes the name. Until then it stays, since no process is
///   left that could remove it.
///
/// Programs that have the memory keep it without the name.
///
/// # Examples
///
/// ```
/// use procession::memory::SharedMemory;
///
/// let name = format!("procession-doc-{}", std::process::id());
/// let memory = SharedMemory::create(&name, 4096)?;
/// memory.write(10, b"hello");
/// let same = SharedMemory::attach(&name)?;
/// let mut greeting = [0; 5];
/// same.read(10, &mut greeting);
/// assert_eq!(&greeting, b"hello");
/// memory.unlink()?;
/// # Ok::<(), procession::memory::NameError>(())
/// ```
pub struct SharedMemory {
    name: OsString,
    mapping: Mapping,
}

impl SharedMemory {
    /// Makes `size` zeroed bytes under a name that is free. Slashes in front of it do not count.
    ///
    /// # Errors
    ///
    /// [`NameError::AlreadyExists`], [`NameError::Empty`] for a size of 0, [`NameError::Os`] for a
    /// name that cannot be, or when there is no memory.
    pub fn create(name: impl AsRef<OsStr>, size: usize) -> Result<Self, NameError> {
        let name = name.as_ref();
        if size == 0 {
            return Err(NameError::Empty { name: name.to_owned() });
        }
        let error = |source| NameError::new(name, source);
        let fd = names::create(name, size as u64, MODE, true).map_err(error)?;
        Self::map(name, &fd)
    }

    /// Opens the memory of this name.
    ///
    /// # Errors
    ///
    /// [`NameError::NotFound`], [`NameError::Empty`] when it is no memory but an empty file,
    /// [`NameError::Os`] when it is not this user's.
    pub fn attach(name: impl AsRef<OsStr>) -> Result<Self, NameError> {
        let name = name.as_ref();
        let fd = names::attach(name).map_err(|source| NameError::new(name, source))?;
        Self::map(name, &fd)
    }

    fn map(name: &OsStr, fd: &OwnedFd) -> Result<Self, NameError> {
        let error = |source| NameError::new(name, source);
        let size = file_size(fd.as_fd()).map_err(error)?;
        if size == 0 {
            return Err(NameError::Empty { name: name.to_owned() });
        }
        let mapping = Mapping::map(fd.as_fd(), size as usize).map_err(error)?;
        Ok(Self { name: name.to_owned(), mapping })
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Copies bytes from `offset` on into `target`. Others may write them at the same time; no
    /// lock is taken.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many bytes behind `offset`.
    pub fn read(&self, offset: usize, target: &mut [u8]) {
        self.mapping.read(offset, target);
    }

    /// Copies bytes of `source` to `offset`. Others may read or write there at the same time; no
    /// lock is taken.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many bytes behind `offset`.
    pub fn write(&self, offset: usize, source: &[u8]) {
        self.mapping.write(offset, source);
    }

    /// The address of the first byte, at the beginning of a page. Whoever uses it answers for the
    /// order of the accesses, and for programs that make the file shorter.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.base().as_ptr()
    }

    /// Takes the name away. Who has the memory keeps it, this handle included.
    ///
    /// # Errors
    ///
    /// [`NameError::NotFound`] when the name is gone, [`NameError::Os`] when it is another user's.
    pub fn unlink(&self) -> Result<(), NameError> {
        names::unlink(&self.name).map_err(|source| NameError::new(&self.name, source))
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("name", &self.name).field("len", &self.len()).finish()
    }
}

impl Serialize for SharedMemory {
    /// As its name, under which the receiver attaches to it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::attach(OsString::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Names and descriptors, for callers that keep both by themselves.
pub mod raw {
    use std::ffi::OsStr;
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::memory::error::NameError;
    use crate::shm::names;
    use crate::sys::memory::Mapping;

    /// The memory behind a descriptor, which need not stay open.
    #[derive(Debug)]
    pub struct Mapped(Mapping);

    impl Mapped {
        /// Maps what is behind the descriptor with this number.
        ///
        /// # Errors
        ///
        /// What the system reports: for a number that is not open, or when there is no memory.
        pub fn new(fd: i32) -> io::Result<Self> {
            Mapping::of_number(fd).map(Self)
        }

        /// Copies bytes from `offset` on; false, with nothing copied, if there are not so many.
        pub fn read(&self, offset: usize, target: &mut [u8]) -> bool {
            let inside = self.holds(offset, target.len());
            if inside {
                self.0.read(offset, target);
            }
            inside
        }

        /// Copies `source` to `offset`; false, with nothing copied, if it does not fit.
        pub fn write(&self, offset: usize, source: &[u8]) -> bool {
            let inside = self.holds(offset, source.len());
            if inside {
                self.0.write(offset, source);
            }
            inside
        }

        /// Whether there are `len` bytes at `offset`.
        pub fn holds(&self, offset: usize, len: usize) -> bool {
            offset.checked_add(len).is_some_and(|end| end <= self.0.len())
        }
    }

    /// Makes `size` zeroed bytes under a name that is free; `mode` is that of the file.
    ///
    /// With `track` the tree unlinks the name in the end, as it does for
    /// [`SharedMemory`](super::SharedMemory).
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::create`](super::SharedMemory::create), but a size of 0 is allowed.
    pub fn create(name: &OsStr, size: u64, mode: u32, track: bool) -> Result<OwnedFd, NameError> {
        names::create(name, size, mode, track).map_err(|source| NameError::new(name, source))
    }

    /// Opens what is under a name, as `shm_open` does with these flags and mode.
    ///
    /// # Errors
    ///
    /// [`NameError::NotFound`], or [`NameError::Os`].
    pub fn open(name: &OsStr, flags: i32, mode: u32) -> Result<OwnedFd, NameError> {
        names::open(name, flags, mode).map_err(|source| NameError::new(name, source))
    }

    /// Takes a name away.
    ///
    /// # Errors
    ///
    /// [`NameError::NotFound`], or [`NameError::Os`].
    pub fn unlink(name: &OsStr) -> Result<(), NameError> {
        names::unlink(name).map_err(|source| NameError::new(name, source))
    }
}
