"""CPython's tests of `multiprocessing`, for the start method spawn."""

from adapted import install

install(globals(), "spawn")
