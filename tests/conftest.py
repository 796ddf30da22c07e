"""After each module, count what it left: processes, threads, descriptors, names in `/dev/shm`."""

import contextlib
import gc
import importlib
import os
import pathlib
import re
import signal
import threading
import time
from multiprocessing import resource_tracker

import pytest

from procession import _process

SETTLE = 60.0  # seconds; a joined thread is listed for a moment more
# Seconds that a name in `/dev/shm` must have been there without a break to count as left. Programs
# beside this one, such as tests that run at the same time, have names there too, but not for long.
STRANGERS = 300.0
# What this package notes of a name: the pid is that of the first process of its tree.
NOTE = re.compile(r"procession\.\d+\.(\d+)-")
# Made on first use, and live as long as the process: ours, and the arenas of the original's heap.
ARENAS = ("/memfd:procession-arena", "/dev/shm/pym-")

# Where it is set programs write each line in two pieces, and lines of several processes get mixed.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell has what it runs in the background ignore it, and tests would see that it is not heeded.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _children():
    """Numbers of this process's children, zombies included."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path("/proc", pid, "stat").read_text(errors="replace")
        except OSError:  # gone
            continue
        if int(stat.rpartition(") ")[2].split()[1]) == os.getpid():
            found.add(f"child process {pid}")
    return found


def _threads():
    # By count where Python does not know them: pytest starts its watch for deadlocks per test.
    known = {f"thread {thread.name}" for thread in threading.enumerate()}
    count = sum(1 for _ in pathlib.Path("/proc/self/task").iterdir())
    return known | {f"native thread no. {number}" for number in range(count)}


def _descriptors():
    found = set()
    for path in pathlib.Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(path)
        except OSError:  # the one that listed the folder
            continue
        if not target.startswith(ARENAS):
            found.add(f"descriptor {path.name} ({target})")
    return found


def _shared_memory():
    """Names in `/dev/shm`, but for those of other process trees that are alive."""
    folder = pathlib.Path("/dev/shm")
    found = set(folder.iterdir()) if folder.is_dir() else set()
    for note in list(found):
        tree = NOTE.match(note.name)
        # A child that lives is counted by itself.
        if tree and int(tree[1]) != os.getpid() and pathlib.Path("/proc", tree[1]).exists():
            found.discard(note)
            with contextlib.suppress(OSError):  # it is gone, or memory without a name yet
                found.discard(folder / os.readlink(note).rpartition("/")[2])
    return {str(path) for path in found}


def _what_is_ours():
    return _children() | _threads() | _descriptors()


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Told(config.get_terminal_writer()))


class _Told:
    """Prints a failure when it happens: a run that does not come to its end would never say it."""

    def __init__(self, writer):
        self._writer = writer

    def pytest_runtest_logreport(self, report):
        if report.failed:
            text = f"\nE  FAILED {report.nodeid}, at {report.when}\n{report.longreprtext}"
            self._writer.line(text, red=True)
            self._writer.flush()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    """Let go of what the test was given, which would else outlive the count after a module."""
    item.funcargs.clear()


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left():
    # The original starts this helper process when it needs it first, and never ends it.
    resource_tracker.ensure_running()
    # Kept for all children, like the arena.
    _process.open_nowhere()
    before, names_before = _what_is_ours(), _shared_memory()
    yield
    for package in ("multiprocessing", "procession"):
        importlib.import_module(f"{package}.forkserver")._forkserver._stop()
        importlib.import_module(f"{package}.resource_sharer").stop()
    began = time.monotonic()
    names = _shared_memory() - names_before
    while True:
        gc.collect()
        left = _what_is_ours() - before
        names &= _shared_memory()
        passed = time.monotonic() - began
        if passed > (SETTLE if left else STRANGERS) or not (left or names):
            break
        time.sleep(0.01)
    left |= names
    assert not left, f"left behind: {sorted(left)}"
