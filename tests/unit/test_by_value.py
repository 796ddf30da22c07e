"""Functions and classes that have no name which a child could import."""

import contextlib
import functools
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from multiprocessing.reduction import ForkingPickler

import pytest

import procession
from procession import _by_value

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
LIMIT = 300.0  # seconds; the same


class Registered:
    """Has a reducer that only `ForkingPickler` knows."""

    def __reduce__(self):
        raise AssertionError("not by its own reducer")


@pytest.fixture
def _reducer():
    reducers = procession.reduction.ForkingPickler._extra_reducers
    procession.reduction.ForkingPickler.register(Registered, lambda _: (str, ("reduced",)))
    yield
    del reducers[Registered]


def make_adder(number):
    def add(other):
        return other + number

    return add


def make_factorial():
    def factorial(number):
        return 1 if number < 2 else number * factorial(number - 1)

    return factorial


def make_class():
    class Local:
        made = 0

        def __init__(self, number):
            self.number = number

        def __eq__(self, other):
            return isinstance(other, Local) and other.number == self.number

        __hash__ = None

        def double(self):
            return 2 * self.number

        @classmethod
        def make(cls, number):
            return cls(number)

    return Local


def make_named_main():
    """A function that goes by name as one of the main module."""

    def function():
        pass

    function.__module__, function.__qualname__ = "__main__", "named_in_main"
    sys.modules["__main__"].named_in_main = function
    return function


def through_pickle(obj):
    return pickle.loads(_by_value.dumps(obj))


def run_in_child(ctx, target, *args):
    """Return the exit code of a child."""
    child = ctx.Process(target=target, args=args)
    child.start()
    child.join(DEADLOCK)
    exitcode = child.exitcode
    child.close()
    return exitcode


def put_result(queue, function, *args):
    queue.put(function(*args))


def test_lambda():
    assert through_pickle(lambda one: one + 1)(1) == 2


def test_closure_has_the_values_of_the_moment():
    adders = [through_pickle(make_adder(number)) for number in (1, 10)]
    assert [add(1) for add in adders] == [2, 11]


def test_function_that_refers_to_itself():
    assert through_pickle(make_factorial())(5) == 120


def test_instance_of_a_local_class():
    local = make_class()
    copy = through_pickle(local(3))
    assert copy.double() == 6
    assert copy == local(3), "the class that comes back to its process is another one"
    assert type(copy) is local


def test_bound_methods_of_a_local_class():
    local = make_class()
    assert through_pickle(local(3).double)() == 6
    assert through_pickle(local.make)(4).double() == 8


def test_partial_of_a_lambda():
    partial = functools.partial(lambda *args, **options: (args, options), 1, key="word")
    assert through_pickle(partial)(2) == ((1, 2), {"key": "word"})


def test_array_in_a_closure():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1000.0)
    assert through_pickle(lambda: array + 1)().tolist() == (array + 1).tolist()


def test_what_has_a_name_goes_by_it():
    pickled = _by_value.dumps([make_adder, threading.Thread])
    assert pickled == ForkingPickler.dumps([make_adder, threading.Thread])
    assert pickle.loads(pickled) == [make_adder, threading.Thread]


def test_named_parts_of_what_goes_by_value_go_by_name():
    copied, named, cls = through_pickle((lambda: Registered, make_adder, Registered))
    assert named is make_adder
    assert copied() is cls is Registered


@pytest.mark.usefixtures("_reducer")
def test_registered_reducers_count_inside_what_goes_by_value():
    one = Registered()
    assert through_pickle((lambda: one, one))[0]() == "reduced"
    assert through_pickle((lambda: one, one))[1] == "reduced"


@pytest.mark.usefixtures("_reducer")
def test_pickler_of_the_program_is_used(monkeypatch):
    class Mine(procession.reduction.ForkingPickler):
        def reducer_override(self, obj):
            return (str, ("mine",)) if isinstance(obj, Registered) else NotImplemented

    monkeypatch.setattr(procession.reduction, "ForkingPickler", Mine)
    one = Registered()
    assert through_pickle(lambda: one)() == "mine"
    assert through_pickle(make_adder) is make_adder


def test_classes_of_a_registered_metaclass_are_left_to_its_reducer(monkeypatch):
    class Meta(type):
        pass

    local = Meta("local", (), {})
    reducers = procession.reduction.ForkingPickler._extra_reducers
    monkeypatch.setitem(reducers, Meta, lambda cls: (str, (cls.__name__,)))
    assert through_pickle((lambda: 1, local))[1] == "local"


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda one: one, ""),
        (lambda one: {"key": [1, (one,)]}, "['key'][1][0], "),
        (lambda one: lambda: one, ".one (of its closure), "),
        (lambda one: functools.partial(lambda _: 1, one), ".args[0], "),
        (lambda one: make_holder(one).method, ".__self__.held, "),
    ],
    ids=["itself", "containers", "closure", "partial", "method"],
)
def test_error_says_what_cannot_be_pickled(make, path):
    unpicklable = (number for number in range(3))
    with pytest.raises((TypeError, AttributeError)) as refused:
        _by_value.dumps(make(unpicklable))
    (note,) = refused.value.__notes__
    assert f"because of {path}a generator object: TypeError" in note


def make_holder(held):
    class Holder:
        def __init__(self):
            self.held = held

        def method(self):
            return self.held

    return Holder()


def test_error_is_the_one_of_the_standard_library():
    import multiprocessing.reduction

    lock = threading.Lock()
    for unpicklable in (lock, lambda: lock, make_holder(lock)):
        with pytest.raises(Exception, match=r"pickle|local object") as theirs:
            multiprocessing.reduction.ForkingPickler.dumps(unpicklable)
        with pytest.raises(type(theirs.value)) as ours:
            _by_value.dumps(unpicklable)
        assert str(ours.value) == str(theirs.value)


def test_errors_of_reducers_are_not_tried_again():
    class Refuses:
        calls = 0

        def __reduce__(self):
            Refuses.calls += 1
            raise RuntimeError("not to be shared")

    with pytest.raises(RuntimeError, match="not to be shared"):
        _by_value.dumps(Refuses())
    assert Refuses.calls == 1


def test_circle_with_something_unpicklable_in_it_ends():
    circle = {}
    circle["again"] = [circle, threading.Lock()]
    with pytest.raises(TypeError) as refused:
        _by_value.dumps(circle)
    assert "['again'][1], a lock object" in refused.value.__notes__[0]


def test_without_cloudpickle_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    _by_value._cloudpickle.cache_clear()
    _by_value._pickler_by_value.cache_clear()
    with pytest.raises(AttributeError, match="local object") as refused:
        _by_value.dumps(make_adder(1))
    assert "cloudpickle, which is not there" in refused.value.__notes__[0]


class Witness:
    """Lives as long as the frame that has it."""


class Faulty:
    def __reduce__(self):
        raise RuntimeError("not to be shared")


def end_of_refused(unpicklable):
    """Have an object refused; return what tells of the end of this frame."""
    witness = Witness()
    with contextlib.suppress(AttributeError, RuntimeError, TypeError):
        _by_value.dumps(unpicklable)
        raise AssertionError("it was pickled")
    return weakref.ref(witness)


@pytest.mark.parametrize(
    "make",
    [threading.Lock, lambda: make_holder(threading.Lock()), Faulty],
    ids=["by no means", "with a local class", "by its reducer"],
)
def test_frames_of_who_is_refused_end_without_a_collection(make):
    end_of_refused(make())  # what is imported for it the first time leaves garbage
    unpicklable = make()
    gc.collect()
    gc.disable()
    try:
        assert end_of_refused(unpicklable)() is None, "the error is held by its own frames"
    finally:
        gc.enable()


def test_frames_of_who_falls_back_to_names_end_without_a_collection():
    program = """
import gc, threading, weakref
from procession import _by_value

lock = threading.Lock()

class Witness:
    pass

def function():
    return lock

def end_of_dumps():
    witness = Witness()
    assert b"function" in _by_value.dumps(function)
    return weakref.ref(witness)

end_of_dumps()
gc.collect()
gc.disable()
print(end_of_dumps()())
"""
    assert run([sys.executable, "-"], program) == ["None"]


def test_dump_writes_all_or_nothing(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        with pytest.raises(TypeError):
            _by_value.dump([bytes(100_000), threading.Lock()], file)
        assert file.tell() == 0
        _by_value.dump(make_adder(3), file)
        _by_value.dump("behind it", file, protocol=2)
        file.seek(0)
        assert pickle.load(file)(4) == 7
        assert pickle.load(file) == "behind it"


def test_function_as_target_and_argument(ctx, make_queue):
    queue, number = make_queue(), 5
    assert run_in_child(ctx, lambda: queue.put(number)) == 0
    assert queue.get(timeout=DEADLOCK) == 5
    assert run_in_child(ctx, put_result, queue, make_adder(3), 4) == 0
    assert queue.get(timeout=DEADLOCK) == 7


def test_local_class_of_processes(ctx, make_queue):
    queue = make_queue()

    class Local(ctx.Process):
        def run(self):
            queue.put(self.name)

    child = Local(name="local")
    child.start()
    assert queue.get(timeout=DEADLOCK) == "local"
    child.join(DEADLOCK)
    child.close()


def test_unpicklable_argument_of_a_spawned_process_is_named():
    ctx = procession.get_context("spawn")
    child = ctx.Process(target=put_result, args=(1,), kwargs={"lock": threading.Lock()})
    with pytest.raises(TypeError) as refused:
        child.start()
    assert "._kwargs['lock'], a lock object" in refused.value.__notes__[0]
    assert ctx.active_children() == []


def test_descriptors_of_a_spawned_process_arrive():
    # Pickled twice, by name and then by value, they are noted twice for the child.
    from multiprocessing import Pipe

    here, there = Pipe()
    ctx = procession.get_context("spawn")
    assert run_in_child(ctx, lambda: there.send("from the child")) == 0
    there.close()
    assert here.recv() == "from the child"
    with pytest.raises(EOFError):
        here.recv()
    here.close()


def test_functions_as_tasks_of_a_pool(make_pool):
    pool = make_pool(2)
    number = 3
    assert pool.map(lambda one: one + number, range(3)) == [3, 4, 5]
    assert pool.apply(make_factorial(), (5,)) == 120
    assert list(pool.imap(make_adder(1), range(3))) == [1, 2, 3]
    assert pool.starmap(lambda *args: args, [(1, 2)]) == [(1, 2)]


def test_function_of_a_pool_has_the_closure_of_each_call(make_pool):
    pool = make_pool(1)
    number = 1

    def add(other):
        return other + number

    assert pool.map(add, [1]) == [2]
    number = 10
    assert pool.map(add, [1]) == [11]


def test_arguments_and_results_of_a_pool(make_pool):
    pool = make_pool(1)
    local = make_class()
    assert pool.apply(lambda one: local(one.double()), (local(3),)) == local(6)
    assert pool.apply(make_adder, (1,))(2) == 3


def test_exception_of_a_local_class(make_pool):
    class LocalError(Exception):
        pass

    def fail(text):
        raise LocalError(text)

    with pytest.raises(LocalError, match="what went wrong"):
        make_pool(1).apply(fail, ("what went wrong",))


def test_functions_through_a_queue(make_queue):
    queue = make_queue()
    queue.put(make_adder(1))
    assert queue.get(timeout=DEADLOCK)(2) == 3
    with pytest.raises(AttributeError, match="local object"):
        queue.put([1, make_adder(threading.Lock())])
    assert queue.empty(), "nothing was put in"


PROGRAM = """
import procession, sys

SCALE = 10

class Point:
    def __init__(self, x):
        self.x = x

def scaled(point):
    assert isinstance(point, Point), "another class"
    return Point(point.x * SCALE)

def put(queue, point):
    queue.put(scaled(point))

class Child(procession.get_context(METHOD).Process):
    def run(self):
        sys.exit(3)

ctx = procession.get_context(METHOD)
queue = ctx.Queue()
child = ctx.Process(target=put, args=(queue, Point(2)))
child.start()
point = queue.get(timeout=300)
print(type(point) is Point, point.x)
child.join()
child = Child()
child.start()
child.join()
print(child.exitcode)
with ctx.Pool(1) as pool:
    print([one.x for one in pool.map(scaled, [Point(1), Point(2)])])

    # After the worker was started.
    def later(x):
        return scaled(Point(x)).x + 1

    print(pool.map(later, [1, 2]), pool.map(lambda x: x + SCALE, [1]))

    def later(x):
        return x

    print(pool.map(later, [1, 2]))
"""
EXPECTED = ["True 20", "3", "[10, 20]", "[11, 21] [11]", "[1, 2]"]


def run(command, program=""):
    done = subprocess.run(
        command, input=program, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.fixture
def program(ctx):
    return f"METHOD = {ctx.get_start_method()!r}\n{PROGRAM}"


def test_program_on_the_command_line(program):
    assert run([sys.executable, "-c", program]) == EXPECTED


def test_program_from_the_standard_input(program):
    assert run([sys.executable], program) == EXPECTED
    assert run([sys.executable, "-"], program) == EXPECTED


def test_main_module_of_a_directory_and_of_a_package(program, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    assert run([sys.executable, str(package)]) == EXPECTED
    monkeypatch.chdir(tmp_path)
    assert run([sys.executable, "-m", "package"]) == EXPECTED


def test_main_module_of_a_directory_needs_no_cloudpickle_for_what_has_names(ctx, tmp_path):
    (tmp_path / "__main__.py").write_text(f"""
import sys
sys.modules["cloudpickle"] = None

import procession

child = procession.get_context({ctx.get_start_method()!r}).Process(
    target=print, args=("__main__.py has the word in it",)
)
child.start()
child.join()
print(child.exitcode)
""")
    # Its path is among what a child is told, and names no module either.
    assert run([sys.executable, str(tmp_path)]) == ["__main__.py has the word in it", "0"]


def test_pickles_that_name_the_main_module_are_recognized():
    function = make_named_main()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert _by_value._MAIN.search(pickle.dumps(function, protocol))
        assert not _by_value._MAIN.search(pickle.dumps("x/__main__.py", protocol))


def test_forked_worker_keeps_the_globals_that_its_initializer_set():
    program = """
import procession

data = None

def initialize():
    global data
    data = "set"

def read(_):
    return data

with procession.get_context("fork").Pool(1, initialize) as pool:
    print(pool.map(read, [1, 2]))
"""
    assert run([sys.executable, "-c", program]) == ["['set', 'set']"]


def test_function_redefined_after_the_fork_is_the_new_one():
    program = """
import procession

def same(x, default=1):
    return default

with procession.get_context("fork").Pool(1) as pool:
    before = same
    def same(x, default=2):
        return default
    print(pool.map(same, [1]))
    def same(x, default=1):
        return -default
    print(pool.map(same, [1]), before(1))
"""
    assert run([sys.executable, "-c", program]) == ["[2]", "[-1] 1"]


def test_function_of_main_that_holds_what_cannot_be_pickled_works_by_fork():
    program = """
import procession, threading

lock = threading.Lock()

def locked(_):
    with lock:
        return "locked"

with procession.get_context("fork").Pool(1) as pool:
    print(pool.map(locked, [1]))
try:
    procession.get_context("spawn").Process(target=locked).start()
except TypeError as error:
    print(error.__notes__[0].partition("send it ")[2].partition(":")[0])
"""
    assert run([sys.executable, "-c", program]) == [
        "['locked']",
        "by value either, because of ._target.lock (a global), a lock object",
    ]


def test_function_of_a_script_goes_by_name(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import procession
from multiprocessing.reduction import ForkingPickler

from procession import _by_value

class Point:
    pass

def function():
    pass

if __name__ == "__main__":
    assert _by_value.main_comes_along()
    # Not the view itself: under CPython 3.13 one that is alive at exit makes its buffer complain.
    by_name = bytes(procession.reduction.ForkingPickler.dumps([function, Point]))
    assert _by_value.dumps([function, Point]) == by_name
    with procession.get_context("spawn").Pool(1) as pool:
        # With a lambda beside them the pickle is by value, and they still go by name.
        print(pool.apply(lambda point: isinstance(point, Point), (Point(),)))
        print(type(pool.apply(lambda: Point())) is Point)
""")
    assert run([sys.executable, str(script)]) == ["True", "True"]


def test_cloudpickle_is_imported_when_it_is_needed():
    program = """
import sys, procession
from multiprocessing.reduction import ForkingPickler

from procession import _by_value
_by_value.dumps(sys.exit)
print("cloudpickle" in sys.modules)
_by_value.dumps(lambda: 1)
print("cloudpickle" in sys.modules)
"""
    assert run([sys.executable, "-c", program]) == ["False", "True"]


def test_child_forked_while_a_thread_pickles_a_class_can_pickle_one(make_queue):
    queue = make_queue()
    _by_value.dumps(make_class())
    lock = sys.modules["cloudpickle.cloudpickle"]._DYNAMIC_CLASS_TRACKER_LOCK

    def send_class():
        queue.put(make_class()(3).double())
        queue.put(make_class()(4))

    child = procession.get_context("fork").Process(target=send_class)
    with lock:
        child.start()
    assert queue.get(timeout=DEADLOCK) == 6
    assert queue.get(timeout=DEADLOCK).double() == 8
    child.join(DEADLOCK)
    child.close()
