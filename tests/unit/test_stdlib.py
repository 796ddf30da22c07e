"""What stays the standard library's own, also under its given-away names."""

import os
import pickle
import subprocess
import sys

import pytest

import procession

LIMIT = 300.0  # seconds; only a deadlock takes this long

UNDER_THE_ALIAS = """
import importlib
import sys
import procession
if __name__ == "__main__":
    assert sys.modules.get("multiprocessing") is not procession
from multiprocessing import context as original_context, process as original_process

procession.install()
import multiprocessing
assert multiprocessing is procession

# Not imported before: their relative imports must find the original's modules, and not ours.
import multiprocessing.managers
import multiprocessing.shared_memory
from multiprocessing import resource_tracker
import multiprocessing.dummy.connection
from multiprocessing.pool import MaybeEncodingError, ThreadPool
import multiprocessing.process, multiprocessing.queues, multiprocessing.util

class Numbers(multiprocessing.managers.BaseManager):
    pass

Numbers.register("list", list)

def main():
    assert multiprocessing.managers is procession.managers
    for module in (resource_tracker, multiprocessing.dummy.connection):
        assert module.__spec__.name == module.__name__, module
        assert module.__name__.startswith("multiprocessing."), module
    assert multiprocessing.managers.process is original_process
    assert multiprocessing.managers.get_context("fork") is procession.get_context("fork")
    assert MaybeEncodingError.__module__ == "multiprocessing.pool"
    assert ThreadPool.__module__ == "procession.pool"
    assert multiprocessing.process is original_process
    assert multiprocessing.queues is procession.queues
    assert multiprocessing.util is procession.util
    assert multiprocessing.reduction is procession.reduction
    assert multiprocessing.TimeoutError is original_context.TimeoutError
    for method in ("fork", "spawn", "forkserver"):
        with Numbers(ctx=multiprocessing.get_context(method)) as numbers:
            proxy = numbers.list([3, 1])
            proxy.sort()
            assert str(proxy) == "[1, 3]"
    with Numbers() as numbers:
        assert str(numbers.list()) == "[]"
    assert sys.modules["multiprocessing"] is procession
    assert importlib.import_module("multiprocessing.context") is procession.context
    try:
        from multiprocessing import no_such_module
    except ImportError as error:
        assert "no_such_module" in str(error)
    else:
        raise AssertionError("it was found")
    try:
        __import__("multiprocessing.no_such_module")
    except ModuleNotFoundError as error:
        assert error.name == "multiprocessing.no_such_module"
    else:
        raise AssertionError("it was found")

if __name__ == "__main__":
    main()
"""


def test_modules_of_the_original_under_the_alias(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNDER_THE_ALIAS)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr == ""
    assert done.returncode == 0


# What makes reducers known, and what makes the original's pickler known, in either order.
OURS = "import procession.connection, procession.managers"
INSTALLED = "import procession; procession.install()"
ORIGINAL = """
import sys
import procession
from procession import _stdlib
if "multiprocessing" not in (_stdlib._own or sys.modules):
    print("not there before")
pickler = _stdlib.load("reduction").ForkingPickler
"""
REDUCERS = """
import array
import pickle
import socket
import procession.connection
assert pickle.loads(pickler.dumps({1: 2}.items())) == [(1, 2)]
assert pickle.loads(pickler.dumps(array.array("i", [3]))) == array.array("i", [3])
for class_ in (procession.connection.Connection, socket.socket):
    reducer = pickler._extra_reducers[class_]
    assert reducer.__module__ in ("procession.connection", "procession.reduction"), reducer
print("registered")
"""


@pytest.mark.parametrize(
    "parts",
    [(OURS, ORIGINAL), (ORIGINAL, OURS), (INSTALLED, OURS, ORIGINAL), (INSTALLED, ORIGINAL, OURS)],
    ids=["ours first", "original first", "installed, ours first", "installed, original first"],
)
def test_reducers_are_registered_whichever_is_imported_first(parts):
    script = "\n".join((*parts, REDUCERS))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr == ""
    # Ours must not import it: a child that needs no more than ours would start late.
    assert done.stdout == "not there before\nregistered\n"


SERVER_S_MODULES = """
import sys
import procession
from procession.managers import SyncManager

class Manager(SyncManager):
    pass

def modules():
    return tuple(sys.modules)

if __name__ == "__main__":
    Manager.register("modules", modules)
    with Manager(ctx=procession.get_context("spawn")) as manager:
        print(*manager.modules()._getvalue(), sep="\\n")
"""
# What takes as long to import as all that a server needs.
SLOW = {"enum", "multiprocessing", "pickle", "re", "signal", "socket", "subprocess", "traceback"}


def test_server_of_a_manager_imports_nothing_slow_before_it_answers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SERVER_S_MODULES)
    # Without `site`, which imports what the environment wants.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-S", str(script)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment,
    )
    assert done.stderr == ""
    names = set(done.stdout.split())
    assert "procession._manager_server" in names
    assert not names & SLOW


# What the children print: whether the original's package was there, and the pipe to its tracker.
CHILDREN_WITH_A_TRACKER = """
import os, sys
import procession
from procession import _stdlib

def pipe(descriptor):
    return os.fstat(descriptor).st_ino

def look(method, depth, pipes):
    before = _stdlib._PACKAGE in (_stdlib._own or sys.modules)
    if depth:
        run(method, depth - 1, pipes)
    from multiprocessing import resource_tracker
    resource_tracker.ensure_running()
    pipes.put((before, pipe(resource_tracker._resource_tracker._fd)))

def run(method, depth, pipes):
    child = procession.get_context(method).Process(target=look, args=(method, depth, pipes))
    child.start()
    child.join()

if __name__ == "__main__":
    {install}
    tracker = _stdlib.load("resource_tracker")
    tracker.ensure_running()
    pipes = procession.SimpleQueue()
    for method in ("spawn", "forkserver"):
        run(method, 1, pipes)
        there = [pipes.get() for _ in range(2)]
        assert {{pipe for _, pipe in there}} == {{pipe(tracker._resource_tracker._fd)}}, there
        print(method, sorted({{before for before, _ in there}}))
"""


@pytest.mark.parametrize("install", ["pass", "procession.install()"])
def test_children_use_the_tracker_of_the_original_that_runs(tmp_path, install):
    script = tmp_path / "script.py"
    script.write_text(CHILDREN_WITH_A_TRACKER.format(install=install))
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr == ""
    # That of the original is imported by who starts a child, and by who asks for the tracker.
    assert done.stdout == "spawn [False]\nforkserver [False]\n"


def test_registries_are_shared():
    import multiprocessing.process
    import multiprocessing.reduction

    assert procession.process is multiprocessing.process
    assert procession.reduction.ForkingPickler is multiprocessing.reduction.ForkingPickler
    assert procession.reduction.register == multiprocessing.reduction.register
    assert procession.current_process() is multiprocessing.current_process()
    assert issubclass(procession.Process, multiprocessing.process.BaseProcess)
    assert isinstance(procession.get_context("fork"), multiprocessing.context.BaseContext)


def test_children_are_listed_by_both(ctx):
    import multiprocessing

    child = ctx.Process(target=os.getpid)
    child.start()
    assert child in multiprocessing.active_children() or child.exitcode == 0
    child.join()
    assert child not in multiprocessing.active_children()


def test_queue_outside_the_tree_is_refused(make_queue):
    with pytest.raises(RuntimeError, match="Queue objects should only be shared"):
        pickle.dumps(make_queue())
