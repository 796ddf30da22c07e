"""What pools do in addition: limits, cancelling, progress, numbers, coroutines."""

import asyncio
import contextlib
import itertools
import os
import sys
import time
import types
from concurrent.futures import CancelledError

import pytest

import procession
from procession import aio
from tests.unit.waiting import with_time_enough

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
HOUR = 3600.0

hoard = []


def square(number):
    return number * number


def own_pid(_=None):
    return os.getpid()


def leave(path):
    """End the worker unless another one has been here."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "again"
    os._exit(3)


def touch(path):
    path.touch()


def fail(_):
    raise ValueError("failed")


def fill_memory(size):
    hoard.append(bytearray(os.urandom(1)) * size)
    return os.getpid()


def processors(_=None):
    return sorted(os.sched_getaffinity(0))


def wait_until(condition):
    end = time.monotonic() + DEADLOCK
    while not condition():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.001)


def begun(pool, seconds=HOUR, **limits):
    """A call that a worker has begun, and that takes so long."""
    result = pool.apply_async(time.sleep, (seconds,), **limits)
    wait_until(result.running)
    return result


def test_call_that_takes_too_long_loses_its_worker(make_pool):
    pool = make_pool(1)
    pid = pool.apply(own_pid)
    with pytest.raises(procession.TaskTimeoutError) as caught:
        pool.apply(time.sleep, (HOUR,), timeout=0.05)
    assert isinstance(caught.value, procession.TimeoutError)
    assert (caught.value.pid, caught.value.timeout) == (pid, 0.05)
    assert str(pid) in str(caught.value)
    assert pool.apply(own_pid, timeout=DEADLOCK) != pid


def test_each_task_of_a_map_has_the_time(make_pool):
    pool = make_pool(2)
    assert pool.map(square, range(50), timeout=DEADLOCK) == [n * n for n in range(50)]

    def check_map(seconds):
        with pytest.raises(procession.TaskTimeoutError) as caught:
            pool.map(time.sleep, [0, 0, 0, HOUR, 0], timeout=seconds)
        assert caught.value.task == 3

    def check_imap(seconds):
        results = pool.imap(time.sleep, [0, HOUR, 0], timeout=seconds)
        assert next(results) is None
        with pytest.raises(procession.TaskTimeoutError):
            next(results)
        assert next(results) is None

    with_time_enough(check_map)
    with_time_enough(check_imap)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_time_that_is_none_is_refused(make_pool, timeout):
    with pytest.raises(ValueError, match="timeout"):
        make_pool(1).apply(square, (1,), timeout=timeout)


def test_queued_call_that_is_cancelled_is_never_made(make_pool, tmp_path):
    pool = make_pool(1)
    running = begun(pool)
    queued = pool.apply_async(touch, (tmp_path / "made",))
    assert not queued.running()
    assert queued.cancel()
    with pytest.raises(CancelledError):
        queued.get(DEADLOCK)
    assert queued.ready()
    assert not queued.successful()
    assert running.cancel()
    assert pool.apply(square, (3,)) == 9
    assert not (tmp_path / "made").exists()


def test_running_call_is_cancelled_with_its_worker(make_pool):
    pool = make_pool(1)
    pid = pool.apply(own_pid)
    result = begun(pool)
    assert not result.cancel(running=False)
    assert result.cancel()
    with pytest.raises(CancelledError):
        result.get(DEADLOCK)
    assert pool.apply(own_pid) != pid


def test_call_that_is_done_cannot_be_cancelled(make_pool):
    result = make_pool(1).apply_async(square, (3,))
    assert result.get(DEADLOCK) == 9
    assert not result.cancel()
    assert result.get() == 9


def test_map_is_cancelled_as_a_whole(make_pool):
    pool = make_pool(2)
    result = pool.map_async(time.sleep, [HOUR] * 100, 1)
    wait_until(result.running)
    assert result.cancel()
    with pytest.raises(CancelledError):
        result.get(DEADLOCK)
    assert pool.map(square, range(4)) == [0, 1, 4, 9]


def test_iterator_is_cancelled(make_pool):
    pool = make_pool(1)
    read = itertools.count()
    results = pool.imap(time.sleep, map(float, read), buffersize=5)
    assert next(results) is None
    results.cancel(running=True)
    assert next(read) <= 10
    with pytest.raises(CancelledError):
        list(results)


def test_one_call_may_be_made_again(make_pool, tmp_path):
    pool = make_pool(1)
    assert pool.apply(leave, (tmp_path / "one",), retries=1) == "again"
    assert pool.map(leave, [tmp_path / "two"], retries=1) == ["again"]
    with pytest.raises(procession.WorkerDiedError):
        pool.apply(leave, (tmp_path / "three",))


def test_small_buffer_gives_the_same_results(make_pool):
    pool = make_pool(2)
    for size in (1, 2, 7):
        assert list(pool.imap(square, range(30), buffersize=size)) == [n * n for n in range(30)]
        found = pool.imap_unordered(square, range(30), 4, buffersize=size)
        assert sorted(found) == [n * n for n in range(30)]


@pytest.mark.parametrize(
    ("number", "allowed"), [(-1, "at least 0, not -1"), (1 << 70, "at most 4294967295")]
)
def test_number_of_retries_that_is_none_is_refused(make_pool, number, allowed):
    pool = make_pool(1)
    for call in (
        lambda: pool.apply(square, (1,), retries=number),
        lambda: pool.map(square, [1], retries=number),
        lambda: pool.imap(square, [1], retries=number),
        lambda: make_pool(1, retries=number),
    ):
        with pytest.raises(ValueError, match=f"retries must be {allowed}"):
            call()


@pytest.mark.parametrize(
    ("option", "number", "allowed"),
    [
        ("max_memory_per_child", 0, "max_memory_per_child must be at least 1, not 0"),
        ("max_memory_per_child", -1, "max_memory_per_child must be at least 1, not -1"),
        ("affinity", [{-1}], "the number of a CPU must be at least 0, not -1"),
    ],
)
def test_number_for_workers_that_is_none_is_refused(make_pool, option, number, allowed):
    with pytest.raises(ValueError, match=allowed):
        make_pool(1, **{option: number})


@pytest.mark.parametrize("size", [0, -1])
def test_buffer_for_nothing_is_refused(make_pool, size):
    with pytest.raises(ValueError, match="buffersize"):
        make_pool(1).imap(square, [], buffersize=size)


def test_worker_that_has_grown_is_replaced(make_pool):
    pool = make_pool(1, max_memory_per_child=200_000_000)
    pid = pool.apply(own_pid)
    assert pool.apply(fill_memory, (300_000_000,)) == pid
    wait_until(lambda: pool.apply(own_pid) != pid)


def test_workers_keep_to_their_processors(make_pool):
    mine = sorted(os.sched_getaffinity(0))
    pool = make_pool(2, affinity=[{mine[0]}, {mine[-1]}])
    seen = pool.map(processors, range(50), chunksize=1)
    assert {tuple(one) for one in seen} <= {(mine[0],), (mine[-1],)}
    assert len(make_pool(1, affinity="spread").apply(processors)) == 1
    with pytest.raises(ValueError, match="10000"):
        make_pool(1, affinity=[{10_000}])


def test_numbers_add_up(make_pool):
    pool = make_pool(2)
    pool.map(square, range(10), chunksize=1)
    with contextlib.suppress(ValueError):
        pool.apply(fail, (0,))
    running = begun(pool)
    stats = pool.stats()
    assert (stats["done"], stats["failed"], stats["running"]) == (10, 1, 1)
    assert stats["waiting"] == stats["deaths"] == 0
    assert sum(worker["tasks"] for worker in stats["workers"]) >= 11
    assert [worker["state"] for worker in stats["workers"]].count("running") == 1
    assert {worker["pid"] for worker in stats["workers"]} == {w.pid for w in pool._pool}
    assert len(pool._cache) == 1
    running.cancel()
    with pytest.raises(CancelledError):
        running.get(DEADLOCK)
    assert pool.stats()["cancelled"] == 1
    assert pool._taskqueue.empty()


class Bar:
    """Stands where tqdm's would, and notes what it is told."""

    made = []  # noqa: RUF012

    def __init__(self, total, desc):
        self.total, self.label, self.n, self.closed = total, desc, 0, False
        Bar.made.append(self)

    def update(self, count=1):
        self.n += count

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def bars(monkeypatch):
    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    Bar.made.clear()
    return Bar.made


def test_bar_shows_progress(make_pool, bars):
    pool = make_pool(2)
    assert pool.map(square, range(10), 1, progress="squares") == [n * n for n in range(10)]
    assert pool.starmap(divmod, [(3, 2)], progress=True) == [(1, 1)]
    assert list(pool.imap(square, range(4), progress=True)) == [0, 1, 4, 9]
    assert sorted(pool.imap_unordered(square, iter(range(4)), progress=True)) == [0, 1, 4, 9]
    shown = [(bar.label, bar.total, bar.n, bar.closed) for bar in bars]
    assert shown == [
        ("squares", 10, 10, True),
        (None, 1, 1, True),
        (None, 4, 4, True),
        (None, None, 4, True),
    ]


def test_no_bar_where_nobody_sees_it(make_pool, bars, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert make_pool(1).map(square, [2], progress=True) == [4]
    assert not bars


def test_results_are_awaited(make_pool):
    pool = make_pool(2)

    async def main():
        assert await pool.apply_async(square, (3,)) == 9
        assert await pool.map_async(square, range(4)) == [0, 1, 4, 9]
        squares = await asyncio.gather(*(pool.apply_async(square, (n,)) for n in range(50)))
        assert squares == [n * n for n in range(50)]
        with pytest.raises(ValueError, match="failed"):
            await pool.apply_async(fail, (0,))

    asyncio.run(main())


def test_call_is_cancelled_with_who_awaits_it(make_pool):
    pool = make_pool(1)

    async def main():
        result = pool.apply_async(time.sleep, (HOUR,))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await result
        return result

    with pytest.raises(CancelledError):
        asyncio.run(main()).get(DEADLOCK)
    assert pool.apply(square, (3,)) == 9


@pytest.mark.parametrize("size", [1, 3, 100])
def test_iterators_for_coroutines(make_pool, size):
    pool = make_pool(2)

    async def main():
        ordered = [value async for value in aio.imap(pool, square, range(20), buffersize=size)]
        found = aio.imap_unordered(pool, square, range(20), buffersize=size)
        return ordered, sorted([value async for value in found])

    expected = [n * n for n in range(20)]
    assert asyncio.run(main()) == (expected, expected)


def test_iterator_for_coroutines_raises_what_a_call_raises(make_pool):
    pool = make_pool(2)

    async def main(imap):
        with pytest.raises(ValueError, match="failed"):
            async for _ in imap(pool, fail, range(20)):
                pass

    asyncio.run(main(aio.imap))
    asyncio.run(main(aio.imap_unordered))
    assert pool.apply(square, (3,)) == 9
