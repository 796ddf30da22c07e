"""What `multiprocessing` has and this package does not have yet.

Each of these raises `NotImplementedError` when it is called. The README lists them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def refuse(feature: str) -> NoReturn:
    """Say that `feature` is missing."""
    raise NotImplementedError(f"procession does not have {feature} yet")


def _missing(feature: str) -> Callable[..., Any]:
    def absent(*_args: object, **_kwargs: object) -> NoReturn:
        refuse(feature)

    absent.__name__ = absent.__qualname__ = feature
    return absent


def missing_class(feature: str) -> type[Any]:
    """Return a class that can be named, but not instantiated."""
    return type(feature, (), {"__new__": _missing(feature)})


class MissingFromContext:
    """The missing methods of contexts, and so the missing functions of the package."""

    Array = _missing("Array")
    Barrier = _missing("Barrier")
    BoundedSemaphore = _missing("BoundedSemaphore")
    Condition = _missing("Condition")
    Event = _missing("Event")
    JoinableQueue = _missing("JoinableQueue")
    Lock = _missing("Lock")
    Manager = _missing("Manager")
    Pipe = _missing("Pipe")
    RLock = _missing("RLock")
    RawArray = _missing("RawArray")
    RawValue = _missing("RawValue")
    Semaphore = _missing("Semaphore")
    SimpleQueue = _missing("SimpleQueue")
    Value = _missing("Value")
    set_forkserver_preload = _missing("set_forkserver_preload")
