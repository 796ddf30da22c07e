"""The native encoder writes what `pickle` reads, and the decoder reads it too."""

import contextlib
import copyreg
import importlib
import math
import pickle
import pickletools
import random
import re
import string
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

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


class Plain:
    """What most programs send."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Told(Plain):
    """Plain to be written; read with a method of its own."""

    def __setstate__(self, state):
        self.__dict__.update(state, told=True)


class Reduced(Plain):
    def __reduce__(self):
        return Reduced.again, (self.number,)

    @staticmethod
    def again(number):
        return Reduced(number=number + 1)


class ReducedByProtocol(Plain):
    def __reduce_ex__(self, protocol):
        return Reduced.again, (self.number,)


class WithState(Plain):
    def __getstate__(self):
        return {"number": self.number + 1}


class WithArguments(Plain):
    def __new__(cls, **_attributes):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"number": 1}


class WithNew(Plain):
    made = 0

    def __new__(cls, **_attributes):
        WithNew.made += 1
        return super().__new__(cls)


class WithSlots(Plain):
    __slots__ = ("more",)

    def __init__(self, **attributes):
        super().__init__(**attributes)
        self.more = 5


class Meta(type):
    pass


class WithMeta(Plain, metaclass=Meta):
    pass


class Listed(list):
    def __init__(self, number=0):
        super().__init__([number])
        self.number = number


class Pretender(Plain):
    """Has the class of another one, as mocks do."""

    __class__ = property(lambda _self: Plain)

    def __reduce_ex__(self, protocol):
        return Pretender, (), {"number": 7}


class Curious(Plain):
    """Is asked for whatever it does not have."""

    def __getattr__(self, name):
        if name == "__getnewargs__":
            return lambda: ()
        raise AttributeError(name)


def again(value):
    """What another process gets, as a dictionary with all that it has."""
    read = loads(dumps(value))
    assert vars(read) == vars(pickle.loads(dumps(value)))
    return read


@pytest.mark.parametrize("attributes", [{}, {"number": 7, "name": "x", "parts": [(1, b"y"), {}]}])
def test_instance_of_a_plain_class_is_written_without_the_pickler(attributes):
    value = Plain(**attributes)
    assert is_native(dumps(value))
    read = again(value)
    assert type(read) is Plain
    assert vars(read) == attributes
    assert vars(pickle.loads(pickle.dumps(value))) == attributes


def test_instance_with_its_own_way_to_be_read_is_read_that_way():
    assert vars(again(Told(number=1))) == {"number": 1, "told": True}


@pytest.mark.parametrize(
    "value",
    [
        Reduced(number=1),
        ReducedByProtocol(number=1),
        WithState(number=1),
        WithArguments(number=1),
        WithNew(number=1),
        WithSlots(number=1),
        WithMeta(number=1),
        Listed(1),
        Pretender(number=1),
        Curious(number=1),
        Plain(number=2**80),
        Plain(inner=Plain(number=1).__class__),
        Plain(twice=[[1]] * 2),
        Plain(__reduce_ex__=lambda _protocol: (Plain, ())),
    ],
    ids=lambda value: f"{type(value).__name__}-{'-'.join(vars(value))}",
)
def test_instance_that_has_something_to_say_is_asked(value):
    assert not is_native(dumps(value)), "the pickler was not asked"
    expected = pickle.loads(pickle.dumps(value))
    read = again(value)
    assert type(read) is type(expected)
    assert vars(read) == vars(expected)


class WithOwnDict(Plain):
    """Keeps what it is given somewhere else."""

    __dict__ = property(lambda _self: KEPT)


KEPT = {}


def test_instance_is_read_into_what_its_class_says_is_its_dict(monkeypatch):
    pickled = dumps(Plain(number=1))
    assert is_native(pickled)
    monkeypatch.setattr(sys.modules[__name__], "Plain", WithOwnDict)
    KEPT.clear()
    assert type(pickle.loads(pickled)) is WithOwnDict
    expected = dict(KEPT)
    KEPT.clear()
    assert type(loads(pickled)) is WithOwnDict
    assert expected == {"number": 1} == KEPT


def test_instance_is_read_by_what_its_class_has_become(monkeypatch):
    pickled = dumps(Plain(number=1))
    assert is_native(pickled)
    module = sys.modules[__name__]
    for successor in (WithNew, WithMeta, WithSlots, Told, Curious):
        with monkeypatch.context() as patch:
            patch.setattr(module, "Plain", successor)
            read, expected = loads(pickled), pickle.loads(pickled)
            assert type(read) is type(expected) is successor
            assert read.__dict__ == expected.__dict__
    made = WithNew.made
    monkeypatch.setattr(module, "Plain", WithNew)
    loads(pickled)
    assert WithNew.made == made + 1, "it was made once"


def test_attribute_named_setstate_that_is_none_is_called_and_fails(monkeypatch):
    pickled = dumps(Plain(number=1))
    monkeypatch.setattr(Plain, "__setstate__", None, raising=False)
    for read in (loads, pickle.loads):
        with pytest.raises(TypeError, match="not callable"):
            read(pickled)


@pytest.mark.parametrize("instead", [None, "not a class"])
def test_instance_of_a_class_that_is_gone_fails_as_with_pickle(monkeypatch, instead):
    pickled = dumps(Plain(number=1))
    module = sys.modules[__name__]
    if instead is None:
        monkeypatch.delattr(module, "Plain")
    else:
        monkeypatch.setattr(module, "Plain", instead)
    with pytest.raises(Exception) as expected:  # noqa: PT011
        pickle.loads(pickled)
    with pytest.raises(type(expected.value), match=re.escape(str(expected.value))):
        loads(pickled)


def test_module_that_is_not_imported_is_imported_to_read_an_instance(monkeypatch, tmp_path):
    (tmp_path / "module_of_a_class.py").write_text("class Late:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    late = importlib.import_module("module_of_a_class").Late()
    late.number = 1
    pickled = dumps(late)
    assert is_native(pickled)
    monkeypatch.delitem(sys.modules, "module_of_a_class")
    read = loads(pickled)
    assert type(read) is not type(late)
    assert type(read) is sys.modules["module_of_a_class"].Late
    assert vars(read) == {"number": 1}


def test_names_of_attributes_are_shared_between_instances():
    first, second = (loads(dumps(Plain(an_attribute=number))) for number in range(2))
    (one,), (other,) = vars(first), vars(second)
    assert one is other is sys.intern("an_attribute")


AUDIT = """
import argparse, sys
from procession._procession import dumps, loads

pickled = dumps(argparse.Namespace(number=1))
assert pickled.startswith(b"\\x80\\x04cargparse\\n"), pickled
seen = []
sys.addaudithook(lambda event, arguments: event.startswith("pickle") and seen.append(arguments))
assert loads(pickled) == argparse.Namespace(number=1)
assert seen == [("argparse", "Namespace")], seen
"""


def test_audit_hooks_hear_of_the_class_that_is_read():
    # Such a hook stays, so it must have a process of its own.
    subprocess.run([sys.executable, "-c", AUDIT], check=True)


def test_reducer_that_is_registered_later_counts(monkeypatch):
    assert is_native(dumps(Plain(number=1)))
    with monkeypatch.context() as patch:
        patch.setitem(copyreg.dispatch_table, Plain, lambda value: (Reduced.again, (value.number,)))
        assert vars(again(Plain(number=1))) == {"number": 2}
    with monkeypatch.context() as patch:
        reducers = ForkingPickler._extra_reducers
        patch.setitem(reducers, Plain, lambda value: (Reduced.again, (value.number + 1,)))
        assert vars(again(Plain(number=1))) == {"number": 3}
    assert is_native(dumps(Plain(number=1)))


def test_class_that_is_not_found_by_its_name_is_not_named(monkeypatch):
    value = Plain(number=1)
    monkeypatch.setattr(sys.modules[__name__], "Plain", Told)
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(value)
    with contextlib.suppress(pickle.PicklingError):
        # It may go by value, and is what it was then.
        assert type(loads(dumps(value))) is not Told
