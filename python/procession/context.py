"""Contexts: the API of the package, bound to a start method."""

from __future__ import annotations

import sys
from collections import ChainMap

from procession import _process, _stdlib, reduction
from procession._process import ForkProcess, ForkServerProcess, Process, SpawnProcess

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, ClassVar, Literal

    from procession.connection import Connection
    from procession.managers import SyncManager
    from procession.pool import Pool
    from procession.queues import JoinableQueue, Queue, SimpleQueue


__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "ProcessError",
    "SpawnContext",
    "SpawnProcess",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "reduction",
    "set_spawning_popen",
]

_original: Any = _stdlib.load("context")

ProcessError = _original.ProcessError
BufferTooShort = _original.BufferTooShort
TimeoutError = _original.TimeoutError
AuthenticationError = _original.AuthenticationError

assert_spawning = _original.assert_spawning
get_spawning_popen = _original.get_spawning_popen
set_spawning_popen = _original.set_spawning_popen


class BaseContext(_original.BaseContext):  # type: ignore[misc]
    """What all contexts have in common."""

    Process: ClassVar[type[Any]] = Process

    @property
    def reducer(self) -> Any:
        """The module, or object in its place, that says how objects become bytes."""
        return globals()["reduction"]

    @reducer.setter
    def reducer(self, reducer: Any) -> None:
        globals()["reduction"] = reducer

    def Queue(self, maxsize: int = 0) -> Queue[Any]:
        """Return a queue that any process of the tree can use."""
        from procession.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> JoinableQueue[Any]:
        """Return a queue that knows when all that was put into it has been dealt with."""
        from procession.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> SimpleQueue[Any]:
        """Return a queue without limits of size or time."""
        from procession.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Manager(self) -> SyncManager:
        """Return a manager whose server's process has been started."""
        from procession.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Return two connected ends."""
        from procession.connection import Pipe

        return Pipe(duplex)

    def allow_connection_pickling(self) -> None:
        """Let connections and sockets be sent to other processes, as they can be anyhow."""
        from procession import connection  # noqa: F401

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        retries: int = 0,
        max_memory_per_child: int | None = None,
        affinity: Sequence[Iterable[int]] | Literal["spread"] | None = None,
    ) -> Pool:
        """Return a pool of worker processes."""
        from procession.pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            context=self.get_context(),
            retries=retries,
            max_memory_per_child=max_memory_per_child,
            affinity=affinity,
        )

    def Lock(self, *, on_owner_death: Literal["warn", "raise"] = "warn") -> Any:
        """Return a lock that is not recursive.

        Args:
            on_owner_death: What `acquire` does when the process that held the lock was killed: take
                it over, set `owner_died` and log a warning, or raise `OwnerDiedError`.
        """
        from procession.synchronize import Lock

        return Lock(ctx=self.get_context(), on_owner_death=on_owner_death)

    def RLock(self, *, on_owner_death: Literal["warn", "raise"] = "warn") -> Any:
        """Return a lock that its owner can take several times.

        Args:
            on_owner_death: As for `Lock`, for a process that has ended too.
        """
        from procession.synchronize import RLock

        return RLock(ctx=self.get_context(), on_owner_death=on_owner_death)

    def Condition(self, lock: Any = None) -> Any:
        """Return a condition, over `lock` or a new recursive one."""
        from procession.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Any:
        """Return a semaphore with this many permits."""
        from procession.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Return a semaphore that refuses more releases than acquisitions."""
        from procession.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> Any:
        """Return an event, which is not set."""
        from procession.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Return a barrier at which `parties` processes wait for each other."""
        from procession.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a `ctypes` object in shared memory."""
        from procession.sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a `ctypes` array in shared memory."""
        from procession.sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a `ctypes` object in shared memory, with a lock unless `lock` is false."""
        from procession.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a `ctypes` array in shared memory, with a lock unless `lock` is false."""
        from procession.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def freeze_support(self) -> None:
        """Run the child's code if this is a frozen executable started as a child."""
        if getattr(sys, "frozen", False):
            from procession.spawn import freeze_support

            freeze_support()

    def set_executable(self, executable: Any) -> None:
        """Let children that are fresh interpreters run this program."""
        from procession.spawn import set_executable

        set_executable(executable)

    def set_forkserver_preload(self, module_names: list[str], *, on_error: str = "ignore") -> None:
        """Let the process that forkserver children are copies of import these modules first.

        Args:
            module_names: Names of the modules; `"__main__"` for the main module.
            on_error: What becomes of an import that fails: `"ignore"`, `"warn"` or `"fail"`.
        """
        from procession.forkserver import set_forkserver_preload

        set_forkserver_preload(module_names, on_error=on_error)

    def get_context(self, method: str | None = None) -> Any:
        """Return this context, or the one for a start method.

        Raises:
            ValueError: There is no such method.
        """
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context


class DefaultContext(_original.DefaultContext, BaseContext):  # type: ignore[misc]
    """The context whose start method can be set, once."""

    Process: ClassVar[type[Any]] = Process

    def __init__(self) -> None:
        """Leave the start method open: it is kept where a process finds it without contexts."""

    def get_context(self, method: str | None = None) -> Any:
        """Return the context for a start method; without one, for the one that is in use."""
        return BaseContext.get_context(
            self, _process.pin_start_method() if method is None else method
        )

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Choose the start method for all that is not made from another context.

        Args:
            method: `"fork"`, `"spawn"` or `"forkserver"`; `None`, with `force`, leaves it open.
            force: Whether it may be chosen anew.

        Raises:
            RuntimeError: It was chosen before, or something was made without choosing.
            ValueError: There is no such method.
        """
        if _process.start_method() is not None and not force:
            _process.refuse_on_import("context has already been set")
            raise RuntimeError("context has already been set")
        if method is None and force:
            _process.choose_start_method(None)
        else:
            _process.choose_start_method(self.get_context(method)._name)

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the start method that is in use."""
        return _process.start_method() if allow_none else _process.pin_start_method()

    def get_all_start_methods(self) -> list[str]:
        """Return the start methods that there are, the default first."""
        methods = ["fork", "spawn", "forkserver"]
        methods.sort(key=lambda method: method != _process.DEFAULT_START_METHOD)
        return methods

    @property
    def _actual_context(self) -> Any:
        """The context in use, under the name that the original has for it."""
        method = _process.start_method()
        return None if method is None else _concrete_contexts[method]

    @_actual_context.setter
    def _actual_context(self, context: Any) -> None:
        _process.choose_start_method(None if context is None else context._name)


class ForkContext(BaseContext):
    """Children are copies of this process."""

    _name = "fork"
    Process: ClassVar[type[Any]] = ForkProcess


class SpawnContext(BaseContext):
    """Children are fresh interpreters."""

    _name = "spawn"
    Process: ClassVar[type[Any]] = SpawnProcess


class ForkServerContext(BaseContext):
    """Children are copies of a process that has been kept small for that."""

    _name = "forkserver"
    Process: ClassVar[type[Any]] = ForkServerProcess


# Contexts that other packages registered with the original are found here too.
_concrete_contexts: ChainMap[str, Any] = ChainMap(
    {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": ForkServerContext()},
    _original._concrete_contexts,
)
_default_context = DefaultContext()


def _force_start_method(method: str) -> None:
    """Make `method` the default in this process, which was started by it."""
    _process.choose_start_method(method)
