//! Streams of bytes: pipes, and sockets of the families that messages travel through.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

/// The offset of a stream, which has none.
const HERE: u64 = u64::MAX;

/// Creates two connected Unix sockets, which `exec` closes.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Creates a pipe, the end for reading first; `exec` closes both.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// Reads what is there into `buffer`; blocks while there is nothing. Zero is the end.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

/// Reads what is there behind what `buffer` holds, as far as its capacity goes.
pub(crate) fn read_onto(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    Ok(rustix::io::read(fd, rustix::buffer::spare_capacity(buffer))?)
}

/// Writes from `parts` and returns how much was taken; blocks while nothing is.
pub(crate) fn write(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::writev(fd, parts)?)
}

/// Writes to a socket without blocking and returns how much was taken; `WouldBlock` if nothing was.
/// A peer that is gone is an error, and no signal: programs may have that one end them.
pub(crate) fn send_some(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if let [whole] = parts {
        return Ok(rustix::net::send(socket, whole, flags)?);
    }
    Ok(rustix::net::sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Writes to a pipe without blocking and returns how much was taken; `WouldBlock` if nothing was.
/// Not every system and kind of file can do this.
pub(crate) fn write_some(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(rustix::io::pwritev2(fd, parts, HERE, ReadWriteFlags::NOWAIT)?)
}

/// Reads from a socket without blocking; `WouldBlock` if nothing is there.
pub(crate) fn receive_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?.0)
}

/// Does what [`receive_now`] does, behind what `buffer` holds, as far as its capacity goes.
pub(crate) fn receive_now_onto(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let room = rustix::buffer::spare_capacity(buffer);
    Ok(rustix::net::recv(socket, room, RecvFlags::DONTWAIT)?.0)
}

/// Whether a socket's call was refused because the descriptor is none.
pub(crate) fn is_no_socket(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTSOCK.raw_os_error())
}

/// Whether a call was refused because the descriptor, or the system, has no such way to write.
pub(crate) fn is_no_way(error: &io::Error) -> bool {
    let refusals = [Errno::OPNOTSUPP, Errno::INVAL, Errno::SPIPE, Errno::NOSYS];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether the descriptor is one of a pipe.
pub(crate) fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Reads from a pipe without blocking; `WouldBlock` if nothing is there. Not every system and kind
/// of file can do this.
pub(crate) fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut parts = [IoSliceMut::new(buffer)];
    Ok(rustix::io::preadv2(fd, &mut parts, HERE, ReadWriteFlags::NOWAIT)?)
}

/// Whether reading from the descriptor waits for something to read.
pub(crate) fn blocks(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Says without blocking how much is there to read, at most as much as `buffer` holds; zero is the
/// end. Nothing is taken.
pub(crate) fn look(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.0)
}

/// Writes to a socket without blocking, and without a signal where the peer has closed.
pub(crate) fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Says whether the descriptor may be read from and written to.
pub(crate) fn directions(fd: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    let mode = rustix::fs::fcntl_getfl(fd)? & OFlags::RWMODE;
    Ok((mode != OFlags::WRONLY, mode == OFlags::WRONLY || mode == OFlags::RDWR))
}

/// Lets calls on the descriptor, and on all its copies, block or not.
pub(crate) fn set_blocking(fd: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let wanted = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
    if wanted != flags {
        rustix::fs::fcntl_setfl(fd, wanted)?;
    }
    Ok(())
}

/// Lets calls on a socket block that was made by [`socket_for`] and did not.
pub(crate) fn let_block(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, false)?)
}

/// Where a socket is, or is to be. Names of files and abstract names are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    File(Vec<u8>),
    Abstract(Vec<u8>),
    /// A Unix socket that was never bound.
    Unnamed,
}

impl Place {
    fn from_any(address: SocketAddrAny) -> io::Result<Self> {
        if let Ok(address) = SocketAddr::try_from(address.clone()) {
            return Ok(Self::Tcp(address));
        }
        let address = SocketAddrUnix::try_from(address)?;
        Ok(match (address.path_bytes(), address.abstract_name()) {
            (Some(path), _) => Self::File(path.to_vec()),
            // A client that was never bound is told to have the empty abstract name.
            (_, Some(name)) if !name.is_empty() => Self::Abstract(name.to_vec()),
            _ => Self::Unnamed,
        })
    }

    fn unix(&self) -> io::Result<SocketAddrUnix> {
        Ok(match self {
            Self::File(path) => SocketAddrUnix::new(path.as_slice())?,
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
            Self::Unnamed | Self::Tcp(_) => SocketAddrUnix::new_unnamed(),
        })
    }
}

/// Creates a socket that could be bound to or connected with `place`; `exec` closes it.
pub(crate) fn socket_for(place: &Place, blocking: bool) -> io::Result<OwnedFd> {
    let family = match place {
        Place::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Place::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
        _ => AddressFamily::UNIX,
    };
    let flags = if blocking { SocketFlags::empty() } else { SocketFlags::NONBLOCK };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)?)
}

/// Binds a socket and lets it be connected to; `backlog` clients may wait to be accepted.
///
/// A TCP port that a server has just let go of can be bound at once.
pub(crate) fn bind_and_listen(
    socket: BorrowedFd<'_>,
    place: &Place,
    backlog: i32,
) -> io::Result<()> {
    match place {
        Place::Tcp(address) => {
            sockopt::set_socket_reuseaddr(socket, true)?;
            rustix::net::bind(socket, address)?;
        }
        unix => rustix::net::bind(socket, &unix.unix()?)?,
    }
    Ok(rustix::net::listen(socket, backlog)?)
}

/// Where a bound socket is.
pub(crate) fn local_place(socket: BorrowedFd<'_>) -> io::Result<Place> {
    Place::from_any(rustix::net::getsockname(socket)?)
}

/// Whether the other end of a pipe or connected socket is on this machine for certain.
pub(crate) fn is_local(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match sockopt::socket_domain(fd) {
        Ok(family) => Ok(family == AddressFamily::UNIX),
        Err(Errno::NOTSOCK) => Ok(true),
        Err(other) => Err(other.into()),
    }
}

/// Takes a client that waits at a listening socket, and says where it is.
pub(crate) fn accept(socket: BorrowedFd<'_>) -> io::Result<(OwnedFd, Place)> {
    let (client, address) = rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC)?;
    let place = address.map_or(Ok(Place::Unnamed), Place::from_any)?;
    Ok((client, place))
}

/// Connects a socket; `EINPROGRESS` for a TCP socket that does not block.
pub(crate) fn connect(socket: BorrowedFd<'_>, place: &Place) -> io::Result<()> {
    match place {
        Place::Tcp(address) => rustix::net::connect(socket, address)?,
        unix => rustix::net::connect(socket, &unix.unix()?)?,
    }
    Ok(())
}

/// Whether a connect goes on in the background.
pub(crate) fn is_underway(error: &io::Error) -> bool {
    let underway = [Errno::INPROGRESS, Errno::ALREADY].map(|errno| Some(errno.raw_os_error()));
    underway.contains(&error.raw_os_error())
}

/// What came of a connect that went on in the background.
pub(crate) fn connect_result(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::socket_error(socket)??)
}

/// Bounds how long a connect to a Unix socket waits for room in the backlog; `None` is no bound.
pub(crate) fn set_connect_timeout(
    socket: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    Ok(sockopt::set_socket_timeout(socket, Timeout::Send, timeout)?)
}

/// Lets a TCP socket send small messages at once.
pub(crate) fn send_without_delay(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(socket, true)?)
}

/// Fills `buffer` with bytes that nobody can foresee.
pub(crate) fn random_bytes(buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        done +=
            rustix::rand::getrandom(&mut buffer[done..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
