//! Descriptors: those that carry a signal or other descriptors, and moving them about.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
#[cfg(feature = "tokio")]
use tokio::io::{Interest, unix::AsyncFd};

/// Creates a descriptor that is readable after [`eventfd_signal`] until [`eventfd_drain`].
///
/// Closed by `exec`, never blocks. See
/// [`eventfd(2)`](https://man7.org/linux/man-pages/man2/eventfd.2.html).
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes an eventfd readable. Does nothing to one that has been signalled too often to count.
pub(crate) fn eventfd_signal(fd: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::io::write(fd, &1_u64.to_ne_bytes()) {
        // The counter is full, so the descriptor is readable already.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Makes an eventfd unreadable, and says whether it was readable.
pub(crate) fn eventfd_drain(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match rustix::io::read(fd, &mut [0_u8; 8]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// Blocks until a read from one of `fds` would not block, or `deadline`; says for each which it is.
///
/// The end of a stream and a pending error count as readable, as does the end of the process
/// behind a pidfd. All are `false` after the deadline. `None` waits for ever. See
/// [`poll(2)`](https://man7.org/linux/man-pages/man2/poll.2.html).
///
/// # Errors
///
/// `EINTR` when a signal handler ran in this thread; `EBADF` when a descriptor is not open.
pub(crate) fn poll_readable(
    fds: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = deadline.map(time_left);
    rustix::event::poll(&mut polled, timeout.as_ref())?;
    if polled.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) {
        return Err(Errno::BADF.into());
    }
    // Only what was asked for, hang-ups and errors are reported, and a read returns on each.
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Does what [`poll_readable`] does, for descriptors by their numbers.
pub(crate) fn poll_readable_raw(fds: &[RawFd], deadline: Option<Instant>) -> io::Result<Vec<bool>> {
    if fds.iter().any(|fd| *fd < 0) {
        // The kernel would pass over it without a word.
        return Err(Errno::BADF.into());
    }
    let fds: Vec<_> = fds
        .iter()
        // SAFETY: none is -1. They need not be open for what is done with them: they are named to
        // the kernel, which only looks whether each is readable, and says which is not open.
        .map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) })
        .collect();
    poll_readable(&fds, deadline)
}

/// Blocks until `fd` takes bytes, is broken, or `deadline`; says whether it is either.
pub(crate) fn poll_writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<bool> {
    let mut polled = [PollFd::new(&fd, PollFlags::OUT)];
    let timeout = deadline.map(time_left);
    Ok(rustix::event::poll(&mut polled, timeout.as_ref())? > 0)
}

/// Whether the other side of a connection has closed it or died. Does not block.
///
/// What it sent before may still be there to be read. An error counts as no, so that the next read
/// or write tells of it.
pub(crate) fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Creates an epoll instance, a descriptor that is readable when one of those in it is.
#[cfg(feature = "tokio")]
pub(crate) fn epoll() -> io::Result<OwnedFd> {
    Ok(rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?)
}

/// Adds a descriptor, to be looked at for bytes to read, unless it is in it already.
#[cfg(feature = "tokio")]
pub(crate) fn epoll_add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::event::epoll::{EventData, EventFlags, add};
    match add(epoll, fd, EventData::new_u64(0), EventFlags::IN) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Has the reactor of tokio watch a descriptor.
///
/// # Errors
///
/// Those of `epoll_ctl(2)`.
///
/// # Panics
///
/// Panics outside of a runtime with I/O enabled.
#[cfg(feature = "tokio")]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and has the same number all the time; nobody
    // gets a mutable reference to exchange it by.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

pub(crate) fn time_left(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

/// Creates two connected Unix sockets that carry whole messages and are closed by `exec`.
///
/// See [`unix(7)`](https://man7.org/linux/man-pages/man7/unix.7.html), `SOCK_SEQPACKET`.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Ends the traffic through a socket for all who have a copy of it.
///
/// The other side sees the end of the stream. An error means that there was no traffic any more.
pub(crate) fn shut_down(socket: BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Lets the other side of a socket read the end of the stream.
#[cfg(feature = "tls")]
pub(crate) fn shut_down_writing(socket: BorrowedFd<'_>) {
    // An error means that there was no traffic any more.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}

/// Lets what the other side of a socket sends fail.
#[cfg(feature = "tls")]
pub(crate) fn shut_down_reading(socket: BorrowedFd<'_>) {
    // An error means that there was no traffic any more.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
}

/// Makes another descriptor for the same thing with a number above those of standard input,
/// output and error; `exec` closes it.
pub(crate) fn copy_above_standard(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, libc::STDERR_FILENO + 1)?)
}

/// Opens `/dev/null` for reading and writing; `exec` closes it.
pub(crate) fn open_null() -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(c"/dev/null", flags, rustix::fs::Mode::empty())?)
}

/// Puts a copy of `fd` into the place of standard input (0), output (1) or error (2), whatever is
/// there now. `exec` does not close it.
///
/// # Panics
///
/// Panics if `place` is another number: that could belong to somebody who relies on it.
pub(crate) fn copy_onto_standard(fd: BorrowedFd<'_>, place: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&place), "{place} is none of the standard descriptors");
    // SAFETY: the three places are shared by all of the program by convention, so that nobody owns
    // what is in them.
    unsafe { copy_onto(fd, place, FdFlags::empty()) }
}

/// Calls `work` while what is written to `place` goes to `/dev/null`.
///
/// No other thread may use the descriptor meanwhile: what that writes would be lost too.
///
/// # Errors
///
/// `work` is not called if nothing is open there, or there is no room for two descriptors more.
pub(crate) fn with_null_at<T>(place: RawFd, work: impl FnOnce() -> T) -> io::Result<T> {
    if place < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: it is used for as long as this function runs, which does not close it; whether it is
    // open at all the first call finds out.
    let there = unsafe { BorrowedFd::borrow_raw(place) };
    let flags = rustix::io::fcntl_getfd(there)?;
    let (kept, null) = (copy_above_standard(there)?, open_null()?);
    // SAFETY: whoever owns the descriptor finds it as it was when this function returns.
    unsafe { copy_onto(null.as_fd(), place, flags)? };
    let result = work();
    // SAFETY: this puts back what was there.
    unsafe { copy_onto(kept.as_fd(), place, flags)? };
    Ok(result)
}

/// Puts a copy of `fd`, with these flags, into the place of another descriptor, which is closed.
///
/// # Safety
///
/// What is at `place` belongs to nobody, or to somebody who is content with the copy.
unsafe fn copy_onto(fd: BorrowedFd<'_>, place: RawFd, flags: FdFlags) -> io::Result<()> {
    let close = if flags.contains(FdFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
    // SAFETY: both are numbers to the kernel; that what is at `place` may go is the caller's promise.
    if unsafe { libc::dup3(fd.as_raw_fd(), place, close) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends `bytes` and copies of `fds` through a Unix socket; returns how many bytes were taken.
///
/// The descriptors go with the first byte, all of them or none; on a stream at least one byte
/// is needed to carry them. A closed peer gives `EPIPE` and no signal. See
/// [`unix(7)`](https://man7.org/linux/man-pages/man7/unix.7.html), `SCM_RIGHTS`.
///
/// # Errors
///
/// `EINVAL` for more descriptors than one message can carry (253).
pub(crate) fn send_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = control_space(fds.len());
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL.into());
    }
    let bytes = [IoSlice::new(bytes)];
    Ok(rustix::net::sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives bytes and at most `max` descriptors from a Unix socket.
///
/// Returns how many bytes are in `buffer` now, zero at the end of the stream, and the
/// descriptors that came with them, which `exec` closes. See
/// [`unix(7)`](https://man7.org/linux/man-pages/man7/unix.7.html), `SCM_RIGHTS`.
///
/// # Errors
///
/// `EMSGSIZE` when more than `max` descriptors came, or more than this process may have open.
/// The bytes are lost then, and the descriptors are closed.
pub(crate) fn recv_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = control_space(max);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [IoSliceMut::new(buffer)];
    let received =
        rustix::net::recvmsg(socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    // The kernel rounds the room up, so one more than asked for may have come through.
    if fds.len() > max || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE.into());
    }
    Ok((received.bytes, fds))
}

fn control_space(fds: usize) -> Vec<MaybeUninit<u8>> {
    let len = if fds == 0 { 0 } else { rustix::cmsg_space!(ScmRights(fds)) };
    vec![MaybeUninit::uninit(); len]
}

/// Takes ownership of an inherited descriptor and keeps it from further children.
///
/// # Errors
///
/// `EBADF` when no such descriptor is open.
///
/// # Safety
///
/// Nobody else may own the descriptor.
pub(crate) unsafe fn adopt(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow ends with this call; that a number which is not open is only looked at,
    // and refused by the kernel, is what this is for.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    rustix::io::fcntl_setfd(borrowed, flags | rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as was just seen, and the caller promises that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Does what [`adopt`] does, for a descriptor whose number the program itself has handed over.
///
/// # Errors
///
/// `EBADF` when no such descriptor is open, or the number is negative.
pub(crate) fn adopt_given(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: it is not -1. That nobody else owns it is what the program says by handing it over; in
    // Python numbers are all there is. Should that be wrong, the program meets a descriptor that is
    // closed, or another one under the same number, as after a `close` too many. No memory depends
    // on a descriptor: what the arena lies in stays mapped without one.
    unsafe { adopt(raw) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_written_meanwhile_is_thrown_away() {
        let (mut here, mut there) = io::pipe().unwrap();
        there.write_all(b"before").unwrap();
        let flags = rustix::io::fcntl_getfd(&there).unwrap();
        let written = with_null_at(there.as_raw_fd(), || there.write(b"meanwhile").unwrap());
        assert_eq!(written.unwrap(), 9);
        assert_eq!(rustix::io::fcntl_getfd(&there).unwrap(), flags);
        there.write_all(b", after").unwrap();
        drop(there);
        let mut arrived = String::new();
        here.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, "before, after");
    }

    #[test]
    fn nothing_is_thrown_away_where_nothing_is_open() {
        let error = with_null_at(-1, || panic!("called")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn eventfd_is_readable_between_signal_and_drain() {
        let event = eventfd().unwrap();
        let readable = || poll_readable(&[event.as_fd()], Some(Instant::now())).unwrap()[0];
        assert!(!readable());
        assert!(!eventfd_drain(event.as_fd()).unwrap());
        eventfd_signal(event.as_fd()).unwrap();
        eventfd_signal(event.as_fd()).unwrap();
        assert!(readable());
        assert!(eventfd_drain(event.as_fd()).unwrap());
        assert!(!readable(), "one drain takes all signals");
    }

    #[test]
    fn full_eventfd_can_be_signalled() {
        let event = eventfd().unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        eventfd_signal(event.as_fd()).unwrap();
        assert!(eventfd_drain(event.as_fd()).unwrap());
    }

    #[test]
    fn poll_tells_which_is_readable() {
        let (quiet, signalled) = (eventfd().unwrap(), eventfd().unwrap());
        let (closed, peer) = UnixStream::pair().unwrap();
        eventfd_signal(signalled.as_fd()).unwrap();
        drop(peer);
        let fds = [quiet.as_fd(), signalled.as_fd(), closed.as_fd()];
        assert_eq!(poll_readable(&fds, None).unwrap(), [false, true, true]);
    }

    #[test]
    fn poll_does_not_return_before_its_deadline() {
        let event = eventfd().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        assert_eq!(poll_readable(&[event.as_fd()], Some(deadline)).unwrap(), [false]);
        assert!(Instant::now() >= deadline);
        assert_eq!(poll_readable(&[], Some(deadline)).unwrap(), []);
    }

    #[test]
    fn received_descriptor_is_another_one_for_the_same_thing() {
        let (here, there) = UnixStream::pair().unwrap();
        let event = eventfd().unwrap();
        assert_eq!(send_fds(here.as_fd(), b"take this", &[event.as_fd()]).unwrap(), 9);

        let mut buffer = [0; 16];
        let (len, fds) = recv_fds(there.as_fd(), &mut buffer, 4).unwrap();

        assert_eq!((&buffer[..len], fds.len()), (&b"take this"[..], 1));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(FdFlags::CLOEXEC));
        eventfd_signal(fds[0].as_fd()).unwrap();
        assert!(eventfd_drain(event.as_fd()).unwrap());
    }

    #[test]
    fn bytes_travel_without_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        send_fds(here.as_fd(), b"plain", &[]).unwrap();
        let (len, fds) = recv_fds(there.as_fd(), &mut [0; 16], 0).unwrap();
        assert_eq!((len, fds.len()), (5, 0));
        drop(here);
        let (len, fds) = recv_fds(there.as_fd(), &mut [0; 16], 0).unwrap();
        assert_eq!((len, fds.len()), (0, 0), "not the end of the stream");
    }

    #[test]
    fn more_descriptors_than_wanted_are_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        for (sent, max) in [(1, 0), (2, 1), (4, 1), (9, 8)] {
            send_fds(here.as_fd(), b"!", &vec![here.as_fd(); sent]).unwrap();
            let error = recv_fds(there.as_fd(), &mut [0; 1], max).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
        }
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_allows_and_no_more() {
        let (here, there) = UnixStream::pair().unwrap();
        send_fds(here.as_fd(), b"!", &vec![here.as_fd(); 253]).unwrap();
        assert_eq!(recv_fds(there.as_fd(), &mut [0; 1], 253).unwrap().1.len(), 253);
        let error = send_fds(here.as_fd(), b"!", &vec![here.as_fd(); 254]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    }

    #[test]
    fn messages_keep_their_bounds_and_end_with_a_shutdown() {
        let (here, there) = message_pair().unwrap();
        send_fds(here.as_fd(), b"one", &[]).unwrap();
        send_fds(here.as_fd(), b"three", &[]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(recv_fds(there.as_fd(), &mut buffer, 0).unwrap().0, 3);
        assert_eq!(recv_fds(there.as_fd(), &mut buffer, 0).unwrap().0, 5);
        let _copy = here.try_clone().unwrap();
        shut_down(here.as_fd());
        assert_eq!(recv_fds(there.as_fd(), &mut buffer, 0).unwrap().0, 0);
    }

    #[test]
    fn copy_above_the_standard_descriptors_is_closed_by_exec() {
        let copy = copy_above_standard(std::io::stdin().as_fd()).unwrap();
        assert!(copy.as_raw_fd() > 2);
        assert!(rustix::io::fcntl_getfd(&copy).unwrap().contains(FdFlags::CLOEXEC));
        assert!(rustix::io::fcntl_getfd(open_null().unwrap()).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn closed_peer_is_an_error_and_not_a_signal() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        let error = send_fds(here.as_fd(), b"!", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
