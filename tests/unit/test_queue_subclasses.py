"""Subclasses of queues, as other packages write them."""

import collections
import io
import multiprocessing.queues
import os
import pickle
import queue as thread_queues
import signal
import threading
import weakref
from multiprocessing import util
from multiprocessing.reduction import ForkingPickler

import pytest

from procession import TasksLostError
from procession.queues import JoinableQueue, Queue, SimpleQueue
from tests.children import run

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("this one does not pickle")


class Guarded(Queue):
    """Wants to have what cannot be sent, as the executor's call queue does."""

    def __init__(self, maxsize=0, *, ctx, refused):
        self.refused = refused
        super().__init__(maxsize, ctx=ctx)

    def _on_queue_feeder_error(self, e, obj):
        self.refused.append((e, obj))


class Counting(Queue):
    """Overrides what a program calls, and adds to what travels."""

    def __init__(self, *args, name, **kwargs):
        super().__init__(*args, **kwargs)
        self.name = name
        self.puts = 0

    def put(self, obj, block=True, timeout=None):
        self.puts += 1
        super().put((self.name, obj), block, timeout)

    def get(self, block=True, timeout=None):
        return super().get(block, timeout)[1]

    def __getstate__(self):
        return super().__getstate__(), self.name

    def __setstate__(self, state):
        inner, self.name = state
        self.puts = 0
        super().__setstate__(inner)


class Wrapped:
    """Stands around a connection, with a pickler of its own."""

    def __init__(self, conn):
        self.conn = conn

    def send(self, obj):
        buffer = io.BytesIO()
        ForkingPickler(buffer, pickle.HIGHEST_PROTOCOL).dump(obj)
        self.conn.send_bytes(buffer.getvalue())

    def recv(self):
        return pickle.loads(self.conn.recv_bytes())

    def __getattr__(self, name):
        if "conn" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.conn, name)


class WithWrappedEnds(Queue):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._reader, self._writer = Wrapped(self._reader), Wrapped(self._writer)
        self._send, self._recv = self._writer.send, self._reader.recv


class FeedingItself(Queue):
    """Sends from a thread of its own, and says itself what travels."""

    def __init__(self, maxsize=0, *, ctx, reducers=None):
        super().__init__(maxsize, ctx=ctx)
        self.reducers = reducers

    def __getstate__(self):
        names = "_ignore_epipe _maxsize _reader _writer _rlock _wlock _sem _opid reducers"
        return {name: vars(self)[name] for name in names.split()}

    def __setstate__(self, state):
        vars(self).update(state)
        self._reset()

    def _start_thread(self):
        self._buffer.clear()
        self._thread = threading.Thread(
            target=FeedingItself._feed,
            args=(self._buffer, self._notempty, self._send_bytes, self._wlock, self._sem),
            daemon=True,
        )
        self._thread.start()
        self._jointhread = util.Finalize(
            self._thread, Queue._finalize_join, [weakref.ref(self._thread)], exitpriority=-5
        )
        self._close = util.Finalize(
            self, Queue._finalize_close, [self._buffer, self._notempty], exitpriority=10
        )

    @staticmethod
    def _feed(buffer, notempty, send_bytes, lock, _room):
        while True:
            with notempty:
                while not buffer:
                    notempty.wait()
                obj = buffer.popleft()
            if obj is multiprocessing.queues._sentinel:
                return
            with lock:
                send_bytes(ForkingPickler.dumps(("fed", obj)))


class OfItsOwnMaking(Queue):
    """Never calls our `__init__`, but sets what the original's methods use."""

    def __init__(self, *, ctx):
        self._maxsize = 5
        self._reader, self._writer = ctx.Pipe(duplex=False)
        self._rlock, self._wlock = ctx.Lock(), ctx.Lock()
        self._sem = ctx.BoundedSemaphore(self._maxsize)
        self._opid = os.getpid()
        self._ignore_epipe = False
        self._reset()


class SimpleOfItsOwnMaking(SimpleQueue):
    def __init__(self, *, ctx):
        self._reader, self._writer = ctx.Pipe(duplex=False)
        self._rlock, self._wlock = ctx.Lock(), ctx.Lock()
        self._poll = self._reader.poll


def put_twice(target, item):
    target.put(item)
    target.put(item)
    target.close()
    target.join_thread()


def get_and_be_killed(source, count, done):
    for _ in range(count):
        source.get()
    for _ in range(done):
        source.task_done()
    os.kill(os.getpid(), signal.SIGKILL)


def test_overridden_hook_gets_what_cannot_be_pickled(ctx):
    channel = Guarded(1, ctx=ctx, refused=[])
    item = Unpicklable()
    channel.put(item)
    ((error, refused),) = channel.refused
    assert refused is item
    assert isinstance(error, RuntimeError)
    channel.put("next", timeout=DEADLOCK)
    assert channel.get() == "next"


def test_hook_of_the_instance_counts_too(ctx):
    channel = ctx.Queue()
    with pytest.raises(RuntimeError):
        channel.put(Unpicklable())
    refused = []
    channel._on_queue_feeder_error = lambda _error, obj: refused.append(obj)
    channel.put(Unpicklable())
    assert len(refused) == 1


def test_overridden_methods_are_native_beneath(ctx):
    channel = Counting(2, ctx=ctx, name="mine")
    assert channel._is_native
    channel.put("item")
    assert channel.get() == "item"
    run(ctx, put_twice, channel, "from the child")
    assert [channel.get(timeout=DEADLOCK) for _ in range(2)] == ["from the child"] * 2
    assert channel.puts == 1


def test_wrapped_ends_work_beside_the_queue(ctx):
    channel = WithWrappedEnds(ctx=ctx)
    channel.put([1, 2])
    assert channel._recv() == [1, 2]
    channel._send("there")
    assert channel.get(timeout=DEADLOCK) == "there"
    run(ctx, put_twice, channel, "from the child")
    assert channel.get(timeout=DEADLOCK) == "from the child"


def test_feeder_of_a_subclass_is_used(ctx):
    channel = FeedingItself(3, ctx=ctx)
    assert not channel._is_native
    channel.put("item")
    assert channel.get(timeout=DEADLOCK) == ("fed", "item")
    run(ctx, put_twice, channel, "from the child")
    for _ in range(2):
        assert channel.get(timeout=DEADLOCK) == ("fed", "from the child")
    with pytest.raises(thread_queues.Empty):
        channel.get_nowait()
    assert channel.qsize() == 0
    assert channel.empty()
    assert not channel.full()
    channel.close()
    channel.join_thread()
    with pytest.raises(ValueError, match="closed"):
        channel.put(1)
    channel._reader.close()
    channel._writer.close()


def test_attributes_set_without_us_are_used(ctx):
    channel = OfItsOwnMaking(ctx=ctx)
    channel.put("item")
    assert channel.get(timeout=DEADLOCK) == "item"
    assert type(channel._buffer) is collections.deque
    channel.close()
    channel.join_thread()


def test_simple_queue_with_attributes_set_without_us(ctx):
    channel = SimpleOfItsOwnMaking(ctx=ctx)
    assert channel.empty()
    channel.put("item")
    assert not channel.empty()
    assert channel.get() == "item"
    channel.close()


def test_what_was_never_set_up_says_so():
    class Forgetful(Queue):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match=r"Forgetful\.__init__\(\) has not been called"):
        Forgetful().put(1)


def test_attributes_that_other_packages_touch(ctx):
    channel = ctx.Queue(3)
    channel.put(1)
    assert channel._maxsize == 3
    assert channel._sem._semlock._get_value() == 2
    assert not channel._sem._semlock._is_zero()
    assert not channel._buffer
    assert channel._thread is None
    assert channel._opid == os.getpid()
    assert channel._closed is False
    assert channel._recv_bytes() == pickle.dumps(1)
    with channel._rlock, channel._wlock, channel._notempty:
        channel._send_bytes(pickle.dumps(2))
    assert channel._poll()
    channel._ignore_epipe = True
    channel._reset()
    channel._after_fork()
    channel._terminate_broken()
    assert channel._closed is True


def test_join_tells_of_a_killed_consumer(ctx):
    channel = ctx.JoinableQueue()
    for number in range(4):
        channel.put(number)
    child = ctx.Process(target=get_and_be_killed, args=(channel, 3, 1))
    child.start()
    child.join(DEADLOCK)
    with pytest.raises(TasksLostError) as caught:
        channel.join()
    assert caught.value.pid == child.pid
    assert caught.value.tasks == 2
    assert str(child.pid) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).tasks == 2
    assert channel.get() == 3
    channel.task_done()
    channel.join()
    child.close()


def test_join_runs_signal_handlers(ctx):
    channel = ctx.JoinableQueue()
    channel.put("item")
    called = []

    def finish(*_):
        called.append(channel.get())
        channel.task_done()

    before = signal.signal(signal.SIGALRM, finish)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        channel.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert called == ["item"]


@pytest.mark.parametrize("cls", [Queue, JoinableQueue, SimpleQueue])
def test_class_takes_a_parameter(cls):
    assert cls[int].__origin__ is cls
