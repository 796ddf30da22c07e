"""`ctypes` objects in shared memory, with and without a lock around them."""

from __future__ import annotations

import ctypes
import weakref

from procession import _procession as _native
from procession import _stdlib, context
from procession._procession import LockedField, fill
from procession.heap import BufferWrapper

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

_original = _stdlib.load("sharedctypes")
_ForkingPickler = context.reduction.ForkingPickler

typecode_to_type: dict[Any, type[Any]] = dict(_original.typecode_to_type)

# What the accessors read and write by themselves. These very classes: others may be swapped, or
# have a `value` of their own.
_typecodes: dict[type[Any], str] = {
    type_: type_._type_ for type_ in typecode_to_type.values() if type_ is not ctypes.c_wchar
}
_typecodes[ctypes.c_bool] = "?"


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """Return a `ctypes` object in shared memory, made with these arguments.

    Args:
        typecode_or_type: A class of `ctypes`, or a letter for one, as in the module `array`.
        args: What the class is called with; zero without.

    Raises:
        MemoryError: The shared memory of this tree of processes is at its limit.
    """
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    obj = rebuild_ctype(type_, BufferWrapper(ctypes.sizeof(type_)), None)
    if args:
        obj.__init__(*args)
    return obj


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Return a `ctypes` array in shared memory: of this length and zeroed, or of these items.

    Raises:
        MemoryError: The shared memory of this tree of processes is at its limit.
        ValueError: The length is negative.
    """
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_array(type_, size_or_initializer)
    array = _new_array(type_, len(size_or_initializer))
    code = _typecodes.get(type_)
    if code is None or not fill(array._wrapper, code, size_or_initializer):
        array.__init__(*size_or_initializer)
    return array


def _new_array(type_: type[Any], length: int) -> Any:
    array_type = type_ * length
    return rebuild_ctype(array_type, BufferWrapper(ctypes.sizeof(array_type)), None)


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a `ctypes` object in shared memory, with a lock unless `lock` is false.

    Each access holds the lock for itself; hold `get_lock()` for several. If a process is killed
    with the lock, what it had written stays, and `get_lock().owner_died` tells.

    Args:
        typecode_or_type: As for `RawValue`.
        args: As for `RawValue`.
        lock: Whether there is a lock; or the lock to use.
        ctx: The context that a new lock is made by. It makes no difference.

    Raises:
        AttributeError: The lock has no `acquire`.
        MemoryError: The shared memory of this tree of processes is at its limit.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(
    typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None
) -> Any:
    """Return a `ctypes` array in shared memory, with a lock unless `lock` is false; see `Value`."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock in (True, None):
        lock = None
    elif not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx=ctx)


def copy(obj: Any) -> Any:
    """Return a copy of a `ctypes` object in shared memory."""
    duplicate = rebuild_ctype(type(obj), BufferWrapper(ctypes.sizeof(obj)), None)
    ctypes.pointer(duplicate)[0] = obj
    return duplicate


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a `ctypes` object together with a lock, a new one if there is none."""
    assert not isinstance(obj, _original.SynchronizedBase), "object already synchronized"
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if not isinstance(obj, ctypes.Array):
        return _class_for(type(obj))(obj, lock, ctx)
    if obj._type_ is ctypes.c_char:
        return SynchronizedString(obj, lock, ctx)
    return SynchronizedArray(obj, lock, ctx)


def _class_for(type_: type[Any]) -> type[SynchronizedBase]:
    """Return the wrapper class of a structure, which has its fields."""
    found = class_cache.get(type_)
    if found is None:
        fields = {field[0]: make_property(field[0]) for field in type_._fields_}
        found = type(f"Synchronized{type_.__name__}", (SynchronizedBase,), fields)
        class_cache[type_] = found
    return found


class_cache: weakref.WeakKeyDictionary[type[Any], type[SynchronizedBase]]
class_cache = weakref.WeakKeyDictionary()


def make_property(name: str) -> Any:
    """Return a property that reads and writes a field with the lock held."""
    return LockedField(name)


# Pickling, through the registry that the original has for it.


def rebuild_ctype(type_: Any, wrapper: BufferWrapper, length: int | None) -> Any:
    """Return the `ctypes` object in a block; `length` makes it an array."""
    if length is not None:
        type_ = type_ * length
    if ctypes.sizeof(type_) > wrapper.size:
        raise ValueError(f"{wrapper.size} bytes are too few for {type_.__name__}")
    _ForkingPickler.register(type_, reduce_ctype)
    obj = type_.from_address(wrapper.address)
    obj._wrapper = wrapper
    return obj


def reduce_ctype(obj: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Say how to make an object in the same block."""
    wrapper = _block_of(obj)
    if wrapper is None:
        # The original made it: there is one reducer for a type, and this one was registered last.
        reduced: tuple[Callable[..., Any], tuple[Any, ...]] = _original.reduce_ctype(obj)
        return reduced
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, wrapper, obj._length_)
    return rebuild_ctype, (type(obj), wrapper, None)


# The wrappers. They are the original's as well, for `isinstance`; nothing of it is run.


class SynchronizedBase(_native.SynchronizedBase, _original.SynchronizedBase):  # type: ignore[misc, name-defined]
    """A `ctypes` object together with a lock."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        if not lock:
            ctx = ctx or context._default_context.get_context()
            lock = ctx.RLock()
        self._wrap(obj, lock)

    def _wrap(self, obj: Any, lock: Any) -> None:
        self._attach(obj, lock)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return synchronized, (self._obj, self._lock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(_native.SynchronizedValue, SynchronizedBase, _original.Synchronized):  # type: ignore[misc, name-defined]
    """A value together with a lock."""

    def _wrap(self, obj: Any, lock: Any) -> None:
        self._attach(obj, lock, _block_of(obj), _typecodes.get(type(obj)))


class SynchronizedArray(_native.SynchronizedArray, SynchronizedBase, _original.SynchronizedArray):  # type: ignore[misc, name-defined]
    """An array together with a lock."""

    def _wrap(self, obj: Any, lock: Any) -> None:
        self._attach(obj, lock, _block_of(obj), _typecodes.get(obj._type_), obj._length_)


class SynchronizedString(SynchronizedArray, _original.SynchronizedString):  # type: ignore[misc, name-defined]
    """An array of characters together with a lock."""

    value = make_property("value")
    raw = make_property("raw")


def _block_of(obj: Any) -> BufferWrapper | None:
    """Return the block that the object lies at the start of, if it is one of ours."""
    wrapper = getattr(obj, "_wrapper", None)
    return wrapper if isinstance(wrapper, BufferWrapper) else None
