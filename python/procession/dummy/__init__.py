"""Threads behind the interface of processes.

All but the pool of threads is the original's own.
"""

from __future__ import annotations

import sys

from procession import _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_original: Any = _stdlib.load("dummy")

__all__ = list(_original.__all__)


def Pool(
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
) -> Any:
    """Return a pool of threads."""
    from procession.pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)


def Manager() -> Any:
    """Return this module, whose objects any thread can use as they are."""
    return sys.modules[__name__]


def __getattr__(name: str) -> Any:
    """Return what is the original's."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_original, name)
