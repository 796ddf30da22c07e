"""One measurement, in a process of its own: `python benches/cases.py MODULE CASE SCALE`.

MODULE is `multiprocessing` or `procession`; SCALE multiplies the number of operations. Prints one
line of JSON: how many operations there were and how many seconds they took. `compare.py` runs this
for both modules in turn. Spawned children import this file, so it imports little itself.
"""

import sys
import time

# As a program would have it at its head: children that import this file import it as well.
if sys.argv[0].endswith("cases.py") and any("NumPy" in argument for argument in sys.argv):
    import numpy as numpy

WORKERS = 2
GIB = 1 << 30


def successor(number):
    return number + 1


def do_nothing():
    pass


def pool_map(ctx, count):
    """`map` with one task per item."""
    with ctx.Pool(WORKERS) as pool:
        pool.map(successor, range(100), chunksize=1)
        start = time.perf_counter()
        results = pool.map(successor, range(count), chunksize=1)
        seconds = time.perf_counter() - start
    assert results == list(range(1, count + 1))
    return seconds


def pool_apply(ctx, count):
    """One task at a time, there and back."""
    with ctx.Pool(WORKERS) as pool:
        pool.map(successor, range(100), chunksize=1)
        start = time.perf_counter()
        for number in range(count):
            pool.apply(successor, (number,))
        return time.perf_counter() - start


def start_and_join(ctx, count):
    # The first one starts the fork server, if that is the method.
    run_child(ctx)
    start = time.perf_counter()
    for _ in range(count):
        run_child(ctx)
    return time.perf_counter() - start


def run_child(ctx):
    child = ctx.Process(target=do_nothing)
    child.start()
    child.join()
    assert child.exitcode == 0


def start_and_join_when_large(ctx, count):
    ballast = b"x" * GIB
    seconds = start_and_join(ctx, count)
    assert len(ballast) == GIB
    return seconds


def import_package(ctx, count):
    """The import alone, in fresh interpreters."""
    import subprocess

    package = "procession" if type(ctx).__module__.startswith("procession") else "multiprocessing"
    code = "from time import perf_counter as now; start = now(); import {}; print(now() - start)"
    command = [sys.executable, "-c", code.format(package)]
    return sum(float(subprocess.check_output(command)) for _ in range(count))


def repeated(make, operation):
    """Measure `operation(made)`, which does it `count` times, on what `make(ctx)` returns."""

    def measure(ctx, count):
        made = make(ctx)
        start = time.perf_counter()
        operation(made, count)
        return time.perf_counter() - start

    return measure


def acquire_and_release(lock, count):
    for _ in range(count):
        lock.acquire()
        lock.release()


def hold(lock, count):
    for _ in range(count):
        with lock:
            pass


def look(event, count):
    for _ in range(count):
        event.is_set()


def set_again(event, count):
    for _ in range(count):
        event.set()


def read_value(number, count):
    for _ in range(count):
        number.value  # noqa: B018


def count_up(number, count):
    for _ in range(count):
        with number.get_lock():
            number.value += 1


def read_items(items, count):
    for _ in range(count):
        items[3]


def read_all(items, count):
    for _ in range(count):
        items[:]


def write_all(items, count):
    values = [0.5] * len(items)
    for _ in range(count):
        items[:] = values


def make_values(ctx, count):
    start = time.perf_counter()
    for _ in range(count):
        ctx.Value("i", 0)
    return time.perf_counter() - start


def shareable_list(ctx, count):
    from importlib import import_module

    package = type(ctx).__module__.partition(".")[0]
    items = import_module(f"{package}.shared_memory").ShareableList(range(10))
    try:
        return repeated(lambda _: items, read_items)(ctx, count)
    finally:
        items.shm.close()
        items.shm.unlink()


def ping_pong(make, side):
    """Two processes in turn; `side(made, number, count)` is what each of them does."""

    def measure(ctx, count):
        made = make(ctx)
        ready, go = ctx.Semaphore(0), ctx.Semaphore(0)
        child = ctx.Process(target=play, args=(side, made, ready, go, count))
        child.start()
        ready.acquire()
        start = time.perf_counter()
        go.release()
        side(made, 0, count)
        seconds = time.perf_counter() - start
        child.join()
        return seconds

    return measure


def play(side, made, ready, go, count):
    ready.release()
    go.acquire()
    side(made, 1, count)


def pass_semaphores(pair, number, count):
    mine, other = pair[number], pair[1 - number]
    for turn in range(count):
        if number or turn:
            mine.acquire()
        other.release()
    if not number:
        mine.acquire()


def pass_events(pair, number, count):
    mine, other = pair[number], pair[1 - number]
    for _ in range(count):
        if number:
            mine.wait()
            mine.clear()
        other.set()
        if not number:
            mine.wait()
            mine.clear()


def pass_condition(made, number, count):
    condition, turn = made
    for _ in range(count):
        with condition:
            condition.wait_for(lambda: turn.value == number)
            turn.value = 1 - number
            condition.notify()


def meet(barrier, _number, count):
    for _ in range(count):
        barrier.wait()


def contend(lock, _number, count):
    for _ in range(count):
        with lock:
            pass


# For each case: the start method, the function, the number of operations, what one is called, and
# the bytes that it moves.
CASES = {
    "pool map, chunksize=1": ("fork", pool_map, 100_000, "tasks", 0),
    "pool apply": ("fork", pool_apply, 5_000, "calls", 0),
    "start and join, fork": ("fork", start_and_join, 200, "processes", 0),
    "start and join, spawn": ("spawn", start_and_join, 20, "processes", 0),
    "start and join, forkserver": ("forkserver", start_and_join, 200, "processes", 0),
    "the same, NumPy in main": ("forkserver", start_and_join, 30, "processes", 0),
    "the same, 1 GiB touched": ("forkserver", start_and_join_when_large, 100, "processes", 0),
    "lock, acquire and release": (
        "fork",
        repeated(lambda ctx: ctx.Lock(), acquire_and_release),
        1_000_000,
        "pairs",
        0,
    ),
    "with lock": ("fork", repeated(lambda ctx: ctx.Lock(), hold), 500_000, "times", 0),
    "Event.is_set": ("fork", repeated(lambda ctx: ctx.Event(), look), 500_000, "calls", 0),
    "Event.set": ("fork", repeated(lambda ctx: ctx.Event(), set_again), 500_000, "calls", 0),
    "ping-pong, semaphores": (
        "fork",
        ping_pong(lambda ctx: (ctx.Semaphore(0), ctx.Semaphore(0)), pass_semaphores),
        20_000,
        "rounds",
        0,
    ),
    "ping-pong, events": (
        "fork",
        ping_pong(lambda ctx: (ctx.Event(), ctx.Event()), pass_events),
        10_000,
        "rounds",
        0,
    ),
    "ping-pong, condition": (
        "fork",
        ping_pong(lambda ctx: (ctx.Condition(), ctx.RawValue("i", 0)), pass_condition),
        10_000,
        "rounds",
        0,
    ),
    "ping-pong, barrier": ("fork", ping_pong(lambda ctx: ctx.Barrier(2), meet), 5_000, "rounds", 0),
    "two contend for a lock": (
        "fork",
        ping_pong(lambda ctx: ctx.Lock(), contend),
        200_000,
        "times",
        0,
    ),
    "Value.value": (
        "fork",
        repeated(lambda ctx: ctx.Value("i", 0), read_value),
        500_000,
        "reads",
        0,
    ),
    "with get_lock(): value += 1": (
        "fork",
        repeated(lambda ctx: ctx.Value("i", 0), count_up),
        200_000,
        "times",
        0,
    ),
    "Array[i]": ("fork", repeated(lambda ctx: ctx.Array("d", 10), read_items), 500_000, "reads", 0),
    "Array[:], a million": (
        "fork",
        repeated(lambda ctx: ctx.Array("d", 1_000_000), read_all),
        20,
        "times",
        0,
    ),
    "Array[:] =, a million": (
        "fork",
        repeated(lambda ctx: ctx.Array("d", 1_000_000), write_all),
        20,
        "times",
        0,
    ),
    "a new Value": ("fork", make_values, 5_000, "values", 0),
    "ShareableList[i]": ("fork", shareable_list, 200_000, "reads", 0),
    "import": ("fork", import_package, 20, "imports", 0),
}


def context(module, method):
    from importlib import import_module

    return import_module(module).get_context(method)


def main(cases, context):
    import json

    contender, case, scale = sys.argv[1], sys.argv[2], float(sys.argv[3])
    method, measure, count, _, _ = cases[case]
    count = max(1, round(count * scale))
    seconds = measure(context(contender, method), count)
    print(json.dumps({"operations": count, "seconds": seconds}))


if __name__ == "__main__":
    main(CASES, context)
