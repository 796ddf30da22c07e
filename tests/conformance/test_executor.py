"""What users rely on from `ProcessPoolExecutor`.

Every test runs against `concurrent.futures` too. One that fails there is wrong about it, whatever
`procession` does.
"""

import asyncio
import concurrent.futures
import importlib
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

setting = []


def square(number):
    return number * number


def add(*numbers, extra=0):
    return sum(numbers) + extra


def fail(number):
    raise ValueError(f"number {number}")


def fail_at_three(number):
    return fail(number) if number == 3 else number


def own_pid(_=None):
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def keep(value):
    setting.append(value)


def kept():
    return setting[-1]


def wait_for_go():
    return setting[-1].get(timeout=DEADLOCK)


def refuse_to_start():
    raise RuntimeError("no start")


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def make(mp, ctx):
    """Make executors that are shut down at the end of the test."""
    home = {"multiprocessing": "concurrent.futures", "procession": "procession.futures"}
    module = importlib.import_module(home[mp.__name__])
    made = []

    def make(max_workers=2, **options):
        created = module.ProcessPoolExecutor(max_workers, ctx, **options)
        made.append(created)
        return created

    yield make
    for executor in made:
        executor.shutdown()


@pytest.fixture
def executor(make):
    return make()


@pytest.fixture
def go(ctx):
    queue = ctx.Queue()
    yield queue
    queue.close()
    queue.join_thread()


def test_submit_returns_a_future(executor):
    future = executor.submit(add, 1, 2, extra=10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(DEADLOCK) == 13
    assert future.result(0) == 13
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancel()
    assert isinstance(executor, concurrent.futures.Executor)


def test_future_raises_what_the_call_raised(executor):
    future = executor.submit(fail, 7)
    with pytest.raises(ValueError, match="number 7") as caught:
        future.result(DEADLOCK)
    assert future.exception() is caught.value
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"
    assert "fail" in str(caught.value.__cause__)
    assert executor.submit(square, 3).result(DEADLOCK) == 9, "the executor goes on"


def test_future_that_is_not_done_in_time(make, go):
    executor = make(1, initializer=keep, initargs=(go,))
    future = executor.submit(wait_for_go)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0.01)
    go.put("gone")
    assert future.result(DEADLOCK) == "gone"


def test_future_that_waits_can_be_cancelled(make, go):
    executor = make(1, initializer=keep, initargs=(go,))
    running = executor.submit(wait_for_go)
    waiting = [executor.submit(own_pid) for _ in range(10)]
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting[-1].result(DEADLOCK)
    go.put("gone")
    assert running.result(DEADLOCK) == "gone"
    assert waiting[0].result(DEADLOCK) != os.getpid()


def test_future_that_runs_cannot_be_cancelled(make, go):
    executor = make(1, initializer=keep, initargs=(go,))
    future = executor.submit(wait_for_go)
    end = time.monotonic() + DEADLOCK
    while not future.running():
        assert time.monotonic() < end
        time.sleep(0.001)
    assert not future.cancel()
    go.put("gone")
    assert future.result(DEADLOCK) == "gone"


def test_wait_and_as_completed_take_the_futures(executor):
    futures = [executor.submit(square, number) for number in range(20)]
    results = {future.result() for future in concurrent.futures.as_completed(futures, DEADLOCK)}
    assert results == {number**2 for number in range(20)}
    done, left = concurrent.futures.wait(futures, DEADLOCK)
    assert (len(done), len(left)) == (20, 0)


def test_callbacks_are_called(executor):
    called = []
    done = threading.Event()

    def call_back(future):
        called.append(future)
        done.set()

    future = executor.submit(square, 3)
    future.add_done_callback(call_back)
    assert done.wait(DEADLOCK)
    assert called == [future]
    future.add_done_callback(call_back)
    assert called == [future, future]


def test_coroutines_wait_for_calls(executor):
    async def main():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, square, number) for number in range(10)]
        assert await asyncio.gather(*calls) == [number**2 for number in range(10)]
        assert await asyncio.wrap_future(executor.submit(square, 5)) == 25

    asyncio.run(main())


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_yields_results_in_order(executor, chunksize):
    squares = executor.map(square, range(20), chunksize=chunksize)
    assert list(squares) == [number**2 for number in range(20)]
    powers = executor.map(pow, range(10), range(2, 20), chunksize=chunksize)
    assert list(powers) == list(map(pow, range(10), range(2, 20)))


def test_map_of_nothing(executor):
    assert list(executor.map(square, [])) == []
    assert list(executor.map(square)) == []


def test_map_raises_at_the_place_of_the_failure(executor):
    results = executor.map(fail_at_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="number 3"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_raises_what_its_input_raises(executor):
    with pytest.raises(ZeroDivisionError):
        list(executor.map(square, (1 // number for number in (1, 0))))


def test_map_that_takes_too_long(make, go):
    executor = make(1, initializer=keep, initargs=(go,))
    results = executor.map(wait_for_go_with, [0, 1], timeout=0.5)
    with pytest.raises(TimeoutError):
        list(results)
    go.put("gone")
    go.put("gone")


def wait_for_go_with(_):
    return wait_for_go()


def test_map_refuses_empty_chunks(executor):
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_initializer_runs_in_every_worker(make):
    executor = make(2, initializer=keep, initargs=("kept",))
    assert [executor.submit(kept).result(DEADLOCK) for _ in range(10)] == ["kept"] * 10


@pytest.mark.filterwarnings("ignore")
def test_initializer_that_raises_breaks_the_executor(make):
    executor = make(1, initializer=refuse_to_start)
    with pytest.raises(BrokenProcessPool):
        executor.submit(square, 1).result(DEADLOCK)
    with pytest.raises(BrokenProcessPool):
        executor.submit(square, 1).result(DEADLOCK)


def test_call_whose_worker_dies_raises_broken_process_pool(make):
    with pytest.raises(BrokenProcessPool):
        make(1).submit(die).result(DEADLOCK)


def test_what_cannot_be_pickled_fails_its_future(executor):
    future = executor.submit(square, threading.Lock())
    with pytest.raises(TypeError, match="pickle"):
        future.result(DEADLOCK)
    assert executor.submit(square, 3).result(DEADLOCK) == 9


def test_shutdown_finishes_what_was_submitted(make):
    executor = make()
    futures = [executor.submit(square, number) for number in range(50)]
    pids = list(executor._processes)
    executor.shutdown()
    assert [future.result(0) for future in futures] == [number**2 for number in range(50)]
    assert all(is_gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def test_shutdown_cancels_what_waits_if_wanted(make, go):
    executor = make(1, initializer=keep, initargs=(go,))
    futures = [executor.submit(wait_for_go) for _ in range(20)]
    go.put("gone")
    assert futures[0].result(DEADLOCK) == "gone"
    executor.shutdown(wait=False, cancel_futures=True)
    for _ in range(20):
        go.put("gone")
    # The original never tells those that wait for it of a future that it cancels.
    end = time.monotonic() + DEADLOCK
    while not all(future.done() for future in futures) and time.monotonic() < end:
        time.sleep(0.01)
    assert sum(future.cancelled() for future in futures) >= 15


def test_executor_is_a_context_manager(make):
    with make() as executor:
        future = executor.submit(square, 3)
    assert future.done()


def test_dropped_executor_finishes_its_calls(mp, ctx):
    home = {"multiprocessing": "concurrent.futures", "procession": "procession.futures"}
    executor = importlib.import_module(home[mp.__name__]).ProcessPoolExecutor(2, ctx)
    futures = [executor.submit(square, number) for number in range(20)]
    del executor
    assert [future.result(DEADLOCK) for future in futures] == [n**2 for n in range(20)]
    end = time.monotonic() + DEADLOCK
    while mp.active_children():
        assert time.monotonic() < end, "its workers stay"
        time.sleep(0.01)


@pytest.mark.parametrize("max_workers", [0, -1])
def test_executor_without_workers_is_refused(make, max_workers):
    with pytest.raises(ValueError, match="greater than 0"):
        make(max_workers)


def test_arguments_that_are_refused(make):
    with pytest.raises(TypeError, match="callable"):
        make(1, initializer="text")
    with pytest.raises(TypeError, match="integer"):
        make(1, max_tasks_per_child=1.5)
    with pytest.raises(ValueError, match=">= 1"):
        make(1, max_tasks_per_child=0)
