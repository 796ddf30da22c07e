"""Values, arrays and namespaces of managers, which nobody waits for, and the arguments of locks.

Clients and servers import this, and so do the objects in shared memory, which take the same
arguments.
"""

# ruff: noqa: A003, ARG001, ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import array

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Array", "Namespace", "Value", "lock_timeout"]


def lock_timeout(blocking: bool, timeout: float | None) -> float | None:
    """Return the seconds to wait, None for no limit, from what `Lock.acquire` is given."""
    if not blocking:
        if timeout not in (-1, None):
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout is None or timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return timeout


class Namespace:
    """An object whose attributes anybody may set."""

    __module__ = "procession.managers"

    def __init__(self, /, **kwds: Any) -> None:
        self.__dict__.update(kwds)

    def __repr__(self) -> str:
        shown = (
            f"{name}={value!r}" for name, value in list(self.__dict__.items()) if name[0] != "_"
        )
        return f"{type(self).__name__}({', '.join(sorted(shown))})"


class Value:
    """A value that anybody may replace."""

    __module__ = "procession.managers"

    def __init__(self, typecode: Any, value: Any, lock: bool = True) -> None:
        self._typecode = typecode
        self._value = value

    def get(self) -> Any:
        """Return the value."""
        return self._value

    def set(self, value: Any) -> None:
        """Replace the value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


def Array(typecode: str, sequence: Any, lock: bool = True) -> array.array[Any]:
    """Return an array of numbers."""
    return array.array(typecode, sequence)
