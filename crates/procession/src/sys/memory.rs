//! Memory that processes share, without a name in the file system.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::process::Resource;

/// Creates a memory file of `size` bytes that reads as zeros and takes no memory yet.
///
/// `name` only shows up in `/proc`. The descriptor is closed by `exec`. See
/// [`memfd_create(2)`](https://man7.org/linux/man-pages/man2/memfd_create.2.html).
///
/// # Errors
///
/// `EFBIG` when `size` is above what the system or `RLIMIT_FSIZE` allows, `EMFILE` and `ENFILE`
/// when there are too many descriptors.
pub(crate) fn memfd(name: &str, size: u64) -> io::Result<OwnedFd> {
    // Beyond this limit `ftruncate` does not only fail, it also sends SIGXFSZ, which kills.
    let limit = rustix::process::getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| size > limit) {
        return Err(Errno::FBIG.into());
    }
    let mut fd = create_memfd(name)?;
    if fd.as_raw_fd() <= LAST_STANDARD_STREAM {
        // A program that has closed its standard streams must not hand its children this file as
        // one of theirs.
        fd = rustix::io::fcntl_dupfd_cloexec(&fd, LAST_STANDARD_STREAM + 1)?;
    }
    rustix::fs::ftruncate(&fd, size)?;
    Ok(fd)
}

const LAST_STANDARD_STREAM: i32 = 2;

fn create_memfd(name: &str) -> Result<OwnedFd, Errno> {
    // A system may refuse memory files that could be executed (`vm.memfd_noexec`), and a kernel
    // before 6.3 does not know the flag that says that this one never will be.
    match rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC),
        result => result,
    }
}

/// A memory file as seen by this process: readable, writable, shared with everyone who maps it.
///
/// Unmapped on drop. A forked child inherits it at the same address. Left out of core dumps,
/// because the kernel would fill each hole of the file with memory in order to write it out.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread. A `Mapping` hands out only its
// address, so whoever reads and writes there answers for the order of the accesses.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` has no method that touches the mapped bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of the file `fd`; the mapping outlives the descriptor.
    ///
    /// Only address space is reserved: the system does not count the pages against its memory
    /// until they are written to. See
    /// [`mmap(2)`](https://man7.org/linux/man-pages/man2/mmap.2.html).
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is not so much address space left (or allowed, by `RLIMIT_AS`),
    /// `EINVAL` for a length of zero.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel picks an unused address range, so no existing memory changes.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, fd, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let mapping = Self { base, len };
        // SAFETY: the range was mapped just now, and this advice changes nothing in it.
        let advised =
            unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, Advice::LinuxDontDump) };
        advised?;
        Ok(mapping)
    }

    /// Maps all of the file behind the descriptor with this number.
    ///
    /// # Errors
    ///
    /// `EBADF` when it is not open, `EINVAL` for a file of no bytes; see [`map`](Self::map).
    pub(crate) fn of_number(fd: i32) -> io::Result<Self> {
        if fd < 0 {
            return Err(Errno::BADF.into());
        }
        // SAFETY: the number is not -1. It is borrowed for two system calls, which refuse one that
        // is not open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let len = usize::try_from(file_size(fd)?).map_err(|_| Errno::FBIG)?;
        Self::map(fd, len)
    }

    /// The first byte of the mapping; aligned to a page.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length of the mapping in bytes, as it was asked for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the bytes at `offset`, which others may write meanwhile.
    ///
    /// # Panics
    ///
    /// Panics unless they are all inside.
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) {
        let (head, words, tail) = self.parts(offset, target.len());
        let (first, rest) = target.split_at_mut(head.len());
        let (middle, last) = rest.split_at_mut(size_of_val(words));
        head.iter().zip(first).for_each(|(byte, to)| *to = byte.load(Ordering::Relaxed));
        for (word, to) in words.iter().zip(middle.as_chunks_mut().0) {
            *to = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        tail.iter().zip(last).for_each(|(byte, to)| *to = byte.load(Ordering::Relaxed));
    }

    /// Copies `source` to `offset`, where others may read and write meanwhile.
    ///
    /// # Panics
    ///
    /// Panics unless it all fits inside.
    pub(crate) fn write(&self, offset: usize, source: &[u8]) {
        let (head, words, tail) = self.parts(offset, source.len());
        let (first, rest) = source.split_at(head.len());
        let (middle, last) = rest.split_at(size_of_val(words));
        head.iter().zip(first).for_each(|(byte, from)| byte.store(*from, Ordering::Relaxed));
        for (word, from) in words.iter().zip(middle.as_chunks().0) {
            word.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
        }
        tail.iter().zip(last).for_each(|(byte, from)| byte.store(*from, Ordering::Relaxed));
    }

    /// A range as bytes up to the first word, words, and the bytes behind them.
    fn parts(&self, offset: usize, len: usize) -> (&[AtomicU8], &[AtomicU64], &[AtomicU8]) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} are not inside {} bytes",
            self.len
        );
        // SAFETY: just checked to be inside.
        let place = unsafe { self.base.add(offset) }.cast::<AtomicU8>();
        // SAFETY:
        // - Alive, inside, aligned: checked; bytes need no alignment; the mapping outlives `self`.
        // - Valid, shared: any byte is an `AtomicU8`, and it copes with others at work on it.
        let bytes = unsafe { std::slice::from_raw_parts(place.as_ptr(), len) };
        // SAFETY: eight bytes are an `AtomicU64`, whatever they are, and just as shared.
        unsafe { bytes.align_to::<AtomicU64>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, is unmapped only here, and whoever made
        // references into it had to keep them within the life of the `Mapping`.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "unmapping a range that `mmap` returned failed: {result:?}");
    }
}

/// Gives the memory behind a part of the file back to the system; the bytes read as zeros.
///
/// The size of the file stays. Whole pages are freed; at both ends of a range that does not
/// begin or end with a page, the bytes are zeroed. See
/// [`fallocate(2)`](https://man7.org/linux/man-pages/man2/fallocate.2.html).
///
/// # Errors
///
/// `EINVAL` for a length of zero; `EINTR` when a signal arrived, and a part may be done then.
pub(crate) fn punch_hole(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(fd, flags, offset, len)?)
}

/// Has the system use large pages, if it can, where memory is written for the first time.
///
/// Only whole pages within the range count. See
/// [`madvise(2)`](https://man7.org/linux/man-pages/man2/madvise.2.html).
pub(crate) fn prefer_large_pages(address: usize, len: usize) {
    let page = rustix::param::page_size();
    let start = address.next_multiple_of(page);
    let end = (address + len) / page * page;
    if start >= end {
        return;
    }
    let start = std::ptr::without_provenance_mut(start);
    // SAFETY: this advice changes no byte and takes no memory away, whoever's the range is; one
    // that is not mapped is refused.
    let advised = unsafe { rustix::mm::madvise(start, end - start.addr(), Advice::LinuxHugepage) };
    // It was advice: a kernel that knows no large pages does without.
    let _ = advised;
}

/// The size of the file in bytes.
pub(crate) fn file_size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let size = rustix::fs::fstat(fd)?.st_size;
    u64::try_from(size).map_err(|_| Errno::OVERFLOW.into())
}

/// The bytes of memory (or swap) that the file takes at the moment, for all processes together.
pub(crate) fn resident_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // The kernel counts in units of 512 bytes, whatever the page size is.
    let blocks = rustix::fs::fstat(fd)?.st_blocks;
    u64::try_from(blocks).map(|blocks| blocks * 512).map_err(|_| Errno::OVERFLOW.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::Rlimit;

    use super::*;
    use crate::sys::process::{self, Fork, RawStatus};

    const PAGE: usize = 1 << 16; // A multiple of every page size.

    #[test]
    fn punched_hole_gives_memory_back_and_reads_as_zeros() {
        let fd = memfd("hole", 1 << 40).unwrap();
        let mapping = Mapping::map(fd.as_fd(), 4 * PAGE).unwrap();
        assert_eq!(file_size(fd.as_fd()).unwrap(), 1 << 40);
        assert_eq!(resident_bytes(fd.as_fd()).unwrap(), 0, "an unused file takes memory");
        // SAFETY: inside the mapping, which nobody else knows of.
        unsafe { mapping.base().write_bytes(0xAB, mapping.len()) };
        assert!(resident_bytes(fd.as_fd()).unwrap() >= 4 * PAGE as u64);

        punch_hole(fd.as_fd(), PAGE as u64, 2 * PAGE as u64).unwrap();

        assert_eq!(resident_bytes(fd.as_fd()).unwrap(), 2 * PAGE as u64, "the pages are kept");
        for (page, expected) in [0xAB, 0, 0, 0xAB].into_iter().enumerate() {
            // SAFETY: inside the mapping.
            let place = unsafe { mapping.base().add(page * PAGE + 5) };
            // SAFETY: mapped, and any byte is a `u8`.
            assert_eq!(unsafe { place.read() }, expected, "page {page}");
        }
        assert_eq!(file_size(fd.as_fd()).unwrap(), 1 << 40, "the size changed");
    }

    #[test]
    fn mappings_of_one_file_share_their_bytes() {
        let fd = memfd("shared", PAGE as u64).unwrap();
        let one = Mapping::map(fd.as_fd(), PAGE).unwrap();
        let other = Mapping::map(fd.as_fd(), PAGE).unwrap();
        drop(fd);
        // SAFETY: mapped, and nobody else knows of the mapping.
        unsafe { one.base().write(7) };
        drop(one);
        // SAFETY: mapped, and any byte is a `u8`.
        assert_eq!(unsafe { other.base().read() }, 7);
    }

    #[test]
    fn mapping_is_left_out_of_core_dumps() {
        let fd = memfd("not-dumped", PAGE as u64).unwrap();
        let mapping = Mapping::map(fd.as_fd(), PAGE).unwrap();
        let start = format!("{:x}-", mapping.base().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = maps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = entry.into_iter().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
    }

    #[test]
    fn file_above_the_limit_is_an_error_and_not_a_signal() {
        // SAFETY: the child makes system calls only.
        let pid = match unsafe { process::fork() }.unwrap() {
            Fork::Parent { pid } => pid,
            Fork::Child => {
                let limit = Rlimit { current: Some(4096), maximum: Some(4096) };
                let limited = rustix::process::setrlimit(Resource::Fsize, limit);
                let error = memfd("large", 4097).err().and_then(|error| error.raw_os_error());
                let refused = error == Some(libc::EFBIG) && memfd("small", 4096).is_ok();
                process::exit_now(i32::from(!(limited.is_ok() && refused)));
            }
        };
        let pidfd = process::pidfd_open(pid).unwrap();
        let status = process::wait_pidfd(pidfd.as_fd(), true).unwrap();
        assert_eq!(status, Some(RawStatus::Exited(0)));
    }

    #[test]
    fn empty_mapping_is_refused() {
        let fd = memfd("empty", 0).unwrap();
        assert_eq!(Mapping::map(fd.as_fd(), 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn bytes_are_copied_in_and_out_at_any_alignment() {
        let fd = memfd("copied", PAGE as u64).unwrap();
        let mapping = Mapping::map(fd.as_fd(), PAGE).unwrap();
        let source: Vec<u8> = (1..=40).collect();
        for offset in (0..10).chain([PAGE - 40]) {
            for len in 0..=source.len() {
                mapping.write(offset, &source[..len]);
                let mut copy = vec![0; len];
                mapping.read(offset, &mut copy);
                assert_eq!(copy, source[..len], "{len} bytes at {offset}");
                // Up to here and no further.
                let mut next = [0];
                if offset + len < PAGE {
                    mapping.write(offset + len, &[0xEE]);
                    mapping.write(offset, &source[..len]);
                    mapping.read(offset + len, &mut next);
                    assert_eq!(next, [0xEE], "{len} bytes at {offset}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "are not inside")]
    fn bytes_beyond_the_end_are_not_read() {
        let fd = memfd("beyond", PAGE as u64).unwrap();
        let mapping = Mapping::map(fd.as_fd(), PAGE).unwrap();
        mapping.read(PAGE - 1, &mut [0; 2]);
    }
}
