"""TLS for connections and managers: who is trusted, what is said where nobody is, and the end."""

import os
import pathlib
import pickle
import signal
import socket
import threading

import pytest

import procession
from procession import managers
from procession._procession import finish_tunnels
from procession.connection import TLS, Client, Listener
from tests.unit.waiting import with_time_enough

FOLDER = pathlib.Path(__file__).parent.parent / "certificates"
KEY = b"a key for tests"
LIMIT = 300.0  # seconds; only a deadlock takes this long


@pytest.fixture(autouse=True, scope="module")
def _no_thread_stays():
    yield
    assert finish_tunnels(LIMIT)


def shown(name):
    return {"certificate": FOLDER / f"{name}.pem", "key": FOLDER / f"{name}.key"}


SERVER = TLS(**shown("server"))
TRUSTING = TLS(ca=FOLDER / "ca.pem")
BOTH = TLS(**shown("server"), ca=FOLDER / "ca.pem", mutual=True)


def in_thread(function):
    """Call a function in a thread; return what waits for it and returns what came of it."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
        thread.join(LIMIT)
        return outcome[0]

    return wait


def meet(server_tls, client_tls, host="127.0.0.1", **options):
    """Let a client connect with a listener; return what comes of both."""
    with Listener(("127.0.0.1", 0), authkey=KEY, tls=server_tls, **options) as listener:
        address = (host, listener.address[1])
        connected = in_thread(lambda: Client(address, authkey=KEY, tls=client_tls))
        try:
            accepted = listener.accept()
        except Exception as error:
            accepted = error
        return accepted, connected()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_objects_of_every_size_come_and_go(host):
    here, there = meet(SERVER, TRUSTING, host)
    with here, there:
        for obj in (None, "text", list(range(100_000)), os.urandom(5_000_000)):
            sent = in_thread(lambda obj=obj: here.send(obj))
            assert there.recv() == obj
            assert sent() is None
            sent = in_thread(lambda obj=obj: there.send(obj))
            assert here.recv() == obj
            assert sent() is None


def test_texts_do_as_well_as_paths():
    certificate, key = ((FOLDER / name).read_bytes() for name in ("server.pem", "server.key"))
    here, there = meet(TLS(certificate, key), TLS(ca=(FOLDER / "ca.pem").read_bytes()))
    with here, there:
        here.send("hello")
        assert there.recv() == "hello"


def test_stranger_is_not_trusted():
    accepted, connected = meet(SERVER, TLS(ca=FOLDER / "stranger.pem"))
    assert isinstance(connected, procession.AuthenticationError)
    assert "nobody whom this end trusts" in str(connected)
    assert isinstance(accepted, procession.AuthenticationError)
    assert "refuses" in str(accepted)


def test_other_name_is_not_trusted():
    other = TLS(ca=FOLDER / "ca.pem", server_name="example.org")
    _, connected = meet(SERVER, other)
    assert "not one of example.org" in str(connected)


def test_expired_certificate_is_not_trusted():
    _, connected = meet(TLS(**shown("expired")), TRUSTING)
    assert "expired" in str(connected)


def test_client_shows_its_certificate_where_one_is_wanted():
    here, there = meet(BOTH, TLS(**shown("client"), ca=FOLDER / "ca.pem"))
    with here, there:
        there.send("hello")
        assert here.recv() == "hello"
    accepted, connected = meet(BOTH, TRUSTING)
    assert "no certificate" in str(accepted)
    assert "wants a certificate" in str(connected)


def test_plain_client_is_told_that_tls_is_spoken():
    with_time_enough(check_that_a_plain_client_is_told)


def check_that_a_plain_client_is_told(seconds):
    with Listener(("127.0.0.1", 0), authkey=KEY, tls=SERVER, handshake_timeout=seconds) as listener:
        plain = in_thread(lambda: Client(listener.address, authkey=KEY))
        accepting = in_thread(listener.accept)
        error = plain()
        assert isinstance(error, procession.AuthenticationError)
        assert "speaks TLS" in str(error)
        # The listener goes on.
        with Client(listener.address, authkey=KEY, tls=TRUSTING) as there, accepting() as here:
            here.send("hello")
            assert there.recv() == "hello"


def test_listener_without_tls_is_told_from_one_with_it():
    accepted, connected = meet(None, TRUSTING)
    assert "does not speak TLS" in str(connected)
    assert "speaks TLS" in str(accepted)


def test_end_is_told_from_a_cut():
    here, there = meet(SERVER, TRUSTING)
    with there:
        here.send("the last")
        here.close()
        assert there.recv() == "the last"
        with pytest.raises(EOFError):
            there.recv()


def connect_and_hang(address, connected):
    _connection = Client(address, authkey=KEY, tls=TRUSTING)
    connected.set()
    signal.pause()


def test_death_of_the_other_end_is_no_clean_end(ctx):
    with Listener(("127.0.0.1", 0), authkey=KEY, tls=SERVER) as listener:
        connected = ctx.Event()
        child = ctx.Process(target=connect_and_hang, args=(listener.address, connected))
        child.start()
        with listener.accept() as connection:
            connected.wait()
            child.kill()
            child.join()
            with pytest.raises(OSError, match="cut without a farewell"):
                connection.recv()


def send_and_end(address):
    Client(address, authkey=KEY, tls=TRUSTING).send(b"x" * 100_000)


def test_what_was_sent_before_the_end_of_a_process_arrives(ctx):
    with Listener(("127.0.0.1", 0), authkey=KEY, tls=SERVER) as listener:
        child = ctx.Process(target=send_and_end, args=(listener.address,))
        child.start()
        with listener.accept() as connection:
            child.join()
            assert connection.recv() == b"x" * 100_000
            with pytest.raises(EOFError):
                connection.recv()


def send(connection, obj):
    connection.send(obj)


def test_child_sends_through_an_inherited_end():
    here, there = meet(SERVER, TRUSTING)
    with here, there:
        child = procession.get_context("fork").Process(target=send, args=(here, "the child's"))
        child.start()
        assert there.recv() == "the child's"
        child.join()
        here.send("the parent's")
        assert there.recv() == "the parent's"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "needs a certificate"),
        ({"certificate": b"x"}, "together"),
        ({"ca": b"no PEM"}, "certificate cannot be used"),
        (shown("server") | {"key": FOLDER / "client.key"}, "private key cannot be used"),
        (shown("server") | {"mutual": True}, "who has signed"),
    ],
)
def test_what_is_no_certificate_is_refused_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        TLS(**arguments)


def test_tls_is_for_tcp_and_for_the_right_end(tmp_path):
    with pytest.raises(ValueError, match="addresses of TCP"):
        Listener(str(tmp_path / "socket"), tls=SERVER)
    with pytest.raises(ValueError, match="needs a certificate and its key"):
        Listener(("127.0.0.1", 0), tls=TRUSTING)
    with pytest.raises(ValueError, match="is to trust"):
        Client(("127.0.0.1", 1), tls=SERVER)
    with pytest.raises(TypeError, match="must be a TLS"):
        Client(("127.0.0.1", 1), tls=FOLDER)


def test_private_key_goes_nowhere_but_to_children():
    with pytest.raises(RuntimeError):
        pickle.dumps(SERVER)
    assert repr(pickle.loads(pickle.dumps(TRUSTING))) == repr(TRUSTING)


def double(numbers):
    numbers.append([2 * number for number in numbers])
    return numbers[-1]


def test_manager_over_tls_serves_every_process(ctx):
    with managers.SyncManager(("127.0.0.1", 0), ctx=ctx, tls=BOTH) as server:
        # One that has not started the server has its objects there.
        manager = managers.SyncManager(server.address, ctx=ctx, tls=BOTH)
        manager.connect()
        numbers = manager.list([1, 2])
        child = ctx.Process(target=double, args=(numbers,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert list(numbers) == [1, 2, [2, 4]]
        with ctx.Pool(2) as pool:
            assert pool.apply(double, (manager.list([5]),)) == [10]
        large = manager.dict(large=b"x" * 10_000_000)
        assert len(large["large"]) == 10_000_000
        assert server._number_of_objects() == 2


def test_manager_turns_away_who_speaks_no_tls():
    with_time_enough(check_that_a_manager_turns_away)


def check_that_a_manager_turns_away(seconds):
    with managers.SyncManager(
        ("127.0.0.1", 0), KEY, tls=BOTH, handshake_timeout=seconds
    ) as manager:
        with socket.create_connection(manager.address) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while raw.recv(1000):
                pass
        with pytest.raises(procession.AuthenticationError, match="speaks TLS"):
            Client(manager.address, authkey=KEY)
        assert manager._number_of_objects() == 0


def test_manager_over_tls_needs_an_address_of_tcp():
    with pytest.raises(ValueError, match="addresses of TCP"):
        managers.SyncManager(tls=BOTH)
