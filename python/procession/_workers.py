"""The worker processes of a pool: how they are started, and what they do."""

from __future__ import annotations

# Not `signal`: that turns all its constants into enumerations, and every worker imports this.
import _signal  # type: ignore[import-not-found]
import sys

from procession import _process, _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import MethodType
    from typing import Any

    from procession._procession import Child, WorkerBoot


class Launcher:
    """Starts the workers of a pool. Knows nothing of the pool, which must be free to go."""

    def __init__(
        self,
        process: Callable[..., Any],
        ctx: Any,
        workers: list[Any],
        work: tuple[Any, ...],
        label: str = "PoolWorker",
    ) -> None:
        # A subclass may have made a method of it, which holds the pool.
        bound = getattr(process, "__self__", None) is not None and hasattr(process, "__func__")
        self._process = _Method(process) if bound else process  # type: ignore[arg-type]
        self._ctx = ctx
        self._workers = workers
        self._work = work
        self._label = label

    def __call__(self, boot: WorkerBoot) -> tuple[Child, str]:
        worker = self._process(self._ctx, target=_work, args=(boot, *self._work))
        worker.name = worker.name.replace("Process", self._label)
        worker.daemon = True
        worker.start()
        # Whoever looks at the list sees the old workers or the new ones.
        ended = [one for one in self._workers if one.exitcode is not None]
        self._workers[:] = [*(one for one in self._workers if one not in ended), worker]
        for one in ended:
            one.join()
        return worker._popen._child, worker.name


def starts_ours(ctx: Any) -> bool:
    """Say whether the processes of a context are of this package, as `Launcher` needs them."""
    process = getattr(ctx, "Process", None)
    return isinstance(process, type) and issubclass(process, _process._Process)


class ExecutorInitializer:
    """Prepares a worker of an executor, where things are a little different."""

    def __init__(self, initializer: Callable[..., object] | None) -> None:
        self._initializer = initializer

    def __call__(self, *initargs: Any) -> None:
        # It ends with its parent as a daemonic process does, but in the original it is none, which
        # is what programs look at before they start processes of their own.
        _stdlib.process.current_process()._config["daemon"] = False
        if self._initializer is None:
            return
        try:
            self._initializer(*initargs)
        except BaseException:
            from concurrent.futures._base import LOGGER

            LOGGER.critical("Exception in initializer:", exc_info=True)
            raise


class Star:
    """Calls a function with the items of a tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self._fn(*args)


class _Method:
    """A method of an object that may go."""

    def __init__(self, method: MethodType) -> None:
        import weakref

        self._method = weakref.WeakMethod(method)

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        method = self._method()
        if method is None:
            raise ReferenceError("the pool is gone")
        return method(*args, **kwds)


def _work(
    boot: WorkerBoot,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    maxtasks: int | None,
) -> None:
    """Be a worker."""
    # Ctrl-C goes to all processes at a terminal; what becomes of the pool is for the process that
    # owns it to say. Not SIG_IGN: programs that a task starts would ignore it, too.
    _signal.signal(_signal.SIGINT, _pay_no_heed)
    _stdlib.process.current_process()._config[_process.MAY_NEST] = True
    boot.prepare()
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            import traceback

            boot.start_failed(traceback.format_exc())
            sys.exit(1)
    boot.serve(maxtasks)


def _pay_no_heed(_number: int, _frame: object) -> None:
    """Handle a signal by doing nothing."""
