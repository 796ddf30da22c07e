"""Dictionaries, lists, namespaces and values of managers, in shared memory.

They travel as numbers.
"""

from __future__ import annotations

from procession import _procession
from procession._residents import Resident
from procession._served.values import Namespace as PlainNamespace
from procession._served.values import Value as PlainValue

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Self

    from procession._homes import Home

__all__ = ["Container", "Dict", "List", "Namespace", "Value"]


class Container(Resident):
    """An object whose methods are native. It travels as a number."""

    __slots__ = ()
    made_of: ClassVar[Any]

    def parts(self) -> tuple[Any, ...]:
        """Return what `of_parts` is called with where what is just being pickled arrives."""
        _open, parts = self.native.__reduce__()
        return parts  # type: ignore[no-any-return]

    @classmethod
    def of_parts(cls, home: Home, *parts: Any) -> Self:
        """Return what somebody has called `parts` of."""
        return cls(home, cls.made_of._open(*parts))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        found: Callable[..., Any] = getattr(self.native, name)
        return found

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return self.native.copy()

    def __repr__(self) -> str:
        return repr(self.native)


def _in_step(native: Any, keys: list[Any]) -> Iterator[Any]:
    """Yield the keys of a dictionary as long as there are as many as at first."""
    for key in keys:
        if len(native) != len(keys):
            raise RuntimeError("dictionary changed size during iteration")
        yield key


class Dict(Container):
    """`dict`."""

    __slots__ = ()
    stands_for = dict
    made_of = _procession.ArenaDict

    @classmethod
    def make(cls, home: Home, *args: Any, **kwds: Any) -> Self:
        """Return a new dictionary."""
        return cls(home, cls.made_of(dict(*args, **kwds)))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        if name == "__iter__":
            return self._keys
        return dict.fromkeys if name == "fromkeys" else super().method(name)

    def _keys(self) -> Iterator[Any]:
        return _in_step(self.native, self.native.keys())


class List(Container):
    """`list`."""

    __slots__ = ()
    stands_for = list
    made_of = _procession.ArenaList

    @classmethod
    def make(cls, home: Home, *args: Any) -> Self:
        """Return a new list."""
        return cls(home, cls.made_of(list(*args)))


class Namespace(Container):
    """`procession.managers.Namespace`: a dictionary of attributes."""

    __slots__ = ()
    stands_for = PlainNamespace
    made_of = _procession.ArenaDict

    @classmethod
    def make(cls, home: Home, *args: Any, **kwds: Any) -> Self:
        """Return a new namespace."""
        if args:
            raise TypeError("a namespace takes keywords alone")
        return cls(home, cls.made_of(kwds))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        methods: dict[str, Callable[..., Any]] = {
            "__getattribute__": self._get,
            "__setattr__": self.native.__setitem__,
            "__delattr__": self._delete,
        }
        return methods[name]

    def _get(self, name: str) -> Any:
        try:
            return self.native[name]
        except KeyError:
            pass
        # What every namespace has; or the error.
        return getattr(self.value(), name)

    def _delete(self, name: str) -> None:
        try:
            del self.native[name]
        except KeyError:
            raise AttributeError(f"'Namespace' object has no attribute {name!r}") from None

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return PlainNamespace(**self.native.copy())

    def __repr__(self) -> str:
        return repr(self.value())


class Value(Container):
    """`procession.managers.Value`: a list of its type and the value."""

    __slots__ = ()
    stands_for = PlainValue
    made_of = _procession.ArenaList

    @classmethod
    def make(cls, home: Home, typecode: Any, value: Any, lock: bool = True) -> Self:  # noqa: ARG003
        """Return a new value."""
        return cls(home, cls.made_of([typecode, value]))

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a call of this name means."""
        methods: dict[str, Callable[..., Any]] = {"get": self._get, "set": self._set}
        return methods[name]

    def _get(self) -> Any:
        return self.native[1]

    def _set(self, value: Any) -> None:
        self.native[1] = value

    def value(self) -> Any:
        """Return a copy, as `_getvalue` does."""
        return PlainValue(*self.native.copy())

    def __repr__(self) -> str:
        return repr(self.value())
