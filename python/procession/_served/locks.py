"""Locks and semaphores of a manager's server: they belong to threads of clients."""

from __future__ import annotations

from procession._served import calling
from procession._served.values import lock_timeout
from procession._served.waiting import Waiting

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["BoundedSemaphore", "Lock", "RLock", "Semaphore"]


def _note_release(what: Any) -> None:
    """Tell the log of a lock that was let go of because its client was killed."""
    from procession import _stdlib

    _stdlib.load("util").sub_warning(
        "%s %#x was released because the client that had it has died; what it protects may be "
        "half changed",
        type(what).__name__,
        id(what),
    )


class _Acquirer(Waiting):
    """Something that a `with` statement takes."""

    acquire: Callable[..., bool]
    release: Callable[..., None]

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()


class _Owned(_Acquirer):
    """A lock that a thread of a client has, or nobody."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None

    def locked(self) -> bool:
        """Say whether somebody has the lock."""
        return self._owner is not None


class Lock(_Owned):
    """`threading.Lock` for clients."""

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Take the lock, and say whether it was taken."""
        timeout = lock_timeout(blocking, timeout)
        with self._changed:
            taken = self._wait_until(lambda: self._owner is None, timeout)
            if taken:
                self._owner = calling.owner()
            return taken

    def release(self) -> None:
        """Let go of the lock, whoever has it."""
        with self._changed:
            if self._owner is None:
                raise RuntimeError("release unlocked lock")
            self._owner = None
            self._changed.notify()

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of what a client has that was killed; others may have left it to somebody else."""
        with self._changed:
            if killed and self._owner is not None and self._owner[0] == client:
                self._owner = None
                _note_release(self)
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} {type(self).__name__} object at {id(self):#x}>"


class RLock(_Owned):
    """`threading.RLock` for clients: a thread of a client can take it several times."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Take the lock once more, and say whether it was taken."""
        timeout = lock_timeout(blocking, timeout)
        me = calling.owner()
        with self._changed:
            if self._owner == me:
                self._count += 1
                return True
            taken = self._wait_until(lambda: self._owner is None, timeout)
            if taken:
                self._owner, self._count = me, 1
            return taken

    def release(self) -> None:
        """Let go of the lock once."""
        with self._changed:
            if self._owner != calling.owner():
                raise RuntimeError("cannot release un-acquired lock")
            self._count -= 1
            if not self._count:
                self._owner = None
                self._changed.notify()

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of what a client has that is gone: nobody else can."""
        with self._changed:
            if self._owner is not None and self._owner[0] == client:
                self._owner, self._count = None, 0
                if killed:
                    _note_release(self)
            self._changed.notify_all()

    def _is_owned(self) -> bool:
        return bool(self._owner == calling.owner())

    def _release_save(self) -> int:
        """Let go of the lock wholly, and return how often it was taken."""
        with self._changed:
            count, self._owner, self._count = self._count, None, 0
            self._changed.notify()
            return count

    def _acquire_restore(self, count: int) -> None:
        self.acquire()
        self._count = count

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        name = type(self).__name__
        return f"<{state} {name} object owner={self._owner} count={self._count} at {id(self):#x}>"


class Semaphore(_Acquirer):
    """`threading.Semaphore` for clients. It has no owner, so a death gives no permit back."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        super().__init__()
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit, and say whether one was taken."""
        if not blocking:
            if timeout is not None:
                raise ValueError("can't specify timeout for non-blocking acquire")
            timeout = 0.0
        with self._changed:
            taken = self._wait_until(lambda: self._value > 0, timeout)
            if taken:
                self._value -= 1
            return taken

    def release(self, n: int = 1) -> None:
        """Give back `n` permits."""
        if n < 1:
            raise ValueError("n must be one or more")
        with self._changed:
            self._check_release(n)
            self._value += n
            self._changed.notify(n)

    def locked(self) -> bool:
        """Say whether there is no permit."""
        return self._value == 0

    def _check_release(self, n: int) -> None:
        """Refuse nothing."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x}: value={self._value}>"


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore` for clients."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._initial_value = value

    def _check_release(self, n: int) -> None:
        if self._value + n > self._initial_value:
            raise ValueError("Semaphore released too many times")
