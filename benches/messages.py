"""Measurements of queues and connections: `python benches/messages.py CONTENDER CASE SCALE`.

As `cases.py`, with more contenders: `faster-fifo`, the queue of that name out of PyPI, used call by
call like the other queues, and `faster-fifo, get_many`, which takes out what there is at once.
"""

import dataclasses
import os
import time

MIB = 1 << 20
KEY = b"the key of both sides"


@dataclasses.dataclass
class Order:
    """A small object of a user's class."""

    number: int = 7
    customer: str = "Ada Lovelace"
    price: float = 12.5


class WithFasterFifo:
    """A context of `multiprocessing` whose queues are those of faster-fifo."""

    def __init__(self, ctx):
        self._ctx = ctx

    def __getattr__(self, name):
        return getattr(self._ctx, name)

    def Queue(self):  # noqa: N802
        import faster_fifo

        # Its size is fixed, in bytes. A tenth of this was slower for large messages, ten times as
        # much for all of them.
        return faster_fifo.Queue(10 * MIB)


def context(contender, method):
    """The context that stands for a contender, and whether it takes messages out in batches."""
    from importlib import import_module

    if not contender.startswith("faster-fifo"):
        return import_module(contender).get_context(method)
    ctx = WithFasterFifo(import_module("multiprocessing").get_context(method))
    ctx.in_batches = contender.endswith("get_many")
    return ctx


def side(ready, go, work, arguments, done):
    ready.release()
    go.acquire()
    work(*arguments)
    done.release()


def race(ctx, senders, receivers):
    """Run each `(function, *arguments)` in a process of its own; return the seconds from the word
    "go" until all receivers are done."""
    ready, go, done, sent = (ctx.Semaphore(0) for _ in range(4))
    children = [
        ctx.Process(target=side, args=(ready, go, work, arguments, signal))
        for sides, signal in ((senders, sent), (receivers, done))
        for work, *arguments in sides
    ]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    start = time.perf_counter()
    for _ in children:
        go.release()
    for _ in receivers:
        done.acquire()
    seconds = time.perf_counter() - start
    for child in children:
        child.join()
        assert child.exitcode == 0
    return seconds


# Queues.


def put_numbers(queue, count):
    for number in range(count):
        queue.put(number)


def put_again(queue, item, count):
    for _ in range(count):
        queue.put(item)


def get_each(queue, count):
    for _ in range(count):
        queue.get()


def get_batches(queue, count):
    while count > 0:
        count -= len(queue.get_many())


def getting(ctx):
    return get_batches if getattr(ctx, "in_batches", False) else get_each


def queue_of_ints(producers, consumers, make=lambda ctx: ctx.Queue()):
    def measure(ctx, count):
        queue = make(ctx)
        return race(
            ctx,
            [(put_numbers, queue, count // producers)] * producers,
            [(getting(ctx), queue, count // consumers)] * consumers,
        )

    return measure


def queue_of(make_item):
    def measure(ctx, count):
        queue = ctx.Queue()
        item = make_item()
        return race(ctx, [(put_again, queue, item, count)], [(getting(ctx), queue, count)])

    return measure


def megabytes_of_numbers():
    import numpy

    return numpy.arange(1_000_000, dtype="float64")


def get_and_tell(queue, count):
    for _ in range(count):
        queue.get()
        queue.task_done()


def put_and_join(queue, count):
    put_numbers(queue, count)
    queue.join()


def joinable_queue(ctx, count):
    """Until the one who put everything in has been told that it is done."""
    queue = ctx.JoinableQueue()
    return race(ctx, [(get_and_tell, queue, count)], [(put_and_join, queue, count)])


# There and back.


def send_back(get, put, count):
    for _ in range(count):
        put(get())


def ask(put, get, question, count):
    for _ in range(count):
        put(question)
        get()


def round_trip_of_queues(ctx, count):
    there, back = ctx.Queue(), ctx.Queue()
    return race(
        ctx, [(send_back, there.get, back.put, count)], [(ask, there.put, back.get, 7, count)]
    )


def round_trip_of_pipe(ctx, count):
    here, there = ctx.Pipe()
    return race(
        ctx, [(send_back, there.recv, there.send, count)], [(ask, here.send, here.recv, 7, count)]
    )


def on_one_core(measure):
    def pinned(ctx, count):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return measure(ctx, count)

    return pinned


# Pipes, one way.


def send_again(send, item, count):
    for _ in range(count):
        send(item)


def receive_each(receive, count):
    for _ in range(count):
        receive()


def pipe_of(make_item):
    def measure(ctx, count):
        receiver, sender = ctx.Pipe()
        item = make_item()
        return race(
            ctx, [(send_again, sender.send, item, count)], [(receive_each, receiver.recv, count)]
        )

    return measure


def pipe_of_bytes(size):
    def measure(ctx, count):
        receiver, sender = ctx.Pipe()
        block = b"x" * size
        return race(
            ctx,
            [(send_again, sender.send_bytes, block, count)],
            [(receive_each, receiver.recv_bytes, count)],
        )

    return measure


# Listeners and clients.


def connections(ctx):
    from importlib import import_module

    return import_module(f"{type(ctx).__module__.partition('.')[0]}.connection")


def serve_one(listener, count):
    with listener.accept() as connection:
        send_back(connection.recv_bytes, connection.send_bytes, count)


def ask_over_tcp(client, address, count):
    with client(address, authkey=KEY) as connection:
        ask(connection.send_bytes, connection.recv_bytes, b"x" * 17_000, count)


def tcp_round_trip(ctx, count):
    both = connections(ctx)
    with both.Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        return race(
            ctx,
            [(serve_one, listener, count)],
            [(ask_over_tcp, both.Client, listener.address, count)],
        )


def accept_each(listener, count):
    for _ in range(count):
        listener.accept().close()


def connect_again(client, address, count):
    for _ in range(count):
        client(address, authkey=KEY).close()


def connecting(family):
    def measure(ctx, count):
        both = connections(ctx)
        with both.Listener(family=family, backlog=16, authkey=KEY) as listener:
            return race(
                ctx,
                [(accept_each, listener, count)],
                [(connect_again, both.Client, listener.address, count)],
            )

    return measure


def wait_for_pipes(ctx, count):
    """Each time, one of 64 pipes has something."""
    wait = connections(ctx).wait
    pipes = [ctx.Pipe(duplex=False) for _ in range(64)]
    receivers = [receiver for receiver, _ in pipes]
    start = time.perf_counter()
    for number in range(count):
        pipes[number % len(pipes)][1].send_bytes(b"x")
        (ready,) = wait(receivers)
        ready.recv_bytes()
    return time.perf_counter() - start


# Waiting for nothing.

PAUSE = 5.0  # seconds


def get_once(queue, ready, used):
    ready.release()
    start = time.process_time()
    queue.get()
    used.value = time.process_time() - start


def blocked_in_get(ctx, _count):
    """The processor time of a process that waits; `PAUSE` seconds are one operation."""
    queue, ready, used = ctx.Queue(), ctx.Semaphore(0), ctx.RawValue("d", 0.0)
    child = ctx.Process(target=get_once, args=(queue, ready, used))
    child.start()
    ready.acquire()
    time.sleep(PAUSE)
    queue.put(None)
    child.join()
    return used.value


# As in `cases.py`: the start method, the function, the number of operations, what one is called,
# and the bytes that it moves.
CASES = {
    "queue of small ints": ("fork", queue_of_ints(1, 1), 300_000, "messages", 0),
    "queue, two producers": ("fork", queue_of_ints(2, 1), 300_000, "messages", 0),
    "queue, two consumers": ("fork", queue_of_ints(1, 2), 300_000, "messages", 0),
    "queue, 1 KiB": ("fork", queue_of(lambda: b"x" * 1024), 100_000, "messages", 1024),
    "queue, 64 KiB": ("fork", queue_of(lambda: b"x" * 65_536), 10_000, "messages", 65_536),
    "queue, 1 MiB": ("fork", queue_of(lambda: b"x" * MIB), 500, "messages", MIB),
    "queue, NumPy, 8 MB": ("fork", queue_of(megabytes_of_numbers), 50, "messages", 8_000_000),
    "simple queue": (
        "fork",
        queue_of_ints(1, 1, lambda ctx: ctx.SimpleQueue()),
        200_000,
        "messages",
        0,
    ),
    "joinable queue": ("fork", joinable_queue, 100_000, "messages", 0),
    "queues, there and back": ("fork", round_trip_of_queues, 10_000, "round trips", 0),
    "queues, on one core": ("fork", on_one_core(round_trip_of_queues), 10_000, "round trips", 0),
    "pipe of small ints": ("fork", pipe_of(lambda: 7), 200_000, "messages", 0),
    "pipe of small objects": ("fork", pipe_of(Order), 50_000, "messages", 0),
    "pipe, 1 MiB": ("fork", pipe_of_bytes(MIB), 1_000, "messages", MIB),
    "pipe, 64 MiB": ("fork", pipe_of_bytes(64 * MIB), 12, "messages", 64 * MIB),
    "pipe, NumPy, 8 MB": ("fork", pipe_of(megabytes_of_numbers), 100, "messages", 8_000_000),
    "pipe, there and back": ("fork", round_trip_of_pipe, 10_000, "round trips", 0),
    "pipe, on one core": ("fork", on_one_core(round_trip_of_pipe), 10_000, "round trips", 0),
    "TCP, 17,000 bytes": ("fork", tcp_round_trip, 5_000, "round trips", 34_000),
    "connect with a key, TCP": ("fork", connecting("AF_INET"), 500, "connections", 0),
    "connect with a key, UNIX": ("fork", connecting("AF_UNIX"), 500, "connections", 0),
    "wait for 64 pipes": ("fork", wait_for_pipes, 10_000, "waits", 0),
    "blocked in get for 5 s": ("fork", blocked_in_get, 1, "pauses per CPU second", 0),
}

# Who else takes part, besides `multiprocessing` and `procession`.
ONE_BY_ONE, IN_BATCHES = "faster-fifo", "faster-fifo, get_many"
PEERS = {
    "queue of small ints": (ONE_BY_ONE, IN_BATCHES),
    "queue, two producers": (ONE_BY_ONE, IN_BATCHES),
    "queue, 1 KiB": (ONE_BY_ONE, IN_BATCHES),
    "queue, 64 KiB": (ONE_BY_ONE,),
    "queue, 1 MiB": (ONE_BY_ONE,),
    "queues, there and back": (ONE_BY_ONE,),
}

if __name__ == "__main__":
    from cases import main

    main(CASES, context)
