"""What users rely on from `Pool`.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import contextlib
import os
import threading

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

setting = []


class TaskError(Exception):
    """An exception of the user's own, with arguments of its own."""

    def __init__(self, task, reason):
        super().__init__(task, reason)
        self.task = task
        self.reason = reason


def square(number):
    return number * number


def add(*numbers, extra=0):
    return sum(numbers) + extra


def fail_at_seven(number):
    if number == 7:
        raise TaskError(number, "seven")
    return number


def own_pid(_):
    return os.getpid()


def facts(ctx):
    me = ctx.current_process()
    return me.name, me.daemon, ctx.parent_process().pid


def make_lock(_):
    return threading.Lock()


def keep(value):
    setting.append(value)


def kept(_):
    return setting[-1]


def wait_for_go():
    return setting[-1].get(timeout=DEADLOCK)


def identity(value):
    return value


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def failing_numbers():
    yield 1
    yield 2
    raise TaskError("input", "ended early")


@pytest.fixture
def pool(ctx):
    with pool_of(ctx, 2) as created:
        yield created


@contextlib.contextmanager
def pool_of(ctx, *args, **kwargs):
    """Make a pool that is closed at the end: `terminate` of the original hangs now and then."""
    created = ctx.Pool(*args, **kwargs)
    try:
        yield created
    finally:
        created.close()
        created.join()


@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000])
def test_map_returns_results_in_order(pool, chunksize):
    assert pool.map(square, range(100), chunksize) == [number**2 for number in range(100)]


@pytest.mark.parametrize(
    "items", [[], (), {}, "", range(0), iter([])], ids=lambda items: type(items).__name__
)
def test_map_of_nothing_is_an_empty_list(pool, items):
    assert pool.map(square, items) == []


@pytest.mark.parametrize("make", [list, tuple, iter, set, dict.fromkeys], ids=lambda f: f.__name__)
def test_map_takes_any_iterable(pool, make):
    assert sorted(pool.map(square, make(range(10)))) == [number**2 for number in range(10)]


def test_map_of_a_large_input(pool):
    count = 20_000
    assert pool.map(square, range(count)) == [number * number for number in range(count)]


def test_map_with_one_task_per_item(pool):
    count = 2_000
    assert pool.map(square, range(count), chunksize=1) == [number**2 for number in range(count)]


def test_pool_is_used_again_and_again(pool):
    for start in range(20):
        assert pool.map(square, [start]) == [start * start]
        assert pool.apply(add, (start, 1)) == start + 1


def test_map_works_in_other_processes_and_in_no_more_than_asked(pool):
    pids = set(pool.map(own_pid, range(200), chunksize=1))
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


def test_workers_are_daemons_of_this_process_with_names(ctx, pool):
    name, daemon, parent = pool.apply(facts, (ctx,))
    assert "PoolWorker-" in name
    assert daemon is True
    assert parent == os.getpid()


def test_map_raises_what_the_task_raised(pool):
    with pytest.raises(TaskError) as caught:
        pool.map(fail_at_seven, range(20), chunksize=3)
    assert caught.value.task == 7
    assert caught.value.reason == "seven"
    assert "fail_at_seven" in str(caught.value.__cause__), "no traceback of the worker"
    assert pool.map(square, [3]) == [9], "the pool goes on after a failed task"


def test_imap_unordered_yields_every_result(pool):
    assert sorted(pool.imap_unordered(square, range(100))) == [n**2 for n in range(100)]
    assert sorted(pool.imap_unordered(square, range(100), 7)) == [n**2 for n in range(100)]
    assert list(pool.imap_unordered(square, [])) == []


def test_imap_unordered_is_an_iterator(pool):
    results = pool.imap_unordered(square, [5])
    assert iter(results) is results
    assert next(results) == 25
    with pytest.raises(StopIteration):
        next(results)


def test_imap_unordered_raises_in_place_of_the_failed_result(pool):
    results = pool.imap_unordered(fail_at_seven, range(10))
    arrived, failed = [], []
    while True:
        try:
            arrived.append(next(results))
        except TaskError as error:
            failed.append(error.task)
        except StopIteration:
            break
    assert sorted(arrived) == [number for number in range(10) if number != 7]
    assert failed == [7]


def test_imap_unordered_raises_what_its_input_raises(pool):
    results = pool.imap_unordered(square, failing_numbers())
    arrived = []
    with pytest.raises(TaskError, match="ended early"):
        arrived.extend(results)
    assert set(arrived) <= {1, 4}


def test_apply_passes_arguments_and_returns_the_result(pool):
    assert pool.apply(add) == 0
    assert pool.apply(add, (1, 2)) == 3
    assert pool.apply(add, [1, 2], {"extra": 10}) == 13
    assert pool.apply(add, kwds={"extra": 5}) == 5


def test_apply_raises_what_the_task_raised(pool):
    with pytest.raises(TaskError) as caught:
        pool.apply(fail_at_seven, (7,))
    assert "fail_at_seven" in str(caught.value.__cause__), "no traceback of the worker"


def test_apply_async_result_can_be_waited_for(pool):
    result = pool.apply_async(square, (6,))
    result.wait(DEADLOCK)
    assert result.ready()
    assert result.successful()
    assert result.get(DEADLOCK) == 36
    assert result.get() == 36, "a result can be had more than once"


def test_apply_async_result_of_a_failed_task(pool):
    result = pool.apply_async(fail_at_seven, (7,))
    result.wait(DEADLOCK)
    assert result.ready()
    assert not result.successful()
    for _ in range(2):
        with pytest.raises(TaskError):
            result.get(DEADLOCK)


def test_apply_async_result_that_is_not_there_yet(mp, ctx):
    go = ctx.Queue()
    with pool_of(ctx, 1, keep, (go,)) as waiting:
        result = waiting.apply_async(wait_for_go)
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        result.wait(0.01)
        with pytest.raises(mp.TimeoutError):
            result.get(0.01)
        go.put("gone")
        assert result.get(DEADLOCK) == "gone"
    go.close()
    go.join_thread()


def test_apply_async_calls_back(pool):
    called = []
    done = threading.Event()

    def call_back(value):
        called.append(value)
        done.set()

    pool.apply_async(square, (4,), callback=call_back)
    assert done.wait(DEADLOCK)
    done.clear()
    pool.apply_async(fail_at_seven, (7,), callback=call_back, error_callback=call_back)
    assert done.wait(DEADLOCK)
    assert called[0] == 16
    assert isinstance(called[1], TaskError)
    assert len(called) == 2


def test_results_of_many_tasks_at_once(pool):
    results = [pool.apply_async(square, (number,)) for number in range(500)]
    assert [result.get(DEADLOCK) for result in results] == [number**2 for number in range(500)]


def test_large_arguments_and_results(pool):
    payloads = [bytes([number]) * 3_000_000 for number in range(4)]
    assert pool.map(identity, payloads, chunksize=1) == payloads


def test_argument_that_cannot_be_pickled_is_refused(pool):
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.map(identity, [threading.Lock()])
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.apply(identity, (threading.Lock(),))
    assert pool.map(square, [2]) == [4], "the pool goes on"


def test_result_that_cannot_be_pickled_fails_its_task(mp, pool):
    with pytest.raises(mp.pool.MaybeEncodingError, match="cannot pickle"):
        pool.apply(make_lock, (0,))
    assert pool.map(square, [2]) == [4], "the pool goes on"


def test_function_that_cannot_be_called_fails_its_task(pool):
    with pytest.raises(TypeError, match="not callable"):
        pool.apply("text")


def test_initializer_runs_in_every_worker(ctx):
    with pool_of(ctx, 2, keep, ("kept",)) as created:
        assert created.map(kept, range(50), chunksize=1) == ["kept"] * 50


@pytest.mark.parametrize("processes", [0, -1])
def test_pool_without_workers_is_refused(ctx, processes):
    with pytest.raises(ValueError, match="at least 1"):
        ctx.Pool(processes)


def test_number_of_workers_must_be_a_number(ctx):
    with pytest.raises(TypeError):
        ctx.Pool("2")


def test_initializer_must_be_callable(ctx):
    with pytest.raises(TypeError, match="callable"):
        ctx.Pool(1, initializer="text")


def test_close_and_join_finish_what_was_submitted(ctx):
    created = ctx.Pool(2)
    results = [created.apply_async(square, (number,)) for number in range(100)]
    created.close()
    created.join()
    assert [result.get(0) for result in results] == [number**2 for number in range(100)]
    created.terminate()


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_ended_pool_takes_no_more_work(ctx, end):
    created = ctx.Pool(1)
    getattr(created, end)()
    uses = [
        lambda: created.map(square, [1]),
        lambda: created.apply(square, (1,)),
        lambda: created.apply_async(square, (1,)),
        lambda: created.imap_unordered(square, [1]),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="not running"):
            use()
    created.terminate()
    created.join()


def test_join_of_a_running_pool_is_refused(pool):
    with pytest.raises(ValueError, match="still running"):
        pool.join()


def test_workers_are_gone_after_the_block(ctx):
    with ctx.Pool(2) as created:
        pids = set(created.map(own_pid, range(50), chunksize=1))
    created.join()
    assert all(is_gone(pid) for pid in pids)


def test_two_pools_side_by_side(ctx):
    with pool_of(ctx, 1) as first, pool_of(ctx, 1) as second:
        assert first.apply(own_pid, (0,)) != second.apply(own_pid, (0,))
        assert first.map(square, range(10)) == second.map(square, range(10))


def test_pool_is_used_from_several_threads(pool):
    results = {}

    def work(start):
        results[start] = pool.map(square, range(start, start + 200), chunksize=5)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLOCK)
    for start in (0, 1000, 2000):
        assert results[start] == [number**2 for number in range(start, start + 200)]


def test_pool_made_without_a_context(mp):
    with mp.Pool(1) as created:
        assert created.map(square, [3]) == [9]
    created.join()
