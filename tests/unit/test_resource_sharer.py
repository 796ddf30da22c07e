"""Descriptors for other processes: what can go wrong, and the standard library at the other end."""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from multiprocessing import connection as stdlib_connection

import pytest

import procession
from procession import reduction, resource_sharer
from tests.cpython import every

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
KEY = b"a key that both have"
# Unchanged interpreters for the other end, the one of these tests among them.
PYTHONS = [path for _, _, path in every.found()] or [sys.executable]


@pytest.fixture(autouse=True)
def _stop():
    yield
    resource_sharer.stop(DEADLOCK)


@pytest.fixture
def ends():
    """A pipe: its reading end, and the end that is shared."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def connect(wrapper):
    address, _ = wrapper._id
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    return sock


def close_all(*socks):
    for sock in socks:
        sock.close()


def test_silent_and_garbage_clients_hold_up_nobody(ends):
    wrapper = resource_sharer.DupFd(ends[1])
    silent = [connect(wrapper) for _ in range(5)]
    garbage = connect(wrapper)
    garbage.sendall(os.urandom(100_000))
    vanished = connect(wrapper)
    vanished.close()
    # These know the key, and then say nothing, or nonsense.
    address, key = wrapper._id
    authkey = procession.current_process().authkey
    mute = stdlib_connection.Client(address, authkey=authkey)
    for nonsense in (b"", b"nonsense", pickle.dumps((-1, 1)), pickle.dumps((key, 1, 1))):
        with stdlib_connection.Client(address, authkey=authkey) as foreign:
            foreign.send_bytes(nonsense)
            with pytest.raises(EOFError):
                foreign.recv_bytes()
    with stdlib_connection.Client(address, authkey=authkey) as foreign:
        foreign.send((key + 1000, os.getpid()))
        with pytest.raises(EOFError):
            foreign.recv_bytes()
    os.close(wrapper.detach())
    close_all(garbage, mute, *silent)


def test_another_key_is_refused(ends):
    wrapper = resource_sharer.DupFd(ends[1])
    process = procession.current_process()
    own = process.authkey
    try:
        process.authkey = b"another key"
        with pytest.raises(procession.AuthenticationError):
            wrapper.detach()
    finally:
        process.authkey = own
    os.close(wrapper.detach())


def test_key_of_the_moment_is_what_counts(ends):
    process = procession.current_process()
    own = process.authkey
    first = resource_sharer.DupFd(ends[1])
    try:
        process.authkey = b"a later key"
        second = resource_sharer.DupFd(ends[1])
        assert first._id[1] != second._id[1]
        os.close(second.detach())
    finally:
        process.authkey = own
    os.close(first.detach())


def test_second_fetch_is_an_error_and_nothing_is_left_open(ends):
    resource_sharer.stop(DEADLOCK)
    before = open_descriptors()
    wrapper = resource_sharer.DupFd(ends[1])
    descriptor = wrapper.detach()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    with pytest.raises(EOFError, match="fetched before"):
        wrapper.detach()
    resource_sharer.stop(DEADLOCK)
    assert open_descriptors() == before


def share_and_die(end, writer):
    end.send(reduction.DupFd(writer.fileno()))
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_sender_is_a_clear_error():
    context = procession.get_context("fork")
    here, there = context.Pipe()
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=share_and_die, args=(there, writer))
    child.start()
    wrapper = here.recv()
    child.join(DEADLOCK)
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(ConnectionRefusedError, match="has died"):
        wrapper.detach()
    writer.close()
    with pytest.raises(EOFError):
        reader.recv()
    for end in (here, there, reader):
        end.close()


def wait_for_the_end(end):
    with pytest.raises(EOFError):
        end.recv_bytes()


@pytest.mark.parametrize("by_hand", [False, True])
def test_forked_child_keeps_nothing_open(by_hand):
    reader, writer = os.pipe()
    wrapper = resource_sharer.DupFd(writer)
    os.close(writer)
    here, there = procession.Pipe()
    if by_hand:
        pid = os.fork()
        if pid == 0:
            here.close()
            wait_for_the_end(there)
            os._exit(0)
    else:
        child = procession.get_context("fork").Process(target=_sleep_in_child, args=(here, there))
        child.start()
    there.close()
    # The child is alive, and all of it that shares must be gone with this:
    resource_sharer.stop(DEADLOCK)
    assert os.read(reader, 1) == b"", "the child has a copy"
    os.close(reader)
    with pytest.raises(ConnectionRefusedError):
        wrapper.detach()
    here.close()
    if by_hand:
        assert os.waitpid(pid, 0)[1] == 0
    else:
        child.join(DEADLOCK)
        assert child.exitcode == 0


def _sleep_in_child(here, there):
    here.close()
    wait_for_the_end(there)


def share_in_child(end, writer):
    """Share what the parent shares too: the child has a thread of its own."""
    with end:
        end.send(writer)
        end.recv()


def test_forked_child_shares_by_itself(ends):
    _mine = resource_sharer.DupFd(ends[1])
    context = procession.get_context("fork")
    here, there = context.Pipe()
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=share_in_child, args=(there, writer))
    child.start()
    copy = here.recv()
    copy.send("through the child's copy")
    assert reader.recv() == "through the child's copy"
    here.send(None)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    for end in (here, there, reader, writer, copy):
        end.close()


def test_too_many_descriptors_are_closed():
    here, there = procession.Pipe()
    before = open_descriptors()
    with socket.fromfd(here.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        for count in (2, 3, 8):
            socket.send_fds(sock, [bytes([count])], [0] * count)
            with pytest.raises(RuntimeError, match="more than 1"):
                reduction.recv_handle(there)
        reduction.send_handle(here, 0, None)
        descriptor = reduction.recv_handle(there)
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    assert open_descriptors() == before
    here.close()
    there.close()


def test_process_ends_while_it_shares():
    program = "import os; from procession import resource_sharer as s; s.DupFd(os.dup(0))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLOCK)


def test_pickler_is_one_for_both_packages():
    assert reduction.ForkingPickler is multiprocessing.reduction.ForkingPickler
    pickler = type("Pickler", (reduction.ForkingPickler,), {})
    original = reduction.ForkingPickler
    try:
        reduction.ForkingPickler = pickler
        assert multiprocessing.reduction.ForkingPickler is pickler
    finally:
        reduction.ForkingPickler = original


# The other end: an interpreter with nothing but the standard library.
REDEEM = """
import os, pickle, sys
from multiprocessing import current_process
current_process().authkey = sys.argv[1].encode()
descriptor = pickle.loads(bytes.fromhex(sys.stdin.readline())).detach()
os.write(descriptor, sys.version.split()[0].encode())
assert 'procession' not in sys.modules
"""
SHARE = """
import os, pickle, sys
from multiprocessing import current_process
from multiprocessing.reduction import ForkingPickler, DupFd
current_process().authkey = sys.argv[1].encode()
reader, writer = os.pipe()
print(bytes(ForkingPickler.dumps(DupFd(writer))).hex(), flush=True)
os.close(writer)
print(os.read(reader, 100).decode(), flush=True)
sys.stdin.readline()
assert 'procession' not in sys.modules
"""


@pytest.fixture
def key():
    process = procession.current_process()
    own = process.authkey
    process.authkey = KEY
    yield KEY.decode()
    process.authkey = own


def unchanged(python, program, key):
    # Not this folder's packages: only what comes with the interpreter.
    return subprocess.Popen(
        [python, "-I", "-c", program, key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_unchanged_python_fetches_from_here(python, key):
    reader, writer = os.pipe()
    pickled = bytes(reduction.ForkingPickler.dumps(reduction.DupFd(writer))).hex()
    os.close(writer)
    with unchanged(python, REDEEM, key) as other:
        other.communicate(pickled + "\n", timeout=DEADLOCK)
        assert other.returncode == 0
    with open(reader, "rb") as file:
        assert file.read().startswith(b"3."), "nothing came through the descriptor"


@pytest.mark.parametrize("python", PYTHONS)
def test_descriptor_of_an_unchanged_python_is_fetched_here(python, key):
    with unchanged(python, SHARE, key) as other:
        wrapper = pickle.loads(bytes.fromhex(other.stdout.readline()))
        # Read as the original's class, as it is not `procession` that has that name here.
        ours = resource_sharer.DupFd.__new__(resource_sharer.DupFd)
        ours.__dict__.update(wrapper.__dict__)
        descriptor = ours.detach()
        os.write(descriptor, b"from elsewhere")
        os.close(descriptor)
        assert other.stdout.readline() == "from elsewhere\n"
        other.communicate("\n", timeout=DEADLOCK)
        assert other.returncode == 0
