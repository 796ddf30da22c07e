"""Objects of managers that live in the tree's shared memory: no call of them is a request.

Each class has the methods of what a server would hold in its place, with the same arguments,
results and errors. What is waited for is waited for in pieces, so that nobody waits for a manager
that has ended.
"""

from __future__ import annotations

import queue
import threading
from queue import Empty, Full

from procession import _procession, _stdlib, synchronize
from procession._homes import arrived
from procession._proxies import (
    AcquirerProxy,
    BarrierProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    ListProxy,
    MakeProxyType,
    NamespaceProxy,
    Token,
    ValueProxy,
    public_methods,
)
from procession._served import Namespace as PlainNamespace
from procession._served import Value as PlainValue
from procession._served import lock_timeout
from procession.queues import JoinableQueue

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Self

    from procession._homes import Home

__all__ = ["KINDS", "Methods", "Resident", "proxy_for"]


class Resident:
    """An object in shared memory, and the manager that it belongs to.

    It can be pickled for any process of the tree. The object is there as long as anybody has it.

    Args:
        home: The manager.
        native: The object.
    """

    __slots__ = ("home", "native")

    # What a server would hold.
    stands_for: ClassVar[Any]
    # Called with the home and what the server would be; returns a new object, or raises where a
    # server would refuse to make one, or be needed.
    make: ClassVar[Callable[..., Any]]

    def __init__(self, home: Home, native: Any) -> None:
        self.home = home
        self.native = native

    def __reduce__(self) -> Any:
        return type(self), (self.home, self.native)

    def parts(self) -> tuple[Any, ...]:
        """Return what `of_parts` is called with where what is just being pickled arrives."""
        _home, *parts = self.__reduce__()[1]
        return tuple(parts)

    @classmethod
    def of_parts(cls, home: Home, *parts: Any) -> Self:
        """Return what somebody has called `parts` of."""
        return cls(home, *parts)

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = getattr(self, name)
        return found

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        name = f"{self.stands_for.__module__}.{self.stands_for.__name__}"
        raise remote_error()(f"Unserializable message: cannot pickle {name!r} object\n")

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Take back what a call has brought about, as whoever made it has died meanwhile."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in shared memory at {id(self):#x}>"


def remote_error() -> type[Exception]:
    """Return the original's class for what went wrong with a request."""
    found: type[Exception] = _stdlib.load("managers").RemoteError
    return found


class Methods(dict):  # type: ignore[type-arg]
    """The methods of a resident by name, found when they are called for the first time.

    Args:
        resident: The object.
        exposed: Names of those that may be called.
    """

    __slots__ = ("_exposed", "check", "has_ended", "resident")

    def __init__(self, resident: Resident, exposed: Any) -> None:
        self.resident = resident
        self._exposed = exposed
        self.has_ended = resident.home.has_ended
        self.check = resident.home.check

    def pickled(self, token: Token, authkey: bytes | None) -> Any:
        """Return how to make a proxy with these methods in another process of the tree."""
        home, parts = self.resident.home.travel(), self.resident.parts()
        return _arrived, (token.typeid, token.id, authkey, home, *parts)

    def __missing__(self, name: str) -> Any:
        if name in self._exposed:
            method = self[name] = self.resident.method(name)
            return method
        if name == "#GETVALUE":
            return self.resident.value
        if name in ("__repr__", "__str__"):
            return self.resident.__repr__
        raise remote_error()(
            f"AttributeError: method {name!r} of {self.resident.stands_for!r} object is not in "
            f"exposed={tuple(self._exposed)!r}\n"
        )


class _Acquirer(Resident):
    """A lock or a semaphore."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Take the lock, and say whether it was taken."""
        if not blocking or timeout != -1:
            return self._acquire_within(lock_timeout(blocking, timeout))
        return self.native.acquire(False) or self._acquire_within(None)

    def _acquire_within(self, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            taken: bool = self.native.acquire(False)
            return taken
        return any(self.native.acquire(True, pause) for pause in self.home.pauses(timeout))

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} {type(self).__name__} in shared memory at {id(self):#x}>"

    def locked(self) -> bool:
        """Say whether it cannot be taken just now."""
        held: bool = self.native.locked()
        return held

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:  # noqa: ARG002
        """Let go of what was taken for somebody who has died."""
        if name == "acquire" and result:
            self.native.release()


class Lock(_Acquirer):
    """`threading.Lock`."""

    __slots__ = ()
    stands_for = threading.Lock

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new lock."""
        return cls(home, synchronize.Lock(ctx=None))

    def release(self) -> None:
        """Let go of the lock, whoever has it."""
        try:
            self.native.release()
        except ValueError:
            raise RuntimeError("release unlocked lock") from None


class RLock(_Acquirer):
    """`threading.RLock`."""

    __slots__ = ()
    stands_for = threading.RLock

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new lock."""
        return cls(home, synchronize.RLock(ctx=None))

    def release(self) -> None:
        """Let go of the lock once."""
        try:
            self.native.release()
        except (AssertionError, ValueError):
            raise RuntimeError("cannot release un-acquired lock") from None


class Semaphore(_Acquirer):
    """`threading.Semaphore`."""

    __slots__ = ()
    stands_for = threading.Semaphore

    @classmethod
    def make(cls, home: Home, value: int = 1) -> Self:
        """Return a new semaphore."""
        return cls(home, synchronize.Semaphore(value, ctx=None))

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit, and say whether one was taken."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if self.native.acquire(False):
            return True
        return bool(blocking) and self._acquire_within(timeout)

    def release(self, n: int = 1) -> None:
        """Give back `n` permits."""
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(n):
            self._release_one()

    def _release_one(self) -> None:
        self.native.release()


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore`."""

    __slots__ = ()
    stands_for = threading.BoundedSemaphore

    @classmethod
    def make(cls, home: Home, value: int = 1) -> Self:
        """Return a new semaphore."""
        return cls(home, synchronize.BoundedSemaphore(value, ctx=None))

    def release(self, n: int = 1) -> None:
        """Give back `n` permits, all or none."""
        if self.native._get_value() + n > self.native.maxvalue:
            raise ValueError("Semaphore released too many times")
        super().release(n)

    def _release_one(self) -> None:
        try:
            self.native.release()
        except ValueError:
            raise ValueError("Semaphore released too many times") from None


class Condition(Resident):
    """`threading.Condition`."""

    __slots__ = ("_gate",)
    stands_for = threading.Condition

    def __init__(self, home: Home, native: Any) -> None:
        super().__init__(home, native)
        gate = Lock if isinstance(native._lock, _procession.Lock) else RLock
        self._gate: Any = gate(home, native._lock)

    @classmethod
    def make(cls, home: Home, lock: Any = None) -> Self:
        """Return a new condition, over a lock that is in shared memory too."""
        if lock is not None:
            lock = lock._resident
            if not isinstance(lock, (Lock, RLock)):
                raise TypeError("the lock is not in shared memory")
            lock = lock.native
        return cls(home, synchronize.Condition(lock, ctx=None))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any]
        if name in ("acquire", "release", "locked"):
            found = getattr(self._gate, name)
        else:
            found = getattr(self, name)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification and take the lock again."""
        try:
            return any(self.native.wait(pause) for pause in self.home.pauses(timeout))
        except AssertionError:
            raise RuntimeError("cannot wait on un-acquired lock") from None

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those that wait."""
        try:
            self.native.notify(n)
        except AssertionError:
            raise RuntimeError("cannot notify on un-acquired lock") from None

    def notify_all(self) -> None:
        """Wake all that wait."""
        try:
            self.native.notify_all()
        except AssertionError:
            raise RuntimeError("cannot notify on un-acquired lock") from None

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Let go of what was taken for somebody who has died."""
        if name == "acquire":
            self._gate.undo(name, args, result)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._gate!r}, {self.native._waiters()})>"


class Event(Resident):
    """`threading.Event`."""

    __slots__ = ()
    stands_for = threading.Event

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new event."""
        return cls(home, synchronize.Event(ctx=None))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = self.wait if name == "wait" else getattr(self.native, name)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set."""
        if self.native.is_set():
            return True
        return any(self.native.wait(pause) for pause in self.home.pauses(timeout))

    def __repr__(self) -> str:
        state = "set" if self.native.is_set() else "unset"
        return f"<{type(self).__name__} in shared memory at {id(self):#x}: {state}>"


class Barrier(Resident):
    """`threading.Barrier` without an action, which only the server could call."""

    __slots__ = ()
    stands_for = threading.Barrier

    @classmethod
    def make(cls, home: Home, parties: int, action: Any = None, timeout: Any = None) -> Self:
        """Return a new barrier."""
        if action is not None:
            raise TypeError("an action is for the server to call")
        made = synchronize.Barrier(parties, None, timeout, ctx=None)
        home.note_barrier(made)
        return cls(home, made)

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        if name == "__getattribute__":
            return self._attribute
        return super().method(name)

    def _attribute(self, name: str) -> Any:
        if name in ("parties", "n_waiting", "broken"):
            return getattr(self.native, name)
        raise AttributeError(f"'Barrier' object has no attribute {name!r}")

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come."""
        try:
            place: int = self.native.wait(timeout)
        except threading.BrokenBarrierError:
            # It may be that which has broken it.
            self.home.check()
            raise
        return place

    def abort(self) -> None:
        """Break the barrier."""
        self.native.abort()

    def reset(self) -> None:
        """Make the barrier as new."""
        self.native.reset()


class Queue(Resident):
    """`queue.Queue`.

    Args:
        home: The manager.
        native: The queue.
        closed: Set once the queue is shut down, which queues can be from Python 3.13 on.
    """

    __slots__ = ("_closed",)
    stands_for = queue.Queue

    def __init__(self, home: Home, native: Any, closed: synchronize.Event | None = None) -> None:
        super().__init__(home, native)
        self._closed = closed

    @classmethod
    def make(cls, home: Home, maxsize: int = 0) -> Self:
        """Return a new queue."""
        closed = synchronize.Event(ctx=None) if hasattr(queue, "ShutDown") else None
        return cls(home, JoinableQueue(maxsize, ctx=None), closed)

    def __reduce__(self) -> Any:
        return type(self), (self.home, self.native, self._closed)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in."""
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if self._closed is not None:
            self._check_open()
        try:
            self.native.put(item, False)
        except Full:
            if not block:
                raise
            self._put_when_possible(item, timeout)

    def _put_when_possible(self, item: Any, timeout: float | None) -> None:
        for pause in self.home.pauses(timeout):
            self._check_open()
            try:
                self.native.put(item, True, pause)
            except Full:
                continue
            return
        raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out."""
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return self.native.get(False)
        except Empty:
            self._check_open()
            if not block:
                raise
        return self._get_when_possible(timeout)

    def _get_when_possible(self, timeout: float | None) -> Any:
        for pause in self.home.pauses(timeout):
            try:
                return self.native.get(True, pause)
            except Empty:
                self._check_open()
        raise Empty

    def _check_open(self) -> None:
        if self._closed is not None and self._closed.is_set():
            raise queue.ShutDown  # type: ignore[attr-defined]

    def shutdown(self, immediate: bool = False) -> None:
        """Have puts fail from now on, and gets once the queue is empty; `immediate` empties it."""
        if self._closed is not None:
            self._closed.set()
        while immediate:
            try:
                self.native.get(False)
            except Empty:
                return
            self.native.task_done()

    def put_nowait(self, item: Any) -> None:
        """Put an item in if there is room."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Take an item out if there is one."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many items there are."""
        size: int = self.native.qsize()
        return size

    def empty(self) -> bool:
        """Say whether there are no items."""
        return not self.native.qsize()

    def full(self) -> bool:
        """Say whether there is no room."""
        is_full: bool = self.native.full()
        return is_full

    def task_done(self) -> None:
        """Say that an item has been dealt with."""
        self.native.task_done()

    def join(self) -> None:
        """Wait until all items have been dealt with."""
        any(self.native._join_within(pause) for pause in self.home.pauses(None))

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:  # noqa: ARG002
        """Put back what was taken for somebody who has died."""
        if name in ("get", "get_nowait"):
            self.native.put(result)
            self.native.task_done()


class Container(Resident):
    """An object whose methods are native. It travels as a number."""

    __slots__ = ()
    made_of: ClassVar[Any]

    def parts(self) -> tuple[Any, ...]:
        """Return what `of_parts` is called with where what is just being pickled arrives."""
        _open, parts = self.native.__reduce__()
        return parts  # type: ignore[no-any-return]

    @classmethod
    def of_parts(cls, home: Home, *parts: Any) -> Self:
        """Return what somebody has called `parts` of."""
        return cls(home, cls.made_of._open(*parts))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = getattr(self.native, name)
        return found

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return self.native.copy()

    def __repr__(self) -> str:
        return repr(self.native)


def _in_step(native: Any, keys: list[Any]) -> Iterator[Any]:
    """Yield the keys of a dictionary as long as there are as many as at first."""
    for key in keys:
        if len(native) != len(keys):
            raise RuntimeError("dictionary changed size during iteration")
        yield key


class Dict(Container):
    """`dict`."""

    __slots__ = ()
    stands_for = dict
    made_of = _procession.ArenaDict

    @classmethod
    def make(cls, home: Home, *args: Any, **kwds: Any) -> Self:
        """Return a new dictionary."""
        return cls(home, cls.made_of(dict(*args, **kwds)))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        if name == "__iter__":
            return self._keys
        return dict.fromkeys if name == "fromkeys" else super().method(name)

    def _keys(self) -> Iterator[Any]:
        return _in_step(self.native, self.native.keys())


class List(Container):
    """`list`."""

    __slots__ = ()
    stands_for = list
    made_of = _procession.ArenaList

    @classmethod
    def make(cls, home: Home, *args: Any) -> Self:
        """Return a new list."""
        return cls(home, cls.made_of(list(*args)))


class Namespace(Container):
    """`procession.managers.Namespace`: a dictionary of attributes."""

    __slots__ = ()
    stands_for = PlainNamespace
    made_of = _procession.ArenaDict

    @classmethod
    def make(cls, home: Home, *args: Any, **kwds: Any) -> Self:
        """Return a new namespace."""
        if args:
            raise TypeError("a namespace takes keywords alone")
        return cls(home, cls.made_of(kwds))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        methods: dict[str, Callable[..., Any]] = {
            "__getattribute__": self._get,
            "__setattr__": self.native.__setitem__,
            "__delattr__": self._delete,
        }
        return methods[name]

    def _get(self, name: str) -> Any:
        try:
            return self.native[name]
        except KeyError:
            pass
        # What every namespace has; or the error.
        return getattr(self.value(), name)

    def _delete(self, name: str) -> None:
        try:
            del self.native[name]
        except KeyError:
            raise AttributeError(f"'Namespace' object has no attribute {name!r}") from None

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return PlainNamespace(**self.native.copy())

    def __repr__(self) -> str:
        return repr(self.value())


class Value(Container):
    """`procession.managers.Value`: a list of its type and the value."""

    __slots__ = ()
    stands_for = PlainValue
    made_of = _procession.ArenaList

    @classmethod
    def make(cls, home: Home, typecode: Any, value: Any, lock: bool = True) -> Self:  # noqa: ARG003
        """Return a new value."""
        return cls(home, cls.made_of([typecode, value]))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        methods: dict[str, Callable[..., Any]] = {"get": self._get, "set": self._set}
        return methods[name]

    def _get(self) -> Any:
        return self.native[1]

    def _set(self, value: Any) -> None:
        self.native[1] = value

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return PlainValue(*self.native.copy())

    def __repr__(self) -> str:
        return repr(self.value())


def _queue_proxy(typeid: str) -> Any:
    """Return what `AutoProxy` makes for a queue."""
    proxytype: Any = MakeProxyType(f"AutoProxy[{typeid}]", public_methods(queue.Queue))
    proxytype._isauto = True
    return proxytype


def proxy_for(
    typeid: str, ident: str, resident: Resident, manager: Any = None, authkey: bytes | None = None
) -> Any:
    """Return a proxy that calls an object in shared memory.

    Args:
        typeid: What the manager calls objects of this kind.
        ident: What the object is called, in all processes.
        resident: The object.
        manager: The manager, if it is at hand.
        authkey: What its clients must prove to know.
    """
    proxytype = _PROXIES[typeid]
    proxy = proxytype.__new__(proxytype)
    methods = Methods(resident, proxytype._exposed_)
    proxy._settle(Token(typeid, resident.home.address, ident), methods, manager, authkey)
    return proxy


def _arrived(typeid: str, ident: str, authkey: bytes | None, home: int, *parts: Any) -> Any:
    """Return the proxy that a pickle describes."""
    resident = KINDS[typeid].of_parts(arrived(home), *parts)
    return proxy_for(typeid, ident, resident, None, authkey)


# By what managers call them.
KINDS: dict[str, type[Resident]] = {
    "Queue": Queue,
    "JoinableQueue": Queue,
    "Event": Event,
    "Lock": Lock,
    "RLock": RLock,
    "Semaphore": Semaphore,
    "BoundedSemaphore": BoundedSemaphore,
    "Condition": Condition,
    "Barrier": Barrier,
    "list": List,
    "dict": Dict,
    "Value": Value,
    "Namespace": Namespace,
}

_PROXIES: dict[str, Any] = {
    "Queue": _queue_proxy("Queue"),
    "JoinableQueue": _queue_proxy("JoinableQueue"),
    "Event": EventProxy,
    "Lock": AcquirerProxy,
    "RLock": AcquirerProxy,
    "Semaphore": AcquirerProxy,
    "BoundedSemaphore": AcquirerProxy,
    "Condition": ConditionProxy,
    "Barrier": BarrierProxy,
    "list": ListProxy,
    "dict": DictProxy,
    "Value": ValueProxy,
    "Namespace": NamespaceProxy,
}
