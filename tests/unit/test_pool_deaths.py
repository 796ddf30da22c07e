"""Workers die, at any time and in any way; the pool says so and goes on."""

import os
import pathlib
import random
import re
import signal
import sys
import time

import pytest

import procession

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


def square(number):
    return number * number


def die_at_seven(number):
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def leave_at_seven(number):
    if number == 7:
        os._exit(3)
    return number


def exit_at_seven(number):
    if number == 7:
        sys.exit("seven")
    return number


def die_the_first_time(path):
    """Kill the worker unless it, or another one, has been here before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def fail_to_start(reason):
    raise RuntimeError(reason)


def leave_at_once(status):
    os._exit(status)


def own_pid(_):
    return os.getpid()


def workers_of(pool):
    return [worker.pid for worker in pool._pool]


def ticks_of(pid):
    """Processor time that a process has used, in clock ticks."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def ticks_in_a_second(pids):
    before = sum(map(ticks_of, pids))
    time.sleep(1.0)  # the time that is looked at
    return sum(map(ticks_of, pids)) - before


@pytest.mark.parametrize(
    ("function", "exitcode"), [(die_at_seven, -signal.SIGKILL), (leave_at_seven, 3)]
)
def test_death_of_a_worker_fails_the_task_it_ran(make_pool, function, exitcode):
    pool = make_pool(2)
    results = [pool.apply_async(function, (number,)) for number in range(20)]
    for number, result in enumerate(results):
        if number != 7:
            assert result.get(DEADLOCK) == number
    with pytest.raises(procession.WorkerDiedError) as caught:
        results[7].get(DEADLOCK)
    assert caught.value.exitcode == exitcode
    assert caught.value.pid != os.getpid()
    assert str(caught.value.pid) in str(caught.value)


def test_map_with_a_death_says_which_task(make_pool):
    pool = make_pool(2)
    with pytest.raises(procession.WorkerDiedError) as caught:
        pool.map(die_at_seven, range(20), chunksize=1)
    assert caught.value.task == 7
    assert pool.map(square, range(100)) == [number**2 for number in range(100)]


def test_dead_worker_is_replaced(make_pool):
    pool = make_pool(1)
    for _ in range(5):
        with pytest.raises(procession.WorkerDiedError):
            pool.apply(die_at_seven, (7,))
        assert pool.apply(square, (3,)) == 9


def test_imap_unordered_goes_on_after_a_death(make_pool):
    results = make_pool(2).imap_unordered(die_at_seven, range(50))
    arrived, deaths = [], 0
    while True:
        try:
            arrived.append(next(results))
        except procession.WorkerDiedError:
            deaths += 1
        except StopIteration:
            break
    assert deaths == 1
    assert sorted(arrived) == [number for number in range(50) if number != 7]


def test_exit_of_a_task_is_not_a_hang(make_pool):
    pool = make_pool(2)
    with pytest.raises((SystemExit, procession.WorkerDiedError)):
        pool.apply_async(exit_at_seven, (7,)).get(DEADLOCK)
    assert pool.apply_async(square, (3,)).get(DEADLOCK) == 9


def test_task_is_run_again_if_the_pool_may(make_pool, tmp_path):
    pool = make_pool(2, retries=1)
    paths = [str(tmp_path / str(number)) for number in range(5)]
    pids = pool.map(die_the_first_time, paths, chunksize=1)
    assert all(isinstance(pid, int) for pid in pids)


def test_task_is_not_run_again_for_ever(make_pool):
    pool = make_pool(2, retries=2)
    with pytest.raises(procession.WorkerDiedError):
        pool.apply_async(die_at_seven, (7,)).get(DEADLOCK)
    assert pool.apply(square, (3,)) == 9


def test_idle_worker_that_is_killed_is_replaced(make_pool):
    pool = make_pool(2)
    pool.map(square, range(10))
    for pid in workers_of(pool):
        os.kill(pid, signal.SIGKILL)
    assert pool.map(square, range(100), chunksize=1) == [number**2 for number in range(100)]


SEEN = 512  # of the workers that ran a task last; more than are alive at a time
_noted = []  # in a worker: where it notes that it runs tasks


def note_in(seen):
    _noted.append(seen)


def square_noted(number):
    _noted[0][number % SEEN] = os.getpid()
    return number * number


def kill_workers_while_mapping(ctx, count, seconds, interval):
    """Kill a worker that runs tasks in every interval of a time; every map is right all the same.

    A worker that has not come to run any is left alone: the pool is right to take one that cannot
    start for broken.
    """
    seen = ctx.RawArray("i", SEEN)
    expected = [number * number for number in range(count)]
    chance = random.Random(1)
    deadline = time.monotonic() + seconds
    kills = 0
    with ctx.Pool(2, note_in, (seen,), retries=100_000) as pool:
        while not kills or time.monotonic() < deadline:
            result = pool.map_async(square_noted, range(count), 1)
            # Not for ever: on a slow machine each kill could come before any task is done.
            while not result.ready() and (not kills or time.monotonic() < deadline):
                result.wait(interval)
                running = sorted(set(workers_of(pool)) & set(seen))
                if not running:
                    continue
                try:
                    os.kill(chance.choice(running), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:  # it has died before
                    continue
            assert result.get(DEADLOCK) == expected
    pool.join()


def test_map_is_complete_while_workers_are_killed(ctx):
    kill_workers_while_mapping(ctx, 5_000, 2.0, 0.02)


@pytest.mark.soak
def test_map_is_complete_while_workers_are_killed_for_long(ctx):
    kill_workers_while_mapping(ctx, 100_000, 60.0, 0.02)


def test_worker_that_cannot_start_breaks_the_pool_with_the_reason(make_pool):
    pool = make_pool(2, fail_to_start, ("the reason",))
    with pytest.raises(procession.BrokenPoolError, match="the reason"):
        pool.map_async(square, range(100), 1).get(DEADLOCK)
    with pytest.raises(procession.BrokenPoolError, match="the reason"):
        pool.apply_async(square, (1,)).get(DEADLOCK)


def test_worker_that_leaves_before_it_is_ready_breaks_the_pool(make_pool):
    pool = make_pool(1, leave_at_once, (5,))
    with pytest.raises(procession.BrokenPoolError, match="5"):
        pool.apply_async(square, (1,)).get(DEADLOCK)


def test_terminate_ends_running_tasks(make_pool):
    pool = make_pool(2)
    pool.map(own_pid, range(4), chunksize=1)
    pids = workers_of(pool)
    stuck = [pool.apply_async(time.sleep, (1000,)) for _ in range(2)]
    pool.terminate()
    pool.join()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not any(result.ready() and result.successful() for result in stuck)


def test_idle_pool_uses_no_processor_time():
    with procession.get_context("fork").Pool(64) as pool:
        pool.map(square, range(1000), chunksize=1)
        assert len(set(workers_of(pool))) == 64
        everyone = [os.getpid(), *workers_of(pool)]
        # What spins a while before it sleeps, or has yet to end its start, gets there; a pool that
        # uses any has no such second ever.
        used = ticks_in_a_second(everyone)
        deadline = time.monotonic() + DEADLOCK
        while used > 2 and time.monotonic() < deadline:
            used = ticks_in_a_second(everyone)
    pool.join()
    assert used <= 2, f"{used} ticks of a hundredth of a second in one second"


def test_error_names_process_and_signal(make_pool):
    with pytest.raises(procession.WorkerDiedError) as caught:
        make_pool(1).apply(die_at_seven, (7,))
    assert re.search(rf"{caught.value.pid}.*(9|SIGKILL)", str(caught.value))
