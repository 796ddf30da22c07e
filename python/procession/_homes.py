"""What the processes of a tree know of a manager that one of them has started.

It is in shared memory, so that objects which live there serve without the server, and so that
nobody waits for ever for a manager that has ended.
"""

from __future__ import annotations

import os
import time
import weakref
from queue import Empty

from procession import _links
from procession._procession import ArenaList, Event, Parcel, Queue, loads

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Herald", "Home", "ManagerEndedError", "arrived", "pickled_within_tree"]

# Seconds after which one who waits looks for the first time whether the manager is still there;
# then after twice as many, and so on up to the longest.
_FIRST_LOOK, _LONGEST = 0.1, 2.0
_FEW_BARRIERS = 64


class ManagerEndedError(EOFError, ConnectionResetError):
    """The manager was shut down, or has ended with the process that had started it.

    It is both kinds of error because programs of the original see one or the other.
    """


class Home:
    """A manager as the objects see it that live in shared memory.

    Args:
        address: Where the server listens; None if that is not known yet.
        serializer: How its messages become bytes.
    """

    __slots__ = (
        "__weakref__",
        "_barriers",
        "_ended",
        "_many_barriers",
        "_ready",
        "_shared",
        "address",
        "has_ended",
        "serializer",
        "server_pid",
    )

    def __init__(self, address: Any, serializer: str) -> None:
        ready, ended = Event(ctx=None), Event(ctx=None)
        barriers: Queue[bytes] = Queue(ctx=None)
        state = (serializer, ready, ended, barriers, address, None)
        # All of it is in one object, so that proxies, which carry it along, are pickled quickly.
        shared = ArenaList(state)
        self._settle(shared, *state)
        _homes[shared.handle_id] = self

    def _settle(
        self,
        shared: ArenaList[Any],
        serializer: str,
        ready: Event,
        ended: Event,
        barriers: Queue[bytes],
        address: Any,
        server_pid: int | None,
    ) -> None:
        self._shared = shared
        self.serializer = serializer
        # Set once the server answers.
        self._ready = ready
        # Set once the manager has ended.
        self._ended = ended
        # Who waits at a barrier cannot look around, so that those have to be known.
        self._barriers = barriers
        self.address = address
        self.server_pid = server_pid
        # From how many on it is looked which of them there still are.
        self._many_barriers = _FEW_BARRIERS
        self.has_ended = ended.is_set

    def note_server(self, address: Any, pid: int) -> None:
        """Tell those who learn of the manager from now on where the server listens, and its pid."""
        self.address, self.server_pid = address, pid
        self._shared[-2:] = [address, pid]

    def travel(self) -> int:
        """Return the number for `arrived`, in what is just being pickled for this tree."""
        number: int = self._shared.__reduce__()[1][0]
        return number

    def __reduce__(self) -> Any:
        return arrived, (self.travel(),)

    def check(self) -> None:
        """Raise an error if the manager has ended, or whoever this thread works for is gone."""
        if self._ended.is_set():
            raise ManagerEndedError(
                f"the manager at {self.address!r} was shut down, or has ended with the process "
                "that had started it; nothing more can be done with its objects"
            )
        server = _links.server_here()
        if server is not None:
            server._check_caller()

    def pauses(self, timeout: float | None) -> Iterator[float]:
        """Yield how long to wait at a time, in seconds, until `timeout` is over.

        Between two of them it is looked whether there is any use in waiting.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while deadline is None:
            yield pause
            self.check()
            pause = min(2 * pause, _LONGEST)
        left = max(timeout or 0.0, 0.0)
        while True:
            yield min(pause, left)
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            pause = min(2 * pause, _LONGEST)

    def is_ready(self) -> bool:
        """Say whether the server answers, or did once."""
        return self._ready.is_set()

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            EOFError: It died before it did, or the manager was shut down.
        """
        if self._ready.is_set():
            return
        for seconds in self.pauses(None):
            if self._ready.wait(seconds):
                return
            if self.server_pid is not None and _is_dead(self.server_pid):
                raise EOFError(
                    f"the manager's server, process {self.server_pid}, died before it answered "
                    "anybody; what it wrote to its standard error may say why; start another one"
                )

    def link(self, authkey: bytes, connect: Any) -> Any:
        """Return the way from this process to the server."""
        server = _links.server_here()
        if server is not None and server.address == self.address:
            return _links.Local(server)
        self.wait_until_ready()
        return _links.link_to(self.address, authkey, self.serializer, connect)

    def announce(self) -> None:
        """Say that the server answers from now on."""
        self._ready.set()

    def note_barrier(self, barrier: Any) -> None:
        """See to it that those who wait at a barrier are sent away when the manager ends."""
        pickled, _kept = pickled_within_tree(barrier)
        self._barriers.put(pickled)
        if self._barriers.qsize() >= self._many_barriers:
            self._forget_barriers()
        if self._ended.is_set():
            self.end()

    def _forget_barriers(self) -> None:
        """Forget the barriers that nobody has any more."""
        for _ in range(self._barriers.qsize()):
            try:
                pickled = self._barriers.get_nowait()
            except Empty:
                break
            if _read_barrier(pickled) is not None:
                self._barriers.put(pickled)
        self._many_barriers = 2 * self._barriers.qsize() + _FEW_BARRIERS

    def end(self) -> None:
        """Have all calls fail from now on, and those that wait end."""
        self._ended.set()
        while True:
            try:
                pickled = self._barriers.get_nowait()
            except Empty:
                return
            barrier = _read_barrier(pickled)
            if barrier is not None:
                barrier.abort()


def _read_barrier(pickled: bytes) -> Any:
    """Return a barrier; None if nobody has it any more."""
    try:
        return loads(pickled)
    except Exception:
        return None


# By the numbers that they travel by.
_homes: weakref.WeakValueDictionary[int, Home] = weakref.WeakValueDictionary()


def arrived(number: int) -> Home:
    """Return what a pickle names: the same object each time."""
    known = _homes.get(number)
    if known is not None:
        return known
    shared: ArenaList[Any] = ArenaList._open(number)
    made = Home.__new__(Home)
    made._settle(shared, *shared.copy())
    return _homes.setdefault(number, made)


def _is_dead(pid: int) -> bool:
    from procession import connection

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(connection.wait([descriptor], 0))
    finally:
        os.close(descriptor)


def pickled_within_tree(thing: Any) -> tuple[bytes, Any]:
    """Return a pickle that any process of the tree can read, for as long as the second is kept."""
    from procession.context import reduction

    made: list[bytes] = []

    def dump() -> bytes:
        made.append(bytes(reduction.ForkingPickler.dumps(thing)))
        return made[0]

    parcel = Parcel(dump)
    return made[0], parcel


class Herald:
    """Tells those who have started a server that it answers, and where.

    Args:
        home: What all processes of the tree know of it.
        writer: A connection to somebody who waits for the address, if anybody does.
    """

    def __init__(self, home: Home, writer: Any = None) -> None:
        self.home = home
        self._writer = writer

    def send(self, address: Any) -> None:
        """Say where the server listens."""
        self.home.note_server(address, os.getpid())
        self.home.announce()
        if self._writer is not None:
            self._writer.send(address)

    def close(self) -> None:
        """Say nothing more."""
        if self._writer is not None:
            self._writer.close()
