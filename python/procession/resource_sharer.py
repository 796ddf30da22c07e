"""Descriptors for processes that ask for them later.

A message cannot hold a descriptor. So the process that sends one keeps a copy, and the message
says where to fetch it. A thread of the engine answers those who ask: it is started with the first
descriptor, runs no Python code, and listens at an address that is no file. All is on the wire as
`multiprocessing` has it.
"""

from __future__ import annotations

import copyreg
import os
from importlib import import_module

from procession import _stdlib
from procession._procession import dumps, is_packing, redeem, share, stop_sharing

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DupFd", "stop"]

_PATIENCE = 20.0  # seconds that the process which has the descriptor may take to answer


def _authkey() -> bytes:
    return bytes(_stdlib.process.current_process().authkey)


class DupFd:
    """A copy of a descriptor for another process, which can be pickled at any time.

    The copy is kept until it is fetched, or until `stop` or the end of this process.

    Args:
        fd: The descriptor; it stays open.
    """

    # Where every reader of a pickle finds one, be it this package's or the original's.
    __module__ = "multiprocessing.resource_sharer"

    def __init__(self, fd: int) -> None:
        self._id: tuple[Any, int] = share(os.dup(fd), _authkey())

    def detach(self) -> int:
        """Fetch the descriptor, which can be done once, and return its number here.

        Blocks until the process that shared it has answered.

        Raises:
            ConnectionRefusedError: That process has died, or has stopped sharing.
            EOFError: The descriptor was fetched before.
            AuthenticationError: That process has another key.
            TimeoutError: That process did not answer.
        """
        address, key = self._id
        return redeem(address, _authkey(), dumps((key, os.getpid())), _PATIENCE)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it in another process.

        In one of this tree that has this package; elsewhere by the name of the original's class.
        """
        if is_packing():
            return _shared, self._id
        named = import_module(self.__module__).DupFd
        return copyreg._reconstructor, (named, object, None), {"_id": self._id}  # type: ignore[attr-defined]


def _shared(address: Any, number: int) -> DupFd:
    """Return the wrapper of a descriptor that another process keeps."""
    wrapper = DupFd.__new__(DupFd)
    wrapper._id = (address, number)
    return wrapper


def stop(timeout: float | None = None) -> None:
    """Close what nobody has fetched, and end the thread; the next `DupFd` starts it again.

    Args:
        timeout: How long to wait for the end of the thread, in seconds; None for as long as it
            takes, which is no longer than what it is just doing.
    """
    if not stop_sharing(timeout):
        _stdlib.load("util").sub_warning("the thread that shares descriptors did not stop in time")
