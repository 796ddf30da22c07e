"""Count primes with the help of workers, here or on other machines.

    python examples/python/task_master.py [HOST] [KEY]

Prints the port at which workers find it. A worker is `task_worker.py`, or
`crates/procession/examples/task_worker.rs`; any number of them may come and go at any time. One
that is killed costs the task that it had, so a task without a result is handed out again.
"""

import queue
import sys
from multiprocessing.managers import BaseManager

LIMIT = 200_000
STEP = 10_000
PRIMES = 17_984  # below the limit, to check
PATIENCE = 30  # seconds without a result, after which the tasks that lack one are handed out again

tasks = queue.Queue()
results = queue.Queue()


def get_tasks():
    return tasks


def get_results():
    return results


class Master(BaseManager):
    """Holds the queues, in a process of its own."""


Master.register("get_tasks", callable=get_tasks)
Master.register("get_results", callable=get_results)


def count_primes(to_do, done):
    missing = {(first, first + STEP) for first in range(0, LIMIT, STEP)}
    total = 0
    hand_out = True
    while missing:
        if hand_out:
            for task in sorted(missing):
                to_do.put(task)
        try:
            task, count = done.get(timeout=PATIENCE)
        except queue.Empty:
            hand_out = True
            continue
        hand_out = False
        if task in missing:
            missing.remove(task)
            total += count
    return total


def main():
    host = sys.argv[1] if len(sys.argv) > 1 else "localhost"
    key = sys.argv[2] if len(sys.argv) > 2 else "example"
    with Master(address=(host, 0), authkey=key.encode()) as master:
        print(master.address[1], flush=True)
        total = count_primes(master.get_tasks(), master.get_results())
    print(f"{total} primes below {LIMIT}")
    return 0 if total == PRIMES else 1


if __name__ == "__main__":
    sys.exit(main())
