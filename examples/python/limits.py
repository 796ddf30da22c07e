"""What a pool can be told about its calls: limits, giving up, beginning again, and being asked.

python examples/python/limits.py
"""

import asyncio
import os
import sys
import time
from concurrent.futures import CancelledError, as_completed

import procession
from procession.futures import ProcessPoolExecutor


def square(number):
    return number * number


def die_once(path):
    """End the worker, unless one was here before."""
    if os.path.exists(path):
        os.unlink(path)
        return "done by the second worker"
    with open(path, "w"):
        os._exit(1)


def give_calls_limits(pool):
    try:
        pool.apply(time.sleep, (3600,), timeout=0.1)
    except procession.TaskTimeoutError as error:
        print("too long:", error.timeout, "seconds")
    result = pool.apply_async(time.sleep, (3600,))
    result.cancel()
    try:
        result.get()
    except CancelledError:
        print("cancelled")
    print(pool.apply(die_once, (f"/tmp/limits-{os.getpid()}",), retries=1))


def read_input_as_needed(pool):
    numbers = iter(range(10**9))
    results = pool.imap(square, numbers, buffersize=10)
    print([next(results) for _ in range(5)])
    results.cancel()
    print("read no further than", next(numbers))


async def wait_in_coroutines(pool):
    print(await asyncio.gather(*(pool.apply_async(square, (number,)) for number in range(5))))


def submit_futures():
    with ProcessPoolExecutor(2) as executor:
        futures = [executor.submit(square, number) for number in range(5)]
        print(sorted(future.result() for future in as_completed(futures)))


def main():
    with procession.Pool(2, max_memory_per_child=2**30) as pool:
        give_calls_limits(pool)
        read_input_as_needed(pool)
        asyncio.run(wait_in_coroutines(pool))
        print(pool.map(square, range(5), progress="squares"))
        numbers = pool.stats()
        print({name: numbers[name] for name in ("timed_out", "cancelled", "deaths", "retries")})
    submit_futures()
    return 0


if __name__ == "__main__":
    sys.exit(main())
