"""What `SharedMemory` and `ShareableList` have beyond the original, and how they get on with it."""

import multiprocessing.shared_memory as original
import os
import pathlib
import signal
import struct
import subprocess
import sys

import pytest

from procession.shared_memory import ShareableList, SharedMemory

FOLDER = pathlib.Path("/dev/shm")


@pytest.fixture
def memory():
    made = SharedMemory(create=True, size=100)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def make_list():
    """Make lists that are closed and unlinked at the end of the test."""
    made = []

    def make(items):
        made.append(ShareableList(items))
        return made[-1]

    yield make
    for one in made:
        one.shm.close()
        one.shm.unlink()


def program(text, **kwargs):
    """The command line of an interpreter that runs `text`."""
    command = [sys.executable, "-c", text]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **kwargs)


def run(text):
    """What an interpreter that runs `text` prints."""
    with program(text) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


def names_of(pid):
    """What there is in the name of a process tree."""
    return [path.name for path in FOLDER.iterdir() if f".{pid}-" in path.name]


def test_original_reads_and_writes_ours(memory):
    memory.buf[:4] = b"ours"
    run(f"""if 1:
        from multiprocessing import resource_tracker
        from multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory({memory.name!r})
        # Or else its tracker destroys what it has only attached to.
        resource_tracker.unregister(memory._name, "shared_memory")
        assert bytes(memory.buf[:4]) == b"ours"
        memory.buf[:6] = b"theirs"
        memory.close()
    """)
    assert bytes(memory.buf[:6]) == b"theirs"


def test_ours_reads_and_writes_the_original_s():
    theirs = original.SharedMemory(create=True, size=100)
    try:
        run(f"""if 1:
            from procession.shared_memory import SharedMemory
            memory = SharedMemory({theirs.name!r})
            memory.buf[:4] = b"ours"
            memory.close()
        """)
        assert bytes(theirs.buf[:4]) == b"ours"
    finally:
        theirs.close()
        theirs.unlink()


def test_attaching_never_unlinks(memory):
    run(f"from procession.shared_memory import SharedMemory; SharedMemory({memory.name!r})")
    SharedMemory(memory.name).close()
    assert (FOLDER / memory.name).exists()


MAKE = """if 1:
    import procession
    from procession.shared_memory import SharedMemory

    def make(track):
        memory = SharedMemory(create=True, size=10, track=track)
        print(memory.name, flush=True)

    if __name__ == "__main__":
"""


@pytest.mark.parametrize("how", ["make(True)", "procession.get_context('fork')"])
def test_end_of_the_first_process_unlinks(how):
    if how != "make(True)":
        how = f"""
            child = {how}.Process(target=make, args=(True,))
            child.start()
            child.join()
        """
    name = run(f"{MAKE}\n        {how}")
    assert name.startswith("psm_")
    assert not (FOLDER / name).exists()


def test_untracked_name_stays():
    name = run(f"{MAKE}\n        make(False)")
    memory = SharedMemory(name)
    memory.close()
    memory.unlink()


def test_name_of_a_killed_program_goes_with_the_next_use(memory):
    with program(f"{MAKE}\n        make(True)\n        input()") as process:
        name = process.stdout.readline().decode().strip()
        assert len(names_of(process.pid)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (FOLDER / name).exists(), "nobody was there to unlink it"
        with pytest.raises(FileExistsError):
            SharedMemory(memory.name, create=True, size=1)
        assert not (FOLDER / name).exists()
        assert names_of(process.pid) == []


def test_no_helper_process_is_started():
    assert run(f"""{MAKE}
        from multiprocessing import resource_tracker
        make(True)
        assert resource_tracker._resource_tracker._fd is None
    """)


def test_close_leaves_the_memory_to_its_views(memory):
    memory.buf[5] = 7
    view = memory.buf[5:]
    memory.close()
    assert (memory.buf, memory._mmap, memory._fd) == (None, None, -1)
    assert view[0] == 7


def test_failed_attempt_leaves_nothing_open(memory):
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileExistsError):
        SharedMemory(memory.name, create=True, size=1)
    with pytest.raises(OSError, match="too long"):
        SharedMemory("x" * 300, create=True, size=1)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_empty_file_is_not_unlinked_by_who_could_not_attach():
    path = FOLDER / f"unit-empty-{os.getpid()}"
    path.touch()
    try:
        with pytest.raises(ValueError, match="empty"):
            SharedMemory(path.name)
        assert path.exists()
    finally:
        path.unlink()


def test_zero_in_a_name_is_an_error():
    # The original takes what is in front of it, up to CPython 3.12.
    with pytest.raises(ValueError, match="null"):
        SharedMemory("a\0b", create=True, size=1)
    with pytest.raises(ValueError, match="null"):
        SharedMemory("a\0b")


ITEMS = ["text", b"bytes", -273.154, 100, None, True, "", b"", "x" * 8, b"y" * 17]


def test_layout_is_the_original_s(make_list):
    ours = make_list(ITEMS)
    theirs = original.ShareableList(ITEMS)
    try:
        assert ours.shm.size == theirs.shm.size
        assert bytes(ours.shm.buf) == bytes(theirs.shm.buf)
        for position, item in enumerate([b"other", "new", 7, None, 2.5, False]):
            ours[position] = theirs[position] = item
        assert list(ours) == list(theirs)
        assert ours.format == theirs.format
    finally:
        theirs.shm.close()
        theirs.shm.unlink()


LOSSY = [b"ab\0\0", b"\0", "zero\0", "äöüßäöüß", "🦀" * 10, b"12345678", b"1234567\0", b"\0" * 16]


def test_items_that_the_original_damages_are_kept(make_list):
    items = make_list(LOSSY)
    assert list(items) == LOSSY
    assert list(make_list(items)) == LOSSY
    slots = make_list(["x" * 40] * len(LOSSY))
    for position, item in enumerate(LOSSY):
        slots[position] = item
    assert list(slots) == LOSSY


def test_item_that_fills_its_slot_keeps_its_zeros_and_its_neighbours(make_list):
    items = make_list([1, 2, 3])
    items[1] = b"1234567\0"
    assert list(items) == [1, b"1234567\0", 3]


def test_original_reads_and_changes_such_items(make_list):
    ours = make_list([b"ab\0\0", "äöüßäöüß", 1])
    theirs = original.ShareableList(name=ours.shm.name)
    assert list(theirs) == [b"ab", "äöüßäöüß", 1]
    theirs[0] = b"abcdefgh"
    assert ours[0] == b"abcdefgh"
    theirs.shm.close()


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_number_that_is_too_large_changes_nothing(make_list, number):
    items = make_list(["text"])
    with pytest.raises(struct.error):
        items[0] = number
    assert list(items) == ["text"]
    before = set(os.listdir(FOLDER))
    with pytest.raises(struct.error):
        ShareableList([number])
    assert set(os.listdir(FOLDER)) == before


def test_closed_list_says_so(make_list):
    items = make_list([1])
    items.shm.close()
    with pytest.raises(ValueError, match="closed"):
        items[0]
    with pytest.raises(ValueError, match="closed"):
        items[0] = 1


@pytest.mark.parametrize(
    "words", [[], [-1], [2**62], [10], [1, 0], [1, 0, -8], [1, 8, 0], [1, 0, 2**40]]
)
def test_memory_that_holds_no_list_is_refused(words):
    memory = SharedMemory(create=True, size=max(8 * len(words), 1))
    try:
        struct.pack_into(f"{len(words)}q", memory.buf, 0, *words)
        with pytest.raises(ValueError, match="no list"):
            ShareableList(name=memory.name)
    finally:
        memory.close()
        memory.unlink()


def test_damaged_item_is_an_error(make_list):
    items = make_list([1, "two"])
    for text in (b"999999s", b"??", b"", b"-1s"):
        struct.pack_into("8s", items.shm.buf, 8 * 6, text)
        with pytest.raises(ValueError, match="damaged"):
            items[0]
    assert items[1] == "two"
