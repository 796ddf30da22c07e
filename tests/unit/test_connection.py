"""What connections here do and those of the standard library do not; and both together."""

import asyncio
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

import procession
from procession import connection
from tests.cpython import every
from tests.unit.waiting import alarm_soon

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

STDLIB = multiprocessing.connection


def put_into_what_comes(end):
    """Each message brings a queue along."""
    while (item := end.recv()) is not None:
        item["queue"].put(item["number"] + 1)


def send_a_queue_and_exit(end):
    queue = procession.Queue()
    queue.put("from one that is gone")
    end.send([queue])


def test_connection_is_one_of_the_originals():
    here, there = connection.Pipe()
    assert isinstance(here, STDLIB.Connection)
    assert isinstance(here, STDLIB._ConnectionBase)
    assert isinstance(here, connection.Connection)
    assert type(here) is connection.Connection
    here.close()
    there.close()


def test_queue_travels_through_a_pipe(ctx):
    here, there = connection.Pipe()
    child = ctx.Process(target=put_into_what_comes, args=(there,))
    child.start()
    for number in range(20):
        queue = procession.Queue()  # later than the child, which never inherited it
        here.send({"queue": queue, "number": number})
        assert queue.get(timeout=DEADLOCK) == number + 1
        queue.close()
    here.send(None)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def test_queue_outlives_the_process_that_sent_it(ctx):
    receiver, sender = connection.Pipe(False)
    child = ctx.Process(target=send_a_queue_and_exit, args=(sender,))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()
    (queue,) = receiver.recv()
    assert queue.get(timeout=DEADLOCK) == "from one that is gone"


def test_queue_is_refused_where_the_reader_may_be_anybody():
    with (
        connection.Listener() as listener,
        connection.Client(listener.address) as client,
        listener.accept() as server,
    ):
        with pytest.raises(RuntimeError, match="inheritance"):
            client.send(procession.Queue())
        client.send("next")
        assert server.recv() == "next"


def test_queue_does_not_outlive_its_message_as_mere_bytes():
    here, there = connection.Pipe()
    kept = procession.Queue()
    for queue in (kept, procession.Queue()):
        here.send(queue)
    del queue
    held, stolen = there.recv_bytes(), there.recv_bytes()
    other, its_peer = connection.Pipe()
    other.send_bytes(held)
    kept.put("the same")
    assert its_peer.recv().get(timeout=DEADLOCK) == "the same"
    other.send_bytes(stolen)
    with pytest.raises(RuntimeError, match="no longer exists"):
        its_peer.recv()


def test_unpicklable_object_sends_nothing():
    here, there = connection.Pipe()
    with pytest.raises(TypeError):
        here.send(threading.Lock())
    here.send("next")
    assert there.recv() == "next"


def test_signal_handler_runs_during_recv_and_the_message_arrives_whole():
    reader, writer = os.pipe()
    ran = []

    def on_signal(_number, _frame):
        ran.append(True)
        os.write(writer, b"de")

    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        with connection.Connection(reader, writable=False) as end:
            os.write(writer, b"\0\0\0\5abc")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert end.recv_bytes() == b"abcde"
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
    assert ran


class StopError(Exception):
    pass


def raise_stop(_number, _frame):
    raise StopError


def test_exception_of_a_signal_handler_within_a_message_spoils_no_other():
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGALRM, raise_stop)
    try:
        with connection.Connection(reader, writable=False) as end:
            os.write(writer, b"\0\0\0\5abc")
            with pytest.raises(StopError), alarm_soon():
                end.recv_bytes()
            os.write(writer, b"de\0\0\0\4next")
            assert end.recv_bytes() == b"next"
            os.write(writer, b"\0\0")
            with pytest.raises(StopError), alarm_soon():
                end.recv_bytes()
            assert end.poll(), "a part of a message is there"
            os.write(writer, b"\0\4last")
            assert end.recv_bytes() == b"last"
    finally:
        signal.signal(signal.SIGALRM, before)
        os.close(writer)


def test_signal_handler_may_send_on_the_connection_that_waits_to_send():
    receiver, sender = connection.Pipe()
    os.set_blocking(sender.fileno(), False)
    filled = 0
    try:
        while True:
            sender.send_bytes(b"x" * 1000)
            filled += 1
    except BlockingIOError:
        os.set_blocking(sender.fileno(), True)

    def drain_and_send(_number, _frame):
        for _ in range(filled):
            receiver.recv_bytes()
        sender.send_bytes(b"of the handler")

    before = signal.signal(signal.SIGALRM, drain_and_send)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        sender.send_bytes(b"y" * 1000)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert receiver.recv_bytes() == b"of the handler"
    assert receiver.recv_bytes() == b"y" * 1000


def test_signal_ends_waits_of_every_kind():
    here, _there = connection.Pipe()
    before = signal.signal(signal.SIGALRM, raise_stop)
    try:
        with connection.Listener() as listener:
            for blocking in (
                here.poll,
                lambda _: connection.wait([here]),
                lambda _: listener.accept(),
            ):
                with pytest.raises(StopError), alarm_soon():
                    blocking(None)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_threads_never_mix_their_messages():
    receiver, sender = connection.Pipe()
    blocks = [bytes([number]) * 300_000 for number in range(4)]
    threads = [
        threading.Thread(target=lambda block=block: [sender.send_bytes(block) for _ in range(20)])
        for block in blocks
    ]
    for thread in threads:
        thread.start()
    received = [receiver.recv_bytes() for _ in range(80)]
    for thread in threads:
        thread.join(DEADLOCK)
    assert sorted(received) == sorted(blocks * 20)


def test_fork_while_another_thread_sends_leaves_the_child_able_to_send():
    ctx = procession.get_context("fork")
    receiver, sender = connection.Pipe()
    sending = threading.Thread(target=sender.send_bytes, args=(b"x" * 5_000_000,))
    sending.start()
    assert receiver.poll(DEADLOCK)
    answers, there = connection.Pipe()
    child = ctx.Process(target=send_elsewhere, args=(sender, there))
    child.start()
    assert answers.poll(DEADLOCK), "the child waits for a thread that it does not have"
    assert answers.recv_bytes() == b"\0\0\0\4sent"
    assert len(receiver.recv_bytes()) == 5_000_000
    sending.join(DEADLOCK)
    child.join(DEADLOCK)
    child.close()


def send_elsewhere(sender, answers):
    # In the stream itself the bytes of both would mix.
    mine, other = socket.socketpair()
    os.dup2(mine.fileno(), sender.fileno())
    sender.send_bytes(b"sent")
    answers.send_bytes(other.recv(8, socket.MSG_WAITALL))


def test_handle_can_be_let_go_of():
    here, there = connection.Pipe()
    number = here.fileno()
    assert here._handle == number
    here._handle = None
    assert here.closed
    os.fstat(number)  # still open
    again = connection.Connection(number)
    again.send(1)
    assert there.recv() == 1
    again.close()
    there.close()


def test_connection_that_nobody_holds_is_closed():
    here, there = connection.Pipe()
    del here
    gc.collect()
    with pytest.raises(EOFError):
        there.recv()


def test_silent_and_vanished_clients_hold_up_nobody():
    with connection.Listener(family="AF_INET", backlog=20, authkey=b"a key") as listener:
        silent = [socket.create_connection(listener.address) for _ in range(3)]
        for _ in range(3):
            socket.create_connection(listener.address).close()
        thread = threading.Thread(
            target=lambda: connection.Client(listener.address, authkey=b"a key").send("served")
        )
        thread.start()
        with listener.accept() as server:
            assert server.recv() == "served"
        thread.join(DEADLOCK)
        for client in silent:
            client.close()


def test_garbage_is_an_error_that_shows_it_and_the_next_client_is_served():
    with connection.Listener(family="AF_INET", backlog=2, authkey=b"a key") as listener:
        with socket.create_connection(listener.address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(procession.AuthenticationError, match="GET "):
                listener.accept()
        thread = threading.Thread(
            target=lambda: connection.Client(listener.address, authkey=b"a key").send("served")
        )
        thread.start()
        with listener.accept() as server:
            assert server.recv() == "served"
        thread.join(DEADLOCK)


@pytest.mark.parametrize("ours", ["listener", "client"])
@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
@pytest.mark.parametrize("key", [b"a key", None], ids=["key", "no key"])
def test_standard_library_is_understood_and_understands(ours, family, key):
    listening, connecting = (connection, STDLIB) if ours == "listener" else (STDLIB, connection)
    with listening.Listener(family=family, authkey=key) as listener:
        clients = []
        thread = threading.Thread(
            target=lambda: clients.append(connecting.Client(listener.address, authkey=key))
        )
        thread.start()
        with listener.accept() as server:
            thread.join(DEADLOCK)
            with clients[0] as client:
                for value in (None, 1, "text", [1.5, {"a": (b"b",)}], {1, 2}):
                    client.send(value)
                    assert server.recv() == value
                    server.send(value)
                    assert client.recv() == value


PEER = """
import sys
from multiprocessing.connection import Client
with Client(sys.argv[1], authkey=b"a key") as client:
    while True:
        try:
            client.send(client.recv())
        except EOFError:
            break
"""


def test_unchanged_program_talks_to_a_listener_here():
    with connection.Listener(authkey=b"a key") as listener:
        program = subprocess.Popen([sys.executable, "-I", "-c", PEER, listener.address])
        with listener.accept() as server:
            for value in (1, "two", [3, {"four": None}], b"x" * 100_000):
                server.send(value)
                assert server.recv() == value
        assert program.wait(DEADLOCK) == 0


def test_descriptor_is_redeemed_by_the_standard_library():
    from multiprocessing import resource_sharer

    here, there = connection.Pipe()
    duplicate = resource_sharer.DupFd(here.fileno())
    with STDLIB.Connection(duplicate.detach()) as again:
        again.send("hello")
        assert there.recv() == "hello"
    resource_sharer.stop(DEADLOCK)


def test_more_than_1024_descriptors_can_be_waited_for():
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    here, there = connection.Pipe()
    quiet, _peer = connection.Pipe()
    numbers = [os.dup(quiet.fileno()) for _ in range(1100)]
    try:
        numbers.append(os.dup(here.fileno()))
        there.send(1)
        assert connection.wait(numbers, DEADLOCK) == [numbers[-1]]
    finally:
        for number in numbers:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_key_that_is_no_bytes_is_refused_before_anything_is_opened():
    before = os.listdir("/proc/self/fd")
    with pytest.raises(TypeError):
        connection.Listener(authkey="text")
    with pytest.raises(TypeError):
        connection.Client("/nowhere", authkey="text")
    assert os.listdir("/proc/self/fd") == before


def test_descriptor_that_is_not_open_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=r"[Bb]ad file"):
        connection.wait([reader], 0)
    stale = connection.Connection(reader)
    with pytest.raises(OSError, match="not an open descriptor"):
        stale.poll()
    stale._handle = None


def test_message_longer_than_allowed_is_refused_before_memory_is_taken():
    with connection.Listener(("localhost", 0), authkey=b"key", max_message=1000) as listener:
        with socket.create_connection(listener.address):
            pass  # has a place in the queue, and is passed over
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept()))
        thread.start()
        client = connection.Client(listener.address, authkey=b"key", max_message=10)
        thread.join()
        (server,) = accepted
        assert (server.max_message, client.max_message) == (1000, 10)
        client.send_bytes(b"x" * 1000)
        assert len(server.recv_bytes()) == 1000
        # A header alone: no such message would fit into memory.
        os.write(client.fileno(), b"\xff\xff\xff\xff" + (1 << 50).to_bytes(8, "big"))
        with pytest.raises(OSError, match="bad message length"):
            server.recv()
        with pytest.raises(OSError, match="write-only"):
            server.recv()
        server.send_bytes(b"x" * 11)
        with pytest.raises(OSError, match="bad message length"):
            client.recv_bytes()
        client.close()
        server.close()


def test_limit_of_a_connection_can_be_changed():
    here, there = connection.Pipe()
    with here, there:
        assert here.max_message is None
        here.max_message = 3
        there.send_bytes(b"four")
        with pytest.raises(OSError, match="bad message length"):
            here.recv_bytes()
        with pytest.raises(ValueError, match="max_message must be at least 0, not -1"):
            here.max_message = -1
        assert here.max_message == 3
        here.max_message = None
        assert here.max_message is None
    with pytest.raises(ValueError, match="max_message must be at least 0, not -1"):
        connection.Listener(max_message=-1)


def test_signal_handler_cannot_send_within_a_message():
    here, there = connection.Pipe()
    here.fileno()  # so that the message goes through the descriptor, whatever its length
    outcomes = []

    def send_meanwhile(_signal, _frame):
        try:
            here.send("in between")
        except RuntimeError as error:
            outcomes.append(str(error))
        # Until now nobody has read, so the message was still underway.
        reader.start()

    def signal_when_it_is_underway(main):
        there.poll(None)
        signal.pthread_kill(main, signal.SIGALRM)

    received = []
    reader = threading.Thread(target=lambda: received.append(there.recv_bytes()))
    signalling = threading.Thread(target=signal_when_it_is_underway, args=(threading.get_ident(),))
    before = signal.signal(signal.SIGALRM, send_meanwhile)
    try:
        signalling.start()
        here.send_bytes(b"x" * 10_000_000)
    finally:
        signal.signal(signal.SIGALRM, before)
    signalling.join()
    reader.join()
    assert len(received[0]) == 10_000_000, "the message is not whole"
    assert len(outcomes) == 1
    assert "signal handler" in outcomes[0]
    here.send("afterwards")
    assert there.recv() == "afterwards"
    here.close()
    there.close()


def test_event_loop_watches_a_connection():
    """A program with an event loop needs no thread to receive."""

    async def main(end):
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        received = []

        def receive():
            # All that is there: the descriptor tells once for several messages.
            while end.poll():
                try:
                    received.append(end.recv())
                except EOFError:
                    loop.remove_reader(end.fileno())
                    done.set_result(received)
                    return

        loop.add_reader(end.fileno(), receive)
        return await asyncio.wait_for(done, DEADLOCK)

    here, there = connection.Pipe()
    child = procession.get_context("spawn").Process(target=send_numbers, args=(there, 50))
    child.start()
    there.close()
    assert asyncio.run(main(here)) == list(range(50))
    child.join(DEADLOCK)
    assert child.exitcode == 0
    here.close()


def send_numbers(end, count):
    for number in range(count):
        end.send(number)
    end.close()


DIGESTS = """
import sys
from multiprocessing import connection
host, port, digest = sys.argv[1:]
client = connection.Client((host, int(port)))
connection.deliver_challenge(client, b"key", digest)
connection.answer_challenge(client, b"key")
client.send("done")
"""


@pytest.mark.skipif(
    not any(version >= (3, 12) for _, version, _ in every.found()),
    reason="needs an interpreter whose handshake names digests",
)
@pytest.mark.parametrize("digest", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_digest_that_an_unchanged_python_names_is_understood(digest):
    _, _, python = every.found()[-1]
    with connection.Listener(("localhost", 0)) as listener:
        host, port = listener.address
        other = subprocess.Popen([python, "-I", "-c", DIGESTS, host, str(port), digest])
        with listener.accept() as end:
            connection.answer_challenge(end, b"key")
            connection.deliver_challenge(end, b"key", digest)
            assert end.recv() == "done"
        assert other.wait(DEADLOCK) == 0


WHOSE_PEER_IS_GONE = """
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
from procession import Pipe
from procession.managers import BaseManager

here, there = Pipe()
there.close()
try:
    here.send("to nobody")
except BrokenPipeError:
    print("told")

manager = BaseManager(authkey=b"key")
manager.start()
manager._number_of_objects()
os.kill(manager._process.pid, signal.SIGKILL)
manager._process.join()
for _ in range(2):
    try:
        manager._number_of_objects()
    except (EOFError, ConnectionError):
        print("told")
"""


def test_peer_that_is_gone_is_an_error_also_where_the_signal_for_it_kills():
    ran = subprocess.run(
        [sys.executable, "-c", WHOSE_PEER_IS_GONE],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLOCK,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "told\n" * 3, "")
