"""Count primes for a master: `task_master.py`, or `crates/procession/examples/task_master.rs`.

    python examples/python/task_worker.py PORT [HOST] [KEY]

Works until the master is gone, which has all results then.
"""

import sys
from multiprocessing.managers import BaseManager


class Master(BaseManager):
    """The master, as its workers see it."""


Master.register("get_tasks")
Master.register("get_results")


def is_prime(number):
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def work(tasks, results):
    while True:
        first, end = tasks.get()
        results.put(((first, end), sum(map(is_prime, range(first, end)))))


def main():
    port = int(sys.argv[1])
    host = sys.argv[2] if len(sys.argv) > 2 else "localhost"
    key = sys.argv[3] if len(sys.argv) > 3 else "example"
    master = Master(address=(host, port), authkey=key.encode())
    master.connect()
    try:
        work(master.get_tasks(), master.get_results())
    except (EOFError, ConnectionError):
        print("the master is gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
