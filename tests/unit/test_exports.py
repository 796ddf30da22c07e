"""The names of the package."""

import multiprocessing

import pytest

import procession

# What makes objects of this package's own classes.
OWN = ["Condition", "Event", "JoinableQueue", "Lock", "Queue", "RLock", "Semaphore", "SimpleQueue"]


def test_every_public_name_of_the_original_is_there():
    assert set(multiprocessing.__all__) <= set(dir(procession))


def test_all_lists_each_name_once_and_in_order():
    assert sorted(set(procession.__all__)) == procession.__all__
    for name in procession.__all__:
        assert hasattr(procession, name), f"{name} is listed and not there"


@pytest.mark.parametrize("name", OWN)
def test_what_is_made_is_of_an_own_class_and_passes_for_the_original_s(name):
    made = getattr(procession, name)()
    assert type(made).__module__.startswith("procession.")
    assert isinstance(made, type(getattr(multiprocessing, name)()))


def test_exceptions_are_the_original_s():
    for name in ("ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"):
        assert getattr(procession, name) is getattr(multiprocessing, name)
    assert issubclass(procession.WorkerDiedError, multiprocessing.ProcessError)
    assert issubclass(procession.BrokenPoolError, multiprocessing.ProcessError)
    assert issubclass(procession.TasksLostError, multiprocessing.ProcessError)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = procession.no_such_name
