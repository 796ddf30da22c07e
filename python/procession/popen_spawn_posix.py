"""Starting a child as a fresh interpreter."""

from __future__ import annotations

import io
import os

from procession import popen_fork, spawn
from procession._procession import own_sentinel, start_program
from procession.context import reduction, set_spawning_popen

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]


class _DupFd:
    """A descriptor that the child has under the same number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        return self.fd


class Popen(popen_fork.Popen):
    """A child process, for the process object that stands for it."""

    method = "spawn"
    DupFd = _DupFd

    def __init__(self, process_obj: Any) -> None:
        self._fds: list[int] = []
        super().__init__(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Let the child have the descriptor, and return its number there."""
        self._fds.append(fd)
        return fd

    def _launch(self, process_obj: Any) -> None:
        preparation = spawn.get_preparation_data(process_obj._name)
        parent_sentinel = own_sentinel()
        try:
            preparation["procession_parent_sentinel"] = self.duplicate_for_child(parent_sentinel)
            tracker = spawn.running_tracker()
            if tracker is not None:
                preparation["procession_tracker"] = self.duplicate_for_child(tracker)
            self._child = start_program(
                os.fsdecode(spawn.get_executable()),
                [os.fsdecode(argument) for argument in spawn.get_command_line()],
                lambda: self._dump(preparation, process_obj),
                self._fds,
                bool(process_obj.daemon),
            )
        finally:
            os.close(parent_sentinel)

    def _dump(self, preparation: dict[str, Any], process_obj: Any) -> memoryview:
        payload = io.BytesIO()
        set_spawning_popen(self)  # type: ignore[arg-type]
        try:
            reduction.dump(preparation, payload)
            reduction.dump(process_obj, payload)
        finally:
            set_spawning_popen(None)
        return payload.getbuffer()
