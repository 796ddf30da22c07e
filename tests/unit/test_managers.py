"""What managers of this package do beyond the original: deaths, crowds, and the two forms."""

import contextlib
import functools
import gc
import operator
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

import procession
from procession import connection, managers
from tests.unit.waiting import LIMIT, comes_true, started

KEY = b"a key for tests"


def connected(made):
    """Return a manager that has its objects in the server of another one."""
    other = managers.SyncManager(address=made.address, authkey=made._authkey, ctx=made._ctx)
    other.connect()
    return other


@pytest.fixture(params=["in shared memory", "in the server"])
def manager(ctx, request):
    with ctx.Manager() as made:
        yield made if request.param == "in shared memory" else connected(made)


@pytest.fixture(params=["in shared memory", "in the server"])
def forked(request):
    with procession.get_context("fork").Manager() as made:
        yield made if request.param == "in shared memory" else connected(made)


@pytest.fixture
def in_server(ctx):
    with ctx.Manager() as made:
        yield connected(made)


@pytest.fixture
def forked_server():
    with procession.get_context("fork").Manager() as made:
        yield connected(made)


def hold(made, started, *_kept):
    _mine = [made() for _ in range(3)] if callable(made) else made
    started.set()
    signal.pause()


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def test_references_of_a_killed_client_are_dropped(forked_server):
    kept = forked_server.dict()
    started = procession.Event()
    child = procession.get_context("fork").Process(
        target=hold, args=(forked_server.dict, started, kept)
    )
    child.start()
    started.wait()
    assert forked_server._number_of_objects() == 4
    kill(child)
    assert comes_true(lambda: forked_server._number_of_objects() == 1)
    kept["still"] = "there"


def lock_and_wait(lock, started):
    lock.acquire()
    started.set()
    signal.pause()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
def test_lock_of_a_killed_client_is_released(ctx, manager, kind):
    lock, started = getattr(manager, kind)(), ctx.Event()
    child = ctx.Process(target=lock_and_wait, args=(lock, started))
    child.start()
    started.wait()
    assert not lock.acquire(False)
    kill(child)
    assert lock.acquire(True, LIMIT)


def take(taken_from, method, started):
    started.set()
    getattr(taken_from, method)()


@pytest.mark.parametrize(
    ("kind", "method", "give"),
    [("Queue", "get", lambda q: q.put("item")), ("Semaphore", "acquire", lambda s: s.release())],
)
def test_nothing_is_handed_to_a_killed_client(forked, kind, method, give):
    ctx = procession.get_context("fork")
    source, started = getattr(forked, kind)(0), ctx.Event()
    child = ctx.Process(target=take, args=(source, method, started))
    child.start()
    started.wait()
    kill(child)
    if forked._process is None:
        # The server learns of the death by the connection, which is closed by now.
        assert comes_true(lambda: forked._link().function("number_of_objects") == 1)
    give(source)
    assert getattr(source, method)()


@contextlib.contextmanager
def stopped(pid):
    """Have a process stand still within the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/stat")
        for task in tasks:
            assert comes_true(lambda task=task: task.read_text().rpartition(") ")[2][0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("kind", "method"), [("Lock", "acquire"), ("Semaphore", "acquire"), ("Queue", "get")]
)
def test_request_that_is_read_after_the_end_of_its_client_takes_nothing(kind, method):
    with procession.get_context("fork").Manager() as made:
        shared = getattr(connected(made), kind)()
        if kind == "Queue":
            shared.put("item")
        open_there = pathlib.Path(f"/proc/{made._process.pid}/fd")
        before = len(list(open_there.iterdir()))
        with connection.Client(made.address, authkey=made._authkey) as client:
            client.send((None, "accept_connection", ("a thread",), {}))
            assert client.recv() == ("#RETURN", None)
            with stopped(made._process.pid):
                client.send((shared._id, method, (), {}))
                client.close()
        assert comes_true(lambda: len(list(open_there.iterdir())) <= before), "it was not read"
        assert getattr(shared, method)(True, LIMIT)


@pytest.mark.parametrize("option", ["max_clients", "max_message"])
def test_limit_that_lets_nothing_through_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be None or at least 1, not 0"):
        managers.SyncManager(**{option: 0})


def wait_for_notice(condition, waiting):
    with condition:
        waiting.append(1)
        condition.wait()


def test_notice_is_not_lost_on_a_killed_client(forked):
    ctx = procession.get_context("fork")
    condition, waiting, told = forked.Condition(), forked.list(), []
    child = ctx.Process(target=wait_for_notice, args=(condition, waiting))
    child.start()
    assert comes_true(lambda: len(waiting) == 1)

    def wait_here():
        with condition:
            waiting.append(2)
            told.append(condition.wait(LIMIT))

    thread = threading.Thread(target=wait_here)
    thread.start()
    assert comes_true(lambda: len(waiting) == 2)
    kill(child)
    while thread.is_alive():
        with condition:
            condition.notify()
        thread.join(0.05)
    assert told == [True]


def test_calls_fail_at_once_when_the_server_is_killed(ctx):
    made = ctx.Manager()
    other = connected(made)
    proxy, queue = other.dict(), other.Queue()
    errors = []

    def get():
        try:
            queue.get()
        except (EOFError, ConnectionError) as error:
            errors.append(str(error))

    thread = threading.Thread(target=get)
    thread.start()
    pid = made._process.pid
    assert proxy.copy() == {}
    os.kill(pid, signal.SIGKILL)
    thread.join()
    with pytest.raises((EOFError, ConnectionError), match=f"process {pid}"):
        proxy["a"] = 1
    assert f"process {pid}" in errors[0]
    with pytest.raises((EOFError, ConnectionError)):
        other.dict()
    made.shutdown()


def test_what_is_in_shared_memory_outlives_a_killed_server(ctx):
    with ctx.Manager() as made:
        queue = made.Queue()
        kill(made._process)
        queue.put("item")
        assert queue.get() == "item"
        assert made.Lock().acquire()
        with pytest.raises((EOFError, ConnectionError)):
            made.Array("i", [1])


def test_server_that_dies_before_it_answers_is_told_of(ctx):
    made = managers.SyncManager(ctx=ctx)
    made.start()
    pid = made._process.pid
    # It may have been quick enough to announce itself.
    kill(made._process)
    assert made.Lock().acquire()
    with pytest.raises((EOFError, ConnectionError)) as caught:
        made.Array("i", [1])
    assert made._home.is_ready() or f"process {pid}, died" in str(caught.value)
    made.shutdown()


def test_server_ends_properly_while_calls_wait(ctx):
    made = managers.SyncManager(ctx=ctx, shutdown_timeout=LIMIT)
    made.start()
    other = connected(made)
    event, items = other.Event(), other.Queue()
    threads = [
        threading.Thread(target=_wait_in_vain, args=(call,)) for call in (event.wait, items.get)
    ]
    for thread in threads:
        thread.start()
    # Each of them is a thread of the server that waits.
    tasks = pathlib.Path(f"/proc/{made._process.pid}/task")
    assert comes_true(lambda: len(list(tasks.iterdir())) >= 4)
    server = made._process
    made.shutdown()
    for thread in threads:
        thread.join()
    assert server.exitcode == 0


def _wait_in_vain(call):
    with pytest.raises((EOFError, ConnectionError)):
        call()


def wait_until_the_end(call):
    try:
        call()
    except EOFError as error:
        sys.exit(0 if isinstance(error, ConnectionError) else 1)
    sys.exit(2)


def waits(made):
    """Return calls that wait in vain, and what they need."""
    lock, full, undone = made.Lock(), made.Queue(1), made.Queue()
    lock.acquire()
    full.put(1)
    undone.put(1)
    return {
        "get": made.Queue().get,
        "put": functools.partial(full.put, 2),
        "join": undone.join,
        "lock": lock.acquire,
        "rlock": functools.partial(_lock_twice, made.RLock()),
        "semaphore": made.Semaphore(0).acquire,
        "event": made.Event().wait,
        "condition": functools.partial(_wait_for_notice, made.Condition()),
        "barrier": made.Barrier(2).wait,
        "poll": functools.partial(_poll, made.Event()),
    }


def _lock_twice(lock):
    threading.Thread(target=lock.acquire).start()
    while lock.acquire(False):
        lock.release()
    lock.acquire()


def _wait_for_notice(condition):
    with condition:
        condition.wait()


def _poll(event):
    while not event.is_set():
        pass


def test_who_waits_is_sent_away_when_the_manager_is_shut_down():
    ctx = procession.get_context("fork")
    with ctx.Manager() as made:
        children = {
            name: ctx.Process(target=wait_until_the_end, args=(call,))
            for name, call in waits(made).items()
        }
        for child in children.values():
            child.start()
    for name, child in children.items():
        child.join()
        assert (name, child.exitcode) == (name, 0)


WAITING = """
import os, signal
import procession
def wait(queue, barrier, number):
    try:
        queue.get() if number else barrier.wait()
    except EOFError:
        os.write(1, b"sent away\\n")  # in one piece: both say it at the same time
if __name__ == "__main__":
    ctx = procession.get_context("fork")
    manager = ctx.Manager()
    manager.connect()
    queue, barrier = manager.Queue(), manager.Barrier(2)
    for number in range(2):
        ctx.Process(target=wait, args=(queue, barrier, number)).start()
    while not barrier.n_waiting:
        pass
    print("ready", flush=True)
    signal.pause()
"""


def test_who_waits_is_sent_away_when_the_process_of_the_manager_is_killed(tmp_path):
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    arguments = [sys.executable, str(script)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        assert parent.stdout.read() == "sent away\n" * 2


PARENT = """
import os, signal, sys
import procession
if __name__ == "__main__":
    manager = procession.get_context(sys.argv[1]).Manager()
    print(manager._process.pid, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_server_ends_with_a_killed_parent(method, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    arguments = [sys.executable, str(script), method]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        server = int(parent.stdout.readline())
        parent.kill()
    assert comes_true(lambda: not _runs(server))


def _runs(pid):
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_a_thousand_clients_at_once():
    from procession._procession import connect_manager

    class Manager(managers.SyncManager):
        pass

    with Manager(address=("127.0.0.1", 0), authkey=KEY) as made:
        pid = made._process.pid
        shared = connected(made).dict(a=1)
        ident = shared._id
        clients = [connect_manager(made.address, KEY) for _ in range(1000)]
        for client in clients:
            assert client.call((ident, "__getitem__", ("a",), {})) == ("#RETURN", 1)
        threads = len(os.listdir(f"/proc/{pid}/task"))
        assert threads < 20
        descriptors = pathlib.Path(f"/proc/{pid}/fd")
        before = len(list(descriptors.iterdir()))
        assert before > 1000
        clients.clear()
        del client
        assert comes_true(lambda: len(list(descriptors.iterdir())) < before - 990)


def test_fork_with_many_proxies(forked_server):
    ctx = procession.get_context("fork")
    kept = [forked_server.list([number]) for number in range(50)]
    queue = ctx.Queue()
    child = ctx.Process(target=lambda: queue.put(sum(proxy[0] for proxy in kept)))
    child.start()
    assert queue.get() == sum(range(50))
    child.join()
    assert forked_server._number_of_objects() == 50
    # What the child referred to goes when the server has seen that its connection is closed.
    assert comes_true(lambda: "refcount=2" not in forked_server._debug_info())
    kept.clear()
    gc.collect()
    assert forked_server._number_of_objects() == 0


def test_raw_fork_has_a_connection_of_its_own(forked):
    proxy = forked.dict()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        proxy["child"] = 1
        os.write(writer, b"x")
        os._exit(0)
    os.read(reader, 1)
    proxy["parent"] = 2
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert proxy.copy() == {"child": 1, "parent": 2}


def drop_all(proxies):
    del proxies[:]


def test_spawned_child_holds_what_it_was_given(ctx, in_server):
    child = ctx.Process(target=drop_all, args=([in_server.list(), in_server.dict()],))
    child.start()
    child.join()
    assert child.exitcode == 0
    del child
    gc.collect()
    assert comes_true(lambda: in_server._number_of_objects() == 0)


def test_child_has_what_the_parent_lets_go_of_at_once(ctx, in_server):
    # Not a function of this module, which each child would import: that takes many times as long as
    # all the rest, on a busy machine minutes.
    acquire = operator.methodcaller("acquire")
    for _ in range(5):
        child = ctx.Process(target=acquire, args=(in_server.Lock(),))
        child.start()
        child.join()
        assert child.exitcode == 0
    del child
    gc.collect()
    assert comes_true(lambda: in_server._number_of_objects() == 0)


def test_nested_objects_are_dropped_too(forked_server):
    outer = forked_server.list([forked_server.list([forked_server.dict(a=1)])])
    assert outer[0][0]["a"] == 1
    outer.append(outer[0])
    del outer[:]
    assert forked_server._number_of_objects() == 1
    del outer
    assert forked_server._number_of_objects() == 0


def test_interrupted_call_leaves_the_connection_in_order(forked):
    queue = forked.Queue()
    main = threading.main_thread().ident
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), started(timer):
        queue.get()
    queue.put("first")
    assert forked.dict(a=1)["a"] == 1


def test_another_key_does_not_get_in_by_the_first_one(forked_server):
    stranger = managers.SyncManager(address=forked_server.address, authkey=b"another")
    with pytest.raises(procession.AuthenticationError):
        stranger.connect()
    assert forked_server.dict(a=1)["a"] == 1


def test_garbage_and_silence_hold_up_nobody():
    with managers.SyncManager(address=("127.0.0.1", 0), authkey=KEY) as made:
        silent = [socket.create_connection(made.address) for _ in range(20)]
        silent[0].sendall(os.urandom(5000))
        assert made.Array("i", [1])[0] == 1
        for stranger in silent:
            stranger.close()


PLAIN_CLIENT = """
import multiprocessing, sys
from multiprocessing.managers import DictProxy, ListProxy, SyncManager
multiprocessing.current_process().authkey = b"a key for tests"
manager = SyncManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"a key for tests")
manager.connect()
shared, items = manager.dict(a=1), manager.list([1])
shared["items"] = items
assert type(shared["items"]) is ListProxy
shared["items"].append(2)
assert items[:] == [1, 2]
assert sorted(shared) == ["a", "items"]
lock = manager.RLock()
with lock, lock:
    pass
queue = manager.Queue()
queue.put(shared)
assert type(queue.get()) is DictProxy
try:
    shared["missing"]
except KeyError:
    print("done")
"""

PLAIN_SERVER = """
from multiprocessing.managers import SyncManager
server = SyncManager(address=("127.0.0.1", 0), authkey=b"a key for tests").get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""


def interpreters():
    """Find the interpreter at hand, without this package, and others that are installed."""
    yield sys.executable
    for minor in range(11, 20):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], check=False).returncode == 0:
            yield found


@pytest.fixture(params=sorted(set(interpreters())))
def interpreter(request):
    return [request.param, "-I", "-c"]


def test_client_of_the_standard_library(interpreter):
    with managers.SyncManager(address=("127.0.0.1", 0), authkey=KEY) as made:
        done = subprocess.run(
            [*interpreter, PLAIN_CLIENT, str(made.address[1])],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("done\n", "")
        assert comes_true(lambda: made._number_of_objects() == 0)


def test_server_of_the_standard_library(interpreter):
    with subprocess.Popen([*interpreter, PLAIN_SERVER], stdout=subprocess.PIPE, text=True) as peer:
        port = int(peer.stdout.readline())
        made = managers.SyncManager(address=("127.0.0.1", port), authkey=KEY)
        made.connect()
        shared, items = made.dict(a=1), made.list([1])
        shared["items"] = items
        got = shared["items"]
        assert type(got) is managers.ListProxy
        got.append(2)
        assert items[:] == [1, 2]
        assert sorted(shared) == ["a", "items"]
        with pytest.raises(managers.RemoteError, match="not in exposed"):
            shared._callmethod("missing")
        assert made._number_of_objects() == 2
        del got, items
        shared.clear()
        assert made._number_of_objects() >= 1
        del shared
        peer.kill()
        with pytest.raises((EOFError, ConnectionError)):
            made.dict()
