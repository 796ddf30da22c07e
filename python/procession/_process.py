"""Processes: the classes that stand for them, and what a child does from its start to its end.

The base class, the current process and the list of children are the standard library's own.
Only what every process needs is imported here: this is what a fresh interpreter loads before it
can do anything.
"""

from __future__ import annotations

import _thread
import atexit
import itertools
import os
import sys
import threading

from procession import _stdlib
from procession._procession import announce_exit

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_BaseProcess = _stdlib.process.BaseProcess

# From 3.13 on a forked child runs what is registered with `atexit`, before it does not.
_RUNS_ATEXIT = sys.version_info >= (3, 13)


# In the configuration of a process that may have children although it is daemonic, and of those.
MAY_NEST = "procession may nest"


class _Process(_BaseProcess):
    """What the process classes have in common."""

    def start(self) -> None:
        """Start the process.

        A worker of a pool may start processes too, other than in the original, although it is
        daemonic: those are daemonic themselves unless they were told not to be, and end with it.
        """
        process: Any = _stdlib.process
        config = process.current_process()._config
        if not (config.get("daemon") and config.get(MAY_NEST)):
            super().start()
            return
        self._check_closed()
        assert self._popen is None, "cannot start a process twice"
        assert self._parent_pid == os.getpid(), "it was made by another process, which may start it"
        process._cleanup()
        self._popen = self._Popen(self)
        self._sentinel = self._popen.sentinel
        # They may hold this object in their turn.
        del self._target, self._args, self._kwargs
        process._children.add(self)

    def interrupt(self) -> None:
        """Send the process `SIGINT`, as Ctrl-C does."""
        self._check_closed()
        self._popen.interrupt()

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Do all that this child is there for, and return its exit code."""
        inherited = _BaseProcess._bootstrap
        if inherited.__module__ != _BaseProcess.__module__:
            # Measuring tools put a function of their own there, which calls the one they found.
            code: int = inherited(self, parent_sentinel=parent_sentinel)
            return code
        code = 1
        try:
            _become(self, parent_sentinel)
            code = _run(self)
        finally:
            _end_threads()
            _log(f"process exiting with exitcode {code}")
            flush()
        return code

    @staticmethod
    def _after_fork() -> None:
        """Forget the parent's finalizers, and call what is registered for the time after a fork."""
        util = _stdlib.loaded("util")
        if util is not None:
            util._finalizer_registry.clear()
            if util._afterfork_registry.data:
                util._run_after_forkers()


class Process(_Process):
    """Activity that is run in a process of its own, by the default start method.

    Args:
        group: None; there for those who know threads.
        target: What the process calls, unless a subclass has a `run` of its own.
        name: A name; one is made up if there is none.
        args: What `target` is called with.
        kwargs: The same, by name.
        daemon: Whether the process ends with this one, however that ends; as this one if it is
            `None`.
    """

    _start_method: str | None = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        method = pin_start_method()
        if method in _CLASSES:
            return _CLASSES[method]._Popen(process_obj)
        from procession.context import _default_context

        return _default_context.get_context(method).Process._Popen(process_obj)


class ForkProcess(_Process):
    """Activity that is run in a copy of this process."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from procession.popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(_Process):
    """Activity that is run in a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from procession.popen_spawn_posix import Popen

        return Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        """Do nothing: there is no copy of the parent's state."""


class ForkServerProcess(_Process):
    """Activity that is run in a copy of a process that has been kept small for that."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from procession.popen_forkserver import Popen

        return Popen(process_obj)


_CLASSES: dict[str, type[Any]] = {
    "fork": ForkProcess,
    "spawn": SpawnProcess,
    "forkserver": ForkServerProcess,
}


class StartOnImportError(RuntimeError):
    """A child was about to start processes while it imported the main module of its parent."""


def refuse_on_import(message: str) -> None:
    """Raise an error with this message if this process is a child that imports the main module."""
    if getattr(_stdlib.process.current_process(), "_inheriting", False):
        raise StartOnImportError(message)


class _Here:
    """What this process has chosen, and what it has at hand."""

    start_method: str | None = None
    # What children read from instead of the terminal.
    nowhere: Any = None


_here = _Here()

DEFAULT_START_METHOD = "fork" if sys.version_info < (3, 14) else "forkserver"


def start_method() -> str | None:
    """Return the start method that was chosen, or `None` if none was yet."""
    return _here.start_method


def choose_start_method(method: str | None) -> None:
    """Make `method` the one for processes that do not say; `None` leaves it open again."""
    _here.start_method = method


def pin_start_method() -> str:
    """Return the start method for processes that do not say; it cannot be chosen any more."""
    if _here.start_method is None:
        choose_start_method(DEFAULT_START_METHOD)
    return _here.start_method or DEFAULT_START_METHOD


def authkey(key: bytes) -> bytes:
    """Return a key that is not pickled by accident."""
    return _stdlib.process.AuthenticationString(key)


def flush() -> None:
    """Write out what is buffered for standard output and error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            continue  # there is none, or it is closed


def run_and_exit(load: Callable[[], tuple[Any, int]]) -> NoReturn:
    """Be a child in a copy of another process, to the end.

    `load` returns the object that stands for the process, and the parent's sentinel.
    """
    code = 1
    try:
        if _RUNS_ATEXIT:
            # What the parent has registered is for the parent to run.
            atexit._clear()
            if util := _stdlib.loaded("util"):
                atexit.register(util._exit_function)
        process_obj, parent_sentinel = load()
        code = process_obj._bootstrap(parent_sentinel=parent_sentinel)
    except SystemExit as error:
        code = _code_of(error)
    except BaseException:
        # `_bootstrap` reports what the program raises; here it is what cannot be unpickled.
        sys.excepthook(*sys.exc_info())
    finally:
        # Not into the code of the process that was copied.
        try:
            if _RUNS_ATEXIT:
                atexit._run_exitfuncs()
        finally:
            announce_exit(code)
            os._exit(code)


def _become(process_obj: Any, parent_sentinel: int | None) -> None:
    """Make `process_obj` the process that is running."""
    process: Any = _stdlib.process
    if process_obj._start_method is not None:
        choose_start_method(process_obj._start_method)
    process._process_counter = itertools.count(1)
    process._children = set()
    _replace_stdin()
    # The one that was current before must live until the after-fork hooks have run.
    before = process._current_process
    process._current_process = process_obj
    process._parent_process = process._ParentProcess(
        process_obj._parent_name, process_obj._parent_pid, parent_sentinel
    )
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    process_obj._after_fork()
    del before
    _log("child process calling self.run()")


def open_nowhere() -> None:
    """Have at hand what children that are copies of this process are to read from.

    Made once here, so that not every child has to make it.
    """
    if _here.nowhere is None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        # Python warns at its end of files that are open and own their descriptors.
        _here.nowhere = open(descriptor, encoding="utf-8", closefd=False)  # noqa: SIM115


def _replace_stdin() -> None:
    """Let the child read from nowhere: there is one terminal, and the parent reads from it."""
    if sys.stdin is None:
        return
    try:
        sys.stdin.close()
    except (OSError, ValueError):
        _log("standard input could not be closed")
    try:
        open_nowhere()
    except OSError:
        return
    # The child has it as its own from now on, and needs another one for children of its own.
    sys.stdin, _here.nowhere = _here.nowhere, None


def _run(process_obj: Any) -> int:
    """Call what the process is there for, and return the exit code."""
    try:
        try:
            process_obj.run()
        finally:
            if not _RUNS_ATEXIT:
                _end_children_and_finalize()
    except SystemExit as error:
        return _code_of(error)
    except BaseException:
        import traceback

        print(f"Process {process_obj.name}:", file=sys.stderr)
        traceback.print_exc()
        return 1
    return 0


def _end_threads() -> None:
    """Wait for threads that are not daemonic, and do what is registered for their end."""
    if _thread._count() or threading._threading_atexits:  # type: ignore[attr-defined]
        threading._shutdown()  # type: ignore[attr-defined]


def _end_children_and_finalize() -> None:
    util = _stdlib.loaded("util")
    if util is None:
        return
    if util._finalizer_registry or util._logger is not None or _stdlib.process._children:
        util._exit_function()


def _code_of(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)
    return 1


def _log(message: str) -> None:
    util = _stdlib.loaded("util")
    if util is not None and util._logger is not None:
        util.info(message)
