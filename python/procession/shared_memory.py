"""Shared memory with a name, which any program can open, and lists in such memory."""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import types
from functools import partial

from procession._procession import ShareableListBase, create_name, open_name, unlink_name

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, ClassVar

__all__ = ["ShareableList", "SharedMemory"]

_USE_POSIX = True
_O_CREX = os.O_CREAT | os.O_EXCL
_SHM_NAME_PREFIX = "/psm_"
_RANDOM_BYTES = 4  # in the name of memory that was given none


def _make_filename() -> str:
    """Return a name that is likely to be free."""
    return _SHM_NAME_PREFIX + secrets.token_hex(_RANDOM_BYTES)


class SharedMemory:
    """Shared memory that any program can open by its name.

    The process tree that creates it unlinks the name when its first process ends normally, unless
    `track` is false or somebody has called `unlink` before. If all of that tree was killed, the
    next program that makes or attaches to named memory with this package does. Attaching never
    unlinks anything.

    Args:
        name: The name; without one, `create` finds one that is free.
        create: Whether to make the memory, zeroed, rather than to attach to it.
        size: Number of bytes, if it is made.
        track: Whether the process tree unlinks the name in the end.

    Raises:
        FileExistsError: It was to be made, and the name is taken.
        FileNotFoundError: There is no such name to attach to.
        ValueError: The size is no positive number, or there is no name to attach to.
        OSError: The system refuses, or the name cannot be one.
    """

    # What `close`, `unlink` and `repr` need if `__init__` has failed; subclasses override some.
    _name: Any = None
    _fd = -1
    _mmap: mmap.mmap | None = None
    _buf: memoryview | None = None
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _size = 0
    _track = True

    def __init__(
        self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True
    ) -> None:
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _O_CREX | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        self._open(name, size)
        try:
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
        except BaseException:
            self.close()
            if self._flags & os.O_EXCL:
                unlink_name(self._name)
            raise
        self._buf = memoryview(self._mmap)

    def _open(self, name: str | None, size: int) -> None:
        """Open the memory of this name, or a new one under any free name."""
        while name is None:
            try:
                self._open_name(_make_filename(), size)
            except FileExistsError:
                continue
            return
        self._open_name("/" + name if self._prepend_leading_slash else name, size)

    def _open_name(self, name: str, size: int) -> None:
        if self._flags & os.O_EXCL:
            self._fd = create_name(name, size, self._mode, self._track)
        else:
            self._fd = open_name(name, self._flags, self._mode)
        self._name = name

    def __del__(self) -> None:
        try:  # noqa: SIM105 - `contextlib` may be gone when the interpreter ends
            self.close()
        except OSError:
            pass

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.name, False, self.size)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self) -> memoryview | None:
        """The bytes; `None` when closed."""
        return self._buf

    @property
    def name(self) -> Any:
        """The name."""
        if self._prepend_leading_slash and self._name and self._name.startswith("/"):
            return self._name[1:]
        return self._name

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def close(self) -> None:
        """Let go of the memory in this process. Views of it keep it until they are gone."""
        for part in (self._buf, self._mmap):
            try:
                if isinstance(part, memoryview):
                    part.release()
                elif part is not None:
                    part.close()
            except BufferError:
                pass  # goes with the last view
        self._buf = self._mmap = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def unlink(self) -> None:
        """Take the name away. Who has the memory keeps it.

        Raises:
            FileNotFoundError: Somebody has done so before.
        """
        if self._name:
            unlink_name(self._name)


class ShareableList(ShareableListBase):
    """A list of fixed length in shared memory, for numbers, texts, bytes and `None`.

    The bytes are laid out as by the original, which can use the list as well. There is no lock:
    processes that change the same item at the same time need one of their own.

    An item can be replaced by one of another type. One that is longer than what it was made with
    raises `ValueError`, and a whole number of more than 64 bits `struct.error`.

    Args:
        sequence: The items, for a new list; without them, `name` says which one to attach to.
        name: The name of the memory; for a new list without one, any that is free.

    Raises:
        KeyError: A list cannot hold an item of this type.
        ValueError: What is attached to is no list.
        Exception: As `SharedMemory` raises.
    """

    _types_mapping: ClassVar[dict[type[Any], str]] = {
        int: "q",
        float: "d",
        bool: "xxxxxxx?",
        str: "%ds",
        bytes: "%ds",
        type(None): "xxxxxx?x",
    }
    _alignment = 8

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Any]: ...

    def __init__(self, sequence: Iterable[Any] | None = None, *, name: str | None = None) -> None:
        if name is not None and sequence is None:
            self._attach(SharedMemory(name))
            return
        items = list(sequence or ())
        sizes = [self._slot_size(item) for item in items]
        header = [len(items), 0]
        for size in sizes:
            header.append(header[-1] + size)
        room = 8 * len(header) + header[-1] + 9 * len(items)
        shm = SharedMemory(name, create=True, size=room)
        memory: Any = shm.buf
        try:
            struct.pack_into(f"{len(header)}q", memory, 0, *header)
            self._attach(shm)
            for position, item in enumerate(items):
                self[position] = item
        except BaseException:
            shm.close()
            shm.unlink()
            raise

    def _slot_size(self, item: Any) -> int:
        self._types_mapping[type(item)]  # a `KeyError` for what a list cannot hold
        if not isinstance(item, str | bytes):
            return self._alignment
        # The original reckons with one byte for each character, which is too few for some.
        length = len(item.encode() if isinstance(item, str) else item)
        return (
            max(len(item) // self._alignment + 1, -(-length // self._alignment)) * self._alignment
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(self.__class__, name=self.shm.name), ()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({list(self)}, name={self.shm.name!r})"

    @property
    def format(self) -> str:
        """The formats of all items, for `struct`."""
        return "".join(self._get_packing_format(position) for position in range(len(self)))

    def count(self, value: Any) -> int:
        """Return how many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value: Any) -> int:
        """Return the position of the first item that equals `value`; `ValueError` if none does."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} not in this container")

    __class_getitem__: ClassVar[Any] = classmethod(types.GenericAlias)
