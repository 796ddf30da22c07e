"""What several of these modules need."""

import contextlib
import pathlib
import signal
import time

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long


def comes_true(condition):
    """Wait for something that another process does and does not announce; say whether it came."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def is_running(pid):
    """Say whether there is a process of this number that has not ended."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


# What is to come within a block may come before it on a busy machine. So what it raises is awaited
# around these, and not within.


@contextlib.contextmanager
def alarm_soon():
    """Have SIGALRM come within the block."""
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def started(thread):
    """Start a thread that does something to the block."""
    try:
        thread.start()
        yield
    finally:
        thread.join()


def with_time_enough(check):
    """Call `check` with a time that something may take and other things must keep to.

    On a busy machine all may take too long; then it is called again with more time.
    """
    for seconds in (0.1, 1.0, 10.0):
        with contextlib.suppress(Exception, pytest.fail.Exception):
            return check(seconds)
    return check(100.0)
