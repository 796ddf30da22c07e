"""`concurrent.futures.ProcessPoolExecutor`, on the engine of `Pool`.

Its futures are those of `concurrent.futures`: `wait`, `as_completed` and `asyncio.wrap_future` take
them. Under `python -m procession` and after `procession.install()` this class is the one that
`concurrent.futures` has. The calls, and what becomes of them, are in `_executor_work`.
"""

from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import Executor, Future
from concurrent.futures import process as _original
from concurrent.futures.process import BrokenProcessPool

from procession import context as contexts
from procession import errors
from procession._executor_work import Work, WorkerDiedError, at_exit, results_of
from procession._procession import Pool as _Engine
from procession._procession import cpu_count
from procession._workers import ExecutorInitializer, Launcher, Star, starts_ours

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "WorkerDiedError"]

# What subclasses replace to change how the original works inside.
_HOOKS = (
    "_adjust_process_count",
    "_launch_processes",
    "_spawn_process",
    "_start_executor_manager_thread",
)


class ProcessPoolExecutor(Executor):
    """Worker processes that carry out calls, as `concurrent.futures` has them.

    All workers are started with the first call. One that dies fails the call that it was carrying
    out with `WorkerDiedError`, and is replaced. When no worker can start, as when the initializer
    raises, every call fails with `BrokenProcessPool`, which says why. The interpreter does not end
    before all calls that were submitted are done.

    Args:
        max_workers: Number of workers. If not given, that of the processors that this process may
            use, as the scheduler and the control group say.
        mp_context: The context that the workers are started by.
        initializer: Called in every worker when it starts, with `initargs`.
        max_tasks_per_child: Tasks after which a worker is replaced by a fresh one. Without a
            context the workers are then started by spawn, as in the original.

    Example:
        ```python
        from procession.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as executor:
                print(executor.submit(pow, 2, 10).result())
                print(list(executor.map(abs, [-1, -2], buffersize=100)))
        ```
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        self._mp_context = mp_context or _default_context(max_tasks_per_child)
        if _needs_original(type(self), self._mp_context):
            self._become_original(
                max_workers, initializer, initargs, max_tasks_per_child=max_tasks_per_child
            )
            return
        _check(max_workers, initializer, max_tasks_per_child)
        self._max_workers = cpu_count() if max_workers is None else max_workers
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._max_tasks_per_child = max_tasks_per_child
        self._shutdown_lock = threading.Lock()
        self._shutdown_thread = False
        self._workers: list[Any] | None = []
        self._work: Work | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(*args, **kwargs)` called in a worker, and return a future for it.

        The future can be cancelled until a worker begins the call. It has the exception if
        something cannot be pickled.

        Raises:
            RuntimeError: The executor is shut down, or the interpreter.
            BrokenProcessPool: No worker can start.
        """
        work = self._running_work()
        try:
            return work.submit(fn, args, kwargs)
        except errors.BrokenPoolError as error:
            raise BrokenProcessPool(str(error)) from None

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over `map(fn, *iterables)`, called in the workers.

        Args:
            fn: What to call, with an item of each of the iterables.
            timeout: Most seconds from this call until a result is there.
            chunksize: Items in a task.
            buffersize: Most tasks that are submitted and not yet asked for. If not given, all
                items are read and submitted here.

        Raises:
            TimeoutError: The next result was not there in time.
            Exception: What a call raised. Tasks that no worker has begun are then given up, as they
                are when the iterator is closed.
        """
        if isinstance(self, _Original):
            # It has packed the chunks itself, and asks its base class.
            return super().map(fn, *iterables, timeout=timeout, **_given(buffersize))
        _check_map(chunksize, buffersize)
        end = None if timeout is None else time.monotonic() + timeout
        work = self._running_work()
        items = iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)
        if len(iterables) != 1:
            fn = Star(fn)
        try:
            results = work.imap(fn, items, chunksize, buffersize)
        except errors.BrokenPoolError as error:
            raise BrokenProcessPool(str(error)) from None
        return results_of(results, end, work)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let the workers end when those that were made are done.

        Args:
            wait: Whether to block until they have ended.
            cancel_futures: Whether to cancel the calls that no worker has begun.
        """
        with self._shutdown_lock:
            self._shutdown_thread = True
            work, self._work = self._work, None
            workers, self._workers = self._workers, None
        if work is None:
            return
        if cancel_futures:
            work.cancel_all()
        work.close()
        if wait:
            work.join()
            for worker in workers or ():
                worker.join()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: object, exc_tb: object
    ) -> None:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt):
            # Ctrl-C: the user does not want to wait. The workers pay no heed to it themselves.
            self.kill_workers()
        self.shutdown(wait=True)

    def terminate_workers(self) -> None:
        """End the workers by `SIGTERM`, and shut the executor down without waiting."""
        self._end_workers("terminate")

    def kill_workers(self) -> None:
        """End the workers by `SIGKILL`, and shut the executor down without waiting."""
        self._end_workers("kill")

    @property
    def _processes(self) -> dict[int, Any] | None:
        """The workers that live, by process id; `None` after a shutdown, as in the original."""
        workers = self._workers
        return None if workers is None else {worker.pid: worker for worker in workers}

    @property
    def _broken(self) -> bool:
        """Whether no worker can start."""
        return self._work is not None and self._work.is_over()

    def _end_workers(self, way: str) -> None:
        work, workers = self._work, list(self._workers or ())
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            if worker.is_alive():
                getattr(worker, way)()
        if work is not None:
            work.terminate()

    def _running_work(self) -> Work:
        with self._shutdown_lock:
            if self._shutdown_thread:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if at_exit.begun:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._work is None:
                self._work = self._start()
            return self._work

    def _start(self) -> Work:
        workers: list[Any] = []
        self._workers = workers
        first = ExecutorInitializer(self._initializer)
        job = (first, self._initargs, self._max_tasks_per_child)
        launcher = Launcher(_make_worker, self._mp_context, workers, job, label="Process")
        work = Work(_Engine(self._max_workers, 0, launcher))
        at_exit.works.add(work)
        # An executor that is forgotten finishes what it was given.
        weakref.finalize(self, work.close).atexit = False
        return work

    def _become_original(self, max_workers: int | None, *args: Any, **options: Any) -> None:
        """Go on as an executor whose methods are the original's."""
        cls = type(self)
        if cls is ProcessPoolExecutor:
            self.__class__ = _CompatibleExecutor
        else:
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
            self.__class__ = type(cls.__name__, (cls, _CompatibleExecutor), names)
        if max_workers is None:
            max_workers = cpu_count()
        _Original.__init__(self, max_workers, self._mp_context, *args, **options)


def _make_worker(ctx: Any, *args: Any, **kwds: Any) -> Any:
    return ctx.Process(*args, **kwds)


def _default_context(max_tasks_per_child: int | None) -> Any:
    if max_tasks_per_child is None:
        return contexts._default_context.get_context()
    return contexts._default_context.get_context("spawn")


def _check(max_workers: Any, initializer: Any, max_tasks_per_child: Any) -> None:
    """Refuse what the original refuses."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is not None:
        if not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")


def _check_map(chunksize: int, buffersize: int | None) -> None:
    """Refuse what the original refuses."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def _given(buffersize: int | None) -> dict[str, int]:
    return {} if buffersize is None else {"buffersize": buffersize}


# Where its name was given away, its module has it all the same.
_Original: Any = vars(_original)["ProcessPoolExecutor"]


def _needs_original(cls: type[Any], ctx: Any) -> bool:
    """Say whether an executor must work inside as the original does."""
    if any(hasattr(cls, hook) for hook in _HOOKS):
        return True
    return not starts_ours(ctx)


class _CompatibleExecutor(_Original, ProcessPoolExecutor):  # type: ignore[misc]
    """An executor whose methods are the original's."""

    # Attributes there, properties here.
    _processes: Any = None
    _broken: Any = False
