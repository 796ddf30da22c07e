"""Lets `multiprocessing` mean `procession` in the programs that CPython's tests start.

The interpreter imports this at its start, because this folder is in PYTHONPATH. It does nothing
unless PROCESSION_CPYTHON_SUITE is set.
"""

import os
import sys
from importlib.machinery import ModuleSpec

# What the original starts its own helpers with. They are left alone: in a user's program, too, they
# have nothing that would install the package for them.
_HELPERS = tuple(
    f"from multiprocessing.{module} import "
    for module in ("forkserver", "resource_tracker", "spawn")
)


class _OnFirstImport:
    """Calls `procession.install()` when `multiprocessing` is imported, and no sooner.

    Some tests check that a program which does not use `multiprocessing` does not import it either.
    """

    def find_spec(self, name, *_where):
        if name != "multiprocessing":
            return None
        sys.meta_path.remove(self)
        # A program that has begun to import the package decides by itself: its children, too, begin
        # so, and are told by their parents whether to install it.
        return None if "procession" in sys.modules else ModuleSpec(name, self)

    def create_module(self, _spec):
        import procession

        procession.install()
        self._spec = procession.__spec__
        return procession

    def exec_module(self, module):
        # It has run already; the import system has just replaced its spec.
        module.__spec__ = self._spec


def _is_helper():
    arguments = sys.orig_argv
    return "-c" in arguments and arguments[arguments.index("-c") + 1].startswith(_HELPERS)


if "PROCESSION_CPYTHON_SUITE" in os.environ and not _is_helper():
    sys.meta_path.insert(0, _OnFirstImport())
