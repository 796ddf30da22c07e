"""The end of a process that has encrypted connections."""

from __future__ import annotations

from procession import _stdlib
from procession._procession import finish_tunnels

__all__ = ["finish_at_exit"]

# Seconds that peers may take for what was sent to them before this process ended.
_PATIENCE = 2.0

_registered: list[object] = []


def finish_at_exit() -> None:
    """See to it that what was sent is on its way before this process ends.

    A child that was forked ends without what the C library would do. Finalizers run in each process
    that ends by itself; a forked child forgets its parent's.
    """
    import os

    if os.getpid() not in _registered:
        _registered[:] = [os.getpid()]
        # After all that might still send.
        _stdlib.load("util").Finalize(None, finish_tunnels, (_PATIENCE,), exitpriority=-2000)
