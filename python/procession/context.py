"""Contexts: the API of the package, bound to a start method."""

from __future__ import annotations

import sys
from collections import ChainMap

from procession import _stdlib
from procession._missing import MissingFromContext, refuse

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ClassVar, NoReturn

    from procession.pool import Pool
    from procession.queues import Queue


__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
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

ProcessError = _stdlib.context.ProcessError
BufferTooShort = _stdlib.context.BufferTooShort
TimeoutError = _stdlib.context.TimeoutError
AuthenticationError = _stdlib.context.AuthenticationError

assert_spawning = _stdlib.context.assert_spawning
get_spawning_popen = _stdlib.context.get_spawning_popen
set_spawning_popen = _stdlib.context.set_spawning_popen
reduction = _stdlib.reduction


class Process(_stdlib.process.BaseProcess):
    """Activity that is run in a process of its own, by the default start method."""

    _start_method: str | None = None

    @staticmethod
    def _Popen(process_obj: _stdlib.process.BaseProcess) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)


class ForkProcess(_stdlib.process.BaseProcess):
    """Activity that is run in a copy of this process."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj: _stdlib.process.BaseProcess) -> Any:
        from procession.popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(_stdlib.process.BaseProcess):
    """Activity that is run in a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj: _stdlib.process.BaseProcess) -> Any:
        from procession.popen_spawn_posix import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        """Do nothing: there is no copy of the parent's state."""


class BaseContext(MissingFromContext, _stdlib.context.BaseContext):
    """What all contexts have in common."""

    Process: ClassVar[type[Any]] = Process

    def Queue(self, maxsize: int = 0) -> Queue[Any]:  # type: ignore[override]
        """Return a queue that any process of the tree can use."""
        from procession.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def Pool(  # type: ignore[override]
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        retries: int = 0,
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
        )

    def freeze_support(self) -> None:
        """Run the child's code if this is a frozen executable started as a child."""
        if getattr(sys, "frozen", False):
            from procession.spawn import freeze_support

            freeze_support()

    def get_context(self, method: str | None = None) -> Any:
        """Return this context, or the one for a start method."""
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context


class DefaultContext(_stdlib.context.DefaultContext, BaseContext):
    """The context whose start method can be set, once."""

    Process: ClassVar[type[Any]] = Process

    def get_all_start_methods(self) -> list[str]:
        """Return the start methods that there are, the default first."""
        return ["fork", "spawn"]


class ForkContext(BaseContext):
    """Children are copies of this process."""

    _name = "fork"
    Process: ClassVar[type[Any]] = ForkProcess


class SpawnContext(BaseContext):
    """Children are fresh interpreters."""

    _name = "spawn"
    Process: ClassVar[type[Any]] = SpawnProcess


class _ForkServerContext(BaseContext):
    _name = "forkserver"

    def _check_available(self) -> NoReturn:
        refuse("the start method forkserver")


# Contexts that other packages registered with the original are found here too.
_concrete_contexts: ChainMap[str, Any] = ChainMap(
    {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": _ForkServerContext()},
    vars(_stdlib.context)["_concrete_contexts"],
)
_default_context = DefaultContext(_concrete_contexts["fork"])


def _force_start_method(method: str) -> None:
    """Make `method` the default in this process, which was started by it."""
    _default_context.set_start_method(method, force=True)
