"""What users rely on from contexts and from choosing a start method.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does. What is process-wide is tested in an interpreter of
its own.
"""

import io
import os
import subprocess
import sys

import pytest

LIMIT = 300.0  # seconds; only a deadlock takes this long
DEADLOCK = 300.0  # seconds; the same
METHODS = ["fork", "spawn", "forkserver"]


def run_program(mp, program, *arguments):
    """Return what a program prints in which `mp` is the package under test."""
    program = f"import {mp.__name__} as mp, sys\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.split("\n")[:-1]


def skip_without(mp, method):
    if method not in mp.get_all_start_methods():
        pytest.skip(f"{mp.__name__} does not have {method} yet")


@pytest.fixture(params=METHODS)
def method(mp, request):
    skip_without(mp, request.param)
    return request.param


def test_all_start_methods_are_listed_with_the_default_first(mp):
    methods = mp.get_all_start_methods()
    assert methods[0] == mp.get_context().get_start_method()
    assert set(methods) <= set(METHODS)
    assert {"fork", "spawn"} <= set(methods)
    assert len(set(methods)) == len(methods)


def test_context_of_a_method_has_it_for_good(mp, method):
    ctx = mp.get_context(method)
    assert ctx.get_start_method() == method
    assert ctx.get_start_method(allow_none=True) == method
    assert mp.get_context(method) is ctx
    assert ctx.get_context() is ctx
    assert ctx.get_context(None) is ctx
    assert ctx.get_context("fork") is mp.get_context("fork")
    with pytest.raises(ValueError, match=r"^cannot set start method of concrete context$"):
        ctx.set_start_method(method)
    with pytest.raises(ValueError, match=r"^cannot set start method of concrete context$"):
        ctx.set_start_method(method, force=True)


def test_classes_of_contexts(mp, method):
    name = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}[method]
    ctx = mp.get_context(method)
    assert type(ctx).__name__ == f"{name}Context"
    assert isinstance(ctx, mp.context.BaseContext)
    assert not isinstance(ctx, mp.context.DefaultContext)
    assert ctx.Process.__name__ == f"{name}Process"
    assert issubclass(ctx.Process, mp.process.BaseProcess)
    assert getattr(mp.context, f"{name}Process") is ctx.Process
    assert getattr(mp.context, f"{name}Context") is type(ctx)


def test_process_of_a_context_runs_whatever_the_default_is(mp, method):
    program = """
import os

mp.set_start_method("spawn")
child = mp.get_context(sys.argv[1]).Process(target=os._exit, args=(3,))
child.start()
print(type(child).__name__ == type(mp.get_context(sys.argv[1])).__name__[:-7] + "Process")
child.join()
print(child in mp.active_children(), child.exitcode)
"""
    assert run_program(mp, program, method) == ["True", "False 3"]


def test_what_was_printed_before_comes_before_what_the_child_prints(mp, method):
    program = """
print("before")
child = mp.get_context(sys.argv[1]).Process(target=print, args=("from the child",))
child.start()
child.join()
print("after")
"""
    assert run_program(mp, program, method) == ["before", "from the child", "after"]


@pytest.mark.parametrize("unknown", ["", "Fork", "thread"])
def test_unknown_method_is_refused_by_name(mp, method, unknown):
    for source in (mp, mp.get_context(method)):
        with pytest.raises(ValueError, match=f"^cannot find context for {unknown!r}$"):
            source.get_context(unknown)
    with pytest.raises(ValueError, match=f"^cannot find context for {unknown!r}$"):
        mp.set_start_method(unknown, force=True)


def test_names_of_the_package_are_those_of_the_default_context(mp):
    default = mp.set_start_method.__self__
    assert isinstance(default, mp.context.DefaultContext)
    for name in ("Process", "ProcessError", "BufferTooShort", "TimeoutError"):
        assert getattr(default, name) is getattr(mp, name)
    for name in ("get_context", "Queue", "Pool", "cpu_count", "freeze_support"):
        assert getattr(mp, name).__self__ is default


def test_method_is_not_chosen_before_it_is_asked_for(mp):
    program = """
default = mp.get_all_start_methods()[0]
print(mp.get_start_method(allow_none=True))
print(mp.get_context("spawn").get_start_method(), mp.get_start_method(allow_none=True))
print(mp.get_start_method() == default, mp.get_start_method(allow_none=True) == default)
print(mp.get_context() is mp.get_context(default))
"""
    assert run_program(mp, program) == ["None", "spawn None", "True True", "True"]


def test_get_context_settles_the_method(mp):
    program = """
mp.get_context()
try:
    mp.set_start_method("spawn")
except RuntimeError as error:
    print(error)
print(mp.get_start_method() == mp.get_all_start_methods()[0])
"""
    assert run_program(mp, program) == ["context has already been set", "True"]


def test_method_can_be_set_once(mp, method):
    program = """
mp.set_start_method(sys.argv[1])
for again in ("fork", "spawn"):
    try:
        mp.set_start_method(again)
    except RuntimeError as error:
        print(error)
print(mp.get_start_method(), mp.get_start_method(allow_none=True))
print(mp.get_context() is mp.get_context(sys.argv[1]))
"""
    again = "context has already been set"
    assert run_program(mp, program, method) == [again, again, f"{method} {method}", "True"]


def test_method_can_be_set_by_force_and_taken_back(mp, method):
    program = """
mp.set_start_method("spawn")
mp.set_start_method(sys.argv[1], force=True)
print(mp.get_start_method())
mp.set_start_method(None, force=True)
print(mp.get_start_method(allow_none=True))
mp.set_start_method("spawn")
print(mp.get_start_method())
"""
    assert run_program(mp, program, method) == [method, "None", "spawn"]


def test_method_may_not_be_taken_back_without_force(mp):
    program = """
mp.set_start_method("spawn")
try:
    mp.set_start_method(None)
except RuntimeError as error:
    print(error)
print(mp.get_start_method())
"""
    assert run_program(mp, program) == ["context has already been set", "spawn"]


def test_child_has_the_method_of_its_parent_as_its_default(mp, tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(f"""
import {mp.__name__} as mp, sys

def send(replies):
    replies.put(mp.get_start_method())

if __name__ == "__main__":
    mp.set_start_method(sys.argv[1])
    replies = mp.Queue()
    child = mp.Process(target=send, args=(replies,))
    child.start()
    print(replies.get(timeout={DEADLOCK}))
    child.join()
""")
    done = subprocess.run(
        [sys.executable, str(script), method],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [method]


def test_cpu_count_is_that_of_the_machine(mp, method):
    assert mp.get_context(method).cpu_count() == mp.cpu_count() == os.cpu_count()


def test_exceptions_are_those_of_the_package(mp, method):
    ctx = mp.get_context(method)
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert getattr(ctx, name) is getattr(mp, name)
        assert issubclass(getattr(ctx, name), ctx.ProcessError)


def test_current_process_is_the_same_in_all_contexts(mp, method):
    ctx = mp.get_context(method)
    assert ctx.current_process() is mp.current_process()
    assert ctx.parent_process() is mp.parent_process() is None


def test_freeze_support_does_nothing_in_a_program_that_is_not_frozen(mp, method):
    assert mp.freeze_support() is None
    assert mp.get_context(method).freeze_support() is None


def test_allow_connection_pickling_can_be_called(mp, method):
    assert mp.allow_connection_pickling() is None
    assert mp.get_context(method).allow_connection_pickling() is None


def test_reducer_is_where_picklers_are_registered(mp):
    assert mp.reducer is mp.get_context("fork").reducer
    buffer = io.BytesIO()
    mp.reducer.dump([1, "two"], buffer)
    assert mp.reducer.ForkingPickler.loads(buffer.getvalue()) == [1, "two"]


def test_registered_reducer_is_used_in_every_context(mp):
    program = """
class Secret:
    pass

mp.reducer.register(Secret, lambda _: (str, ("reduced",)))
queue = mp.get_context("fork").Queue()
queue.put(Secret())
print(queue.get(timeout=300))
queue.close()
queue.join_thread()
"""
    assert run_program(mp, program) == ["reduced"]


def test_reducer_can_be_replaced(mp):
    program = """
class Mine:
    pass

ctx = mp.get_context("spawn")
before = ctx.reducer
ctx.reducer = Mine
print(ctx.reducer is Mine, mp.get_context("fork").reducer is Mine)
ctx.reducer = before
print(ctx.reducer is before)
"""
    assert run_program(mp, program) == ["True True", "True"]


def test_set_executable_says_what_children_run(mp, tmp_path):
    program = """
import os

if __name__ == "__main__":
    ctx = mp.get_context("spawn")
    print(os.fsdecode(mp.spawn.get_executable()) == sys.executable)
    ctx.set_executable(sys.argv[1])
    print(os.fsdecode(mp.spawn.get_executable()) == sys.argv[1])
    child = ctx.Process(target=print, args=("not reached",))
    child.start()
    child.join()
    print(child.exitcode)
"""
    # The original has the submodule only once it is imported.
    program = f"import {mp.__name__}.spawn\n{program}"
    executable = tmp_path / "python"
    executable.write_text("#!/bin/sh\nexit 5\n")
    executable.chmod(0o755)
    assert run_program(mp, program, str(executable)) == ["True", "True", "5"]


@pytest.fixture
def preload(mp):
    skip_without(mp, "forkserver")
    return mp.set_forkserver_preload


@pytest.mark.parametrize("names", [[1], [b"os"], ["os", None]])
def test_names_to_be_preloaded_must_be_text(preload, names):
    with pytest.raises(TypeError, match="module_names must be a list of strings"):
        preload(names)


def test_names_to_be_preloaded_can_be_given(mp, preload):
    program = """
mp.set_forkserver_preload(["json", "__main__"])
mp.set_forkserver_preload([])
mp.get_context("forkserver").set_forkserver_preload(["json"])
print("taken")
"""
    assert preload is not None
    assert run_program(mp, program) == ["taken"]
