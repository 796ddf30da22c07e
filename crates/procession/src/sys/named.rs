//! Memory that processes share by a name: the files of `/dev/shm`.
//!
//! These are what `shm_open(3)` opens, by the names that it uses, so other programs find them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

const FOLDER: &str = "/dev/shm";
/// Longer than every target that is written here.
const TARGET_LENGTH: usize = 512;

/// Which file a name stands for at the moment, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Number of the file; another one has it only long after this one is gone.
    pub(crate) inode: u64,
    /// User that owns it.
    pub(crate) user: u32,
}

/// Where the file with this name is. Slashes in front do not count, as for `shm_open`.
///
/// # Errors
///
/// `EINVAL` for a name that `shm_open` refuses: empty, or with another slash in it.
fn path_of(name: &OsStr) -> io::Result<PathBuf> {
    let bytes = name.as_bytes();
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    match &bytes[start..] {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        rest if rest.contains(&b'/') => Err(Errno::INVAL.into()),
        rest => Ok(Path::new(FOLDER).join(OsStr::from_bytes(rest))),
    }
}

/// The flags for opening what exists, to read and to write.
pub(crate) const READ_WRITE: i32 = libc::O_RDWR;

/// Opens the file of this name; `flags` are `O_RDWR`, `O_CREAT` and so on, `mode` is for a new one.
///
/// See [`shm_open(3)`](https://man7.org/linux/man-pages/man3/shm_open.3.html).
///
/// # Errors
///
/// `EINVAL` for a bad name, else what `open` reports.
pub(crate) fn open(name: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path_of(name)?, flags, Mode::from_raw_mode(mode))?)
}

/// Creates the file of this name, which must be free, for reading and writing.
///
/// # Errors
///
/// `EEXIST` when the name is taken; see also [`open`].
pub(crate) fn create(name: &OsStr, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    open(name, flags.bits().cast_signed(), mode)
}

/// Takes the name away; the memory goes with the last who has it mapped or open.
///
/// # Errors
///
/// `ENOENT` when there is no such name, `EACCES` or `EPERM` when it is not this user's.
pub(crate) fn unlink(name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlink(path_of(name)?)?)
}

/// Which file the name stands for.
///
/// # Errors
///
/// `ENOENT` when it stands for none.
pub(crate) fn identify(name: &OsStr) -> io::Result<Identity> {
    let found = rustix::fs::statat(CWD, path_of(name)?, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Identity { inode: found.st_ino, user: found.st_uid })
}

/// The number of an open file.
pub(crate) fn inode(fd: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

/// Sets the size of a new file, which reads as zeros.
///
/// # Errors
///
/// `EFBIG` and `EINVAL` for a size that the system does not have files of.
pub(crate) fn set_size(fd: &OwnedFd, size: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(fd, size)?)
}

/// Gives a file another name, which must be free.
///
/// # Errors
///
/// `EEXIST` when the new name is taken, `ENOENT` when there is no such file.
pub(crate) fn rename(from: &OsStr, to: &OsStr) -> io::Result<()> {
    let (from, to) = (path_of(from)?, path_of(to)?);
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Makes a note: a name with a text, in one step and without any memory.
///
/// # Errors
///
/// `EEXIST` when the name is taken, `ENAMETOOLONG` for a text of several thousand bytes.
pub(crate) fn write_note(name: &OsStr, text: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::symlink(text, path_of(name)?)?)
}

/// The text of a note.
///
/// # Errors
///
/// `EINVAL` when the name is none of a note, `ENOENT` when there is no such name.
pub(crate) fn read_note(name: &OsStr) -> io::Result<OsString> {
    let text = rustix::fs::readlink(path_of(name)?, Vec::with_capacity(TARGET_LENGTH))?;
    Ok(OsString::from_vec(text.into_bytes()))
}

/// The names that begin with `prefix`.
///
/// # Errors
///
/// What opening and reading the folder reports.
pub(crate) fn names(prefix: &str) -> io::Result<Vec<OsString>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(FOLDER)? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            found.push(name);
        }
    }
    Ok(found)
}

/// The user that files of this process belong to.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The namespace that this process's pid is a number of.
///
/// # Errors
///
/// `ENOENT` without `/proc`.
pub(crate) fn pid_namespace() -> io::Result<u64> {
    Ok(rustix::fs::stat("/proc/self/ns/pid")?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> Option<i32> {
        path_of(OsStr::new(name)).unwrap_err().raw_os_error()
    }

    #[test]
    fn slashes_in_front_do_not_count() {
        for name in ["x", "/x", "//x"] {
            assert_eq!(path_of(OsStr::new(name)).unwrap(), Path::new("/dev/shm/x"));
        }
    }

    #[test]
    fn names_outside_the_folder_are_refused() {
        for name in ["", "/", ".", "..", "/..", "a/b", "../x"] {
            assert_eq!(refused(name), Some(Errno::INVAL.raw_os_error()), "{name:?}");
        }
    }
}
