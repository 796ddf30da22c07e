"""Pools of worker processes: how one begins, what is known of it, and how it ends.

What a pool carries out is in `_pool_calls`, what its workers do in `_workers`; the tasks, results
and deaths are the engine's. `_pool_original` is for pools that work as the original's do.
"""

from __future__ import annotations

import operator
import warnings

from procession import _stdlib
from procession import context as contexts
from procession._pool_calls import PoolCalls, given
from procession._procession import (
    ApplyResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    cpu_count,
)
from procession._procession import Pool as _Engine
from procession._workers import Launcher, starts_ours

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Literal, NoReturn, Self

    # What the original has besides.
    ThreadPool: Any

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "Pool",
    "ThreadPool",
]

AsyncResult = ApplyResult

INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

_util = _stdlib.load("util")

# What subclasses replace to change how the original works inside.
_HOOKS = (
    "_check_running",
    "_get_sentinels",
    "_get_tasks",
    "_get_worker_sentinels",
    "_guarded_task_generation",
    "_handle_results",
    "_handle_tasks",
    "_handle_workers",
    "_help_stuff_finish",
    "_join_exited_workers",
    "_maintain_pool",
    "_map_async",
    "_repopulate_pool",
    "_repopulate_pool_static",
    "_setup_queues",
    "_terminate_pool",
    "_wait_for_updates",
    "_wrap_exception",
)


class Pool(PoolCalls):
    """Worker processes that carry out calls.

    A worker that dies fails the task that it was carrying out with `WorkerDiedError` and is
    replaced; all other tasks go on. Workers pay no heed to Ctrl-C, and end with this process
    however it ends. A worker may start processes and pools of its own, which end with it.

    A subclass that replaces a private method of the original, such as `_setup_queues`, and a pool
    whose `context` is not of this package, work as the original does, without what follows the
    `*` in the signatures.

    Args:
        processes: Number of workers. If not given, that of the processors that this process may
            use, as the scheduler and the control group say.
        initializer: Called in every worker when it starts, with `initargs`. If it raises, the pool
            is broken: every call raises `BrokenPoolError`, which says why.
        maxtasksperchild: Tasks after which a worker is replaced by a fresh one.
        context: The context that the workers are started by.
        retries: How often a task is carried out again after its worker died.
        max_memory_per_child: Bytes of memory of its own with which a worker is replaced by a fresh
            one, after the task at hand.
        affinity: The processors that each worker may use: one set for each, in turn where there
            are fewer sets than workers. `"spread"` for one processor each.

    Example:
        ```python
        from procession import Pool

        def square(x):
            return x * x

        if __name__ == "__main__":
            with Pool(2, retries=1) as pool:
                print(pool.map(square, range(10)))
                print(pool.apply_async(square, (3,), timeout=60).get())
        ```
    """

    _wrap_exception = True

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        retries: int = 0,
        max_memory_per_child: int | None = None,
        affinity: Sequence[Iterable[int]] | Literal["spread"] | None = None,
    ) -> None:
        # There for `__del__` if anything here raises.
        self._pool: list[Any] = []
        self._state = INIT
        self._ctx = context or contexts._default_context.get_context()
        options = given(max_memory=max_memory_per_child, affinity=affinity)
        if _needs_original(type(self), self._ctx):
            if retries or options:
                raise ValueError(_ONLY_NATIVE)
            self._become_original(processes, initializer, initargs, maxtasksperchild)
            return
        self._processes = _checked(processes, initializer, maxtasksperchild)
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._maxtasksperchild = maxtasksperchild
        work = (initializer, self._initargs, maxtasksperchild)
        launcher = Launcher(self.Process, self._ctx, self._pool, work)
        self._engine = _Engine(self._processes, retries, launcher, **options)
        # Before the original ends and joins the children of this process, at its exit.
        self._terminate = _util.Finalize(self, self._engine.terminate, exitpriority=15)
        self._state = RUN

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return the process object of a worker."""
        return ctx.Process(*args, **kwds)

    def stats(self) -> dict[str, Any]:
        """Return what the pool has done and is doing.

        The numbers of tasks `done`, `failed` (they raised), `lost` (their worker died),
        `timed_out`, `cancelled`, `waiting` and `running`; those of `retries`, `deaths` and
        `restarts`; and under `workers` a dictionary for each, with `pid`, `name`, `state`
        ("starting", "idle", "running" or "ending"), the number of its `tasks`, the seconds it was
        `busy` with them, and the seconds `since` it is in that state, `None` while it starts or
        ends. A task of `map` is a chunk.
        """
        return self._engine.stats()

    def close(self) -> None:
        """Take no more calls. The workers end when those that were made are done."""
        if self._state == RUN:
            self._state = CLOSE
        self._engine.close()

    def terminate(self) -> None:
        """End the workers at once, whatever they are doing.

        Calls that are not done raise `ProcessError`.
        """
        self._state = TERMINATE
        self._terminate()

    def join(self) -> None:
        """Block until the workers have ended.

        Raises:
            ValueError: The pool is neither closed nor terminated.
        """
        self._engine.join()
        for worker in self._pool:
            worker.join()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} state={self._state} pool_size={len(self._pool)}>"

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    # Bound here, since modules may be empty by the time it is called.
    def __del__(self, _warn: Callable[..., None] = warnings.warn, _run: str = RUN) -> None:
        # A copy in another process is not that process's to close.
        if self._state == _run and self._engine.state != "INHERITED":
            message = f"unclosed running multiprocessing pool {self!r}"
            _warn(message, ResourceWarning, stacklevel=2, source=self)

    @property
    def _cache(self) -> _Pending:
        """As long as there are tasks without a result; programs look at its length."""
        return _Pending(self._engine)

    @property
    def _taskqueue(self) -> _Backlog:
        return _Backlog(self._engine)

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def _repopulate_pool(self) -> None:
        """Do nothing: the engine replaces workers when they end."""

    def _become_original(self, processes: Any, *args: Any) -> None:
        """Go on as a pool whose methods are the original's."""
        from procession._pool_original import become_original

        become_original(self, processes, *args)


class _Backlog:
    """Says how many tasks wait for a worker; programs ask `pool._taskqueue` for that."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def qsize(self) -> int:
        waiting: int = self._engine.stats()["waiting"]
        return waiting

    def empty(self) -> bool:
        return self.qsize() == 0


class _Pending:
    """Says how many tasks have no result yet; programs take the length of `pool._cache`."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def __len__(self) -> int:
        stats = self._engine.stats()
        pending: int = stats["waiting"] + stats["running"]
        return pending


_ONLY_NATIVE = (
    "retries, max_memory_per_child and affinity need a context of procession, and a class that "
    "replaces no private method of Pool"
)


def _or_cpu_count(processes: Any) -> Any:
    return cpu_count() if processes is None else processes


def _checked(processes: Any, initializer: Any, maxtasksperchild: Any) -> int:
    """Return the number of workers, and refuse what the original refuses."""
    number = operator.index(_or_cpu_count(processes))
    if number < 1:
        raise ValueError("Number of processes must be at least 1")
    if maxtasksperchild is not None and (
        not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
    ):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    return number


def _needs_original(cls: type[Any], ctx: Any) -> bool:
    """Say whether a pool must work inside as the original does."""
    if cls is not Pool and any(getattr(cls, hook, None) is not _OWN[hook] for hook in _HOOKS):
        return True
    return not starts_ours(ctx)


_OWN = {hook: getattr(Pool, hook, None) for hook in _HOOKS}


def __getattr__(name: str) -> Any:
    """Return what the original has besides."""
    if name == "ThreadPool":
        from procession._pool_original import thread_pool

        globals()[name] = thread_pool()
        return globals()[name]
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_stdlib.load("pool"), name)
