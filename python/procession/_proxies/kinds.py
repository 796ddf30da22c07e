"""The proxies for objects of the original's kinds: their methods, and how each of them is called.

Their classes belong to `procession.managers`, and pickles name them there.
"""

# ruff: noqa: A003
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import sys
import time
import types

from procession._proxies import BaseProxy, MakeProxyType, settle_in_managers

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

_NEW_IN_314 = sys.version_info >= (3, 14)


def _in_place(name: str, calls: str | None = None) -> Any:
    """Return an operator that changes the object and leaves the proxy in its place."""

    def operator(self: Any, value: Any, /) -> Any:
        self._callmethod(calls or name, (value,))
        return self

    operator.__name__ = operator.__qualname__ = name
    return operator


class IteratorProxy(BaseProxy):
    """Stands for an iterator or a generator."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Self:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Send a value into the generator."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Raise an exception in the generator."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """End the generator."""
        return self._callmethod("close", args)


class AcquirerProxy(BaseProxy):
    """Stands for a lock or a semaphore."""

    _exposed_: tuple[str, ...] = ("acquire", "release", "locked")[: 3 if _NEW_IN_314 else 2]

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take it, and say whether it was taken."""
        args = (blocking,) if timeout is None else (blocking, timeout)
        taken: bool = self._callmethod("acquire", args)
        return taken

    def release(self) -> Any:
        """Let go of it."""
        return self._callmethod("release")

    if _NEW_IN_314:

        def locked(self) -> Any:
            """Say whether it cannot be taken just now."""
            return self._callmethod("locked")

    def __enter__(self) -> Any:
        return self._callmethod("acquire")

    def __exit__(self, *_exception: object) -> Any:
        return self._callmethod("release")


class ConditionProxy(AcquirerProxy):
    """Stands for a condition."""

    _exposed_ = (*AcquirerProxy._exposed_, "wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for a notification."""
        return self._callmethod("wait", (timeout,))

    def notify(self, n: int = 1) -> Any:
        """Wake `n` of those that wait."""
        return self._callmethod("notify", (n,))

    def notify_all(self) -> Any:
        """Wake all that wait."""
        return self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result


class EventProxy(BaseProxy):
    """Stands for an event."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> Any:
        """Say whether it is set."""
        return self._callmethod("is_set")

    def set(self) -> Any:
        """Set it."""
        return self._callmethod("set")

    def clear(self) -> Any:
        """Take it back."""
        return self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is set."""
        return self._callmethod("wait", (timeout,))


class BarrierProxy(BaseProxy):
    """Stands for a barrier."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until all have come."""
        return self._callmethod("wait", (timeout,))

    def abort(self) -> Any:
        """Break the barrier."""
        return self._callmethod("abort")

    def reset(self) -> Any:
        """Make the barrier as new."""
        return self._callmethod("reset")

    @property
    def parties(self) -> Any:
        """How many must come."""
        return self._callmethod("__getattribute__", ("parties",))

    @property
    def n_waiting(self) -> Any:
        """How many have come."""
        return self._callmethod("__getattribute__", ("n_waiting",))

    @property
    def broken(self) -> Any:
        """Whether the barrier is broken."""
        return self._callmethod("__getattribute__", ("broken",))


class NamespaceProxy(BaseProxy):
    """Stands for an object, with its attributes."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        if key[0] == "_":
            return object.__getattribute__(self, key)
        return object.__getattribute__(self, "_callmethod")("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> None:
        if key[0] == "_":
            object.__setattr__(self, key, value)
        else:
            object.__getattribute__(self, "_callmethod")("__setattr__", (key, value))

    def __delattr__(self, key: str) -> None:
        if key[0] == "_":
            object.__delattr__(self, key)
        else:
            object.__getattribute__(self, "_callmethod")("__delattr__", (key,))


class ValueProxy(BaseProxy):
    """Stands for a value."""

    _exposed_ = ("get", "set")

    def get(self) -> Any:
        """Return the value."""
        return self._callmethod("get")

    def set(self, value: Any) -> Any:
        """Replace the value."""
        return self._callmethod("set", (value,))

    value = property(get, set)

    __class_getitem__: Any = classmethod(types.GenericAlias)


_LIST_METHODS = (
    *("__add__", "__contains__", "__delitem__", "__getitem__", "__imul__", "__len__", "__mul__"),
    *("__reversed__", "__rmul__", "__setitem__", "append", "count", "extend", "index", "insert"),
    *("pop", "remove", "reverse", "sort"),
    *(("clear", "copy") if _NEW_IN_314 else ()),
)
BaseListProxy: Any = MakeProxyType("BaseListProxy", _LIST_METHODS)


class ListProxy(BaseListProxy):  # type: ignore[misc]
    """Stands for a list."""

    __iadd__ = _in_place("__iadd__", calls="extend")
    __imul__ = _in_place("__imul__")


_DICT_METHODS = (
    *("__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__setitem__"),
    *("clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"),
    *(("__ior__", "__or__", "__reversed__", "__ror__", "fromkeys") if _NEW_IN_314 else ()),
)
_BaseDictProxy: Any = MakeProxyType("_BaseDictProxy", _DICT_METHODS)
_BaseDictProxy._method_to_typeid_ = {"__iter__": "Iterator"}


class DictProxy(_BaseDictProxy):  # type: ignore[misc]
    """Stands for a dictionary."""

    if _NEW_IN_314:
        __ior__ = _in_place("__ior__")


if sys.version_info >= (3, 13):
    for _generic in (ListProxy, DictProxy):
        _generic.__class_getitem__ = classmethod(types.GenericAlias)

ArrayProxy: Any = MakeProxyType("ArrayProxy", ("__len__", "__getitem__", "__setitem__"))

BasePoolProxy: Any = MakeProxyType(
    "PoolProxy",
    (
        *("apply", "apply_async", "close", "imap", "imap_unordered", "join", "map", "map_async"),
        *("starmap", "starmap_async", "terminate"),
    ),
)
BasePoolProxy._method_to_typeid_ = {
    "apply_async": "AsyncResult",
    "map_async": "AsyncResult",
    "starmap_async": "AsyncResult",
    "imap": "Iterator",
    "imap_unordered": "Iterator",
}


class PoolProxy(BasePoolProxy):  # type: ignore[misc]
    """Stands for a pool of processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.terminate()


_SET_METHODS = (
    *("__and__", "__class_getitem__", "__contains__", "__eq__", "__ge__", "__gt__", "__iand__"),
    *("__ior__", "__isub__", "__iter__", "__ixor__", "__le__", "__len__", "__lt__", "__ne__"),
    *("__or__", "__rand__", "__ror__", "__rsub__", "__rxor__", "__sub__", "__xor__", "add"),
    *("clear", "copy", "difference", "difference_update", "discard", "intersection"),
    *("intersection_update", "isdisjoint", "issubset", "issuperset", "pop", "remove"),
    *("symmetric_difference", "symmetric_difference_update", "union", "update"),
)
_BaseSetProxy: Any = MakeProxyType("_BaseSetProxy", _SET_METHODS)
_BaseSetProxy._method_to_typeid_ = {"__iter__": "Iterator"}


class SetProxy(_BaseSetProxy):  # type: ignore[misc]
    """Stands for a set."""

    __ior__ = _in_place("__ior__")
    __iand__ = _in_place("__iand__")
    __ixor__ = _in_place("__ixor__")
    __isub__ = _in_place("__isub__")


settle_in_managers(globals())
