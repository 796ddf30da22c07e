"""What users rely on from managers, their proxies and their servers."""

import array
import copy
import importlib
import os
import queue
import socket
import threading

import pytest

from tests.children import run

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@pytest.fixture
def managers(mp):
    return importlib.import_module(f"{mp.__name__}.managers")


@pytest.fixture(params=["started", "connected"])
def manager(ctx, managers, request):
    with ctx.Manager() as made:
        yield made if request.param == "started" else connected(managers, made)


def connected(managers, made):
    """Return a manager that reaches another one's server by its address."""
    other = managers.SyncManager(address=made.address, authkey=made._authkey)
    other.connect()
    return other


def change_containers(shared_dict, shared_list, namespace, value, numbers):
    shared_dict["child"] = os.getpid()
    del shared_dict["gone"]
    shared_list.append("child")
    shared_list[0] = -1
    namespace.x = namespace.x + 1
    value.value += 1
    numbers[1] = 42


def test_changes_of_containers_are_seen_by_all(ctx, manager):
    shared_dict = manager.dict({"gone": 1}, kept=[1, 2])
    shared_list = manager.list(range(3))
    namespace = manager.Namespace(x=1, _hidden=2)
    value = manager.Value("i", 6)
    numbers = manager.Array("i", [1, 2, 3])
    run(ctx, change_containers, shared_dict, shared_list, namespace, value, numbers)
    assert sorted(shared_dict.keys()) == ["child", "kept"]
    assert shared_dict["kept"] == [1, 2]
    assert shared_list[:] == [-1, 1, 2, "child"]
    assert namespace.x == 2
    assert str(namespace) == "Namespace(x=2)"
    assert value.get() == 7
    assert [numbers[index] for index in range(len(numbers))] == [1, 42, 3]


def test_dict_has_the_methods_of_one(manager):
    proxy = manager.dict(a=1)
    assert "a" in proxy
    assert len(proxy) == 1
    assert proxy.get("b", 2) == 2
    assert proxy.setdefault("b", 3) == 3
    proxy.update({"c": 4}, d=5)
    assert sorted(proxy.items()) == [("a", 1), ("b", 3), ("c", 4), ("d", 5)]
    assert sorted(proxy) == ["a", "b", "c", "d"]
    assert proxy.pop("d") == 5
    assert proxy.popitem() == ("c", 4)
    assert sorted(proxy.values()) == [1, 3]
    assert proxy.copy() == {"a": 1, "b": 3} == copy.deepcopy(proxy)
    assert str(proxy) == "{'a': 1, 'b': 3}"
    keys = iter(proxy)
    proxy.clear()
    assert not proxy.copy()
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        next(keys)


def test_list_has_the_methods_of_one(manager):
    proxy = manager.list([3, 1])
    proxy.extend([2])
    proxy += [5]
    proxy *= 2
    assert proxy[:] == [3, 1, 2, 5, 3, 1, 2, 5]
    del proxy[4:]
    proxy.sort(reverse=True)
    assert proxy[:] == [5, 3, 2, 1]
    proxy.reverse()
    proxy.insert(0, 0)
    proxy.remove(5)
    assert proxy.__add__([9]) == [0, 1, 2, 3, 9]
    assert (proxy.index(3), proxy.count(3), proxy.pop()) == (3, 1, 3)
    assert proxy._getvalue() == [0, 1, 2]


def test_error_of_a_call_is_raised_here(manager, managers):
    with pytest.raises(KeyError, match="missing"):
        manager.dict()["missing"]
    with pytest.raises(IndexError):
        manager.list()[0]
    with pytest.raises(TypeError):
        manager.list([1, "a"]).sort()
    with pytest.raises(AttributeError):
        _ = manager.Namespace().missing
    with pytest.raises(managers.RemoteError, match="not in exposed"):
        manager.dict()._callmethod("no_such_method")
    with pytest.raises(managers.RemoteError):
        manager.Queue("no", "queue", "has", "these")


def test_exceptions_are_those_of_the_standard_library(managers):
    from multiprocessing.managers import RemoteError

    assert managers.RemoteError is RemoteError
    assert str(RemoteError("text\n")).endswith("-" * 75 + "\ntext\n" + "-" * 75)


def add_all(lock, value, times):
    for _ in range(times):
        with lock:
            value.value += 1


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_locks_exclude(ctx, manager, kind):
    lock, value = getattr(manager, kind)(), manager.Value("i", 0)
    children = [ctx.Process(target=add_all, args=(lock, value, 20)) for _ in range(3)]
    for child in children:
        child.start()
    add_all(lock, value, 20)
    for child in children:
        child.join(DEADLOCK)
    assert value.value == 80


def test_lock_says_whether_it_was_taken(manager):
    lock = manager.Lock()
    assert lock.acquire()
    assert not lock.acquire(False)
    assert not lock.acquire(True, 0.05)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(False, 1)


def test_rlock_belongs_to_a_thread_of_a_client(manager):
    lock = manager.RLock()
    assert lock.acquire()
    assert lock.acquire()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(False)))
    thread.start()
    thread.join()
    assert taken == [False]
    lock.release()
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


def test_bounded_semaphore_counts(manager):
    semaphore = manager.BoundedSemaphore(2)
    assert [semaphore.acquire(False) for _ in range(3)] == [True, True, False]
    semaphore.release()
    semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()


def answer(condition, asked, answered):
    with condition:
        condition.wait_for(asked.is_set, DEADLOCK)
        answered.append("answer")
        condition.notify_all()


def test_condition_and_event_wake_others(ctx, manager):
    condition, asked, answered = manager.Condition(), manager.Event(), manager.list()
    assert not asked.wait(0.01)
    child = ctx.Process(target=answer, args=(condition, asked, answered))
    child.start()
    with condition:
        asked.set()
        condition.notify()
        assert condition.wait_for(lambda: len(answered) == 1, DEADLOCK)
    child.join(DEADLOCK)
    assert asked.is_set()
    asked.clear()
    assert not asked.is_set()
    with pytest.raises(RuntimeError):
        condition.notify()
    with condition:
        assert not condition.wait(0.01)


def test_condition_over_a_lock_of_the_manager(manager):
    lock = manager.Lock()
    condition = manager.Condition(lock)
    with condition:
        assert not lock.acquire(False)
        condition.notify_all()
    assert lock.acquire(False)


def meet(barrier, places):
    places.append(barrier.wait(DEADLOCK))


def test_barrier_brings_processes_together(ctx, manager):
    barrier, places = manager.Barrier(3), manager.list()
    children = [ctx.Process(target=meet, args=(barrier, places)) for _ in range(2)]
    for child in children:
        child.start()
    meet(barrier, places)
    for child in children:
        child.join(DEADLOCK)
    assert sorted(places) == [0, 1, 2]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    barrier.abort()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


def square_all(tasks, results):
    while (task := tasks.get()) is not None:
        results.put(task * task)
        tasks.task_done()
    tasks.task_done()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_queues_hand_items_on(ctx, manager, kind):
    tasks, results = getattr(manager, kind)(), manager.Queue(10)
    child = ctx.Process(target=square_all, args=(tasks, results))
    child.start()
    for task in [*range(5), None]:
        tasks.put(task)
    tasks.join()
    child.join(DEADLOCK)
    assert [results.get() for _ in range(5)] == [0, 1, 4, 9, 16]
    assert results.empty()
    with pytest.raises(queue.Empty):
        results.get_nowait()
    with pytest.raises(queue.Empty):
        results.get(timeout=0.05)
    small = manager.Queue(1)
    small.put(1)
    assert small.full()
    assert small.qsize() == 1
    with pytest.raises(queue.Full):
        small.put(2, timeout=0.05)


def test_pool_of_the_manager(manager):
    with manager.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert pool.apply(abs, (-3,)) == 3
        assert pool.apply_async(abs, (-4,)).get(DEADLOCK) == 4
        assert list(pool.imap(abs, [-5, -6])) == [5, 6]
        assert pool.starmap(divmod, [(7, 2)]) == [(3, 1)]


def append_to(outer):
    outer[0].append("child")
    outer[1]["inner"] = outer[0]


def test_proxies_may_lie_in_each_other(ctx, manager):
    mp_key = importlib.import_module(type(manager).__module__.partition(".")[0]).current_process()
    assert mp_key.authkey == manager._authkey
    outer = manager.list([manager.list([1]), manager.dict()])
    run(ctx, append_to, outer)
    assert outer[0][:] == [1, "child"]
    assert outer[1]["inner"][1] == "child"
    outer[0][0] = 2
    assert outer[1]["inner"][0] == 2


def test_objects_go_with_their_last_proxy(ctx, managers):
    with ctx.Manager() as made:
        check_that_objects_go(connected(managers, made))


def check_that_objects_go(manager):
    one, other = manager.dict(), manager.list()
    again = manager.list([one])
    assert manager._number_of_objects() == 3
    assert "refcount=1" in manager._debug_info()
    del other
    assert manager._number_of_objects() == 2
    del one
    again[0]["kept"] = 1
    assert again[0].copy() == {"kept": 1}
    del again
    assert manager._number_of_objects() == 0


class Counter:
    def __init__(self, start=0):
        self.count = start

    def add(self, number=1):
        self.count += number
        return self.count

    def _private(self):
        return "private"

    def numbers(self):
        yield from range(self.count)

    def lock(self):
        return threading.Lock()

    def fail(self):
        raise LookupError("on purpose")


def echo(value):
    return value


class Answers:
    started_with = None


def note(*values):
    Answers.started_with = values


def noted():
    return array.array("i", Answers.started_with)


def make_class(managers):
    class Numbers(managers.BaseProxy):
        _exposed_ = ("__next__",)

        def __iter__(self):
            return self

        def __next__(self):
            return self._callmethod("__next__")

    class Custom(managers.BaseManager):
        pass

    Custom.register("Counter", Counter)
    Custom.register("Open", Counter, exposed=("add", "_private"))
    Custom.register(
        "Generating", Counter, exposed=("numbers",), method_to_typeid={"numbers": "numbers"}
    )
    Custom.register("numbers", proxytype=Numbers, create_method=False)
    Custom.register("echo", callable=echo)
    Custom.register("noted", callable=noted)
    return Custom


@pytest.fixture
def custom(managers, mp):
    """Return a class of managers. Made here, it is known to forked servers only."""
    return lambda *args, **kwds: make_class(managers)(*args, ctx=mp.get_context("fork"), **kwds)


def test_own_types_have_their_public_methods(custom, managers):
    with custom() as made:
        counter = made.Counter(5)
        assert counter.add() == 6
        assert counter.add(number=4) == 10
        assert not hasattr(counter, "_private")
        with pytest.raises(LookupError, match="on purpose"):
            counter.fail()
        with pytest.raises(managers.RemoteError, match="Unserializable"):
            counter.lock()
        assert made.Open()._private() == "private"
        assert not hasattr(made.Open(), "numbers")
        assert list(made.Generating(3).numbers()) == [0, 1, 2]
        with pytest.raises(managers.RemoteError):
            made.Counter(1, 2, 3)


def test_initializer_runs_in_the_server(custom):
    made = custom()
    made.start(note, (1, 2))
    assert str(made.noted()) == "array('i', [1, 2])"
    made.shutdown()
    with pytest.raises(TypeError, match="callable"):
        custom().start(initializer=1)


def test_life_of_a_manager(custom, mp):
    made = custom(shutdown_timeout=DEADLOCK)
    with pytest.raises(AssertionError, match="not yet started"):
        made.Counter()
    made.start()
    with pytest.raises(mp.ProcessError, match="Already started"):
        made.start()
    with pytest.raises(mp.ProcessError, match="Already started"):
        made.get_server()
    assert made._process.is_alive()
    assert made._process.name.startswith("Custom-")
    server = made._process
    made.shutdown()
    made.shutdown()
    assert server.exitcode == 0
    made.join()
    with pytest.raises(mp.ProcessError, match="has shut down"):
        made.start()
    with pytest.raises(mp.ProcessError, match="has shut down"), made:
        pass


def test_server_elsewhere_is_connected_to_by_its_address(custom, mp):
    key = os.urandom(16)
    with custom(address=("127.0.0.1", 0), authkey=key) as served:
        made = custom(address=served.address, authkey=key)
        made.connect()
        assert made.Counter(1).add() == 2
        stranger = custom(address=served.address, authkey=b"another")
        with pytest.raises(mp.AuthenticationError):
            stranger.connect()
        address = served.address
    with pytest.raises(ConnectionRefusedError):
        custom(address=address, authkey=key).connect()


def test_server_starts_again_at_its_address(custom):
    key = os.urandom(16)
    with custom(address=("127.0.0.1", 0), authkey=key) as first:
        address = first.address
        assert first.Counter(1).add() == 2
    with custom(address=address, authkey=key) as second:
        assert second.address == address
        assert second.Counter(2).add() == 3


def test_server_at_a_path(custom, tmp_path):
    path = str(tmp_path / "socket")
    with custom(address=path, shutdown_timeout=DEADLOCK) as made:
        assert made.address == path
        assert made.Counter().add() == 1
    assert not os.path.exists(path)


def test_server_speaks_xml(managers, mp):
    made = make_class(managers)(serializer="xmlrpclib", ctx=mp.get_context("fork"))
    with made:
        assert made.Counter(2).add(3) == 5


def test_server_goes_on_after_garbage(custom):
    with custom(address=("127.0.0.1", 0)) as made:
        with socket.create_connection(made.address) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert made.Counter().add() == 1


def test_proxies_say_what_they_are(manager, managers):
    proxy = manager.dict(a=1)
    assert isinstance(proxy, managers.BaseProxy)
    assert repr(proxy).startswith("<DictProxy object, typeid 'dict' at ")
    assert str(proxy) == "{'a': 1}"
    token = proxy._token
    assert (token.typeid, token.address, token.id) == ("dict", manager.address, proxy._id)
    assert repr(token).startswith("Token(typeid='dict', ")


def test_threads_use_a_proxy_at_once(manager):
    proxy = manager.dict()

    def fill(start):
        for number in range(start, start + 50):
            proxy[number] = number

    threads = [threading.Thread(target=fill, args=(start,)) for start in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.copy() == {number: number for number in range(200)}


def test_large_values(manager):
    value = manager.Value("c", b"")
    large = os.urandom(1000) * 10_000
    value.set(large)
    assert value.get() == large


def test_shared_memory_manager_unlinks_at_its_end(managers, mp):
    memory_of = importlib.import_module(f"{mp.__name__}.shared_memory").SharedMemory
    with managers.SharedMemoryManager(ctx=mp.get_context("fork")) as made:
        memory = made.SharedMemory(size=64)
        items = made.ShareableList([1, "two"])
        memory.buf[0] = 7
        assert items[1] == "two"
        name = memory.name
        memory.close()
        items.shm.close()
    with pytest.raises(FileNotFoundError):
        memory_of(name)
