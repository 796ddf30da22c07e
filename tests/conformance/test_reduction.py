"""What users rely on from `reduction` and `resource_sharer`: descriptors in other processes.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import functools
import importlib
import os
import pickle
import socket
import threading

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@pytest.fixture
def reduction(mp):
    return importlib.import_module(f"{mp.__name__}.reduction")


@pytest.fixture
def sharer(mp):
    return importlib.import_module(f"{mp.__name__}.resource_sharer")


@pytest.fixture
def connection(mp):
    return importlib.import_module(f"{mp.__name__}.connection")


def write_and_close(sock):
    sock.sendall(b"written elsewhere")
    sock.close()


def greet(end):
    end.send("hello")
    end.close()


def greet_what_comes(queue):
    for _ in range(2):
        greet(queue.get())


def greet_what_arrives(end):
    with end:
        greet(end.recv())


def write_through(wrapper):
    descriptor = wrapper.detach()
    os.write(descriptor, b"written elsewhere")
    os.close(descriptor)


def answer_handle(end):
    """Turn the descriptor that comes into one that goes."""
    with end:
        reduction = importlib.import_module(f"{type(end).__module__.partition('.')[0]}.reduction")
        descriptor = reduction.recv_handle(end)
        os.write(descriptor, b"came through")
        reduction.send_handle(end, descriptor, end.recv())
        os.close(descriptor)


def run_to_its_end(child):
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def read_all(descriptor):
    with open(descriptor, "rb") as file:
        return file.read()


def test_socket_is_an_argument(ctx):
    here, there = socket.socketpair()
    child = ctx.Process(target=write_and_close, args=(there,))
    child.start()
    there.close()
    with here, here.makefile("rb") as file:
        assert file.read() == b"written elsewhere"
    run_to_its_end(child)


def test_connections_travel_through_a_queue(ctx):
    queue = ctx.Queue()
    child = ctx.Process(target=greet_what_comes, args=(queue,))
    child.start()
    for _ in range(2):
        here, there = ctx.Pipe()
        queue.put(there)
        assert here.recv() == "hello"
        here.close()
        there.close()
    queue.close()
    queue.join_thread()
    run_to_its_end(child)


def test_connection_travels_through_a_pipe(ctx):
    control, its = ctx.Pipe()
    child = ctx.Process(target=greet_what_arrives, args=(its,))
    child.start()
    here, there = ctx.Pipe(duplex=False)
    control.send(there)
    there_is_one_more_end = here.poll(DEADLOCK)
    there.close()
    assert there_is_one_more_end
    assert here.recv() == "hello"
    with pytest.raises(EOFError):
        here.recv()
    run_to_its_end(child)
    for end in (here, control, its):
        end.close()


def test_sockets_are_arguments_of_tasks(ctx):
    with ctx.Pool(2) as pool:
        pairs = [socket.socketpair() for _ in range(4)]
        pool.map(write_and_close, [there for _, there in pairs], chunksize=1)
        for here, there in pairs:
            there.close()
            with here:
                assert here.recv(100) == b"written elsewhere"
        pool.close()
        pool.join()


def test_wrapper_is_an_argument(ctx, reduction):
    reader, writer = os.pipe()
    child = ctx.Process(target=write_through, args=(_wrap(reduction, writer),))
    child.start()
    run_to_its_end(child)
    os.close(writer)
    assert read_all(reader) == b"written elsewhere"


def _wrap(reduction, descriptor):
    # Outside of starting a process: it is fetched from the thread of this one.
    return reduction.DupFd(descriptor)


def test_wrapper_gives_its_descriptor_once(reduction, sharer):
    reader, writer = os.pipe()
    wrapper = pickle.loads(bytes(reduction.ForkingPickler.dumps(reduction.DupFd(writer))))
    descriptor = wrapper.detach()
    assert descriptor not in (reader, writer)
    os.write(descriptor, b"through the copy")
    os.close(descriptor)
    os.close(writer)
    assert read_all(reader) == b"through the copy"
    sharer.stop(DEADLOCK)
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        wrapper.detach()


def test_stop_closes_what_nobody_fetched_and_can_be_undone(sharer):
    sharer.stop(DEADLOCK)
    for _ in range(2):
        reader, writer = os.pipe()
        wrapper = sharer.DupFd(writer)
        os.close(writer)
        sharer.stop(DEADLOCK)
        assert read_all(reader) == b"", "a copy is still open"
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            wrapper.detach()
    sharer.stop(DEADLOCK)


def test_handles_go_both_ways_between_messages(ctx, reduction):
    here, there = ctx.Pipe()
    child = ctx.Process(target=answer_handle, args=(there,))
    child.start()
    reader, writer = os.pipe()
    reduction.send_handle(here, writer, child.pid)
    os.close(writer)
    here.send(os.getpid())
    descriptor = reduction.recv_handle(here)
    os.write(descriptor, b" and back")
    os.close(descriptor)
    run_to_its_end(child)
    here.close()
    there.close()
    assert read_all(reader) == b"came through and back"


def test_no_handle_is_an_error(mp, reduction):
    here, there = mp.Pipe()
    with here:
        os.write(there.fileno(), b"\1")
        with pytest.raises(RuntimeError, match="0 items of ancdata"):
            reduction.recv_handle(here)
        there.close()
        with pytest.raises(EOFError):
            reduction.recv_handle(here)


def test_several_descriptors_travel_at_once(reduction):
    here, there = socket.socketpair()
    with here, there, open(os.devnull) as one, open(os.devnull) as other:
        sender = threading.Thread(
            target=reduction.sendfds, args=(here, [one.fileno(), other.fileno()])
        )
        sender.start()
        received = reduction.recvfds(there, 2)
        sender.join()
        assert len(received) == 2
        for descriptor in received:
            os.close(descriptor)


class Thing:
    """Has a reducer that is registered with the pickler."""

    def __init__(self, content):
        self.content = content


def _thing(content):
    return Thing(content)


def test_registered_reducers_are_used(reduction):
    reduction.register(Thing, lambda thing: (_thing, (thing.content + 1,)))
    try:
        pickled = bytes(reduction.ForkingPickler.dumps(Thing(1)))
        assert reduction.ForkingPickler.loads(pickled).content == 2
    finally:
        del reduction.ForkingPickler._extra_reducers[Thing]


def test_methods_and_partials_are_pickled(reduction):
    words = ["a"]
    pickled = bytes(reduction.ForkingPickler.dumps((words.append, functools.partial(int, base=2))))
    append, binary = pickle.loads(pickled)
    assert append("b") is None
    assert binary("11") == 3


def test_reducer_of_a_context_can_be_replaced(mp, reduction):
    context = mp.get_context("spawn")
    before = context.reducer
    reducer = type("Reducer", (reduction.AbstractReducer,), {})()
    try:
        context.reducer = reducer
        assert context.reducer is reducer
        assert reducer.ForkingPickler is reduction.ForkingPickler
    finally:
        context.reducer = before
