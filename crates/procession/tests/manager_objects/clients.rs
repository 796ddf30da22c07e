//! Clients in Python of a manager in Rust.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use procession::channel::connection::Address;
use procession::manager::{Instance, Manager, Queue, QueueError};

use crate::python::{finish, newest, pythons, read_line, start};
use crate::{Counter, DEADLOCK, register, serving};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    clients_in_python_use_all_kinds,
    clients_in_python_use_objects_of_this_program,
    package_in_python_is_a_client_like_any_other,
    client_asks_the_manager_to_stop,
];

fn port_of(address: &Address) -> String {
    let Address::Tcp(place) = address else { panic!("a TCP address") };
    place.port().to_string()
}

/// Connects as a manager of Python: arguments are the port and the key.
const CONNECT: &str = "
import sys
from MODULE import current_process
from MODULE.managers import SyncManager, RemoteError
# Proxies inside of messages come without a key.
current_process().authkey = sys.argv[2].encode()
class Manager(SyncManager): pass
for name in ('Counter', 'CounterAt', 'get_tasks', 'get_results', 'votes'):
    Manager.register(name)
manager = Manager(('localhost', int(sys.argv[1])), sys.argv[2].encode())
manager.connect()
";

/// Every kind that `SyncManager` has, but for `Pool`.
const ALL_KINDS: &str = "
import threading, queue

def raises(error, call, *args, **kwds):
    try:
        call(*args, **kwds)
    except error:
        return True
    raise AssertionError(f'no {error}')

d = manager.dict({'a': 1}, b=[2])
d[1.0] = 'one'
assert d[True] == 'one' and d['b'] == [2] and len(d) == 3 and 'a' in d and 'z' not in d
assert d.copy() == {'a': 1, 'b': [2], 1: 'one'} and list(d.keys()) == ['a', 'b', 1]
assert sorted(map(str, d)) == ['1.0', 'a', 'b']
assert raises(KeyError, lambda: d['z']) and raises(TypeError, lambda: d[[]])
assert d.get('z') is None and d.get('z', 5) == 5 and d.pop('z', 6) == 6
assert d.setdefault('s', 3) == 3 and d.popitem() == ('s', 3) and d.pop('a') == 1
d.update([('x', 1)], y=2)
assert d.items() == [('b', [2]), (1.0, 'one'), ('x', 1), ('y', 2)]
assert d.values() == [[2], 'one', 1, 2]
assert str(d) == str({'b': [2], 1.0: 'one', 'x': 1, 'y': 2})
del d['x']
d.clear()
assert len(d) == 0

l = manager.list(range(5))
assert l[:] == [0, 1, 2, 3, 4] and l[-1] == 4 and l[::2] == [0, 2, 4] and len(l) == 5
assert raises(IndexError, lambda: l[5]) and 3 in l and 3.0 in l and l.index(3) == 3
l.append('x'); l.extend((1, 2)); l.insert(0, None); l[1:3] = ['a']; l[0] = 'first'
assert l[:] == ['first', 'a', 2, 3, 4, 'x', 1, 2] and l.count(2) == 2
del l[0]; del l[-2:]
assert l.pop() == 'x' and l.pop(0) == 'a' and raises(ValueError, l.remove, 'no')
l.remove(3); l += [1, 3]; l.reverse()
assert l[:] == [3, 1, 4, 2] and l + [0] == [3, 1, 4, 2, 0] and l * 2 == l[:] + l[:]
l.sort()
assert l[:] == [1, 2, 3, 4] and list(reversed(l)) == [4, 3, 2, 1] and str(l) == '[1, 2, 3, 4]'
l.sort(reverse=True)
l *= 2
assert list(l) == [4, 3, 2, 1] * 2 and raises(TypeError, manager.list([1, 'a']).sort)

nested = manager.list([manager.dict(), manager.list([7])])
nested[0]['deep'] = 'down'
assert nested[0]['deep'] == 'down' and nested[1][0] == 7

import array
a = manager.Array('h', range(3))
a[0] = -7
assert a[:] == array.array('h', [-7, 1, 2]) and a[0] == -7 and len(a) == 3
assert raises(OverflowError, a.__setitem__, 0, 1 << 15) and raises(IndexError, lambda: a[3])
assert str(a) == str(array.array('h', [-7, 1, 2])) and manager.Array('d', [1])[:][0] == 1.0

n = manager.Namespace(a=1)
n.b = {'x': (1, 2)}
assert n.a == 1 and n.b == {'x': (1, 2)} and str(n).startswith('Namespace(a=1')
del n.a
assert raises(AttributeError, lambda: n.a)
v = manager.Value('i', 5)
v.value += 1
assert v.value == 6 and v.get() == 6

for make in (manager.Queue, manager.JoinableQueue):
    q = make(2)
    q.put(1); q.put('two', timeout=5)
    assert q.full() and q.qsize() == 2 and raises(queue.Full, q.put, 3, False)
    assert raises(queue.Full, q.put, 3, timeout=0.01)
    assert q.get() == 1 and q.get_nowait() == 'two' and q.empty()
    assert raises(queue.Empty, q.get, block=False) and raises(queue.Empty, q.get, True, 0.01)
    q.task_done(); q.task_done(); q.join()
    assert raises(ValueError, q.task_done)

for lock in (manager.Lock(), manager.RLock()):
    with lock:
        taken = []
        other = threading.Thread(target=lambda: taken.append(lock.acquire(False)))
        other.start(); other.join()
        assert taken == [False]
    assert raises(RuntimeError, lock.release)
r = manager.RLock()
assert r.acquire() and r.acquire()
r.release(); r.release()
s = manager.Semaphore(2)
assert s.acquire() and s.acquire() and not s.acquire(False)
s.release()
b = manager.BoundedSemaphore(1)
assert raises(ValueError, b.release)

e = manager.Event()
waiter = threading.Thread(target=e.wait)
waiter.start()
assert not e.is_set() and not e.wait(0.01)
e.set(); waiter.join()
assert e.wait(0) and e.is_set()
e.clear()

for c in (manager.Condition(), manager.Condition(manager.Lock())):
    assert raises(RuntimeError, c.notify)
    ready = manager.list()
    def wait():
        with c:
            ready.append('waits')
            assert c.wait(60)
    waiters = [threading.Thread(target=wait) for _ in range(3)]
    for one in waiters: one.start()
    while True:
        with c:
            if len(ready) == 3:
                c.notify(); c.notify_all()
                break
    for one in waiters: one.join()
    with c:
        assert not c.wait(0.01)

barrier = manager.Barrier(3)
places = manager.list()
waiters = [threading.Thread(target=lambda: places.append(barrier.wait())) for _ in range(3)]
for one in waiters: one.start()
for one in waiters: one.join()
assert sorted(places[:]) == [0, 1, 2] and barrier.parties == 3 and barrier.n_waiting == 0
assert raises(threading.BrokenBarrierError, barrier.wait, 0.01) and barrier.broken
barrier.reset()
assert not barrier.broken

try:
    manager._create('Nothing')
except RemoteError as error:
    assert 'Nothing' in str(error)
count = manager._number_of_objects()
assert count > 10 and 'refcount' in manager._debug_info()
del d
assert manager._number_of_objects() == count - 1
print('done')
";

/// What is registered by this program.
const OWN_OBJECTS: &str = "
counter = manager.CounterAt(5)
assert counter.increment() == 6 and counter.increment(4) == 10 and counter.increment(by=1) == 11
assert counter.describe(['a'], counts={'b': 2}) == '11 [\"a\"] {\"b\": 2.0}'
copy = counter.copy()
assert copy.increment() == 12 and counter.count() == 11
try:
    counter.take(12)
except RuntimeError as error:
    assert str(error) == '1 are missing' and error.procession_error == {'amount': 1}
else:
    raise AssertionError('taken')
try:
    counter.look_and_panic()
except RuntimeError as error:
    assert 'no luck with 11' in str(error), error
else:
    raise AssertionError('no panic')
try:
    counter.increment('text')
except TypeError as error:
    assert 'by' in str(error)
else:
    raise AssertionError('no error')
assert '<Counter' in str(counter)

tasks, results = manager.get_tasks(), manager.get_results()
while True:
    task = tasks.get()
    tasks.task_done()
    if task is None:
        break
    results.put((task, task ** 2))
manager.votes().increment(1)
print('done')
";

fn program(parts: &[&str], module: &str) -> String {
    parts.concat().replace("MODULE", module)
}

/// Lets every Python do something, all of them at the same time: most of it is their start.
fn side_by_side<Finish: FnOnce()>(start: impl Fn(&'static str) -> Finish) {
    let started: Vec<Finish> = pythons().map(start).collect();
    started.into_iter().for_each(|finish| finish());
}

fn clients_in_python_use_all_kinds() {
    side_by_side(|python| use_all_kinds(python, "multiprocessing", ""));
}

/// Starts a program in Python that uses all kinds of a manager of its own; what is returned waits for
/// its end.
fn use_all_kinds(python: &str, module: &str, before: &str) -> impl FnOnce() {
    let manager = serving();
    let port = port_of(manager.address());
    let child = start(python, &program(&[before, CONNECT, ALL_KINDS], module), &[&port, "a key"]);
    move || {
        assert_eq!(finish(child), "done", "{python}");
        drop(manager);
    }
}

fn clients_in_python_use_objects_of_this_program() {
    side_by_side(|python| exchange_with(python, "multiprocessing", ""));
}

/// Starts a program in Python that works on tasks, which what is returned puts in.
fn exchange_with(python: &str, module: &str, before: &str) -> impl FnOnce() {
    let (tasks, results) = (Arc::new(Queue::new(0)), Arc::new(Queue::new(0)));
    let votes = Arc::new(Instance::new(Counter::starting_at(0)));
    let manager = Manager::builder().address(Address::tcp("localhost", 0).unwrap());
    let manager = manager.authkey("a key").serve(|registry| {
        register(registry);
        registry
            .object("get_tasks", tasks.clone())
            .object("get_results", results.clone())
            .object("votes", votes.clone());
    });
    let manager = manager.unwrap();
    let port = port_of(manager.address());
    let child = start(python, &program(&[before, CONNECT, OWN_OBJECTS], module), &[&port, "a key"]);
    move || {
        (0..20).for_each(|task| tasks.put(&task).unwrap());
        tasks.put(&None::<u32>).unwrap();
        for task in 0..20 {
            let result: (u64, u64) = results.get_timeout(DEADLOCK).unwrap();
            assert_eq!(result, (task, task * task));
        }
        tasks.join();
        assert!(matches!(results.get_timeout::<u64>(Duration::ZERO), Err(QueueError::Empty)));
        assert_eq!(finish(child), "done", "{python}");
        assert_eq!(votes.read().unwrap().count, 1);
        drop(manager);
    }
}

/// The package beside the engine, if it was built for this Python.
fn package_in_python_is_a_client_like_any_other() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let package = package.to_str().unwrap();
    let here = format!("import sys\nsys.path.insert(0, {package:?})\n");
    let mut used = 0;
    for python in pythons() {
        let probe = format!(
            "{here}try:\n  import procession.managers\n  print('yes')\nexcept Exception:\n  pass\n"
        );
        if finish(start(python, &probe, &[])) != "yes" {
            continue;
        }
        used += 1;
        use_all_kinds(python, "procession", &here)();
        exchange_with(python, "procession", &here)();
    }
    if used == 0 {
        eprintln!("skipped: the package was built for no Python; `make build` does it");
    }
}

fn client_asks_the_manager_to_stop() {
    let manager = serving();
    let port = port_of(manager.address());
    let stop = "
from multiprocessing.managers import dispatch
from multiprocessing.connection import Client
dispatch(Client(manager._address, authkey=manager._authkey), None, 'shutdown')
print('stopped')
";
    let mut child =
        start(newest(), &program(&[CONNECT, stop], "multiprocessing"), &[&port, "a key"]);
    manager.wait();
    assert_eq!(read_line(&mut child), "stopped");
    assert_eq!(finish(child), "");
    assert!(manager.connect().is_err());
}
