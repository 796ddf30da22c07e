"""`ArenaDict` and `ArenaList`: a dict and a list in shared memory, compared with the real ones."""

import array
import collections
import decimal
import enum
import fractions
import gc
import operator
import os
import pickle
import random
import signal
import subprocess
import sys
import threading

import pytest

import procession
from procession._procession import ArenaDict, ArenaList
from tests.unit.test_large_messages import Grid
from tests.unit.waiting import comes_true

DEADLOCK = 300.0  # seconds; only a deadlock takes this long
BIG = 1 << 80
NAN = float("nan")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Text(str):
    """Equal to the text, and another type."""


class Point:
    """Equal to others by its coordinates."""

    def __init__(self, x, y):
        self.place = x, y

    def __eq__(self, other):
        return isinstance(other, Point) and self.place == other.place

    def __hash__(self):
        return hash(self.place)

    def __repr__(self):
        return f"Point{self.place}"


CANONICAL_KEYS = [
    0, 1, 2, -1, 255, 256, 65536, 1 << 40, -(1 << 63), 1 << 63, BIG, -BIG, 1 << 3000,
    True, False, None, 0.0, -0.0, 1.0, 2.5, -7.25, 1e300, float(BIG), float("inf"), float("-inf"),
    "", "a", "1", "é", "k" * 300, "\ud800", b"", b"a", b"k" * 300,
    (), (1,), (True, 1.0), (1, "a", (b"b", None)), ("\ud800", BIG), ("x",) * 20,
]  # fmt: skip
FOREIGN_KEYS = [
    decimal.Decimal(1), decimal.Decimal("2.5"), fractions.Fraction(5, 2), complex(1, 0), 3j,
    Colour.RED, Colour.BLUE, Level.LOW, Level.HIGH, Text("a"), Text("b"), frozenset([1, 2]),
    frozenset(), Point(1, 2), Point(2, 1), (Level.LOW, 1), (Point(1, 2),), int, len, range(3),
]  # fmt: skip
VALUES = [
    None, True, 0, -5, 1 << 70, 1.5, "", "text", "x" * 100, b"y" * 40_000, [1, [2]],
    {"a": {"b": 1}},
    (1, 2), {3}, Point(3, 4), Colour.RED, "z" * 70_000,
]  # fmt: skip


def outcome(call):
    """What a call returns, with its type, or what it raises, with its text."""
    try:
        result = call()
    except Exception as error:
        return type(error), error.args
    return type(result), result


def same(model, arena, call):
    """Call both; what comes of it must be the same, but for who is returned."""
    expected, actual = outcome(lambda: call(model)), outcome(lambda: call(arena))
    if expected[1] is model:
        assert actual[1] is arena
    else:
        assert actual == expected, (expected, actual)


def same_keys(arena, model):
    """The keys must be the same ones, in the same order, and not only equal."""
    keys = list(arena)
    assert keys == list(model)
    assert [type(key) for key in keys] == [type(key) for key in model]
    assert list(map(repr, keys)) == list(map(repr, model))


DICT_CALLS = {
    "set": operator.setitem,
    "set again": operator.setitem,
    "get item": lambda d, key, _value: d[key],
    "get": lambda d, key, _value: d.get(key),
    "get or": lambda d, key, value: d.get(key, value),
    "in": lambda d, key, _value: key in d,
    "delete": lambda d, key, _value: operator.delitem(d, key),
    "pop": lambda d, key, _value: d.pop(key),
    "pop or": lambda d, key, value: d.pop(key, value),
    "setdefault": lambda d, key, value: d.setdefault(key, value),
    "setdefault none": lambda d, key, _value: d.setdefault(key),
    "popitem": lambda d, _key, _value: d.popitem(),
    "update": lambda d, key, value: d.update({key: value, 1: value, "a": 0}),
    "update pairs": lambda d, key, value: d.update([(key, value), (key, 7)], a=1),
    "update nothing": lambda d, _key, _value: d.update(),
    "or": lambda d, key, value: d | {key: value},
    "ror": lambda d, key, value: {key: value, 1: 2} | d,
    "ior": lambda d, key, value: operator.ior(d, [(key, value)]),
    "len": lambda d, _key, _value: len(d),
    "keys": lambda d, _key, _value: list(d.keys()),
    "values": lambda d, _key, _value: list(d.values()),
    "items": lambda d, _key, _value: list(d.items()),
    "reversed": lambda d, _key, _value: list(reversed(d)),
    "copy": lambda d, _key, _value: d.copy(),
    "equal": lambda d, key, value: d == {key: value},
    "repr": lambda d, _key, _value: repr(d),
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "keys", [CANONICAL_KEYS, CANONICAL_KEYS + FOREIGN_KEYS], ids=["canonical", "foreign"]
)
def test_dict_does_what_a_dict_does(keys, seed):
    chosen = random.Random(seed)
    model, arena = {}, ArenaDict()
    for step in range(400):
        key, value = chosen.choice(keys), chosen.choice(VALUES)
        call = DICT_CALLS[chosen.choice(list(DICT_CALLS))]
        same(model, arena, lambda d, call=call, key=key, value=value: call(d, key, value))
        if step % 20 == 0:
            same_keys(arena, model)
    assert arena == model
    assert model == arena
    same_keys(arena, model)
    arena.clear()
    assert len(arena) == 0
    assert arena.copy() == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d[()],
        lambda d: d["missing"],
        lambda d: d[1, 2],
        lambda d: operator.delitem(d, ("missing",)),
        lambda d: d.pop("missing"),
        lambda d: d.pop(),
        lambda d: d.pop(1, 2, 3),
        lambda d: d.popitem() and d.popitem(),
        lambda d: d[[]],
        lambda d: operator.setitem(d, {}, 1),
        lambda d: operator.delitem(d, bytearray()),
        lambda d: [] in d,
        lambda d: d.get(({}, 1)),
        lambda d: d.update(5),
        lambda d: d.update([1]),
        lambda d: d.update([(1, 2, 3)]),
        lambda d: d.update({}, {}),
        lambda d: d.update([([], 1)]),
        lambda d: d | 5,
        lambda d: operator.ior(d, 5),
    ],
)
def test_dict_fails_as_a_dict_does(call):
    model = {"one": 1}
    expected, actual = outcome(lambda: call(model)), outcome(lambda: call(ArenaDict(one=1)))
    assert expected[0] is actual[0]
    if expected[0] is KeyError or "unhashable" in str(expected[1]):
        assert expected == actual


def test_dict_is_made_as_a_dict_is():
    for arguments, keywords in [
        ((), {}), (([(1, 2)],), {}), (({"a": 1},), {"b": 2}), ((), {"a": 1}),
        ((ArenaDict(a=1),), {}),
    ]:  # fmt: skip
        assert ArenaDict(*arguments, **keywords).copy() == dict(*arguments, **keywords)
    assert ArenaDict.fromkeys("ab", 5).copy() == {"a": 5, "b": 5}
    assert ArenaDict.fromkeys([1]).copy() == {1: None}
    assert ArenaDict[int, str].__args__ == (int, str)


def test_first_of_equal_keys_is_kept():
    arena = ArenaDict()
    arena[1] = "int"
    arena[True] = "bool"
    arena[1.0] = "float"
    arena[decimal.Decimal(1)] = "decimal"
    assert list(map(repr, arena.items())) == ["(1, 'decimal')"]
    other = ArenaDict()
    other[decimal.Decimal(1)] = "decimal"
    other[1] = "int"
    other[True] += "!"
    assert list(map(repr, other.items())) == ["(Decimal('1'), 'int!')"]


def test_not_a_number_is_a_key_each_time():
    arena = ArenaDict()
    for number in range(3):
        arena[float("nan")] = number
    arena[float("nan"), 1] = 3
    assert list(arena.values()) == [0, 1, 2, 3]
    assert NAN not in arena


def test_values_are_copies():
    inner = [1]
    arena, lists = ArenaDict(a=inner), ArenaList([inner])
    inner.append(2)
    arena["a"].append(3)
    lists[0].append(3)
    assert arena["a"] == lists[0] == [1]


class Sly:
    """Changes the dict while it is being looked for in it."""

    def __init__(self, arena, number):
        self.arena, self.number = arena, number

    def __reduce__(self):
        return Sly, (None, self.number)

    def __hash__(self):
        return 1_000_003

    def __eq__(self, other):
        for one in (self, other):
            if one.arena is not None and len(one.arena) < 6:
                one.arena[len(one.arena)] = "new"
        return self.number == other.number


def test_key_that_changes_the_dict_is_found_nevertheless():
    arena = ArenaDict()
    arena[Sly(None, 1)] = "one"
    assert arena[Sly(arena, 1)] == "one"
    assert len(arena) == 6
    with pytest.raises(KeyError):
        arena[Sly(arena, 2)]


def test_exception_of_a_key_is_passed_on_and_nothing_is_locked():
    class Bad(Point):
        __hash__ = Point.__hash__

        def __eq__(self, other):
            raise ZeroDivisionError

    arena = ArenaDict({Point(1, 2): 1})
    with pytest.raises(ZeroDivisionError):
        arena[Bad(1, 2)]
    assert arena[Point(1, 2)] == 1


def test_update_is_all_or_nothing():
    arena, numbers = ArenaDict(a=1), ArenaList([1])

    def pairs():
        yield "a", 2
        yield "b", 3
        raise ZeroDivisionError

    for call in (lambda: arena.update(pairs()), lambda: numbers.extend(pairs())):
        with pytest.raises(ZeroDivisionError):
            call()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        arena.update(a=2, b=threading.Lock())
    assert (arena.copy(), numbers.copy()) == ({"a": 1}, [1])


INDICES = [0, 1, -1, 3, -4, 7, -9, 100, -100, BIG, -BIG, True, Level.LOW, "a", 1.0, None]
SLICES = [
    slice(None), slice(1, 3), slice(3, 1), slice(-2, None), slice(None, None, 2), slice(5, 0, -1),
    slice(None, None, -1), slice(None, None, -3), slice(100, -100, -2), slice(2, 2),
    slice(-BIG, BIG), slice(None, None, BIG), slice(None, None, -BIG), slice(1, None, 4),
    slice(0, 0), slice(None, None, 0), slice("a"), slice(Level.LOW, None),
]  # fmt: skip

LIST_CALLS = {
    "append": lambda seq, _at, value: seq.append(value),
    "append again": lambda seq, _at, value: seq.append(value),
    "extend": lambda seq, _at, value: seq.extend([value, 1, 2]),
    "extend nothing": lambda seq, _at, _value: seq.extend(()),
    "extend wrong": lambda seq, _at, _value: seq.extend(5),
    "get": lambda seq, at, _value: seq[at],
    "set": operator.setitem,
    "set some": lambda seq, at, value: operator.setitem(seq, at, [value, 4]),
    "set none": lambda seq, at, _value: operator.setitem(seq, at, ()),
    "set number": lambda seq, at, _value: operator.setitem(seq, at, 5),
    "set as many": lambda seq, at, _value: operator.setitem(seq, at, list(range(len(seq[at])))),
    "delete": lambda seq, at, _value: operator.delitem(seq, at),
    "insert": lambda seq, _at, value: seq.insert(-3, value),
    "insert first": lambda seq, _at, value: seq.insert(-100, value),
    "insert last": lambda seq, _at, value: seq.insert(100, value),
    "pop": lambda seq, _at, _value: seq.pop(),
    "pop first": lambda seq, _at, _value: seq.pop(0),
    "pop third": lambda seq, _at, _value: seq.pop(2),
    "remove": lambda seq, _at, value: seq.remove(value),
    "index": lambda seq, _at, value: seq.index(value),
    "index from": lambda seq, _at, value: seq.index(value, 2, -1),
    "count": lambda seq, _at, value: seq.count(value),
    "in": lambda seq, _at, value: value in seq,
    "len": lambda seq, _at, _value: len(seq),
    "reverse": lambda seq, _at, _value: seq.reverse(),
    "reversed": lambda seq, _at, _value: list(reversed(seq)),
    "iter": lambda seq, _at, _value: list(seq),
    "copy": lambda seq, _at, _value: seq.copy(),
    "sort": lambda seq, _at, _value: seq.sort(key=repr),
    "sort back": lambda seq, _at, _value: seq.sort(key=lambda v: len(repr(v)), reverse=True),
    "add": lambda seq, _at, value: operator.add(seq, [value]),
    "radd": lambda seq, _at, value: operator.add([value], seq),
    "iadd": lambda seq, _at, value: operator.iadd(seq, (value, 3)),
    "mul": lambda seq, _at, _value: seq * 2,
    "rmul": lambda seq, _at, _value: 2 * seq,
    "imul none": lambda seq, _at, _value: operator.imul(seq, 0) if len(seq) > 40 else None,
    "imul": lambda seq, _at, _value: operator.imul(seq, 2) if len(seq) < 10 else None,
    "equal": lambda seq, _at, value: seq == [value],
    "less": lambda seq, _at, _value: seq < [],
    "repr": lambda seq, _at, _value: repr(seq),
    "clear": lambda seq, _at, _value: seq.clear() if len(seq) > 30 else None,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(16))
def test_list_does_what_a_list_does(seed):
    chosen = random.Random(seed)
    model, arena = [], ArenaList()
    for _ in range(500):
        at, value = chosen.choice(INDICES + SLICES), chosen.choice(VALUES)
        call = LIST_CALLS[chosen.choice(list(LIST_CALLS))]
        same(model, arena, lambda seq, call=call, at=at, value=value: call(seq, at, value))
    assert arena == model
    assert arena.copy() == model


@pytest.mark.parametrize(
    "call",
    [
        lambda seq: seq.sort(),
        lambda seq: seq.pop(9),
        lambda seq: seq.pop("a"),
        lambda seq: seq.remove(9),
        lambda seq: seq.index(9),
        lambda seq: seq.insert("a", 1),
        lambda seq: seq["a"],
        lambda seq: seq + 5,
        lambda seq: seq * "a",
        lambda seq: seq < 5,
        lambda seq: operator.iadd(seq, 5),
        lambda seq: operator.setitem(seq, slice(None, None, 2), [1]),
        lambda seq: operator.setitem(seq, slice(None, None, 2), 5),
        lambda seq: seq.clear() or seq.pop(),
    ],
)
def test_list_fails_as_a_list_does(call):
    expected, actual = (
        outcome(lambda: call([1, "a", 2])),
        outcome(lambda: call(ArenaList([1, "a", 2]))),
    )
    assert expected[0] is actual[0]
    if expected[0] in (IndexError, ValueError):
        assert expected == actual


def test_sort_is_stable_and_begins_again_if_others_change_the_list():
    arena = ArenaList([(1, "b"), (0, "x"), (1, "a")])
    arena.sort(key=operator.itemgetter(0))
    assert arena.copy() == [(0, "x"), (1, "b"), (1, "a")]
    arena.sort(key=operator.itemgetter(0), reverse=True)
    assert arena.copy() == [(1, "b"), (1, "a"), (0, "x")]
    changed = []

    def key(pair):
        if not changed:
            changed.append(arena.append((-1, "new")))
        return pair

    arena.sort(key=key)
    assert arena.copy() == [(-1, "new"), (0, "x"), (1, "a"), (1, "b")]


def test_container_in_itself_is_shown():
    numbers, ages = ArenaList([1]), ArenaDict()
    numbers.append(numbers)
    ages["self"] = ages
    assert repr(numbers) == "[1, [...]]"
    assert repr(ages) == "{'self': {...}}"
    numbers.clear()
    ages.clear()


@pytest.mark.parametrize("size", [100, 40_000, 1 << 20])
def test_buffers_are_copied_in_and_out(size):
    grid = Grid(bytearray([1]) * size)
    arena, numbers = ArenaDict(grid=grid), ArenaList([grid])
    for get in (lambda: arena["grid"], lambda: numbers[0]):
        first = get()
        first.view()[0] = 9
        assert get().view() == bytes([1]) * size
    numbers_array = array.array("d", range(size))
    arena["array"] = numbers_array
    assert arena["array"] == numbers_array


def test_arrays_of_numpy():
    numpy = pytest.importorskip("numpy")
    arena = ArenaDict(large=numpy.arange(100_000))
    arena["large"][0] = 5
    assert (arena["large"] == numpy.arange(100_000)).all()
    arena[numpy.int64(7)] = "seven"
    assert arena[7] == "seven"


def work_with(containers, queue):
    ages, names = containers
    ages["child"] = os.getpid()
    names.append(ages["parent"])
    inner = ages["inner"]
    inner["from"] = "child"
    ages["queue"].put("through the dict")
    with ages["lock"]:
        queue.put((inner, names))


def test_containers_are_passed_on(ctx):
    ages, names, inner, queue = ArenaDict(parent=1), ArenaList(), ArenaDict(), ctx.Queue()
    kept = ctx.Queue()
    ages.update(inner=inner, queue=kept, lock=ctx.Lock())
    child = ctx.Process(target=work_with, args=((ages, names), queue))
    child.start()
    received_inner, received_names = queue.get(timeout=DEADLOCK)
    child.join()
    assert ages["child"] == child.pid
    assert names.copy() == received_names.copy() == [1]
    assert inner.copy() == received_inner.copy() == {"from": "child"}
    assert received_inner.handle_id == inner.handle_id
    assert received_names.handle_id == names.handle_id != inner.handle_id
    assert kept.get(timeout=DEADLOCK) == "through the dict"
    queue.close()
    kept.close()


def test_containers_go_through_pools(make_pool):
    names = ArenaList()
    make_pool(2).map(names.append, range(20))
    assert sorted(names) == list(range(20))


def test_containers_are_not_pickled_outside_of_the_tree():
    for container in (ArenaDict(), ArenaList()):
        with pytest.raises(RuntimeError, match="should only be shared"):
            pickle.dumps(container)


def test_handle_opens_the_same_container():
    ages, names = ArenaDict(a=1), ArenaList([1])
    assert ArenaDict._open(ages.handle_id).copy() == {"a": 1}
    assert ArenaList._open(names.handle_id).copy() == [1]
    handle = names.handle_id
    with pytest.raises(RuntimeError):
        ArenaDict._open(handle)
    del names
    gc.collect()
    with pytest.raises(RuntimeError):
        ArenaList._open(handle)


def test_what_a_value_names_lives_as_long_as_the_value():
    ages = ArenaDict(inner=ArenaDict(a=ArenaList([1, 2])))
    gc.collect()
    inner = ages["inner"]
    assert inner["a"].copy() == [1, 2]
    handle = inner["a"].handle_id
    del ages["inner"]
    assert ArenaList._open(handle).copy() == [1, 2]
    del inner
    gc.collect()
    with pytest.raises(RuntimeError):
        ArenaList._open(handle)


LEAKS = """
import gc
from procession._procession import ArenaDict, ArenaList
import procession

large = b"x" * 1_000_000
kept, numbers = ArenaDict(), ArenaList()
for number in range(300):
    kept["value"] = large
    kept[number] = [large]
    del kept[number]
    kept["inner"] = ArenaDict(value=large, queue=procession.SimpleQueue())
    kept.update(value=large, other=large)
    numbers.append(large)
    numbers[0] = large
    numbers.insert(0, large)
    numbers.reverse()
    del numbers[:]
    other = ArenaList([large])
    other[0], other
    list(kept.values())
print(len(kept))
"""


def test_nothing_is_leaked():
    # What is leaked once in each round would be many times more than the limit.
    environment = {**os.environ, "PROCESSION_ARENA_MAX": str(40 << 20)}
    ran = subprocess.run(
        [sys.executable, "-c", LEAKS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("3\n", "")


def test_too_much_is_an_error_that_changes_nothing():
    code = (
        "from procession._procession import ArenaDict, ArenaList\n"
        "for kept, put in ((ArenaDict(a=1), 'kept.update(a=2, b=large)'), "
        "(ArenaList([1]), 'kept.extend([2, large])')):\n"
        "    large = b'x' * 100_000_000\n"
        "    try:\n"
        "        exec(put)\n"
        "    except MemoryError:\n"
        "        print(kept)\n"
    )
    environment = {**os.environ, "PROCESSION_ARENA_MAX": str(20 << 20)}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("{'a': 1}\n[1]\n", "")


def count_up(ages, names, started, rounds):
    started.release()
    number = 0
    while rounds is None or number < rounds:
        number += 1
        stamp = os.getpid(), number, "x" * (number % 700)
        ages.update(left=stamp, right=stamp, **{f"own{number % 9}": number})
        names.extend([stamp, stamp])
        if number % 10 == 0:
            names.clear()
        if number % 7 == 0:
            ages.pop(f"own{number % 5}", None)
            ages[Colour.RED] = number


def check(ages, names):
    copy = ages.copy()
    assert copy.get("left") == copy.get("right")
    elements = names.copy()
    assert len(elements) % 2 == 0
    assert elements[::2] == elements[1::2]


def test_update_and_extend_are_seen_whole(ctx):
    ages, names, started = ArenaDict(), ArenaList(), ctx.Semaphore(0)
    arguments = ages, names, started, 300
    children = [ctx.Process(target=count_up, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        check(ages, names)
    for child in children:
        child.join()
        assert child.exitcode == 0
    check(ages, names)


def test_containers_survive_their_users():
    ctx = procession.get_context("fork")
    ages, names, started = ArenaDict(), ArenaList(), ctx.Semaphore(0)
    arguments = ages, names, started, None
    for number in range(60):
        child = ctx.Process(target=count_up, args=arguments)
        child.start()
        assert started.acquire(timeout=DEADLOCK)
        for _ in range(number * 13 % 29):
            check(ages, names)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        check(ages, names)
        assert set(ages) == set(ages.copy())
        assert len(ages) == len(ages.copy())
        for key, value in ages.items():
            assert ages[key] == value


def test_threads_share_a_container():
    ages, names = ArenaDict(total=0), ArenaList()

    def work(number):
        for step in range(200):
            ages[number, step] = step
            names.append(step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ages) == 801
    assert collections.Counter(names) == dict.fromkeys(range(200), 4)


def turn_over(names):
    while True:
        names.reverse()


def test_signals_are_handled_while_waiting_for_a_lock():
    class RungError(Exception):
        pass

    def ring(_number, _frame):
        raise RungError

    names = ArenaList(range(100_000))
    child = procession.get_context("fork").Process(target=turn_over, args=(names,))
    child.start()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        rung = False
        while not rung:
            # Stopped again and again it would not come to anything.
            assert comes_true(lambda front=names[0]: names[0] != front)
            # Stopped with the lock held, nearly always: reversing is done with it.
            os.kill(child.pid, signal.SIGSTOP)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                len(names)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except RungError:
                rung = True
            os.kill(child.pid, signal.SIGCONT)
        assert len(names) == 100_000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        child.kill()
        child.join()
    assert sorted(names) == list(range(100_000))
