"""What `Value` and `Array` have beyond the original, and how they get on with it."""

import ctypes
import gc
import multiprocessing
import multiprocessing.sharedctypes

import pytest

from procession import sharedctypes
from procession._procession import SynchronizedBase

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


def test_wrappers_are_the_original_s_too(ctx):
    original = multiprocessing.sharedctypes
    for obj, classes in [
        (ctx.Value("i"), (original.Synchronized, sharedctypes.Synchronized)),
        (ctx.Array("i", 2), (original.SynchronizedArray, sharedctypes.SynchronizedArray)),
        (ctx.Array("c", 2), (original.SynchronizedString, sharedctypes.SynchronizedString)),
        (ctx.Value(Point), (original.SynchronizedBase, sharedctypes.SynchronizedBase)),
    ]:
        for class_ in classes:
            assert isinstance(obj, class_)


def test_objects_pass_through_a_queue(make_queue):
    queue = make_queue()
    number = sharedctypes.RawValue("q", 2**40)
    points = sharedctypes.RawArray(Point, [(1, 1.5), (2, 2.5)])
    queue.put((number, points))
    same_number, same_points = queue.get()
    same_number.value += 1
    same_points[1].x = 20
    assert (number.value, points[1].x) == (2**40 + 1, 20)


def test_object_lives_while_only_a_queue_has_it(make_queue):
    queue = make_queue()
    numbers = sharedctypes.RawArray("i", [1, 2, 3])
    queue.put(numbers)
    del numbers
    gc.collect()
    others = [sharedctypes.RawArray("i", [9, 9, 9]) for _ in range(100)]
    assert list(queue.get()) == [1, 2, 3]
    del others


def increment(number):
    number.value += 1


def test_object_is_passed_to_a_task(make_pool):
    pool = make_pool(1)
    number = sharedctypes.RawValue("i", 5)
    pool.apply(increment, (number,))
    assert number.value == 6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_original_s_objects_still_go_to_its_children(method):
    sharedctypes.RawValue("i")  # its reducer is the last one that was registered
    context = multiprocessing.get_context(method)
    number = context.RawValue("i", 5)
    child = context.Process(target=increment, args=(number,))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()
    assert number.value == 6


def test_object_is_not_made_in_too_little_memory():
    wrapper = sharedctypes.BufferWrapper(4)
    with pytest.raises(ValueError, match="4 bytes are too few for c_double"):
        sharedctypes.rebuild_ctype(ctypes.c_double, wrapper, None)


def test_wrapper_without_init_says_so():
    wrapper = SynchronizedBase()
    with pytest.raises(RuntimeError, match="__init__"):
        wrapper.get_obj()


def test_lock_that_fails_leaves_the_value_alone():
    class Refusing:
        def acquire(self):
            raise InterruptedError

        def release(self):
            raise AssertionError("it was not acquired")

    value = sharedctypes.Value("i", 5, lock=Refusing())
    with pytest.raises(InterruptedError):
        value.value = 6
    with pytest.raises(InterruptedError):
        _ = value.value
    assert value.get_obj().value == 5


class Counting:
    """A lock that counts."""

    def __init__(self):
        self.held = 0
        self.times = 0

    def acquire(self):
        self.held += 1
        self.times += 1

    def release(self):
        self.held -= 1


def test_every_access_holds_the_lock_once():
    lock = Counting()
    value = sharedctypes.Value("i", lock=lock)
    numbers = sharedctypes.Array("i", 3, lock=lock)
    text = sharedctypes.Array("c", 3, lock=lock)
    point = sharedctypes.Value(Point, lock=lock)
    accesses = [
        lambda: value.value,
        lambda: setattr(value, "value", 1),
        lambda: numbers[0],
        lambda: numbers[:],
        lambda: numbers.__setitem__(0, 1),
        lambda: numbers.__setitem__(slice(0, 1), [1]),
        lambda: text.raw,
        lambda: setattr(text, "value", b"a"),
        lambda: point.x,
        lambda: setattr(point, "y", 1.0),
    ]
    for count, access in enumerate(accesses, 1):
        access()
        assert (lock.times, lock.held) == (count, 0)


def test_lock_is_released_after_an_error():
    lock = Counting()
    value = sharedctypes.Value("i", lock=lock)
    with pytest.raises(TypeError):
        value.value = "text"
    with pytest.raises(IndexError):
        sharedctypes.Array("i", 3, lock=lock)[3]
    assert (lock.times, lock.held) == (2, 0)


def test_field_of_a_wrapper_cannot_be_deleted():
    point = sharedctypes.Value(Point, lock=Counting())
    with pytest.raises(AttributeError, match="cannot delete x"):
        del point.x
