"""Ending a process with all that it has started."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

import procession
from tests.unit.waiting import comes_true, is_running

# Says that it has a child and a grandchild, and goes on for ever, as they do.
FAMILY = """
import os, signal, sys
for _ in range(2):
    if os.fork():
        break
else:
    print("there", flush=True)
signal.pause()
"""


@pytest.fixture
def family():
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as root:
        assert root.stdout.readline() == b"there\n"
        yield root
        with contextlib.suppress(ProcessLookupError):
            os.killpg(root.pid, signal.SIGKILL)


def test_process_is_killed_with_all_below_it(family):
    killed = procession.kill_process_tree(family.pid)
    assert len(killed) == 3
    assert family.pid in killed
    assert family.wait() == -signal.SIGKILL
    # The end of the pipe: nobody holds it any more.
    assert family.stdout.read() == b""
    # A process closes what it has open a moment before it counts as ended.
    assert comes_true(lambda: not any(is_running(pid) for pid in killed))


def test_process_itself_can_be_spared(family):
    killed = procession.kill_process_tree(family.pid, including_parent=False)
    assert len(killed) == 2
    assert family.pid not in killed
    assert family.poll() is None


def test_own_children_are_reported_as_killed(ctx):
    child = ctx.Process(target=signal.pause)
    child.start()
    assert procession.kill_process_tree(child.pid) == [child.pid]
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()


def test_process_that_is_not_there(family):
    family.kill()
    family.wait()
    with pytest.raises(ProcessLookupError):
        procession.kill_process_tree(family.pid)


@pytest.mark.parametrize("pid", [0, 1, -1, os.getppid()], ids=["0", "1", "-1", "parent"])
def test_process_that_must_not_be_killed(pid):
    with pytest.raises(ValueError, match=str(pid)):
        procession.kill_process_tree(pid)
