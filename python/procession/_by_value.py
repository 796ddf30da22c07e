"""Pickling with functions and classes by value, where they cannot go by name.

Pickles name functions and classes, and the reader imports them. What has no name that the reader
could import goes by value, with the package cloudpickle: lambdas, closures, local classes, and
what is defined in a main module that children do not have (`main_comes_along`). All else is
pickled as ever, by `ForkingPickler` and with every reducer that was registered there.

What by value means:

- The reader gets a copy, with the closure and the globals that it uses as they were at that moment.
  Rebinding or changing them in one process is not seen in another.
- A class is another class in every process: `isinstance` is false for the sender's own objects
  there. It is the same class each time it is sent to the same process, and its sender gets it back
  as itself. That is remembered in the sender from the first time on.
- A function or class of such a main module that the reader has as well, because it was forked
  after the definition, is the reader's own: globals that an initializer has set, and `isinstance`,
  are as under the standard library. It is recognized by its name and its code.
- If something that has a name there cannot go by value, it goes by name, and arrives where the
  reader has it. Only the object of a process to be started in a fresh interpreter never does.

An object that cannot go by value either is refused with the error that the standard library
raises, and a note that says which part of it is the reason.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import pickle
import re
import reprlib
import sys
import threading
from types import CodeType, FunctionType, MethodType

from procession import _process, _stdlib
from procession._main_module import main_comes_along

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any, Protocol

    Buffer = bytes | memoryview

    class _File(Protocol):
        def write(self, data: Buffer, /) -> object: ...


__all__ = ["dump", "dumps", "main_comes_along", "pickle_instead"]

# What the pickle module raises for what it cannot pickle by name. All else is the fault of a
# reducer, and would happen again.
_REFUSALS = (pickle.PicklingError, AttributeError, TypeError)
# Objects looked at to find out where in a large object the unpicklable part is.
_SEARCH = 10_000
# How a pickle names a module: as a text of its own, or between an opcode and the end of a line. A
# path or a message that has the word in it names none.
_MAIN = re.compile(rb"(?:\x8c\x08|X\x08\0\0\0)__main__|[ci]__main__\n")
# The value of these tells whether a function is the same as another one; of others, the type.
_PLAIN = (bool, bytes, complex, float, int, str, type(None))


def dumps(obj: object) -> bytes:
    """Return the pickle of `obj` for any process of the tree.

    Raises:
        PicklingError, AttributeError, TypeError: `obj` can go neither by name nor by value.
    """
    try:
        pickled: Buffer = _stdlib.load("reduction").ForkingPickler.dumps(obj)
    except Exception as refusal:
        return bytes(pickle_instead(obj, refusal)[0])
    if _names_what_stays_here(pickled):
        pickled = pickle_instead(obj, None)[0]
    return bytes(pickled)


def pickle_instead(obj: object, refusal: Exception | None) -> tuple[Buffer, bool]:
    """Return the pickle of `obj` where that by name is not to be had, and whether it is by value.

    Args:
        obj: What is to be pickled.
        refusal: What pickling by name raised; `None` where the reader may not have the names.
    """
    pickler = _stdlib.load("reduction").ForkingPickler

    def make(pickler: Any) -> Buffer:
        buffer: Buffer = pickler.dumps(obj)
        return buffer

    if refusal is not None:
        try:
            return _by_value(obj, make, pickler, refusal), True
        finally:
            del refusal  # see `_by_value`
    try:
        return _by_value(obj, make, pickler, None), True
    except Exception:
        # A forked reader has what it names; the standard library asks for no more.
        return make(pickler), False


def dump(obj: object, file: _File, protocol: int | None = None) -> None:
    """Write the pickle of `obj`, for a child in a fresh interpreter, to `file`.

    Nothing is written if `obj` cannot be pickled, with the errors of `dumps`.
    """
    pickler = _stdlib.load("reduction").ForkingPickler

    def make(pickler: Any) -> Buffer:
        buffer = io.BytesIO()
        _for_child(pickler(buffer, protocol)).dump(obj)
        return buffer.getvalue()  # which copies nothing; a view that outlives it makes it complain

    try:
        pickled = make(pickler)
    except Exception as refusal:
        pickled = _by_value(obj, make, pickler, refusal)
    if _names_what_stays_here(pickled):
        pickled = _by_value(obj, make, pickler, None)
    file.write(pickled)


def _for_child(pickler: Any) -> Any:
    """Let a fresh interpreter import as little as possible to read what `pickler` writes."""
    reducers = getattr(pickler, "dispatch_table", None)
    if reducers is not None:
        # Under its own name a key makes the reader import the whole package of the original.
        key = _stdlib.process.AuthenticationString  # type: ignore[attr-defined]
        pickler.dispatch_table = {**reducers, key: lambda key: (_process.authkey, (bytes(key),))}
    return pickler


def _names_what_stays_here(pickled: Buffer) -> bool:
    return _MAIN.search(pickled) is not None and not main_comes_along()


def _by_value(
    obj: object, make: Callable[[Any], Buffer], pickler: type, refusal: Exception | None
) -> Buffer:
    outer = getattr(_here, "last", None)  # if this is called by a reducer
    try:
        if refusal is not None and not isinstance(refusal, _REFUSALS):
            raise refusal
        try:
            return make(_pickler_by_value(pickler))
        except Exception as error:
            # What the standard library says, as programs know it; this attempt is for the note.
            (refusal or error).add_note(_explanation(obj, error))
            raise (refusal or error) from None
    finally:
        _here.last = outer
        # An exception that is held by the frames it went through would keep all that these and
        # their callers hold, until the next collection.
        del refusal


def _explanation(obj: object, error: Exception) -> str:
    if isinstance(error, ImportError) and error.name == "cloudpickle":
        return "to send it by value, procession needs the package cloudpickle, which is not there"
    culprit = getattr(_here, "last", None)
    part = f"a {type(culprit).__qualname__} object"
    path = _path_to(culprit, obj)
    if path:
        part = f"{path}, {part}"
    return f"procession could not send it by value either, because of {part}: {error!r}"


_here = threading.local()  # has `last`, what this thread pickles by value at the moment


@functools.lru_cache(maxsize=8)
def _pickler_by_value(base: type) -> type:
    """Return a pickler with the reducers of `base` and, where it has none, those of cloudpickle."""
    cloud = _cloudpickle().Pickler
    first = getattr(base, "reducer_override", None)

    class PicklerByValue(base, cloud):  # type: ignore[misc, valid-type]
        # Where the C code looks; cloudpickle has something else by that name in front of it.
        dispatch_table: Any = pickle.Pickler.dispatch_table

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._registered = getattr(self, "dispatch_table", {})
            self.dispatch_table = {**cloud.dispatch_table, **self._registered}

        def reducer_override(self, obj: Any) -> Any:
            _here.last = obj
            reduced = NotImplemented if first is None else first(self, obj)
            if reduced is NotImplemented and isinstance(obj, (FunctionType, type)):
                # There are reducers for all instances of a metaclass too.
                if type(obj) in self._registered:
                    return NotImplemented
                reduced = _reduce_definition(obj, functools.partial(cloud.reducer_override, self))
            return reduced

    return PicklerByValue


@functools.cache
def _cloudpickle() -> ModuleType:
    # Here and not above: it takes longer than this whole package, and few programs need it.
    cloudpickle = importlib.import_module("cloudpickle")
    # A fork may happen while another thread holds it; then nobody would let go of it in the child.
    lock = vars(cloudpickle.cloudpickle).get("_DYNAMIC_CLASS_TRACKER_LOCK")
    if lock is not None:
        os.register_at_fork(after_in_child=lock._at_fork_reinit)
    return cloudpickle


def _reduce_definition(obj: Any, by_value: Callable[[Any], Any]) -> Any:
    """Return what a function or a class is rebuilt from."""
    home = _stdlib.home_of(obj)
    if home is not None:
        return _stdlib.find, home
    of_main = getattr(obj, "__module__", None) == "__main__" and _in_main(obj.__qualname__) is obj
    if of_main and main_comes_along():
        return NotImplemented  # by name; cloudpickle sends all of the main module by value
    reduced = by_value(obj)
    if not of_main or reduced is NotImplemented:
        return reduced
    make, args, state, _, _, fill = reduced
    identity = (obj.__qualname__, _fingerprint(obj))
    return _own_or_made, (*identity, make, args), (fill, state), None, None, _fill


def _own_or_made(
    qualname: str, fingerprint: bytes, make: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """Return this process's own function or class, or what is made of that of the sender."""
    own = _in_main(qualname)
    if isinstance(own, (FunctionType, type)) and _fingerprint(own) == fingerprint:
        return own
    return make(*args)


def _fill(obj: Any, filling: tuple[Callable[[Any, Any], object], Any]) -> None:
    fill, state = filling
    if _in_main(obj.__qualname__) is not obj:
        fill(obj, state)


def _in_main(qualname: str) -> Any:
    """Return what the main module of this process has under a name, or `None`."""
    found: Any = sys.modules.get("__main__")
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _fingerprint(definition: Any) -> bytes:
    """Return what tells a function or a class from another one of the same name."""
    from hashlib import blake2b

    return blake2b(repr(_described(definition, ())).encode(), digest_size=16).digest()


def _described(value: Any, outer: tuple[Any, ...]) -> Any:
    """Return what a function or a class is made of, in objects whose `repr` says all of it."""
    if any(value is one for one in outer):
        return "itself"
    describe = functools.partial(_described, outer=(*outer, value))
    if isinstance(value, FunctionType):
        cells = [describe(content) for _, content in _cells(value)]
        defaults = [describe(one) for one in value.__defaults__ or ()]
        keywords = {key: describe(one) for key, one in (value.__kwdefaults__ or {}).items()}
        return _described_code(value.__code__), cells, defaults, keywords
    if isinstance(value, type) and value.__module__ == "__main__":
        bases = [base.__qualname__ for base in value.__bases__]
        members = ((name, _member(one, describe)) for name, one in vars(value).items())
        # What else has such a name comes and goes: pickling an instance adds `__slotnames__`.
        return bases, sorted(pair for pair in members if pair[1][1] or not pair[0].startswith("__"))
    return repr(value) if type(value) in _PLAIN else type(value).__qualname__


def _member(value: Any, describe: Callable[[Any], Any]) -> tuple[str, bool]:
    """Return what a class holds under a name, and whether it is code.

    Of what is not, only the type counts: classes change their own attributes.
    """
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, property):
        return repr([describe(one) for one in (value.fget, value.fset, value.fdel)]), True
    if isinstance(value, FunctionType):
        return repr(describe(value)), True
    return type(value).__qualname__, False


def _described_code(code: CodeType) -> Any:
    constants = [
        _described_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a function's closure."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _path_to(wanted: object, root: object) -> str:
    """Return how to get from `root` to an object in it, or nothing if that is not seen soon."""
    known = {id(root)}
    queue: list[tuple[str, object]] = [("", root)]
    for path, holder in queue:
        if holder is wanted:
            return path
        for step, part in _parts(holder):
            if id(part) not in known and len(known) < _SEARCH:
                known.add(id(part))
                queue.append((path + step, part))
    return ""


def _parts(holder: Any) -> Iterator[tuple[str, object]]:
    """Yield what an object is pickled with, and how to get to it."""
    if isinstance(holder, dict):
        yield from ((f"[{reprlib.repr(key)}]", value) for key, value in list(holder.items()))
    elif isinstance(holder, (list, tuple)):
        yield from ((f"[{index}]", value) for index, value in enumerate(holder))
    elif isinstance(holder, functools.partial):
        yield from ((f".{name}", getattr(holder, name)) for name in ("func", "args", "keywords"))
    elif isinstance(holder, MethodType):
        yield ".__self__", holder.__self__
    elif isinstance(holder, FunctionType):
        yield from ((f".{name} (of its closure)", value) for name, value in _cells(holder))
        used = holder.__globals__.keys() & set(holder.__code__.co_names)
        yield from ((f".{name} (a global)", holder.__globals__[name]) for name in sorted(used))
    else:
        attributes = getattr(holder, "__dict__", {})
        yield from ((f".{name}", value) for name, value in list(attributes.items()))
