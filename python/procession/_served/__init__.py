"""What a manager's server holds for its clients: locks, events, barriers, queues, values.

Which thread of the server answers a request says nothing about who made it. So these take a
thread of a client for the owner, and not the thread that they run in. When a client dies, what it
had locked is let go of, and what it waited for goes to somebody else.

Here is on whose behalf a thread works (`calling`), and what is made in the place of what a manager
was asked for (`served`). The classes are imported when one is needed, for most servers need none:
what a manager of this tree holds is in shared memory. `waiting` is what they have in common,
`locks`, `conditions`, `events` and `queues` have those that somebody waits for; `values`, what
nobody waits for.
They know nothing of the server but `calling`.
"""

from __future__ import annotations

import queue
import threading

import procession

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["MAKERS", "CallerGoneError", "calling", "is_polite", "served"]


class CallerGoneError(Exception):
    """Whoever made the call that is being carried out has died or disconnected."""


class _Calling(threading.local):
    """On whose behalf a thread of the server does what it does."""

    caller: Any = None
    is_connected: Callable[[int], bool] | None = None
    may_block: Callable[[], None] | None = None

    def owner(self) -> tuple[Any, int]:
        """Return what stands for the caller's thread; the server's own threads have some too."""
        if self.caller is None:
            return None, threading.get_ident()
        return self.caller.client, self.caller.thread

    def about_to_wait(self) -> None:
        """Let another thread of the server see to the clients meanwhile."""
        if self.may_block is not None:
            self.may_block()

    def check(self) -> None:
        """Raise `CallerGoneError` if the caller is gone."""
        if (
            self.caller is not None
            and self.is_connected is not None
            and not self.is_connected(self.caller.client)
        ):
            raise CallerGoneError


calling = _Calling()


# Where the class is that is made when a manager is asked for one of these.
_SERVED: dict[Any, tuple[str, str]] = {
    threading.Lock: ("locks", "Lock"),
    threading.RLock: ("locks", "RLock"),
    threading.Condition: ("conditions", "Condition"),
    threading.Semaphore: ("locks", "Semaphore"),
    threading.BoundedSemaphore: ("locks", "BoundedSemaphore"),
    threading.Event: ("events", "Event"),
    threading.Barrier: ("events", "Barrier"),
    queue.Queue: ("queues", "Queue"),
}


# What makes things quickly.
MAKERS = frozenset(_SERVED)
# Those of the classes that have been needed.
_polite: set[type[Any]] = set()


def served(maker: Any) -> Any:
    """Return what makes for clients what `maker` makes for threads; mostly `maker` itself."""
    try:
        place = _SERVED.get(maker)
    except TypeError:  # not hashable
        return maker
    if place is None:
        return maker
    module, name = place
    found = getattr(procession._submodule(f"_served.{module}"), name)
    _polite.add(found)
    return found


def is_polite(obj: Any) -> bool:
    """Say whether the methods of an object say when they are about to wait."""
    return type(obj) in _polite
