"""Proxies for objects of managers: what they are, and how their pickles say it.

Their classes belong to `procession.managers`, and pickles name them there.
"""

# ruff: noqa: A002, A003, ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import sys
import time
import types

from procession import _links, _process, _stdlib, connection
from procession._links import convert_to_error, wire
from procession._procession import is_packing
from procession.context import get_spawning_popen

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn, Self

_ORIGINAL = "multiprocessing.managers"
# Where pickles look for what is defined here.
HOME = "procession.managers"
_NEW_IN_314 = sys.version_info >= (3, 14)

_process_of: Any = _stdlib.process
_util: Any = _stdlib.load("util")


class _OfOriginal:
    """Stands in a pickle for a name of the original's module.

    Written to a program that may know the standard library alone. Here, the name may mean
    something else, so that the pickler would refuse to write it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_args: Any) -> NoReturn:
        raise TypeError("only its pickle can be called")

    def __reduce__(self) -> Any:
        return getattr, (_OriginalModule(), self._name)


class _OriginalModule:
    """Stands in a pickle for the original's module."""

    def __reduce__(self) -> Any:
        from importlib import import_module

        return import_module, (_ORIGINAL,)


class Token:
    """Says which object of which server is meant."""

    __slots__ = ("address", "id", "typeid")

    def __init__(self, typeid: str, address: Any, id: str) -> None:
        (self.typeid, self.address, self.id) = (typeid, address, id)

    def __getstate__(self) -> Any:
        return (self.typeid, self.address, self.id)

    def __setstate__(self, state: Any) -> None:
        (self.typeid, self.address, self.id) = state

    def __reduce__(self) -> Any:
        return (_OfOriginal("Token") if wire.plain else Token), self.__getstate__()

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


def all_methods(obj: Any) -> list[str]:
    """Return the names of the methods of an object."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


def public_methods(obj: Any) -> list[str]:
    """Return the names of the methods of an object that do not begin with an underscore."""
    return [name for name in all_methods(obj) if name[0] != "_"]


# The listeners and clients of connections that turn objects into bytes in each of these ways.
listener_client: dict[str, Any] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}


def _key_for(address: Any, manager: Any, authkey: bytes | None) -> Any:
    """Return what a proxy proves to know: what it was given, else its manager's, else what fits."""
    if authkey is None and manager is not None:
        authkey = manager._authkey
    if authkey is None:
        authkey = _links.known_key(address) or _process_of.current_process().authkey
    return _process.authkey(authkey)


class BaseProxy:
    """Stands for an object in a server, and calls its methods.

    The object stays as long as there is a proxy for it. A process that dies is as one that has
    dropped its proxies.
    """

    # By address: what is used to reach a server, and what this process refers to there.
    _address_to_local = _links.by_address

    _token: Token
    # What keeps the object; None for a proxy that was made without.
    _reference: Any = None
    # The methods of an object in the tree's shared memory; None where a server has the object.
    _methods: Any = None

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Any = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        self._token = token
        self._id = token.id
        self._manager = manager
        self._serializer = serializer
        self._Client = listener_client[serializer][1]
        self._owned_by_manager = manager_owned
        self._authkey = _key_for(token.address, manager, authkey)
        if manager_owned:
            self._link = _links.Local(_process_of.current_process()._manager_server)
            self._reference = self._link.refer(self._id)
        else:
            self._connect()
            if incref:
                self._incref()

    def _settle(self, token: Token, methods: Any, manager: Any, authkey: bytes | None) -> None:
        """Be a proxy for an object in shared memory, which holds that by itself."""
        self._token = token
        self._id = token.id
        self._methods = methods
        self._manager = manager
        self._serializer = methods.resident.home.serializer
        self._Client = listener_client[self._serializer][1]
        self._owned_by_manager = False
        self._authkey = _key_for(token.address, manager, authkey)

    def _connect(self) -> None:
        """Make a connection with the server, if this process has none."""
        self._link = _links.link_to(
            self._token.address, self._authkey, self._serializer, self._Client
        )

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = _links.NOTHING) -> Any:
        """Call a method of the object and return a copy of the result, or a proxy for it."""
        methods = self._methods
        if methods is not None:
            if methods.has_ended():
                methods.check()
            return methods[methodname](*args, **kwds)
        kind, result = self._link.call(self._id, methodname, args, kwds)
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_of(*result)
        try:
            raise convert_to_error(kind, result)
        finally:
            del result  # the exception's traceback refers to this frame

    def _proxy_of(self, exposed: Any, token: Any) -> Any:
        """Return a proxy for what a method has returned."""
        link = self._link
        link.adopt(token.id)
        try:
            token = Token(token.typeid, self._token.address, token.id)
            owner = link.server if self._owned_by_manager else self._manager
            registry = owner.registry if self._owned_by_manager else owner._registry
            return registry[token.typeid][-1](
                token,
                self._serializer,
                manager=self._manager,
                authkey=self._authkey,
                exposed=exposed,
                **({"manager_owned": True} if self._owned_by_manager else {}),
            )
        finally:
            # The proxy has a reference of its own.
            link.give_up(token.id)

    def _getvalue(self) -> Any:
        """Return a copy of the object."""
        return self._callmethod("#GETVALUE")

    def _incref(self) -> None:
        """Refer to the object for as long as there is this proxy."""
        if not self._owned_by_manager and self._methods is None:
            self._reference = self._link.refer(self._id)
            _util.debug("INCREF %r", self._token.id)

    def _bring_to_server(self) -> None:
        """Have the server hold the object too, for those who do not share memory with this tree.

        It does as long as there is this proxy or anybody refers to the object there.
        """
        if self._reference is None:
            resident = self._methods.resident
            link = resident.home.link(self._authkey, self._Client)
            self._reference = link.bring_in(self._token.typeid, self._id, resident)

    def __reduce__(self) -> Any:
        kwds: dict[str, Any] = {}
        popen = get_spawning_popen()
        if self._methods is not None:
            if is_packing():
                return self._methods.pickled(self._token, popen and self._authkey)
            self._bring_to_server()
        if wire.sent is not None:
            wire.sent.append(self)
        if popen is not None:
            kwds["authkey"] = self._authkey
            # The child may come to take its own reference when this proxy is gone.
            vars(popen).setdefault("_held_for_child", []).append(self._reference)
        func: Any = type(self)
        if getattr(self, "_isauto", False):
            func = AutoProxy
            kwds["exposed"] = self._exposed_  # type: ignore[attr-defined]
        rebuild: Any = RebuildProxy
        if wire.plain:
            rebuild = _OfOriginal("RebuildProxy")
            if func.__module__ == HOME:
                func = _OfOriginal(func.__name__)
        return rebuild, (func, self._token, self._serializer, kwds)

    def __deepcopy__(self, _memo: Any) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        name, typeid = type(self).__name__, self._token.typeid
        return f"<{name} object, typeid {typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            text: str = self._callmethod("__repr__")
            return text
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def RebuildProxy(func: Any, token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
    """Return the proxy that a pickle describes."""
    server = _links.server_here()
    if server is not None and server.address == token.address:
        _util.debug("Rebuild a proxy owned by manager, token=%r", token)
        kwds["manager_owned"] = True
    return func(token, serializer, **kwds)


def _method(name: str) -> Any:
    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    return method


def _in_place(name: str, calls: str | None = None) -> Any:
    """Return an operator that changes the object and leaves the proxy in its place."""

    def operator(self: Any, value: Any, /) -> Any:
        self._callmethod(calls or name, (value,))
        return self

    operator.__name__ = operator.__qualname__ = name
    return operator


_proxy_types: dict[Any, Any] = {}


def MakeProxyType(name: str, exposed: Iterable[str]) -> Any:
    """Return a class of proxies with these methods."""
    exposed = tuple(exposed)
    if (name, exposed) not in _proxy_types:
        namespace = {method: _method(method) for method in exposed}
        proxy_type: Any = type(name, (BaseProxy,), {**namespace, "__module__": HOME})
        proxy_type._exposed_ = exposed
        _proxy_types[name, exposed] = proxy_type
    return _proxy_types[name, exposed]


def AutoProxy(
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> Any:
    """Return a proxy with the methods that the object exposes."""
    authkey = _key_for(token.address, manager, authkey)
    if exposed is None:
        client = listener_client[serializer][1]
        link = _links.link_to(token.address, authkey, serializer, client)
        exposed = link.function("get_methods", (token,))
    proxy = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)(
        token,
        serializer,
        manager=manager,
        authkey=authkey,
        incref=incref,
        manager_owned=manager_owned,
    )
    proxy._isauto = True
    return proxy


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


for _thing in list(globals().values()):
    if getattr(_thing, "__module__", None) == __name__:
        _thing.__module__ = HOME
