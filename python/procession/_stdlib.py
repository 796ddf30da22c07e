"""The standard library's own `multiprocessing`, whatever that name stands for by now.

Its process-wide registries (the current process and its children, finalizers, after-fork hooks,
reducers, the spawning popen) are used as they are, so that the two packages can live in one
program. Everything of the original is reached through this module: once `procession.install()`
has given its names away, importing `multiprocessing` would give this package.
"""

import importlib
import multiprocessing
import sys
import threading
from multiprocessing import context, process, reduction
from types import ModuleType

__all__ = ["context", "give_away", "is_loading", "load", "multiprocessing", "process", "reduction"]

_lock = threading.RLock()
_here = threading.local()  # has `loading` set in a thread that imports what is the original's
_own: dict[str, ModuleType] = {}  # the original's modules, once some of their names are given away


def _entries() -> dict[str, ModuleType]:
    """What `sys.modules` holds under the names of the original."""
    prefix = multiprocessing.__name__ + "."
    return {
        name: module
        for name, module in sys.modules.copy().items()
        if name.startswith(prefix) or name == multiprocessing.__name__
    }


def give_away(names: dict[str, ModuleType]) -> None:
    """Let these names of the original stand for other modules from now on."""
    with _lock:
        _own.update(_entries())
        sys.modules.update(names)


def load(name: str) -> ModuleType:
    """Return the original's submodule `name`, imported now if it has not been before."""
    full_name = f"{multiprocessing.__name__}.{name}"
    with _lock:
        if not _own:
            return importlib.import_module(full_name)
        if full_name not in _own:
            _import_among_its_own(full_name)
        return _own[full_name]


def is_loading() -> bool:
    """Say whether this thread is in `load`, so that names mean what they mean to the original."""
    return getattr(_here, "loading", False)


def _import_among_its_own(full_name: str) -> None:
    # Its relative imports must find the original's modules, so the names are its own meanwhile.
    given_away = _entries()
    for name in given_away:
        del sys.modules[name]
    sys.modules.update(_own)
    _here.loading = True
    try:
        importlib.import_module(full_name)
    finally:
        _here.loading = False
        _own.update(_entries())
        sys.modules.update(given_away)
