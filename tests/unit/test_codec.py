"""The native encoder writes what `pickle` reads, and the decoder reads it too."""

import contextlib
import math
import pickle
import pickletools
import random
import string

import pytest

from procession._procession import dumps, loads

ROUNDS = 3000
# What `pickle` raises for bytes that mean nothing.
DAMAGE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    OverflowError,
    TypeError,
    ValueError,
)


class Word(str):
    """Plain to look at, and not plain: a subclass has to go through the pickler."""


def same(left, right):
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, float):
        return repr(left) == repr(right)
    return left == right


def is_native(pickled):
    """Written by the encoder: the pickler frames all but the smallest and has a memo."""
    names = {operation.name for operation, _, _ in pickletools.genops(pickled)}
    return names.isdisjoint({"FRAME", "MEMOIZE", "BINPUT", "BINGET"})


def random_scalar(rng):
    return rng.choice(
        [
            lambda: None,
            lambda: rng.random() < 0.5,
            lambda: rng.randint(-300, 300),
            lambda: rng.randint(-(2**80), 2**80) >> rng.randint(0, 80),
            lambda: rng.choice([1, -1]) * 2.0 ** rng.randint(-1074, 1023),
            lambda: rng.choice([0.0, -0.0, math.inf, -math.inf, math.nan]),
            lambda: "".join(rng.choices(string.printable, k=rng.randint(0, 40))),
            lambda: "".join(chr(rng.randint(0, 0xD7FF)) for _ in range(rng.randint(0, 300))),
            lambda: rng.randbytes(rng.randint(0, 300)),
        ]
    )()


def random_key(rng, depth):
    if depth and rng.random() < 0.3:
        return tuple(random_key(rng, depth - 1) for _ in range(rng.randint(0, 4)))
    return random_scalar(rng)


def random_value(rng, depth):
    kind = rng.random()
    if not depth or kind < 0.4:
        return random_scalar(rng)
    length = rng.choice([0, 1, 2, 3, 4, 7])
    if kind < 0.6:
        return tuple(random_value(rng, depth - 1) for _ in range(length))
    if kind < 0.8:
        return [random_value(rng, depth - 1) for _ in range(length)]
    return {random_key(rng, 2): random_value(rng, depth - 1) for _ in range(length)}


@pytest.mark.parametrize("depth", range(6))
def test_random_values_survive_every_combination_of_codecs(depth):
    rng = random.Random(depth)
    for _ in range(ROUNDS):
        value = random_value(rng, depth)
        for pickled in (dumps(value), pickle.dumps(value), pickle.dumps(value, 4)):
            assert same(loads(pickled), value)
            assert same(pickle.loads(pickled), value)


@pytest.mark.parametrize("bit", range(66))
def test_integers_around_powers_of_two(bit):
    for value in (2**bit + offset for offset in (-1, 0, 1)):
        for signed in (value, -value):
            assert loads(dumps(signed)) == signed
            assert pickle.loads(dumps(signed)) == signed


@pytest.mark.parametrize("length", [0, 1, 32, 33, 255, 256, 257, 65_535, 65_536, 1_000_000])
def test_texts_of_every_length_class(length):
    for value in ("x" * length, "é" * length, b"x" * length):
        assert loads(dumps(value)) == value
        assert pickle.loads(dumps(value)) == value


def test_plain_values_do_not_need_the_pickler():
    for value in (None, True, 7, -1.5, "text", b"bytes", (), (1, "a"), [1, [2]], {"k": (3,)}):
        assert is_native(dumps(value)), f"{value!r} went through the pickler"


def test_lone_surrogates_survive():
    assert loads(dumps("\ud800")) == "\ud800"


def test_subclasses_keep_their_type():
    assert type(loads(dumps(Word("w")))) is Word
    assert type(loads(dumps([Word("w")]))[0]) is Word


def test_what_occurs_twice_stays_one_object():
    inner = [1]
    first, second = loads(dumps([inner, inner]))
    assert first is second


def test_recursive_values_survive():
    value = [1]
    value.append(value)
    copy = loads(dumps(value))
    assert copy[1] is copy


def test_repeated_tuples_do_not_explode():
    value = ()
    for _ in range(60):
        value = (value, value)
    assert len(dumps(value)) < 10_000


def test_deep_and_wide_values_survive():
    deep = []
    for _ in range(300):
        deep = [deep]
    wide = {str(number): [number] for number in range(5000)}
    assert loads(dumps(deep)) == deep
    assert loads(dumps(wide)) == wide
    assert loads(dumps(list(range(100_000)))) == list(range(100_000))


def test_damaged_pickles_raise_and_do_not_crash():
    rng = random.Random(7)
    for _ in range(ROUNDS):
        pickled = bytearray(dumps(random_value(rng, 3)))
        # Of plain instructions only, so that no damage can name a function to be called.
        pickled[rng.randrange(2, len(pickled))] = rng.choice(b"N)]}(tuKMJGeX.\x85\x86\x87\x8c")
        with contextlib.suppress(*DAMAGE):
            loads(bytes(pickled))


@pytest.mark.parametrize("pickled", [b"", b"\x80", b"\x80\x04", b"\x80\x04.", b"\x80\x04t.", b"x"])
def test_what_is_no_pickle_is_refused(pickled):
    with pytest.raises(DAMAGE):
        loads(pickled)
