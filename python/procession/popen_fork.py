"""Starting a child as a copy of this process."""

from __future__ import annotations

import os
import signal
import sys

from procession import _process, _stdlib
from procession._procession import Child, fork, own_sentinel

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["Popen"]


class Popen:
    """A child process, for the process object that stands for it."""

    method = "fork"
    _child: Child
    # What keeps the objects of managers that the child has proxies for, until it has ended.
    _held_for_child: Sequence[Any] = ()

    def __init__(self, process_obj: Any) -> None:
        # It ends the children when this process does.
        _stdlib.load("util")
        _process.open_nowhere()
        # Before anything that the child prints.
        _process.flush()
        self.returncode: int | None = None
        self._launch(process_obj)
        self.pid = self._child.pid
        self.sentinel = self._child.sentinel

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number that the descriptor has in the child."""
        return fd

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or `None` while the child runs."""
        return self.wait(0 if flag == os.WNOHANG else None)

    def wait(self, timeout: float | None = None) -> int | None:
        """Block until the child has ended and return its exit code; `None` if time ran out."""
        if self.returncode is None:
            self.returncode = self._child.poll() if timeout == 0 else self._child.wait(timeout)
            if self.returncode is not None:
                self._held_for_child = []
        return self.returncode

    def interrupt(self) -> None:
        """Send the child what Ctrl-C sends."""
        self._child.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Ask the child to end."""
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child at once."""
        self._child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of the child, which has ended."""
        del self._child

    def _launch(self, process_obj: Any) -> None:
        parent_sentinel = own_sentinel()
        try:
            child = fork(bool(process_obj.daemon))
            if child is None:
                _process.run_and_exit(lambda: (process_obj, parent_sentinel))
            self._child = child
            # It comes to take its own references when the proxies may be gone here.
            if links := sys.modules.get("procession._links"):
                self._held_for_child = links.references()
        finally:
            os.close(parent_sentinel)
