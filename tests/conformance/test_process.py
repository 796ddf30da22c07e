"""What users rely on from `Process`.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import contextlib
import os
import re
import select
import signal
import sys
import threading

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
SHORT = 0.05  # seconds; long enough to be measured


def do_nothing():
    pass


def send(target, *args, **kwargs):
    target.put((args, kwargs))


def send_facts(ctx, target):
    me = ctx.current_process()
    target.put(
        {
            "pid": os.getpid(),
            "parent": ctx.parent_process().pid,
            "name": me.name,
            "daemon": me.daemon,
            "ident": me.pid,
            "folder": os.getcwd(),
            "arguments": sys.argv,
        }
    )


def wait_for(source):
    source.get()


def exit_with(value):
    sys.exit(value)


def leave_now(status):
    os._exit(status)


def fail(text):
    raise ValueError(text)


def kill_myself(number):
    os.kill(os.getpid(), number)


def try_to_start_a_child(ctx, target):
    try:
        ctx.Process(target=do_nothing).start()
    except AssertionError as error:
        target.put(str(error))


def make_subclass(ctx, target):
    class Subclass(ctx.Process):
        def __init__(self):
            super().__init__(name="subclass")

        def run(self):
            target.put(self.name)

    return Subclass()


@contextlib.contextmanager
def opened_queue(ctx):
    created = ctx.Queue()
    yield created
    created.close()
    created.join_thread()


@contextlib.contextmanager
def waiting_child(ctx, **options):
    """A child that ends when the block does."""
    with opened_queue(ctx) as go:
        child = ctx.Process(target=wait_for, args=(go,), **options)
        child.start()
        yield child
        go.put(None)
        child.join(DEADLOCK)
        assert child.exitcode is not None, "the child hangs"
        child.close()


def run_to_its_end(ctx, target, *args):
    """Return the exit code of a child."""
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join(DEADLOCK)
    exitcode = child.exitcode
    child.close()
    return exitcode


def test_target_runs_with_its_arguments(ctx):
    with opened_queue(ctx) as replies:
        child = ctx.Process(target=send, args=(replies, 1, "two"), kwargs={"three": 3.0})
        child.start()
        assert replies.get(timeout=DEADLOCK) == ((1, "two"), {"three": 3.0})
        child.join(DEADLOCK)
        assert child.exitcode == 0
        child.close()


def test_child_is_another_process_with_this_one_as_its_parent(ctx):
    with opened_queue(ctx) as replies:
        child = ctx.Process(target=send_facts, args=(ctx, replies), name="the child")
        child.start()
        facts = replies.get(timeout=DEADLOCK)
        assert facts["pid"] == facts["ident"] == child.pid == child.ident
        assert facts["pid"] != os.getpid()
        assert facts["parent"] == os.getpid()
        assert facts["name"] == "the child"
        assert facts["daemon"] is False
        assert facts["folder"] == os.getcwd()
        assert facts["arguments"] == sys.argv
        child.join(DEADLOCK)
        child.close()


def test_this_process_is_the_main_process(mp):
    me = mp.current_process()
    assert me.name == "MainProcess"
    assert me.pid == os.getpid()
    assert me.exitcode is None
    assert me.daemon is False


def test_process_without_a_target_does_nothing(ctx):
    assert run_to_its_end(ctx, None) == 0


@pytest.mark.parametrize(
    ("value", "exitcode"),
    [(None, 0), (0, 0), (3, 3), (True, 1), (255, 255), ("a message", 1)],
)
def test_exit_code_of_sys_exit(ctx, value, exitcode):
    assert run_to_its_end(ctx, exit_with, value) == exitcode


def test_exit_code_of_leaving_at_once(ctx):
    assert run_to_its_end(ctx, leave_now, 7) == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_exit_code_of_a_signal_is_its_negative_number(ctx, number):
    assert run_to_its_end(ctx, kill_myself, number) == -number


def test_uncaught_exception_is_printed_and_makes_exit_code_one(ctx, capfd):
    if ctx.get_start_method() == "forkserver":
        pytest.skip("its children write where the server did when it was started")
    child = ctx.Process(target=fail, args=("what went wrong",), name="the failing one")
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 1
    child.close()
    printed = capfd.readouterr().err
    assert "Process the failing one:" in printed
    assert "Traceback (most recent call last):" in printed
    assert "ValueError: what went wrong" in printed


def test_life_of_a_process(ctx):
    with opened_queue(ctx) as go:
        child = ctx.Process(target=wait_for, args=(go,))
        assert child.pid is None
        assert child.exitcode is None
        assert not child.is_alive()
        child.start()
        assert child.pid > 0
        assert child.is_alive()
        assert child.exitcode is None
        assert child in ctx.active_children()
        go.put(None)
        assert child.join(DEADLOCK) is None
        assert child.exitcode == 0
        assert not child.is_alive()
        assert child not in ctx.active_children()
        child.join()  # again, at once
        child.close()


def test_join_with_a_timeout_returns_while_the_child_runs(ctx):
    with waiting_child(ctx) as child:
        child.join(SHORT)
        child.join(0)
        child.join(-1)
        assert child.is_alive()


def test_start_or_join_out_of_turn_is_refused(ctx):
    child = ctx.Process(target=do_nothing)
    with pytest.raises(AssertionError, match="started"):
        child.join()
    child.start()
    with pytest.raises(AssertionError, match="twice"):
        child.start()
    child.join(DEADLOCK)
    child.close()


@pytest.mark.parametrize(
    ("method", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)]
)
def test_process_can_be_ended_from_outside(ctx, method, number):
    with opened_queue(ctx) as go:
        child = ctx.Process(target=wait_for, args=(go,), daemon=True)
        child.start()
        getattr(child, method)()
        child.join(DEADLOCK)
        assert child.exitcode == -number
        getattr(child, method)()  # does nothing to a process that has ended
        child.close()


def test_sentinel_becomes_readable_when_the_process_ends(ctx):
    with opened_queue(ctx) as go:
        child = ctx.Process(target=wait_for, args=(go,))
        child.start()
        assert isinstance(child.sentinel, int)
        assert select.select([child.sentinel], [], [], 0) == ([], [], [])
        go.put(None)
        assert select.select([child.sentinel], [], [], DEADLOCK)[0] == [child.sentinel]
        child.join(DEADLOCK)
        child.close()


def test_sentinel_needs_a_started_process(ctx):
    with pytest.raises(ValueError, match="not started"):
        _ = ctx.Process(target=do_nothing).sentinel


def test_default_names_are_numbered(ctx):
    first, second = (ctx.Process(target=do_nothing).name for _ in range(2))
    assert re.search(r"Process-\d+(:\d+)*$", first)
    assert first != second


def test_name_can_be_changed_and_must_be_text(ctx):
    child = ctx.Process(target=do_nothing, name="before")
    assert child.name == "before"
    child.name = "after"
    assert child.name == "after"
    with pytest.raises(AssertionError):
        child.name = 3


def test_daemon_flag_can_be_set_until_the_start(ctx):
    with opened_queue(ctx) as replies:
        child = ctx.Process(target=send_facts, args=(ctx, replies), daemon=True)
        assert child.daemon is True
        child.daemon = False
        assert child.daemon is False
        child.daemon = True
        child.start()
        with pytest.raises(AssertionError, match="started"):
            child.daemon = False
        assert replies.get(timeout=DEADLOCK)["daemon"] is True
        child.join(DEADLOCK)
        child.close()


def test_daemon_may_not_have_children(ctx):
    with opened_queue(ctx) as replies:
        child = ctx.Process(target=try_to_start_a_child, args=(ctx, replies), daemon=True)
        child.start()
        assert "daemonic" in replies.get(timeout=DEADLOCK)
        child.join(DEADLOCK)
        child.close()


def test_close_needs_an_ended_process_and_ends_the_object(ctx):
    with waiting_child(ctx) as child, pytest.raises(ValueError, match="running"):
        child.close()
    for use in (child.is_alive, child.join, child.start, lambda: child.exitcode):
        with pytest.raises(ValueError, match="closed"):
            use()
    child.close()  # a second time is fine


def test_run_can_be_overridden(mp):
    ctx = mp.get_context("fork")  # the class is local, so it cannot be pickled
    with opened_queue(ctx) as replies:
        child = make_subclass(ctx, replies)
        child.start()
        assert replies.get(timeout=DEADLOCK) == "subclass"
        child.join(DEADLOCK)
        child.close()


def test_arguments_that_cannot_be_pickled_are_refused_at_start(mp):
    ctx = mp.get_context("spawn")
    child = ctx.Process(target=send, args=(threading.Lock(),))
    with pytest.raises(TypeError, match="cannot pickle"):
        child.start()
    assert not any(child is other for other in ctx.active_children())


def test_forked_child_need_not_pickle_its_arguments(mp):
    ctx = mp.get_context("fork")
    lock = threading.Lock()
    assert run_to_its_end(ctx, lambda: leave_now(int(lock.acquire(timeout=DEADLOCK)))) == 1


def test_wrong_constructor_arguments_are_refused(ctx):
    with pytest.raises(AssertionError):
        ctx.Process(group="not None")
    with pytest.raises(TypeError):
        ctx.Process(target=do_nothing, unknown=1)
    with pytest.raises(TypeError):
        ctx.Process(target=do_nothing, args=3)


def test_repr_says_what_state_it_is_in(ctx):
    child = ctx.Process(target=exit_with, args=(3,), name="shown")
    assert "'shown'" in repr(child)
    assert "initial" in repr(child)
    child.start()
    child.join(DEADLOCK)
    assert "stopped" in repr(child)
    assert "exitcode=3" in repr(child)
    child.close()
    assert "closed" in repr(child)


def test_many_children_at_once(ctx):
    with opened_queue(ctx) as replies:
        children = [ctx.Process(target=send, args=(replies, number)) for number in range(8)]
        for child in children:
            child.start()
        arrived = [replies.get(timeout=DEADLOCK) for _ in children]
        assert sorted(args for args, _ in arrived) == [(number,) for number in range(8)]
        for child in children:
            child.join(DEADLOCK)
            assert child.exitcode == 0
            child.close()


def test_process_made_without_a_context(mp):
    assert run_to_its_end(mp, do_nothing) == 0


def test_cpu_count_is_that_of_the_machine(mp):
    assert mp.cpu_count() == os.cpu_count()
