"""`multiprocessing`, with the same API and an engine in Rust.

```python
import procession as multiprocessing

def square(x):
    return x * x

if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        print(pool.map(square, range(10)))
```

`install()`, or `python -m procession script.py`, lets a program that nobody changed use it.

The package is imported by every process that is started, so it imports what a program uses when
it is used first.
"""

import sys

TYPE_CHECKING = False  # without the cost of importing `typing`
if TYPE_CHECKING:
    from typing import Any

    from procession import context
    from procession import process as process
    from procession import reduction as reduction
    from procession._alias import install
    from procession._process import Process
    from procession._procession import kill_process_tree
    from procession.context import (
        AuthenticationError,
        BufferTooShort,
        ProcessError,
        TimeoutError,
    )
    from procession.errors import (
        BrokenPoolError,
        OwnerDiedError,
        TasksLostError,
        TaskTimeoutError,
        WorkerDiedError,
    )
    from procession.process import active_children, current_process, parent_process

    _default = context._default_context
    Array = _default.Array
    Barrier = _default.Barrier
    BoundedSemaphore = _default.BoundedSemaphore
    Condition = _default.Condition
    Event = _default.Event
    JoinableQueue = _default.JoinableQueue
    Lock = _default.Lock
    Manager = _default.Manager
    Pipe = _default.Pipe
    Pool = _default.Pool
    Queue = _default.Queue
    RLock = _default.RLock
    RawArray = _default.RawArray
    RawValue = _default.RawValue
    Semaphore = _default.Semaphore
    SimpleQueue = _default.SimpleQueue
    Value = _default.Value
    allow_connection_pickling = _default.allow_connection_pickling
    cpu_count = _default.cpu_count
    freeze_support = _default.freeze_support
    get_all_start_methods = _default.get_all_start_methods
    get_context = _default.get_context
    get_logger = _default.get_logger
    get_start_method = _default.get_start_method
    log_to_stderr = _default.log_to_stderr
    reducer = _default.reducer
    set_executable = _default.set_executable
    set_forkserver_preload = _default.set_forkserver_preload
    set_start_method = _default.set_start_method

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BrokenPoolError",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "OwnerDiedError",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TaskTimeoutError",
    "TasksLostError",
    "TimeoutError",
    "Value",
    "WorkerDiedError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "install",
    "kill_process_tree",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

# Where the names are that are not methods of the default context.
_HOMES = {
    "AuthenticationError": "context",
    "BrokenPoolError": "errors",
    "BufferTooShort": "context",
    "Process": "_process",
    "OwnerDiedError": "errors",
    "ProcessError": "context",
    "TasksLostError": "errors",
    "TaskTimeoutError": "errors",
    "TimeoutError": "context",
    "WorkerDiedError": "errors",
    "active_children": "process",
    "current_process": "process",
    "install": "_alias",
    "kill_process_tree": "_procession",
    "parent_process": "process",
}

# Objects that a fresh interpreter sends name their classes as its `__main__`, under this name.
sys.modules.setdefault("__mp_main__", sys.modules["__main__"])


def __getattr__(name: str) -> "Any":
    """Import what has not been used before."""
    if name in _HOMES:
        value = getattr(_submodule(_HOMES[name]), name)
    elif name in __all__:
        value = getattr(_submodule("context")._default_context, name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        try:
            return _submodule(name)
        except ModuleNotFoundError as error:
            if error.name not in (f"{__name__}.{name}", f"multiprocessing.{name}"):
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _submodule(name: str) -> "Any":
    full_name = f"{__name__}.{name}"
    if full_name not in sys.modules:
        __import__(full_name)
    return sys.modules[full_name]


class _OriginalsFinder:
    """Finds submodules that only the original has, such as `procession.util`."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> "Any":
        package, _, submodule = name.partition(".")
        if package != __name__ or submodule.startswith("_"):
            return None
        from procession._alias import find_original

        return find_original(name, submodule)


# Behind all others: what is a file here has been found before.
sys.meta_path.append(_OriginalsFinder)
del TYPE_CHECKING
