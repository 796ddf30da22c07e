"""Blocks of shared memory: what `sharedctypes` is made of.

All memory comes from the arena that the processes of a tree share, so nothing is carved up here. A
block is zeroed, and goes with the last of those who hold it, in whatever process that is.
"""

from __future__ import annotations

import ctypes
import mmap
import threading

from procession._procession import Block

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Arena", "BufferWrapper", "Heap"]

_Place = tuple["Arena", int, int]


def _view(block: Block) -> memoryview:
    """Return the bytes of the block, which lives as long as the view."""
    array: Any = (ctypes.c_ubyte * block.size).from_address(block.address)
    array._block = block
    return memoryview(array).cast("B")


class Arena:
    """An area of shared memory: a new one, or the file behind a descriptor.

    Attributes:
        size: Number of bytes.
        fd: The descriptor; -1 if there is none.
        buffer: The memory, as an object with the buffer protocol.
    """

    buffer: memoryview | mmap.mmap

    def __init__(self, size: int, fd: int = -1) -> None:
        self.size = size
        self.fd = fd
        self._block = None if fd != -1 else Block(size)
        self.buffer = mmap.mmap(fd, size) if self._block is None else _view(self._block)

    def __getstate__(self) -> Block:
        if self._block is None:
            raise ValueError("Arena is unpicklable because it was made from a descriptor")
        return self._block

    def __setstate__(self, block: Block) -> None:
        self.size = block.size
        self.fd = -1
        self._block = block
        self.buffer = _view(block)


class Heap:
    """Hands out areas of shared memory: each is an arena of its own.

    The attributes that count and list what there is are those of the original.
    """

    def __init__(self, size: int = mmap.PAGESIZE) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._arenas: list[Arena] = []
        self._allocated_blocks: dict[Arena, set[tuple[int, int]]] = {}
        self._len_to_seq: dict[int, list[_Place]] = {}
        self._pending_free_blocks: list[_Place] = []
        self._n_mallocs = 0
        self._n_frees = 0

    def malloc(self, size: int) -> _Place:
        """Return an arena, and where in it an area of this size begins and ends."""
        arena = Arena(size)
        with self._lock:
            self._n_mallocs += 1
            self._arenas.append(arena)
            self._allocated_blocks[arena] = {(0, size)}
        return arena, 0, size

    def free(self, block: _Place) -> None:
        """Give back what `malloc` has returned."""
        arena = block[0]
        with self._lock:
            del self._allocated_blocks[arena]
            self._arenas.remove(arena)
            self._n_frees += 1


class BufferWrapper(Block):
    """Zeroed shared memory of `size` bytes."""

    # The original's wrappers are from this heap, and programs put another one there. These are not.
    _heap = Heap()

    def create_memoryview(self) -> memoryview:
        """Return a view of the memory, which lives as long as the view."""
        return _view(self)
