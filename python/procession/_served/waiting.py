"""How a caller waits for something in a manager's server, and is sent away when it is gone."""

from __future__ import annotations

import threading
import time

from procession._served import CallerGoneError, calling

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Waiting", "check_for", "deadline_after", "time_left"]


def deadline_after(timeout: float | None) -> float | None:
    """Return the moment at which so many seconds are over; None for no limit."""
    return None if timeout is None else time.monotonic() + timeout


def time_left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline; None where there is none."""
    return None if deadline is None else deadline - time.monotonic()


def check_for(changed: threading.Condition) -> None:
    """Raise `CallerGoneError` if the caller is gone; a wake-up may have been meant for it alone."""
    try:
        calling.check()
    except CallerGoneError:
        changed.notify()
        raise


class Waiting:
    """Something that callers wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())

    def _wait_until(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `ready()`; the caller has `_changed` and gets it back."""
        deadline = deadline_after(timeout)
        while not ready():
            left = time_left(deadline)
            if left is not None and left <= 0:
                return False
            calling.about_to_wait()
            # It may be gone already. What goes from here on tells so under the lock.
            check_for(self._changed)
            self._changed.wait(left)
        # Also where there was nothing to wait for: what is given to it now would stay with it.
        check_for(self._changed)
        return True

    def _client_gone(self, _client: int, _killed: bool) -> None:
        """Have the calls of a client that is gone end."""
        with self._changed:
            self._changed.notify_all()
