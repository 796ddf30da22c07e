"""The process that forkserver children are copies of, from both sides.

It is started with the first child, imports what was asked for and the main module, and waits. A
child is then a copy of it, however large its parent has become. Each process that starts such
children has a fork server of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from _pickle import loads

from procession import _process, _stdlib, spawn
from procession._procession import ForkServer as _Engine
from procession._procession import Parcel, Zygote, take_boot

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from procession._procession import Boot, Child

__all__ = ["ensure_running", "get_inherited_fds", "set_forkserver_preload"]

# What the fork server needs to know to import what the children will use. All else is told to them.
_FOR_IMPORTS = (
    "sys_path",
    "sys_argv",
    "dir",
    "orig_dir",
    "procession_installed",
    "init_main_from_name",
    "init_main_from_path",
)
_POLICIES = ("ignore", "warn", "fail")

_inherited_fds: list[int] | None = None


class DupFd:
    """A descriptor that is sent to the child."""

    def __init__(self, ind: int) -> None:
        self.ind = ind

    def detach(self) -> int:
        fds = get_inherited_fds()
        if fds is None:
            raise RuntimeError("this process was not started by a fork server")
        return fds[self.ind]


class ForkServer:
    """The fork server of this process; there is none until the first child is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._preload_modules = ["__main__"]
        self._on_error = "ignore"
        os.register_at_fork(after_in_child=self._forget)

    @property
    def _forkserver_pid(self) -> int | None:
        return None if self._engine is None else self._engine.pid

    def set_forkserver_preload(self, modules_names: list[str], *, on_error: str = "ignore") -> None:
        """Let the next fork server import these modules before it makes children.

        `"__main__"` stands for the program's main module, and is the default.

        Args:
            modules_names: Names of the modules.
            on_error: What becomes of an import that fails: `"ignore"` goes on without a word,
                `"warn"` says so on standard error, `"fail"` ends the fork server, so that the
                start of a child raises an error.
        """
        if not all(type(name) is str for name in modules_names):
            raise TypeError("module_names must be a list of strings")
        if on_error not in _POLICIES:
            raise ValueError(f"on_error must be one of {_POLICIES}, not {on_error!r}")
        self._preload_modules = modules_names
        self._on_error = on_error

    def get_inherited_fds(self) -> list[int] | None:
        """Return the descriptors that this process was given; `None` if no fork server made it."""
        return _inherited_fds

    def ensure_running(self) -> None:
        """Start the fork server, unless it runs."""
        self._running()

    def spawn(self, dump: Callable[[], Any], fds: list[int], daemon: bool) -> Child:
        """Start a child, which gets what `dump` returns."""
        parcel = Parcel(dump)
        try:
            return self._running().spawn(parcel, fds, daemon)
        except ConnectionResetError:
            # Killed since the last child, or while it made this one.
            return self._running().spawn(parcel, fds, daemon)

    def _running(self) -> _Engine:
        with self._lock:
            if self._engine is None or not self._engine.is_alive():
                self._engine = self._start()
            return self._engine

    def _start(self) -> _Engine:
        data: dict[str, Any] = {"preload": self._preload_modules, "on_error": self._on_error}
        if self._preload_modules:
            preparation = spawn.get_preparation_data("")
            data["preparation"] = {key: preparation.get(key) for key in _FOR_IMPORTS}
        command = spawn.get_command_line("from procession.forkserver import main; main()")
        _process.flush()
        return _Engine(
            os.fsdecode(spawn.get_executable()),
            [os.fsdecode(argument) for argument in command],
            _stdlib.load("reduction").ForkingPickler.dumps(data),
        )

    def _stop(self) -> None:
        """End the fork server. Its children go on."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()

    def _forget(self) -> None:
        """In a forked child: the fork server is the parent's."""
        self._lock = threading.Lock()
        self._engine = None


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
set_forkserver_preload = _forkserver.set_forkserver_preload


def main() -> NoReturn:
    """Be a fork server, or one of its children, to the end."""
    boot = take_boot()
    if boot is None:
        sys.exit("this program is started by procession as a fork server, and not by hand")
    serve(boot)


def serve(boot: Boot) -> NoReturn:
    """Be the fork server that `boot` says."""
    global _inherited_fds
    # From here on Ctrl-C is for the client to deal with.
    zygote = Zygote(boot)
    data = loads(boot.payload)
    del boot
    if data["preload"]:
        _preload(data["preload"], data["on_error"], data["preparation"])
    # A child would write it once more.
    _process.flush()
    _process.open_nowhere()
    given = zygote.serve()
    if given is None:
        os._exit(0)
    boot, _inherited_fds = given
    _process.run_and_exit(lambda: spawn.load_process(boot))


def _preload(names: list[str], on_error: str, preparation: dict[str, Any]) -> None:
    main_name = preparation.pop("init_main_from_name")
    main_path = preparation.pop("init_main_from_path")
    spawn.prepare(preparation)
    for name in names:
        try:
            if name == "__main__":
                spawn.import_main(main_name, main_path)
            else:
                __import__(name)
        except Exception as error:
            # A main module that cannot be imported is the child's to report, with its traceback.
            if name != "__main__":
                _report(name, error, on_error)


def _report(name: str, error: Exception, on_error: str) -> None:
    if on_error == "fail":
        raise error
    if on_error == "warn":
        print(f"the fork server could not import {name}: {error!r}", file=sys.stderr)
