"""What users rely on from `dummy`: threads behind the interface of processes.

Every test runs against the standard library too. One that fails there is wrong about
`multiprocessing`, whatever `procession` does.
"""

import importlib
import os
import threading

import pytest

DEADLOCK = 300.0  # seconds; only a deadlock takes this long


@pytest.fixture
def dummy(mp):
    return importlib.import_module(f"{mp.__name__}.dummy")


@pytest.fixture
def connection(mp):
    return importlib.import_module(f"{mp.__name__}.dummy.connection")


@pytest.fixture
def start(dummy):
    """Start threads that have ended when the test has."""
    started = []

    def begin(target, *args, **options):
        child = dummy.Process(target=target, args=args, **options)
        child.start()
        started.append(child)
        return child

    yield begin
    for child in started:
        child.join(DEADLOCK)
        assert not child.is_alive(), "the thread hangs"


@pytest.fixture
def pool(dummy):
    with dummy.Pool(2) as created:
        yield created
    created.join()


def square(number):
    return number * number


def test_every_name_that_it_lists_is_there(dummy):
    expected = (
        "Barrier BoundedSemaphore Condition Event JoinableQueue Lock Manager Pipe Pool Process"
        " Queue RLock Semaphore active_children current_process freeze_support"
    )
    assert set(dummy.__all__) == set(expected.split())
    for name in dummy.__all__:
        assert hasattr(dummy, name), f"{name} is listed and not there"


def test_attribute_of_the_package_is_the_module(mp, dummy):
    assert mp.dummy is dummy


def test_process_is_a_thread_of_this_process(start):
    facts = []
    child = start(lambda *args: facts.append((os.getpid(), threading.current_thread(), args)), 1, 2)
    child.join(DEADLOCK)
    assert facts == [(os.getpid(), child, (1, 2))]
    assert isinstance(child, threading.Thread)


def test_life_of_a_process(dummy):
    go = threading.Event()
    child = dummy.Process(target=go.wait, args=(DEADLOCK,))
    assert child.exitcode is None
    assert not child.is_alive()
    child.start()
    assert child.is_alive()
    assert child.exitcode is None
    assert child in dummy.active_children()
    go.set()
    child.join(DEADLOCK)
    assert child.exitcode == 0
    assert not child.is_alive()
    assert child not in dummy.active_children()


def test_name_and_daemon_flag_of_a_process(dummy, start):
    child = start(square, 2, name="given")
    assert child.name == "given"
    assert child.daemon is False
    other = dummy.Process(target=square, args=(2,))
    other.daemon = True
    assert other.daemon is True


def test_keyword_arguments_and_overridden_run(dummy):
    seen = []

    class Subclass(dummy.Process):
        def run(self):
            seen.append(self.name)

    child = Subclass(name="subclass")
    child.start()
    child.join(DEADLOCK)
    other = dummy.Process(target=lambda **options: seen.append(options), kwargs={"one": 1})
    other.start()
    other.join(DEADLOCK)
    assert seen == ["subclass", {"one": 1}]


def test_current_process_is_the_thread(dummy, start):
    seen = []
    child = start(lambda: seen.append(dummy.current_process()))
    child.join(DEADLOCK)
    assert seen == [child]
    assert dummy.current_process() is threading.current_thread()


def test_child_knows_its_children(dummy, start):
    seen = []

    def have_a_child():
        go = threading.Event()
        child = dummy.Process(target=go.wait, args=(DEADLOCK,))
        child.start()
        seen.append(dummy.active_children() == [child])
        go.set()
        child.join(DEADLOCK)

    start(have_a_child).join(DEADLOCK)
    assert seen == [True]


def test_freeze_support_does_nothing(dummy):
    assert dummy.freeze_support() is None


def test_pool_runs_functions_in_threads(pool):
    assert pool.map(square, range(10)) == [square(number) for number in range(10)]
    assert pool.apply(square, (3,)) == 9
    assert pool.apply_async(os.getpid).get(DEADLOCK) == os.getpid()
    assert list(pool.imap(square, range(5))) == [0, 1, 4, 9, 16]
    assert sorted(pool.imap_unordered(square, range(5))) == [0, 1, 4, 9, 16]
    assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]


def test_pool_hands_objects_over_as_they_are(pool):
    given = threading.Lock()
    assert pool.apply(lambda one: one, (given,)) is given


def test_pool_brings_exceptions_back(pool):
    with pytest.raises(ZeroDivisionError):
        pool.apply(divmod, (1, 0))
    assert pool.map(square, [2]) == [4], "the pool goes on"


def test_initializer_of_a_pool_runs_in_every_thread(dummy):
    names = []
    both = threading.Barrier(2)

    def initialize(text):
        both.wait(DEADLOCK)
        names.append((text, threading.current_thread().name))

    with dummy.Pool(2, initialize, ("text",)) as created:
        created.map(square, range(4))
        created.close()
        created.join()
    assert [text for text, _ in names] == ["text", "text"]
    assert len({name for _, name in names}) == 2


def test_pool_of_threads_is_the_one_of_the_module_pool(mp, pool):
    module = importlib.import_module(f"{mp.__name__}.pool")
    assert isinstance(pool, module.ThreadPool)


def test_queue_hands_objects_over_as_they_are(dummy, start):
    queue = dummy.Queue(2)
    given = object()
    start(queue.put, given)
    assert queue.get(timeout=DEADLOCK) is given
    assert queue.empty()


def test_joinable_queue_waits_for_its_tasks(dummy, start):
    queue = dummy.JoinableQueue()
    done = []

    def work():
        done.append(queue.get(timeout=DEADLOCK))
        queue.task_done()

    queue.put("task")
    start(work)
    queue.join()
    assert done == ["task"]


def test_locks_and_signals_are_those_of_threads(dummy):
    assert type(dummy.Lock()) is type(threading.Lock())
    assert type(dummy.RLock()) is type(threading.RLock())
    for name in ("Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"):
        given = (1,) if name == "Barrier" else ()
        assert isinstance(getattr(dummy, name)(*given), getattr(threading, name))


def test_event_set_in_another_thread(dummy, start):
    event = dummy.Event()
    start(event.set)
    assert event.wait(DEADLOCK)


def test_value_and_array(dummy):
    value = dummy.Value("i", 3)
    assert value.value == 3
    value.value += 1
    assert value.value == 4
    assert "4" in repr(value)
    array = dummy.Array("d", [1.0, 2.0])
    array[0] = 5.0
    assert list(array) == [5.0, 2.0]


def test_manager_gives_plain_objects(dummy):
    manager = dummy.Manager()
    assert manager is dummy
    assert manager.dict(one=1) == {"one": 1}
    assert manager.list("ab") == ["a", "b"]
    namespace = manager.Namespace(one=1)
    namespace.two = 2
    assert (namespace.one, namespace.two) == (1, 2)
    assert manager.shutdown() is None


def test_pipe_goes_both_ways(dummy, start):
    here, there = dummy.Pipe()
    start(lambda: there.send((there.recv(), "and back")))
    assert not here.poll()
    here.send("there")
    assert here.poll(DEADLOCK)
    assert here.recv() == ("there", "and back")
    here.close()
    there.close()


def test_pipe_hands_objects_over_as_they_are(dummy):
    here, there = dummy.Pipe(duplex=False)
    given = object()
    there.send(given)
    assert here.recv() is given


def test_connections_are_context_managers(dummy):
    here, there = dummy.Pipe()
    with here as entered:
        assert entered is here
        entered.send_bytes(b"bytes")
    assert there.recv_bytes() == b"bytes"


def test_listener_accepts_clients(connection):
    with connection.Listener(("host", 1), backlog=1) as listener:
        client = connection.Client(listener.address)
        accepted = listener.accept()
        client.send("question")
        accepted.send(accepted.recv() + " and answer")
        assert client.recv() == "question and answer"
        assert client.poll(0) is False


def test_pipe_of_the_module_connection_is_the_same(dummy, connection):
    assert connection.Pipe is dummy.Pipe
    assert isinstance(dummy.Pipe()[0], connection.Connection)
