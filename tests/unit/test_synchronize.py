"""Locks and their kin: what the original does not do."""

import contextlib
import copy
import gc
import os
import signal
import threading
import weakref

import pytest

import procession
from procession import synchronize, util
from tests.unit.waiting import started

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
SHORT = 0.05  # seconds


@pytest.fixture
def warnings_of(monkeypatch):
    """What the package logs, in a list."""
    texts = []
    logger = util.get_logger()
    monkeypatch.setattr(logger, "warning", lambda text, *args: texts.append(text % args))
    return texts


def take_and_stay(lock, ready):
    lock.acquire()
    ready.set()
    while True:
        signal.pause()


def take(lock):
    lock.acquire()


def kill_the_owner(ctx, lock, by=signal.SIGKILL):
    """Let a process take the lock and die."""
    ready = ctx.Event()
    child = ctx.Process(target=take_and_stay, args=(lock, ready))
    child.start()
    assert ready.wait(DEADLOCK)
    os.kill(child.pid, by)
    child.join(DEADLOCK)
    assert child.exitcode == -by
    child.close()


def end_the_owner(ctx, lock):
    """Let a process take the lock and end."""
    child = ctx.Process(target=take, args=(lock,))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()


def test_contexts_and_the_package_make_these(ctx):
    for kind in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"):
        for made in (getattr(ctx, kind)(), getattr(procession, kind)()):
            assert type(made) is getattr(synchronize, kind)
    assert type(ctx.Barrier(1)) is synchronize.Barrier


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_lock_of_a_killed_process_is_taken_over(ctx, kind, by, warnings_of):
    lock = getattr(ctx, kind)()
    assert lock.owner_died is False
    for _ in range(2):
        kill_the_owner(ctx, lock, by)
        assert lock.acquire(timeout=DEADLOCK)
        assert lock.owner_died is True
        lock.release()
    assert len(warnings_of) == 1
    assert f"the process that held {kind}" in warnings_of[0]


def test_lock_of_a_killed_process_raises_if_asked_to(ctx):
    lock = synchronize.Lock(ctx=ctx, on_owner_death="raise")
    kill_the_owner(ctx, lock)
    with pytest.raises(procession.errors.OwnerDiedError, match="may be half-changed"):
        lock.acquire()
    assert lock.owner_died
    assert not lock.locked()
    with lock:
        pass


def test_choice_of_what_to_do_travels_with_the_lock(ctx):
    lock, results = synchronize.Lock(ctx=ctx, on_owner_death="raise"), ctx.Queue()
    kill_the_owner(ctx, lock)
    child = ctx.Process(target=report_owner_death, args=(lock, results))
    child.start()
    assert results.get(timeout=DEADLOCK) == "OwnerDiedError"
    child.join(DEADLOCK)
    results.close()


def report_owner_death(lock, results):
    try:
        lock.acquire()
    except procession.ProcessError as error:
        results.put(type(error).__name__)


def test_only_two_things_can_be_done_when_an_owner_dies(ctx):
    with pytest.raises(ValueError, match="'warn' or 'raise', not \"ignore\""):
        synchronize.Lock(ctx=ctx, on_owner_death="ignore")


def test_lock_of_a_process_that_has_ended_stays_held(ctx):
    lock = ctx.Lock()
    end_the_owner(ctx, lock)
    assert not lock.acquire(timeout=4 * SHORT)
    assert repr(lock) == "<Lock(owner=SomeOtherProcess)>"
    lock.release()
    assert lock.acquire(timeout=DEADLOCK)
    assert not lock.owner_died


def test_rlock_of_a_process_that_has_ended_is_taken_over(ctx, warnings_of):
    lock = ctx.RLock()
    end_the_owner(ctx, lock)
    assert lock.acquire(timeout=DEADLOCK)
    assert lock.owner_died
    assert len(warnings_of) == 1


def wait_for(condition, sleeping, woken):
    with condition:
        sleeping.release()
        condition.wait()
        woken.release()


def test_killed_waiter_leaves_its_notification_to_the_next(ctx):
    condition, sleeping, woken = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    children = []
    for _ in range(2):
        child = ctx.Process(target=wait_for, args=(condition, sleeping, woken))
        child.start()
        assert sleeping.acquire(timeout=DEADLOCK)
        children.append(child)
    with condition:
        condition.notify()
        # With the lock held here, the one that was notified cannot return.
        children[0].kill()
    assert woken.acquire(timeout=DEADLOCK)
    for child in children:
        child.join(DEADLOCK)
    assert [child.exitcode for child in children] == [-signal.SIGKILL, 0]


def come(barrier):
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()


def test_killed_waiter_breaks_the_barrier(ctx):
    barrier = ctx.Barrier(3)
    child = ctx.Process(target=come, args=(barrier,))
    child.start()
    waiting = threading.Thread(target=come, args=(barrier,))
    waiting.start()
    while barrier.n_waiting < 2:
        pass
    child.kill()
    waiting.join(DEADLOCK)
    assert barrier.broken
    child.join(DEADLOCK)


def use(lock, event):
    with lock:
        event.set()
    return lock


def test_objects_travel_through_queues_and_pools(ctx, make_queue, make_pool):
    lock, event, queue, pool = ctx.Lock(), ctx.Event(), make_queue(), make_pool(1)
    queue.put([lock, {"event": event}])
    same, box = queue.get(timeout=DEADLOCK)
    with lock:
        assert same.locked()
        assert not same.acquire(False)
    box["event"].set()
    assert event.is_set()
    event.clear()
    back = pool.apply(use, (lock, event))
    assert event.is_set()
    with back:
        assert lock.locked()


def test_every_kind_travels(ctx, make_queue):
    queue = make_queue()
    for made in (
        ctx.RLock(),
        ctx.Semaphore(3),
        ctx.BoundedSemaphore(2),
        ctx.Condition(ctx.Lock()),
        ctx.Event(),
        ctx.Barrier(5, timeout=1),
    ):
        queue.put(made)
        came = queue.get(timeout=DEADLOCK)
        assert type(came) is type(made)
        if not isinstance(made, threading.Barrier | synchronize.Event):
            assert repr(came) == repr(made)


def test_condition_travels_with_its_lock(ctx, make_queue):
    lock, queue = ctx.Lock(), make_queue()
    queue.put((lock, ctx.Condition(lock)))
    same, condition = queue.get(timeout=DEADLOCK)
    with lock:
        assert same.locked()
        assert not condition.acquire(False)


class Named(synchronize.Lock):
    """A lock with a name."""

    def __init__(self, name, *, ctx):
        super().__init__(ctx=ctx)
        self.label = name


def test_classes_can_be_derived_from(ctx, make_queue):
    lock, queue = Named("mine", ctx=ctx), make_queue()
    assert repr(lock) == "<Named(owner=None)>"
    assert lock.__class__ is Named
    assert lock.label == "mine"
    queue.put(lock)
    assert type(queue.get(timeout=DEADLOCK)) is Named


def test_objects_are_garbage_like_others(ctx):
    made = [ctx.Lock(), ctx.Semaphore(), ctx.Condition(), ctx.Event(), ctx.Barrier(1)]
    for one in made:
        one.note = "an attribute"
    references = [weakref.ref(one) for one in made]
    del made, one
    gc.collect()
    assert [reference() for reference in references] == [None] * 5


def test_object_without_its_constructor_says_so():
    for kind in (synchronize.Lock, synchronize.Event, synchronize.Condition):
        with pytest.raises(RuntimeError, match=r"__init__\(\) has not been called"):
            kind.__new__(kind).__getstate__()


def test_lock_of_a_condition_must_be_a_lock(ctx):
    with pytest.raises(TypeError, match="a Lock or an RLock"):
        ctx.Condition(ctx.Semaphore(1))
    with pytest.raises(TypeError):
        ctx.Condition(threading.Lock())


def test_barrier_is_for_somebody(ctx):
    for parties in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            ctx.Barrier(parties)


def test_copy_is_refused(ctx):
    with pytest.raises(RuntimeError, match="through inheritance, a queue or a pool"):
        copy.copy(ctx.Lock())


def test_locked_says_whether_it_can_be_taken(ctx):
    for made in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(1)):
        assert not made.locked()
        with made:
            assert made.locked()


def test_interrupt_from_the_keyboard_ends_a_wait(ctx):
    """As `Ctrl-C` does: the signal that a terminal sends."""
    lock = ctx.Lock()
    lock.acquire()
    timer = threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), started(timer):
        lock.acquire()


def test_fork_does_not_make_the_child_the_owner(ctx):
    lock = ctx.RLock()
    with lock:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if not lock.acquire(False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
