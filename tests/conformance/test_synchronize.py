"""What users rely on from locks, semaphores, conditions, events and barriers.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import contextlib
import importlib
import re
import signal
import threading
import time

import pytest

from tests.children import running

# The original's barriers lie in a file that stays open as long as anything is in it: from now on.
_KEPT = importlib.import_module("multiprocessing.heap").BufferWrapper(1)

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
SHORT = 0.05  # seconds; long enough to be measured


def elsewhere(function, *args):
    """What a function returns on a thread of its own."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*args)), name="Elsewhere")
    thread.start()
    thread.join(DEADLOCK)
    return results[0]


def add(lock, counter, rounds):
    """Count in a queue of one number, which a lock must protect."""
    for _ in range(rounds):
        with lock:
            counter.put(counter.get(timeout=DEADLOCK) + 1)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_processes_exclude_each_other(ctx, kind):
    lock, counter = getattr(ctx, kind)(), ctx.Queue()
    counter.put(0)
    with running(ctx, add, lock, counter, 50), running(ctx, add, lock, counter, 50):
        pass
    assert counter.get(timeout=DEADLOCK) == 100
    counter.close()
    counter.join_thread()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore"])
def test_held_lock_is_refused_in_time(ctx, kind):
    lock = getattr(ctx, kind)()
    assert lock.acquire() is True
    for arguments in [(False,), (True, 0), (True, -1), (True, 0.0)]:
        assert elsewhere(lock.acquire, *arguments) is False
    start = time.monotonic()
    assert elsewhere(lock.acquire, True, SHORT) is False
    assert time.monotonic() - start >= SHORT
    assert lock.release() is None
    assert elsewhere(lock.acquire, True, None) is True


def test_block_and_timeout_have_names(ctx):
    lock = ctx.Lock()
    assert lock.acquire(block=True, timeout=None)
    assert not lock.acquire(block=False)
    assert not lock.acquire(timeout=0)


@pytest.mark.parametrize("kind", ["Lock", "BoundedSemaphore"])
def test_release_of_what_nobody_holds(ctx, kind):
    lock = getattr(ctx, kind)()
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        lock.release()
    assert lock.acquire(False)


def test_rlock_belongs_to_its_thread(ctx):
    lock = ctx.RLock()
    with pytest.raises(AssertionError, match="recursive lock not owned by thread"):
        lock.release()
    assert lock.acquire()
    assert lock.acquire()
    assert elsewhere(lock.acquire, False) is False
    lock.release()
    assert elsewhere(lock.acquire, False) is False
    lock.release()
    assert elsewhere(lock.acquire, False) is True


def test_lock_is_released_by_another_thread_or_process(ctx):
    lock = ctx.Lock()
    lock.acquire()
    elsewhere(lock.release)
    lock.acquire()
    with running(ctx, release, lock):
        assert lock.acquire(timeout=DEADLOCK)


def release(lock):
    lock.release()


def test_arguments_of_the_wrong_type(ctx):
    for timeout in ["1", []]:
        with pytest.raises(TypeError):
            ctx.Lock().acquire(True, timeout)
    for value in ["1", 1.5]:
        with pytest.raises(TypeError):
            ctx.Semaphore(value)
    with pytest.raises(OSError, match="Invalid argument"):
        ctx.Semaphore(-1)
    with pytest.raises(OverflowError):
        ctx.Semaphore(2**31)


def test_semaphore_counts(ctx):
    semaphore = ctx.Semaphore(2)
    assert semaphore.get_value() == 2
    assert semaphore.acquire(False)
    assert semaphore.acquire(False)
    assert not semaphore.acquire(False)
    assert semaphore.get_value() == 0
    for _ in range(3):
        semaphore.release()
    assert semaphore.get_value() == 3


def test_exception_releases(ctx):
    for lock in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(), ctx.Condition()):
        with contextlib.suppress(KeyError), lock:
            raise KeyError
        assert elsewhere(lock.acquire, False)


def test_lock_says_who_holds_it(ctx):
    lock = ctx.Lock()
    assert repr(lock) == "<Lock(owner=None)>"
    with lock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert elsewhere(repr, lock) == "<Lock(owner=SomeOtherThread)>"
    elsewhere(lock.acquire)
    assert repr(lock) == "<Lock(owner=SomeOtherThread)>"


def test_rlock_says_who_holds_it_and_how_often(ctx):
    lock = ctx.RLock()
    assert repr(lock) == "<RLock(None, 0)>"
    with lock, lock:
        assert repr(lock) == "<RLock(MainProcess, 2)>"
        assert elsewhere(repr, lock) == "<RLock(SomeOtherThread, nonzero)>"
        assert repr(ctx.Condition(lock)) == "<Condition(<RLock(MainProcess, 2)>, 0)>"
    assert elsewhere(lambda: (lock.acquire(), repr(lock))[1]) == "<RLock(MainProcess|Elsewhere, 1)>"


def hold(lock, held, done):
    with lock:
        held.set()
        done.wait(DEADLOCK)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("Lock", "<Lock(owner=SomeOtherProcess)>"), ("RLock", "<RLock(SomeOtherProcess, nonzero)>")],
)
def test_lock_says_that_another_process_holds_it(ctx, kind, text):
    lock, held, done = getattr(ctx, kind)(), ctx.Event(), ctx.Event()
    with running(ctx, hold, lock, held, done):
        assert held.wait(DEADLOCK)
        assert repr(lock) == text
        assert not lock.acquire(timeout=SHORT)
        done.set()
        assert lock.acquire(timeout=DEADLOCK)


def test_others_say_what_they_are(ctx):
    semaphore = ctx.Semaphore(3)
    assert repr(semaphore) == "<Semaphore(value=3)>"
    assert repr(ctx.BoundedSemaphore(4)) == "<BoundedSemaphore(value=4, maxvalue=4)>"
    assert repr(ctx.Condition(ctx.Lock())) == "<Condition(<Lock(owner=None)>, 0)>"
    event = ctx.Event()
    assert re.fullmatch(r"<Event at 0x[0-9a-f]+ unset>", repr(event))
    event.set()
    assert re.fullmatch(r"<Event at 0x[0-9a-f]+ set>", repr(event))
    assert "waiters=0/3" in repr(ctx.Barrier(3))


def test_objects_are_of_the_standard_classes(ctx):
    import multiprocessing.synchronize as standard

    for made, kind in [
        (ctx.Lock(), standard.Lock),
        (ctx.Lock(), standard.SemLock),
        (ctx.RLock(), standard.RLock),
        (ctx.Semaphore(), standard.Semaphore),
        (ctx.BoundedSemaphore(), standard.BoundedSemaphore),
        (ctx.BoundedSemaphore(), standard.Semaphore),
        (ctx.Condition(), standard.Condition),
        (ctx.Event(), standard.Event),
        (ctx.Barrier(1), standard.Barrier),
        (ctx.Barrier(1), threading.Barrier),
    ]:
        assert isinstance(made, kind)
    assert not isinstance(ctx.Lock(), standard.RLock)


def test_pickling_needs_a_child_to_go_to(ctx):
    from multiprocessing.reduction import ForkingPickler

    for made in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(), ctx.Condition(), ctx.Event()):
        with pytest.raises(
            RuntimeError, match="should only be shared between processes through inh"
        ):
            ForkingPickler.dumps(made)


def test_condition_is_used_with_its_lock_held(ctx):
    condition = ctx.Condition()
    with pytest.raises(AssertionError, match="must acquire"):
        condition.wait()
    with pytest.raises(AssertionError, match="lock is not owned"):
        condition.notify()
    with pytest.raises(AssertionError, match="lock is not owned"):
        condition.notify_all()


def test_wait_gives_up_with_the_lock_held(ctx):
    condition = ctx.Condition()
    with condition, condition:
        start = time.monotonic()
        assert condition.wait(SHORT) is False
        assert time.monotonic() - start >= SHORT
        assert condition.wait(0) is False
        assert elsewhere(condition.acquire, False) is False
    assert elsewhere(condition.acquire, False) is True


def answer(condition, requests, replies):
    with condition:
        while requests.get_value() == 0:
            assert condition.wait(DEADLOCK)
        replies.release()
        condition.notify_all()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_notification_reaches_another_process_and_comes_back(ctx, kind):
    condition = ctx.Condition(getattr(ctx, kind)())
    requests, replies = ctx.Semaphore(0), ctx.Semaphore(0)
    with running(ctx, answer, condition, requests, replies), condition:
        requests.release()
        condition.notify()
        assert condition.wait_for(replies.get_value, DEADLOCK) == 1


def test_wait_for_returns_what_the_predicate_does(ctx):
    condition = ctx.Condition()
    with condition:
        assert condition.wait_for(lambda: "yes") == "yes"
        start = time.monotonic()
        assert condition.wait_for(list, SHORT) == []
        assert time.monotonic() - start >= SHORT


def wait_and_count(condition, sleeping, woken):
    with condition:
        sleeping.release()
        condition.wait()
        woken.release()


def test_notify_wakes_as_many_as_it_is_told(ctx):
    condition, sleeping, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    waiters = [
        threading.Thread(target=wait_and_count, args=(condition, sleeping, woken)) for _ in range(4)
    ]
    for waiter in waiters:
        waiter.start()
    for _ in waiters:
        assert sleeping.acquire(timeout=DEADLOCK)
    with condition:  # which all have, when they sleep
        condition.notify(2)
    for _ in range(2):
        assert woken.acquire(timeout=DEADLOCK)
    assert not woken.acquire(timeout=SHORT)
    with condition:
        condition.notify_all()
    for waiter in waiters:
        waiter.join(DEADLOCK)
    assert woken.get_value() == 2


def test_event_is_set_until_it_is_cleared(ctx):
    event = ctx.Event()
    assert event.is_set() is False
    start = time.monotonic()
    assert event.wait(SHORT) is False
    assert time.monotonic() - start >= SHORT
    assert event.set() is None
    assert event.is_set() is True
    assert event.wait() is True
    assert event.wait(0) is True
    assert event.clear() is None
    assert event.wait(0) is False


def wait_for_event(event, ready):
    ready.release()
    assert event.wait(DEADLOCK)


def test_event_lets_all_processes_go(ctx):
    event, ready = ctx.Event(), ctx.Semaphore(0)
    with running(ctx, wait_for_event, event, ready), running(ctx, wait_for_event, event, ready):
        for _ in range(2):
            assert ready.acquire(timeout=DEADLOCK)
        event.set()


def meet(barrier, places, rounds):
    for _ in range(rounds):
        places.put(barrier.wait(DEADLOCK))


def test_processes_meet_at_a_barrier(ctx):
    barrier, places = ctx.Barrier(3), ctx.Queue()
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    with running(ctx, meet, barrier, places, 5), running(ctx, meet, barrier, places, 5):
        meet(barrier, places, 5)
        seen = sorted(places.get(timeout=DEADLOCK) for _ in range(15))
    assert seen == sorted([0, 1, 2] * 5)
    places.close()
    places.join_thread()


def test_barrier_breaks_when_time_runs_out(ctx):
    barrier = ctx.Barrier(2, timeout=SHORT)
    start = time.monotonic()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert time.monotonic() - start >= SHORT
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(DEADLOCK)
    barrier.reset()
    assert not barrier.broken
    barrier.abort()
    assert barrier.broken


def test_action_of_a_barrier_is_called_once_a_time(ctx):
    calls = []
    barrier = ctx.Barrier(2, lambda: calls.append(barrier.n_waiting))
    for _ in range(3):
        waiter = threading.Thread(target=barrier.wait)
        waiter.start()
        barrier.wait(DEADLOCK)
        waiter.join(DEADLOCK)
    assert len(calls) == 3


def test_action_that_raises_breaks_the_barrier(ctx):
    def fail():
        raise KeyError("on purpose")

    barrier = ctx.Barrier(1, fail)
    with pytest.raises(KeyError, match="on purpose"):
        barrier.wait(DEADLOCK)
    assert barrier.broken


class InterruptedWaitError(Exception):
    pass


@contextlib.contextmanager
def alarm(handler):
    """A signal that arrives soon: within the block, or on a busy machine before it."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, SHORT)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def blocking_calls(ctx):
    lock, condition = ctx.Lock(), ctx.Condition()
    lock.acquire()
    condition.acquire()
    return [
        lock.acquire,
        ctx.Semaphore(0).acquire,
        ctx.Event().wait,
        condition.wait,
        ctx.Barrier(2).wait,
    ]


def raise_interrupted(_signal, _frame):
    raise InterruptedWaitError


@pytest.mark.parametrize("number", range(5))
def test_signal_handler_that_raises_ends_a_wait(ctx, number):
    call = blocking_calls(ctx)[number]
    with pytest.raises(InterruptedWaitError), alarm(raise_interrupted):
        call()


def test_lock_of_a_condition_is_held_after_an_interrupted_wait(ctx):
    condition = ctx.Condition()
    with condition:
        with pytest.raises(InterruptedWaitError), alarm(raise_interrupted):
            condition.wait()
        assert elsewhere(condition.acquire, False) is False


def test_signal_handler_runs_and_the_wait_goes_on(ctx):
    lock = ctx.Lock()
    lock.acquire()
    with alarm(lambda *_: lock.release()):
        assert lock.acquire(timeout=DEADLOCK)


def nest(lock, box):
    """Use a lock that came inside other objects."""
    with lock:
        box["event"].set()
    assert box["locks"][0].acquire(timeout=DEADLOCK)


def test_objects_travel_inside_others(ctx):
    lock, event = ctx.Lock(), ctx.Event()
    with running(ctx, nest, lock, {"event": event, "locks": [lock]}):
        assert event.wait(DEADLOCK)


def pass_on_to_a_child(package, lock, event):
    ctx = importlib.import_module(package).get_context("spawn")
    child = ctx.Process(target=release, args=(lock,))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    event.set()


def test_child_passes_a_lock_on(mp, ctx):
    if mp.__name__ == "multiprocessing":
        pytest.skip("the original cannot, from a forked child to a fresh interpreter")
    lock, event = ctx.Lock(), ctx.Event()
    lock.acquire()
    with running(ctx, pass_on_to_a_child, mp.__name__, lock, event):
        assert lock.acquire(timeout=DEADLOCK)
        assert event.wait(DEADLOCK)
