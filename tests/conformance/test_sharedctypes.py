"""What users rely on from `Value`, `Array` and the functions around them.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import array
import ctypes
import gc
import importlib
import importlib.util
import subprocess
import sys

import pytest

from tests.children import run

DEADLOCK = 300.0  # seconds; only a deadlock takes this long

NUMBERS = [  # type code, value, another value
    ("b", -100, 7),
    ("B", 200, 7),
    ("h", -30_000, 7),
    ("H", 60_000, 7),
    ("i", -(2**31), 7),
    ("I", 2**32 - 1, 7),
    ("l", -(2**63), 7),
    ("L", 2**64 - 1, 7),
    ("q", 2**63 - 1, -7),
    ("Q", 2**64 - 1, 7),
    ("f", 0.5, -1.25),
    ("d", 0.1, float("inf")),
    ("c", b"x", b"\0"),
    ("u", "ä", "z"),
    (ctypes.c_bool, True, False),
]


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Doubled(ctypes.c_int):
    """A type with a `value` of its own."""

    @property
    def value(self):
        return 2 * ctypes.c_int.value.__get__(self)

    @value.setter
    def value(self, number):
        ctypes.c_int.value.__set__(self, number)


@pytest.fixture
def sharedctypes(mp):
    return importlib.import_module(f"{mp.__name__}.sharedctypes")


def set_values(values, items):
    for value, item in zip(values, items, strict=True):
        value.value = item


@pytest.mark.parametrize("lock", [True, False])
def test_values_set_in_a_child_are_seen(ctx, lock):
    values = [ctx.Value(code, first, lock=lock) for code, first, _ in NUMBERS]
    assert [value.value for value in values] == [first for _, first, _ in NUMBERS]
    run(ctx, set_values, values, [second for _, _, second in NUMBERS])
    assert [value.value for value in values] == [second for _, _, second in NUMBERS]


def test_values_are_zero_without_an_initial_value(ctx):
    for _ in range(3):
        value = ctx.Value("q")
        numbers = ctx.Array("i", 100)
        assert (value.value, numbers[:]) == (0, [0] * 100)
        value.value = -1
        numbers[:] = range(100)


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40 + 5, 2**64, 2**70 + 3, True])
def test_whole_numbers_that_do_not_fit_lose_their_upper_bits(ctx, number):
    value = ctx.Value("i")
    numbers = ctx.Array("i", 2)
    value.value = numbers[1] = number
    numbers[0:1] = [number]
    expected = ctypes.c_int(number).value
    assert (value.value, numbers[:]) == (expected, [expected, expected])


@pytest.mark.parametrize(
    ("code", "bad"),
    [("i", "text"), ("i", 1.5), ("i", None), ("d", "text"), ("d", None), ("c", b"xx"), ("c", "x")],
)
def test_what_is_no_number_of_the_type_is_refused(ctx, code, bad):
    value = ctx.Value(code)
    numbers = ctx.Array(code, 3)
    before = value.value
    with pytest.raises(TypeError):
        value.value = bad
    with pytest.raises(TypeError):
        numbers[0] = bad
    assert value.value == before
    # The lock was let go of.
    assert value.get_lock().acquire(timeout=DEADLOCK)
    value.get_lock().release()


@pytest.mark.parametrize("number", [3, True, 10**400])
def test_doubles_take_whole_numbers_as_far_as_they_go(ctx, number):
    value = ctx.Value("d")
    try:
        expected = float(number)
    except OverflowError:
        with pytest.raises(OverflowError):
            value.value = number
    else:
        value.value = number
        assert value.value == expected


def test_array_has_indices_and_slices(ctx):
    numbers = ctx.Array("i", [10, 20, 30, 40, 50])
    assert (len(numbers), numbers[0], numbers[-1], numbers[-5]) == (5, 10, 50, 10)
    assert list(numbers) == [10, 20, 30, 40, 50]
    for part in (
        slice(None),
        slice(1, 3),
        slice(-2, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(4, 0, -3),
        slice(3, 1),
        slice(0, 100),
    ):
        assert numbers[part] == [10, 20, 30, 40, 50][part], part


def test_array_is_changed_by_indices_and_slices(ctx):
    numbers = ctx.Array("h", 6)
    numbers[-1] = 9
    numbers[0:2] = [1, 2]
    numbers[2:4] = (3, 4)
    assert numbers[:] == [1, 2, 3, 4, 0, 9]
    numbers[1:3] = array.array("h", [7, 8])
    numbers[3:3] = []
    assert numbers[:] == [1, 7, 8, 4, 0, 9]
    numbers[:] = range(6)
    assert numbers[:] == list(range(6))


@pytest.mark.parametrize("index", [5, -6, 2**70, -(2**70)])
def test_index_outside_an_array_is_an_error(ctx, index):
    numbers = ctx.Array("d", 5)
    with pytest.raises(IndexError):
        numbers[index]
    with pytest.raises(IndexError):
        numbers[index] = 1.0


@pytest.mark.parametrize("index", ["x", 1.0, None])
def test_index_of_another_type_is_an_error(ctx, index):
    with pytest.raises(TypeError):
        ctx.Array("d", 5)[index]


@pytest.mark.parametrize("items", [[1], [1, 2, 3], ()])
def test_slice_takes_as_many_items_as_it_has(ctx, items):
    numbers = ctx.Array("i", 4)
    with pytest.raises(ValueError, match="same size"):
        numbers[1:3] = items
    assert numbers[:] == [0] * 4


def test_slice_with_something_bad_in_it_is_refused(ctx):
    numbers = ctx.Array("i", 3)
    with pytest.raises(TypeError):
        numbers[:] = [1, "two", 3]


def test_large_array_goes_to_a_list_and_back(ctx):
    items = [number / 3 for number in range(50_000)]
    numbers = ctx.Array("d", items)
    assert numbers[:] == items
    numbers[:] = items[::-1]
    assert numbers[::-1] == items


@pytest.mark.parametrize("items", [(1, 2), [True, 3], array.array("i", [4, 5]), range(3), b"ab"])
def test_array_is_made_from_any_sequence(ctx, items):
    assert ctx.Array("i", items)[:] == [int(item) for item in items]
    assert list(ctx.RawArray("i", items)) == [int(item) for item in items]


def test_array_of_characters_is_a_string(ctx):
    text = ctx.Array("c", b"hello")
    assert (text.value, text.raw, len(text)) == (b"hello", b"hello", 5)
    assert (text[0], text[1:3], text[::-1]) == (b"h", b"el", b"olleh")
    text.value = b"hi"
    assert (text.value, text.raw) == (b"hi", b"hi\0lo")
    text[0] = b"H"
    text[3:5] = b"LO"
    assert text.raw == b"Hi\0LO"
    with pytest.raises(ValueError, match="too long"):
        text.value = b"too long"


def test_array_of_wide_characters_is_a_string(ctx):
    text = ctx.RawArray("u", 5)
    text.value = "grün"
    assert (text.value, text[2]) == ("grün", "ü")


def test_array_of_truths(ctx):
    truths = ctx.Array(ctypes.c_bool, [True, False, True])
    truths[1] = 5
    truths[2] = False
    assert truths[:] == [True, True, False]


def test_array_of_arrays(ctx):
    rows = ctx.Array(ctypes.c_int * 2, 3)
    rows[1][0] = 5
    rows[2] = (7, 8)
    assert [list(row) for row in rows] == [[0, 0], [5, 0], [7, 8]]


def double(point, points):
    point.x *= 2
    point.y *= 2
    with points.get_lock():
        for one in points:
            one.x += 1


def test_structures_are_shared_by_their_fields(ctx):
    point = ctx.Value(Point, 3, 2.5)
    points = ctx.Array(Point, [(1, 1.5), (2, 2.5)])
    run(ctx, double, point, points)
    assert (point.x, point.y) == (6, 5.0)
    assert [(one.x, one.y) for one in points] == [(2, 1.5), (3, 2.5)]
    assert point.get_obj().x == 6


def test_value_of_a_subclass_is_its_own(ctx):
    value = ctx.Value(Doubled, 4)
    assert value.value == 8
    value.value = 5
    assert value.value == 10
    assert value.get_obj().value == 10


def add(total, count):
    for _ in range(count):
        with total.get_lock():
            total.value += 1


def test_nothing_is_lost_with_the_lock_held(ctx):
    total = ctx.Value("q")
    children = [ctx.Process(target=add, args=(total, 300)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(DEADLOCK)
        assert child.exitcode == 0
        child.close()
    assert total.value == 900


def test_lock_is_the_one_that_was_given(ctx):
    lock = ctx.RLock()
    value = ctx.Value("i", lock=lock)
    numbers = ctx.Array("i", 2, lock=lock)
    assert value.get_lock() is numbers.get_lock() is lock
    with value, numbers:
        value.value = numbers[0] = 3
    assert value.acquire()
    value.release()
    assert ctx.Value("i", lock=None).get_lock() is not None


def test_lock_that_is_held_keeps_others_out(ctx):
    lock = ctx.Lock()
    value = ctx.Value("i", 5, lock=lock)
    with lock:
        child = ctx.Process(target=add, args=(value, 0))
        child.start()
        child.join(DEADLOCK)
        child.close()
        assert value.get_obj().value == 5, "the object itself has no lock"
    assert value.value == 5


def test_without_a_lock_there_is_the_plain_object(ctx):
    for obj in (ctx.Value("i", 5, lock=False), ctx.RawValue("i", 5)):
        assert isinstance(obj, ctypes.c_int)
        assert not hasattr(obj, "get_lock")
    for obj in (ctx.Array("i", 5, lock=False), ctx.RawArray("i", 5)):
        assert isinstance(obj, ctypes.Array)
        assert not hasattr(obj, "get_obj")


@pytest.mark.parametrize("lock", ["lock", 5])
def test_lock_without_acquire_is_refused(ctx, lock):
    with pytest.raises(AttributeError, match="acquire"):
        ctx.Value("i", lock=lock)
    with pytest.raises(AttributeError, match="acquire"):
        ctx.Array("i", 3, lock=lock)


def test_object_that_is_not_shared_can_have_a_lock(sharedctypes, ctx):
    plain = ctypes.c_int(4)
    value = sharedctypes.synchronized(plain, ctx.RLock())
    value.value += 1
    assert (plain.value, value.get_obj()) == (5, plain)
    numbers = (ctypes.c_double * 3)(1, 2, 3)
    assert sharedctypes.synchronized(numbers, ctx.RLock())[1:] == [2.0, 3.0]


def test_wrapper_is_not_wrapped_again(sharedctypes, ctx):
    with pytest.raises(AssertionError, match="already synchronized"):
        sharedctypes.synchronized(ctx.Value("i"))


def test_part_of_a_shared_object_is_not_taken_for_the_whole(sharedctypes, ctx):
    rows = ctx.RawArray(ctypes.c_int * 2, 2)
    rows[1][0] = 5
    row = sharedctypes.synchronized(rows[1], ctx.RLock())
    assert row[:] == [5, 0]
    row[1] = 6
    assert list(rows[1]) == [5, 6]


def test_copy_is_independent(sharedctypes):
    first = Point(2, 5.0)
    second = sharedctypes.copy(first)
    first.x = 0
    assert (second.x, second.y) == (2, 5.0)


def test_representation_names_class_and_object(ctx):
    assert repr(ctx.Value("i", 5)) == "<Synchronized wrapper for c_int(5)>"
    assert repr(ctx.Array("i", 2)).startswith("<SynchronizedArray wrapper for <")
    assert repr(ctx.Array("c", 2)).startswith("<SynchronizedString wrapper for <")
    assert repr(ctx.Value(Point)).startswith("<SynchronizedPoint wrapper for <")


def test_memory_lives_as_long_as_a_view_of_it(ctx):
    numbers = ctx.Array("i", [1, 2, 3])
    view = memoryview(numbers.get_obj()).cast("B").cast("i")
    del numbers
    gc.collect()
    others = [ctx.Array("i", [9, 9, 9]) for _ in range(100)]
    assert view.tolist() == [1, 2, 3]
    del others


WITH_NUMPY = """if 1:
    import importlib, sys, numpy
    mp = importlib.import_module(sys.argv[1])
    numbers = mp.get_context("fork").Array("d", [1, 2, 3])
    seen = numpy.frombuffer(numbers.get_obj())
    seen[1] = 20
    assert numbers[:] == [1, 20, 3]
    del numbers
    assert seen.tolist() == [1, 20, 3]
"""


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="there is no NumPy")
def test_numpy_sees_the_memory_itself(mp):
    # In a program of its own: NumPy starts threads that stay.
    subprocess.run([sys.executable, "-c", WITH_NUMPY, mp.__name__], check=True, timeout=DEADLOCK)
