"""Events and barriers of a manager's server: what has happened, and who has come."""

from __future__ import annotations

import threading

from procession._served import CallerGoneError, calling
from procession._served.waiting import Waiting

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Barrier", "Event"]


class Event(Waiting):
    """`threading.Event` for clients."""

    def __init__(self) -> None:
        super().__init__()
        self._flag = False

    def is_set(self) -> bool:
        """Say whether it is set."""
        return self._flag

    isSet = is_set  # noqa: N815

    def set(self) -> None:
        """Set it, and wake all that wait."""
        with self._changed:
            self._flag = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Take it back."""
        with self._changed:
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and say whether it is."""
        with self._changed:
            return self._wait_until(self.is_set, timeout)

    def __repr__(self) -> str:
        state = "set" if self._flag else "unset"
        return f"<{type(self).__name__} at {id(self):#x}: {state}>"


class _Round:
    """One time that a barrier fills."""

    def __init__(self) -> None:
        self.arrived = 0
        self.passed = False
        self.broken = False

    def is_over(self) -> bool:
        return self.passed or self.broken


class Barrier(Waiting):
    """`threading.Barrier` for clients. It breaks if one dies that waits."""

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        super().__init__()
        self.parties = parties
        self._action = action
        self._timeout = timeout
        self._round = _Round()

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return 0 if self._round.is_over() else self._round.arrived

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return self._round.broken

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come, and return the caller's place among them."""
        with self._changed:
            mine = self._round
            if mine.broken:
                raise threading.BrokenBarrierError
            # One that is gone is not one of those that have come.
            calling.check()
            place = mine.arrived
            mine.arrived += 1
            if mine.arrived == self.parties:
                self._pass(mine)
                return place
            try:
                came = self._wait_until(mine.is_over, self._timeout if timeout is None else timeout)
            except CallerGoneError:
                self._break(mine)
                raise
            if not came:
                self._break(mine)
            if mine.broken:
                raise threading.BrokenBarrierError
            return place

    def reset(self) -> None:
        """Make it as new; those that wait are told that it broke."""
        with self._changed:
            if self._round.arrived:
                self._break(self._round)
            self._round = _Round()

    def abort(self) -> None:
        """Break it."""
        with self._changed:
            self._break(self._round)

    def _pass(self, mine: _Round) -> None:
        try:
            if self._action is not None:
                calling.about_to_wait()
                self._action()
        except BaseException:
            self._break(mine)
            raise
        mine.passed = True
        self._round = _Round()
        self._changed.notify_all()

    def _break(self, mine: _Round) -> None:
        # A round that was passed is nobody's any more.
        if not mine.passed:
            mine.broken = True
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__name__} at {id(self):#x}: {state}>"
