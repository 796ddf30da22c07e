"""Objects of managers that live in the tree's shared memory: no call of them is a request.

Each class has the methods of what a server would hold in its place, with the same arguments,
results and errors. What is waited for is waited for in pieces, so that nobody waits for a manager
that has ended.

Here is what all of them are. `locks`, `conditions`, `events`, `queues` and `containers` have one
class for each kind, and know nothing of proxies; `kinds` has the table of all, what a proxy calls
them by, and how that travels. A process imports the classes that it has objects of.
"""

from __future__ import annotations

from procession import _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self

    from procession._homes import Home

__all__ = ["Resident", "remote_error"]


class Resident:
    """An object in shared memory, and the manager that it belongs to.

    It can be pickled for any process of the tree. The object is there as long as anybody has it.

    Args:
        home: The manager.
        native: The object.
    """

    __slots__ = ("home", "native")

    # What a server would hold.
    stands_for: ClassVar[Any]
    # Called with the home and what the server would be; returns a new object, or raises where a
    # server would refuse to make one, or be needed.
    make: ClassVar[Callable[..., Any]]

    def __init__(self, home: Home, native: Any) -> None:
        self.home = home
        self.native = native

    def __reduce__(self) -> Any:
        return type(self), (self.home, self.native)

    def parts(self) -> tuple[Any, ...]:
        """Return what `of_parts` is called with where what is just being pickled arrives."""
        _home, *parts = self.__reduce__()[1]
        return tuple(parts)

    @classmethod
    def of_parts(cls, home: Home, *parts: Any) -> Self:
        """Return what somebody has called `parts` of."""
        return cls(home, *parts)

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = getattr(self, name)
        return found

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        name = f"{self.stands_for.__module__}.{self.stands_for.__name__}"
        raise remote_error()(f"Unserializable message: cannot pickle {name!r} object\n")

    def undo(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Take back what a call has brought about, as whoever made it has died meanwhile."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in shared memory at {id(self):#x}>"


def remote_error() -> type[Exception]:
    """Return the original's class for what went wrong with a request."""
    found: type[Exception] = _stdlib.load("managers").RemoteError
    return found
