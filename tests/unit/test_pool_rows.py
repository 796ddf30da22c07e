"""What hangs, storms or leaks with the original's pools does none of that here.

The deaths of workers are in `test_pool_deaths.py`, Ctrl-C in `test_pool_interrupt.py`.
"""

import itertools
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

import procession
from procession.futures import ProcessPoolExecutor

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


class PickyError(Exception):
    """Cannot be made of its own `args`."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unreadable:
    """Is pickled, and cannot be brought back."""

    def __reduce__(self):
        return int, ("no number",)


def square(number):
    return number * number


def raise_picky():
    raise PickyError("one", "two")


def own_pid(_):
    return os.getpid()


def fail_at_zero(number):
    if number == 0:
        raise ValueError("zero")
    return number


def note_start_and_fail(path):
    with open(path, "a") as file:
        file.write("x")
    raise RuntimeError("no start")


def square_in_a_pool(method, number):
    with procession.get_context(method).Pool(1) as pool:
        return pool.apply(square, (number,)), procession.current_process().daemon


def usable_processors():
    return procession.pool.cpu_count()


def test_exception_that_cannot_be_made_again_fails_its_task_alone(make_pool):
    pool = make_pool(2)
    with pytest.raises(TypeError) as caught:
        pool.apply_async(raise_picky).get(DEADLOCK)
    assert "one and two" in str(caught.value.__cause__), "the worker's traceback is lost"
    assert pool.apply(square, (3,)) == 9


def test_executor_survives_an_exception_that_cannot_be_made_again(ctx):
    with ProcessPoolExecutor(1, ctx) as executor:
        error = executor.submit(raise_picky).exception(DEADLOCK)
        assert isinstance(error, TypeError)
        assert "one and two" in str(error.__cause__)
        assert executor.submit(square, 3).result(DEADLOCK) == 9


def test_argument_that_cannot_be_unpickled_fails_its_task_alone(make_pool):
    pool = make_pool(1)
    with pytest.raises(ValueError, match="no number"):
        pool.apply_async(square, (Unreadable(),)).get(DEADLOCK)
    assert pool.apply(square, (3,)) == 9


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_callback_that_raises_ends_nothing(make_pool):
    pool = make_pool(1)

    def refuse(_):
        raise RuntimeError("refused")

    assert pool.apply_async(square, (2,), callback=refuse).get(DEADLOCK) == 4
    assert pool.apply_async(square, (3,)).get(DEADLOCK) == 9


def test_initializer_that_raises_is_run_a_few_times_only(make_pool, tmp_path):
    path = tmp_path / "starts"
    pool = make_pool(2, note_start_and_fail, (path,))
    with pytest.raises(procession.BrokenPoolError, match="no start"):
        pool.apply_async(square, (1,)).get(DEADLOCK)
    pool.terminate()
    pool.join()
    assert 1 <= len(path.read_text()) <= 10


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_busy_pools_end_time_and_again(ctx, end):
    for _ in range(5):
        pool = ctx.Pool(2)
        pool.map_async(square, range(5_000), 1)
        getattr(pool, end)()
        pool.join()


def test_workers_are_replaced_after_their_tasks_while_threads_use_the_pool(make_pool):
    pool = make_pool(2, maxtasksperchild=5)
    pids = []
    threads = [
        threading.Thread(target=lambda: pids.extend(pool.map(own_pid, range(30), chunksize=1)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLOCK)
    assert len(pids) == 90
    assert max(pids.count(pid) for pid in pids) <= 5


def test_executor_replaces_workers_after_their_tasks(ctx):
    with ProcessPoolExecutor(2, ctx, max_tasks_per_child=2) as executor:
        pids = [executor.submit(own_pid, 0) for _ in range(20)]
        pids = [future.result(DEADLOCK) for future in pids]
    assert max(pids.count(pid) for pid in pids) <= 2


def test_input_is_read_as_results_are_asked_for(make_pool):
    numbers = itertools.count()
    results = make_pool(2).imap(square, numbers, buffersize=10)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert next(numbers) <= 15


def test_first_failure_is_raised_at_once_if_wanted(make_pool):
    hour = 3600
    with pytest.raises(ValueError, match="zero"):
        make_pool(2).starmap(fail_or_wait, [(0, hour), (1, hour), (2, hour)], 1, fail_fast=True)


def fail_or_wait(number, seconds):
    fail_at_zero(number)
    time.sleep(seconds)


def test_forgotten_pool_keeps_no_program_from_ending(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import procession\n"
        "if __name__ == '__main__':\n"
        "    pool = procession.Pool(2)\n"
        "    print(pool.map(abs, [-1, -2]))\n"
        "    results = [pool.apply_async(abs, (-3,))]\n"
        "    pool.own = pool\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=DEADLOCK, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 2]\n", "")


def test_forgotten_pool_warns_and_takes_its_workers_along():
    pool = procession.get_context("fork").Pool(1)
    pid = pool.apply(own_pid, (0,))
    with pytest.warns(ResourceWarning, match="unclosed running"):
        del pool
    assert not pathlib.Path(f"/proc/{pid}").exists() or _is_dead(pid)


def _is_dead(pid):
    return ") Z" in pathlib.Path(f"/proc/{pid}/stat").read_text()


def test_number_of_workers_goes_by_what_this_process_may_use():
    may_use = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(may_use)})
    try:
        with procession.Pool() as pool, procession.pool.ThreadPool() as threads:
            assert len(pool._pool) == len(threads._pool) == 1
        threads.join()
        pool.join()
    finally:
        os.sched_setaffinity(0, may_use)


@pytest.mark.parametrize("inner", ["fork", "spawn", "forkserver"])
def test_task_uses_a_pool_of_its_own(make_pool, inner):
    assert make_pool(1).apply(square_in_a_pool, (inner, 3)) == (9, True)
