"""`multiprocessing`, answered by this package."""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.machinery import ModuleSpec

from procession import _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# Submodules of the original that have a counterpart here. All others stay the original's.
_OURS = ("context", "pool", "popen_fork", "popen_spawn_posix", "queues", "spawn")

_installed = threading.Event()


def installed() -> bool:
    """Say whether `install` was called in this process or one that it comes from."""
    return _installed.is_set()


def install() -> None:
    """Let `multiprocessing` and its submodules mean `procession` in this process and its children.

    To be called before the program imports `multiprocessing`. What was imported from there
    before stays the original's. A second call does nothing.
    """
    if _installed.is_set():
        return
    original = _stdlib.multiprocessing.__name__
    package = importlib.import_module("procession")
    names = {f"{original}.{name}": importlib.import_module(f"procession.{name}") for name in _OURS}
    _stdlib.give_away(names | {original: package})
    # Modules of the original that are imported from now on start their processes with this.
    vars(_stdlib.multiprocessing)["get_context"] = package.get_context
    sys.meta_path.insert(0, _OriginalModules(original))
    _installed.set()


class _OriginalModules:
    """Finds submodules of `package` that only the original has."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, *_where: Any) -> ModuleSpec | None:
        package, _, submodule = name.partition(".")
        if package != self._package or not submodule or _stdlib.is_loading():
            return None
        loader: Any = _Loader(submodule)
        return ModuleSpec(name, loader)


class _Loader:
    def __init__(self, submodule: str) -> None:
        self._submodule = submodule

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        # Not in `find_spec`: where that has imported the module, it is imported once more.
        module = _stdlib.load(self._submodule)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has run already; the import system has just replaced its spec.
        module.__spec__ = self._spec


# Behind all others: `procession.util` is the original's, since there is none here.
sys.meta_path.append(_OriginalModules("procession"))
