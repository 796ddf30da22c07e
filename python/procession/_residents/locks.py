"""Locks and semaphores of managers, in shared memory."""

from __future__ import annotations

import threading

from procession import synchronize
from procession._residents import Resident
from procession._served.values import lock_timeout

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any, Self

    from procession._homes import Home

__all__ = ["BoundedSemaphore", "Lock", "RLock", "Semaphore"]


class _Acquirer(Resident):
    """A lock or a semaphore."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float | None = -1) -> bool:
        """Take the lock, and say whether it was taken."""
        if not blocking or timeout != -1:
            return self._acquire_within(lock_timeout(blocking, timeout))
        return self.native.acquire(False) or self._acquire_within(None)

    def _acquire_within(self, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            taken: bool = self.native.acquire(False)
            return taken
        return any(self.native.acquire(True, pause) for pause in self.home.pauses(timeout))

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} {type(self).__name__} in shared memory at {id(self):#x}>"

    def locked(self) -> bool:
        """Say whether it cannot be taken just now."""
        held: bool = self.native.locked()
        return held

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:  # noqa: ARG002
        """Let go of what was taken for somebody who has died."""
        if name == "acquire" and result:
            self.native.release()


class Lock(_Acquirer):
    """`threading.Lock`."""

    __slots__ = ()
    stands_for = threading.Lock

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new lock."""
        return cls(home, synchronize.Lock(ctx=None))

    def release(self) -> None:
        """Let go of the lock, whoever has it."""
        try:
            self.native.release()
        except ValueError:
            raise RuntimeError("release unlocked lock") from None


class RLock(_Acquirer):
    """`threading.RLock`."""

    __slots__ = ()
    stands_for = threading.RLock

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new lock."""
        return cls(home, synchronize.RLock(ctx=None))

    def release(self) -> None:
        """Let go of the lock once."""
        try:
            self.native.release()
        except (AssertionError, ValueError):
            raise RuntimeError("cannot release un-acquired lock") from None


class Semaphore(_Acquirer):
    """`threading.Semaphore`."""

    __slots__ = ()
    stands_for = threading.Semaphore

    @classmethod
    def make(cls, home: Home, value: int = 1) -> Self:
        """Return a new semaphore."""
        return cls(home, synchronize.Semaphore(value, ctx=None))

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit, and say whether one was taken."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if self.native.acquire(False):
            return True
        return bool(blocking) and self._acquire_within(timeout)

    def release(self, n: int = 1) -> None:
        """Give back `n` permits."""
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(n):
            self._release_one()

    def _release_one(self) -> None:
        self.native.release()


class BoundedSemaphore(Semaphore):
    """`threading.BoundedSemaphore`."""

    __slots__ = ()
    stands_for = threading.BoundedSemaphore

    @classmethod
    def make(cls, home: Home, value: int = 1) -> Self:
        """Return a new semaphore."""
        return cls(home, synchronize.BoundedSemaphore(value, ctx=None))

    def release(self, n: int = 1) -> None:
        """Give back `n` permits, all or none."""
        if self.native._get_value() + n > self.native.maxvalue:
            raise ValueError("Semaphore released too many times")
        super().release(n)

    def _release_one(self) -> None:
        try:
            self.native.release()
        except ValueError:
            raise ValueError("Semaphore released too many times") from None
