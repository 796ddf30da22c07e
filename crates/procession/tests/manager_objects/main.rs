//! Managers in Rust: what they serve to programs in Rust and in Python, and what happens when a
//! client, a method or the manager itself dies.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use procession::StartMethod;
use procession::channel::connection::{Address, Client as Connector, EndpointError};
use procession::manager::{
    CallFailed, Instance, Manager, ManagerError, ProxyError, Registry, RemoteManager,
    ServingManager,
};
use procession_testing::process::{is_running, wait_until};
use serde::{Deserialize, Serialize};

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../python/mod.rs"]
mod python;

mod clients;
mod deaths;

const DEADLOCK: Duration = Duration::from_secs(60);

const TESTS: &[(&str, fn())] = procession_testing::tests![
    manager_in_a_process_of_its_own_by_each_start_method,
    process_that_cannot_listen_or_panics_is_an_error_of_start,
    typed_proxies_use_all_kinds,
    methods_of_rust_objects_return_values_errors_and_objects,
    panic_is_an_error_for_its_caller_and_poisons_what_it_changed,
    many_clients_at_once_lose_nothing,
    objects_go_with_the_last_reference_and_stay_where_others_refer_to_them,
    wrong_key_is_refused_and_garbage_changes_nothing,
];

fn main() -> ExitCode {
    let tests = [TESTS, clients::TESTS, deaths::TESTS];
    procession_testing::run(procession::init, &tests.concat())
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
    assert!(panicked.contains("manager_objects/main.rs:"), "{panicked}");
    assert_eq!(counter.increment(None).unwrap(), 4, "nothing was changed");
    let panicked = counter.change_and_panic().unwrap_err().to_string();
    assert!(panicked.contains("half-way"), "{panicked}");
    for result in [counter.count(), counter.increment(None)] {
        let refused = result.unwrap_err().to_string();
        assert!(refused.contains("half-changed"), "{refused}");
    }
    assert_eq!(crate::counter(&client).increment(None).unwrap(), 1);
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
