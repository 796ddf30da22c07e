"""After each module, count what it left: processes, threads, descriptors, names in `/dev/shm`."""

import gc
import importlib
import os
import pathlib
import threading
import time
from multiprocessing import resource_tracker

import pytest

from procession import _process

SETTLE = 5.0  # seconds; a joined thread is listed, and a stranger's name there, for a moment more
# Made on first use, and live as long as the process: ours, and the arenas of the original's heap.
ARENAS = ("/memfd:procession-arena", "/dev/shm/pym-")


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
    folder = pathlib.Path("/dev/shm")
    return {str(path) for path in folder.iterdir()} if folder.is_dir() else set()


def _what_there_is():
    return _children() | _threads() | _descriptors() | _shared_memory()


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left():
    # The original starts this helper process when it needs it first, and never ends it.
    resource_tracker.ensure_running()
    # Kept for all children, like the arena.
    _process.open_nowhere()
    before = _what_there_is()
    yield
    for package in ("multiprocessing", "procession"):
        importlib.import_module(f"{package}.forkserver")._forkserver._stop()
        importlib.import_module(f"{package}.resource_sharer").stop()
    deadline = time.monotonic() + SETTLE
    while True:
        gc.collect()
        left = _what_there_is() - before
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not left, f"left behind: {sorted(left)}"
