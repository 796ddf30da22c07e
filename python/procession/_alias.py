"""`multiprocessing`, answered by this package."""

from __future__ import annotations

import sys
import threading

# What `importlib.machinery` has, without the cost of importing that.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import PathFinder, SourceFileLoader

from procession import _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any
else:
    ModuleType = type(sys)

# Submodules of the original that have a counterpart here. All others stay the original's.
_OURS = frozenset(
    (
        "connection",
        "context",
        "dummy",
        "forkserver",
        "heap",
        "managers",
        "pool",
        "popen_fork",
        "popen_forkserver",
        "popen_spawn_posix",
        "queues",
        "reduction",
        "resource_sharer",
        "shared_memory",
        "sharedctypes",
        "spawn",
        "synchronize",
    )
)

# Where the original's executor of processes is.
_EXECUTORS = "concurrent.futures.process"

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
    package = sys.modules["procession"]
    # Modules of the original that are imported from now on start their processes with this.
    _stdlib.replace("get_context", _get_context)
    _stdlib.give_away(package, _OURS)
    finder: Any = _Submodules
    sys.meta_path.insert(0, finder)
    _replace_executor()
    _installed.set()


def _replace_executor() -> None:
    """Let `concurrent.futures` have the executor of this package, now or once it is imported."""
    package = sys.modules.get("concurrent.futures")
    if package is not None:
        vars(package).pop("ProcessPoolExecutor", None)
    module = sys.modules.get(_EXECUTORS)
    if module is not None:
        module.__class__ = _ExecutorModule
    else:
        finder: Any = _ExecutorFinder
        sys.meta_path.insert(0, finder)


class _ExecutorModule(ModuleType):
    """The module of the original's executor, of which others see that of this package.

    Its own code, which may not even have run yet, sees what it has defined.
    """

    _answer: Any = None

    @property
    def ProcessPoolExecutor(self) -> Any:
        if self._answer is None:
            # Now that it is asked for: ours is built on what this very module has.
            from procession.futures import ProcessPoolExecutor

            self._answer = ProcessPoolExecutor
        return self._answer

    @ProcessPoolExecutor.setter
    def ProcessPoolExecutor(self, value: Any) -> None:
        self._answer = value


class _ExecutorFinder:
    """Finds the module of the original's executor, whose name is then given away."""

    @staticmethod
    def find_spec(name: str, path: Any = None, _target: object = None) -> ModuleSpec | None:
        if name != _EXECUTORS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ExecutorLoader(spec.loader.name, spec.loader.path)
        return spec


class _ExecutorLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _ExecutorModule
        super().exec_module(module)


def _get_context(method: str | None = None) -> Any:
    from procession.context import _default_context

    return _default_context.get_context(method)


def find_original(name: str, submodule: str) -> ModuleSpec | None:
    """Return how to import the original's `submodule` as `name`, if there may be one."""
    if submodule in _OURS or _stdlib.is_loading():
        return None
    loader: Any = _Loader(submodule)
    return ModuleSpec(name, loader)


class _Submodules:
    """Finds the submodules of the original, ours and those that only it has."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        package, _, submodule = name.partition(".")
        if package != "multiprocessing" or not submodule or _stdlib.is_loading():
            return None
        loader: Any = _Loader(submodule)
        return ModuleSpec(name, loader)


class _WithinOriginals:
    """Finds submodules of packages that are the original's, such as `procession.dummy`.

    Before all others: their path would be searched too, and the same file loaded once more.
    """

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        package, _, submodule = name.partition(".")
        # A package that is the original's says so itself.
        if (
            package != "procession"
            or getattr(sys.modules.get(parent), "__name__", parent) == parent
        ):
            return None
        return find_original(name, submodule)


class _Loader:
    def __init__(self, submodule: str) -> None:
        self._submodule = submodule

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        # Not in `find_spec`: where that has imported the module, it is imported once more.
        if self._submodule in _OURS:
            __import__(f"procession.{self._submodule}")
            module = sys.modules[f"procession.{self._submodule}"]
        else:
            module = _stdlib.load(self._submodule)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has run already; the import system has just replaced its spec.
        module.__spec__ = self._spec


sys.meta_path.insert(0, _WithinOriginals)  # type: ignore[arg-type]
