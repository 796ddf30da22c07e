"""Queues between processes."""

from queue import Empty, Full

from procession import _stdlib
from procession._procession import Queue

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from multiprocessing.queues import JoinableQueue, SimpleQueue
    from typing import Any

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


def __getattr__(name: str) -> "Any":
    """Return what only the original has."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_stdlib.load("queues"), name)
