"""The names of the package."""

import multiprocessing

import pytest

import procession

# What the original has and this package not yet; the README says the same.
MISSING = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
]


def test_every_public_name_of_the_original_is_there():
    assert set(multiprocessing.__all__) <= set(dir(procession))


def test_all_lists_each_name_once_and_in_order():
    assert sorted(set(procession.__all__)) == procession.__all__
    for name in procession.__all__:
        assert hasattr(procession, name), f"{name} is listed and not there"


@pytest.mark.parametrize("name", MISSING)
def test_missing_name_says_so_when_it_is_used(name):
    with pytest.raises(NotImplementedError, match=name):
        getattr(procession, name)()


def test_forkserver_says_that_it_is_missing():
    with pytest.raises(NotImplementedError, match="forkserver"):
        procession.get_context("forkserver")


def test_exceptions_are_the_original_s():
    for name in ("ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"):
        assert getattr(procession, name) is getattr(multiprocessing, name)
    assert issubclass(procession.WorkerDiedError, multiprocessing.ProcessError)
    assert issubclass(procession.BrokenPoolError, multiprocessing.ProcessError)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = procession.no_such_name
