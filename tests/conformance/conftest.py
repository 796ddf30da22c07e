"""Each test of this folder runs on the standard library and on `procession`."""

import importlib

import pytest


@pytest.fixture(params=["multiprocessing", "procession"])
def mp(request):
    return importlib.import_module(request.param)


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def ctx(mp, request):
    return mp.get_context(request.param)
