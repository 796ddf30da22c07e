"""Waiting for queues with what waits for descriptors."""

import asyncio
import contextlib
import multiprocessing.connection
import os
import select
import selectors
import signal
import threading

import pytest

from procession.connection import Pipe, wait
from tests.children import run

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


def put(target, item):
    target.put(item)


def get_and_say(source, replies):
    replies.put(source.get())


def wait_for_own_descriptor(source, ready, replies):
    ready.put(None)
    readable, _, _ = select.select([source._reader], [], [], DEADLOCK)
    replies.put([reader.recv() for reader in readable])


def put_for_ever(target):
    while True:
        target.put(b"x" * 100)


def take_for_ever(source):
    while True:
        select.select([source._reader], [], [], DEADLOCK)
        with contextlib.suppress(Exception):
            source.get(timeout=0.001)


def is_readable(queue):
    return select.select([queue._reader], [], [], 0)[0] == [queue._reader]


@pytest.fixture(params=["Queue", "JoinableQueue", "SimpleQueue"])
def queue(ctx, request):
    created = getattr(ctx, request.param)()
    yield created
    created._reader.close()
    created.close()


def test_reader_is_readable_while_there_is_something(queue):
    assert not is_readable(queue)
    queue.put(1)
    queue.put(2)
    assert is_readable(queue)
    queue.get()
    assert is_readable(queue)
    queue.get()
    assert not is_readable(queue)


def test_other_processes_put_and_get(ctx, queue):
    replies = ctx.SimpleQueue()
    assert not is_readable(queue)
    run(ctx, put, queue, "item")
    assert is_readable(queue)
    run(ctx, get_and_say, queue, replies)
    assert replies.get() == "item"
    assert not is_readable(queue)


def test_child_has_a_descriptor_of_its_own(ctx, queue):
    ready, replies = ctx.SimpleQueue(), ctx.SimpleQueue()
    assert not is_readable(queue)  # made here first, and inherited by a forked child
    child = ctx.Process(target=wait_for_own_descriptor, args=(queue, ready, replies))
    child.start()
    ready.get()
    queue.put("item")
    assert replies.get() == ["item"]
    child.join(DEADLOCK)
    assert not is_readable(queue)
    child.close()


def test_epoll_is_level_triggered(queue):
    with select.epoll() as poll:
        poll.register(queue._reader, select.EPOLLIN)
        assert poll.poll(0) == []
        queue.put(1)
        expected = [(queue._reader.fileno(), select.EPOLLIN)]
        assert poll.poll(DEADLOCK) == expected
        assert poll.poll(DEADLOCK) == expected
        queue.get()
        assert poll.poll(0) == []


def test_asyncio_calls_back_for_each_item(ctx, queue):
    async def receive(count):
        loop = asyncio.get_running_loop()
        done, got = loop.create_future(), []

        def take():
            got.append(queue._reader.recv())
            if len(got) == count:
                done.set_result(got)

        loop.add_reader(queue._reader, take)
        try:
            children = [ctx.Process(target=put, args=(queue, number)) for number in range(count)]
            for child in children:
                child.start()
            return await asyncio.wait_for(done, DEADLOCK)
        finally:
            loop.remove_reader(queue._reader)
            for child in children:
                child.join(DEADLOCK)
                child.close()

    assert sorted(asyncio.run(receive(3))) == [0, 1, 2]


def test_selector_wakes_for_a_thread_that_puts(queue):
    with selectors.DefaultSelector() as selector:
        selector.register(queue._reader, selectors.EVENT_READ)
        putter = threading.Thread(target=queue.put, args=("item",))
        putter.start()
        ((key, _),) = selector.select(DEADLOCK)
        putter.join()
    assert key.fileobj is queue._reader


def test_wait_takes_queues_readers_and_all_else(queue):
    here, there = Pipe()
    with here, there:
        assert wait([queue, queue._reader, here], 0) == []
        queue.put(1)
        assert wait([queue, queue._reader, here]) == [queue, queue._reader]
        there.send(1)
        assert wait([here, queue], 0) == [here, queue]
        queue.get()
        assert wait([queue, queue._reader, here], 0) == [here]


def test_the_original_s_wait_takes_a_reader(queue):
    assert multiprocessing.connection.wait([queue._reader], 0) == []
    queue.put(1)
    assert multiprocessing.connection.wait([queue._reader], DEADLOCK) == [queue._reader]


def test_killed_processes_leave_the_descriptor_right(ctx):
    queue = ctx.Queue(10)
    assert not is_readable(queue)
    for round_number in range(10):
        targets = [put_for_ever, take_for_ever]
        children = [ctx.Process(target=target, args=(queue,)) for target in targets]
        for child in children:
            child.start()
        for _ in range(5 * round_number):
            wait([queue], 0.001)
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
            child.join(DEADLOCK)
            child.close()
        while not queue.empty():
            assert is_readable(queue), "there is something, and nobody says so"
            queue.get_nowait()
        with contextlib.suppress(Exception):
            queue.get_nowait()  # puts right what a dead process has left
        assert not is_readable(queue)
    queue._reader.close()
    queue.close()


def test_reader_polls_and_receives(queue):
    assert queue._reader.poll() is False
    assert queue._reader.poll(0.01) is False
    queue._writer.send({"key": [1]})
    assert queue._reader.poll(None) is True
    assert queue._reader.recv() == {"key": [1]}


def test_reader_and_writer_speak_pickles_in_bytes(queue):
    import pickle

    queue.put((1, "two"))
    pickled = queue._reader.recv_bytes()
    assert pickle.loads(pickled) == (1, "two")
    queue._writer.send_bytes(pickled)
    assert queue.get() == (1, "two")


def test_closed_ends_refuse_and_other_handles_do_not(ctx, queue):
    carrier = ctx.SimpleQueue()
    carrier.put(queue)
    same = carrier.get()
    queue._writer.close()
    assert queue._writer.closed
    assert not queue._reader.closed
    with pytest.raises(OSError, match="handle is closed"):
        queue.put(1)
    queue._reader.close()
    for refused in (queue.get, queue.empty, queue._reader.fileno, queue._reader.recv):
        with pytest.raises(OSError, match="handle is closed"):
            refused()
    with pytest.raises(OSError, match="handle is closed"):
        wait([queue._reader], 0)
    same.put("item")
    assert same.get() == "item"


def test_ends_are_the_same_each_time_and_close_no_descriptor_of_others(queue):
    reader = queue._reader
    assert queue._reader is reader
    number = reader.fileno()
    assert reader.fileno() == number
    assert queue._writer.fileno() != number
    assert select.select([], [queue._writer], [], 0)[1] == [queue._writer]
