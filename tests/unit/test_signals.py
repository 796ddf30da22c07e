"""Signals that come while, or just before, the main thread waits: their handlers run soon.

One that comes just before interrupts no system call. To have that in each run, another thread gets
the signal while the main thread sleeps: for the main thread it is the same.
"""

import subprocess
import sys

import pytest

LIMIT = 300.0  # seconds; only a wait that ignores the signal takes this long

PROGRAM = """
import faulthandler, signal, socket, sys, threading
import procession

LIMIT = float(sys.argv[2])
LOOKS = 20

class Signalled(Exception):
    pass

def sleeps(thread):
    # The state stands behind the name of the program, which is in parentheses.
    with open(f"/proc/self/task/{thread}/stat") as stat:
        return stat.read().rpartition(") ")[2].startswith("S")

def await_sleep(thread):
    # A main thread that waits for the interpreter sleeps too, but not so often in a row.
    in_a_row = 0
    while in_a_row < LOOKS:
        in_a_row = in_a_row + 1 if sleeps(thread) else 0
        threading.Event().wait(0.001)

def stop(number, frame):
    raise Signalled

def go_on(number, frame):
    went_on.set()
    signal.signal(signal.SIGUSR1, stop)

def send(main, interrupting):
    receiver = main.ident if interrupting else threading.get_ident()
    await_sleep(main.native_id)
    signal.pthread_kill(receiver, signal.SIGUSR1)
    went_on.wait()
    await_sleep(main.native_id)
    signal.pthread_kill(receiver, signal.SIGUSR1)

def never(number):
    threading.Event().wait()

def wait_for(what, ctx):
    if what == "lock":
        lock = ctx.Lock()
        lock.acquire()
        yield lock.acquire
    elif what == "rlock":
        lock = ctx.RLock()
        child = ctx.Process(target=keep, args=(lock, held := ctx.Event()), daemon=True)
        child.start()
        held.wait()
        yield lock.acquire
    elif what == "semaphore":
        yield ctx.Semaphore(0).acquire
    elif what == "condition":
        condition = ctx.Condition()
        with condition:
            yield condition.wait
    elif what == "event":
        yield ctx.Event().wait
    elif what == "barrier":
        yield ctx.Barrier(2).wait
    elif what == "get":
        yield ctx.Queue().get
    elif what == "put":
        queue = ctx.Queue(1)
        queue.put(1)
        yield lambda: queue.put(2)
    elif what == "join":
        queue = ctx.JoinableQueue()
        queue.put(1)
        yield queue.join
    elif what == "recv":
        end, other = ctx.Pipe()
        yield end.recv
    elif what == "poll":
        end, other = ctx.Pipe()
        yield lambda: end.poll(None)
    elif what == "send":
        # A connection made of a bare socket has no shared memory for long messages.
        ours, theirs = socket.socketpair()
        end = procession.connection.Connection(ours.detach())
        yield lambda: end.send_bytes(bytes(1 << 24))
    elif what == "wait":
        end, other = ctx.Pipe()
        yield lambda: procession.connection.wait([end])
    elif what == "accept":
        with procession.connection.Listener() as listener:
            yield listener.accept
    elif what == "process":
        child = ctx.Process(target=never, args=(0,))
        child.start()
        yield child.join
        child.kill()
        child.join()
    else:
        with ctx.Pool(1) as pool:
            if what == "pool get":
                yield pool.apply_async(never, (0,)).get
            elif what == "pool next":
                yield pool.imap(never, [0]).next
            else:
                pool.apply_async(never, (0,))
                pool.close()
                yield pool.join
            pool.terminate()

def keep(lock, held):
    lock.acquire()
    held.set()
    never(0)

if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    went_on = threading.Event()
    for wait in wait_for(sys.argv[1], procession.get_context("fork")):
        signal.signal(signal.SIGUSR1, go_on)
        to = (threading.main_thread(), sys.argv[3] == "interrupting")
        sender = threading.Thread(target=send, args=to)
        sender.start()
        try:
            wait()
        except Signalled:
            print("signalled", went_on.is_set(), flush=True)
        sender.join()
"""

WAITS = [
    "lock",
    "rlock",
    "semaphore",
    "condition",
    "event",
    "barrier",
    "get",
    "put",
    "join",
    "recv",
    "poll",
    "wait",
    "accept",
    "process",
    "pool get",
    "pool next",
    "pool join",
]


def check(folder, what, way):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, what, str(LIMIT), way]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("signalled True\n", 0), ended.stderr


@pytest.mark.parametrize("what", WAITS)
def test_handler_runs_though_the_signal_interrupted_nothing(what, tmp_path):
    check(tmp_path, what, "silent")


@pytest.mark.parametrize("what", [*WAITS, "send"])
def test_handler_runs_when_the_signal_interrupts_the_wait(what, tmp_path):
    # That of `send` has sent a part of its message by then.
    check(tmp_path, what, "interrupting")
