"""Queues of managers, in shared memory."""

from __future__ import annotations

import queue
from queue import Empty, Full

from procession import synchronize
from procession._residents import Resident
from procession.queues import JoinableQueue

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any, Self

    from procession._homes import Home

__all__ = ["Queue"]


class Queue(Resident):
    """`queue.Queue`.

    Args:
        home: The manager.
        native: The queue.
        closed: Set once the queue is shut down, which queues can be from Python 3.13 on.
    """

    __slots__ = ("_closed",)
    stands_for = queue.Queue

    def __init__(self, home: Home, native: Any, closed: synchronize.Event | None = None) -> None:
        super().__init__(home, native)
        self._closed = closed

    @classmethod
    def make(cls, home: Home, maxsize: int = 0) -> Self:
        """Return a new queue."""
        closed = synchronize.Event(ctx=None) if hasattr(queue, "ShutDown") else None
        return cls(home, JoinableQueue(maxsize, ctx=None), closed)

    def __reduce__(self) -> Any:
        return type(self), (self.home, self.native, self._closed)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in."""
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if self._closed is not None:
            self._check_open()
        try:
            self.native.put(item, False)
        except Full:
            if not block:
                raise
            self._put_when_possible(item, timeout)

    def _put_when_possible(self, item: Any, timeout: float | None) -> None:
        for pause in self.home.pauses(timeout):
            self._check_open()
            try:
                self.native.put(item, True, pause)
            except Full:
                continue
            return
        raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out."""
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return self.native.get(False)
        except Empty:
            self._check_open()
            if not block:
                raise
        return self._get_when_possible(timeout)

    def _get_when_possible(self, timeout: float | None) -> Any:
        for pause in self.home.pauses(timeout):
            try:
                return self.native.get(True, pause)
            except Empty:
                self._check_open()
        raise Empty

    def _check_open(self) -> None:
        if self._closed is not None and self._closed.is_set():
            raise queue.ShutDown  # type: ignore[attr-defined]

    def shutdown(self, immediate: bool = False) -> None:
        """Have puts fail from now on, and gets once the queue is empty; `immediate` empties it."""
        if self._closed is not None:
            self._closed.set()
        while immediate:
            try:
                self.native.get(False)
            except Empty:
                return
            self.native.task_done()

    def put_nowait(self, item: Any) -> None:
        """Put an item in if there is room."""
        self.put(item, False)

    def get_nowait(self) -> Any:
        """Take an item out if there is one."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many items there are."""
        size: int = self.native.qsize()
        return size

    def empty(self) -> bool:
        """Say whether there are no items."""
        return not self.native.qsize()

    def full(self) -> bool:
        """Say whether there is no room."""
        is_full: bool = self.native.full()
        return is_full

    def task_done(self) -> None:
        """Say that an item has been dealt with."""
        self.native.task_done()

    def join(self) -> None:
        """Wait until all items have been dealt with."""
        any(self.native._join_within(pause) for pause in self.home.pauses(None))

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:  # noqa: ARG002
        """Put back what was taken for somebody who has died."""
        if name in ("get", "get_nowait"):
            self.native.put(result)
            self.native.task_done()
