"""Measurements of pools and executors: `python benches/pools.py CONTENDER CASE SCALE`.

As `cases.py`, with more contenders: `concurrent.futures`, `mpire`, `joblib`, `loky` and `pebble`,
where they offer what a case is about. Two workers everywhere. Arrays are made anew for each run,
since joblib recognizes those that it has written to a file before.
"""

import time

WORKERS = 2
ARRAY = 1_000_000  # numbers of 8 bytes
METHOD = "fork"  # for all but the cases that say another one


def successor(number):
    return number + 1


def ends_of(array):
    return float(array[0] + array[-1])


def pass_back(array):
    return array


class Multiprocessing:
    """`Pool` of `multiprocessing` or of `procession`."""

    def __init__(self, package, method):
        from importlib import import_module

        self._ctx = import_module(package).get_context(method)

    def __enter__(self):
        self._pool = self._ctx.Pool(WORKERS)
        return self

    def __exit__(self, *_):
        self._pool.close()
        self._pool.join()

    def each(self, function, items):
        return self._pool.map(function, items, chunksize=1)

    def chunks(self, function, items):
        return self._pool.map(function, items)

    def call(self, function, item):
        return self._pool.apply(function, (item,))

    def calls(self, function, items):
        results = [self._pool.apply_async(function, (item,)) for item in items]
        return [result.get() for result in results]

    def unordered(self, function, items):
        return list(self._pool.imap_unordered(function, items, chunksize=1))


class Executor:
    """An executor as that of `concurrent.futures`."""

    def __init__(self, executor):
        self._executor = executor

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._executor.shutdown(wait=True)

    def each(self, function, items):
        return list(self._executor.map(function, items))

    def call(self, function, item):
        return self._executor.submit(function, item).result()

    def calls(self, function, items):
        futures = [self._executor.submit(function, item) for item in items]
        return [future.result() for future in futures]


def futures(method):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    return Executor(ProcessPoolExecutor(WORKERS, mp_context=get_context(method)))


def procession_futures(method):
    from procession import get_context
    from procession.futures import ProcessPoolExecutor

    return Executor(ProcessPoolExecutor(WORKERS, mp_context=get_context(method)))


def loky():
    from loky import ProcessPoolExecutor

    # By its own start method, which is like spawn.
    return Executor(ProcessPoolExecutor(WORKERS))


class Pebble(Executor):
    """The pool of `pebble`, call by call."""

    def __init__(self, method):
        from multiprocessing import get_context

        from pebble import ProcessPool

        self._executor = ProcessPool(max_workers=WORKERS, context=get_context(method))

    def __exit__(self, *_):
        self._executor.close()
        self._executor.join()

    def each(self, function, items):
        return list(self._executor.map(function, items).result())

    def call(self, function, item):
        return self._executor.schedule(function, args=[item]).result()

    def calls(self, function, items):
        futures = [self._executor.schedule(function, args=[item]) for item in items]
        return [future.result() for future in futures]


class Mpire:
    """The pool of `mpire`."""

    def __init__(self, method):
        from mpire import WorkerPool

        self._pool = WorkerPool(WORKERS, start_method=method, keep_alive=True)

    def __enter__(self):
        self._pool.__enter__()
        return self

    def __exit__(self, *_):
        self._pool.stop_and_join()

    def each(self, function, items):
        return self._pool.map(function, single(items), chunk_size=1, concatenate_numpy_output=False)

    def chunks(self, function, items):
        return self._pool.map(function, single(items))

    def call(self, function, item):
        return self._pool.apply(function, (item,))

    def calls(self, function, items):
        results = [self._pool.apply_async(function, (item,)) for item in items]
        return [result.get() for result in results]


def single(items):
    """Each as the one argument of a call: `mpire` takes arrays and tuples apart."""
    return [(item,) for item in items]


class Joblib:
    """`Parallel` of `joblib`, with the workers of `loky`."""

    def __init__(self):
        from joblib import Parallel

        self._parallel = Parallel(n_jobs=WORKERS)

    def __enter__(self):
        self._parallel.__enter__()
        return self

    def __exit__(self, *exc_info):
        from joblib.externals.loky import get_reusable_executor

        self._parallel.__exit__(*exc_info)
        get_reusable_executor().shutdown(wait=True)

    def chunks(self, function, items):
        from joblib import delayed

        return self._parallel(delayed(function)(item) for item in items)

    # It decides by itself how many items go into a task.
    each = chunks


def context(contender, method):
    """How to make the pool of a contender."""
    makers = {
        "concurrent.futures": lambda: futures(method),
        "procession, futures": lambda: procession_futures(method),
        "joblib": Joblib,
        "loky": loky,
        "mpire": lambda: Mpire(method),
        "pebble": lambda: Pebble(method),
    }
    return makers.get(contender) or (lambda: Multiprocessing(contender, method))


def timed(make, work, prepared=None):
    """Return the seconds that `work` takes with a pool whose workers are up."""
    with make() as pool:
        pool.each(successor, range(8 * WORKERS))
        start = time.perf_counter()
        results = work(pool, prepared)
        seconds = time.perf_counter() - start
    return seconds, results


def of_numbers(way):
    def measure(make, count):
        seconds, results = timed(make, lambda pool, _: getattr(pool, way)(successor, range(count)))
        assert sorted(results) == list(range(1, count + 1))
        return seconds

    return measure


def call_by_call(make, count):
    def work(pool, _):
        return [pool.call(successor, number) for number in range(count)]

    seconds, results = timed(make, work)
    assert results[-1] == count
    return seconds


def arrays(way, function):
    def measure(make, count):
        import numpy

        made = [numpy.full(ARRAY, float(number)) for number in range(count)]
        seconds, results = timed(make, lambda pool, made: getattr(pool, way)(function, made), made)
        last = results[-1]
        assert last == 2.0 * (count - 1) if function is ends_of else last[-1] == count - 1
        return seconds

    return measure


def lifetimes(make, count):
    """Pools that are made, carry out one call and are closed."""
    one_call(make)
    start = time.perf_counter()
    for _ in range(count):
        one_call(make)
    return time.perf_counter() - start


def one_call(make):
    with make() as pool:
        assert pool.call(successor, 1) == 2


# As in `cases.py`: the start method, the function, the number of operations, what one is called,
# and the bytes that it moves.
CASES = {
    "map, one item per task": (METHOD, of_numbers("each"), 50_000, "tasks", 0),
    "map, default chunks": (METHOD, of_numbers("chunks"), 1_000_000, "items", 0),
    "one call at a time": (METHOD, call_by_call, 5_000, "calls", 0),
    "20,000 calls at once": (METHOD, of_numbers("calls"), 20_000, "calls", 0),
    "imap_unordered": (METHOD, of_numbers("unordered"), 50_000, "tasks", 0),
    "NumPy, 8 MB in": (METHOD, arrays("each", ends_of), 64, "arrays", 8 * ARRAY),
    "NumPy, 8 MB in and out": (METHOD, arrays("each", pass_back), 64, "arrays", 16 * ARRAY),
    "life of a pool, fork": ("fork", lifetimes, 50, "pools", 0),
    "life of a pool, spawn": ("spawn", lifetimes, 10, "pools", 0),
    "life of a pool, forkserver": ("forkserver", lifetimes, 50, "pools", 0),
}

# Who else takes part, besides `multiprocessing` and `procession`.
EXECUTORS = ("concurrent.futures", "procession, futures", "loky", "pebble")
PEERS = {
    "map, one item per task": (*EXECUTORS, "mpire"),
    "map, default chunks": ("mpire", "joblib"),
    "one call at a time": (*EXECUTORS, "mpire"),
    "20,000 calls at once": (*EXECUTORS, "mpire"),
    "NumPy, 8 MB in": (*EXECUTORS, "mpire", "joblib"),
    "NumPy, 8 MB in and out": (*EXECUTORS, "mpire", "joblib"),
    "life of a pool, fork": ("concurrent.futures", "procession, futures", "pebble", "mpire"),
    "life of a pool, spawn": ("concurrent.futures", "procession, futures"),
    "life of a pool, forkserver": ("concurrent.futures", "procession, futures"),
}

if __name__ == "__main__":
    from cases import main

    main(CASES, context)
