"""Pools of worker processes."""

from __future__ import annotations

import operator
import os
import warnings

from procession import _stdlib
from procession import context as contexts
from procession._procession import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult
from procession._procession import Pool as _Engine
from procession._workers import Launcher

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, NoReturn, Self

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "Pool",
]

AsyncResult = ApplyResult

_util = _stdlib.load("util")

# Tasks for each worker that `imap` submits ahead, unless told otherwise.
_WINDOW = 64


class Pool:
    """Worker processes that carry out calls.

    A worker that dies fails the task that it was carrying out with `WorkerDiedError` and is
    replaced; all other tasks go on.

    Args:
        processes: Number of workers; that of the machine's CPUs if not given.
        initializer: Called in every worker when it starts, with `initargs`.
        maxtasksperchild: Tasks after which a worker is replaced by a fresh one.
        context: The context that the workers are started by.
        retries: How often a task is carried out again after its worker died.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        retries: int = 0,
    ) -> None:
        if processes is None:
            processes = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        processes = operator.index(processes)
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._ctx = context or contexts._default_context.get_context()
        self._processes = processes
        self._pool: list[Any] = []
        work = (initializer, tuple(initargs), maxtasksperchild)
        launcher = Launcher(self.Process, self._ctx, self._pool, work)
        self._engine = _Engine(processes, retries, launcher)
        # Before the original ends and joins the children of this process, at its exit.
        self._terminate = _util.Finalize(self, self._engine.terminate, exitpriority=15)

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return the process object of a worker."""
        return ctx.Process(*args, **kwds)

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """Return `func(*args, **kwds)`, called in a worker."""
        return self._engine.apply(func, tuple(args), dict(kwds)).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult[Any]:
        """Call `func(*args, **kwds)` in a worker, without waiting for it."""
        return self._engine.apply(func, tuple(args), dict(kwds), (callback, error_callback))

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Return `[func(item) for item in iterable]`, called in the workers."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Any]:
        """Do what `map` does, without waiting for it."""
        items = list(iterable)
        chunksize = self._chunksize(len(items), chunksize)
        return self._engine.map(func, items, chunksize, False, (callback, error_callback))

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return `[func(*item) for item in iterable]`, called in the workers."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Any]:
        """Do what `starmap` does, without waiting for it."""
        items = list(iterable)
        chunksize = self._chunksize(len(items), chunksize)
        return self._engine.map(func, items, chunksize, True, (callback, error_callback))

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        window: int | None = None,
    ) -> IMapIterator[Any]:
        """Return an iterator over what `map` returns.

        The input is read as results are asked for; `window` is how many tasks it may be ahead.
        """
        return self._imap(func, iterable, chunksize, window, ordered=True)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        window: int | None = None,
    ) -> IMapIterator[Any]:
        """Return an iterator over the same results, in the order in which they are ready."""
        return self._imap(func, iterable, chunksize, window, ordered=False)

    def close(self) -> None:
        """Take no more calls. The workers end when those that were made are done."""
        self._engine.close()

    def terminate(self) -> None:
        """End the workers at once, whatever they are doing."""
        self._terminate()

    def join(self) -> None:
        """Block until the workers have ended. The pool must be closed or terminated."""
        self._engine.join()
        for worker in self._pool:
            worker.join()

    def __enter__(self) -> Self:
        if self._engine.state != "RUN":
            raise ValueError("Pool not running")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{name} state={self._engine.state} pool_size={len(self._pool)}>"

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)  # missing if `__init__` raised
        if engine is not None and engine.state == "RUN":
            message = f"unclosed running multiprocessing pool {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def _imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        window: int | None,
        ordered: bool,
    ) -> IMapIterator[Any]:
        chunksize = self._chunksize(0, chunksize)
        if window is None:
            window = _WINDOW * self._processes
        return self._engine.imap(func, iterable, chunksize, max(window, 1), ordered)

    def _chunksize(self, items: int, chunksize: int | None) -> int:
        if chunksize is None:
            # Four chunks for each worker, so that a slow one delays the end by little.
            return max(1, -(-items // (self._processes * 4)))
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        return chunksize


def __getattr__(name: str) -> Any:
    """Return what the original has besides, such as `ThreadPool`."""
    return getattr(_stdlib.load("pool"), name)
