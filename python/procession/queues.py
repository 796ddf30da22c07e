"""Queues between processes.

What is called all the time is inherited from native classes. Here is what programs expect of the
original's queues besides: the attributes that they reach into, made when they are asked for, and
its own way of working for subclasses that replace a part of it.
"""

from __future__ import annotations

from queue import Empty, Full

from procession import _procession, _stdlib

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


def _class_of(ours: type[Any]) -> type[Any]:
    """Return the class that an object of the class `ours` calls its own.

    It is the original's, if that was ever imported, so that `isinstance` with that class holds. A
    subclass that a program has made is what it is.
    """
    original = _stdlib.loaded("queues") if ours.__module__ == __name__ else None
    return ours if original is None else getattr(original, ours.__name__)


def _make(cls: Any) -> Any:
    """Return an object for `__setstate__`."""
    return cls.__new__(cls)


def _original_class(queue: Any) -> Any:
    """Return the original's class that stands where ours does among the bases of `queue`."""
    ours = next(cls for cls in type(queue).__mro__ if cls.__module__ == __name__)
    return getattr(_stdlib.load("queues"), ours.__name__)


def _call_original(queue: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """Let the original's method do what it does with the attributes that a subclass has set."""
    if method not in ("__getstate__", "__setstate__") and "_reader" not in vars(queue):
        raise RuntimeError(f"{type(queue).__name__}.__init__() has not been called")
    return getattr(_original_class(queue), method)(queue, *arguments)


class _Lazily:
    """An attribute that is made when it is asked for, and kept; an assignment replaces it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: Any = None) -> Any:
        if queue is None:
            return self
        made = vars(queue)[self._name] = self._make(queue)
        return made


class _Each(_Lazily):
    """An attribute that is found out anew each time, unless it was assigned."""

    def __get__(self, queue: Any, owner: Any = None) -> Any:
        return self if queue is None else self._make(queue)


def _lock(_queue: Any) -> Any:
    """A lock of this process alone: the queue itself needs none."""
    import threading

    return threading.Lock()


class _Room:
    """How much more a queue takes, as the original keeps it in a semaphore."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._semlock = self

    def get_value(self) -> int:
        """Return how many objects there is room for."""
        return max(self._queue._maxsize - self._queue.qsize(), 0)

    _get_value = get_value

    def _is_zero(self) -> bool:
        return self._queue.full()

    def __repr__(self) -> str:
        return f"<BoundedSemaphore(value={self.get_value()}, maxvalue={self._queue._maxsize})>"


class _Unfinished:
    """How many objects are not dealt with, as the original keeps it in a semaphore."""

    def __init__(self, get_value: Callable[[], int]) -> None:
        self._get_value = self.get_value = get_value
        self._semlock = self

    def _is_zero(self) -> bool:
        return self._get_value() == 0

    def __repr__(self) -> str:
        return f"<Semaphore(value={self._get_value()})>"


def _maxsize(queue: Any) -> int:
    from procession.synchronize import SEM_VALUE_MAX

    return queue._limit or SEM_VALUE_MAX


def _pid(_queue: Any) -> int:
    import os

    return os.getpid()


def _buffer(_queue: Any) -> Any:
    """Nothing: an object is in shared memory when `put` returns."""
    from collections import deque

    return deque()


def _not_empty(_queue: Any) -> Any:
    import threading

    return threading.Condition(threading.Lock())


class _Ends:
    """What queues of all classes have."""

    __slots__ = ()

    _reader = _Lazily(lambda queue: queue._make_reader())
    _writer = _Lazily(lambda queue: queue._make_writer())
    _rlock = _Lazily(_lock)
    _wlock = _Lazily(_lock)
    _poll = _Each(lambda queue: queue._reader.poll)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self),), self.__getstate__()


class Queue(_Ends, _procession.Queue):
    """A queue that any process of the tree can put objects into and get them from.

    Args:
        maxsize: Most objects in the queue at a time; zero or less for as many as there is
            memory for.
        ctx: The context that the queue is made by. It makes no difference.
    """

    _maxsize = _Each(_maxsize)
    _sem = _Lazily(_Room)
    _opid = _Lazily(_pid)
    _buffer = _Lazily(_buffer)
    _notempty = _Lazily(_not_empty)
    _closed = _Each(lambda queue: queue._is_closed)
    _send_bytes = _Each(lambda queue: queue._writer.send_bytes)
    _recv_bytes = _Each(lambda queue: queue._reader.recv_bytes)
    _ignore_epipe = False
    _joincancelled = False
    _thread = None
    _jointhread = None
    _close = None

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        cls = type(self)
        if cls._feed is not Queue._feed or cls._start_thread is not Queue._start_thread:
            # It wants to do the sending itself, from a thread.
            _original_class(self).__init__(self, maxsize, ctx=ctx)
        else:
            super().__init__(maxsize, ctx=ctx)

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return _class_of(type(self))

    def _reset(self, after_fork: bool = False) -> None:
        if not self._is_native:
            _stdlib.load("queues").Queue._reset(self, after_fork)

    def _after_fork(self) -> None:
        if not self._is_native:
            _stdlib.load("queues").Queue._after_fork(self)

    def _start_thread(self) -> None:
        if not self._is_native:
            _stdlib.load("queues").Queue._start_thread(self)

    @staticmethod
    def _feed(*args: Any) -> None:
        _stdlib.load("queues").Queue._feed(*args)

    @staticmethod
    def _finalize_join(*args: Any) -> None:
        _stdlib.load("queues").Queue._finalize_join(*args)

    @staticmethod
    def _finalize_close(*args: Any) -> None:
        _stdlib.load("queues").Queue._finalize_close(*args)

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:  # noqa: ARG004
        """Tell of an object that could not be sent; a subclass may do so in its own way."""
        import traceback

        traceback.print_exception(e)

    def _terminate_broken(self) -> None:
        """Give the queue up: whoever it was shared with has died."""
        self._reader.close()
        self.close()
        self.join_thread()


class JoinableQueue(Queue, _procession.JoinableQueue):
    """A queue that knows when all objects that were put into it have been dealt with.

    Args:
        maxsize: Most objects in the queue at a time; zero or less for as many as there is
            memory for.
        ctx: The context that the queue is made by. It makes no difference.
    """

    _unfinished_tasks = _Lazily(lambda queue: _Unfinished(queue._unfinished))


class SimpleQueue(_Ends, _procession.SimpleQueue):
    """A queue without limits of size or time.

    Args:
        ctx: The context that the queue is made by. It makes no difference.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        return _class_of(type(self))


def __getattr__(name: str) -> Any:
    """Return what only the original has."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_stdlib.load("queues"), name)
