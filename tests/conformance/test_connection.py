"""What users rely on from pipes, connections, `wait`, listeners and clients."""

import array
import importlib
import os
import socket
import threading
import time

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@pytest.fixture
def connection(mp):
    return importlib.import_module(f"{mp.__name__}.connection")


@pytest.fixture
def sharing(mp):
    """Stop the thread that hands out descriptors after the test."""
    yield
    importlib.import_module(f"{mp.__name__}.resource_sharer").stop(DEADLOCK)


@pytest.fixture(params=[True, False], ids=["duplex", "one way"])
def ends(connection, request):
    """Return a receiving end and the end that sends to it."""
    receiver, sender = connection.Pipe(request.param)
    with receiver, sender:
        yield receiver, sender


def echo(end):
    with end:
        while True:
            try:
                end.send(end.recv())
            except EOFError:
                break


def send_and_exit(end, items):
    for item in items:
        end.send(item)
    end.close()


def send_through(end):
    """Take a connection out of another one and use it."""
    inner = end.recv()
    inner.send("through what came")
    inner.close()
    end.recv()


def write_to_socket(end):
    with end.recv() as received:
        received.sendall(b"hello")
    end.recv()


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        -(2**70),
        1.5,
        "text",
        b"bytes",
        (1, [2, {"three": 4}]),
        {1, 2},
        array.array("i", [1]),
    ],
    ids=repr,
)
def test_objects_arrive_as_they_were_sent(ends, value):
    receiver, sender = ends
    sender.send(value)
    assert receiver.recv() == value


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65536, 5_000_000, 70_000_000])
def test_bytes_of_every_size_arrive(ends, size):
    receiver, sender = ends
    payload = bytes(range(251)) * (size // 251 + 1)
    payload = payload[:size]
    thread = threading.Thread(target=sender.send_bytes, args=(payload,))
    thread.start()
    assert receiver.recv_bytes() == payload
    thread.join(DEADLOCK)


def test_large_objects_arrive(ends):
    receiver, sender = ends
    value = {"big": list(range(300_000)), "raw": bytes(6_000_000)}
    thread = threading.Thread(target=sender.send, args=(value,))
    thread.start()
    assert receiver.recv() == value
    thread.join(DEADLOCK)


def test_child_answers(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=echo, args=(there,))
    child.start()
    there.close()
    for value in (1, "two", [3]):
        here.send(value)
        assert here.poll(DEADLOCK)
        assert here.recv() == value
    here.close()
    child.terminate()
    child.join(DEADLOCK)
    child.close()


def test_messages_of_an_ended_child_can_be_read_and_then_the_end(ctx):
    receiver, sender = ctx.Pipe(False)
    child = ctx.Process(target=send_and_exit, args=(sender, [1, "two", b"x" * 1000]))
    child.start()
    sender.close()
    child.join(DEADLOCK)
    assert [receiver.recv() for _ in range(3)] == [1, "two", b"x" * 1000]
    assert receiver.poll(DEADLOCK)
    with pytest.raises(EOFError):
        receiver.recv()
    child.close()


@pytest.mark.usefixtures("sharing")
def test_connection_travels_through_a_connection(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=send_through, args=(there,))
    child.start()
    inner, its_peer = ctx.Pipe()
    here.send(its_peer)
    assert inner.poll(DEADLOCK)
    assert inner.recv() == "through what came"
    here.send(None)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


@pytest.mark.usefixtures("sharing")
def test_socket_travels_through_a_connection(ctx):
    here, there = ctx.Pipe()
    child = ctx.Process(target=write_to_socket, args=(there,))
    child.start()
    mine, theirs = socket.socketpair()
    here.send(theirs)
    assert mine.recv(5, socket.MSG_WAITALL) == b"hello"
    here.send(None)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()
    mine.close()
    theirs.close()


def test_part_of_a_buffer_is_sent(ends):
    receiver, sender = ends
    for buffer in (b"abcdefgh", bytearray(b"abcdefgh"), memoryview(b"abcdefgh")):
        sender.send_bytes(buffer, 2)
        sender.send_bytes(buffer, 2, 3)
        sender.send_bytes(buffer, 8)
        assert [receiver.recv_bytes() for _ in range(3)] == [b"cdefgh", b"cde", b""]
    numbers = array.array("i", [1, 2, 3])
    sender.send_bytes(numbers, 4)
    assert receiver.recv_bytes() == numbers.tobytes()[4:]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((b"abc", -1), "offset is negative"),
        ((b"abc", 4), "buffer length < offset"),
        ((b"abc", 0, -1), "size is negative"),
        ((b"abc", 1, 3), r"buffer length < offset \+ size"),
    ],
)
def test_bad_part_of_a_buffer_is_refused(ends, arguments, text):
    with pytest.raises(ValueError, match=text):
        ends[1].send_bytes(*arguments)
    assert not ends[0].poll()


def test_message_is_received_into_a_buffer(ends):
    receiver, sender = ends
    buffer = bytearray(10)
    sender.send_bytes(b"abc")
    assert receiver.recv_bytes_into(buffer, 2) == 3
    assert buffer == b"\0\0abc\0\0\0\0\0"
    numbers = array.array("i", [0] * 4)
    sender.send_bytes(array.array("i", [7, 8]))
    assert receiver.recv_bytes_into(numbers, 2 * numbers.itemsize) == 2 * numbers.itemsize
    assert list(numbers) == [0, 0, 7, 8]
    with pytest.raises(ValueError, match="negative offset"):
        receiver.recv_bytes_into(buffer, -1)
    with pytest.raises(ValueError, match="offset too large"):
        receiver.recv_bytes_into(buffer, 11)


def test_message_that_does_not_fit_is_in_the_error(mp, ends):
    receiver, sender = ends
    sender.send_bytes(b"eleven byte")
    with pytest.raises(mp.BufferTooShort) as caught:
        receiver.recv_bytes_into(bytearray(10))
    assert caught.value.args[0] == b"eleven byte"
    sender.send(1)
    assert receiver.recv() == 1


def test_message_longer_than_allowed_ends_receiving(connection):
    duplex, peer = connection.Pipe()
    peer.send_bytes(b"12345")
    peer.send_bytes(b"123456")
    assert duplex.recv_bytes(5) == b"12345"
    with pytest.raises(ValueError, match="negative maxlength"):
        duplex.recv_bytes(-1)
    with pytest.raises(OSError, match="bad message length"):
        duplex.recv_bytes(5)
    assert not duplex.readable
    assert not duplex.closed
    duplex.send(1)
    reader, writer = connection.Pipe(False)
    writer.send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(5)
    assert reader.closed


def test_closed_connection_says_so(ends):
    receiver, sender = ends
    assert not receiver.closed
    receiver.close()
    receiver.close()
    assert receiver.closed
    for use in (receiver.recv, receiver.recv_bytes, receiver.poll, receiver.fileno):
        with pytest.raises(OSError, match="handle is closed"):
            use()
    with pytest.raises(BrokenPipeError):
        sender.send(1)


def test_each_end_does_what_it_is_for(connection):
    reader, writer = connection.Pipe(False)
    assert (reader.readable, reader.writable) == (True, False)
    assert (writer.readable, writer.writable) == (False, True)
    with pytest.raises(OSError, match="read-only"):
        reader.send(1)
    for use in (writer.recv, writer.recv_bytes, writer.poll):
        with pytest.raises(OSError, match="write-only"):
            use()


def test_stream_that_ends_within_a_message_is_an_error(connection):
    reader, writer = os.pipe()
    os.write(writer, b"\0\0\0\5abc")
    os.close(writer)
    with connection.Connection(reader, writable=False) as end:
        assert end.fileno() == reader
        with pytest.raises(OSError, match="end of file during message"):
            end.recv_bytes()


def test_poll_waits_for_as_long_as_it_is_told(ends):
    receiver, sender = ends
    assert receiver.poll() is False
    assert receiver.poll(-1) is False
    start = time.monotonic()
    assert receiver.poll(0.05) is False
    assert time.monotonic() - start >= 0.05
    timer = threading.Timer(0.05, sender.send, ("late",))
    timer.start()
    assert receiver.poll(None) is True
    assert receiver.recv() == "late"
    timer.join()


def test_wait_tells_what_is_ready(connection):
    ends = [connection.Pipe(False) for _ in range(5)]
    readers = [reader for reader, _ in ends]
    one, other = socket.socketpair()
    objects = [*readers, one]
    assert connection.wait(objects, 0) == []
    assert connection.wait(objects, -1) == []
    ends[3][1].send(1)
    other.send(b"x")
    for _ in range(2):
        assert connection.wait(objects) == [readers[3], one]
    assert connection.wait([readers[3].fileno()], DEADLOCK) == [readers[3].fileno()]
    ends[0][1].close()
    assert connection.wait(iter(objects), DEADLOCK) == [readers[0], readers[3], one]
    assert connection.wait([], 0) == []
    with pytest.raises(ValueError, match="Invalid file object"):
        connection.wait([object()], 0)
    for end in (one, other, *(end for pair in ends for end in pair)):
        end.close()


def test_wait_tells_that_a_process_has_ended(ctx, connection):
    receiver, sender = ctx.Pipe(False)
    child = ctx.Process(target=send_and_exit, args=(sender, []))
    child.start()
    assert connection.wait([child.sentinel], DEADLOCK) == [child.sentinel]
    child.join(DEADLOCK)
    child.close()
    receiver.close()


@pytest.fixture(params=["AF_UNIX", "AF_INET"])
def family(request):
    return request.param


def test_client_and_listener_come_together(connection, family):
    with connection.Listener(family=family, authkey=b"a key") as listener:
        assert listener.last_accepted is None
        clients = []
        thread = threading.Thread(
            target=lambda: clients.append(connection.Client(listener.address, authkey=b"a key"))
        )
        thread.start()
        with listener.accept() as server:
            thread.join(DEADLOCK)
            with clients[0] as client:
                client.send(["hello"])
                assert server.recv() == ["hello"]
                server.send_bytes(b"x" * 17_000)
                assert client.recv_bytes() == b"x" * 17_000
                if family == "AF_INET":
                    own = socket.socket(fileno=os.dup(client.fileno()))
                    assert listener.last_accepted == own.getsockname()
                    own.close()
                else:
                    assert listener.last_accepted == ""
    with pytest.raises(OSError, match="closed"):
        listener.accept()


def test_client_with_another_key_is_refused(mp, connection, family):
    failures = []

    def connect(address):
        try:
            connection.Client(address, authkey=b"another")
        except Exception as error:
            failures.append(error)

    with connection.Listener(family=family, authkey=b"a key") as listener:
        thread = threading.Thread(target=connect, args=(listener.address,))
        thread.start()
        with pytest.raises(mp.AuthenticationError):
            listener.accept()
        thread.join(DEADLOCK)
    assert [type(error) for error in failures] == [mp.AuthenticationError]


def test_address_in_use_and_nobody_there_are_errors(connection, family, tmp_path):
    with connection.Listener(family=family) as listener:
        address = listener.address
        with pytest.raises(OSError, match=r"[Aa]ddress.* in use"):
            connection.Listener(address, family)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        connection.Client(address)
    with pytest.raises(OSError, match="too long"):
        connection.Client(str(tmp_path / ("x" * 200)))
    with pytest.raises(ValueError, match="AF_PIPE"):
        connection.Listener("x", "AF_PIPE")


def test_socket_file_is_gone_when_the_listener_is_closed(connection, tmp_path):
    path = str(tmp_path / "socket")
    with connection.Listener(path) as listener:
        assert listener.address == path
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_abstract_address_is_no_file(connection):
    name = f"\0procession-test-{os.getpid()}"
    with connection.Listener(name) as listener:
        assert listener.address == name.encode()
        with connection.Client(listener.address) as client, listener.accept() as server:
            client.send(1729)
            assert server.recv() == 1729


def test_xml_connections_carry_plain_values(connection):
    with connection.XmlListener() as listener:
        clients = []
        thread = threading.Thread(
            target=lambda: clients.append(connection.XmlClient(listener.address))
        )
        thread.start()
        server = listener.accept()
        thread.join(DEADLOCK)
        clients[0].send([1, "two", None])
        assert server.recv() == [1, "two", None]
        server.close()
        clients[0].close()


def test_invalid_handles_are_refused(connection):
    with pytest.raises((ValueError, OSError)):
        connection.Connection(-1)
    reader, writer = os.pipe()
    with pytest.raises(ValueError, match="at least one"):
        connection.Connection(reader, False, False)
    os.close(reader)
    os.close(writer)
