"""`SharedMemoryManager` and its server, which unlinks named shared memory at its end.

`procession.managers` imports this when somebody asks for the class; it has no other users.
"""

# ruff: noqa: ARG002
# The names of methods and arguments are the original's, whose programs use them as keywords.

from __future__ import annotations

import os

from procession import _stdlib
from procession._base_manager import BaseManager
from procession._manager_server import Server
from procession._proxies import settle_in_managers

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

__all__ = ["SharedMemoryManager"]

_util: Any = _stdlib.util


class SharedMemoryServer(Server):
    """A server that in addition remembers named shared memory, to unlink it at its end."""

    _has_quick_functions = True

    public: Sequence[str] = [
        *Server.public,
        "track_segment",
        "release_segment",
        "list_segments",
    ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        address = self.address
        if isinstance(address, bytes):
            address = os.fsdecode(address)
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{address}_{os.getpid()}")
        _util.debug("SharedMemoryServer started by pid %d", os.getpid())

    def create(self, c: Any, typeid: str, /, *args: Any, **kwargs: Any) -> Any:
        """Make an object; return its ident and the names of its methods."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c: Any) -> None:
        """Unlink what is remembered, and stop the server."""
        self.shared_memory_context.unlink()
        super().shutdown(c)

    def track_segment(self, c: Any, segment_name: str) -> None:
        """Remember named memory."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c: Any, segment_name: str) -> None:
        """Unlink named memory and forget it."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c: Any) -> list[str]:
        """Return the names of the memory that is remembered."""
        return self.shared_memory_context.segment_names


class _SharedMemoryTracker:
    """Names of shared memory that go when this goes."""

    def __init__(self, name: str, segment_names: list[str] | None = None) -> None:
        self.shared_memory_context_name = name
        self.segment_names = [] if segment_names is None else segment_names

    def register_segment(self, segment_name: str) -> None:
        """Remember named memory."""
        _util.debug("Register segment %r in pid %d", segment_name, os.getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name: str) -> None:
        """Unlink named memory and forget it."""
        from procession.shared_memory import SharedMemory

        _util.debug("Destroy segment %r in pid %d", segment_name, os.getpid())
        self.segment_names.remove(segment_name)
        segment = SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self) -> None:
        """Unlink all that is remembered."""
        for segment_name in self.segment_names[:]:
            self.destroy_segment(segment_name)

    def __del__(self) -> None:
        self.unlink()

    def __getstate__(self) -> Any:
        return (self.shared_memory_context_name, self.segment_names)

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]


class SharedMemoryManager(BaseManager):
    """A manager that unlinks the named shared memory it has made, at its end."""

    _Server = SharedMemoryServer

    def SharedMemory(self, size: int) -> Any:
        """Return named memory of this many bytes."""
        from procession.shared_memory import SharedMemory

        memory = SharedMemory(None, create=True, size=size)
        self._track(memory)
        return memory

    def ShareableList(self, sequence: Iterable[Any]) -> Any:
        """Return a list in named memory."""
        from procession.shared_memory import ShareableList

        made = ShareableList(sequence)
        self._track(made.shm)
        return made

    def _track(self, memory: Any) -> None:
        try:
            self._link().function("track_segment", (memory.name,))
        except BaseException:
            memory.unlink()
            raise


settle_in_managers(globals())
