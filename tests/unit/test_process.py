"""What a process here does and that of the standard library does not."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

import procession
from tests.unit.waiting import comes_true, is_running

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


START_A_DAEMON = """
import os, procession, sys, time

def sleep_for_ever():
    time.sleep(1000)

if __name__ == "__main__":
    ctx = procession.get_context(sys.argv[1])
    child = ctx.Process(target=sleep_for_ever, daemon=True)
    child.start()
    print(child.pid, flush=True)
    if sys.argv[2] == "wait":
        time.sleep(1000)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("end", ["wait", "return"])
def test_daemon_dies_with_its_parent(tmp_path, method, end):
    script = tmp_path / "script.py"
    script.write_text(START_A_DAEMON)
    command = [sys.executable, str(script), method, end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        if end == "wait":
            assert is_running(pid)
            parent.send_signal(signal.SIGKILL)
        parent.wait(DEADLOCK)
        assert comes_true(lambda: not is_running(pid))


START_AND_END = """
import procession, sys

def do_nothing():
    pass

if __name__ == "__main__":
    child = procession.get_context(sys.argv[1]).Process(target=do_nothing)
    child.start()
    child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nothing_is_open_when_a_program_ends(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(START_AND_END)
    command = [sys.executable, "-X", "dev", str(script), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLOCK, check=True)
    assert done.stderr == ""


def do_nothing():
    pass


def test_spawned_child_that_never_runs_python_is_reported():
    ctx = procession.get_context("spawn")
    original = sys.executable
    ctx.set_executable("/bin/false")
    try:
        child = ctx.Process(target=do_nothing)
        child.start()
        child.join(DEADLOCK)
        assert child.exitcode == 1
        child.close()
    finally:
        ctx.set_executable(original)


def test_executable_that_is_not_there_is_an_error_of_start():
    ctx = procession.get_context("spawn")
    original = sys.executable
    ctx.set_executable("/nonexistent/python")
    try:
        with pytest.raises(FileNotFoundError):
            ctx.Process(target=do_nothing).start()
    finally:
        ctx.set_executable(original)
    assert ctx.active_children() == []


def test_child_that_nobody_joins_is_no_zombie_once_another_is_started():
    ctx = procession.get_context("fork")
    first = ctx.Process(target=os._exit, args=(0,))
    first.start()
    pid = first.pid
    assert comes_true(lambda: not is_running(pid))
    second = ctx.Process(target=do_nothing)
    second.start()
    second.join(DEADLOCK)
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert first.exitcode == 0


def wait_for(go):
    go.get(timeout=DEADLOCK)


def test_threads_that_join_the_same_child_both_see_its_exit_code(ctx, make_queue):
    go = make_queue()
    child = ctx.Process(target=wait_for, args=(go,))
    child.start()
    exitcodes = []
    thread = threading.Thread(target=lambda: (child.join(), exitcodes.append(child.exitcode)))
    thread.start()
    go.put(None)
    child.join(DEADLOCK)
    thread.join(DEADLOCK)
    # In the original one of the two may find the status collected by the other, and see `None`.
    assert [*exitcodes, child.exitcode] == [0, 0]
    child.close()
