"""The calls behind an executor: their futures, the pool that carries them out, and its end.

`procession.futures` has the class that users see. A `Work` lives as long as any of its calls, also
when the executor has been forgotten, and is finished at the end of the interpreter.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from concurrent.futures import process as _original
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from procession import _stdlib, errors

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from procession._procession import ApplyResult, IMapIterator
    from procession._procession import Pool as _Engine

__all__ = ["Work", "WorkerDiedError", "at_exit", "results_of"]


class WorkerDiedError(errors.WorkerDiedError, BrokenProcessPool):
    """The worker process that carried out a call died.

    Programs that are written for the original catch `BrokenProcessPool`. Other than there, the
    executor goes on: the worker is replaced, and no other call is lost.
    """

    __module__ = "procession.futures"  # where users find it, and pickles


class _Future(Future):  # type: ignore[type-arg]
    """A future that is settled by whoever comes first: the pool's thread, or one that waits."""

    __module__ = "procession.futures"

    # Until it is settled.
    _call: ApplyResult[Any] | None = None

    def cancel(self) -> bool:
        """Cancel the call unless a worker has begun it, and say whether it is cancelled."""
        call = self._call
        if call is not None and not self.done() and not call.cancel(running=False):
            return self.cancelled()
        return super().cancel()

    def running(self) -> bool:
        """Say whether a worker is carrying the call out."""
        call = self._call
        return super().running() or (call is not None and not self.done() and call.running())

    def result(self, timeout: float | None = None) -> Any:
        """Block until the call is done and return its value, or raise what it raised."""
        timeout = self._wait(timeout)
        try:
            return super().result(timeout)
        finally:
            # What is raised holds this frame, and is held by the future.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Block until the call is done and return what it raised, if it did."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Wait for the call itself, which is sooner than to be told; return the time left."""
        call = self._call
        if call is None or self.done():
            return timeout
        end = None if timeout is None else time.monotonic() + timeout
        call.wait(timeout)
        if call.ready():
            self._settle()
        return None if end is None else max(0.0, end - time.monotonic())

    def _settle(self) -> None:
        """Take over what the call returned or raised, which is done."""
        with _settling:
            call, self._call = self._call, None
        if call is None:
            return
        value, error = _outcome(call)
        if isinstance(error, CancelledError) and error.__cause__ is None:
            super().cancel()
        if not self.set_running_or_notify_cancel():
            return
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)


# Held for a moment, to see who of several threads settles a future.
_settling = threading.Lock()


def _outcome(call: ApplyResult[Any]) -> tuple[Any, BaseException | None]:
    """Return what a call that is done returned, or what it raised."""
    try:
        return call.get(), None
    except BaseException as error:
        return None, _translated(error)


class Work:
    """The pool behind an executor. Lives as long as that, or as any call that is not done."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._futures: set[_Future] = set()

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> _Future:
        future = _Future()
        try:
            call = self._engine.apply(fn, args, kwargs)
        except Exception as error:
            if self._engine.state != "RUN":
                raise
            # As in the original, where the future tells of what could not be pickled.
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            return future
        future._call = call
        self._futures.add(future)
        call.add_done_callback(partial(self._done, future))
        return future

    def _done(self, future: _Future) -> None:
        self._futures.discard(future)
        future._settle()

    def imap(
        self, fn: Callable[..., Any], items: Iterable[Any], chunksize: int, ahead: int | None
    ) -> IMapIterator[Any]:
        if ahead is None:
            # What the input raises is raised here.
            items, ahead = list(items), sys.maxsize
        return self._engine.imap(fn, items, chunksize, ahead, True)

    def cancel_all(self) -> None:
        for future in list(self._futures):
            future.cancel()

    def close(self) -> None:
        if self._engine.state == "RUN":
            self._engine.close()

    def is_over(self) -> bool:
        return self._engine.state == "TERMINATE"

    def terminate(self) -> None:
        self._engine.terminate()

    def join(self) -> None:
        self._engine.join()

    def finish(self, at_once: bool) -> None:
        """Do what there is to do, at the end of the interpreter."""
        # A copy in another process is not that process's to finish.
        if self._engine.state == "INHERITED":
            return
        if at_once:
            self.terminate()
        self.close()
        self.join()


class _Exit:
    """The end of the interpreter, before which all calls are finished."""

    def __init__(self) -> None:
        self.begun = False
        self.works: weakref.WeakSet[Work] = weakref.WeakSet()

    def __call__(self) -> None:
        self.begun = True
        # Ctrl-C, which nobody has caught: the user does not want to wait.
        at_once = getattr(sys, "last_type", None) is KeyboardInterrupt
        for work in list(self.works):
            work.finish(at_once)


at_exit = _Exit()
threading._register_atexit(at_exit)  # type: ignore[attr-defined]


def results_of(results: IMapIterator[Any], end: float | None, work: Work) -> Iterator[Any]:
    """Yield results until the end, or until one is not there in time. Keeps the pool."""
    try:
        while True:
            try:
                yield _next(results, end)
            except StopIteration:
                return
    finally:
        results.cancel()
        del work


def _next(results: IMapIterator[Any], end: float | None) -> Any:
    left = None if end is None else max(0.0, end - time.monotonic())
    try:
        return results.next(left)
    except StopIteration:
        raise
    except BaseException as error:
        raised = _translated(error)
    try:
        raise raised
    finally:
        # Its traceback holds this frame.
        del raised


def _translated(error: BaseException) -> BaseException:
    """Return what the original would have raised, or what is caught as that."""
    cause = error.__cause__
    if cause is not None:
        if type(error) is _stdlib.load("pool").MaybeEncodingError:
            error = getattr(error, "reason", error)
        if type(cause) is _stdlib.load("pool").RemoteTraceback:
            error.__cause__ = _original._RemoteTraceback(cause.tb)  # type: ignore[attr-defined]
        return error
    # What has no cause comes from the pool itself.
    if type(error) is errors.WorkerDiedError:
        return WorkerDiedError(*error.args)
    if type(error) is errors.TimeoutError:
        return TimeoutError()
    if type(error) in (errors.BrokenPoolError, errors.ProcessError):
        return BrokenProcessPool(str(error))
    return error
