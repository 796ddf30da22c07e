"""Ctrl-C at a terminal while a pool works: one traceback, and nothing is left."""

import os
import pathlib
import pty
import signal
import sys
import time

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long

POOL = """
import sys, threading, procession

def wait(number):
    print("begun", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    with procession.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(wait, range(1000))
"""
EXECUTOR = """
import sys, threading, procession
from procession.futures import ProcessPoolExecutor

def wait(number):
    print("begun", flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    with ProcessPoolExecutor(2, procession.get_context(sys.argv[1])) as executor:
        list(executor.map(wait, range(1000)))
"""
NO_BLOCK = EXECUTOR.replace(
    "    with ProcessPoolExecutor(2, procession.get_context(sys.argv[1])) as executor:\n"
    "        list(executor.map(wait, range(1000)))\n",
    "    executor = ProcessPoolExecutor(2, procession.get_context(sys.argv[1]))\n"
    "    executor.submit(wait, 1)\n    executor.submit(wait, 2).result()\n",
)


def members(group):
    """Numbers of the living processes of a group."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (path / "stat").read_text().rpartition(") ")[2].split()[:3]
        except OSError:  # gone
            continue
        if int(number) == group and state not in "ZX":
            found.append(int(path.name))
    return found


def read_until(terminal, is_enough, seen=""):
    """Read until it is enough, or the other side is closed; return all."""
    while not is_enough(seen):
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:  # what a terminal says when nobody has the other side any more
            break
    return seen


@pytest.mark.parametrize("program", [POOL, EXECUTOR, NO_BLOCK], ids=["pool", "executor", "bare"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_interrupted_program_ends_with_one_traceback(tmp_path, method, program):
    script = tmp_path / "script.py"
    script.write_text(program)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.alarm(int(LIMIT))
        os.execv(sys.executable, [sys.executable, str(script), method])
    try:
        seen = read_until(terminal, lambda seen: seen.count("begun") == 2)
        os.write(terminal, b"\x03")
        seen = read_until(terminal, lambda _: False, seen)
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGINT, seen
    assert seen.count("Traceback") == 1, seen
    assert seen.count("KeyboardInterrupt") == 1, seen
    deadline = time.monotonic() + LIMIT
    while members(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not members(pid)
