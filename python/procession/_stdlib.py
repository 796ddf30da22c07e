"""The standard library's own `multiprocessing`, whatever that name stands for by now.

Its process-wide registries (the current process and its children, finalizers, after-fork hooks,
reducers, the spawning popen) are used as they are, so that the two packages can live in one
program. Everything of the original is reached through this module: once `procession.install()`
has given its names away, importing `multiprocessing` would give this package.

Importing the whole of it takes longer than starting a process does, and `process` is all that a
process needs. So `process` alone is imported here, without its package, and the rest by `load`
when it is asked for.
"""

from __future__ import annotations

import sys
import threading

# What `importlib.machinery` has, without the cost of importing that.
from _frozen_importlib_external import PathFinder, SourceFileLoader

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = [
    "find",
    "give_away",
    "home_of",
    "is_loading",
    "load",
    "loaded",
    "process",
    "register_reducers",
    "replace",
    "spawning_popen",
    "tracker",
    "use_tracker",
    "util",
]

_PACKAGE = "multiprocessing"
_TRACKER = "multiprocessing.resource_tracker"

_lock = threading.RLock()
_here = threading.local()  # has `loading` set in a thread that imports what is the original's
_own: dict[str, ModuleType] = {}  # the original's modules, once some of their names are given away
_given_away: set[str] = set()
_replaced: dict[str, Any] = {}  # attributes of the package that are answered by something else
_registrations: list[Callable[[Any], object]] = []  # see `register_reducers`
_tracker: list[int] = []  # the descriptor that `use_tracker` was given, if it was


def load(name: str = "") -> ModuleType:
    """Return the original's submodule `name` or, without one, the package; import it if needed."""
    full_name = f"{_PACKAGE}.{name}" if name else _PACKAGE
    with _lock:
        if not _own:
            return _import(full_name)
        if full_name not in _own:
            _import_among_its_own(full_name)
        return _own[full_name]


def loaded(name: str) -> Any:
    """Return the original's submodule `name` if it has been imported, else `None`."""
    full_name = f"{_PACKAGE}.{name}"
    return _own.get(full_name) if _own else sys.modules.get(full_name)


def is_loading() -> bool:
    """Say whether this thread is in `load`, so that names mean what they mean to the original."""
    return getattr(_here, "loading", False)


def give_away(package: ModuleType, submodules: Iterable[str]) -> None:
    """Let the original's name, and those of these submodules, stand for others from now on."""
    with _lock:
        _own.update(_entries())
        _given_away.add(_PACKAGE)
        _given_away.update(f"{_PACKAGE}.{name}" for name in submodules)
        for name in _given_away:
            sys.modules.pop(name, None)
        sys.modules[_PACKAGE] = package


def home_of(definition: Any) -> tuple[str, str] | None:
    """Return where `find` finds a function or class of the original whose name was given away."""
    module = getattr(definition, "__module__", None)
    if module not in _given_away:
        return None
    name, qualname = module[len(_PACKAGE) + 1 :], definition.__qualname__
    found: Any = _own.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return (name, qualname) if found is definition else None


def find(name: str, qualname: str) -> Any:
    """Return the function or class `qualname` of the original's submodule `name`."""
    found: Any = load(name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def replace(name: str, function: Callable[..., Any]) -> None:
    """Let modules of the original that are imported from now on find `function` in its package."""
    with _lock:
        _replaced[name] = function
        package = _own.get(_PACKAGE) or sys.modules.get(_PACKAGE)
        if package is not None:
            vars(package).update(_replaced)


def register_reducers(register: Callable[[Any], object]) -> None:
    """Call `register` with the original's `reduction`: now, or once that is imported.

    Nothing is pickled before, and importing it would take longer than all that a process needs.
    `register` must import nothing: it may be called in the middle of any import.
    """
    with _lock:
        _registrations.append(register)
        # Or another thread is importing it, and may have called all that it knew of.
        is_there = _PACKAGE in (_own or sys.modules)
    if is_there:
        register(load("reduction"))


def tracker() -> int | None:
    """Return the descriptor of the original's resource tracker, if it runs."""
    module = loaded("resource_tracker")
    if module is None:
        return _tracker[0] if _tracker else None
    descriptor: int | None = module._resource_tracker._fd
    return descriptor


def use_tracker(descriptor: int) -> None:
    """Let the original's resource tracker be the one that is running, with this descriptor.

    The original is told now or, if it has not been imported, once its module for that is.
    """
    with _lock:
        _tracker[:] = [descriptor]
        is_there = _PACKAGE in (_own or sys.modules)
    if is_there:
        load("resource_tracker")._resource_tracker._fd = descriptor


def spawning_popen() -> Any:
    """Return what this thread starts a process by, if it is pickling for that."""
    context = loaded("context")
    get = getattr(context, "get_spawning_popen", None)
    return None if get is None else get()


class _Util:
    """The original's `util`. It is imported when something is wanted of it but an entry in its log.

    Nobody has asked for the log as long as it is not there.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(load("util"), name)

    def debug(self, message: str, *args: Any) -> None:
        """Log what helps to find mistakes."""
        if found := loaded("util"):
            found.debug(message, *args)

    def info(self, message: str, *args: Any) -> None:
        """Log what happens."""
        if found := loaded("util"):
            found.info(message, *args)


util: Any = _Util()


def _import(full_name: str) -> ModuleType:
    __import__(full_name)
    return sys.modules[full_name]


def _entries() -> dict[str, ModuleType]:
    """What `sys.modules` holds under the names of the original."""
    prefix = _PACKAGE + "."
    return {
        name: module
        for name, module in sys.modules.copy().items()
        if name.startswith(prefix) or name == _PACKAGE
    }


def _import_among_its_own(full_name: str) -> None:
    # Its relative imports must find the original's modules, so the names are its own meanwhile.
    given_away = {name: sys.modules.pop(name) for name in _given_away if name in sys.modules}
    sys.modules.update(_own)
    _here.loading = True
    try:
        _import(full_name)
    finally:
        _here.loading = False
        _own.update(_entries())
        for name in _given_away:
            sys.modules.pop(name, None)
        sys.modules.update(given_away)


class _Finder:
    """Finds what is told something once it has been imported.

    That is the original's package, of which `process` was imported before it, and, where a tracker
    runs already, the module for that.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        if name != _PACKAGE and (name != _TRACKER or not _tracker):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            loader = _PackageLoader if name == _PACKAGE else _TrackerLoader
            spec.loader = loader(spec.loader.name, spec.loader.path)
        return spec


class _PackageLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        # What the import system would have set, had it imported the package first.
        vars(module)["process"] = process
        super().exec_module(module)
        vars(module).update(_replaced)
        # It has imported that.
        reduction = sys.modules[f"{_PACKAGE}.reduction"]
        for register in _registrations:
            register(reduction)


class _TrackerLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["_resource_tracker"]._fd = _tracker[0]


def _import_process() -> ModuleType:
    """Import `multiprocessing.process`, without the package if that is possible."""
    full_name = f"{_PACKAGE}.process"
    found = sys.modules.get(full_name)
    if found is not None:
        return found
    package = None if _PACKAGE in sys.modules else PathFinder.find_spec(_PACKAGE)
    if package is None or not isinstance(package.loader, SourceFileLoader):
        return _import(full_name)
    spec = PathFinder.find_spec(full_name, package.submodule_search_locations)
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        return _import(full_name)
    finder: Any = _Finder()
    sys.meta_path.insert(0, finder)
    module = sys.modules[full_name] = type(sys)(full_name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__package__ = _PACKAGE
    module.__file__ = spec.origin
    module.__cached__ = spec.cached
    _execute(module, spec.loader)
    return module


def _execute(module: ModuleType, loader: SourceFileLoader) -> None:
    """Run the code of `process`, which wants the names of signals from `signal` and no more.

    That module turns all its constants into enumerations, which takes longer than all the rest;
    the native one behind it has the same names.
    """
    if "signal" in sys.modules:
        loader.exec_module(module)
        return
    sys.modules["signal"] = sys.modules["_signal"]
    try:
        loader.exec_module(module)
    finally:
        del sys.modules["signal"]


process = _import_process()
