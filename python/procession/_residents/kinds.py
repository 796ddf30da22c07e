"""The kinds of objects in shared memory: which class and which proxy each has, and how it travels.

This is the only module that knows both the objects and their proxies. A proxy calls its object by
`Methods`; its pickle holds numbers, from which another process of the tree opens the same object.
"""

from __future__ import annotations

import queue

import procession
from procession._homes import arrived
from procession._proxies import MakeProxyType, Token, public_methods
from procession._proxies.kinds import (
    AcquirerProxy,
    BarrierProxy,
    ConditionProxy,
    DictProxy,
    EventProxy,
    ListProxy,
    NamespaceProxy,
    ValueProxy,
)
from procession._residents import Resident, remote_error

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["KINDS", "Kind", "Methods", "proxy_for"]


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


class Kind:
    """What there is for objects of one kind.

    Args:
        module: The module of this package that has the class of the objects.
        name: The name of that class.
        proxytype: The class of the proxies.
    """

    __slots__ = ("_module", "_name", "proxytype")

    def __init__(self, module: str, name: str, proxytype: Any) -> None:
        self._module = module
        self._name = name
        self.proxytype = proxytype

    def resident(self) -> type[Resident]:
        """Return the class of the objects. Imports it if this process has had none."""
        module = procession._submodule(f"_residents.{self._module}")
        found: type[Resident] = getattr(module, self._name)
        return found


def _queue_proxy(typeid: str) -> Any:
    """Return what `AutoProxy` makes for a queue."""
    proxytype: Any = MakeProxyType(f"AutoProxy[{typeid}]", public_methods(queue.Queue))
    proxytype._isauto = True
    return proxytype


# By what managers call them.
KINDS: dict[str, Kind] = {
    "Queue": Kind("queues", "Queue", _queue_proxy("Queue")),
    "JoinableQueue": Kind("queues", "Queue", _queue_proxy("JoinableQueue")),
    "Event": Kind("events", "Event", EventProxy),
    "Lock": Kind("locks", "Lock", AcquirerProxy),
    "RLock": Kind("locks", "RLock", AcquirerProxy),
    "Semaphore": Kind("locks", "Semaphore", AcquirerProxy),
    "BoundedSemaphore": Kind("locks", "BoundedSemaphore", AcquirerProxy),
    "Condition": Kind("conditions", "Condition", ConditionProxy),
    "Barrier": Kind("events", "Barrier", BarrierProxy),
    "list": Kind("containers", "List", ListProxy),
    "dict": Kind("containers", "Dict", DictProxy),
    "Value": Kind("containers", "Value", ValueProxy),
    "Namespace": Kind("containers", "Namespace", NamespaceProxy),
}


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
    proxytype = KINDS[typeid].proxytype
    proxy = proxytype.__new__(proxytype)
    methods = Methods(resident, proxytype._exposed_)
    proxy._settle(Token(typeid, resident.home.address, ident), methods, manager, authkey)
    return proxy


def _arrived(typeid: str, ident: str, authkey: bytes | None, home: int, *parts: Any) -> Any:
    """Return the proxy that a pickle describes."""
    resident = KINDS[typeid].resident().of_parts(arrived(home), *parts)
    return proxy_for(typeid, ident, resident, None, authkey)
