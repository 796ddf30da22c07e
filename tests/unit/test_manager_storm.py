"""Managers in bad weather: much data, garbage, clients that are killed, a server that is."""

import collections
import os
import pathlib
import pickle
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

import procession
from procession import managers
from procession._procession import connect_manager
from procession.connection import Client, ConnectionWrapper, Listener
from tests.unit.waiting import LIMIT, comes_true

KEY = b"a key for tests"
# Seconds of bad weather, in CI and in `make soak`.
SHORT, LONG = 1.0, 60.0
TIMES = [pytest.param(SHORT, id="short"), pytest.param(LONG, marks=pytest.mark.soak, id="minute")]


class Tally:
    """An object whose state shows whether a call was carried out by half."""

    def __init__(self):
        self._lock = threading.Lock()
        self.one = self.other = 0

    def add(self):
        with self._lock:
            self.one += 1
            self.other += 1
            return self.one

    def both(self):
        with self._lock:
            return self.one, self.other


class Manager(managers.SyncManager):
    """Its address is one of TCP, and its objects are in the server."""


Manager.register("Tally", Tally, exposed=("add", "both"))


@pytest.fixture
def server():
    with Manager(("127.0.0.1", 0), KEY, ctx=procession.get_context("fork")) as made:
        yield made


def connected(address):
    """Return a manager of the kind that did not start the server."""
    made = Manager(address, KEY)
    made.connect()
    return made


def entries(manager, folder):
    return len(list(pathlib.Path(f"/proc/{manager._process.pid}/{folder}").iterdir()))


def test_values_of_a_hundred_megabytes_go_through(server):
    large = random.randbytes(100_000_000)
    other = connected(server.address)
    shelf, line = other.dict(), other.Queue()
    shelf["large"] = large
    assert shelf["large"] == large
    line.put(large)
    assert line.get() == large


def frame(message):
    return struct.pack("!i", len(message)) + message


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


def first_bytes(trap):
    """Return what a stranger may send first."""
    message = pickle.dumps((None, "create", (trap,), {}))
    return [
        frame(message),
        message,
        frame(b"#CHALLENGE#" + message),
        frame(b"\0" * 17 + message),
        frame(b"#WELCOME#") + frame(message),
        frame(b"x" * 32) + frame(b"#WELCOME#") + frame(message),
    ]


def send_as_stranger(family, address, stream):
    with socket.socket(family) as stranger:
        stranger.connect(address)
        try:
            stranger.sendall(stream)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):
                pass
        except OSError:
            pass  # the server has closed first


def test_no_byte_of_a_stranger_is_unpickled(server, tmp_path):
    trap = Trap(tmp_path / "trapped")
    # What `mkdir` returns can be no list.
    with pytest.raises(managers.RemoteError, match="not iterable"):
        server.list(trap)
    assert (tmp_path / "trapped").is_dir(), "the trap works"
    os.rmdir(tmp_path / "trapped")

    with Listener(("127.0.0.1", 0), authkey=KEY) as listener, procession.Pipe()[0] as shared:
        sharing = procession.reduction.DupFd(shared.fileno())
        listening = threading.Thread(target=accept_some, args=(listener, len(first_bytes(trap))))
        listening.start()
        for stream in first_bytes(trap):
            send_as_stranger(socket.AF_INET, server.address, stream)
            send_as_stranger(socket.AF_INET, listener.address, stream)
            send_as_stranger(socket.AF_UNIX, sharing._id[0], stream)
        Client(listener.address, authkey=KEY).close()
        listening.join()
        os.close(sharing.detach())
    assert not (tmp_path / "trapped").exists()
    assert server.list([1])[0] == 1


def accept_some(listener, strangers):
    """Accept until somebody has the key; strangers raise or are passed over."""
    for _ in range(strangers + 1):
        try:
            return listener.accept().close()
        except procession.AuthenticationError:
            pass
    return None


@pytest.mark.parametrize("seconds", TIMES)
def test_garbage_stops_nothing(server, seconds):
    tally = connected(server.address).Tally()
    before = entries(server, "fd")
    until = time.monotonic() + seconds
    strangers = 0
    while time.monotonic() < until:
        send_as_stranger(socket.AF_INET, server.address, random.randbytes(random.randrange(3000)))
        strangers += 1
        assert tally.add() == strangers
    assert comes_true(lambda: entries(server, "fd") <= before)
    print(f"{strangers} strangers")


def work_until_killed(address, shared, begun):
    manager = connected(address)
    lock = manager.Lock()
    mine = collections.deque(maxlen=5)
    while True:
        mine.append(manager.list([manager.dict(), 1]))
        with lock:
            shared.add()
            mine[-1].append(shared.both())
        begun.set()


@pytest.mark.parametrize("seconds", TIMES)
def test_clients_killed_at_random_leave_nothing(server, seconds):
    fork = procession.get_context("fork")
    tally = connected(server.address).Tally()
    tally.add()

    def start():
        begun = fork.Event()
        child = fork.Process(target=work_until_killed, args=(server.address, tally, begun))
        child.start()
        begun.wait()
        return child

    def end(child):
        os.kill(child.pid, signal.SIGKILL)
        child.join()

    objects, descriptors = server._number_of_objects(), entries(server, "fd")
    until, kills = time.monotonic() + seconds, 0
    children = [start() for _ in range(3)]
    while time.monotonic() < until or kills < 5:
        end(children.pop(random.randrange(len(children))))
        kills += 1
        children.append(start())
    for child in children:
        end(child)
    one, other = tally.both()
    assert one == other > kills
    assert comes_true(lambda: server._number_of_objects() == objects)
    assert comes_true(lambda: entries(server, "fd") <= descriptors)
    assert entries(server, "task") < 20
    print(f"{kills} clients killed, {one} calls")


def call_until_gone(tally, begun, told):
    try:
        while True:
            tally.add()
            begun.set()
    except (EOFError, ConnectionError) as error:
        told.put(str(error))


def test_death_of_the_server_is_told_in_every_process(server, ctx):
    tally = connected(server.address).Tally()
    told, all_begun = ctx.Queue(), [ctx.Event() for _ in range(3)]
    children = [
        ctx.Process(target=call_until_gone, args=(tally, begun, told)) for begun in all_begun
    ]
    pid = server._process.pid
    for child, begun in zip(children, all_begun, strict=True):
        child.start()
        begun.wait()
    os.kill(pid, signal.SIGKILL)
    for _ in children:
        assert f"process {pid}" in told.get(timeout=LIMIT)
    for child in children:
        child.join()
        assert child.exitcode == 0
    with pytest.raises((EOFError, ConnectionError), match=f"process {pid}"):
        tally.add()


def test_more_clients_than_allowed_are_turned_away():
    with Manager(("127.0.0.1", 0), KEY, max_clients=2) as manager:
        assert manager._number_of_objects() == 0  # the first client
        second = connect_manager(manager.address, KEY)
        with pytest.raises((EOFError, OSError)):
            connect_manager(manager.address, KEY)
        assert manager._number_of_objects() >= 0
        second.close()

        def there_is_room():
            try:
                connect_manager(manager.address, KEY).close()
            except (EOFError, OSError):
                return False
            return True

        assert comes_true(there_is_room)


def test_request_that_is_too_long_ends_the_connection():
    with Manager(("127.0.0.1", 0), KEY, max_message=100_000) as manager:
        other = connected(manager.address)
        shelf = other.dict(small=b"x" * 1000)
        with pytest.raises((EOFError, ConnectionError)):
            shelf["large"] = b"x" * 1_000_000
        assert connected(manager.address)._number_of_objects() >= 0


def test_silent_client_is_parted_with():
    with (
        Manager(("127.0.0.1", 0), KEY, handshake_timeout=0.05) as manager,
        socket.create_connection(manager.address) as silent,
    ):
        while silent.recv(1000):
            pass


def test_connecting_to_a_listener_that_is_silent_ends():
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(TimeoutError, match="silent for"),
    ):
        Client(mute.getsockname(), authkey=KEY, timeout=0.05)


class Lines(Listener):
    """A listener whose connections send objects in a way of the program's own."""

    def accept(self):
        return in_own_way(super().accept())


def in_own_way(connection):
    return ConnectionWrapper(connection, reversed_pickle, from_reversed_pickle)


def reversed_pickle(obj):
    return pickle.dumps(obj)[::-1]


def from_reversed_pickle(message):
    return pickle.loads(message[::-1])


def lines_client(*args, **kwds):
    return in_own_way(Client(*args, **kwds))


@pytest.fixture
def own_serializer(monkeypatch):
    monkeypatch.setitem(managers.listener_client, "reversed", (Lines, lines_client))
    return "reversed"


def test_serializer_of_the_program_serves(own_serializer):
    context = procession.get_context("fork")
    with managers.SyncManager(None, KEY, own_serializer, ctx=context) as server:
        # One that has not started the server has its objects there.
        manager = managers.SyncManager(server.address, KEY, own_serializer, ctx=context)
        manager.connect()
        shelf = manager.dict(a=1)
        shelf["b"] = [1, 2]
        assert shelf.copy() == {"a": 1, "b": [1, 2]}
        assert sorted(shelf) == ["a", "b"]
        with pytest.raises(KeyError):
            shelf["c"]
        child = context.Process(target=shelf.update, args=({"c": 3},))
        child.start()
        child.join()
        assert shelf["c"] == 3
        with manager.Lock():
            assert manager._number_of_objects() == 2
        assert comes_true(lambda: manager._number_of_objects() == 1)
    with pytest.raises(KeyError):
        managers.SyncManager(serializer="of nobody")


def wait_for(shared):
    shared.wait()


@pytest.mark.parametrize("kind", ["Event", "Barrier"])
def test_wait_of_a_killed_client_keeps_no_thread(server, kind):
    other = connected(server.address)
    shared = getattr(other, kind)(*[2] * (kind == "Barrier"))
    before = entries(server, "task")
    fork = procession.get_context("fork")
    children = [fork.Process(target=wait_for, args=(shared,)) for _ in range(20)]
    for child in children[: 20 if kind == "Event" else 1]:
        child.start()
    if kind == "Event":
        assert comes_true(lambda: entries(server, "task") >= before + 20)
    else:
        assert comes_true(lambda: shared.n_waiting == 1)
    for child in children:
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
            child.join()
    assert comes_true(lambda: entries(server, "task") <= before + 9)
    if kind == "Event":
        shared.set()
        assert shared.wait()
    else:
        assert comes_true(lambda: shared.broken)
        with pytest.raises(threading.BrokenBarrierError):
            shared.wait()


def hold_for_ever(lock, begun):
    lock.acquire()
    begun.set()
    signal.pause()


LOGGED = """
import os, signal
import procession
from procession import util
from tests.unit.test_manager_storm import Manager, connected, hold_for_ever, KEY

util.log_to_stderr(util.SUBWARNING)
fork = procession.get_context("fork")
with Manager(("127.0.0.1", 0), KEY, ctx=fork) as server:
    lock, begun = connected(server.address).Lock(), fork.Event()
    child = fork.Process(target=hold_for_ever, args=(lock, begun))
    child.start()
    begun.wait()
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    lock.acquire()
    lock.release()
"""


def test_lock_of_a_killed_client_is_logged_once():
    run = subprocess.run(
        [sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert run.stderr.count("was released because the client that had it has died") == 1
