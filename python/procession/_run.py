"""Running a program as the main program, as the interpreter itself would."""

from __future__ import annotations

import builtins
import io
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

_USAGE = "usage: python -m procession (-m MODULE | -c CODE | SCRIPT) [ARGUMENTS...]"


def run(arguments: list[str]) -> None:
    """Run what the arguments of a command line name."""
    match arguments:
        case ["-m", module, *rest]:
            _fresh_main()
            sys.argv = ["-m", *rest]
            # It takes the main module from `sys.modules`, and fills it.
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            _set_first_path("")
            _execute(_fresh_main(), compile(code, "<string>", "exec"))
        case [script, *_] if not script.startswith("-"):
            sys.argv = arguments
            _run_path(script)
        case _:
            sys.exit(_USAGE)


def _run_path(path: str) -> None:
    if os.path.isdir(path) or _is_archive(path):
        _fresh_main()
        _set_first_path(path)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {path!r}: {error}", file=sys.stderr)
        sys.exit(2)
    absolute = os.path.abspath(path)
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    main = _fresh_main(__file__=absolute, __loader__=SourceFileLoader("__main__", absolute))
    _execute(main, compile(source, absolute, "exec"))


def _is_archive(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    from zipfile import is_zipfile

    return is_zipfile(path)


def _set_first_path(directory: str) -> None:
    # Before the import of this package the interpreter has put the current directory there.
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = directory


def _fresh_main(**attributes: Any) -> ModuleType:
    main = ModuleType("__main__")
    vars(main).update(__builtins__=builtins, **attributes)
    sys.modules["__main__"] = main
    return main


def _execute(main: ModuleType, code: CodeType) -> None:
    exec(code, vars(main))
