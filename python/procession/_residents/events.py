"""Events and barriers of managers, in shared memory."""

from __future__ import annotations

import threading

from procession import synchronize
from procession._residents import Resident

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from procession._homes import Home

__all__ = ["Barrier", "Event"]


class Event(Resident):
    """`threading.Event`."""

    __slots__ = ()
    stands_for = threading.Event

    @classmethod
    def make(cls, home: Home) -> Self:
        """Return a new event."""
        return cls(home, synchronize.Event(ctx=None))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = self.wait if name == "wait" else getattr(self.native, name)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set."""
        if self.native.is_set():
            return True
        return any(self.native.wait(pause) for pause in self.home.pauses(timeout))

    def __repr__(self) -> str:
        state = "set" if self.native.is_set() else "unset"
        return f"<{type(self).__name__} in shared memory at {id(self):#x}: {state}>"


class Barrier(Resident):
    """`threading.Barrier` without an action, which only the server could call."""

    __slots__ = ()
    stands_for = threading.Barrier

    @classmethod
    def make(cls, home: Home, parties: int, action: Any = None, timeout: Any = None) -> Self:
        """Return a new barrier."""
        if action is not None:
            raise TypeError("an action is for the server to call")
        made = synchronize.Barrier(parties, None, timeout, ctx=None)
        home.note_barrier(made)
        return cls(home, made)

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        if name == "__getattribute__":
            return self._attribute
        return super().method(name)

    def _attribute(self, name: str) -> Any:
        if name in ("parties", "n_waiting", "broken"):
            return getattr(self.native, name)
        raise AttributeError(f"'Barrier' object has no attribute {name!r}")

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come."""
        try:
            place: int = self.native.wait(timeout)
        except threading.BrokenBarrierError:
            # It may be that which has broken it.
            self.home.check()
            raise
        return place

    def abort(self) -> None:
        """Break the barrier."""
        self.native.abort()

    def reset(self) -> None:
        """Make the barrier as new."""
        self.native.reset()
