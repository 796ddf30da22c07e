"""Forks that a program makes by itself, with `os.fork`."""

import os
import subprocess
import sys

import pytest

import procession

TIMEOUT = 300.0  # seconds; only a deadlock takes this long


def in_fork(work):
    """Call `work` in a forked child and return the child's exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def queue(make_queue):
    return make_queue()


def test_child_uses_what_it_inherits(queue):
    queue.put("to the child")
    assert in_fork(lambda: queue.put(queue.get(timeout=TIMEOUT) + " and back")) == 0
    assert queue.get(timeout=TIMEOUT) == "to the child and back"


def test_child_has_queues_and_children_of_its_own(queue):
    def work():
        own = procession.get_context("fork").Queue()
        grandchild = procession.get_context("fork").Process(target=own.put, args=("hello",))
        grandchild.start()
        queue.put(own.get(timeout=TIMEOUT))
        grandchild.join()

    assert in_fork(work) == 0
    assert queue.get(timeout=TIMEOUT) == "hello"


def test_queue_outlives_the_process_that_made_it(queue):
    def work():
        made_here = procession.get_context("fork").Queue()
        made_here.put("left behind")
        queue.put(made_here)

    assert in_fork(work) == 0
    assert queue.get(timeout=TIMEOUT).get(timeout=TIMEOUT) == "left behind"


def test_what_the_parent_lets_go_of_stays_the_child_s(queue):
    inherited = [procession.get_context("fork").Queue()]
    inherited[0].put("for the child")
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(hold, 1)
            assert inherited[0].get(timeout=TIMEOUT) == "for the child"
            inherited[0].put("still there")
            queue.put(inherited[0].get(timeout=TIMEOUT))
            code = 0
        finally:
            os._exit(code)
    inherited.clear()
    os.write(release, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(hold)
    os.close(release)
    assert queue.get(timeout=TIMEOUT) == "still there"


def test_pool_is_the_parent_s(make_pool):
    pool = make_pool(1)
    assert pool.apply(os.getpid) != os.getpid()

    def work():
        with pytest.raises(RuntimeError, match="belongs to process"):
            pool.apply(os.getpid)

    assert in_fork(work) == 0
    assert pool.apply(os.getpid) != os.getpid()


PRINTING = """
import sys, threading
import procession

def print_on(done):
    number = 0
    while not done.is_set():
        print(number)
        number += 1
        if number % 50 == 0:
            done.wait(0.0005)

if __name__ == "__main__":
    done = threading.Event()
    thread = threading.Thread(target=print_on, args=(done,))
    thread.start()
    ctx = procession.get_context("fork")
    for _ in range(100):
        child = ctx.Process(target=int)
        child.start()
        child.join()
    done.set()
    thread.join()
"""


def test_child_does_not_write_what_another_thread_has_printed(tmp_path):
    script = tmp_path / "printing.py"
    script.write_text(PRINTING)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    numbers = list(map(int, done.stdout.split()))
    assert numbers == list(range(len(numbers)))
