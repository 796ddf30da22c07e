"""This package at one end, and the `multiprocessing` of an unchanged CPython at the other."""

import contextlib
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from procession import connection
from tests.cpython.every import found

PEER = pathlib.Path(__file__).with_name("peer.py")
DEADLOCK = 300.0  # seconds; only a deadlock takes this long
KEY = b"the key of both sides"
# Those that are promised; newer ones take part where they are found.
PROMISED = [(3, 11), (3, 12), (3, 13)]

# The interpreter at hand is always there.
INTERPRETERS = {version[:2]: path for _, version, path in found()}
INTERPRETERS.setdefault(sys.version_info[:2], sys.executable)
VERSIONS = sorted({*PROMISED, *INTERPRETERS})

_numbers = itertools.count()


@pytest.fixture(params=VERSIONS, ids=lambda version: f"CPython {version[0]}.{version[1]}")
def interpreter(request):
    if request.param not in INTERPRETERS:
        pytest.skip(f"no CPython {request.param[0]}.{request.param[1]} is found on this machine")
    return INTERPRETERS[request.param]


@pytest.fixture(params=["listener", "client"])
def ours(request):
    """Which of the two this package is."""
    return request.param


@pytest.fixture(params=["TCP", "UNIX path", "UNIX abstract"])
def place(request, tmp_path):
    """Family and address of a listener."""
    return {
        "TCP": ("AF_INET", ("127.0.0.1", 0)),
        "UNIX path": ("AF_UNIX", str(tmp_path / "listener")),
        "UNIX abstract": ("AF_UNIX", f"\0procession-cross-{os.getpid()}-{next(_numbers)}"),
    }[request.param]


class Peer:
    """A running `peer.py`."""

    def __init__(self, interpreter, role, action, place, key):
        family, address = place
        address = address.decode() if isinstance(address, bytes) else address
        told = [role, action, family, address, None if key is None else key.hex()]
        self._process = subprocess.Popen(
            [interpreter, "-I", str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()

    def address(self):
        """Where it listens."""
        address = json.loads(self._process.stdout.readline())
        return tuple(address) if isinstance(address, list) else address

    def ending(self):
        """The name of the exception that it ended with; `None` if there was none."""
        said, _ = self._process.communicate(timeout=DEADLOCK)
        assert self._process.returncode == 0
        return json.loads(said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Still running only if the test has failed.
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def meet(interpreter, ours, place):
    """Bring the two together: `with meet() as (connection, peer)`."""
    family, address = place

    @contextlib.contextmanager
    def meet(key=KEY, peers_key=KEY, action="obey"):
        if ours == "listener":
            with connection.Listener(address, family, authkey=key) as listener:
                where = (family, listener.address)
                with (
                    Peer(interpreter, "client", action, where, peers_key) as peer,
                    listener.accept() as end,
                ):
                    yield end, peer
        else:
            with (
                Peer(interpreter, "listener", action, place, peers_key) as peer,
                connection.Client(peer.address(), family, authkey=key) as end,
            ):
                yield end, peer

    return meet


@pytest.fixture
def refusal(interpreter, ours, place):
    """Let the two fail to come together: what exceptions this side and the peer end with."""
    family, address = place

    def refusal(key, peers_key, action="obey"):
        if ours == "listener":
            with connection.Listener(address, family, authkey=key) as listener:
                where = (family, listener.address)
                with Peer(interpreter, "client", action, where, peers_key) as peer:
                    return exception_of(listener.accept), peer.ending()
        with Peer(interpreter, "listener", action, place, peers_key) as peer:
            where = peer.address()
            return exception_of(lambda: connection.Client(where, family, key)), peer.ending()

    return refusal


def exception_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (which one is what the test looks at)
        call().close()
    return caught.type


@pytest.fixture(scope="session")
def asks_for_an_empty_key():
    """Whether a listener of an interpreter asks for its key if that is empty; older ones do not."""
    code = (
        "import inspect; from multiprocessing.connection import Listener as L;"
        "print('is not None' in inspect.getsource(L.accept))"
    )

    @functools.cache
    def asks(interpreter):
        return subprocess.check_output([interpreter, "-I", "-c", code], text=True) == "True\n"

    return asks
