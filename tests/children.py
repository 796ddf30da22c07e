"""Child processes that run one function."""

import contextlib

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@contextlib.contextmanager
def running(ctx, target, *args):
    """A child process that ends well within the block, or right after it."""
    child = ctx.Process(target=target, args=args)
    child.start()
    yield child
    child.join(DEADLOCK)
    assert child.exitcode == 0, "the child failed or hangs"
    child.close()


def run(ctx, target, *args):
    """Run a function in a child process, which must not fail."""
    with running(ctx, target, *args):
        pass
