"""CPython's tests of `multiprocessing`, for the start method forkserver."""

from adapted import install

install(globals(), "forkserver")
