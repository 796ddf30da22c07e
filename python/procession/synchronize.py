"""Locks and their kin between processes.

Locks and semaphores are native classes; what is called all the time of the others is inherited from
such. Here is what is needed seldom.
"""

from __future__ import annotations

import threading
import time

from procession import _procession, _stdlib
from procession._procession import BoundedSemaphore, Lock, RLock, Semaphore, SemLock

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "RECURSIVE_MUTEX",
    "SEMAPHORE",
    "SEM_VALUE_MAX",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "SemLock",
    "Semaphore",
]

RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX: int = SemLock.SEM_VALUE_MAX


def _class_of(ours: type[Any]) -> type[Any]:
    """Return the class that an object of the class `ours` calls its own.

    It is the original's, if that was ever imported, so that `isinstance` with that class holds;
    inheriting from it would mean to import it, which takes longer than starting a process. A
    subclass that a program has made is what it is.
    """
    original = _stdlib.loaded("synchronize") if ours.__module__ == __name__ else None
    return ours if original is None else getattr(original, ours.__name__)


def _make(cls: Any) -> Any:
    """Return an object for `__setstate__`."""
    return cls.__new__(cls)


def _owner(lock: SemLock) -> tuple[str, object]:
    """Name whoever holds a lock, and say how often it was taken."""
    if lock._is_mine():
        name = _stdlib.process.current_process().name
        thread = threading.current_thread().name
        return (name if thread == "MainThread" else f"{name}|{thread}"), lock._count()
    if not lock.locked():
        return "None", 0
    return ("SomeOtherThread" if lock._count() else "SomeOtherProcess"), "nonzero"


def _report_death(lock: SemLock, raises: bool, first: bool) -> None:
    """Tell of a lock whose owner died, in the way that was asked for."""
    what = f"the process that held {type(lock).__name__} {id(lock):#x} died without releasing it"
    if raises:
        from procession.errors import OwnerDiedError

        raise OwnerDiedError(f"{what}; what the lock protects may be half-changed")
    if first:
        logger = _stdlib.load("util").get_logger()
        logger.warning("%s; what it protects may be half-changed", what)


class _Pickled:
    """Objects that travel to other processes, by the number that they have there."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self),), self.__getstate__()


class _Count:
    """A number that the original keeps in a semaphore."""

    def __init__(self, get_value: Callable[[], int]) -> None:
        self._get_value = self.get_value = get_value
        self._semlock = self

    def __repr__(self) -> str:
        return f"<Semaphore(value={self._get_value()})>"


class Condition(_Pickled, _procession.Condition):
    """Lets processes wait until another one, which holds the same lock, notifies them.

    Args:
        lock: A `Lock` or an `RLock` of this package; without one, an `RLock` of its own.
        ctx: The context that it is made by.
    """

    def __init__(self, lock: SemLock | None = None, *, ctx: Any) -> None:
        super().__init__(RLock(ctx=ctx) if lock is None else lock)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return _class_of(type(self))

    @property
    def _sleeping_count(self) -> _Count:
        return _Count(self._waiters)

    @property
    def _woken_count(self) -> _Count:
        return _Count(lambda: 0)

    @property
    def _wait_semaphore(self) -> _Count:
        return _Count(lambda: 0)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate` returns something true, and return what it returned last."""
        result = predicate()
        end = None if timeout is None else time.monotonic() + timeout
        while not result:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock!r}, {self._waiters()})>"


class Event(_Pickled, _procession.Event):
    """A flag that any process can set, clear and wait for.

    Args:
        ctx: The context that it is made by. It makes no difference.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return _class_of(type(self))

    def __repr__(self) -> str:
        state = "set" if self.is_set() else "unset"
        return f"<{type(self).__qualname__} at {id(self):#x} {state}>"


class Barrier(threading.Barrier):
    """A place where processes wait until all of them have come.

    Args:
        parties: How many must come.
        action: Called by one of them, when all have come and before any goes on.
        timeout: Longest time to wait, in seconds, for calls that do not say; `None` for no limit.
        ctx: The context that it is made by. It makes no difference.
    """

    _barrier: _procession.Barrier

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: Any,  # noqa: ARG002
    ) -> None:
        # Not the base class's: its state is of one process.
        self.__setstate__((action, timeout, _procession.Barrier(parties)))

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return _class_of(type(self))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._action, self._timeout, self._barrier

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._action, self._timeout, self._barrier = state

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self),), self.__getstate__()

    def wait(self, timeout: float | None = None) -> int:
        """Block until all have come, and return how many had come before."""
        if timeout is None:
            timeout = self._timeout
        return self._barrier.wait(timeout, self._action)

    def reset(self) -> None:
        """Make the barrier as new. Those who wait get an error."""
        self._barrier.reset()

    def abort(self) -> None:
        """Break the barrier: those who wait, and those who come later, get an error."""
        self._barrier.abort()

    @property
    def parties(self) -> int:
        """How many must come."""
        return self._barrier.parties

    @property
    def n_waiting(self) -> int:
        """How many wait at this moment."""
        return self._barrier.n_waiting

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        return self._barrier.broken
