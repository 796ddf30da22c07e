"""The standard library's process pool executor, with each context."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("this one does not pickle")


def same(item):
    return item


def make_unpicklable(_):
    return Unpicklable()


def fail(item):
    raise KeyError(item)


def be_killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def executor(ctx):
    with ProcessPoolExecutor(2, mp_context=ctx) as created:
        yield created


def test_results_come_in_order(executor):
    assert list(executor.map(same, range(100), timeout=LIMIT)) == list(range(100))
    assert list(executor.map(same, range(100), chunksize=7, timeout=LIMIT)) == list(range(100))


def test_large_objects_go_both_ways(executor):
    item = b"0123456789" * 300_000
    assert executor.submit(same, item).result(LIMIT) == item


def test_exception_of_a_task_comes_back(executor):
    with pytest.raises(KeyError, match="which"):
        executor.submit(fail, "which").result(LIMIT)
    assert executor.submit(same, 1).result(LIMIT) == 1


@pytest.mark.parametrize("task", [(same, Unpicklable()), (make_unpicklable, None)])
def test_what_cannot_be_pickled_fails_its_own_task_alone(executor, task):
    with pytest.raises(RuntimeError, match="does not pickle"):
        executor.submit(*task).result(LIMIT)
    assert executor.submit(same, 1).result(LIMIT) == 1


def test_death_of_a_worker_breaks_the_executor(ctx):
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        with pytest.raises(BrokenProcessPool):
            executor.submit(be_killed, None).result(LIMIT)
        with pytest.raises(BrokenProcessPool):
            executor.submit(same, 1)
