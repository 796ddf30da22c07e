"""Objects of managers in shared memory: where they are, how they travel, and when they go."""

import gc
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading

import pytest

import procession
from procession import connection, managers
from procession._homes import pickled_within_tree
from tests.unit.waiting import LIMIT

KEY = b"a key for tests"

KINDS = [
    ("Queue", ()),
    ("JoinableQueue", (3,)),
    ("Lock", ()),
    ("RLock", ()),
    ("Semaphore", (2,)),
    ("BoundedSemaphore", (2,)),
    ("Condition", ()),
    ("Event", ()),
    ("Barrier", (2,)),
]
CONTAINERS = [
    ("dict", ({"a": 1},)),
    ("list", ([1, "two"],)),
    ("Namespace", ()),
    ("Value", ("i", 3)),
]


@pytest.fixture
def manager(ctx):
    with ctx.Manager() as made:
        yield made


@pytest.fixture
def forked():
    with procession.get_context("fork").Manager() as made:
        yield made


def connected(made):
    other = managers.SyncManager(address=made.address, authkey=made._authkey)
    other.connect()
    return other


def kill(child):
    os.kill(child.pid, signal.SIGKILL)
    child.join()


@pytest.mark.parametrize(("kind", "args"), KINDS + CONTAINERS)
def test_proxies_look_like_those_of_a_server(forked, kind, args):
    here, there = getattr(forked, kind)(*args), getattr(connected(forked), kind)(*args)
    assert forked._number_of_objects() == 1  # the other one
    assert type(here) is type(there)
    assert sorted(here._exposed_) == sorted(there._exposed_)
    assert repr(here).rpartition(" at ")[0] == repr(there).rpartition(" at ")[0]
    assert here._token.typeid == there._token.typeid == kind
    assert here._token.address == there._token.address == forked.address
    assert here._token.id == here._id
    assert here._manager is forked


@pytest.mark.parametrize(("kind", "args"), CONTAINERS)
def test_containers_have_values(forked, kind, args):
    here, there = getattr(forked, kind)(*args), getattr(connected(forked), kind)(*args)
    assert type(here._getvalue()) is type(there._getvalue())
    assert repr(here._getvalue()) == repr(there._getvalue()) == str(here) == str(there)
    with pytest.raises(managers.RemoteError, match="not in exposed"):
        here._callmethod("__class__")


@pytest.mark.parametrize(("kind", "args"), KINDS)
def test_methods_that_are_not_exposed_are_refused(forked, kind, args):
    proxy = getattr(forked, kind)(*args)
    with pytest.raises(managers.RemoteError, match="not in exposed"):
        proxy._callmethod("__class__")
    with pytest.raises(managers.RemoteError, match="Unserializable"):
        proxy._getvalue()


class Loud(managers.AcquirerProxy):
    pass


class Own(managers.SyncManager):
    pass


def make_lock():
    return threading.Lock()


Own.register("Lock", make_lock, managers.AcquirerProxy)
Own.register("RLock", threading.RLock, Loud)


def test_kinds_that_a_subclass_makes_itself_are_in_the_server():
    with Own(ctx=procession.get_context("fork")) as made:
        locks = [made.Lock(), made.RLock()]
        assert made._number_of_objects() == 2
        event = made.Event()
        assert made._number_of_objects() == 2
        assert [lock.acquire() for lock in locks] == [True, True]
        assert not event.is_set()


class Counting(managers.EventProxy):
    calls = 0

    def _callmethod(self, *args):
        Counting.calls += 1
        return super()._callmethod(*args)


def test_subclasses_of_proxies_may_replace_the_call(forked):
    event = forked.Event()
    event.__class__ = Counting
    event.set()
    assert event.is_set()
    assert Counting.calls == 2


def test_actions_of_barriers_are_called_by_the_server(forked):
    assert forked.Barrier(1, os.getpid).wait() == 0
    barrier = forked.Barrier(1, os.getpid)
    assert barrier.parties == 1
    assert forked._number_of_objects() == 1


def echo(proxies, *ways):
    for way in ways:
        way.put(proxies) if hasattr(way, "put") else way.send(proxies)


def same(proxy):
    return proxy


def use(queue):
    """Change a queue by way of one proxy."""
    queue.put("used")


def test_proxies_go_anywhere_in_the_tree(ctx, manager):
    queue, carrier = manager.Queue(), ctx.Queue()
    ours, theirs = ctx.Pipe()
    proxies = {"queue": queue, "others": [manager.Lock(), manager.Condition()]}
    child = ctx.Process(target=echo, args=(proxies, queue, carrier, theirs))
    child.start()
    child.join()
    with ctx.Pool(1) as pool:
        came = [queue.get(), carrier.get(), ours.recv(), pool.apply(same, (proxies,))]
    for got in came:
        use(got["queue"])
        assert queue.get() == "used"
        assert got["queue"]._id == queue._id
        with got["others"][1], got["others"][0]:
            assert not proxies["others"][0].acquire(False)
    assert manager._number_of_objects() == 0


def test_what_is_on_its_way_is_kept(forked):
    carrier = procession.Queue()
    carrier.put(forked.Queue())
    gc.collect()
    got = carrier.get()
    use(got)
    assert got.get() == "used"
    outer = forked.Queue()
    outer.put(forked.Queue())
    gc.collect()
    assert outer.get().empty()


def tell_home(proxies, carrier):
    (home,) = {proxy._methods.resident.home for proxy in proxies}
    carrier.put((home.address, home.server_pid, home.is_ready()))


def test_all_proxies_of_a_manager_bring_it_along_as_one(ctx, manager):
    expected = (manager.address, manager._process.pid, True)
    carrier = ctx.Queue()
    proxies = [manager.dict(), manager.Lock(), manager.Queue()]
    child = ctx.Process(target=tell_home, args=(proxies, carrier))
    child.start()
    assert carrier.get() == expected
    child.join()
    tell_home(proxies, carrier)
    assert carrier.get() == expected


@pytest.mark.parametrize(("kind", "args"), CONTAINERS)
def test_proxies_travel_as_little_more_than_numbers(forked, kind, args):
    pickled, _kept = pickled_within_tree(getattr(forked, kind)(*args))
    assert len(pickled) < 200


def test_raw_fork_and_threads_use_a_proxy(forked):
    queue, lock = forked.Queue(), forked.Lock()

    def put_some():
        for _ in range(50):
            with lock:
                queue.put(queue.qsize())

    pid = os.fork()
    if not pid:
        put_some()
        os._exit(0)
    threads = [threading.Thread(target=put_some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.waitpid(pid, 0)
    assert [queue.get() for _ in range(200)] == list(range(200))


def arena_size():
    """Return how much of the shared memory is in use, in bytes."""
    for path in pathlib.Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(path).startswith("/memfd:procession-arena"):
                return path.stat().st_blocks * 512
        except OSError:  # the one that lists the folder
            continue
    raise AssertionError("there is no arena")


@pytest.mark.parametrize(("kind", "args"), KINDS + CONTAINERS)
def test_objects_go_with_their_last_proxy(forked, kind, args):
    def make_and_drop():
        carrier = procession.Queue()
        for _ in range(400):
            carrier.put(getattr(forked, kind)(*args))
        for _ in range(400):
            carrier.get()

    make_and_drop()
    before = arena_size()
    for _ in range(20):
        make_and_drop()
    # Nothing smaller than a line of the cache is made.
    assert arena_size() - before < 20 * 400 * 64


def test_containers_keep_what_lies_in_them(forked):
    outer = forked.dict(inner=forked.list([forked.dict(a=1)]))
    gc.collect()
    outer["inner"][0]["a"] += 1
    outer["inner"].append(outer["inner"])
    assert outer["inner"][1][0].copy() == {"a": 2}
    kept = outer["inner"]
    outer.clear()
    assert kept[0]["a"] == 2
    assert forked._number_of_objects() == 0


def nest(made):
    outer = made.list()
    for number in range(400):
        outer.append(made.dict(lock=made.Lock(), number=number))


def test_containers_let_go_of_what_lies_in_them(forked):
    nest(forked)
    before = arena_size()
    for _ in range(20):
        nest(forked)
    assert arena_size() - before < 20 * 400 * 64


def iterate(shared, results):
    results.append(sorted(shared))
    results.append(sorted(key for key in shared.keys()))  # noqa: SIM118


def test_children_iterate_over_dictionaries(ctx, manager):
    shared, results = manager.dict(a=1, b=2), manager.list()
    child = ctx.Process(target=iterate, args=(shared, results))
    child.start()
    child.join()
    assert results[:] == [["a", "b"]] * 2


def hold(made, ready):
    _mine = [made.Queue() for _ in range(400)]
    ready.set()
    signal.pause()


def test_objects_of_a_killed_process_go(forked):
    ctx, sizes = procession.get_context("fork"), []
    for _ in range(4):
        ready = ctx.Event()
        child = ctx.Process(target=hold, args=(forked, ready))
        child.start()
        ready.wait()
        kill(child)
        kept = [forked.Queue() for _ in range(400)]
        sizes.append(arena_size())
        del kept
    assert sizes[-1] - sizes[1] < 400 * 64


def take_and_die(lock, ready):
    lock.acquire()
    ready.set()
    signal.pause()


def put_for_ever(queue):
    number = 0
    while True:
        queue.put((number, bytes(number % 3000)))
        number += 1


def test_killed_producers_leave_whole_items_and_queues_that_work(forked):
    ctx, queue = procession.get_context("fork"), forked.Queue(50)
    for _ in range(20):
        child = ctx.Process(target=put_for_ever, args=(queue,))
        child.start()
        first = [queue.get() for _ in range(20)]
        kill(child)
        rest = []
        while not queue.empty():
            rest.append(queue.get())
        numbers = [number for number, _ in first + rest]
        assert numbers == list(range(len(numbers)))
        assert all(len(item) == number % 3000 for number, item in first + rest)


# Leaving the tree.


def use_both_ways(here, there):
    """Check that two proxies stand for one queue."""
    here.put("from here")
    assert there.get() == "from here"
    there.put("from there")
    assert here.get() == "from there"


def test_pickle_for_anybody_names_the_server(forked):
    queue = forked.Queue()
    pickled = pickle.dumps(queue)
    there = pickle.loads(pickled)
    assert there._token.id == queue._id
    assert pickle.loads(pickle.dumps(queue))._id == queue._id
    assert forked._number_of_objects() == 1
    use_both_ways(queue, there)
    use_both_ways(pickle.loads(pickle.dumps(there)), queue)
    # The server keeps it while somebody refers to it there, and no longer.
    del queue
    gc.collect()
    there.put("still there")
    assert there.get() == "still there"
    del there
    gc.collect()
    assert forked._number_of_objects() == 0


def test_containers_are_the_same_for_those_who_call_the_server(forked):
    here = forked.dict(
        items=forked.list([1]), spot=forked.Namespace(x=1), cell=forked.Value("i", 0)
    )
    there = pickle.loads(pickle.dumps(here))
    there["new"] = 1
    assert here["new"] == 1
    there["items"].append(2)
    there["spot"].x += 1
    there["cell"].value = 5
    assert here["items"][:] == [1, 2]
    assert (here["spot"].x, here["cell"].get()) == (2, 5)
    assert there._getvalue().keys() == here._getvalue().keys()
    with pytest.raises(KeyError, match="missing"):
        there["missing"]
    with pytest.raises(AttributeError, match="missing"):
        _ = there["spot"].missing
    del there["spot"]
    assert sorted(here) == ["cell", "items", "new"]


def test_listener_and_client_exchange_proxies(forked):
    queue = forked.Queue()
    with connection.Listener(authkey=KEY) as listener:
        sent = []

        def send():
            with connection.Client(listener.address, authkey=KEY) as client:
                client.send(queue)
                sent.append(client.recv())

        thread = threading.Thread(target=send)
        thread.start()
        with listener.accept() as accepted:
            got = accepted.recv()
            use_both_ways(queue, got)
            accepted.send(got)
        thread.join()
    use_both_ways(sent[0], queue)


class Store:
    """A user's own object in the server."""

    def __init__(self):
        self.kept = []

    def store(self, thing):
        self.kept.append(thing)

    def last(self):
        return self.kept[-1]

    def take(self):
        return self.kept.pop()

    def put(self, item):
        self.kept[-1].put(item)

    def lock_twice(self):
        with self.kept[-1], self.kept[-1]:
            return True


class Stores(managers.SyncManager):
    pass


Stores.register("Store", Store)


def test_objects_of_the_server_use_those_in_shared_memory():
    with Stores(ctx=procession.get_context("fork")) as made:
        store, queue = made.Store(), made.Queue()
        store.store(queue)
        store.put("from the server")
        assert queue.get() == "from the server"
        use_both_ways(queue, store.last())
        store.store([queue, made.Lock()])
        use_both_ways(store.last()[0], queue)
        lock = made.RLock()
        store.store(lock)
        assert store.lock_twice()
        with lock:
            pass


def test_last_proxy_is_in_the_server():
    with Stores(ctx=procession.get_context("fork")) as made:
        store = made.Store()
        store.store(made.Queue())
        gc.collect()
        store.put("kept by the server")
        got = store.take()
        assert got.get() == "kept by the server"
        # So it is with what was never anywhere else.
        outer = connected(made).list([connected(made).list([1])])
        gc.collect()
        assert outer.pop()[0] == 1


PLAIN_CLIENT = """
import sys, threading
from multiprocessing import current_process
from multiprocessing.managers import SyncManager
current_process().authkey = b"a key for tests"
class Stores(SyncManager):
    pass
Stores.register("Store")
Stores.register("get_store")
made = Stores(address=("127.0.0.1", int(sys.argv[1])), authkey=b"a key for tests")
made.connect()
queue, lock, rlock, condition, event, semaphore, barrier = made.get_store().take()
queue.put("from outside")
assert queue.get() == "from inside"
queue.task_done()
assert not lock.acquire(False)
lock.release()
assert lock.acquire(True, 0.1)
lock.release()
with rlock, rlock:
    taken = []
    thread = threading.Thread(target=lambda: taken.append(rlock.acquire(False)))
    thread.start()
    thread.join()
    assert taken == [False]
with condition:
    event.set()
    assert condition.wait(300)
semaphore.acquire()
assert barrier.wait(300) in (0, 1)
queue.put(queue)
queue.get().put("by way of itself")
print("done")
"""

_the_store = Store()


def get_store():
    return _the_store


Stores.register("get_store", get_store)


def test_program_of_the_standard_library_uses_objects_of_the_tree():
    with Stores(address=("127.0.0.1", 0), authkey=KEY) as made:
        queue, lock, rlock, condition, event, semaphore, barrier = kept = (
            made.Queue(),
            made.Lock(),
            made.RLock(),
            made.Condition(),
            made.Event(),
            made.Semaphore(0),
            made.Barrier(2),
        )
        made.get_store().store(kept)
        lock.acquire()
        queue.put("from inside")
        client = [sys.executable, "-I", "-c", PLAIN_CLIENT, str(made.address[1])]
        with subprocess.Popen(
            client, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as peer:
            assert event.wait(LIMIT)
            assert queue.get(timeout=LIMIT) == "from outside"
            with condition:
                condition.notify_all()
            semaphore.release()
            barrier.wait(LIMIT)
            assert peer.communicate() == ("done\n", "")
        assert queue.get() == "by way of itself"
        assert rlock.acquire(False)
        assert lock.acquire(False)


def test_what_a_client_of_another_tree_has_locked_goes_with_it(forked):
    # A process that reaches the objects through the server alone stands for one of another tree.
    ctx = procession.get_context("fork")
    for kind in ("Lock", "RLock", "Condition"):
        lock, ready = getattr(forked, kind)(), ctx.Event()
        pickled = pickle.dumps(lock)
        child = ctx.Process(target=lambda: take_and_die(pickle.loads(pickled), ready))  # noqa: B023
        child.start()
        ready.wait()
        assert not lock.acquire(False)
        kill(child)
        assert lock.acquire(True, LIMIT), kind


def test_item_is_not_handed_to_a_client_of_another_tree_that_is_gone(forked):
    ctx, queue = procession.get_context("fork"), forked.Queue()
    pickled, ready = pickle.dumps(queue), ctx.Event()

    def get():
        there = pickle.loads(pickled)
        ready.set()
        there.get()

    child = ctx.Process(target=get)
    child.start()
    ready.wait()
    kill(child)
    queue.put("item")
    assert queue.get(timeout=LIMIT) == "item"


# Starting.


def test_address_leaves_no_file(manager):
    assert connection.address_type(manager.address) == "AF_UNIX"
    assert manager.address.startswith("\0")
    assert manager._process in procession.active_children()


def test_manager_may_be_shut_down_before_its_server_answers(ctx):
    made = managers.SyncManager(ctx=ctx, shutdown_timeout=LIMIT)
    made.start()
    server, lock = made._process, made.Lock()
    made.shutdown()
    assert server.exitcode == 0
    with pytest.raises(EOFError, match="was shut down"):
        lock.acquire()
    with pytest.raises(ConnectionError):
        lock.release()
