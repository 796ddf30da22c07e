"""Large messages, whose bytes are in shared memory from the sender to the receiver."""

import array
import gc
import multiprocessing.connection
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from multiprocessing import reduction

import pytest

import procession
from procession import connection

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

LARGE = 1 << 20  # bytes, of a message that does not go through a pipe
OUTSTANDING = 64 << 20  # bytes, from which on messages go through a pipe nevertheless

STDLIB = multiprocessing.connection


class Grid:
    """Has a buffer that pickle protocol 5 can put apart, as the arrays of NumPy have."""

    def __init__(self, cells):
        self.cells = cells

    def __reduce_ex__(self, protocol):
        cells = pickle.PickleBuffer(self.cells) if protocol >= 5 else bytearray(self.cells)
        return Grid, (cells,)

    def view(self):
        return memoryview(self.cells).cast("B")


def grid(size=LARGE, fill=1):
    return Grid(bytearray([fill]) * size)


def through_queue(value):
    queue = procession.Queue()
    queue.put(value)
    received = queue.get(timeout=DEADLOCK)
    queue.close()
    return received


def through_pipe(value):
    here, there = connection.Pipe()
    with here, there:
        here.send(value)
        return there.recv()


@pytest.fixture(params=[through_queue, through_pipe], ids=["queue", "pipe"])
def pass_on(request):
    return request.param


def by_protocol_4(value):
    """Return what the standard library makes of it."""
    return pickle.loads(reduction.ForkingPickler.dumps(value))


@pytest.mark.parametrize("size", [1, 20_000, 70_000, LARGE, 9_000_000])
def test_bytes_of_every_size_arrive(pass_on, size):
    data = random.Random(size).randbytes(size)
    for value in (data, [data, {"key": data[1:]}, "é" * size], Grid(data), bytearray(data)):
        received = pass_on(value)
        if isinstance(value, Grid):
            assert received.view() == data
        else:
            assert received == value
            assert type(received) is type(value)


def test_received_buffer_is_shared_memory_and_may_be_written(pass_on):
    received = pass_on(grid())
    assert type(received.cells).__name__ == "ReceivedBuffer"
    view = received.view()
    assert len(received.cells) == len(view) == LARGE
    assert not view.readonly
    view[5] = 9
    assert received.view()[5] == 9


def test_small_buffer_arrives_in_the_pickle(pass_on):
    assert pass_on(grid(100)).cells == bytes([1]) * 100


def test_what_may_not_be_written_still_may_not(pass_on):
    assert pass_on(Grid(b"x" * LARGE)).view().readonly


def test_buffer_that_occurs_twice_arrives_as_one(pass_on):
    one = grid()
    first, second, other = pass_on([one, one, grid(fill=2)])
    assert first is second
    first.view()[0] = 7
    assert other.view()[0] == 2


def test_buffers_outlive_the_queue_and_each_other(pass_on):
    first, second = pass_on([grid(fill=1), grid(fill=2)])
    view = second.view()
    del first, second
    gc.collect()
    for fill in range(3, 9):
        assert pass_on(grid(fill=fill)).view()[LARGE - 1] == fill
    assert view == bytes([2]) * LARGE


def test_received_buffer_can_be_sent_on(pass_on):
    received = pass_on(grid(fill=6))
    again = pass_on(received)
    received.view()[0] = 0
    assert again.view() == bytes([6]) * LARGE


def test_sender_that_writes_afterwards_changes_nothing():
    sent = grid(fill=3)
    queue = procession.Queue()
    queue.put(sent)
    sent.cells[:] = bytes(LARGE)
    assert queue.get(timeout=DEADLOCK).view() == bytes([3]) * LARGE
    queue.close()


def test_buffers_and_shared_objects_travel_together(pass_on):
    inner = procession.Queue()
    inner.put(grid(fill=4))
    outer, received = pass_on((inner, grid(fill=5)))
    assert outer.get(timeout=DEADLOCK).view() == bytes([4]) * LARGE
    assert received.view() == bytes([5]) * LARGE
    inner.close()


def test_many_large_objects_at_once():
    queue = procession.Queue()
    items = [1, b"b" * LARGE, grid(fill=8), "text", grid(20, 9), [b"c" * LARGE] * 2, None]
    assert queue.put_many(items) == len(items)
    received = []
    while len(received) < len(items):
        received += queue.get_many(100)
    assert [type(item) for item in received] == [type(item) for item in items]
    assert received[1] == items[1]
    assert received[2].view() == items[2].cells
    assert received[5] == items[5]
    assert received[5][0] is received[5][1]
    queue.close()


def test_what_protocol_5_refuses_goes_as_with_the_standard_library(pass_on):
    received = pass_on(Grid(memoryview(b"ab" * LARGE)[::2]))
    assert received.cells == b"a" * LARGE
    with pytest.raises(TypeError, match="lock"):
        pass_on([grid(), threading.Lock()])


def test_reducer_that_is_registered_later_is_used(pass_on):
    class Place:
        def __init__(self, name):
            self.name = name

    for name in ("first", "second"):
        reduction.register(Place, lambda place, name=name: (str, (f"{name} {place.name}",)))
        assert pass_on(Place("one")) == f"{name} one"
    del reduction.ForkingPickler._extra_reducers[Place]


def test_pickler_that_a_program_puts_in_place_is_used(pass_on, monkeypatch):
    class Own(reduction.ForkingPickler):
        @classmethod
        def dumps(cls, obj, protocol=None):
            return super().dumps(("by another", obj), protocol)

    assert pass_on({1, 2}) == {1, 2}
    monkeypatch.setattr(reduction, "ForkingPickler", Own)
    assert pass_on({1, 2}) == ("by another", {1, 2})
    monkeypatch.undo()
    dumps = staticmethod(lambda obj: pickle.dumps(("patched", obj)))
    monkeypatch.setattr(reduction.ForkingPickler, "dumps", dumps)
    assert pass_on({1, 2}) == ("patched", {1, 2})
    monkeypatch.undo()
    assert pass_on({1, 2}) == {1, 2}


def test_object_that_sends_while_it_is_pickled():
    queue, aside = procession.Queue(), procession.Queue()

    class Talkative:
        def __reduce__(self):
            aside.put(grid(fill=2))
            return frozenset, ([1, 2],)

    queue.put([grid(fill=1), Talkative()])
    first, second = queue.get(timeout=DEADLOCK)
    assert first.view() == bytes([1]) * LARGE
    assert second == {1, 2}
    assert aside.get(timeout=DEADLOCK).view() == bytes([2]) * LARGE
    queue.close()
    aside.close()


def arrays():
    numpy = pytest.importorskip("numpy")
    plain = numpy.arange(20_000.0)
    frozen, short = plain.copy(), plain[:4].copy()
    frozen.setflags(write=False)
    short.setflags(write=False)
    return {
        "C": plain.reshape(100, 200),
        "Fortran": numpy.asfortranarray(plain.reshape(100, 200)),
        "read-only": frozen,
        "short and read-only": short,
        "no dimension": numpy.array(3.0),
        "empty": numpy.zeros((0, 3)),
        "structured": numpy.zeros(9000, dtype=[("a", "i4"), ("b", "f8")]),
        "of objects": numpy.array([1, "a", None] * 9000, dtype=object),
        "slice": plain[::2],
        "masked": numpy.ma.array(plain, mask=plain % 2 == 0),
        "of times": plain.astype("M8[s]"),
        "matrix": plain.view(numpy.matrix),
    }


def test_arrays_arrive_as_with_the_standard_library(pass_on):
    numpy = pytest.importorskip("numpy")
    for name, sent in arrays().items():
        received, expected = pass_on(sent), by_protocol_4(sent)
        assert type(received) is type(expected), name
        assert received.dtype == expected.dtype, name
        assert received.shape == expected.shape, name
        assert numpy.array_equal(received, expected), name
        for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE", "ALIGNED"):
            assert received.flags[flag] == expected.flags[flag], (name, flag)


def test_large_array_is_a_view_of_shared_memory(pass_on):
    numpy = pytest.importorskip("numpy")
    received = pass_on(numpy.ones(LARGE))
    assert not received.flags.owndata
    assert received.ctypes.data % 64 == 0
    received += 1
    assert received.sum() == 2 * LARGE


def test_array_of_the_standard_library_is_a_copy(pass_on):
    sent = array.array("d", [1.5]) * LARGE
    received = pass_on(sent)
    assert received == sent
    received.append(2.5)


def check_in_child(received, go, result):
    go.get(timeout=DEADLOCK)
    result.put(received.view() == bytes([7]) * LARGE)


def test_forked_child_keeps_what_its_parent_lets_go_of(pass_on):
    ctx = procession.get_context("fork")
    go, result = ctx.Queue(), ctx.Queue()
    received = pass_on(grid(fill=7))
    child = ctx.Process(target=check_in_child, args=(received, go, result))
    child.start()
    del received
    gc.collect()
    for fill in range(10, 16):  # of the same size, into memory that was let go of
        pass_on(grid(fill=fill))
    go.put(None)
    assert result.get(timeout=DEADLOCK)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def receive_for_ever(source, counted):
    kept = []
    while True:
        kept.append(source())
        kept = kept[-2:]
        counted.put(len(kept))


KILLS = """
import random, sys
sys.path.insert(0, {tests!r})
import procession
from procession import connection
from tests.unit.test_large_messages import DEADLOCK, LARGE, grid, receive_for_ever

if __name__ == "__main__":
    ctx = procession.get_context("fork")
    chance = random.Random(5)
    for round in range(60):
        counted, queue = ctx.Queue(), ctx.Queue()
        here, there = connection.Pipe()
        source = queue.get if round % 2 else there.recv
        child = ctx.Process(target=receive_for_ever, args=(source, counted))
        child.start()
        # What it receives, or has not received yet, when it is killed is 3 MiB or more.
        for _ in range(chance.randrange(3, 7)):
            queue.put(grid()) if round % 2 else here.send([grid(), b"x" * LARGE])
        for _ in range(chance.randrange(4)):
            counted.get(timeout=DEADLOCK)
        child.kill()
        child.join(DEADLOCK)
        child.close()
        here.close()
        there.close()
        queue.close()
        del queue, here, there, source, counted
    # There is room for this only if nearly nothing was left of all that.
    queue = ctx.Queue()
    for _ in range(40):
        queue.put(grid())
    print("room", queue.qsize())
"""


def test_nothing_is_left_of_what_killed_receivers_had(tmp_path):
    tests = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = tmp_path / "kills.py"
    script.write_text(KILLS.format(tests=tests))
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PROCESSION_ARENA_MAX": "64M"},
        capture_output=True,
        text=True,
        timeout=10 * DEADLOCK,
        check=False,
    )
    assert done.stdout.strip() == "room 40", done.stderr


def exchange(end, messages, size, checked):
    """Send and receive at the same time, as two threads do."""
    sender = threading.Thread(target=send_all, args=(end, messages, size))
    sender.start()
    ok = all(end.recv() == (number, bytes([number]) * size) for number in range(messages))
    sender.join()
    checked.put(ok)


def send_all(end, messages, size):
    for number in range(messages):
        end.send((number, bytes([number]) * size))


def test_more_than_the_bound_in_both_directions_at_once(ctx):
    here, there = connection.Pipe()
    checked = ctx.Queue()
    size, messages = 8 << 20, 2 * OUTSTANDING // (8 << 20)
    child = ctx.Process(target=exchange, args=(there, messages, size, checked))
    child.start()
    exchange(here, messages, size, checked)
    assert checked.get(timeout=DEADLOCK)
    assert checked.get(timeout=DEADLOCK)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def test_sender_waits_for_a_receiver_that_does_not_receive():
    here, there = connection.Pipe()
    size, messages = 8 << 20, 3 * OUTSTANDING // (8 << 20)
    sent = []

    def send():
        for number in range(messages):
            here.send(grid(size, number))
            sent.append(number)

    sender = threading.Thread(target=send)
    sender.start()
    for number in range(messages):
        # One more than fits may have been begun, and as many as fit may wait.
        assert len(sent) <= number + OUTSTANDING // size + 1
        assert there.recv().view()[size - 1] == number
    sender.join(DEADLOCK)
    assert sent == list(range(messages))
    here.close()
    there.close()


def test_end_of_stream_comes_after_what_was_left():
    here, there = connection.Pipe()
    for number in range(3):
        here.send_bytes(bytes([number]) * LARGE)
    here.send(grid(fill=3))
    here.close()
    for number in range(3):
        assert there.poll()
        assert there.recv_bytes() == bytes([number]) * LARGE
    assert there.recv().view()[0] == 3
    with pytest.raises(EOFError):
        there.recv()


def test_messages_of_a_killed_sender_are_received(ctx):
    here, there = connection.Pipe(False)
    child = ctx.Process(target=send_and_be_killed, args=(there,))
    child.start()
    there.close()
    child.join(DEADLOCK)
    assert child.exitcode == -signal.SIGKILL
    child.close()
    assert here.recv().view() == bytes([4]) * LARGE
    assert here.recv_bytes() == b"x" * LARGE
    with pytest.raises(EOFError):
        here.recv()


def send_and_be_killed(end):
    end.send(grid(fill=4))
    end.send_bytes(b"x" * LARGE)
    os.kill(os.getpid(), signal.SIGKILL)


def test_length_limits_hold_for_what_was_left():
    here, there = connection.Pipe()
    here.send_bytes(b"x" * LARGE)
    assert there.recv_bytes(LARGE) == b"x" * LARGE
    here.send_bytes(b"y" * LARGE)
    with pytest.raises(procession.BufferTooShort) as short:
        there.recv_bytes_into(bytearray(LARGE - 1))
    assert short.value.args == (b"y" * LARGE,)
    here.send_bytes(b"z" * LARGE)
    room = bytearray(LARGE + 2)
    assert there.recv_bytes_into(room, 1) == LARGE
    assert room == b"\0" + b"z" * LARGE + b"\0"
    here.send_bytes(b"x" * LARGE)
    with pytest.raises(OSError, match="length"):
        there.recv_bytes(20)
    assert not there.readable
    here.close()
    there.close()


def test_large_object_can_be_received_as_bytes_and_bytes_as_an_object():
    here, there = connection.Pipe()
    here.send([grid(fill=2), 5])
    received, number = pickle.loads(there.recv_bytes())
    assert received.view() == bytes([2]) * LARGE
    assert number == 5
    here.send_bytes(pickle.dumps(grid(fill=3)))
    assert there.recv().view() == bytes([3]) * LARGE
    here.close()
    there.close()


def test_order_is_kept_between_large_and_small():
    here, there = connection.Pipe()
    sent = [bytes([size % 251]) * size for size in (1, 100_000, 2, 200_000, 0, 37, 3)]
    for message in sent:
        here.send_bytes(message)
    assert [there.recv_bytes() for _ in sent] == sent
    here.close()
    there.close()


def test_bytes_that_look_like_a_note_are_bytes():
    here, there = connection.Pipe()
    here.fileno()
    here.send(procession.Queue())  # however the descriptor is read, this is in shared memory
    note = os.read(there.fileno(), 100)[4:]
    here.send_bytes(note)
    assert there.recv_bytes() == note
    here.close()
    there.close()


def test_descriptor_that_others_may_read_carries_everything():
    here, there = connection.Pipe()
    other = STDLIB.Connection(os.dup(there.fileno()))
    sender = threading.Thread(target=here.send, args=({"large": b"x" * LARGE},))
    sender.start()
    assert other.recv() == {"large": b"x" * LARGE}
    sender.join(DEADLOCK)
    sender = threading.Thread(target=here.send, args=(grid(fill=6),))
    sender.start()
    assert other.recv().view() == bytes([6]) * LARGE
    sender.join(DEADLOCK)
    for end in (here, there, other):
        end.close()


def test_connection_of_another_pipe_says_why_it_cannot_receive():
    here, there = connection.Pipe()
    stranger = connection.Connection(os.dup(there._handle))
    here.send(b"x" * LARGE)
    with pytest.raises(RuntimeError, match="belongs to the same pipe"):
        stranger.recv()
    here.send("small")
    assert stranger.recv() == "small"
    for end in (here, there, stranger):
        end.close()
