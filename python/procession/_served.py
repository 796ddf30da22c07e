"""Locks, events, barriers, queues, values: what a manager's server holds for its clients.

Which thread of the server answers a request says nothing about who made it. So these take a
thread of a client for the owner, and not the thread that they run in. When a client dies, what it
had locked is let go of, and what it waited for goes to somebody else.
"""

# ruff: noqa: A003, ARG001, ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import array
import collections
import queue
import threading
import time

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "MAKERS",
    "POLITE",
    "Array",
    "CallerGoneError",
    "Namespace",
    "Value",
    "calling",
    "lock_timeout",
    "served",
]


class CallerGoneError(Exception):
    """Whoever made the call that is being carried out has died or disconnected."""


class _Calling(threading.local):
    """On whose behalf a thread of the server does what it does."""

    caller: Any = None
    is_connected: Callable[[int], bool] | None = None
    may_block: Callable[[], None] | None = None

    def owner(self) -> tuple[Any, int]:
        """Return what stands for the caller's thread; the server's own threads have some too."""
        if self.caller is None:
            return None, threading.get_ident()
        return self.caller.client, self.caller.thread

    def about_to_wait(self) -> None:
        """Let another thread of the server see to the clients meanwhile."""
        if self.may_block is not None:
            self.may_block()

    def check(self) -> None:
        """Raise `CallerGoneError` if the caller is gone."""
        if (
            self.caller is not None
            and self.is_connected is not None
            and not self.is_connected(self.caller.client)
        ):
            raise CallerGoneError


calling = _Calling()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def lock_timeout(blocking: bool, timeout: float | None) -> float | None:
    """Return the seconds to wait, None for no limit, from what `Lock.acquire` is given."""
    if not blocking:
        if timeout not in (-1, None):
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout is None or timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return timeout


def _note_release(what: Any) -> None:
    """Tell the log of a lock that was let go of because its client was killed."""
    from procession import _stdlib

    _stdlib.load("util").sub_warning(
        "%s %#x was released because the client that had it has died; what it protects may be "
        "half changed",
        type(what).__name__,
        id(what),
    )


def _check_for(changed: threading.Condition) -> None:
    """Raise `CallerGoneError` if the caller is gone; a wake-up may have been meant for it alone."""
    try:
        calling.check()
    except CallerGoneError:
        changed.notify()
        raise


class _Waiting:
    """Something that callers wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `ready()`; the caller has `_changed` and gets it back."""
        deadline = _deadline(timeout)
        while not ready():
            left = _left(deadline)
            if left is not None and left <= 0:
                return False
            calling.about_to_wait()
            # It may be gone already. What goes from here on tells so under the lock.
            _check_for(self._changed)
            self._changed.wait(left)
            _check_for(self._changed)
        return True

    def _client_gone(self, _client: int, _killed: bool) -> None:
        """Have the calls of a client that is gone end."""
        with self._changed:
            self._changed.notify_all()


class Lock(_Waiting):
    """`threading.Lock` for clients."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None

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

    def locked(self) -> bool:
        """Say whether somebody has the lock."""
        return self._owner is not None

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of what a client has that was killed; others may have left it to somebody else."""
        with self._changed:
            if killed and self._owner is not None and self._owner[0] == client:
                self._owner = None
                _note_release(self)
            self._changed.notify_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} {type(self).__name__} object at {id(self):#x}>"


class RLock(_Waiting):
    """`threading.RLock` for clients: a thread of a client can take it several times."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None
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

    def locked(self) -> bool:
        """Say whether somebody has the lock."""
        return self._owner is not None

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

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        name = type(self).__name__
        return f"<{state} {name} object owner={self._owner} count={self._count} at {id(self):#x}>"


class _Waiter:
    """A call that waits for a notification."""

    def __init__(self) -> None:
        self.caller = calling.caller
        self.abandoned = False
        self.gate = threading.Lock()
        self.gate.acquire()


class Condition:
    """`threading.Condition` for clients.

    A notification is for a caller that lives: those that died while they waited are not counted.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._waiters: collections.deque[_Waiter] = collections.deque()
        # What an `RLock` has, and a `Lock` or a proxy of one does not need.
        self._is_owned = getattr(self._lock, "_is_owned", self._seems_owned)
        self._release_save = getattr(self._lock, "_release_save", self._release_once)
        self._acquire_restore = getattr(self._lock, "_acquire_restore", self._acquire_again)

    def _seems_owned(self) -> bool:
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def _release_once(self) -> None:
        self._lock.release()

    def _acquire_again(self, _saved: None) -> None:
        self._lock.acquire()

    def locked(self) -> bool:
        """Say whether somebody has the lock."""
        return bool(self._lock.locked())

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification and take the lock again."""
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = _Waiter()
        self._waiters.append(waiter)
        saved = self._release_save()
        calling.about_to_wait()
        try:
            # It may be gone already. What goes from here on finds the waiter.
            calling.check()
            waiter.gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            # A notification that comes from here on is for somebody else, as is one that came for
            # a caller that is gone.
            notified = self._forget(waiter)
            try:
                calling.check()
            except CallerGoneError:
                if notified:
                    self._wake(1)
                raise
            self._acquire_restore(saved)
        return notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true."""
        deadline = _deadline(timeout)
        while not (result := predicate()):
            left = _left(deadline)
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those that wait."""
        if not self._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        self._wake(n)

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(len(self._waiters))

    notifyAll = notify_all  # noqa: N815

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of what a client has that is gone, and have its calls end."""
        gone = getattr(self._lock, "_client_gone", None)
        if gone is not None:
            gone(client, killed)
        for waiter in list(self._waiters):
            if waiter.caller is not None and waiter.caller.client == client:
                waiter.abandoned = self._take_out(waiter)
                if waiter.abandoned:
                    waiter.gate.release()

    def _wake(self, count: int) -> None:
        while count > 0:
            try:
                waiter = self._waiters.popleft()
            except IndexError:
                return
            waiter.gate.release()
            count -= 1

    def _forget(self, waiter: _Waiter) -> bool:
        """Stop waiting, and say whether a notification has come."""
        # Whoever takes it out decides: it was notified unless that is done here, or was done
        # because its client is gone.
        if self._take_out(waiter):
            return False
        return not waiter.abandoned

    def _take_out(self, waiter: _Waiter) -> bool:
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *exception: object) -> Any:
        return self._lock.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {len(self._waiters)})>"


class Semaphore(_Waiting):
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

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exception: object) -> None:
        self.release()

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


class Event(_Waiting):
    """`threading.Event` for clients."""

    def __init__(self) -> None:
        super().__init__()
        self._flag = False

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._flag

    isSet = is_set  # noqa: N815

    def set(self) -> None:
        """Set it, and wake all that wait."""
        with self._changed:
            self._flag = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        with self._changed:
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and say whether it is."""
        with self._changed:
            return self._wait_until(self.is_set, timeout)

    def __repr__(self) -> str:
        state = "set" if self._flag else "unset"
        return f"<{type(self).__name__} at {id(self):#x}: {state}>"


class _Round:
    """One time that a barrier fills."""

    def __init__(self) -> None:
        self.arrived = 0
        self.passed = False
        self.broken = False

    def is_over(self) -> bool:
        return self.passed or self.broken


class Barrier(_Waiting):
    """`threading.Barrier` for clients. It breaks if one dies that waits."""

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        super().__init__()
        self.parties = parties
        self._action = action
        self._timeout = timeout
        self._round = _Round()

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return 0 if self._round.is_over() else self._round.arrived

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return self._round.broken

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come, and return the caller's place among them."""
        with self._changed:
            mine = self._round
            if mine.broken:
                raise threading.BrokenBarrierError
            place = mine.arrived
            mine.arrived += 1
            if mine.arrived == self.parties:
                self._pass(mine)
                return place
            try:
                came = self._wait_until(mine.is_over, self._timeout if timeout is None else timeout)
            except CallerGoneError:
                self._break(mine)
                raise
            if not came:
                self._break(mine)
            if mine.broken:
                raise threading.BrokenBarrierError
            return place

    def reset(self) -> None:
        """Make it as new; those that wait are told that it broke."""
        with self._changed:
            if self._round.arrived:
                self._break(self._round)
            self._round = _Round()

    def abort(self) -> None:
        """Break it."""
        with self._changed:
            self._break(self._round)

    def _pass(self, mine: _Round) -> None:
        try:
            if self._action is not None:
                calling.about_to_wait()
                self._action()
        except BaseException:
            self._break(mine)
            raise
        mine.passed = True
        self._round = _Round()
        self._changed.notify_all()

    def _break(self, mine: _Round) -> None:
        # A round that was passed is nobody's any more.
        if not mine.passed:
            mine.broken = True
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__name__} at {id(self):#x}: {state}>"


class Queue(queue.Queue):  # type: ignore[type-arg]
    """`queue.Queue` for clients: no item is handed to one that is gone."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in."""
        with self.not_full:
            self._wait_for(self.not_full, self._may_put, block, timeout, queue.Full)
            self._put(item)
            self.unfinished_tasks += 1
            self.not_empty.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out."""
        with self.not_empty:
            self._wait_for(self.not_empty, self._may_get, block, timeout, queue.Empty)
            _check_for(self.not_empty)
            item = self._get()
            self.not_full.notify()
            return item

    def join(self) -> None:
        """Wait until all items have been dealt with."""
        calling.about_to_wait()
        super().join()

    def _client_gone(self, _client: int, _killed: bool) -> None:
        """Have the calls of a client that is gone end."""
        with self.mutex:
            self.not_empty.notify_all()
            self.not_full.notify_all()

    def _may_put(self) -> bool:
        if getattr(self, "is_shutdown", False):  # from 3.13 on
            raise queue.ShutDown  # type: ignore[attr-defined]
        return self.maxsize <= 0 or self._qsize() < self.maxsize

    def _may_get(self) -> bool:
        if self._qsize():
            return True
        if getattr(self, "is_shutdown", False):
            raise queue.ShutDown  # type: ignore[attr-defined]
        return False

    @staticmethod
    def _wait_for(
        changed: threading.Condition,
        ready: Callable[[], bool],
        block: bool,
        timeout: float | None,
        otherwise: type[Exception],
    ) -> None:
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = _deadline(timeout)
        while not ready():
            left = _left(deadline)
            if not block or (left is not None and left <= 0):
                raise otherwise
            calling.about_to_wait()
            # It may be gone already. What goes from here on tells so under the lock.
            _check_for(changed)
            changed.wait(left)
            _check_for(changed)


class Namespace:
    """An object whose attributes anybody may set."""

    __module__ = "procession.managers"

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value!r}" for name, value in list(self.__dict__.items()) if name[0] != "_"
        )
        return f"{type(self).__name__}({', '.join(sorted(shown))})"


class Value:
    """A value that anybody may replace."""

    __module__ = "procession.managers"

    def __init__(self, typecode: Any, value: Any, lock: bool = True) -> None:
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """Return the value."""
        return self._value

    def set(self, value: Any) -> None:
        """Replace the value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


def Array(typecode: str, sequence: Any, lock: bool = True) -> array.array[Any]:
    """Return an array of numbers."""
    return array.array(typecode, sequence)


# What is made when a manager is asked for one of these.
_SERVED: dict[Any, Any] = {
    threading.Lock: Lock,
    threading.RLock: RLock,
    threading.Condition: Condition,
    threading.Semaphore: Semaphore,
    threading.BoundedSemaphore: BoundedSemaphore,
    threading.Event: Event,
    threading.Barrier: Barrier,
    queue.Queue: Queue,
}


# Types that say when they are about to wait.
POLITE = frozenset(_SERVED.values())
# What makes things quickly.
MAKERS = frozenset(_SERVED)


def served(maker: Any) -> Any:
    """Return what makes for clients what `maker` makes for threads; mostly `maker` itself."""
    try:
        return _SERVED.get(maker, maker)
    except TypeError:  # not hashable
        return maker
