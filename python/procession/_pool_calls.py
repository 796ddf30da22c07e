"""What a pool can be asked to do: `apply`, `map`, `imap` and their kin.

`Pool` in `procession.pool` adds how a pool begins and ends. Here arguments become what the engine
takes: tasks of so many items each, and limits. The state of a call is the engine's.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from procession._procession import ApplyResult, IMapIterator, MapResult
    from procession._procession import Pool as Engine

__all__ = ["PoolCalls", "given"]

# Tasks for each worker that `imap` submits ahead, unless told otherwise.
_AHEAD = 64


def given(**options: Any) -> dict[str, Any]:
    """Return those that are not `None`."""
    return {name: value for name, value in options.items() if value is not None}


class PoolCalls:
    """The part of `Pool` that carries out calls."""

    _engine: Engine
    _processes: int

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
        limits = given(timeout=timeout, retries=retries)
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
        limits = given(timeout=timeout, retries=retries)
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
        limits = given(timeout=timeout, retries=retries)
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
        limits = given(timeout=timeout, retries=retries)
        return self._imap(func, iterable, chunksize, buffersize, False, progress, limits)

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
        limits = given(timeout=timeout, retries=retries, fail_fast=fail_fast or None)
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


def _watched(result: MapResult[Any], progress: bool | str) -> MapResult[Any]:
    if progress:
        from procession import _progress

        _progress.watch(result, progress)
    return result


# `Pool` is where users find them, and what errors are to name.
for _thing in list(vars(PoolCalls).values()):
    if callable(_thing):
        _thing.__module__ = "procession.pool"
        _thing.__qualname__ = _thing.__qualname__.replace("PoolCalls", "Pool")
