"""Pools of worker processes."""

from __future__ import annotations

import operator
import warnings

from procession import _process, _stdlib
from procession import context as contexts
from procession._procession import (
    ApplyResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    cpu_count,
)
from procession._procession import Pool as _Engine
from procession._workers import Launcher

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
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

# Tasks for each worker that `imap` submits ahead, unless told otherwise.
_AHEAD = 64

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


class Pool:
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
        options = _given(max_memory=max_memory_per_child, affinity=affinity)
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

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        *,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> Any:
        """Return `func(*args, **kwds)`, called in a worker; block until it is done.

        Args:
            func: What to call, with `args` and `kwds`.
            timeout: Most seconds that the call may take once a worker has begun it. Then the
                worker is killed and replaced, and this raises `TaskTimeoutError`.
            retries: As for the pool, for this call.

        Raises:
            WorkerDiedError: The worker died while it carried out the call.
            BrokenPoolError: No worker can start; the text says why.
            ValueError: The pool is closed or terminated.
            ProcessError: It was terminated before the call was done.
            Exception: What the call raised, with the worker's traceback as its `__cause__`; or what
                pickling raises, and the call is not made then.
        """
        limits = _given(timeout=timeout, retries=retries)
        return self._engine.apply(func, tuple(args), dict(kwds), **limits).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> ApplyResult[Any]:
        """Do what `apply` does, without waiting for it.

        The result has `get`, `cancel`, and can be awaited in a coroutine. `callback` is called with
        the value, or `error_callback` with what was raised, in the pool's one thread.
        """
        limits = _given(timeout=timeout, retries=retries)
        callbacks = (callback, error_callback)
        return self._engine.apply(func, tuple(args), dict(kwds), callbacks, **limits)

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        fail_fast: bool = False,
        progress: bool | str = False,
    ) -> list[Any]:
        """Return `[func(item) for item in iterable]`, called in the workers.

        Blocks until all is done. Then it raises what `apply` does, for the first item in order that
        has no result.

        Args:
            func: What to call, with each item.
            iterable: The items; all are read first.
            chunksize: Items in a task. If not given, 1 where there is a `timeout`, and else such
                that there are four tasks for each worker.
            timeout: As for `apply`, for each task.
            retries: As for the pool, for this call.
            fail_fast: Raise what a call raises as soon as it does, and do not begin the tasks that
                are left. Otherwise all tasks are carried out first, as the original does.
            progress: Whether to show a bar, which takes the package tqdm; a text to show with it.
                There is none without that package, nor where standard error is no terminal.
        """
        result = self._map(func, iterable, chunksize, False, None, timeout, retries, fail_fast)
        return _watched(result, progress).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        fail_fast: bool = False,
    ) -> MapResult[Any]:
        """Do what `map` does, without waiting for it; the result is as that of `apply_async`."""
        callbacks = (callback, error_callback)
        return self._map(func, iterable, chunksize, False, callbacks, timeout, retries, fail_fast)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        fail_fast: bool = False,
        progress: bool | str = False,
    ) -> list[Any]:
        """Return `[func(*item) for item in iterable]`, called in the workers; see `map`."""
        result = self._map(func, iterable, chunksize, True, None, timeout, retries, fail_fast)
        return _watched(result, progress).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        fail_fast: bool = False,
    ) -> MapResult[Any]:
        """Do what `starmap` does, without waiting for it."""
        callbacks = (callback, error_callback)
        return self._map(func, iterable, chunksize, True, callbacks, timeout, retries, fail_fast)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        progress: bool | str = False,
    ) -> IMapIterator[Any]:
        """Return an iterator over what `map` returns, without waiting for it.

        An item without a result raises in its place, and the iterator goes on behind it.

        Args:
            func: What to call, with each item.
            iterable: The items. They are read as results are asked for.
            chunksize: Items in a task.
            buffersize: Most tasks that are submitted and not yet asked for. If not given, 64 for
                each worker.
            timeout: As for `apply`, for each task.
            retries: As for the pool, for this call.
            progress: As for `map`.
        """
        limits = _given(timeout=timeout, retries=retries)
        return self._imap(func, iterable, chunksize, buffersize, True, progress, limits)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        buffersize: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        progress: bool | str = False,
    ) -> IMapIterator[Any]:
        """Return an iterator over what `imap` gives, in the order in which it is ready."""
        limits = _given(timeout=timeout, retries=retries)
        return self._imap(func, iterable, chunksize, buffersize, False, progress, limits)

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
        cls = type(self)
        if cls is Pool:
            self.__class__ = _compatible()
        else:
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
            self.__class__ = type(cls.__name__, (cls, _compatible()), names)
        original = _stdlib.load("pool").Pool
        original.__init__(self, _or_cpu_count(processes), *args, self._ctx)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callbacks: Any,
        timeout: float | None,
        retries: int | None,
        fail_fast: bool,
    ) -> MapResult[Any]:
        items = list(iterable)
        if chunksize is None and timeout is not None:
            chunksize = 1
        chunksize = self._chunksize(len(items), chunksize)
        limits = _given(timeout=timeout, retries=retries, fail_fast=fail_fast or None)
        return self._engine.map(func, items, chunksize, star, callbacks, **limits)

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        ordered: bool,
        progress: bool | str,
        limits: dict[str, Any],
    ) -> IMapIterator[Any]:
        chunksize = self._chunksize(0, chunksize)
        if buffersize is None:
            buffersize = _AHEAD * self._processes
        elif buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        results: IMapIterator[Any]
        results = self._engine.imap(func, iterable, chunksize, buffersize, ordered, **limits)
        if not progress:
            return results
        from procession import _progress

        sized: Any = iterable
        total = len(sized) if hasattr(sized, "__len__") else None
        watched: IMapIterator[Any] = _progress.iterator(results, total, progress)
        return watched

    def _chunksize(self, items: int, chunksize: int | None) -> int:
        if chunksize is None:
            # Four chunks for each worker, so that a slow one delays the end by little.
            return max(1, -(-items // (self._processes * 4)))
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        return chunksize


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


def _given(**options: Any) -> dict[str, Any]:
    """Return those that are not `None`."""
    return {name: value for name, value in options.items() if value is not None}


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


def _watched(result: MapResult[Any], progress: bool | str) -> MapResult[Any]:
    if progress:
        from procession import _progress

        _progress.watch(result, progress)
    return result


def _needs_original(cls: type[Any], ctx: Any) -> bool:
    """Say whether a pool must work inside as the original does."""
    if cls is not Pool and any(getattr(cls, hook, None) is not _OWN[hook] for hook in _HOOKS):
        return True
    process = getattr(ctx, "Process", None)
    return not (isinstance(process, type) and issubclass(process, _process._Process))


_OWN = {hook: getattr(Pool, hook, None) for hook in _HOOKS}


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

        _CompatiblePool.__qualname__ = _CompatiblePool.__name__ = Pool.__name__
        found = globals()["_CompatiblePool"] = _CompatiblePool
    return found  # type: ignore[no-any-return]


def _thread_pool() -> type[Any]:
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

    ThreadPool.__module__ = __name__
    ThreadPool.__qualname__ = "ThreadPool"
    return ThreadPool


def __getattr__(name: str) -> Any:
    """Return what the original has besides."""
    if name == "ThreadPool":
        globals()[name] = _thread_pool()
        return globals()[name]
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_stdlib.load("pool"), name)
