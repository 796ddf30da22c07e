"""What is this package's alone; nothing here runs on the standard library."""

import contextlib

import pytest

import procession


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(request):
    return procession.get_context(request.param)


@pytest.fixture
def make_queue(ctx):
    """Make queues that are closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(maxsize=0):
            created = ctx.Queue(maxsize)
            stack.callback(created.close)
            return created

        yield make


@pytest.fixture
def make_pool(ctx):
    """Make pools that are ended at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(*args, **kwargs):
            created = ctx.Pool(*args, **kwargs)
            stack.callback(created.join)
            stack.callback(created.terminate)
            return created

        yield make
