"""Queues of a manager's server: no item is handed to a client that is gone."""

from __future__ import annotations

import queue

from procession._served import calling
from procession._served.waiting import check_for, deadline_after, time_left

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

__all__ = ["Queue"]


class Queue(queue.Queue):  # type: ignore[type-arg]
    """`queue.Queue` for clients: no item is handed to one that is gone."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in."""
        with self.not_full:
            self._wait_for(self.not_full, self._may_put, block, timeout, queue.Full)
            self._put(item)
            self.unfinished_tasks += 1
            self.not_empty.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out."""
        with self.not_empty:
            self._wait_for(self.not_empty, self._may_get, block, timeout, queue.Empty)
            check_for(self.not_empty)
            item = self._get()
            self.not_full.notify()
            return item

    def join(self) -> None:
        """Wait until all items have been dealt with."""
        with self.all_tasks_done:
            self._wait_for(self.all_tasks_done, self._is_done, True, None, queue.Full)

    def _client_gone(self, _client: int, _killed: bool) -> None:
        """Have the calls of a client that is gone end."""
        with self.mutex:
            self.not_empty.notify_all()
            self.not_full.notify_all()
            self.all_tasks_done.notify_all()

    def _is_done(self) -> bool:
        return not self.unfinished_tasks

    def _may_put(self) -> bool:
        if getattr(self, "is_shutdown", False):  # from 3.13 on
            raise queue.ShutDown  # type: ignore[attr-defined]
        return self.maxsize <= 0 or self._qsize() < self.maxsize

    def _may_get(self) -> bool:
        if self._qsize():
            return True
        if getattr(self, "is_shutdown", False):
            raise queue.ShutDown  # type: ignore[attr-defined]
        return False

    @staticmethod
    def _wait_for(
        changed: threading.Condition,
        ready: Callable[[], bool],
        block: bool,
        timeout: float | None,
        otherwise: type[Exception],
    ) -> None:
        if timeout is not None and block and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = deadline_after(timeout)
        while not ready():
            left = time_left(deadline)
            if not block or (left is not None and left <= 0):
                raise otherwise
            calling.about_to_wait()
            # It may be gone already. What goes from here on tells so under the lock.
            check_for(changed)
            changed.wait(left)
            check_for(changed)
