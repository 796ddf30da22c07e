"""Subclasses and contexts that change how the original's pool works inside keep working."""

import multiprocessing
import multiprocessing.pool
import os

import pytest

import procession
import procession.dummy
import procession.pool


def square(number):
    return number * number


def own_pid(_=None):
    return os.getpid()


def is_daemon():
    return procession.current_process().daemon


def counting_worker(*args, **kwargs):
    procession.pool.worker(*args, **kwargs)


class QueuesOfItsOwn(procession.pool.Pool):
    """As joblib's: other queues."""

    def __init__(self, *args, **kwargs):
        self.set_up = 0
        super().__init__(*args, **kwargs)

    def _setup_queues(self):
        self.set_up += 1
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put = self._inqueue._writer.send
        self._quick_get = self._outqueue._reader.recv


class WorkersOfItsOwn(procession.pool.Pool):
    """As torch's: another function in the workers."""

    def _repopulate_pool(self):
        for _ in range(self._processes - len(self._pool)):
            args = (self._inqueue, self._outqueue, self._initializer, self._initargs)
            args += (self._maxtasksperchild, self._wrap_exception)
            worker = self.Process(self._ctx, target=counting_worker, args=args)
            worker.name = worker.name.replace("Process", "PoolWorker")
            worker.daemon = True
            worker.start()
            self._pool.append(worker)


@pytest.mark.parametrize("cls", [QueuesOfItsOwn, WorkersOfItsOwn])
def test_replaced_hook_is_used(ctx, cls):
    with cls(2, context=ctx) as pool:
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        assert list(pool.imap(square, range(4))) == [0, 1, 4, 9]
        assert pool.apply(own_pid) in {worker.pid for worker in pool._pool}
        assert isinstance(pool, cls)
        assert isinstance(pool, multiprocessing.pool.Pool)
        assert getattr(pool, "set_up", 1) == 1
        assert cls.__name__ in repr(pool)
    pool.join()


def test_what_only_the_engine_has_is_refused_with_a_hook(ctx):
    with pytest.raises(ValueError, match="retries"):
        QueuesOfItsOwn(1, context=ctx, retries=1)
    with QueuesOfItsOwn(1, context=ctx) as pool, pytest.raises(NotImplementedError):
        pool.stats()
    pool.join()


def test_context_of_the_original():
    with procession.pool.Pool(2, context=multiprocessing.get_context("fork")) as pool:
        assert isinstance(pool, procession.pool.Pool)
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
    pool.join()
    with pytest.raises(ValueError, match="at least 1"):
        procession.pool.Pool(0, context=multiprocessing.get_context("fork"))


def test_subclass_without_hooks_runs_on_the_engine(ctx):
    class Plain(procession.pool.Pool):
        def map(self, *args, **kwargs):
            return ["mine", *super().map(*args, **kwargs)]

    with Plain(1, context=ctx, retries=1) as pool:
        assert pool.map(square, [2]) == ["mine", 4]
        assert pool.stats()["done"] == 1
    pool.join()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_that_are_not_daemonic_by_context(method):
    base = type(procession.get_context(method))

    class NoDaemonProcess(base.Process):
        @property
        def daemon(self):
            return False

        @daemon.setter
        def daemon(self, value):
            pass

    class NoDaemonContext(base):
        Process = NoDaemonProcess

    with procession.pool.Pool(1, context=NoDaemonContext()) as pool:
        assert pool.apply(is_daemon) is False
        assert pool.apply(square, (3,)) == 9
    pool.join()


def test_workers_that_are_not_daemonic_by_method():
    class NoDaemonProcess(procession.get_context("fork").Process):
        @property
        def daemon(self):
            return False

        @daemon.setter
        def daemon(self, value):
            pass

    class NoDaemonPool(procession.pool.Pool):
        def Process(self, *args, **kwds):  # noqa: N802
            proc = super().Process(*args, **kwds)
            proc.__class__ = NoDaemonProcess
            return proc

    with NoDaemonPool(1, context=procession.get_context("fork")) as pool:
        assert pool.apply(is_daemon) is False
    pool.join()


@pytest.mark.parametrize("make", [procession.pool.ThreadPool, procession.dummy.Pool])
def test_pool_of_threads(make):
    with make(2) as pool:
        assert isinstance(pool, procession.pool.Pool)
        assert isinstance(pool, procession.pool.ThreadPool)
        assert isinstance(pool, multiprocessing.pool.ThreadPool)
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        assert set(pool.map(own_pid, range(10))) == {os.getpid()}
    pool.join()


def test_names_of_the_original():
    for name in (*multiprocessing.pool.__all__, "RemoteTraceback", "MaybeEncodingError", "worker"):
        assert hasattr(procession.pool, name)
    assert procession.pool.RUN == multiprocessing.pool.RUN
    assert procession.pool.mapstar is multiprocessing.pool.mapstar
    with pytest.raises(AttributeError):
        _ = procession.pool.__no_such_name__
