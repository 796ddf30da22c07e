from collections.abc import Callable, Generator, Iterable, Iterator
from types import GenericAlias, TracebackType
from typing import Any, Final, Generic, Self, SupportsIndex, TypeAlias, TypeVar, final

from typing_extensions import Buffer, disjoint_base

__all__ = [
    "ApplyResult",
    "ArenaDict",
    "ArenaList",
    "Barrier",
    "Block",
    "Boot",
    "BoundedSemaphore",
    "Caller",
    "Child",
    "Condition",
    "Connection",
    "Event",
    "ForkServer",
    "IMapIterator",
    "IMapUnorderedIterator",
    "JoinableQueue",
    "Listener",
    "Lock",
    "LockedField",
    "ManagerClient",
    "ManagerServer",
    "MapResult",
    "Parcel",
    "Pool",
    "Queue",
    "QueueReader",
    "QueueWriter",
    "RLock",
    "SemLock",
    "Semaphore",
    "ServerThread",
    "ShareableListBase",
    "SimpleQueue",
    "SynchronizedArray",
    "SynchronizedBase",
    "SynchronizedValue",
    "Tls",
    "WorkerBoot",
    "Zygote",
    "announce_exit",
    "answer",
    "challenge",
    "connect",
    "connect_manager",
    "cpu_count",
    "create_name",
    "dumps",
    "fill",
    "finish_tunnels",
    "fork",
    "is_packing",
    "kill_process_tree",
    "loads",
    "open_name",
    "own_sentinel",
    "pipe",
    "redeem",
    "share",
    "start_program",
    "stop_sharing",
    "take_boot",
    "unlink_name",
    "verify",
    "wait",
]

_K = TypeVar("_K")
_T = TypeVar("_T")
_V = TypeVar("_V")
_R_co = TypeVar("_R_co", covariant=True)

# For the value of a call, and for what it raised.
_Callbacks: TypeAlias = tuple[
    Callable[[Any], object] | None, Callable[[BaseException], object] | None
]

@final
class ArenaDict(Generic[_K, _V]):
    """A dict that any process of the tree can use; its values are copies.

    It lies in shared memory and needs no server. It behaves as a `dict`, but what is put in is
    pickled and what comes out is unpickled: changing the value that `d[key]` returns does not
    change the dict. Values may contain queues, locks and other containers, which live as long as
    they are in it. One that is in itself is never let go of.

    Each method is one step for all other processes, `update` and `clear` too: others see all of it
    or nothing, also if the process is killed in the middle. Waiting for others to finish theirs
    lets go of the interpreter, and signals are handled.

    Keys are equal as they are in a `dict`. Where they are numbers, texts, bytes, `None` or tuples
    of these, they are found at once; all others are compared one by one, with copies.

    The dict itself can be passed on: as an argument of a process, through a queue, to a task of a
    pool, in another container. It goes with the last of its users.

    Raises:
        MemoryError: The shared memory of this tree of processes is at its limit.

    Example:
        ```python
        from procession import Process
        from procession._procession import ArenaDict

        def note(ages):
            ages["Ada"] = 36

        if __name__ == "__main__":
            ages = ArenaDict()
            child = Process(target=note, args=(ages,))
            child.start()
            child.join()
            print(ages["Ada"])
        ```
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    @classmethod
    def fromkeys(cls, iterable: Iterable[_K], value: Any = None, /) -> ArenaDict[_K, Any]:
        """Make a dict with these keys, all with the same value."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    @classmethod
    def _open(cls, handle_id: int, /) -> Self:
        """Return the dict that a `handle_id` stands for.

        Raises:
            RuntimeError: There is no such dict any more.
        """

    def __reduce__(self) -> Any: ...
    @property
    def handle_id(self) -> int:
        """The number by which every process of the tree knows the dict. It keeps nothing alive."""

    def __len__(self) -> int: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __getitem__(self, key: _K, /) -> _V: ...
    def __setitem__(self, key: _K, value: _V, /) -> None: ...
    def __delitem__(self, key: _K, /) -> None: ...
    def __iter__(self) -> Iterator[_K]: ...
    def __reversed__(self) -> Iterator[_K]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: object, /) -> bool: ...
    def __le__(self, other: object, /) -> bool: ...
    def __gt__(self, other: object, /) -> bool: ...
    def __ge__(self, other: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    def __or__(self, other: Any, /) -> dict[_K, _V]: ...
    def __ror__(self, other: Any, /) -> dict[_K, _V]: ...
    def __ior__(self, other: Any, /) -> Self: ...
    def get(self, key: _K, default: Any = None, /) -> Any:
        """Return the value under the key, or `default` if there is none."""

    def pop(self, key: _K, /, *default: Any) -> Any:
        """Remove a key and return its value, or `default` if it is not there.

        Raises:
            KeyError: It is not there, and no default was given.
        """

    def popitem(self) -> tuple[_K, _V]:
        """Remove the last key and return it with its value.

        Raises:
            KeyError: The dict is empty.
        """

    def setdefault(self, key: _K, default: Any = None, /) -> Any:
        """Return the value under the key; if there is none, put `default` there and return it."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Put several values in, in one step: from a mapping or from pairs, and from keywords.

        If reading them raises, nothing is put in.
        """

    def keys(self) -> list[_K]:
        """Return the keys, copied at one moment."""

    def values(self) -> list[_V]:
        """Return the values, copied at one moment."""

    def items(self) -> list[tuple[_K, _V]]:
        """Return pairs of keys and values, copied at one moment."""

    def copy(self) -> dict[_K, _V]:
        """Return a plain dict with copies of all keys and values."""

    def clear(self) -> None:
        """Remove all keys, in one step."""

@final
class ArenaList(Generic[_T]):
    """A list that any process of the tree can use; its elements are copies.

    It lies in shared memory and needs no server. It behaves as a `list`, but what is put in is
    pickled and what comes out is unpickled: changing the object that `l[0]` returns does not
    change the list. Elements may contain queues, locks and other containers, which live as long as
    they are in it. One that is in itself is never let go of.

    Each method is one step for all other processes, `extend` and `sort` too: others see all of it
    or nothing, also if the process is killed in the middle. Iterating goes over a copy. What
    compares elements does so with copies, and `remove`, `sort` and `*=` begin again if others
    change the list meanwhile. Appending, and removing at either end, takes the same time however
    long the list is.

    The list itself can be passed on: as an argument of a process, through a queue, to a task of a
    pool, in another container. It goes with the last of its users.

    Raises:
        MemoryError: The shared memory of this tree of processes is at its limit.

    Example:
        ```python
        from procession import Process
        from procession._procession import ArenaList

        def note(names):
            names.append("Ada")

        if __name__ == "__main__":
            names = ArenaList()
            child = Process(target=note, args=(names,))
            child.start()
            child.join()
            print(names[0])
        ```
    """

    def __new__(cls, iterable: Iterable[_T] | None = None, /) -> Self: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    @classmethod
    def _open(cls, handle_id: int, /) -> Self:
        """Return the list that a `handle_id` stands for.

        Raises:
            RuntimeError: There is no such list any more.
        """

    def __reduce__(self) -> Any: ...
    @property
    def handle_id(self) -> int:
        """The number by which every process of the tree knows the list. It keeps nothing alive."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __setitem__(self, index: Any, value: Any, /) -> None: ...
    def __delitem__(self, index: Any, /) -> None: ...
    def __contains__(self, value: object, /) -> bool: ...
    def __iter__(self) -> Iterator[_T]: ...
    def __reversed__(self) -> Iterator[_T]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Any, /) -> bool: ...
    def __le__(self, other: Any, /) -> bool: ...
    def __gt__(self, other: Any, /) -> bool: ...
    def __ge__(self, other: Any, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]
    def __add__(self, other: Any, /) -> list[_T]: ...
    def __radd__(self, other: Any, /) -> list[_T]: ...
    def __iadd__(self, other: Iterable[_T], /) -> Self: ...  # type: ignore[misc]
    def __mul__(self, count: SupportsIndex, /) -> list[_T]: ...
    def __rmul__(self, count: SupportsIndex, /) -> list[_T]: ...
    def __imul__(self, count: SupportsIndex, /) -> Self: ...
    def append(self, value: _T, /) -> None:
        """Add an object behind the last."""

    def extend(self, iterable: Iterable[_T], /) -> None:
        """Add all objects of an iterable behind the last, in one step.

        If the iterable raises, nothing is added.
        """

    def insert(self, index: SupportsIndex, value: _T, /) -> None:
        """Insert an object before a position."""

    def pop(self, index: SupportsIndex = -1, /) -> _T:
        """Remove the element at a position, which is the last if not given, and return it.

        Raises:
            IndexError: There is none.
        """

    def remove(self, value: _T, /) -> None:
        """Remove the first element that is equal to a value.

        Raises:
            ValueError: There is none.
        """

    def index(self, value: _T, /, *bounds: SupportsIndex) -> int:
        """Return the position of the first element that is equal to a value.

        Args:
            value: The value.
            bounds: The first position to look at, and the one behind the last.

        Raises:
            ValueError: There is none.
        """

    def count(self, value: _T, /) -> int:
        """Return how many elements are equal to a value."""

    def reverse(self) -> None:
        """Reverse the order of the elements."""

    def sort(self, *, key: Callable[[_T], Any] | None = None, reverse: bool = False) -> None:
        """Sort the elements, in one step: again, if others change the list meanwhile.

        The sort is stable, as that of a `list` is. If comparing raises, nothing is changed.
        """

    def copy(self) -> list[_T]:
        """Return a plain list with copies of all elements."""

    def clear(self) -> None:
        """Remove all elements, in one step."""

@disjoint_base
class Queue(Generic[_T]):
    """A queue that any process of the tree can put objects into and get them from.

    First in, first out for each process that puts. An object is pickled by `put` and is in shared
    memory when that returns: no thread does it later, so nothing has to be joined, and what a
    process has put stays there when it dies.

    The queue itself can be passed on: as an argument of a process, through a queue, to a task of
    a pool.

    Args:
        maxsize: Most objects in the queue at a time; zero or less for as many as there is
            memory for.
        ctx: The context that the queue is made by. It makes no difference.

    Example:
        ```python
        from procession import Process, Queue

        def count(queue):
            for number in range(3):
                queue.put(number)

        if __name__ == "__main__":
            queue = Queue()
            child = Process(target=count, args=(queue,))
            child.start()
            print([queue.get() for _ in range(3)])
            child.join()
        ```
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, maxsize: SupportsIndex = 0, *, ctx: object) -> None: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def __getstate__(self) -> Any: ...
    def __setstate__(self, state: Any, /) -> None: ...
    def put(self, obj: _T, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue.

        Args:
            obj: Any object that can be pickled.
            block: Whether to wait if the queue is full.
            timeout: Longest time to wait, in seconds; `None` for no limit.

        Raises:
            queue.Full: There was no room in time.
            ValueError: The queue is closed in this process.
            OSError: Its `_writer` is closed in this process.
            MemoryError: The shared memory of this tree of processes is at its limit.
            Exception: Whatever pickling raises; nothing is put then. A subclass with an
                `_on_queue_feeder_error` of its own gets it instead.
        """

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Remove and return an object from the queue.

        Args:
            block: Whether to wait if the queue is empty.
            timeout: Longest time to wait, in seconds; `None` for no limit.

        Raises:
            queue.Empty: Nothing came in time.
            ValueError: The queue is closed in this process.
            OSError: Its `_reader` is closed in this process.
            Exception: Whatever unpickling raises; the object is removed then.
        """

    def put_nowait(self, obj: _T) -> None:
        """Put an object into the queue if there is room. Raises what `put` raises otherwise.

        Raises:
            queue.Full: There is none.
        """

    def get_nowait(self) -> _T:
        """Remove and return an object if there is one. Raises what `get` raises otherwise.

        Raises:
            queue.Empty: There is none.
        """

    def put_many(self, objs: Iterable[_T], block: bool = True, timeout: float | None = None) -> int:
        """Put several objects into the queue, in their order, and return how many.

        All are pickled before the first is put. Waits for room as `put` does, for `timeout` seconds
        in all. Fewer than all are put if there was no room for the others in time.

        Raises:
            queue.Full: There was no room for a single one.
            Exception: What `put` raises; nothing is put if it is pickling that fails.
        """

    def get_many(self, limit: int, block: bool = True, timeout: float | None = None) -> list[_T]:
        """Remove and return up to `limit` objects, at least one unless that is zero.

        Waits for the first only, for `timeout` seconds at most.

        Raises:
            queue.Empty: Nothing came in time.
            Exception: What `get` raises.
        """

    def qsize(self) -> int:
        """Return how many objects are in the queue. Exact while nobody puts or gets."""

    def empty(self) -> bool:
        """Say whether there is nothing to get. Exact while nobody puts or gets."""

    def full(self) -> bool:
        """Say whether there is no room to put anything. Exact while nobody puts or gets."""

    def close(self) -> None:
        """Close the queue in this process: nothing more is put or got here.

        Other processes use it as before, and `qsize`, `empty` and `full` go on telling.
        """

    def join_thread(self) -> None:
        """Do nothing: what was put is in the queue already.

        Raises:
            AssertionError: The queue is not closed in this process.
        """

    def cancel_join_thread(self) -> None:
        """Do nothing: a process never waits for its queues when it ends."""

    @property
    def _is_closed(self) -> bool: ...
    @property
    def _is_native(self) -> bool: ...
    @property
    def _limit(self) -> int: ...
    def _make_reader(self) -> QueueReader: ...
    def _make_writer(self) -> QueueWriter: ...

@disjoint_base
class JoinableQueue(Queue[_T]):
    """A queue that knows when all objects that were put into it have been dealt with.

    An object counts as unfinished from `put` to one more call of `task_done`, by any process. What
    a process has got less what it has called `task_done` for is lost if it dies.

    Args:
        maxsize: Most objects in the queue at a time; zero or less for as many as there is
            memory for.
        ctx: The context that the queue is made by. It makes no difference.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, maxsize: SupportsIndex = 0, *, ctx: object) -> None: ...
    def __setstate__(self, state: Any, /) -> None: ...
    def task_done(self) -> None:
        """Say that an object that was got has been dealt with.

        Raises:
            ValueError: It was called more often than objects were put.
        """

    def join(self) -> None:
        """Block until all objects that were put have been dealt with.

        Raises:
            TasksLostError: A process died that had got objects and not called `task_done` for them.
                They count as done from then on; call again to wait for the others.
        """

    def _join_within(self, seconds: float) -> bool: ...
    def _unfinished(self) -> int: ...

@disjoint_base
class SimpleQueue(Generic[_T]):
    """A queue without limits of size or time.

    Args:
        ctx: The context that the queue is made by. It makes no difference.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, *, ctx: object) -> None: ...
    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def __getstate__(self) -> Any: ...
    def __setstate__(self, state: Any, /) -> None: ...
    def put(self, obj: _T) -> None:
        """Put an object into the queue.

        Raises:
            OSError: The queue is closed in this process.
            MemoryError: The shared memory of this tree of processes is at its limit.
            Exception: Whatever pickling raises; nothing is put then.
        """

    def get(self) -> _T:
        """Remove and return an object from the queue; wait for one if there is none.

        Raises:
            OSError: The queue is closed in this process.
            Exception: Whatever unpickling raises; the object is removed then.
        """

    def empty(self) -> bool:
        """Say whether there is nothing to get. Exact while nobody puts or gets."""

    def close(self) -> None:
        """Close the queue in this process: nothing more is put or got here."""

    def _make_reader(self) -> QueueReader: ...
    def _make_writer(self) -> QueueWriter: ...

@final
class QueueReader:
    """The end of a queue to get from, for programs that know a queue as a pipe: its `_reader`."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is something to get.

        It belongs to this process; a child asks for one of its own. After a process was killed in
        the middle of `put` or `get` it may be readable once in vain. Never read from it.
        """

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until there is something to get, and say whether there is.

        Args:
            timeout: Longest time to wait, in seconds; `None` for no limit.

        Raises:
            OSError: This end is closed in this process.
        """

    def recv(self) -> Any:
        """Remove and return an object from the queue; wait for one if there is none."""

    def recv_bytes(self) -> bytes:
        """Remove an object from the queue, and return a pickle of it; wait if there is none."""

    def close(self) -> None:
        """Close this end of the queue in this process: `get` raises `OSError` from now on."""

    @property
    def closed(self) -> bool: ...
    @property
    def readable(self) -> bool: ...
    @property
    def writable(self) -> bool: ...

@final
class QueueWriter:
    """The end of a queue to put into, for programs that know a queue as a pipe: its `_writer`."""

    def fileno(self) -> int:
        """Return a descriptor that is always writable. Nothing is to be written to it."""

    def send(self, obj: Any) -> None:
        """Put an object into the queue; wait for room if there is none."""

    def send_bytes(self, buf: Buffer) -> None:
        """Put the object that a pickle describes into the queue; wait for room if there is none."""

    def close(self) -> None:
        """Close this end of the queue in this process: `put` raises `OSError` from now on."""

    @property
    def closed(self) -> bool: ...
    @property
    def readable(self) -> bool: ...
    @property
    def writable(self) -> bool: ...

@disjoint_base
class SemLock:
    """What locks and semaphores have in common.

    They can be passed on at any time: as an argument of a process, through a queue, to a task of a
    pool, inside other objects. Waiters sleep, and one that has waited for some milliseconds comes
    before all others.

    Args:
        kind: `RECURSIVE_MUTEX` or `SEMAPHORE` of `procession.synchronize`.
        value: How often it can be acquired before somebody has to wait.
        maxvalue: The value that it cannot exceed.
        ctx: The context that it is made by. It makes no difference.
    """

    SEM_VALUE_MAX: Final[int]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: object) -> None: ...
    def __getstate__(self) -> tuple[int, int, bool]: ...
    def __setstate__(self, state: tuple[int, int, bool], /) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it, and say whether that succeeded.

        A thread that holds a `Lock` already waits like any other. The death of the process that
        holds one is noticed within about two seconds.

        Args:
            block: Whether to wait if it cannot be taken at once.
            timeout: Longest time to wait, in seconds; `None` for no limit, zero or less not to
                wait.

        Raises:
            OwnerDiedError: The process that held the lock died, and the lock was made with
                `on_owner_death="raise"`. It is free again.
        """

    def release(self) -> None:
        """Give it back, and wake one who waits.

        Raises:
            ValueError: The lock is not held, or the semaphore is at its maximum.
            AssertionError: It is an `RLock`, and this thread does not hold it.
        """

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def locked(self) -> bool:
        """Say whether it cannot be taken at this moment."""

    @property
    def owner_died(self) -> bool:
        """Whether a process died that held the lock, and it was taken over through this object."""

    def _count(self) -> int: ...
    def _is_mine(self) -> bool: ...
    def _get_value(self) -> int: ...
    def _is_zero(self) -> bool: ...
    def _after_fork(self) -> None: ...
    @property
    def _semlock(self) -> Self: ...
    @property
    def kind(self) -> int: ...
    @property
    def maxvalue(self) -> int: ...
    @property
    def handle(self) -> int: ...
    @property
    def name(self) -> None: ...

class Lock(SemLock):
    """A lock that is held by one thread of one process, and that anybody may release.

    When the process that holds it is killed, the next one that waits takes it over. When that
    process ends of its own accord the lock stays held, until somebody releases it.

    Args:
        ctx: The context that it is made by. It makes no difference.
        on_owner_death: What `acquire` does when the process that held the lock was killed: "warn"
            takes the lock over, sets `owner_died` and logs a warning once; "raise" raises
            `OwnerDiedError`, with the lock free again.

    Example:
        ```python
        from procession import Lock, Process

        def greet(lock, name):
            with lock:
                print("hello", name)

        if __name__ == "__main__":
            lock = Lock()
            children = [Process(target=greet, args=(lock, name)) for name in "abc"]
            for child in children:
                child.start()
            for child in children:
                child.join()
        ```
    """

    def __init__(self, *, ctx: object, on_owner_death: str = "warn") -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...

class RLock(SemLock):
    """A lock that its holder may take again, and must release as often.

    When the process that holds it ends or is killed, the next one that waits takes it over.

    Args:
        ctx: The context that it is made by. It makes no difference.
        on_owner_death: As for `Lock`, for a process that has ended too.
    """

    def __init__(self, *, ctx: object, on_owner_death: str = "warn") -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...

class Semaphore(SemLock):
    """A counter that processes take from and give back to, and wait for while it is zero.

    What a killed process has acquired is not given back: another one may be meant to release it.

    Args:
        value: The counter's value at first.
        ctx: The context that it is made by. It makes no difference.

    Raises:
        OSError: The value is negative.
        OverflowError: It is larger than `SEM_VALUE_MAX`.
    """

    def __init__(self, value: int = 1, *, ctx: object) -> None: ...
    def get_value(self) -> int:
        """Return the value at this moment."""
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...

class BoundedSemaphore(Semaphore):
    """A semaphore whose value cannot exceed what it was at first.

    A `release` beyond that raises `ValueError`.
    """

    def __init__(self, value: int = 1, *, ctx: object) -> None: ...
    def acquire(self, block: bool = True, timeout: float | None = None) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...

@disjoint_base
class Condition:
    """Lets processes wait until another one, which holds the same lock, notifies them.

    Args:
        lock: A `Lock` or an `RLock`.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, lock: SemLock, /) -> None: ...
    def __getstate__(self) -> tuple[Any, ...]: ...
    def __setstate__(self, state: tuple[Any, ...], /) -> None: ...
    def acquire(self, block: object | None = None, timeout: float | None = None) -> bool:
        """Take the lock, and say whether that succeeded. As `acquire` of the lock."""

    def release(self) -> None:
        """Give the lock back. As `release` of the lock."""

    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        _type: type[BaseException] | None = None,
        _value: BaseException | None = None,
        _traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, block until notified, and take the lock again.

        The lock is held again when this returns or raises, however long it takes to get it.

        Returns:
            Whether it was notified within `timeout` seconds.

        Raises:
            AssertionError: This thread does not hold the lock.
            OwnerDiedError: The process that had the lock meanwhile died, and the lock was made with
                `on_owner_death="raise"`. It is free then.
        """

    def notify(self, n: int = 1) -> None:
        """Wake up to `n` of those who wait, those who have waited longest first.

        One who is killed before it has returned leaves its notification to the next.

        Raises:
            AssertionError: This thread does not hold the lock.
        """

    def notify_all(self) -> None:
        """Wake all who wait.

        Raises:
            AssertionError: This thread does not hold the lock.
        """

    @property
    def _lock(self) -> SemLock: ...
    def _waiters(self) -> int: ...

@disjoint_base
class Event:
    """A flag that any process of the tree can set, clear and wait for.

    Args:
        ctx: The context that it is made by. It makes no difference.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __init__(self, *, ctx: object) -> None: ...
    def __getstate__(self) -> tuple[int]: ...
    def __setstate__(self, state: tuple[int], /) -> None: ...
    def is_set(self) -> bool:
        """Say whether the flag is set."""

    def set(self) -> None:
        """Set the flag and wake all who wait for it."""

    def clear(self) -> None:
        """Clear the flag. Who waited while it was set goes on nevertheless."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the flag is set, and say whether it was within `timeout` seconds."""

@final
class Barrier:
    """What `procession.Barrier` works with.

    Args:
        parties: How many must come; `None` for an object that `__setstate__` makes.
    """

    def __new__(cls, parties: int | None = None) -> Self: ...
    def __getstate__(self) -> tuple[int]: ...
    def __setstate__(self, state: tuple[int], /) -> None: ...
    def wait(self, timeout: float | None = None, action: Callable[[], object] | None = None) -> int:
        """Block until all have come, and return how many had come before.

        The last one to come calls `action` before any goes on.

        Raises:
            threading.BrokenBarrierError: Not all came within `timeout` seconds, or somebody else
                gave up or was killed, or the barrier was reset.
        """

    def reset(self) -> None:
        """Make the barrier as new. Those who wait get an error."""

    def abort(self) -> None:
        """Break the barrier: those who wait, and those who come later, get an error."""

    @property
    def parties(self) -> int:
        """How many must come."""

    @property
    def n_waiting(self) -> int:
        """How many wait at this moment."""

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""

@disjoint_base
class ApplyResult(Generic[_R_co]):
    """The result of a call that a pool carries out.

    It can be awaited in a coroutine, which blocks no thread. When the coroutine is cancelled, so is
    the call.

    Example:
        ```python
        import time
        from concurrent.futures import CancelledError
        from procession import Pool

        if __name__ == "__main__":
            with Pool(2) as pool:
                result = pool.apply_async(time.sleep, (3600,))
                result.cancel()
                try:
                    result.get()
                except CancelledError:
                    print("cancelled")
        ```
    """

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def get(self, timeout: float | None = None) -> _R_co:
        """Block until the call is done and return its value, or raise what it raised.

        What it raised has the worker's traceback as its `__cause__`.

        Raises:
            multiprocessing.TimeoutError: It was not done within `timeout` seconds. It goes on.
            WorkerDiedError: The worker died while it carried out the call.
            TaskTimeoutError: It took longer than its own `timeout`; the worker was killed.
            concurrent.futures.CancelledError: It was cancelled.
            BrokenPoolError: No worker of the pool can start.
            ProcessError: The pool was terminated before it was done.
        """

    def wait(self, timeout: float | None = None) -> None:
        """Block until the call is done or `timeout` seconds have passed."""

    def ready(self) -> bool:
        """Say whether the call is done."""

    def successful(self) -> bool:
        """Say whether the call returned rather than raised.

        Raises:
            ValueError: It is not done.
        """

    def running(self) -> bool:
        """Say whether a worker has begun the call, or one of the calls, and not done it."""

    def cancel(self, running: bool = True) -> bool:
        """Give the call up, and say whether any of it was cancelled by this.

        A call that no worker has begun is never made. The worker that carries it out is killed and
        replaced, unless `running` is false. `get` then raises `concurrent.futures.CancelledError`.
        """

    def add_done_callback(self, call: Callable[[], object]) -> None:
        """Have `call` called, in the pool's one thread, once the call is done.

        The result does not wait for that before it is ready.
        """

    def __await__(self) -> Generator[Any, None, _R_co]: ...
    def _progress(self) -> tuple[int, int]: ...

@final
class MapResult(ApplyResult[list[_R_co]], Generic[_R_co]):
    """The result of several calls: a list of what they return."""

@disjoint_base
class IMapIterator(Iterator[_R_co]):
    """The results of `imap`."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _R_co: ...
    def next(self, timeout: float | None = None) -> _R_co:
        """Block until there is a next result and return it, or raise what the call raised.

        After an error the results that follow can still be asked for.

        Raises:
            multiprocessing.TimeoutError: There was none within `timeout` seconds.
            StopIteration: There are no more.
            Exception: As `get` of an `ApplyResult` does.
        """

    def cancel(self, running: bool = False) -> None:
        """Read no more input, and give up the tasks that are not done.

        Those that a worker has begun are carried out nevertheless, unless `running` is true. Then
        their workers are killed and replaced.
        """

@final
class IMapUnorderedIterator(IMapIterator[_R_co]):
    """The results of `imap_unordered`."""

@final
class Pool:
    """Worker processes and the tasks that they carry out: the engine of `procession.Pool`.

    Args:
        workers: Number of workers.
        retries: How often a task is carried out again after its worker died.
        launch: Starts a worker that will call `serve`, and returns it with its name.
        max_memory: A worker that has more bytes to itself is replaced after the task at hand.
        max_tasks: After how many tasks a worker is replaced.
        affinity: The CPUs of each worker, or `"spread"`: one for each in turn.
    """

    def __new__(
        cls,
        workers: int,
        retries: int,
        launch: Callable[[WorkerBoot], tuple[Child, str]],
        *,
        max_memory: int | None = None,
        max_tasks: int | None = None,
        affinity: Iterable[Iterable[int]] | str | None = None,
    ) -> Self: ...
    def apply(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwds: dict[str, Any],
        callbacks: _Callbacks | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> ApplyResult[Any]:
        """Submit one call.

        `timeout` is how many seconds a task may take from when a worker begins it. The worker is
        killed then, and the task raises `TaskTimeoutError`.
        """

    def map(
        self,
        func: Callable[..., Any],
        items: list[Any],
        chunksize: int,
        star: bool,
        callbacks: _Callbacks | None = None,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        fail_fast: bool = False,
    ) -> MapResult[Any]:
        """Submit a call for every object of a list, `chunksize` of them in a task.

        With `fail_fast` the first task that fails cancels the others.
        """

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        window: int,
        ordered: bool,
        *,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> IMapIterator[Any]:
        """Submit calls for the objects of an iterable as their results are asked for."""

    @property
    def workers(self) -> int:
        """Number of workers that the pool keeps up."""

    def stats(self) -> dict[str, Any]:
        """Return what the pool has done and is doing, in numbers."""

    @property
    def state(self) -> str:
        """`RUN`, `CLOSE` or `TERMINATE`; `INHERITED` in a process that does not own the pool."""

    def close(self) -> None:
        """Take no more calls. Those that were made are carried out."""

    def terminate(self) -> None:
        """End the workers, whatever they are doing."""

    def join(self) -> None:
        """Block until the workers have ended. The pool must be closed or terminated."""

@final
class WorkerBoot:
    """What a worker needs to find its pool."""

    def start_failed(self, reason: str) -> None:
        """Say why the worker cannot start. It must end then."""

    def prepare(self) -> None:
        """Run where the pool wants this worker to be, as `serve` does; for what comes before."""

    def serve(self, tasks: int | None = None) -> None:
        """Carry out tasks until the pool closes, at most `tasks` of them."""

    @classmethod
    def _rebuild(cls, pickle: Buffer) -> WorkerBoot: ...

@final
class Child:
    """A child process that was started."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process has ended."""

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Block until the process has ended and return its exit code; None if time ran out."""

    def send_signal(self, signal: int) -> None:
        """Send a signal. Does nothing if the process has ended."""

@final
class Boot:
    """What a fresh interpreter was given by the process that started it."""

    @property
    def payload(self) -> bytes:
        """What `dump` returned in the parent. Shared objects in it live while this object does."""

    @property
    def is_fork_server(self) -> bool:
        """Whether this interpreter is to be a fork server."""

@final
class Parcel:
    """Bytes for a child, with the shared objects that they name kept alive.

    Args:
        dump: Makes the bytes; shared objects may be pickled in it.
    """

    def __new__(cls, dump: Callable[[], Buffer]) -> Self: ...

@final
class ForkServer:
    """A process that children are copies of.

    It ends with the process that made it; or, when this object is gone, after its children.

    Args:
        program: Path of the executable, which must call `take_boot` and make a `Zygote` of that.
        args: The whole command line, the program's name included.
        payload: What it finds in `Boot.payload`.
    """

    def __new__(cls, program: str, args: list[str], payload: Buffer) -> Self: ...
    @property
    def pid(self) -> int:
        """The process id."""

    def is_alive(self) -> bool:
        """Say whether it can be asked for children.

        It cannot after its end, nor in a forked copy of the process that made it.
        """

    def spawn(self, parcel: Parcel, descriptors: list[int], daemon: bool) -> Child:
        """Ask for a child and block until it is there.

        Args:
            parcel: What the child finds in `Boot.payload`.
            descriptors: Descriptors that the child gets copies of, at most 250.
            daemon: Whether the child ends when this process ends, however that ends.

        Raises:
            ConnectionResetError: The fork server has ended. Start another, with the same parcel.
            RuntimeError: It could not fork; the text says why.
            ValueError: These are too many descriptors.
        """

    def stop(self) -> None:
        """Kill it, and wait until it has ended. Children that are not daemonic go on."""

@final
class Zygote:
    """The fork server itself, made of what its process was started with."""

    def __new__(cls, boot: Boot) -> Self: ...
    def serve(self) -> tuple[Boot, list[int]] | None:
        """Fork children for the client until it is gone, and return None then.

        In a child: return what it was given, and its descriptors.
        """

def fork(daemon: bool) -> Child | None:
    """Write out what was printed, fork by way of `os.fork`, and return the child; in it, None.

    Args:
        daemon: Whether the child ends when this process ends, however that ends.
    """

def announce_exit(code: int) -> None:
    """Say with which code this process is about to exit, in case its fork server cannot tell."""

def start_program(
    program: str, args: list[str], dump: Callable[[], Buffer], inherit: list[int], daemon: bool
) -> Child:
    """Start a program that will call `take_boot`.

    Args:
        program: Path of the executable.
        args: The whole command line, the program's name included.
        dump: Makes the payload; shared objects may be pickled in it.
        inherit: Descriptors that the program gets. Read after `dump` was called.
        daemon: Whether the program ends when this process ends, however that ends.
    """

def take_boot() -> Boot | None:
    """Become the child that this interpreter was started as; None if it was started otherwise."""

def own_sentinel() -> int:
    """Return a descriptor that becomes readable when the calling process has ended."""

def kill_process_tree(pid: int, including_parent: bool = True) -> list[int]:
    """Kill a process and everything below it, and return the ids of those that were killed.

    All are stopped before the first is killed, so none gets away by starting others meanwhile.
    They have ended when this returns, except those in a system call that cannot be interrupted,
    which get five seconds. A process whose parent had ended before is not below it any more.

    Args:
        pid: The process. With the id of the calling process and `including_parent` false, all
            that it has started is ended.
        including_parent: Whether the process itself is killed too. If that is the calling
            process it comes last, and nothing is returned.

    Raises:
        ProcessLookupError: There is no such process, or it has ended.
        PermissionError: A process belongs to another user. All others have been killed.
        OSError: No descriptor was left. What was found has been killed as far as possible.
        ValueError: It is negative, 0, 1, or an ancestor of the calling process.
    """

def dumps(obj: object) -> bytes:
    """Pickle an object as a queue or a pool does."""

def loads(pickle: Buffer) -> Any:
    """Unpickle an object as a queue or a pool does."""

@disjoint_base
class Block:
    """Zeroed memory that any process of the tree can use; it goes with the last of its users.

    It can be passed on like a queue: as an argument of a process, through a queue, to a task.

    Args:
        size: Number of bytes.
        handle: The block that this number stands for, which pickling has given, in place of a new
            one.

    Raises:
        ValueError: The size is negative.
        OverflowError: The size is too large to be one.
        MemoryError: The shared memory of this tree of processes is at its limit.
    """

    def __new__(cls, size: int, *, handle: int | None = None) -> Self: ...
    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]: ...
    @property
    def address(self) -> int:
        """Where the memory is in this process, while this object lives."""

    @property
    def size(self) -> int:
        """Number of bytes."""

def fill(block: Block, typecode: str, items: object) -> bool:
    """Write the items of a list or tuple to the start of a block, as an array of `ctypes` objects.

    Returns:
        `False` if there is an item that only `ctypes` can convert; others may be written then.
    """

@disjoint_base
class SynchronizedBase:
    """A `ctypes` object together with a lock."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def _attach(
        self,
        obj: Any,
        lock: Any,
        block: Block | None = None,
        typecode: str | None = None,
        length: int = 1,
    ) -> None:
        """Wrap an object.

        Args:
            obj: The object.
            lock: Any object with `acquire` and `release`.
            block: What the object lies at the start of, if it is numbers of a plain type.
            typecode: What `ctypes` calls that type.
            length: How many numbers.
        """

    @property
    def _obj(self) -> Any: ...
    @property
    def _lock(self) -> Any: ...
    @property
    def acquire(self) -> Callable[..., Any]:
        """The lock's own method."""

    @property
    def release(self) -> Callable[..., Any]:
        """The lock's own method."""

    def get_obj(self) -> Any:
        """Return the object that is wrapped."""

    def get_lock(self) -> Any:
        """Return the lock."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *args: object) -> Any: ...

class SynchronizedValue(SynchronizedBase):
    """A number in shared memory together with a lock."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    @property
    def value(self) -> Any:
        """The number, read and written with the lock held."""

    @value.setter
    def value(self, value: Any) -> None: ...

class SynchronizedArray(SynchronizedBase):
    """An array in shared memory together with a lock.

    Each access to an item or a slice is made with the lock held.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __setitem__(self, index: Any, value: Any, /) -> None: ...

@final
class LockedField:
    """An attribute of a wrapped object, read and written with the lock held.

    For the body of a subclass of `SynchronizedBase`.
    """

    def __new__(cls, name: str) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...
    def __set__(self, instance: Any, value: Any, /) -> None: ...
    def __delete__(self, instance: Any, /) -> None: ...

@disjoint_base
class ShareableListBase:
    """The items of a list in shared memory.

    The bytes are laid out as by `multiprocessing.shared_memory.ShareableList`.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def _attach(self, shm: Any) -> None:
        """Take the list to be in this memory, where the slots are laid out.

        Raises:
            ValueError: There is no list there.
        """

    @property
    def shm(self) -> Any:
        """The memory that the list is in."""

    def __len__(self) -> int: ...
    def __getitem__(self, position: int, /) -> Any: ...
    def __setitem__(self, position: int, value: Any, /) -> None: ...
    def _get_packing_format(self, position: int) -> str:
        """Return the format of an item, for `struct`."""

def cpu_count() -> int:
    """Return how many processors this process may use.

    That is what the scheduler allows it and what its control group lets it use, and from CPython
    3.13 on what `-X cpu_count` and `PYTHON_CPU_COUNT` say.
    """

def create_name(name: str, size: int, mode: int, track: bool) -> int:
    """Make zeroed memory under a name that is free, and return a descriptor for it.

    Args:
        name: The name; slashes in front of it do not count.
        size: Number of bytes.
        mode: Permissions of the file, from which the process's umask takes away.
        track: Whether the process tree unlinks the name in the end.

    Raises:
        FileExistsError: The name is taken.
        OSError: The system refuses, or the name cannot be one.
    """

def open_name(name: str, flags: int, mode: int) -> int:
    """Open what is under a name, as `shm_open` does, and return a descriptor for it.

    Raises:
        FileNotFoundError: There is no such name.
        OSError: The system refuses, or the name cannot be one.
    """

def unlink_name(name: str) -> None:
    """Take a name away. Who has the memory keeps it.

    Raises:
        FileNotFoundError: There is no such name.
        PermissionError: It is another user's.
    """

@disjoint_base
class Connection:
    """One end of a pipe, or of a connection with a listener.

    Objects are pickled and travel as CPython sends them, so the other end may be a program that
    uses the standard library. Over a pipe between processes of a tree an object may contain queues
    and other shared objects, and what is long travels in shared memory: the stream then carries
    where it is, and arrays of NumPy, and whatever else pickles its buffers apart, arrive as views
    of that memory. A sender blocks as ever, in the stream, once 64 MiB wait to be received. Threads
    may use an end at the same time; their messages never mix.

    An exception that a signal handler raises within a message loses that message when it was being
    received, and makes the connection useless for sending when it was being sent.

    Args:
        handle: Number of a descriptor, which is closed with the connection.
        readable: Whether messages can be received.
        writable: Whether messages can be sent.
        mailbox: Number of the object in shared memory that belongs to the pipe.

    Example:
        ```python
        from procession import Pipe

        here, there = Pipe()
        here.send(["hello", 1])
        print(there.recv())
        ```
    """

    def __new__(
        cls,
        handle: int,
        readable: bool = True,
        writable: bool = True,
        *,
        mailbox: int | None = None,
    ) -> Self: ...
    @property
    def closed(self) -> bool:
        """True if the connection is closed."""

    @property
    def readable(self) -> bool:
        """True if the connection is readable."""

    @property
    def writable(self) -> bool:
        """True if the connection is writable."""

    @property
    def max_message(self) -> int | None:
        """The longest message that is received, in bytes; None if any length is taken.

        A longer one raises an `OSError` before memory is set aside for it, and nothing more can be
        received.
        """

    @max_message.setter
    def max_message(self, value: int | None) -> None: ...
    @property
    def _handle(self) -> int | None:
        """The number of the descriptor; None if the connection is closed.

        Setting it lets go of the descriptor without closing it.
        """

    @_handle.setter
    def _handle(self, value: int | None) -> None: ...
    def _note_mailbox(self) -> int | None:
        """Return the number of the mailbox while it is being told to a process of the tree."""

    def fileno(self) -> int:
        """Return the number of the descriptor, for waiting or for reading and writing by hand.

        From the first call on, at either end, all that is sent goes through the stream, where
        anybody can read it; only messages that name shared objects still do not.

        Raises:
            OSError: The connection is closed.
        """

    def close(self) -> None:
        """Close the connection. A second call does nothing."""

    def send(self, obj: Any) -> None:
        """Send an object; block while the system takes no more bytes.

        Raises:
            BrokenPipeError: The other end is closed, or its process has died.
            OSError: The connection is closed or is for receiving.
            RuntimeError: The object contains a shared object, and this is no pipe; or a signal
                handler sends here while this very thread is sending.
            MemoryError: The shared memory of this tree of processes is at its limit, and the object
                cannot go through the stream alone.
            Exception: Whatever pickling raises; nothing is sent then.
        """

    def recv(self) -> Any:
        """Receive an object; block while there is none.

        Raises:
            EOFError: The other end is closed, or its process has died, and all was received.
            OSError: It was closed or died within a message; or this end is closed or for sending;
                or the message is longer than `max_message`.
            Exception: Whatever unpickling raises; the message is received then.
        """

    def send_bytes(self, buf: Buffer, offset: int = 0, size: int | None = None) -> None:
        """Send bytes as one message; block while the system takes no more of them.

        Args:
            buf: Where they are.
            offset: How many to leave out at the beginning.
            size: How many to send; all of the rest if it is `None`.

        Raises:
            ValueError: There are not as many.
            OSError: As for `send`.
        """

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive one message as bytes; raises as `recv`.

        Args:
            maxlength: The longest message to accept, in bytes. A longer one ends receiving.
        """

    def recv_bytes_into(self, buf: Buffer, offset: int = 0) -> int:
        """Receive one message into a buffer and return its length, in bytes; raises as `recv`.

        Args:
            buf: Where the message goes.
            offset: How many bytes to leave alone at the beginning.

        Raises:
            BufferTooShort: It does not fit; the first argument of the exception is the message.
        """

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Say whether there is anything to receive, the end included.

        Args:
            timeout: Longest time to wait for that, in seconds. `None` means no limit.

        Raises:
            OSError: The connection is closed or is for sending.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, exc_type: object, exc_value: object, exc_tb: object) -> None: ...

@final
class Listener:
    """A socket that others connect with.

    Args:
        address: A pair of host and port, a path, or an abstract name behind a zero byte.
        backlog: How many clients may wait.
        authkey: What both sides prove to know, if anything.
        patience: How long a client may be silent meanwhile, in seconds.
        max_message: The longest message that its connections receive, in bytes.
        tls: What encrypts them, if anything.
    """

    def __new__(
        cls,
        address: object,
        backlog: int,
        authkey: bytes | None,
        patience: float,
        max_message: int | None,
        tls: Tls | None = None,
    ) -> Self: ...
    @property
    def address(self) -> Any:
        """Where it listens."""

    def fileno(self) -> int:
        """Return the number of the descriptor of the socket."""

    def accept(self) -> tuple[Connection, Any]:
        """Wait for a client, and return the connection with it and its address."""

    def close(self) -> None:
        """Close the socket; its file stays."""

@final
class Tls:
    """Certificates and a key, for either end of a connection.

    Args:
        certificate: What this end shows, as PEM.
        key: Its private key, as PEM.
        ca: Whom this end trusts, as PEM.
        mutual: Whether clients must show a certificate.
        server_name: Who the listener must be.

    Raises:
        ValueError: This is no certificate or no key, or they do not belong together.
    """

    def __new__(
        cls,
        certificate: bytes | None,
        key: bytes | None,
        ca: bytes | None,
        mutual: bool,
        server_name: str | None,
    ) -> Self: ...

def finish_tunnels(timeout: float) -> bool:
    """Send on what was sent through connections with TLS, and end them.

    Args:
        timeout: Longest time that this takes, in seconds.

    Returns:
        Whether all is on its way.
    """

def connect(
    address: object,
    authkey: bytes | None,
    max_message: int | None,
    tls: Tls | None = None,
    timeout: float | None = None,
) -> Connection:
    """Connect with a listener.

    Args:
        address: Where it is.
        authkey: What both sides prove to know, if anything.
        max_message: The longest message that is received, in bytes.
        tls: What encrypts the connection, if anything.
        timeout: Longest time that all of it takes, in seconds.
    """

def pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Make two connected ends; without `duplex` the first only receives, the second only sends."""

def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait until an object is ready, and return a list of all that are.

    Args:
        object_list: Connections, sockets, sentinels, numbers of descriptors, and whatever else has
            a method `fileno`. There may be any number of them.
        timeout: Longest time to wait, in seconds. `None` means no limit; zero or less only looks.

    Raises:
        OSError: A descriptor is not open.
        ValueError: An object has no descriptor.
    """

def challenge() -> bytes:
    """Make a challenge."""

def answer(authkey: bytes, message: bytes) -> bytes:
    """Return the answer to a challenge."""

def verify(authkey: bytes, message: bytes, response: bytes) -> None:
    """Raise `AuthenticationError` unless the response is the answer to the challenge."""

def share(descriptor: int, authkey: bytes) -> tuple[Any, int]:
    """Keep a descriptor until it is fetched, and return where it is to be had, and its number.

    Args:
        descriptor: It is given away: it is closed when it has been fetched.
        authkey: What those who fetch it must prove to know.
    """

def redeem(address: object, authkey: bytes, request: bytes, timeout: float) -> int:
    """Fetch a descriptor from the process that keeps it, and return its number here.

    Args:
        address: Where it is to be had.
        authkey: What both sides prove to know.
        request: The pickle of the number of what is wanted and of this process.
        timeout: Longest time to wait for an answer, in seconds.

    Raises:
        ConnectionRefusedError: The process that kept it has died, or keeps nothing any more.
        EOFError: It was fetched before.
        AuthenticationError: That process has another key.
        TimeoutError: There was no answer in time.
    """

def stop_sharing(timeout: float | None = None) -> bool:
    """Close what `share` keeps, and end its thread; say whether that has ended.

    Args:
        timeout: Longest time to wait for the thread, in seconds. `None` means no limit.
    """

def is_packing() -> bool:
    """Say whether what is being pickled on this thread is for a process of the tree."""

@final
class ManagerServer:
    """The sockets, threads and reference counts of a manager's server, without its objects.

    Args:
        address: Where to listen.
        authkey: What clients must prove to know.
        tls: What encrypts all connections, if anything.
        max_clients: How many clients there are at a time.
        max_message: The longest request, in bytes.
        patience: How long a client may take to show the key, in seconds.

    Raises:
        OSError: The address is in use, too long, or not this machine's.
    """

    def __new__(
        cls,
        address: Any,
        authkey: bytes,
        tls: Tls | None = None,
        max_clients: int | None = None,
        max_message: int | None = None,
        patience: float | None = None,
    ) -> Self: ...
    @property
    def address(self) -> Any:
        """Where it listens."""

    def start(self, host: Any, quick: Any) -> None:
        """Answer requests from now on, by threads that `host` starts.

        Args:
            host: Has the objects, and says what requests mean.
            quick: Types whose methods never block.
        """

    def close(self) -> None:
        """Let no more clients in."""

    def stop(self) -> None:
        """End all connections."""

    def fileno(self) -> int:
        """Return a descriptor that is readable once the server is stopped."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the server is stopped; False if the time, in seconds, ran out."""

    def may_block(self) -> None:
        """Let another thread see to the clients until this one has answered its request."""

    def is_connected(self, client: int) -> bool:
        """Say whether a client is connected."""

    def refer(self, client: int | None, number: int) -> bool:
        """Count one more reference; False if the client is gone.

        None is for a reference of nobody in particular.
        """

    def refer_to_known(self, client: int | None, number: int) -> bool:
        """Count one more reference if there is one already; else False."""

    def give_up(self, client: int | None, number: int) -> bool:
        """Take a reference back; True if there is none left."""

    def references(self, number: int) -> int:
        """Return how many references to an object there are."""

    def all_references(self) -> dict[int, int]:
        """Return how many references to each object there are."""

    def threads(self) -> int:
        """Return how many threads answer requests or wait for some."""

@final
class Caller:
    """Who makes a request of a manager's server."""

    @property
    def client(self) -> int:
        """Number of the client, which no other has."""

    @property
    def thread(self) -> int:
        """Number of the client's thread."""

    @property
    def is_ours(self) -> bool:
        """Whether references belong to the client, so that they go with it."""

    @property
    def is_first(self) -> bool:
        """Whether this is the first request of a connection of the standard library."""

@final
class ServerThread:
    """The work of one thread of a manager's server."""

    def run(self) -> None:
        """Serve until the server stops or has more threads than it needs."""

@final
class ManagerClient:
    """The one connection of this process with a manager's server. All threads may use it."""

    @property
    def server(self) -> int:
        """The process id of the server."""

    def is_usable(self) -> bool:
        """Say whether this process made the connection, and the server has not ended it."""

    def call(self, request: Any) -> Any:
        """Send a request, wait for the reply and return it.

        Raises:
            EOFError: The server has closed the connection or died.
            ConnectionError: The same, found otherwise.
        """

    def refer(self, objects: list[int]) -> list[int]:
        """Have the server count references to objects, and return those that there are not."""

    def adopt(self, number: int) -> None:
        """Note a reference that the server has counted for this process."""

    def refer_again(self, number: int) -> bool:
        """Note one more reference; False if the server must be asked."""

    def give_up(self, number: int) -> None:
        """Give a reference up. The server is told if it was the last one."""

    def say_goodbye(self) -> None:
        """Tell the server that this process ends as it should."""

    def close(self) -> None:
        """End the connection."""

def connect_manager(address: Any, authkey: bytes, tls: Tls | None = None) -> ManagerClient | None:
    """Connect with a manager's server; None if it is one of the standard library.

    Raises:
        AuthenticationError: The server has another key.
        OSError: There is none at the address.
    """
