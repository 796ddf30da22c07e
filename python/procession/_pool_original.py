"""Pools that work inside as the original's do: for subclasses that change that, and for threads.

`procession.pool` imports this when a program has such a class, or asks for `ThreadPool`.
"""

from __future__ import annotations

from procession import _stdlib
from procession.pool import TERMINATE, Pool, _or_cpu_count

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

__all__ = ["become_original", "thread_pool"]


def become_original(pool: Any, processes: Any, *args: Any) -> None:
    """Have a pool that is being made go on as one whose methods are the original's."""
    cls = type(pool)
    if cls is Pool:
        pool.__class__ = _compatible()
    else:
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        pool.__class__ = type(cls.__name__, (cls, _compatible()), names)
    original = _stdlib.load("pool").Pool
    original.__init__(pool, _or_cpu_count(processes), *args, pool._ctx)


def _compatible() -> type[Any]:
    """Return the class whose methods are the original's, and which is a `Pool` all the same."""
    found: Any = globals().get("_CompatiblePool")
    if found is None:
        original: Any = _stdlib.load("pool").Pool

        class _CompatiblePool(original, Pool):  # type: ignore[misc]
            # Plain attributes of the original's.
            _cache: Any = None
            _taskqueue: Any = None

            def stats(self) -> NoReturn:
                raise NotImplementedError(
                    "this pool works as the original does, which counts nothing"
                )

        _CompatiblePool.__module__ = Pool.__module__
        _CompatiblePool.__qualname__ = _CompatiblePool.__name__ = Pool.__name__
        found = globals()["_CompatiblePool"] = _CompatiblePool
    return found  # type: ignore[no-any-return]


def thread_pool() -> type[Any]:
    """Return the class of pools of threads."""
    original: Any = _stdlib.load("pool").ThreadPool

    class ThreadPool(original, _compatible()):  # type: ignore[misc]
        """Threads behind the interface of `Pool`."""

        def __init__(
            self,
            processes: int | None = None,
            initializer: Callable[..., object] | None = None,
            initargs: Iterable[Any] = (),
        ) -> None:
            super().__init__(_or_cpu_count(processes), initializer, initargs)

        def terminate(self) -> None:
            """End the threads after the tasks that they have begun."""
            # Before the original wakes the thread that hands tasks out.
            self._task_handler._state = TERMINATE
            super().terminate()

    ThreadPool.__module__ = Pool.__module__
    ThreadPool.__qualname__ = "ThreadPool"
    return ThreadPool
