"""Blocks of shared memory."""

import gc
import mmap
import pickle
import sys
import tempfile

import pytest

from procession.heap import Arena, BufferWrapper, Heap

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_new_memory_is_zeroed_even_if_it_was_used_before(size):
    for _ in range(3):
        view = BufferWrapper(size).create_memoryview()
        assert view.nbytes == size
        assert bytes(view) == bytes(size)
        view[:] = b"\xff" * size


def test_view_keeps_the_memory():
    wrapper = BufferWrapper(100)
    view = wrapper.create_memoryview()
    view[:4] = b"kept"
    del wrapper
    gc.collect()
    others = [BufferWrapper(100).create_memoryview() for _ in range(100)]
    for other in others:
        other[:] = b"x" * 100
    assert bytes(view[:4]) == b"kept"


def test_views_of_one_block_are_the_same_memory():
    wrapper = BufferWrapper(8)
    wrapper.create_memoryview()[:2] = b"ab"
    assert bytes(wrapper.create_memoryview()[:2]) == b"ab"
    assert (wrapper.size, wrapper.address % 64) == (8, 0)


@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), (sys.maxsize, OverflowError), (2**70, OverflowError), (2**50, MemoryError)],
)
def test_impossible_sizes_are_refused(size, error):
    with pytest.raises(error):
        BufferWrapper(size)


def fill(wrapper):
    wrapper.create_memoryview()[:] = b"child"


def test_block_is_passed_to_a_child(ctx):
    wrapper = BufferWrapper(5)
    child = ctx.Process(target=fill, args=(wrapper,))
    child.start()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    child.close()
    assert bytes(wrapper.create_memoryview()) == b"child"


def test_block_lives_while_only_a_queue_has_it(make_queue):
    queue = make_queue()
    wrapper = BufferWrapper(5)
    wrapper.create_memoryview()[:] = b"alive"
    queue.put(wrapper)
    del wrapper
    others = [BufferWrapper(5) for _ in range(100)]
    assert bytes(queue.get().create_memoryview()) == b"alive"
    del others


def test_block_is_not_pickled_where_nothing_keeps_it():
    with pytest.raises(RuntimeError, match="BufferWrapper objects should only be shared"):
        pickle.dumps(BufferWrapper(1))


def test_arena_of_the_tree_is_passed_on(make_queue):
    queue = make_queue()
    arena = Arena(100)
    assert (arena.size, arena.fd) == (100, -1)
    queue.put(arena)
    same = queue.get()
    memoryview(same.buffer)[:4] = b"same"
    assert (bytes(memoryview(arena.buffer)[:4]), same.size) == (b"same", 100)


def test_arena_of_a_descriptor_is_that_file():
    with tempfile.TemporaryFile() as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        arena = Arena(mmap.PAGESIZE, file.fileno())
        memoryview(arena.buffer)[:4] = b"file"
        file.seek(0)
        assert file.read(4) == b"file"
        with pytest.raises(ValueError, match="unpicklable"):
            pickle.dumps(arena)
        arena.buffer.close()


def test_heap_hands_out_and_takes_back():
    heap = Heap()
    blocks = [heap.malloc(size) for size in (10, 1000)]
    assert [(start, stop, arena.size) for arena, start, stop in blocks] == [
        (0, 10, 10),
        (0, 1000, 1000),
    ]
    assert len(heap._arenas) == 2
    for block in blocks:
        heap.free(block)
    assert (heap._n_mallocs, heap._n_frees, heap._arenas) == (2, 2, [])
