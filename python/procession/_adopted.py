"""Objects in shared memory that a server holds too, for clients of other trees.

The server's calls take the place of theirs. So it matters in which thread a lock is taken, and when
a client dies what it had taken is let go of.
"""

from __future__ import annotations

import queue
import threading

from procession._served import CallerGoneError, calling

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from procession._residents import Resident

__all__ = ["Adopted", "dismiss"]


class _Agent:
    """A thread that takes locks for one thread of a client: a lock knows threads, not clients."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # What it may have locked.
        self._locks: list[Any] = []
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()

    def call(self, lock: Any, function: Callable[[], Any]) -> Any:
        """Have the thread call a function that may take this lock, and return what that returns."""
        if lock not in self._locks:
            self._locks.append(lock)
        caller, is_connected = calling.caller, calling.is_connected
        outcome: list[Any] = []
        done = threading.Event()

        def task() -> None:
            calling.caller, calling.is_connected = caller, is_connected
            try:
                outcome.extend((function(), None))
            except BaseException as error:  # raised where it belongs
                outcome.extend((None, error))
            finally:
                calling.caller = None
                done.set()

        self._tasks.put(task)
        done.wait()
        result, error = outcome
        if error is not None:
            raise error
        return result

    def dismiss(self) -> None:
        """End the thread once it has let go of what it has locked. Does not wait for that."""
        self._tasks.put(self._let_go)
        self._tasks.put(None)

    def _let_go(self) -> None:
        for lock in self._locks:
            while lock._is_mine():
                lock.release()


# By client and thread of it.
_agents: dict[tuple[Any, int], _Agent] = {}


def _agent() -> _Agent:
    """Return the one for the thread of the client that this thread works for."""
    owner = calling.owner()
    found = _agents.get(owner)
    return found or _agents.setdefault(owner, _Agent())


def dismiss(client: int) -> None:
    """Let go of the recursive locks that a client had taken."""
    for owner in [owner for owner in list(_agents) if owner[0] == client]:
        agent = _agents.pop(owner, None)
        if agent is not None:
            agent.dismiss()


class Adopted:
    """An object in shared memory, as a server holds it.

    Args:
        resident: The object.
    """

    def __init__(self, resident: Resident) -> None:
        self.resident = resident
        # The client that has taken the lock. Whoever notes one that is not gone has the guard, so
        # that what is done at its end comes after.
        self._holder: int | None = None
        self._guard = threading.Lock()

    def method(self, name: str) -> Callable[..., Any]:
        """Return the method that a request of this name means."""
        method = self.resident.method(name)
        if calling.caller is None:
            return method
        lock = self._recursive_lock()

        def call(*args: Any, **kwds: Any) -> Any:
            def work() -> Any:
                return self._call(name, method, args, kwds)

            return work() if lock is None else _agent().call(lock, work)

        return call

    def _recursive_lock(self) -> Any:
        # Asked of the class: of an object, a function would be a method.
        if type(self.resident).stands_for is threading.RLock:
            return self.resident.native
        if type(self.resident).stands_for is threading.Condition:
            return self.resident.native._lock
        return None

    def _call(self, name: str, method: Any, args: Any, kwds: Any) -> Any:
        result = method(*args, **kwds)
        try:
            with self._guard:
                calling.check()
                if name == "acquire" and result:
                    self._holder = calling.caller.client
        except CallerGoneError:
            self.resident.undo(name, args, result)
            raise
        return result

    def _client_gone(self, client: int, killed: bool) -> None:
        """Let go of a lock that a killed client has; others may have left it to somebody else."""
        is_lock = type(self.resident).stands_for is threading.Lock
        if not killed or not is_lock:
            return
        with self._guard:
            if self._holder != client:
                return
            self._holder = None
        if self.resident.native._count():
            self.resident.method("release")()

    def __repr__(self) -> str:
        return repr(self.resident)
