"""Measurements of managers: `python benches/managers.py MODULE CASE SCALE`.

As `cases.py`. "Server" says that the object is in the server's process and is reached by a manager
that was connected, as in a program that the server's own tree of processes did not start; the other
cases use what a started manager makes. Children that are spawned import this file, so it imports
little itself.
"""

import contextlib
import time

CALLERS = 4
PROXIES = 50


def managers(ctx):
    """The module of managers that goes with a context."""
    from importlib import import_module

    package = type(ctx).__module__.partition(".")[0]
    return import_module(f"{package}.managers")


@contextlib.contextmanager
def started(ctx):
    """A manager with a server of its own."""
    with ctx.Manager() as manager:
        yield manager


@contextlib.contextmanager
def connected(ctx):
    """A manager that is connected with the server of another one."""
    with started(ctx) as other:
        # The key is that of this process, which it is by default.
        manager = managers(ctx).SyncManager(other.address, ctx=ctx)
        manager.connect()
        yield manager


def calls(reach, make, operation):
    """Measure `operation(proxy, count)` for the proxy that `make(manager)` returns."""

    def measure(ctx, count):
        with reach(ctx) as manager:
            proxy = make(manager)
            operation(proxy, min(count, 200))
            start = time.perf_counter()
            operation(proxy, count)
            return time.perf_counter() - start

    return measure


def a_dict(manager):
    return manager.dict(key=7)


def get(proxy, count):
    for _ in range(count):
        proxy["key"]


def store(proxy, count):
    for number in range(count):
        proxy["key"] = number


def append(proxy, count):
    for number in range(count):
        proxy.append(number)


def put_and_get(proxy, count):
    for number in range(count):
        proxy.put(number)
        proxy.get()


def make_and_drop(manager, count):
    for _ in range(count):
        manager.dict()


def call_first(proxy, results):
    start = time.perf_counter()
    length = len(proxy)
    results.put(time.perf_counter() - start)
    assert length == 1


def first_calls(reach):
    """The first call that a new process makes by a proxy."""

    def measure(ctx, count):
        with reach(ctx) as manager:
            proxy, results = a_dict(manager), ctx.SimpleQueue()
            seconds = 0.0
            for _ in range(count):
                child = ctx.Process(target=call_first, args=(proxy, results))
                child.start()
                seconds += results.get()
                child.join()
            return seconds

    return measure


def call_often(proxy, ready, go, done, count):
    get(proxy, 100)
    ready.release()
    go.acquire()
    get(proxy, count)
    done.release()


def several_callers(reach):
    """Processes that call at the same time, each by a proxy for a dictionary of its own."""

    def measure(ctx, count):
        with reach(ctx) as manager:
            ready, go, done = (ctx.Semaphore(0) for _ in range(3))
            proxies = [a_dict(manager) for _ in range(CALLERS)]
            children = [
                ctx.Process(target=call_often, args=(proxy, ready, go, done, count // CALLERS))
                for proxy in proxies
            ]
            for child in children:
                child.start()
            for _ in children:
                ready.acquire()
            start = time.perf_counter()
            for _ in children:
                go.release()
            for _ in children:
                done.acquire()
            seconds = time.perf_counter() - start
            for child in children:
                child.join()
            return seconds

    return measure


def starting(and_then):
    """A manager that is started, and what is done then; its end is not counted."""

    def measure(ctx, count):
        begin(ctx, and_then)
        return sum(begin(ctx, and_then) for _ in range(count))

    return measure


def begin(ctx, and_then):
    start = time.perf_counter()
    manager = ctx.Manager()
    try:
        kept = and_then(ctx, manager)
        seconds = time.perf_counter() - start
        del kept
    finally:
        manager.shutdown()
    return seconds


def nothing(_ctx, _manager):
    return None


def dictionary(_ctx, manager):
    proxy = manager.dict()
    proxy["key"] = 7
    assert proxy["key"] == 7
    return proxy


def answer_of_server(_ctx, manager):
    number = manager._number_of_objects()
    assert number == 0
    return number


def lives(ctx, count):
    """A manager from its start to its end, with a call of a dictionary."""
    begin(ctx, dictionary)
    start = time.perf_counter()
    for _ in range(count):
        begin(ctx, dictionary)
    return time.perf_counter() - start


def end_at_once():
    pass


def forks_with_proxies(reach):
    """Children that are forked, start and end, while there are proxies."""

    def measure(ctx, count):
        with reach(ctx) as manager:
            proxies = [manager.dict() for _ in range(PROXIES)]
            seconds = forks(ctx, count)
            assert len(proxies) == PROXIES
            return seconds

    return measure


def forks(ctx, count):
    start = time.perf_counter()
    for _ in range(count):
        child = ctx.Process(target=end_at_once)
        child.start()
        child.join()
        assert child.exitcode == 0
    return time.perf_counter() - start


# As in `cases.py`: the start method, the function, the number of operations, what one is called,
# and the bytes that it moves.
#
# What is asked, as ratios to `multiprocessing`: get, set and append 15, with the object in the
# server 2; put and get of a queue 3; an object made and dropped 10; the first call of a process 3;
# four processes that call 3; a start by fork 1.2, by spawn 2; a fork beside 50 proxies 10.
CASES = {
    "dict, get": ("fork", calls(started, a_dict, get), 10_000, "calls", 0),
    "dict, get, server": ("fork", calls(connected, a_dict, get), 10_000, "calls", 0),
    "dict, set": ("fork", calls(started, a_dict, store), 10_000, "calls", 0),
    "dict, set, server": ("fork", calls(connected, a_dict, store), 10_000, "calls", 0),
    "list.append": (
        "fork",
        calls(started, lambda manager: manager.list(), append),
        10_000,
        "calls",
        0,
    ),
    "list.append, server": (
        "fork",
        calls(connected, lambda manager: manager.list(), append),
        10_000,
        "calls",
        0,
    ),
    "managed queue": (
        "fork",
        calls(started, lambda manager: manager.Queue(), put_and_get),
        5_000,
        "pairs of put and get",
        0,
    ),
    "managed queue, server": (
        "fork",
        calls(connected, lambda manager: manager.Queue(), put_and_get),
        5_000,
        "pairs of put and get",
        0,
    ),
    "a new object": (
        "fork",
        calls(started, lambda manager: manager, make_and_drop),
        500,
        "objects",
        0,
    ),
    "a new object, server": (
        "fork",
        calls(connected, lambda manager: manager, make_and_drop),
        500,
        "objects",
        0,
    ),
    "first call in a process": ("fork", first_calls(started), 100, "first calls", 0),
    "first call, server": ("fork", first_calls(connected), 100, "first calls", 0),
    "4 processes call": ("fork", several_callers(started), 10_000, "calls", 0),
    "4 processes call, server": ("fork", several_callers(connected), 10_000, "calls", 0),
    "Manager(), fork": ("fork", starting(nothing), 30, "starts", 0),
    "Manager(), fork, a dict": ("fork", starting(dictionary), 30, "starts", 0),
    "Manager(), fork, answers": ("fork", starting(answer_of_server), 30, "starts", 0),
    "Manager(), spawn": ("spawn", starting(nothing), 10, "starts", 0),
    "Manager(), spawn, a dict": ("spawn", starting(dictionary), 10, "starts", 0),
    "Manager(), spawn, answers": ("spawn", starting(answer_of_server), 10, "starts", 0),
    "life of a manager, fork": ("fork", lives, 30, "managers", 0),
    "fork with 50 proxies": ("fork", forks_with_proxies(started), 30, "processes", 0),
    "fork with 50, server": ("fork", forks_with_proxies(connected), 30, "processes", 0),
}

if __name__ == "__main__":
    from cases import context, main

    main(CASES, context)
