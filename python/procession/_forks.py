"""Forks: those that start a child of ours, and those that the program makes by itself."""

import os
import threading

from procession._procession import Child, PreparedFork, in_use

__all__ = ["fork"]


class _Fork(threading.local):
    """The fork that this thread is about to make."""

    prepared: PreparedFork | None = None
    watched = False
    daemon = False


_fork = _Fork()


def fork(daemon: bool) -> Child | None:
    """Fork, and return the child; in the child itself, `None`."""
    _fork.prepared = prepared = PreparedFork()
    _fork.watched = True
    _fork.daemon = daemon
    try:
        pid = os.fork()
    except BaseException:
        prepared.abandon()
        raise
    finally:
        vars(_fork).clear()
    return prepared.in_parent(pid) if pid else None


def _before() -> None:
    if _fork.prepared is None and in_use():
        _fork.prepared = PreparedFork()


def _in_parent() -> None:
    if _fork.prepared is not None and not _fork.watched:
        _fork.prepared.in_parent_unwatched()
        vars(_fork).clear()


def _in_child() -> None:
    if _fork.prepared is not None:
        _fork.prepared.in_child(_fork.daemon)
        vars(_fork).clear()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
