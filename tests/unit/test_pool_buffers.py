"""Large buffers of tasks and of results, which lie in shared memory apart from the pickle."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

import procession
from procession.futures import ProcessPoolExecutor
from tests.unit.test_large_messages import LARGE, Grid, grid

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

ROOT = pathlib.Path(__file__).resolve().parents[2]


def fill_of(sent):
    return sent.view()[LARGE - 1]


def describe(sent):
    """Return what the worker has, and then write to it."""
    view = sent.view()
    seen = type(sent.cells).__name__, view.readonly, view[0]
    view[0] = 99
    return seen


def give(fill):
    return grid(fill=fill)


def give_two(first, second):
    return [grid(fill=first), grid(fill=second), second]


def pass_back(sent):
    sent.view()[0] += 1
    return sent


def spoil_and_die_once(path, sent):
    """Write over the argument and kill the worker, unless another one has been here before."""
    view = sent.view()
    first = view[0]
    view[:] = bytes(len(view))
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return type(sent.cells).__name__, first, view[0]
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def refuse_the_first(sent):
    if sent.view()[0] == 0:
        raise ValueError("the first")


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def hold(sent, begun):
    begun.release()
    signal.pause()
    return sent


@pytest.fixture
def pool():
    with procession.get_context("fork").Pool(2) as pool:
        yield pool
    pool.join()


def test_worker_gets_a_view_that_it_may_write_to(pool):
    sent = grid(fill=3)
    expected = ("ReceivedBuffer", False, 3)
    assert pool.apply(describe, (sent,)) == expected
    assert pool.starmap(describe, [(sent,)]) == [expected]
    for chunksize in (1, 2):
        items = [grid(fill=3) for _ in range(4)]
        assert pool.map(describe, items, chunksize) == [expected] * 4
        assert list(pool.imap(describe, items, chunksize)) == [expected] * 4
        assert list(pool.imap_unordered(describe, items, chunksize)) == [expected] * 4
    assert sent.view()[0] == 3, "a worker has written to what is the caller's"


def test_read_only_buffer_stays_read_only(pool):
    sent = Grid(b"x" * LARGE)
    with pytest.raises(TypeError, match="read-only"):
        pool.apply(describe, (sent,))


def test_results_are_views_that_may_be_written_to(pool):
    for chunksize in (1, 3):
        received = pool.map(give, range(6), chunksize)
        assert [fill_of(one) for one in received] == list(range(6))
        assert {type(one.cells).__name__ for one in received} == {"ReceivedBuffer"}
        received[1].view()[:] = bytes([77]) * LARGE
        assert [fill_of(one) for one in received] == [0, 77, 2, 3, 4, 5]
        assert [fill_of(one) for one in pool.imap(give, range(6), chunksize)] == list(range(6))
    first, second, number = pool.apply(give_two, (7, 8))
    assert (fill_of(first), fill_of(second), number) == (7, 8, 8)


def test_argument_that_is_passed_back(pool):
    sent = grid(fill=4)
    received = pool.apply(pass_back, (sent,))
    assert received.view()[:2] == bytes([5, 4])
    assert sent.view()[0] == 4


def test_results_outlive_the_pool():
    with procession.get_context("fork").Pool(2) as pool:
        received = pool.map(give, range(4))
        pool.close()
        pool.join()
    assert [fill_of(one) for one in received] == list(range(4))


def test_executor_passes_them_too():
    with ProcessPoolExecutor(2) as executor:
        assert executor.submit(describe, grid(fill=3)).result() == ("ReceivedBuffer", False, 3)
        received = list(executor.map(pass_back, [grid(fill=fill) for fill in range(4)]))
    assert [one.view()[0] for one in received] == [1, 2, 3, 4]


def test_every_start_method_passes_them(make_pool):
    pool = make_pool(1)
    assert pool.map(describe, [grid(fill=6)]) == [("ReceivedBuffer", False, 6)]
    assert fill_of(pool.apply(give, (9,))) == 9


@pytest.mark.parametrize("of_the_call", [False, True])
def test_task_that_is_tried_again_finds_what_was_sent(make_pool, tmp_path, of_the_call):
    pool = make_pool(1, retries=0 if of_the_call else 2)
    task = (str(tmp_path / "first"), grid(fill=5))
    limits = {"retries": 1} if of_the_call else {}
    again = pool.apply_async(spoil_and_die_once, task, **limits).get(DEADLOCK)
    # A copy: the first attempt has written over the one that it had.
    assert again == ("bytearray", 5, 0)
    assert pool.apply_async(describe, (grid(),), retries=0).get(DEADLOCK)[0] == "ReceivedBuffer"


def test_dead_worker_fails_its_task_alone(pool):
    with pytest.raises(procession.WorkerDiedError):
        pool.apply(die, (grid(),))
    assert pool.map(fill_of, [grid(fill=fill) for fill in range(8)], 1) == list(range(8))


def test_failure_is_told_though_tasks_are_still_being_submitted(pool):
    items = [grid(fill=number) for number in range(40)]
    with pytest.raises(ValueError, match="the first"):
        pool.map(refuse_the_first, items, 1, fail_fast=True)
    assert pool.map(fill_of, items, 1) == list(range(40))


def test_object_that_does_not_pickle_after_large_ones(pool):
    items = [*(grid() for _ in range(20)), threading.Lock()]
    with pytest.raises(TypeError, match="lock"):
        pool.map(type, items, 1)
    assert pool.apply(fill_of, (grid(fill=2),)) == 2


def test_large_bytes_within_other_objects(pool):
    items = [(number, bytes([number]) * LARGE, "é" * 20_000) for number in range(12)]
    for chunksize in (1, 5):
        assert pool.map(tuple, items, chunksize) == items


def in_little_memory(code, tmp_path):
    """Run a program in which there is room for 64 MiB, and return what it prints."""
    script = tmp_path / "program.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PROCESSION_ARENA_MAX": "64M", "PYTHONPATH": search_path()},
        capture_output=True,
        text=True,
        timeout=10 * DEADLOCK,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def search_path():
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


MORE_THAN_FITS = """
import procession
from tests.unit.test_large_messages import grid
from tests.unit.test_pool_buffers import fill_of, pass_back

if __name__ == "__main__":
    with procession.get_context("fork").Pool(2) as pool:
        for chunksize in (1, 3):
            items = (grid(fill=number) for number in range(200))
            assert pool.map(fill_of, items, chunksize) == list(range(200))
        received = pool.imap(pass_back, (grid(fill=number) for number in range(200)), buffersize=16)
        for number, one in enumerate(received):
            assert one.view()[:2] == bytes([number + 1, number])
    print("done")
"""


def test_more_than_there_is_room_for(tmp_path):
    assert in_little_memory(MORE_THAN_FITS, tmp_path) == ["done"]


ENDS = """
import os, signal
import procession
from tests.unit.test_large_messages import grid
from tests.unit.test_pool_buffers import die, fill_of, give, hold

ITEMS = 12


def kill(pool):
    \"\"\"Workers die with the argument in their hands; one task is tried again.\"\"\"
    results = [pool.apply_async(die, (grid(),), retries=number % 2) for number in range(4)]
    for result in results:
        try:
            result.get(300)
        except procession.WorkerDiedError:
            pass


def kill_and_keep_nothing(pool):
    \"\"\"Workers are killed whatever they do.\"\"\"
    results = pool.map_async(give, range(ITEMS), 1, retries=5)
    for worker in list(pool._pool):
        worker.kill()
    try:
        results.get(300)
    except procession.WorkerDiedError:
        pass


def cancel(pool, begun):
    held = [pool.apply_async(hold, (grid(), begun)) for _ in range(ITEMS)]
    begun.acquire()
    for result in held:
        result.cancel()


def abandon(pool):
    pool.map_async(give, range(ITEMS), 1)
    pool.imap(fill_of, [grid() for _ in range(ITEMS)])


if __name__ == "__main__":
    ctx = procession.get_context("fork")
    begun = ctx.Semaphore(0)
    for round in range(20):
        pool = ctx.Pool(2)
        kill(pool)
        kill_and_keep_nothing(pool)
        cancel(pool, begun)
        abandon(pool)
        pool.terminate()
        pool.join()
        del pool
    # There is room for this only if nearly nothing was left of all that.
    queue = ctx.Queue()
    for _ in range(40):
        queue.put(grid())
    print("room", queue.qsize())
"""


def test_nothing_is_left_of_tasks_that_came_to_a_bad_end(tmp_path):
    assert in_little_memory(ENDS, tmp_path) == ["room", "40"]
