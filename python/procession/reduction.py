"""Pickling for other processes, and descriptors on their way there.

`ForkingPickler` and the reducers that are registered with it are the standard library's own, so
that what is registered with one package is known to the other.
"""

from __future__ import annotations

import array
import os
import socket
import sys
from types import ModuleType

from procession import _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    ForkingPickler: Any

__all__ = [
    "DupFd",
    "ForkingPickler",
    "dump",
    "recv_handle",
    "recvfds",
    "register",
    "send_handle",
    "sendfds",
]

_original: Any = _stdlib.load("reduction")
_context: Any = _stdlib.load("context")

HAVE_SEND_HANDLE = True
# Whether a descriptor is acknowledged with a byte on the connection that it came through.
ACKNOWLEDGE = sys.version_info >= (3, 14)

register = _original.register
dump = _original.dump
_reduce_method = _original._reduce_method
_reduce_method_descriptor = _original._reduce_method_descriptor
_reduce_partial = _original._reduce_partial
_rebuild_partial = _original._rebuild_partial
_rebuild_socket = _original._rebuild_socket


class _Reduction(ModuleType):
    """This module, with the original's pickler, whichever a program has put there."""

    @property
    def ForkingPickler(self) -> Any:
        """The pickler for what goes to other processes."""
        return _original.ForkingPickler

    @ForkingPickler.setter
    def ForkingPickler(self, pickler: Any) -> None:
        _original.ForkingPickler = pickler


sys.modules[__name__].__class__ = _Reduction


def sendfds(sock: socket.socket, fds: Iterable[int]) -> None:
    """Send descriptors through a Unix socket.

    Raises:
        RuntimeError: The other end did not acknowledge them (only where `ACKNOWLEDGE` is true).
    """
    numbers = array.array("i", fds)
    socket.send_fds(sock, [bytes([len(numbers) % 256])], numbers)
    if ACKNOWLEDGE and sock.recv(1) != b"A":
        raise RuntimeError("did not receive acknowledgement of fd")


def recvfds(sock: socket.socket, size: int) -> list[int]:
    """Receive descriptors through a Unix socket; they are not inherited.

    Args:
        sock: The socket.
        size: How many to expect. If more come they are all closed.

    Raises:
        EOFError: The other end is closed.
        RuntimeError: Something else came.
    """
    message, ancillary, flags, _ = sock.recvmsg(
        1, socket.CMSG_SPACE(size * _INT), socket.MSG_CMSG_CLOEXEC
    )
    if not message and not ancillary:
        raise EOFError("the other end is closed")
    received = _descriptors_in(ancillary)
    try:
        if ACKNOWLEDGE:
            sock.send(b"A", socket.MSG_NOSIGNAL)
        if len(ancillary) != 1:
            raise RuntimeError(f"received {len(ancillary)} items of ancdata")
        if flags & socket.MSG_CTRUNC or len(received) > size:
            raise RuntimeError(f"more than {size} descriptors came, or than can be open here")
        if not received or len(received) % 256 != message[0]:
            raise RuntimeError("Invalid data received")
    except BaseException:
        for descriptor in received:
            os.close(descriptor)
        raise
    return list(received)


_INT = array.array("i").itemsize


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % _INT])
    return found


def _socket_of(conn: Any) -> socket.socket:
    return socket.fromfd(conn.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)


def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:  # noqa: ARG001
    """Send a descriptor through a connection, between messages."""
    with _socket_of(conn) as sock:
        sendfds(sock, [handle])


def recv_handle(conn: Any) -> int:
    """Receive a descriptor that was sent through a connection, between messages.

    Raises:
        EOFError: The other end is closed.
        RuntimeError: Something else came, or several descriptors, which are closed.
    """
    with _socket_of(conn) as sock:
        return recvfds(sock, 1)[0]


def DupFd(fd: int) -> Any:
    """Return what can be pickled for a descriptor; it has `detach`, for who unpickles it."""
    popen = _context.get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    from procession.resource_sharer import DupFd as Shared

    return Shared(fd)


def _reduce_socket(s: socket.socket) -> tuple[Any, ...]:
    return _rebuild_socket, (DupFd(s.fileno()), s.family, s.type, s.proto)


register(socket.socket, _reduce_socket)


class AbstractReducer(_original.AbstractReducer):  # type: ignore[misc]
    """What a program derives its own `reducer` of a context from."""

    send_handle = send_handle
    recv_handle = recv_handle
    sendfds = sendfds
    recvfds = recvfds
    DupFd = DupFd
    _reduce_socket = _reduce_socket
    _rebuild_socket = _rebuild_socket

    def __init__(self, *args: Any) -> None:
        """Register the reducers that every reducer has."""
        super().__init__(*args)
        register(socket.socket, _reduce_socket)
