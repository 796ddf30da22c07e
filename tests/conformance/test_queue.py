"""What users rely on from `Queue`, `JoinableQueue` and `SimpleQueue`.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import contextlib
import math
import queue
import time
from typing import NamedTuple

import pytest

from tests.children import running

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
SHORT = 0.05  # seconds; long enough to be measured


class Point(NamedTuple):
    x: int
    y: int


class Node:
    """An object with a cycle."""

    def __init__(self, value):
        self.value = value
        self.me = self


@contextlib.contextmanager
def opened(ctx, maxsize=0):
    """A queue that is closed and flushed at the end."""
    created = ctx.Queue(maxsize)
    yield created
    created.close()
    created.join_thread()


def echo(requests, replies):
    """Send back what comes, up to and including None."""
    while True:
        item = requests.get(timeout=DEADLOCK)
        replies.put(item)
        if item is None:
            return


def put_numbers(target, start, count):
    for number in range(start, start + count):
        target.put(number)


def move_until_none(source, target):
    while (item := source.get(timeout=DEADLOCK)) is not None:
        target.put(item)


def put_when_told(go, target):
    target.put(go.get(timeout=DEADLOCK))


def take(source, count):
    return [source.get(timeout=DEADLOCK) for _ in range(count)]


def test_child_gets_what_parent_put_in_order(ctx):
    with opened(ctx) as requests, opened(ctx) as replies, running(ctx, echo, requests, replies):
        sent = [*range(100), None]
        for item in sent:
            requests.put(item)
        assert take(replies, len(sent)) == sent


@pytest.mark.parametrize(
    "item",
    [
        True,
        0,
        -1,
        2**63,
        -(2**63) - 1,
        10**100,
        0.1,
        math.inf,
        -0.0,
        1 + 2j,
        "",
        "text",
        "\N{SNOWMAN} \U0001f40d \udcff \0",
        b"",
        b"\0\xff" * 7,
        bytearray(b"changeable"),
        (),
        (1, (2, (3,))),
        [],
        [None, [True, False]],
        {},
        {"key": {1: (2.5, None)}, (1, 2): b"x"},
        {1, 2, 3},
        frozenset("a"),
        range(3),
        slice(1, 2),
        Point(1, 2),
        len,
        echo,
        ValueError,
        Ellipsis,
    ],
    ids=lambda item: getattr(item, "__name__", repr(item)),
)
def test_value_arrives_equal_and_of_the_same_type(ctx, item):
    with opened(ctx) as channel:
        channel.put(item)
        arrived = channel.get(timeout=DEADLOCK)
    assert arrived == item
    assert type(arrived) is type(item)
    assert repr(arrived) == repr(item), "equal, but not the same: -0.0 and 0.0, True and 1"


def test_nan_arrives(ctx):
    with opened(ctx) as channel:
        channel.put(math.nan)
        assert math.isnan(channel.get(timeout=DEADLOCK))


def test_shared_parts_and_cycles_arrive_as_such(ctx):
    part = ["part"]
    with opened(ctx) as channel:
        channel.put((part, part, Node(part)))
        first, second, node = channel.get(timeout=DEADLOCK)
    assert first is second
    assert node.me is node
    assert node.value is first


def test_exception_arrives_with_its_arguments(ctx):
    with opened(ctx) as channel:
        channel.put(KeyError("which", 7))
        arrived = channel.get(timeout=DEADLOCK)
    assert type(arrived) is KeyError
    assert arrived.args == ("which", 7)


@pytest.mark.parametrize("size", [1, 255, 4096, 65_535, 65_536, 1_000_003, 10_000_000])
def test_message_of_any_size_makes_the_round_trip(ctx, size):
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with opened(ctx) as requests, opened(ctx) as replies, running(ctx, echo, requests, replies):
        requests.put(payload)
        requests.put(None)
        assert replies.get(timeout=DEADLOCK) == payload
        assert replies.get(timeout=DEADLOCK) is None


def test_many_messages_of_growing_size_arrive_whole(ctx):
    sizes = range(0, 20_000, 97)
    with opened(ctx) as requests, opened(ctx) as replies, running(ctx, echo, requests, replies):
        for size in sizes:
            requests.put("x" * size)
        requests.put(None)
        assert [len(item) for item in take(replies, len(sizes))] == list(sizes)
        assert replies.get(timeout=DEADLOCK) is None


def test_items_of_each_producer_keep_their_order(ctx):
    count = 500
    with opened(ctx) as channel, contextlib.ExitStack() as stack:
        for start in (0, 10_000, 20_000):
            stack.enter_context(running(ctx, put_numbers, channel, start, count))
        arrived = take(channel, 3 * count)
    for start in (0, 10_000, 20_000):
        own = [item for item in arrived if start <= item < start + 10_000]
        assert own == list(range(start, start + count))


def test_nothing_is_lost_or_doubled_with_many_producers_and_consumers(ctx):
    count = 400
    with opened(ctx) as source, opened(ctx) as target, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(running(ctx, move_until_none, source, target))
        for start in (0, count):
            stack.enter_context(running(ctx, put_numbers, source, start, count))
        arrived = take(target, 2 * count)
        source.put(None)
        source.put(None)
    assert sorted(arrived) == list(range(2 * count))


def test_items_of_an_ended_process_can_still_be_read(ctx):
    with opened(ctx) as channel:
        with running(ctx, put_numbers, channel, 0, 10):
            pass
        assert take(channel, 10) == list(range(10))


def test_get_waits_for_an_item(ctx):
    with opened(ctx) as go, opened(ctx) as channel, running(ctx, put_when_told, go, channel):
        with pytest.raises(queue.Empty):
            channel.get(timeout=SHORT)  # the child cannot have put anything
        go.put("item")
        assert channel.get() == "item"


@pytest.mark.parametrize("arguments", [(False,), (False, 1.0), (True, 0), (True, -1)])
def test_get_that_may_not_wait_raises_at_once(ctx, arguments):
    with opened(ctx) as channel, pytest.raises(queue.Empty):
        channel.get(*arguments)


def test_get_nowait_takes_an_item_or_raises(ctx):
    with opened(ctx) as channel:
        with pytest.raises(queue.Empty):
            channel.get_nowait()
        channel.put("item")
        deadline = time.monotonic() + DEADLOCK
        while channel.empty():  # the original takes a moment to write it
            assert time.monotonic() < deadline
        assert channel.get_nowait() == "item"


def test_get_with_timeout_waits_that_long(ctx):
    with opened(ctx) as channel:
        start = time.monotonic()
        with pytest.raises(queue.Empty):
            channel.get(timeout=SHORT)
        assert time.monotonic() - start >= SHORT * 0.9


def test_put_into_a_full_queue_raises(ctx):
    with opened(ctx, 2) as channel:
        channel.put(1)
        channel.put_nowait(2)
        assert channel.full()
        with pytest.raises(queue.Full):
            channel.put_nowait(3)
        with pytest.raises(queue.Full):
            channel.put(3, False)
        start = time.monotonic()
        with pytest.raises(queue.Full):
            channel.put(3, timeout=SHORT)
        assert time.monotonic() - start >= SHORT * 0.9
        assert take(channel, 2) == [1, 2]
        assert not channel.full()


def test_put_waits_for_room(ctx):
    with (
        opened(ctx, 1) as channel,
        opened(ctx) as replies,
        running(ctx, move_until_none, channel, replies),
    ):
        for number in range(50):
            channel.put(number, timeout=DEADLOCK)
        channel.put(None, timeout=DEADLOCK)
        assert take(replies, 50) == list(range(50))


@pytest.mark.parametrize("maxsize", [0, -1])
def test_maxsize_below_one_means_no_bound(ctx, maxsize):
    with opened(ctx, maxsize) as channel:
        for number in range(1000):
            channel.put_nowait(number)
        assert not channel.full()
        assert take(channel, 1000) == list(range(1000))


def test_qsize_counts_items(ctx):
    with opened(ctx) as channel:
        assert channel.qsize() == 0
        for expected in (1, 2, 3):
            channel.put("item")
            assert channel.qsize() == expected
        take(channel, 3)
        assert channel.qsize() == 0
        assert channel.empty()


def test_closed_queue_refuses(ctx):
    channel = ctx.Queue()
    channel.close()
    channel.join_thread()
    with pytest.raises(ValueError, match="closed"):
        channel.put(1)
    with pytest.raises(ValueError, match="closed"):
        channel.get(timeout=DEADLOCK)
    channel.close()  # a second time is fine


def test_what_was_put_before_close_reaches_the_others(ctx):
    with opened(ctx) as replies:
        requests = ctx.Queue()
        with running(ctx, echo, requests, replies):
            requests.put("last words")
            requests.put(None)
            requests.close()
            requests.join_thread()
            assert take(replies, 2) == ["last words", None]


def test_queue_made_without_a_context(mp):
    channel = mp.Queue(3)
    channel.put("item")
    assert channel.get(timeout=DEADLOCK) == "item"
    channel.close()
    channel.join_thread()


def work_on(source, count):
    for _ in range(count):
        source.get(timeout=DEADLOCK)
        source.task_done()


def work_when_told(go, source, count):
    go.get(timeout=DEADLOCK)
    work_on(source, count)


def put_and_join(target, replies):
    target.put("item")
    replies.put("put")
    target.join()
    replies.put("joined")


def simply_echo(requests, replies):
    while (item := requests.get()) is not None:
        replies.put(item)


@contextlib.contextmanager
def joinable(ctx, maxsize=0):
    created = ctx.JoinableQueue(maxsize)
    yield created
    created.close()
    created.join_thread()


def test_join_returns_at_once_if_nothing_was_put(ctx):
    with joinable(ctx) as channel:
        channel.join()


def test_join_waits_until_children_have_done_all(ctx):
    with joinable(ctx) as channel, contextlib.ExitStack() as stack:
        for number in range(20):
            channel.put(number)
        for _ in range(2):
            stack.enter_context(running(ctx, work_on, channel, 10))
        channel.join()
        assert channel.empty()


def test_join_in_a_child_waits_for_the_parent(ctx):
    with (
        joinable(ctx) as channel,
        opened(ctx) as replies,
        running(ctx, put_and_join, channel, replies),
    ):
        assert replies.get(timeout=DEADLOCK) == "put"
        assert channel.get(timeout=DEADLOCK) == "item"
        with pytest.raises(queue.Empty):
            replies.get(timeout=SHORT)
        channel.task_done()
        assert replies.get(timeout=DEADLOCK) == "joined"


def test_task_done_too_often_is_an_error(ctx):
    with joinable(ctx) as channel:
        with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
            channel.task_done()
        channel.put(1)
        channel.get(timeout=DEADLOCK)
        channel.task_done()
        with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
            channel.task_done()


def test_joinable_queue_is_a_queue(ctx):
    with joinable(ctx, 1) as channel:
        assert isinstance(channel, type(ctx.Queue()))
        channel.put(1)
        with pytest.raises(queue.Full):
            channel.put_nowait(2)
        assert channel.get(timeout=DEADLOCK) == 1
        with pytest.raises(queue.Empty):
            channel.get_nowait()
        channel.task_done()
        channel.join()


def test_join_can_be_used_again(ctx):
    with (
        joinable(ctx) as channel,
        opened(ctx) as go,
        running(ctx, work_when_told, go, channel, 6),
    ):
        go.put(None)
        for _ in range(3):
            channel.put("item")
            channel.put("item")
            channel.join()


def test_simple_queue_carries_objects_between_processes(ctx):
    requests, replies = ctx.SimpleQueue(), ctx.SimpleQueue()
    with running(ctx, simply_echo, requests, replies):
        for item in (1, "text", [None, {"key": (1.5,)}], b"x" * 10):
            requests.put(item)
            assert replies.get() == item
        requests.put(None)
    requests.close()
    replies.close()


def test_simple_queue_knows_whether_it_is_empty(ctx):
    channel = ctx.SimpleQueue()
    assert channel.empty()
    channel.put(None)
    assert not channel.empty()
    assert channel.get() is None
    assert channel.empty()
    channel.close()


def test_closed_simple_queue_refuses(ctx):
    channel = ctx.SimpleQueue()
    channel.close()
    for refused in (channel.get, channel.empty, lambda: channel.put(1)):
        with pytest.raises(OSError, match="closed"):
            refused()
    channel.close()


def test_simple_queue_raises_what_pickling_raises(ctx):
    channel = ctx.SimpleQueue()
    with pytest.raises(TypeError):
        channel.put(number for number in ())
    assert channel.empty()
    channel.close()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_made_without_a_context(mp, kind):
    channel = getattr(mp, kind)()
    channel.put("item")
    assert channel.get() == "item"
    channel.close()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
@pytest.mark.parametrize("maxsize", [2**31 - 1, 2**31 - 2, -5])
def test_large_maxsize_is_no_bound_in_effect(ctx, kind, maxsize):
    channel = getattr(ctx, kind)(maxsize)
    channel.put("item")
    assert not channel.full()
    assert channel.qsize() == 1
    assert channel.get(timeout=DEADLOCK) == "item"
    channel.close()
    channel.join_thread()


@pytest.mark.parametrize("arguments", [(1, 0), (1, -0.5), (0,), (0, 5)])
def test_block_may_be_a_number(ctx, arguments):
    with opened(ctx) as channel, pytest.raises(queue.Empty):
        channel.get(*arguments)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_reader_says_when_there_is_something(ctx, kind):
    channel = getattr(ctx, kind)()
    assert not channel._reader.poll()
    channel.put("item")
    assert channel._reader.poll(DEADLOCK)
    assert channel._reader.recv() == "item"
    assert channel._reader.fileno() >= 0
    channel.close()
    if kind == "Queue":
        channel.join_thread()


def test_get_after_the_reader_was_closed_is_an_error(ctx):
    channel = ctx.Queue()
    channel._reader.close()
    with pytest.raises(OSError, match="handle is closed"):
        channel.get()
    with pytest.raises(OSError, match="handle is closed"):
        channel.get(timeout=SHORT)
    channel.close()
