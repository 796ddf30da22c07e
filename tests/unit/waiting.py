"""What several of these modules need."""

import time

LIMIT = 60.0  # seconds; only a deadlock takes this long


def comes_true(condition):
    """Wait for something that another process does and does not announce; say whether it came."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
