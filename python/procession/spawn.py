"""What a fresh interpreter does to become a child, and what its parent tells it for that."""

from __future__ import annotations

import io
import pickle
import sys

from procession import _alias, _stdlib, context
from procession._procession import Boot, take_boot

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = [
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "is_forking",
    "prepare",
    "set_executable",
    "spawn_main",
]

_original = _stdlib.load("spawn")
_util = _stdlib.load("util")

get_executable = _original.get_executable
import_main_path = _original.import_main_path
is_forking = _original.is_forking
set_executable = _original.set_executable


def get_command_line() -> list[str | bytes]:
    """Return the command line of a child."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "--multiprocessing-fork"]
    program = "from procession.spawn import spawn_main; spawn_main()"
    flags = _util._args_from_interpreter_flags()
    return [get_executable(), *flags, "-c", program, "--multiprocessing-fork"]


def get_preparation_data(name: str) -> dict[str, Any]:
    """Return what the child needs before it can unpickle its process object."""
    data: dict[str, Any] = _original.get_preparation_data(name)
    data["start_method"] = context._default_context.get_start_method()
    data["procession_installed"] = _alias.installed()
    return data


def running_tracker() -> int | None:
    """Return the descriptor of the original's resource tracker, if it runs.

    A child without it would start a tracker of its own, which would clean up after the child
    what is still in use elsewhere.
    """
    fd: int | None = _stdlib.load("resource_tracker")._resource_tracker._fd
    return fd


def freeze_support() -> None:
    """Run the child's code if this is a child, and exit."""
    if is_forking(sys.argv):
        spawn_main()


def spawn_main() -> NoReturn:
    """Run the child's code, and exit."""
    assert is_forking(sys.argv), "Not forking"
    boot = take_boot()
    if boot is None:
        sys.exit("this program is started by procession for a child process, and not by hand")
    sys.exit(_run(boot))


def prepare(data: dict[str, Any]) -> None:
    """Make this process ready to unpickle its process object."""
    if data.get("procession_installed"):
        _alias.install()
    if "procession_tracker" in data:
        _stdlib.load("resource_tracker")._resource_tracker._fd = data["procession_tracker"]
    context._default_context.set_start_method(data["start_method"], force=True)
    _original.prepare(data)


def _run(boot: Boot) -> int:
    payload = io.BytesIO(boot.payload)
    current: Any = _stdlib.process.current_process()
    current._inheriting = True
    try:
        preparation = pickle.load(payload)
        prepare(preparation)
        process_obj = pickle.load(payload)
    finally:
        del current._inheriting
    # What it held has been taken hold of.
    del boot
    exitcode: int = process_obj._bootstrap(preparation["procession_parent_sentinel"])
    return exitcode
