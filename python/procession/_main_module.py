"""The main module, which not every child has.

By itself, since the first call of a pool asks, and what goes with pickling by value would cost
that call more than all else.
"""

from __future__ import annotations

import functools
import os
import sys

from procession import _stdlib

__all__ = ["main_comes_along"]


def main_comes_along() -> bool:
    """Say whether a child in a fresh interpreter imports the main module of this process.

    It cannot if that is no file: under `python -c`, in a REPL, in a notebook, or from the standard
    input. It does not if that is the `__main__.py` of a package, a directory or an archive.
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    path = getattr(main, "__file__", None)
    return isinstance(path, str) and _is_script(path)


@functools.lru_cache(maxsize=1)
def _is_script(path: str) -> bool:
    if os.path.splitext(os.path.basename(path))[0] == "ipython":
        return False  # the original takes it for the program that runs the REPL
    # The original's own rule for a relative path: the program may have gone elsewhere since.
    start = _stdlib.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    return os.path.exists(os.path.join(start or "", path))
