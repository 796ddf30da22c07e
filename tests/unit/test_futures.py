"""What is this package's alone about `ProcessPoolExecutor`."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import procession
from procession import futures

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
HOUR = 3600.0


def square(number):
    return number * number


def own_pid(_=None):
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse_to_start():
    raise RuntimeError("no start")


def process_facts():
    me = procession.current_process()
    return me.name, me.daemon


@pytest.fixture
def executor(ctx):
    with futures.ProcessPoolExecutor(2, ctx) as created:
        yield created


def wait_until(condition):
    end = time.monotonic() + DEADLOCK
    while not condition():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.001)


def test_dead_worker_fails_its_call_alone(executor):
    calls = [executor.submit(square, number) for number in range(20)]
    with pytest.raises(futures.WorkerDiedError) as caught:
        executor.submit(die).result(DEADLOCK)
    assert isinstance(caught.value, BrokenProcessPool)
    assert isinstance(caught.value, procession.WorkerDiedError)
    assert caught.value.exitcode == -signal.SIGKILL
    assert str(caught.value.pid) in str(caught.value)
    assert [call.result(DEADLOCK) for call in calls] == [n * n for n in range(20)]
    assert executor.submit(square, 3).result(DEADLOCK) == 9


def test_reason_why_no_worker_starts_is_told(ctx):
    with futures.ProcessPoolExecutor(1, ctx, refuse_to_start) as executor:
        with pytest.raises(BrokenProcessPool, match="no start"):
            executor.submit(square, 1).result(DEADLOCK)
        with pytest.raises(BrokenProcessPool, match="no start"):
            executor.submit(square, 1)
        with pytest.raises(BrokenProcessPool, match="no start"):
            executor.map(square, [1])


def test_lambdas_travel(executor):
    assert executor.submit(lambda number: number + 1, 1).result(DEADLOCK) == 2
    assert list(executor.map(lambda one, two: one + two, [1, 2], [3, 4])) == [4, 6]


def test_input_of_map_is_read_as_results_are_asked_for(executor):
    read = []
    results = executor.map(square, (read.append(n) or n for n in range(1000)), buffersize=10)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(read) <= 15
    results.close()
    assert len(read) <= 15


@pytest.mark.parametrize("buffersize", [1, 3, 10_000])
def test_map_with_a_buffer_gives_all_results(executor, buffersize):
    options = {"buffersize": buffersize, "chunksize": 3}
    assert list(executor.map(square, range(50), **options)) == [n * n for n in range(50)]
    assert list(executor.map(pow, range(50), [2] * 50, **options)) == [n * n for n in range(50)]


@pytest.mark.parametrize(
    ("buffersize", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)]
)
def test_buffer_that_is_refused(executor, buffersize, error):
    with pytest.raises(error, match="buffersize"):
        executor.map(square, [1], buffersize=buffersize)


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_workers_are_ended(ctx, end):
    executor = futures.ProcessPoolExecutor(1, ctx)
    running = executor.submit(time.sleep, HOUR)
    waiting = executor.submit(time.sleep, HOUR)
    wait_until(running.running)
    processes = list(executor._processes.values())
    getattr(executor, end)()
    with pytest.raises(BrokenProcessPool):
        running.result(DEADLOCK)
    assert waiting.cancelled()
    for process in processes:
        process.join(DEADLOCK)
        assert process.exitcode is not None
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_workers_are_named_and_treated_as_the_original_s(executor):
    name, daemon = executor.submit(process_facts).result(DEADLOCK)
    assert "Process-" in name
    assert daemon is False
    assert executor.submit(own_pid).result(DEADLOCK) in executor._processes


def test_context_of_the_original():
    context = multiprocessing.get_context("fork")
    with futures.ProcessPoolExecutor(2, context) as executor:
        assert isinstance(executor, futures.ProcessPoolExecutor)
        assert executor.submit(square, 3).result(DEADLOCK) == 9
        assert list(executor.map(pow, [1, 2], [2, 2], chunksize=2)) == [1, 4]


def test_subclass_with_a_hook_of_the_original(ctx):
    started = []

    class Noting(futures.ProcessPoolExecutor):
        def _spawn_process(self):
            super()._spawn_process()
            started.extend(self._processes)

    with Noting(1, ctx) as executor:
        assert executor.submit(own_pid).result(DEADLOCK) in started


PROGRAM = """
import concurrent.futures
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

def home(_=None):
    from concurrent.futures.process import ProcessPoolExecutor as found
    return found.__module__

if __name__ == "__main__":
    assert ProcessPoolExecutor is concurrent.futures.ProcessPoolExecutor
    assert concurrent.futures.ThreadPoolExecutor.__module__ == "concurrent.futures.thread"
    with ProcessPoolExecutor(1, multiprocessing.get_context(sys.argv[1])) as executor:
        print(home(), executor.submit(home).result(), list(executor.map(home, [1])))
    ProcessPoolExecutor(1).submit(print, "at the end", flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("before", ["", "import concurrent.futures.process\n"])
def test_programs_that_nobody_changed_get_this_executor(tmp_path, method, before):
    script = tmp_path / "script.py"
    if before:
        script.write_text(before + "import procession\nprocession.install()\n" + PROGRAM)
        command = [sys.executable, script, method]
    else:
        script.write_text(PROGRAM)
        command = [sys.executable, "-m", "procession", script, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLOCK, check=False)
    ours = "procession.futures"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ours} {ours} ['{ours}']\nat the end\n"


def test_without_the_alias_the_original_is_as_it_was():
    assert concurrent.futures.ProcessPoolExecutor.__module__ == "concurrent.futures.process"
