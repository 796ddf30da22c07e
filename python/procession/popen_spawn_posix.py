"""Starting a child as a fresh interpreter."""

from __future__ import annotations

import io
import os

from procession import _by_value, _stdlib, popen_fork, spawn
from procession._procession import own_sentinel, start_program

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]

_context = _stdlib.load("context")


class Popen(popen_fork.Popen):
    """A child process, for the process object that stands for it."""

    method = "spawn"
    DupFd: Any = spawn.DupFd

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
            self._child = self._start(
                lambda: self._dump(preparation, process_obj, parent_sentinel),
                bool(process_obj.daemon),
            )
        finally:
            os.close(parent_sentinel)

    def _start(self, dump: Any, daemon: bool) -> Any:
        return start_program(
            os.fsdecode(spawn.get_executable()),
            [os.fsdecode(argument) for argument in spawn.get_command_line()],
            dump,
            self._fds,
            daemon,
        )

    def _dump(
        self, preparation: dict[str, Any], process_obj: Any, parent_sentinel: int
    ) -> memoryview:
        preparation["procession_parent_sentinel"] = self._for_child(parent_sentinel)
        tracker = _stdlib.tracker()
        if tracker is not None:
            # A child without it would start one of its own, which would clean up after the child
            # what is still in use elsewhere.
            preparation["procession_tracker"] = self._for_child(tracker)
        preparation["procession_complaint"] = spawn.complaint()
        payload = io.BytesIO()
        _context.set_spawning_popen(self)
        try:
            _by_value.dump(preparation, payload)
            _by_value.dump(process_obj, payload)
        finally:
            _context.set_spawning_popen(None)
        return payload.getbuffer()

    def _for_child(self, fd: int) -> Any:
        return self.DupFd(self.duplicate_for_child(fd))
