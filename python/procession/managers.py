"""Managers: a process that holds objects, and proxies for them in other processes.

The server's sockets, threads and reference counts are native; what it holds are Python objects. It
serves programs of the standard library too, and proxies reach its servers.

Here is what users import, and what a `SyncManager` makes. The parts are in modules of their own:
`_base_manager` and `_memory_manager`; `_proxies` and `_links`, which clients need;
`_manager_server` and `_served`, which a server needs; `_homes` and `_residents`, for objects in
shared memory.
"""

from __future__ import annotations

import array
import queue
import sys
import threading

import procession
from procession import _stdlib, connection
from procession._base_manager import STANDARD, BaseManager, State  # noqa: F401
from procession._links.messages import dispatch  # noqa: F401
from procession._manager_server import Server  # noqa: F401
from procession._proxies import (  # noqa: F401 -- users import all of them from here
    AutoProxy,
    BaseProxy,
    MakeProxyType,
    RebuildProxy,
    Token,
    all_methods,
    listener_client,
    public_methods,
)
from procession._proxies.kinds import (
    AcquirerProxy,
    ArrayProxy,
    BarrierProxy,
    BaseListProxy,
    BasePoolProxy,  # noqa: F401
    ConditionProxy,
    DictProxy,
    EventProxy,
    IteratorProxy,
    ListProxy,
    NamespaceProxy,
    PoolProxy,
    SetProxy,
    ValueProxy,
    _BaseDictProxy,
)
from procession._served.values import Array, Namespace, Value

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from procession._memory_manager import SharedMemoryManager, SharedMemoryServer  # noqa: F401

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

HAS_SHMEM = True

_NEW_IN_314 = sys.version_info >= (3, 14)


def reduce_array(a: array.array[Any]) -> Any:
    """Return how to make an array from its bytes."""
    return array.array, (a.typecode, a.tobytes())


def rebuild_as_list(obj: Iterable[Any]) -> Any:
    """Return how to make a list of what a view of a dictionary shows."""
    return list, (list(obj),)


def _register(original: Any) -> None:
    original.register(array.array, reduce_array)
    for view in ("items", "keys", "values"):
        original.register(type(getattr({}, view)()), rebuild_as_list)


_stdlib.register_reducers(_register)


def _pool(*args: Any, **kwds: Any) -> Any:
    """Return a pool. Its module is imported where one is made."""
    from procession.pool import Pool

    return Pool(*args, **kwds)


class SyncManager(BaseManager):
    """A manager of what threads and processes share most: dictionaries, lists, locks, queues."""


_REGISTERED: tuple[tuple[str, Any, Any], ...] = (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", _pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("Value", Value, ValueProxy),
    ("Array", Array, ArrayProxy),
    ("Namespace", Namespace, NamespaceProxy),
)
for _typeid, _callable, _proxytype in _REGISTERED:
    SyncManager.register(_typeid, _callable, _proxytype)
# Of what methods of pools and dictionaries return.
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)
STANDARD.update(SyncManager._registry)

if _NEW_IN_314:
    import collections.abc

    collections.abc.MutableSequence.register(BaseListProxy)
    collections.abc.MutableMapping.register(_BaseDictProxy)
    SyncManager.register("set", set, SetProxy)


def __getattr__(name: str) -> Any:
    """Return what the original has besides, such as `RemoteError`."""
    if name in ("SharedMemoryManager", "SharedMemoryServer"):
        # Few programs need them.
        globals()[name] = getattr(procession._submodule("_memory_manager"), name)
        return globals()[name]
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "reduction":
        return connection.reduction
    return getattr(_stdlib.load("managers"), name)
