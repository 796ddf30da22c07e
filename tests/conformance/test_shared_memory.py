"""What users rely on from `SharedMemory` and `ShareableList`.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import contextlib
import importlib
import os
import pickle
import uuid

import pytest

from tests.children import run

ITEMS = ["text", b"bytes", -273.154, 2**63 - 1, -(2**63), None, True, False, "", b"", "x" * 100]


@pytest.fixture
def shm(mp):
    return importlib.import_module(f"{mp.__name__}.shared_memory")


@contextlib.contextmanager
def created(shm, size=100, name=None):
    memory = shm.SharedMemory(name, create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        memory.unlink()


@contextlib.contextmanager
def listed(shm, items, name=None):
    made = shm.ShareableList(items, name=name)
    try:
        yield made
    finally:
        made.shm.close()
        made.shm.unlink()


def new_name():
    return f"conformance-{uuid.uuid4().hex[:12]}"


def test_new_memory_is_zeroed_and_has_its_size(shm):
    with created(shm, 1000) as memory:
        assert memory.size == len(memory.buf) == 1000
        assert bytes(memory.buf) == bytes(1000)
        assert memory.buf.format == "B"
        assert not memory.buf.readonly


def test_name_without_one_given_is_like_the_original_s(shm):
    with created(shm) as memory:
        assert memory.name.startswith("psm_")
        assert memory._name == "/" + memory.name
        assert repr(memory) == f"SharedMemory({memory.name!r}, size=100)"


def test_memory_is_attached_by_its_name(shm):
    name = new_name()
    with created(shm, name=name) as memory:
        memory.buf[:5] = b"hello"
        same = shm.SharedMemory(name)
        assert (same.name, same.size, bytes(same.buf[:5])) == (name, 100, b"hello")
        same.buf[0] = 72
        same.close()
        assert memory.buf[0] == 72


def test_file_is_for_its_owner_alone(shm):
    with created(shm) as memory:
        assert os.stat(f"/dev/shm/{memory.name}").st_mode & 0o777 == 0o600


def write(memory, text):
    memory.buf[: len(text)] = text
    memory.close()


def write_by_name(shm, name, text):
    write(shm.SharedMemory(name), text)


def test_memory_is_passed_to_a_child(shm, ctx):
    with created(shm) as memory:
        run(ctx, write, memory, b"passed")
        assert bytes(memory.buf[:6]) == b"passed"


def make_and_leave(shm_name, name):
    memory = importlib.import_module(shm_name).SharedMemory(name, create=True, size=10)
    memory.buf[:4] = b"left"
    memory.close()


def test_memory_that_a_child_made_outlives_it(shm, ctx):
    name = new_name()
    run(ctx, make_and_leave, shm.__name__, name)
    memory = shm.SharedMemory(name)
    assert bytes(memory.buf[:4]) == b"left"
    memory.close()
    memory.unlink()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_the_name(shm, protocol):
    with created(shm) as memory:
        same = pickle.loads(pickle.dumps(memory, protocol))
        same.buf[3] = 3
        same.close()
        assert memory.buf[3] == 3


def test_taken_name_is_refused(shm):
    with created(shm) as memory, pytest.raises(FileExistsError) as caught:
        shm.SharedMemory(memory.name, create=True, size=1)
    assert caught.value.filename == f"/{memory.name}"


def test_missing_name_is_an_error(shm):
    with pytest.raises(FileNotFoundError) as caught:
        shm.SharedMemory("conformance-missing")
    assert caught.value.filename == "/conformance-missing"


@pytest.mark.parametrize("name", ["", "a/b", "."])
def test_name_that_cannot_be_one_is_an_error(shm, name):
    with pytest.raises(OSError):  # noqa: PT011 - which one differs between C libraries
        shm.SharedMemory(name, create=True, size=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"create": True, "size": -1}, "positive integer"),
        ({"create": True}, "different from zero"),
        ({}, "'name' can only be None"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(shm, arguments, message):
    with pytest.raises(ValueError, match=message):
        shm.SharedMemory(**arguments)


def test_name_is_unlinked_once(shm):
    memory = shm.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    with pytest.raises(FileNotFoundError):
        memory.unlink()
    with pytest.raises(FileNotFoundError):
        shm.SharedMemory(memory.name)


def test_closed_memory_has_no_bytes_and_can_be_closed_again(shm):
    with created(shm) as memory:
        memory.close()
        memory.close()
        assert memory.buf is None
        assert memory.name
        assert memory.size == 100


def test_memory_without_a_name_lives_on_for_those_who_have_it(shm):
    memory = shm.SharedMemory(create=True, size=10)
    memory.unlink()
    memory.buf[0] = 5
    assert memory.buf[0] == 5
    memory.close()


def test_subclass_chooses_the_flags(shm):
    class CreateOrAttach(shm.SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    with created(shm) as memory:
        same = CreateOrAttach(memory.name)
        assert same.size == memory.size
        same.close()


def test_list_has_the_items_it_was_made_of(shm):
    with listed(shm, ITEMS) as items:
        assert len(items) == len(ITEMS)
        assert list(items) == ITEMS
        assert [type(item) for item in items] == [type(item) for item in ITEMS]
        assert (items[0], items[-1], items[-len(ITEMS)]) == (ITEMS[0], ITEMS[-1], ITEMS[0])
        assert repr(items) == f"ShareableList({ITEMS}, name={items.shm.name!r})"


def test_formats_are_those_of_struct(shm):
    with listed(shm, ["howdy", b"HoWdY", -273.154, 100, None, True, "x" * 8]) as items:
        assert items.format == "8s8sdqxxxxxx?xxxxxxxx?16s"


def test_items_change_their_value_and_type(shm):
    with listed(shm, ["first", 2, 3.0, None, True]) as items:
        items[0] = "other"
        items[1] = 2.5
        items[2] = b"bytes"
        items[3] = False
        items[-1] = None
        assert list(items) == ["other", 2.5, b"bytes", False, None]
        items[2] = 7
        items[0] = "12345678"
        assert list(items) == ["12345678", 2.5, 7, False, None]


@pytest.mark.parametrize("too_long", ["123456789", b"123456789", "äöüßä"])
def test_item_that_does_not_fit_is_refused(shm, too_long):
    with listed(shm, ["first", 2]) as items:
        for position in range(2):
            with pytest.raises(ValueError, match="exceeds available storage"):
                items[position] = too_long
        assert list(items) == ["first", 2]


@pytest.mark.parametrize("item", [[], object(), 1j])
def test_item_of_another_type_is_refused(shm, item):
    with pytest.raises(KeyError):
        shm.ShareableList([item])
    with listed(shm, [1]) as items, pytest.raises(KeyError):
        items[0] = item


@pytest.mark.parametrize("position", [2, 100])
def test_position_outside_a_list_is_an_error(shm, position):
    with listed(shm, [1, 2]) as items:
        with pytest.raises(IndexError, match="index out of range"):
            items[position]
        with pytest.raises(IndexError, match="assignment index out of range"):
            items[position] = 1


def test_items_are_counted_and_found(shm):
    with listed(shm, [42, "x", 42.0, None]) as items:
        assert (items.count(42), items.count("y"), items.index("x")) == (2, 0, 1)
        with pytest.raises(ValueError, match="not in this container"):
            items.index("y")


def test_list_is_attached_by_its_name(shm):
    name = new_name()
    with listed(shm, [1, "two"], name=name) as items:
        same = shm.ShareableList(name=name)
        same[0] = 5
        assert list(items) == list(same) == [5, "two"]
        same.shm.close()


def test_list_is_copied_under_another_name(shm):
    with listed(shm, ITEMS) as items, listed(shm, items, name=new_name()) as other:
        assert list(other) == ITEMS
        assert other.format == items.format
        other[3] = 7
        assert items[3] == ITEMS[3]


def test_empty_list(shm):
    for items in ([], None):
        with listed(shm, items) as empty:
            assert (len(empty), list(empty), empty.format) == (0, [], "")
            with pytest.raises(IndexError):
                empty[0]


def set_first(items, value):
    items[0] = value
    items.shm.close()


def test_list_is_passed_to_a_child(shm, ctx):
    with listed(shm, [1, "two"]) as items:
        run(ctx, set_first, items, 10)
        assert list(items) == [10, "two"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_a_list_is_its_name(shm, protocol):
    with listed(shm, range(300)) as items:
        pickled = pickle.dumps(items, protocol)
        assert len(pickled) < 300
        same = pickle.loads(pickled)
        same[299] = "last"
        assert items[299] == "last"
        same.shm.close()
