"""What a queue here does and that of the standard library does not."""

import os
import queue
import signal
import threading

import pytest

import procession
from tests.unit.waiting import alarm_soon, started

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("this one does not pickle")


def put_all(target, items):
    for item in items:
        target.put(item)


def put_and_be_killed(target, items):
    put_all(target, items)
    os.kill(os.getpid(), signal.SIGKILL)


def answer_through_what_comes(requests):
    """Each request brings the queue for its answer along."""
    while (request := requests.get(timeout=DEADLOCK)) is not None:
        request["reply to"][0].put(request["number"] + 1)


def say_ready_and_get(ready, source):
    ready.put(os.getpid())
    source.get(timeout=DEADLOCK)


def send_back(source, target):
    target.put(source.get(timeout=DEADLOCK))


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (threading.Lock(), TypeError),
        ([1, {"deep": threading.Lock()}], TypeError),
        (Unpicklable(), RuntimeError),
        ((1, Unpicklable()), RuntimeError),
    ],
    ids=["lock", "lock in a container", "own error", "own error in a tuple"],
)
def test_put_refuses_what_cannot_be_pickled_and_puts_nothing(make_queue, item, error):
    channel = make_queue(1)
    with pytest.raises(error):
        channel.put(item)
    assert channel.qsize() == 0
    assert not channel.full()
    channel.put("next", timeout=DEADLOCK)
    assert channel.get_nowait() == "next"


def test_what_was_put_is_there_at_once(make_queue):
    channel = make_queue()
    for number in range(1000):
        assert channel.empty()
        channel.put(number)
        assert not channel.empty()
        assert channel.qsize() == 1
        assert channel.get_nowait() == number


def test_item_is_as_it_was_when_it_was_put(make_queue):
    channel = make_queue()
    item = [1]
    channel.put(item)
    item.append(2)
    assert channel.get_nowait() == [1]


def test_process_with_unread_items_can_be_joined(ctx, make_queue):
    channel = make_queue()
    child = ctx.Process(target=put_all, args=(channel, [b"x" * 1_000_000] * 5))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0, "the child waits for its items to be read"
    assert [len(channel.get_nowait()) for _ in range(5)] == [1_000_000] * 5
    child.close()


def test_items_of_a_killed_process_can_be_read(ctx, make_queue):
    channel = make_queue()
    child = ctx.Process(target=put_and_be_killed, args=(channel, list(range(100))))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == -signal.SIGKILL
    assert [channel.get_nowait() for _ in range(100)] == list(range(100))
    assert channel.empty()
    child.close()


def test_death_of_a_waiting_consumer_takes_nothing_with_it(ctx, make_queue):
    ready, channel, replies = make_queue(), make_queue(), make_queue()
    for _ in range(3):
        doomed = ctx.Process(target=say_ready_and_get, args=(ready, channel))
        doomed.start()
        assert ready.get(timeout=DEADLOCK) == doomed.pid
        doomed.kill()
        doomed.join(DEADLOCK)
        assert doomed.exitcode == -signal.SIGKILL
        doomed.close()
    survivor = ctx.Process(target=send_back, args=(channel, replies))
    survivor.start()
    channel.put("for the survivor")
    assert replies.get(timeout=DEADLOCK) == "for the survivor"
    survivor.join(DEADLOCK)
    survivor.close()


def test_queue_travels_through_a_queue(ctx, make_queue):
    requests = make_queue()
    child = ctx.Process(target=answer_through_what_comes, args=(requests,))
    child.start()
    for number in range(20):
        replies = ctx.Queue()  # later than the child, which never inherited it
        requests.put({"number": number, "reply to": [replies]})
        assert replies.get(timeout=DEADLOCK) == number + 1
        replies.close()
    requests.put(None)
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def test_queue_travels_through_itself(make_queue):
    channel = make_queue()
    channel.put(channel)
    same = channel.get_nowait()
    same.put("seen from both")
    assert channel.get_nowait() == "seen from both"


def test_queue_travels_with_a_task(make_queue, make_pool):
    channel = make_queue()
    make_pool(1).apply(put_all, (channel, [1, 2, 3]))
    assert [channel.get_nowait() for _ in range(3)] == [1, 2, 3]


def test_batches_keep_their_order(make_queue):
    channel = make_queue()
    channel.put_many(range(1000))
    assert channel.qsize() == 1000
    assert channel.get_many(10) == list(range(10))
    arrived = []
    while not channel.empty():
        arrived += channel.get_many(100)
    assert arrived == list(range(10, 1000))
    with pytest.raises(queue.Empty):
        channel.get_many(1, False)


def test_negative_number_of_items_is_refused(make_queue):
    with pytest.raises(ValueError, match="limit must be at least 0, not -1"):
        make_queue().get_many(-1, False)


def test_signal_handler_runs_while_get_waits(make_queue):
    channel = make_queue()
    called = []
    before = signal.signal(
        signal.SIGALRM, lambda *_: called.append(channel.put("from the handler"))
    )
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert channel.get(timeout=DEADLOCK) == "from the handler"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert called == [None]


def put_for_ever(channel):
    while True:
        channel.put_many([b"theirs"] * 1000)


def test_put_waits_for_a_process_that_is_stopped_in_the_middle_of_one():
    ctx = procession.get_context("fork")
    channel = ctx.Queue()
    child = ctx.Process(target=put_for_ever, args=(channel,))
    # So that this thread looks for signals in its next wait: two seconds after the last look.
    threading.Event().wait(2.1)
    child.start()
    try:
        waited = False
        while not waited:
            os.kill(child.pid, signal.SIGSTOP)
            goes_on = threading.Timer(3.0, os.kill, (child.pid, signal.SIGCONT))
            with started(goes_on):
                channel.put("ours")
                waited = goes_on.finished.is_set()
                goes_on.cancel()
            # Stopped again at once, it would not come to anything.
            os.kill(child.pid, signal.SIGCONT)
            while b"theirs" not in channel.get_many(10_000):
                pass
    finally:
        child.kill()
        child.join()


def test_exception_from_a_signal_handler_ends_the_wait(make_queue):
    class AlarmError(Exception):
        pass

    def raise_alarm(*_):
        raise AlarmError

    channel = make_queue()
    before = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        with pytest.raises(AlarmError), alarm_soon():
            channel.get(timeout=DEADLOCK)
    finally:
        signal.signal(signal.SIGALRM, before)
    channel.put("still works")
    assert channel.get_nowait() == "still works"
