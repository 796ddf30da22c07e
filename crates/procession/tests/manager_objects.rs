//! Managers in Rust: what they serve to programs in Rust and in Python, and what happens when a
//! client, a method or the manager itself dies.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use procession::StartMethod;
use procession::channel::Queue as Pipe;
use procession::channel::connection::{Address, Client as Connector, EndpointError};
use procession::manager::{
    CallFailed, Instance, Manager, ManagerError, ProxyError, Queue, QueueError, Registry,
    RemoteManager, ServingManager,
};
use procession_testing::process::{is_running, kill, wait_until};
use serde::{Deserialize, Serialize};

use crate::python::{finish, newest, pythons, read_line, start};

#[expect(dead_code, reason = "other tests need the rest")]
mod python;

const DEADLOCK: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            manager_in_a_process_of_its_own_by_each_start_method,
            manager_ends_with_the_process_that_started_it,
            process_that_cannot_listen_or_panics_is_an_error_of_start,
            typed_proxies_use_all_kinds,
            methods_of_rust_objects_return_values_errors_and_objects,
            panic_is_an_error_for_its_caller_and_poisons_what_it_changed,
            clients_in_python_use_all_kinds,
            clients_in_python_use_objects_of_this_program,
            package_in_python_is_a_client_like_any_other,
            many_clients_at_once_lose_nothing,
            objects_go_with_the_last_reference_and_stay_where_others_refer_to_them,
            killed_client_lets_go_of_its_locks_and_waits_no_longer,
            dead_waiters_take_no_notification_and_break_the_barrier,
            item_is_not_handed_to_a_client_that_died,
            calls_fail_when_the_manager_is_killed,
            wrong_key_is_refused_and_garbage_changes_nothing,
            client_asks_the_manager_to_stop
        ],
    )
}

struct Counter {
    count: u64,
}

/// Why nothing was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Missing {
    amount: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} are missing", self.amount)
    }
}

#[procession::shared]
impl Counter {
    fn starting_at(count: u64) -> Self {
        Self { count }
    }

    /// Adds to the count; one if nothing is said.
    pub(crate) fn increment(&mut self, by: Option<u64>) -> u64 {
        self.count += by.unwrap_or(1);
        self.count
    }

    #[shared(quick)]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn take(&mut self, amount: u64) -> Result<u64, Missing> {
        let missing = Missing { amount: amount.saturating_sub(self.count) };
        self.count = self.count.checked_sub(amount).ok_or(missing)?;
        Ok(self.count)
    }

    pub(crate) fn describe(&self, words: Vec<String>, counts: BTreeMap<String, f64>) -> String {
        format!("{} {words:?} {counts:?}", self.count)
    }

    #[shared(object)]
    pub(crate) fn copy(&self) -> Self {
        Self { count: self.count }
    }

    pub(crate) fn look_and_panic(&self) {
        panic!("no luck with {}", self.count);
    }

    pub(crate) fn change_and_panic(&mut self) {
        self.count = 0;
        panic!("half-way");
    }

    pub(crate) fn process(&self) -> u32 {
        std::process::id()
    }

    #[shared(skip)]
    pub(crate) fn into_count(self) -> u64 {
        self.count
    }
}

fn register(registry: &mut Registry) {
    registry
        .register("Counter", || Counter::starting_at(0))
        .register_with("CounterAt", |(count,): (u64,)| Counter::starting_at(count));
}

fn serving() -> ServingManager {
    let address = Address::tcp("localhost", 0).unwrap();
    Manager::builder().address(address).authkey("a key").serve(register).unwrap()
}

fn counter(client: &RemoteManager) -> CounterProxy {
    client.create("Counter", ()).unwrap().into()
}

fn port_of(address: &Address) -> String {
    let Address::Tcp(place) = address else { panic!("a TCP address") };
    place.port().to_string()
}

fn manager_in_a_process_of_its_own_by_each_start_method() {
    for method in [StartMethod::Fork, StartMethod::Spawn, StartMethod::ForkServer] {
        let manager = Manager::builder().start_method(method).start(register).unwrap();
        let pid = manager.pid().unwrap();
        let client = manager.connect().unwrap();
        let counter = counter(&client);
        assert_eq!(counter.process().unwrap(), pid);
        assert_eq!(counter.increment(Some(5)).unwrap(), 5);
        assert_eq!(counter.increment(None).unwrap(), 6);
        assert!(manager.is_alive());
        manager.shutdown();
        assert!(!is_running(pid), "the manager goes on");
        assert!(matches!(counter.count(), Err(CallFailed::ServerGone { .. })));
    }
    procession::process::stop_fork_server().unwrap().wait(None).unwrap();
}

/// Starts a manager, says where it is, and waits to be killed.
fn start_and_wait((told, path): (Pipe<(u32, Vec<u8>)>, String)) {
    let manager = Manager::builder().address(Address::unix(path)).start(register).unwrap();
    told.put(&(manager.pid().unwrap(), manager.authkey().to_vec())).unwrap();
    procession::process::parent().unwrap().wait(None).unwrap();
}

fn manager_ends_with_the_process_that_started_it() {
    let path = std::env::temp_dir().join(format!("procession-manager-{}", std::process::id()));
    let told = Pipe::new().unwrap();
    let arguments = (told.clone(), path.to_str().unwrap().to_owned());
    let process = procession::spawn(start_and_wait, arguments).unwrap();
    let (pid, key) = told.get_timeout(DEADLOCK).unwrap();
    let client = RemoteManager::connect(Address::unix(&path), key).unwrap();
    let counter = counter(&client);
    assert_eq!(counter.increment(None).unwrap(), 1);
    kill(process.pid());
    assert!(process.join().is_err());
    assert!(wait_until(DEADLOCK, || !is_running(pid)), "the manager goes on");
    assert!(matches!(counter.count(), Err(CallFailed::ServerGone { .. })));
    assert!(!path.exists(), "the socket file is left");
}

fn process_that_cannot_listen_or_panics_is_an_error_of_start() {
    let nowhere = Address::unix("/nonexistent/folder/socket");
    let failed = Manager::builder().address(nowhere).start(register).unwrap_err();
    assert!(matches!(failed, ManagerError::ListenInProcess { .. }), "{failed}");
    assert!(failed.to_string().contains("/nonexistent"), "{failed}");
    let failed = Manager::builder().start(|_| panic!("no registry")).unwrap_err();
    assert!(matches!(failed, ManagerError::Ended(_)), "{failed}");
    assert!(failed.to_string().contains("no registry"), "{failed}");
}

fn methods_of_rust_objects_return_values_errors_and_objects() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let counter = CounterProxy::from(client.create("CounterAt", (7,)).unwrap());
    let missing = counter.take(10).unwrap_err();
    assert!(matches!(missing, ProxyError::Failed(Missing { amount: 3 })), "{missing}");
    assert_eq!(counter.take(2).unwrap(), 5);
    let words = vec!["a".to_owned(), "b".to_owned()];
    let counts = BTreeMap::from([("c".to_owned(), 1.5)]);
    assert_eq!(counter.describe(words, counts).unwrap(), r#"5 ["a", "b"] {"c": 1.5}"#);
    let copy = counter.copy().unwrap();
    copy.increment(Some(100)).unwrap();
    assert_eq!((copy.count().unwrap(), counter.count().unwrap()), (105, 5));
    assert_eq!(copy.proxy().typeid(), "Counter");

    let wrong = counter.proxy().call::<_, u64>("increment", ("a text",)).unwrap_err();
    assert!(wrong.to_string().contains("increment() argument \"by\""), "{wrong}");
    let many = counter.proxy().call::<_, u64>("count", (1, 2)).unwrap_err();
    assert!(many.to_string().contains("takes 0 arguments, 2 were given"), "{many}");
    assert_eq!(Counter::starting_at(3).into_count(), 3, "the block itself is as it was");
    for hidden in ["into_count", "starting_at", "no_such_method"] {
        let refused = counter.proxy().call::<_, u64>(hidden, ()).unwrap_err();
        assert!(refused.to_string().contains("has no method"), "{refused}");
    }
    let unknown = client.create("NoSuchKind", ()).unwrap_err();
    assert!(unknown.to_string().contains("NoSuchKind"), "{unknown}");
}

fn panic_is_an_error_for_its_caller_and_poisons_what_it_changed() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let counter = counter(&client);
    counter.increment(Some(3)).unwrap();
    let panicked = counter.look_and_panic().unwrap_err().to_string();
    assert!(panicked.contains("no luck with 3"), "{panicked}");
    assert!(panicked.contains("manager_objects.rs:"), "{panicked}");
    assert_eq!(counter.increment(None).unwrap(), 4, "nothing was changed");
    let panicked = counter.change_and_panic().unwrap_err().to_string();
    assert!(panicked.contains("half-way"), "{panicked}");
    for result in [counter.count(), counter.increment(None)] {
        let refused = result.unwrap_err().to_string();
        assert!(refused.contains("half-changed"), "{refused}");
    }
    assert_eq!(crate::counter(&client).increment(None).unwrap(), 1);
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

fn clients_in_python_use_all_kinds() {
    let manager = serving();
    let port = port_of(manager.address());
    for python in pythons() {
        let child =
            start(python, &program(&[CONNECT, ALL_KINDS], "multiprocessing"), &[&port, "a key"]);
        assert_eq!(finish(child), "done", "{python}");
    }
}

fn clients_in_python_use_objects_of_this_program() {
    for python in pythons() {
        exchange_with(python, "multiprocessing", "");
    }
}

/// A program in Python works on tasks that are put in here.
fn exchange_with(python: &str, module: &str, before: &str) {
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
        let manager = serving();
        let port = port_of(manager.address());
        let all = program(&[&here, CONNECT, ALL_KINDS], "procession");
        assert_eq!(finish(start(python, &all, &[&port, "a key"])), "done", "{python}");
        exchange_with(python, "procession", &here);
    }
    if used == 0 {
        eprintln!("skipped: the package was built for no Python; `make build` does it");
    }
}

/// Increments a counter by several threads of a process.
fn increment_often((address, key): (String, Vec<u8>)) {
    let client = RemoteManager::connect(Address::Tcp(address.parse().unwrap()), key).unwrap();
    let counter = CounterProxy::from(client.proxy("votes").unwrap());
    let lock = client.proxy("the_lock").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    counter.increment(None).unwrap();
                }
                assert!(lock.call::<_, bool>("acquire", ()).unwrap());
                let count = counter.count().unwrap();
                assert!(count <= counter.count().unwrap());
                lock.call::<_, ()>("release", ()).unwrap();
            });
        }
    });
}

fn many_clients_at_once_lose_nothing() {
    let votes = Arc::new(Instance::new(Counter::starting_at(0)));
    let manager = Manager::builder().address(Address::tcp("localhost", 0).unwrap());
    let lock = Arc::new(Instance::new(Gate::default()));
    let manager = manager.serve(|registry| {
        registry.object("votes", votes.clone()).object("the_lock", lock);
    });
    let manager = manager.unwrap();
    let arguments = (manager.address().to_string(), manager.authkey().to_vec());
    let processes: Vec<_> =
        (0..4).map(|_| procession::spawn(increment_often, arguments.clone()).unwrap()).collect();
    processes.into_iter().for_each(|process| process.join().unwrap());
    assert_eq!(votes.read().unwrap().count, 4 * 4 * 50);
}

/// A type with blocking methods of its own.
#[derive(Default)]
struct Gate {
    is_shut: std::sync::Mutex<bool>,
    opened: std::sync::Condvar,
}

#[procession::shared]
impl Gate {
    pub(crate) fn acquire(&self) -> bool {
        let shut = self.is_shut.lock().unwrap();
        *self.opened.wait_while(shut, |shut| *shut).unwrap() = true;
        true
    }

    pub(crate) fn release(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_one();
    }
}

fn objects_go_with_the_last_reference_and_stay_where_others_refer_to_them() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let other = manager.connect().unwrap();
    let comes_to = |count| wait_until(DEADLOCK, || other.number_of_objects().unwrap() == count);
    let counter = counter(&client);
    let clone = counter.clone();
    drop(counter);
    assert_eq!(clone.increment(None).unwrap(), 1);
    drop(clone);
    assert!(comes_to(0), "the counter is still there");

    let list = client.create("list", ()).unwrap();
    let inner = crate::counter(&client);
    inner.increment(Some(9)).unwrap();
    list.call::<_, ()>("append", (&inner,)).unwrap();
    drop(inner);
    assert!(comes_to(1), "the client still refers to the counter");
    let again: CounterProxy = list.call("__getitem__", (0,)).unwrap();
    assert_eq!(again.count().unwrap(), 9, "the list has not kept it");
    drop(again);
    // Taken out, it stays until the client has taken it over.
    let last: CounterProxy = list.call("pop", ()).unwrap();
    assert_eq!(last.count().unwrap(), 9);
    drop((last, list));
    assert!(comes_to(0), "something is left");
}

fn with_queue(queue: &Arc<Queue>) -> ServingManager {
    let manager = Manager::builder().address(Address::tcp("localhost", 0).unwrap());
    let queue = queue.clone();
    let manager = manager.serve(|registry| {
        registry.object("queue", queue);
    });
    manager.unwrap()
}

fn killed_client_lets_go_of_its_locks_and_waits_no_longer() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let locks = ["Lock", "RLock"].map(|kind| client.create(kind, ()).unwrap());
    let held = client.create("Lock", ()).unwrap();
    assert!(held.call::<_, bool>("acquire", ()).unwrap());
    let told = Pipe::new().unwrap();
    let arguments = (locks.clone(), held.clone(), told.clone());
    let process = procession::spawn(take_and_wait, arguments).unwrap();
    told.get_timeout(DEADLOCK).unwrap();
    for lock in &locks {
        assert!(!lock.call::<_, bool>("acquire", (false,)).unwrap(), "the other process has it");
    }
    kill(process.pid());
    assert!(process.join().is_err());
    for lock in &locks {
        assert!(lock.call::<_, bool>("acquire", (true, DEADLOCK.as_secs())).unwrap());
    }
    // The call of the dead one does not get the lock in the place of this.
    held.call::<_, ()>("release", ()).unwrap();
    assert!(held.call::<_, bool>("acquire", (true, DEADLOCK.as_secs())).unwrap());
}

type Taken = ([procession::manager::Proxy; 2], procession::manager::Proxy, Pipe<u32>);

/// Takes two locks, and waits for a third, which somebody else has.
fn take_and_wait((locks, held, told): Taken) {
    for lock in &locks {
        assert!(lock.call::<_, bool>("acquire", ()).unwrap());
    }
    thread::scope(|scope| {
        scope.spawn(|| held.call::<_, bool>("acquire", ()));
        told.put(&0).unwrap();
    });
}

/// Waits for an item of a queue by two threads.
fn get_and_wait((address, key, told): (String, Vec<u8>, Pipe<u32>)) {
    let client = RemoteManager::connect(Address::Tcp(address.parse().unwrap()), key).unwrap();
    let queue = client.proxy("queue").unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| queue.call::<_, u32>("get", ()));
        }
        told.put(&0).unwrap();
    });
}

fn item_is_not_handed_to_a_client_that_died() {
    let queue = Arc::new(Queue::new(0));
    let manager = with_queue(&queue);
    let told = Pipe::new().unwrap();
    let arguments = (manager.address().to_string(), manager.authkey().to_vec(), told.clone());
    let process = procession::spawn(get_and_wait, arguments).unwrap();
    told.get_timeout(DEADLOCK).unwrap();
    let client = manager.connect().unwrap();
    let references = || client.number_of_objects().unwrap();
    assert_eq!(references(), 1);
    kill(process.pid());
    assert!(process.join().is_err());
    assert!(wait_until(DEADLOCK, || references() == 0), "the dead client is still counted");
    queue.put(&5).unwrap();
    assert_eq!(client.proxy("queue").unwrap().call::<_, u32>("get", ()).unwrap(), 5);
}

fn calls_fail_when_the_manager_is_killed() {
    let manager = Manager::builder().start(register).unwrap();
    let pid = manager.pid().unwrap();
    let client = manager.connect().unwrap();
    let barrier = client.barrier(2).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| barrier.proxy().call::<_, u32>("wait", ()));
        assert!(wait_until(DEADLOCK, || barrier.n_waiting().unwrap() == 1), "nobody waits");
        kill(pid);
        let failed = waiting.join().unwrap().unwrap_err();
        assert!(matches!(failed, CallFailed::ServerGone { .. }), "{failed}");
        assert!(failed.to_string().contains(&pid.to_string()), "{failed}");
    });
    assert!(wait_until(DEADLOCK, || !manager.is_alive()));
    assert!(manager.connect().is_err());
}

fn wrong_key_is_refused_and_garbage_changes_nothing() {
    let manager = serving();
    let refused = RemoteManager::connect(manager.address().clone(), "another").unwrap_err();
    let CallFailed::NotConnected { source, .. } = refused else { panic!("{refused}") };
    assert!(matches!(source, EndpointError::Handshake(_)), "{source}");
    for garbage in [&b"no pickle"[..], b"\x80\x04K\x01.", b"\x80\x04N\x8c\x01xK\x01}t."] {
        let connector = Connector::new(manager.address().clone()).key("a key");
        let connection = connector.connect().unwrap();
        connection.send(garbage).unwrap();
        let reply = connection.recv().unwrap();
        assert!(String::from_utf8_lossy(&reply).contains("#TRACEBACK"));
        assert!(connection.recv().is_err(), "the connection is still open");
    }
    assert_eq!(counter(&manager.connect().unwrap()).increment(None).unwrap(), 1);
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

type Waited = (procession::manager::Proxy, procession::manager::Proxy, Pipe<u32>);

/// Waits for ever at a condition and, by another thread, at a barrier.
fn wait_at((condition, barrier, told): Waited) {
    thread::scope(|scope| {
        scope.spawn(|| barrier.call::<_, u32>("wait", ()));
        assert!(condition.call::<_, bool>("acquire", ()).unwrap());
        told.put(&0).unwrap();
        condition.call::<_, bool>("wait", ())
    })
    .unwrap();
}

fn dead_waiters_take_no_notification_and_break_the_barrier() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let lock = client.create("Lock", ()).unwrap();
    let condition = client.create("Condition", (&lock,)).unwrap();
    let barrier = client.create("Barrier", (2,)).unwrap();
    let told = Pipe::new().unwrap();
    let arguments = (condition.clone(), barrier.clone(), told.clone());
    let process = procession::spawn(wait_at, arguments).unwrap();
    told.get_timeout(DEADLOCK).unwrap();
    // Free as soon as the other process waits.
    assert!(condition.call::<_, bool>("acquire", (true, DEADLOCK.as_secs())).unwrap());
    let waiting = || barrier.call::<_, u32>("__getattribute__", ("n_waiting",)).unwrap();
    assert!(wait_until(DEADLOCK, || waiting() == 1), "nobody waits at the barrier");
    kill(process.pid());
    assert!(process.join().is_err());
    let broken = || barrier.call::<_, bool>("__getattribute__", ("broken",)).unwrap();
    assert!(wait_until(DEADLOCK, broken), "the barrier still waits for the dead");
    let text = || condition.call::<_, String>("__repr__", ()).unwrap();
    assert!(text().contains(", 0)"), "{}", text());

    // One notification, for the one that lives.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            assert!(condition.call::<_, bool>("acquire", ()).unwrap());
            condition.call::<_, bool>("wait", (DEADLOCK.as_secs(),)).unwrap()
        });
        condition.call::<_, ()>("release", ()).unwrap();
        assert!(wait_until(DEADLOCK, || text().contains(", 1)")), "nobody waits");
        assert!(condition.call::<_, bool>("acquire", ()).unwrap());
        condition.call::<_, ()>("notify", ()).unwrap();
        condition.call::<_, ()>("release", ()).unwrap();
        assert!(waiter.join().unwrap(), "the notification was lost");
    });
}

fn typed_proxies_use_all_kinds() {
    let manager = serving();
    let client = manager.connect().unwrap();
    let dict = client.dict::<String, Vec<u8>>().unwrap();
    dict.insert(&"a".to_owned(), &vec![1, 2]).unwrap();
    assert_eq!(dict.setdefault(&"b".to_owned(), &vec![]).unwrap(), []);
    assert_eq!(dict.get(&"a".to_owned()).unwrap(), Some(vec![1, 2]));
    assert_eq!(dict.get(&"z".to_owned()).unwrap(), None);
    assert_eq!(dict.keys().unwrap(), ["a", "b"]);
    assert_eq!(dict.iter().unwrap().count(), 2);
    assert_eq!(dict.remove(&"a".to_owned()).unwrap(), Some(vec![1, 2]));
    assert_eq!(dict.snapshot().unwrap(), [("b".to_owned(), vec![])]);

    let list = client.list::<u32>().unwrap();
    list.extend(&[3, 1, 2]).unwrap();
    list.sort().unwrap();
    assert_eq!(list.snapshot().unwrap(), [1, 2, 3]);
    assert_eq!((list.get(7).unwrap(), list.index(&3).unwrap()), (None, Some(2)));
    assert_eq!(list.pop().unwrap(), Some(3));

    let array = client.array('f', &[1.5, 2.0]).unwrap();
    assert!(array.set(1, &-2.5).unwrap() && !array.set(2, &0.0).unwrap());
    assert_eq!(array.snapshot().unwrap(), [1.5, -2.5]);

    let namespace = client.namespace().unwrap();
    namespace.set("a", "text").unwrap();
    assert_eq!(namespace.get::<String>("a").unwrap(), Some("text".to_owned()));
    assert_eq!(namespace.get::<u8>("b").unwrap(), None);
    let value = client.value(&1.5).unwrap();
    value.set(&2.5).unwrap();
    assert_eq!(value.get().unwrap(), 2.5);

    let queue = client.joinable_queue::<u8>(1).unwrap();
    queue.put(&7).unwrap();
    assert!(matches!(queue.try_put(&8), Err(ProxyError::Failed(_))));
    assert_eq!(queue.get().unwrap(), 7);
    assert!(matches!(queue.get_timeout(Duration::ZERO), Err(ProxyError::Failed(_))));
    queue.task_done().unwrap();
    queue.join().unwrap();

    let (lock, rlock) = (client.lock().unwrap(), client.rlock().unwrap());
    let guard = lock.lock().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    drop(guard);
    let (once, twice) = (rlock.lock().unwrap(), rlock.try_lock().unwrap());
    assert!(twice.is_some());
    drop((once, twice));
    let semaphore = client.bounded_semaphore(1).unwrap();
    semaphore.acquire().unwrap();
    assert!(!semaphore.acquire_timeout(Duration::ZERO).unwrap());
    semaphore.release().unwrap();
    assert!(semaphore.release().is_err(), "one too many");
    let event = client.event().unwrap();
    assert!(!event.wait(Some(Duration::ZERO)).unwrap());
    event.set().unwrap();
    assert!(event.wait(None).unwrap());
    let condition = client.condition().unwrap();
    let guard = condition.lock().unwrap();
    guard.notify_all().unwrap();
    assert!(!guard.wait(Some(Duration::ZERO)).unwrap());
    drop(guard);
    let barrier = client.barrier(1).unwrap();
    assert_eq!(barrier.wait(None).unwrap(), 0);
}
