"""Starting a child as a copy of the fork server."""

from __future__ import annotations

from procession import forkserver, popen_spawn_posix

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]


class Popen(popen_spawn_posix.Popen):
    """A child process, for the process object that stands for it."""

    method = "forkserver"
    DupFd: Any = forkserver.DupFd

    def duplicate_for_child(self, fd: int) -> int:
        """Let the child have the descriptor, and return its place among those that it gets."""
        self._fds.append(fd)
        return len(self._fds) - 1

    def _start(self, dump: Any, daemon: bool) -> Any:
        return forkserver._forkserver.spawn(dump, self._fds, daemon)
