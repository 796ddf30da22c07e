"""Conditions of a manager's server: notifications are for clients that live."""

from __future__ import annotations

import collections
import threading

from procession._served import CallerGoneError, calling
from procession._served.locks import RLock
from procession._served.waiting import deadline_after, time_left

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Condition"]


class _Waiter:
    """A call that waits for a notification."""

    def __init__(self) -> None:
        self.caller = calling.caller
        self.abandoned = False
        self.gate = threading.Lock()
        self.gate.acquire()


class Condition:
    """`threading.Condition` for clients.

    A notification is for a caller that lives: those that died while they waited are not counted.
    """

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._waiters: collections.deque[_Waiter] = collections.deque()
        # What an `RLock` has, and a `Lock` or a proxy of one does not need.
        self._is_owned = getattr(self._lock, "_is_owned", self._seems_owned)
        self._release_save = getattr(self._lock, "_release_save", self._release_once)
        self._acquire_restore = getattr(self._lock, "_acquire_restore", self._acquire_again)

    def _seems_owned(self) -> bool:
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def _release_once(self) -> None:
        self._lock.release()

    def _acquire_again(self, _saved: None) -> None:
        self._lock.acquire()

    def locked(self) -> bool:
        """Say whether somebody has the lock."""
        return bool(self._lock.locked())

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification and take the lock again."""
        if not self._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        waiter = _Waiter()
        self._waiters.append(waiter)
        saved = self._release_save()
        calling.about_to_wait()
        try:
            # It may be gone already. What goes from here on finds the waiter.
            calling.check()
            waiter.gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            # A notification that comes from here on is for somebody else, as is one that came for
            # a caller that is gone.
            notified = self._forget(waiter)
            try:
                calling.check()
            except CallerGoneError:
                if notified:
                    self._wake(1)
                raise
            self._acquire_restore(saved)
        return notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true."""
        deadline = deadline_after(timeout)
        while not (result := predicate()):
            left = time_left(deadline)
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those that wait."""
        if not self._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        self._wake(n)

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(len(self._waiters))

    notifyAll = notify_all  # noqa: N815

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of what a client has that is gone, and have its calls end."""
        gone = getattr(self._lock, "_client_gone", None)
        if gone is not None:
            gone(client, killed)
        for waiter in list(self._waiters):
            if waiter.caller is not None and waiter.caller.client == client:
                waiter.abandoned = self._take_out(waiter)
                if waiter.abandoned:
                    waiter.gate.release()

    def _wake(self, count: int) -> None:
        while count > 0:
            try:
                waiter = self._waiters.popleft()
            except IndexError:
                return
            waiter.gate.release()
            count -= 1

    def _forget(self, waiter: _Waiter) -> bool:
        """Stop waiting, and say whether a notification has come."""
        # Whoever takes it out decides: it was notified unless that is done here, or was done
        # because its client is gone.
        if self._take_out(waiter):
            return False
        return not waiter.abandoned

    def _take_out(self, waiter: _Waiter) -> bool:
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *exception: object) -> Any:
        return self._lock.__exit__(*exception)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {len(self._waiters)})>"
