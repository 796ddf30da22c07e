"""After each module, count what it left: processes, threads, descriptors, names in `/dev/shm`."""

import gc
import os
import pathlib
import threading
import time
from multiprocessing import resource_tracker

import pytest

SETTLE = 5.0  # seconds; a joined thread is listed, and a stranger's name there, for a moment more
ARENA = "/memfd:procession-arena"  # made on first use, and lives as long as the process


def _children():
    """Numbers of this process's children, zombies included."""
    found = set()
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(") ")[2].split()
        except OSError:  # gone
            continue
        if int(fields[1]) == os.getpid():
            found.add(f"child process {path.parent.name}")
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
        if not target.startswith(ARENA):
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
    before = _what_there_is()
    yield
    deadline = time.monotonic() + SETTLE
    while True:
        gc.collect()
        left = _what_there_is() - before
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert not left, f"left behind: {sorted(left)}"
