"""Conditions of managers, in shared memory, over a lock that is there too."""

from __future__ import annotations

import threading

from procession import _procession, synchronize
from procession._residents import Resident
from procession._residents.locks import Lock, RLock

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from procession._homes import Home

__all__ = ["Condition"]


class Condition(Resident):
    """`threading.Condition`."""

    __slots__ = ("_gate",)
    stands_for = threading.Condition

    def __init__(self, home: Home, native: Any) -> None:
        super().__init__(home, native)
        gate = Lock if isinstance(native._lock, _procession.Lock) else RLock
        self._gate: Any = gate(home, native._lock)

    @classmethod
    def make(cls, home: Home, lock: Any = None) -> Self:
        """Return a new condition, over a lock that is in shared memory too."""
        if lock is not None:
            lock = lock._resident
            if not isinstance(lock, (Lock, RLock)):
                raise TypeError("the lock is not in shared memory")
            lock = lock.native
        return cls(home, synchronize.Condition(lock, ctx=None))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any]
        if name in ("acquire", "release", "locked"):
            found = getattr(self._gate, name)
        else:
            found = getattr(self, name)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait for a notification and take the lock again."""
        try:
            return any(self.native.wait(pause) for pause in self.home.pauses(timeout))
        except AssertionError:
            raise RuntimeError("cannot wait on un-acquired lock") from None

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those that wait."""
        try:
            self.native.notify(n)
        except AssertionError:
            raise RuntimeError("cannot notify on un-acquired lock") from None

    def notify_all(self) -> None:
        """Wake all that wait."""
        try:
            self.native.notify_all()
        except AssertionError:
            raise RuntimeError("cannot notify on un-acquired lock") from None

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Let go of what was taken for somebody who has died."""
        if name == "acquire":
            self._gate.undo(name, args, result)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._gate!r}, {self.native._waiters()})>"
