"""CPython's tests of `multiprocessing`, for the start method fork."""

from adapted import install

install(globals(), "fork")
