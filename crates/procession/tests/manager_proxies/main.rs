//! Clients of managers: of the standard library in every Python that is found, and of this project's
//! Python package where it is built.

use std::collections::HashMap;
use std::env;
use std::net::TcpListener;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use procession::channel::Queue;
use procession::channel::connection::{
    Address, EndpointError, HandshakeError, pipe_one_way, stop_sharing,
};
use procession::manager::proxies::{
    Broken, DictProxy, Empty, EventProxy, Full, IteratorProxy, ListProxy, LockProxy, QueueProxy,
};
use procession::manager::{CallFailed, Proxy, ProxyError, RemoteManager};
use procession::pickle::Value;
use procession::process::Builder;
use procession_testing::process::wait_until;
use serde::{Deserialize, Serialize};

use crate::hosts::{WORKER, work_for, worker_on_another_host_reaches_the_master};
use crate::managers::{KEY, Running, with_managers, with_package};
use crate::python::{finish, pythons, start};

#[allow(
    dead_code,
    reason = "it is for several programs of tests, and this one makes no connections"
)]
#[path = "../python/mod.rs"]
mod python;

mod hosts;
mod managers;

fn main() -> ExitCode {
    if let Ok(place) = env::var(WORKER) {
        work_for(Address::Tcp(place.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            dictionaries_and_lists_do_what_they_do_in_python,
            values_namespaces_and_arrays_hold_what_they_are_given,
            queues_block_time_out_and_are_joined,
            locks_exclude_and_semaphores_count,
            conditions_events_and_barriers_bring_threads_together,
            exceptions_arrive_with_class_and_message,
            threads_call_through_the_same_proxies_at_once,
            last_proxy_frees_its_object,
            proxies_come_back_out_of_the_objects_they_were_put_into,
            proxies_travel_to_processes_and_may_be_dropped_at_once,
            proxies_go_on_in_a_forked_process,
            proxy_in_a_message_needs_a_key_that_is_known,
            client_in_python_is_handed_proxies,
            calls_of_all_proxies_fail_when_the_server_is_killed,
            connecting_says_what_stands_in_the_way,
            shutdown_ends_the_server,
            killed_worker_releases_what_it_had_locked,
            worker_on_another_host_reaches_the_master
        ],
    )
}

const DEADLOCK: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_millis(20);

fn dictionaries_and_lists_do_what_they_do_in_python() {
    with_managers(|running| {
        let manager = running.connect();
        let dict: DictProxy<String, u32> = manager.dict().unwrap();
        let key = |name: &str| name.to_owned();
        dict.insert(&key("one"), &1).unwrap();
        dict.update([(&key("two"), &2), (&key("three"), &3)]).unwrap();
        assert_eq!(dict.get(&key("two")).unwrap(), Some(2));
        assert_eq!(dict.get(&key("four")).unwrap(), None);
        assert_eq!(dict.setdefault(&key("four"), &4).unwrap(), 4);
        assert_eq!(dict.setdefault(&key("four"), &5).unwrap(), 4);
        assert!(dict.contains_key(&key("one")).unwrap());
        assert_eq!(dict.len().unwrap(), 4);
        assert_eq!(dict.keys().unwrap(), ["one", "two", "three", "four"]);
        assert_eq!(dict.values().unwrap(), [1, 2, 3, 4]);
        let names = dict.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(names, ["one", "two", "three", "four"]);
        assert_eq!(dict.remove(&key("one")).unwrap(), Some(1));
        assert_eq!(dict.remove(&key("one")).unwrap(), None);
        assert_eq!(dict.popitem().unwrap(), Some((key("four"), 4)));
        let expected = [(key("two"), 2), (key("three"), 3)];
        assert_eq!(dict.items().unwrap(), expected);
        assert_eq!(dict.snapshot().unwrap(), expected);
        dict.clear().unwrap();
        assert!(dict.is_empty().unwrap() && dict.popitem().unwrap().is_none());

        let list: ListProxy<i64> = manager.list().unwrap();
        list.extend(&[3, 1, 2]).unwrap();
        list.push(&5).unwrap();
        list.insert(0, &9).unwrap();
        assert_eq!(list.snapshot().unwrap(), [9, 3, 1, 2, 5]);
        assert_eq!((list.get(4).unwrap(), list.get(5).unwrap()), (Some(5), None));
        assert!(list.set(4, &4).unwrap() && !list.set(5, &4).unwrap());
        assert_eq!((list.pop().unwrap(), list.remove(0).unwrap()), (Some(4), Some(9)));
        assert_eq!(list.remove(7).unwrap(), None);
        assert_eq!((list.index(&1).unwrap(), list.index(&7).unwrap()), (Some(1), None));
        assert!(list.contains(&2).unwrap() && !list.contains(&7).unwrap());
        list.sort().unwrap();
        list.reverse().unwrap();
        assert_eq!(list.snapshot().unwrap(), [3, 2, 1]);
        assert_eq!(list.count(&2).unwrap(), 1);
        list.clear().unwrap();
        assert!(list.is_empty().unwrap() && list.pop().unwrap().is_none());
    });
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: f64,
    y: f64,
}

fn values_namespaces_and_arrays_hold_what_they_are_given() {
    with_managers(|running| {
        let manager = running.connect();
        let value = manager.value(&Point { x: 1.0, y: 2.0 }).unwrap();
        value.set(&Point { x: 3.0, ..value.get().unwrap() }).unwrap();
        assert_eq!(value.get().unwrap(), Point { x: 3.0, y: 2.0 });

        let names = manager.namespace().unwrap();
        assert_eq!(names.snapshot().unwrap(), []);
        names.set("width", &7).unwrap();
        names.set("title", "procession").unwrap();
        assert_eq!(names.get::<u8>("width").unwrap(), Some(7));
        assert_eq!(names.get::<u8>("height").unwrap(), None);
        let expected =
            [("width".to_owned(), Value::from(7)), ("title".into(), "procession".into())];
        assert_eq!(names.snapshot().unwrap(), expected);
        assert!(names.remove("width").unwrap() && !names.remove("width").unwrap());

        let array = manager.array('i', &[1, -2, 3]).unwrap();
        assert_eq!((array.len().unwrap(), array.get(1).unwrap()), (3, Some(-2)));
        assert!(array.set(1, &20).unwrap() && !array.set(3, &20).unwrap());
        assert_eq!(array.snapshot().unwrap(), [1, 20, 3]);
        let overflow = array.proxy().call::<_, ()>("__setitem__", (0, 1_i64 << 40)).unwrap_err();
        assert_eq!(overflow.raised().unwrap().class, "OverflowError");
        let array = manager.array('d', &[0.5, 1e300]).unwrap();
        assert_eq!(array.snapshot().unwrap(), [0.5, 1e300]);
        let array = manager.array('Q', &[u64::MAX]).unwrap();
        assert_eq!(array.snapshot().unwrap(), [u64::MAX]);
    });
}

fn queues_block_time_out_and_are_joined() {
    with_managers(|running| {
        let manager = running.connect();
        let queue: QueueProxy<String> = manager.joinable_queue(1).unwrap();
        assert!(matches!(queue.try_get(), Err(ProxyError::Failed(Empty))));
        assert!(matches!(queue.get_timeout(SOON), Err(ProxyError::Failed(Empty))));
        queue.put(&"first".to_owned()).unwrap();
        let second = "second".to_owned();
        assert!(matches!(queue.try_put(&second), Err(ProxyError::Failed(Full))));
        assert!(matches!(queue.put_timeout(&second, SOON), Err(ProxyError::Failed(Full))));
        assert!(queue.is_full().unwrap() && !queue.is_empty().unwrap());
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                queue.put(&second).unwrap();
                queue.join().unwrap();
                queue.len().unwrap()
            });
            for expected in ["first", "second"] {
                assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), expected);
                assert!(!joined.is_finished(), "joined before all was done");
                queue.task_done().unwrap();
            }
            assert_eq!(joined.join().unwrap(), 0);
        });
        let error = queue.task_done().unwrap_err();
        assert!(error.raised().is_some_and(|raised| raised.is("ValueError")), "{error}");
    });
}

fn locks_exclude_and_semaphores_count() {
    with_managers(|running| {
        let manager = running.connect();
        let (lock, count) = (manager.lock().unwrap(), manager.value(&0).unwrap());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _guard = lock.lock().unwrap();
                        count.set(&(count.get().unwrap() + 1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(count.get().unwrap(), 40);
        let guard = lock.lock().unwrap();
        assert!(lock.try_lock().unwrap().is_none() && lock.lock_timeout(SOON).unwrap().is_none());
        drop(guard);
        drop(lock.try_lock().unwrap().expect("the lock is free again"));
        assert!(lock.release().unwrap_err().raised().is_some());

        let rlock = manager.rlock().unwrap();
        let (outer, inner) = (rlock.lock().unwrap(), rlock.try_lock().unwrap());
        assert!(inner.is_some(), "its owner cannot take it again");
        let is_free = || {
            thread::scope(|scope| {
                scope.spawn(|| rlock.try_lock().unwrap().is_some()).join().unwrap()
            })
        };
        assert!(!is_free());
        drop(inner);
        assert!(!is_free());
        drop(outer);
        assert!(is_free());

        let semaphore = manager.bounded_semaphore(2).unwrap();
        semaphore.acquire().unwrap();
        assert!(semaphore.try_acquire().unwrap());
        assert!(!semaphore.try_acquire().unwrap() && !semaphore.acquire_timeout(SOON).unwrap());
        semaphore.release().unwrap();
        semaphore.release().unwrap();
        assert!(semaphore.release().unwrap_err().raised().is_some(), "more than there are");
        let unbounded = manager.semaphore(0).unwrap();
        unbounded.release().unwrap();
        assert!(unbounded.acquire_timeout(DEADLOCK).unwrap());
    });
}

fn conditions_events_and_barriers_bring_threads_together() {
    with_managers(|running| {
        let manager = running.connect();
        let (condition, items) = (manager.condition().unwrap(), manager.list::<u8>().unwrap());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let guard = condition.lock().unwrap();
                assert!(guard.wait_for(|| Ok(!items.is_empty()?), None).unwrap());
                items.pop().unwrap()
            });
            let guard = condition.lock().unwrap();
            items.push(&7).unwrap();
            guard.notify_all().unwrap();
            drop(guard);
            assert_eq!(waiting.join().unwrap(), Some(7));
        });
        let guard = condition.lock().unwrap();
        guard.notify(1).unwrap();
        assert!(!guard.wait(Some(SOON)).unwrap());
        assert!(!guard.wait_for(|| Ok(false), Some(SOON)).unwrap());
        drop(guard);

        let event = manager.event().unwrap();
        assert!(!event.is_set().unwrap() && !event.wait(Some(SOON)).unwrap());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| event.wait(None).unwrap());
            event.set().unwrap();
            assert!(waiting.join().unwrap() && event.is_set().unwrap());
        });
        event.clear().unwrap();
        assert!(!event.is_set().unwrap());

        let barrier = manager.barrier(2).unwrap();
        assert_eq!((barrier.parties().unwrap(), barrier.n_waiting().unwrap()), (2, 0));
        thread::scope(|scope| {
            let other = scope.spawn(|| barrier.wait(Some(DEADLOCK)).unwrap());
            let numbers = [barrier.wait(None).unwrap(), other.join().unwrap()];
            assert!(numbers == [0, 1] || numbers == [1, 0], "{numbers:?}");
        });
        assert!(matches!(barrier.wait(Some(SOON)), Err(ProxyError::Failed(Broken))));
        assert!(barrier.is_broken().unwrap());
        barrier.reset().unwrap();
        assert!(!barrier.is_broken().unwrap());
        barrier.abort().unwrap();
        assert!(matches!(barrier.wait(None), Err(ProxyError::Failed(Broken))));
    });
}

fn exceptions_arrive_with_class_and_message() {
    #[derive(Serialize)]
    struct Step {
        step: u32,
    }
    with_managers(|running| {
        let manager = running.connect();
        let counter = manager.create_with("Counter", (10,), Step { step: 5 }).unwrap();
        assert_eq!(counter.typeid(), "Counter");
        let times = HashMap::from([("times", 2)]);
        assert_eq!(counter.call_with::<_, _, i64>("increment", (), times).unwrap(), 20);
        let methods = counter.methods().unwrap();
        assert!(methods.contains(&"increment".to_owned()), "{methods:?}");
        let upwards: IteratorProxy<u8> = counter.call_proxy("upwards", ()).unwrap().into();
        assert_eq!(upwards.map(Result::unwrap).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());

        let error = counter.call::<_, ()>("fail", ("no such thing",)).unwrap_err();
        assert_eq!(error.to_string(), "ValueError: no such thing");
        let raised = error.raised().unwrap();
        assert!(matches!(&raised.exception, Some(Value::Object(_))), "{raised:?}");

        let error = counter.call::<_, ()>("decrement", ()).unwrap_err();
        let raised = error.raised().unwrap();
        assert!(raised.exception.is_none() && error.to_string().contains("decrement"), "{error}");
        assert!(raised.traceback.as_ref().is_some_and(|text| text.contains("decrement")));
        let error = manager.create("Unknown", ()).unwrap_err();
        assert_eq!(error.raised().unwrap().class, "KeyError");

        let error = counter.call::<_, String>("increment", ()).unwrap_err();
        assert!(matches!(error, CallFailed::Decode { .. }), "{error}");
        let error = counter.call::<_, ()>("increment", 7).unwrap_err();
        assert!(matches!(error, CallFailed::Encode { .. }), "{error}");
        assert_eq!(counter.call::<_, i64>("increment", (0,)).unwrap(), 25, "the way is still good");
    });
}

fn threads_call_through_the_same_proxies_at_once() {
    with_managers(|running| {
        let manager = running.connect();
        let dict: DictProxy<u64, u64> = manager.dict().unwrap();
        let queue: QueueProxy<u64> = manager.queue(0).unwrap();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (dict, queue) = (dict.clone(), &queue);
                scope.spawn(move || {
                    for number in 0..50 {
                        dict.insert(&(thread * 1000 + number), &number).unwrap();
                        assert_eq!(dict.get(&(thread * 1000 + number)).unwrap(), Some(number));
                        queue.put(&number).unwrap();
                    }
                });
            }
            let taken: u64 = (0..400).map(|_| queue.get().unwrap()).sum();
            assert_eq!(taken, 8 * (0..50).sum::<u64>());
        });
        assert_eq!(dict.len().unwrap(), 400);
        let (ours, pid) = (running.is_ours(), running.child.id());
        assert_eq!(manager.server(), ours.then_some(pid), "{}", running.name);
    });
}

fn last_proxy_frees_its_object() {
    with_managers(|running| {
        let manager = running.connect();
        let is_left =
            |count| wait_until(DEADLOCK, || manager.number_of_objects().unwrap() == count);
        // Versions before 3.7.3 count one for themselves.
        let before = manager.number_of_objects().unwrap();
        let list: ListProxy<u8> = manager.list().unwrap();
        let other = list.clone();
        let dict: DictProxy<u8, u8> = manager.dict().unwrap();
        assert!(is_left(before + 2));
        assert!(manager.debug_info().unwrap().contains("refcount="));
        drop(list);
        dict.insert(&1, &2).unwrap();
        let iterator = dict.iter().unwrap();
        assert!(is_left(before + 3));
        drop((dict, iterator));
        assert!(is_left(before + 1));
        other.push(&1).unwrap();
        drop(other);
        assert!(is_left(before));
    });
}

fn proxies_come_back_out_of_the_objects_they_were_put_into() {
    with_managers(|running| {
        let manager = running.connect();
        let inner: ListProxy<String> = manager.list().unwrap();
        let outer: DictProxy<u8, (u8, ListProxy<String>)> = manager.dict().unwrap();
        outer.insert(&1, &(2, inner.clone())).unwrap();
        let (number, found) = outer.get(&1).unwrap().unwrap();
        found.push(&"through the other".to_owned()).unwrap();
        assert_eq!(number, 2);
        assert_eq!(found.proxy(), inner.proxy());
        assert_eq!(inner.snapshot().unwrap(), ["through the other"]);

        let counter = manager.create("Counter", ()).unwrap();
        let given = (inner.clone(), "by Python");
        let returned: ListProxy<String> = counter.call("append_to", given).unwrap();
        assert_eq!(returned.snapshot().unwrap(), ["through the other", "by Python"]);
    });
}

fn use_proxies((list, lock, event): (ListProxy<u32>, LockProxy, EventProxy)) -> usize {
    event.wait(None).unwrap();
    let _guard = lock.lock().unwrap();
    list.push(&std::process::id()).unwrap();
    list.len().unwrap()
}

fn use_from_queue(queue: Queue<ListProxy<u32>>) {
    queue.get().unwrap().push(&std::process::id()).unwrap();
}

fn proxies_travel_to_processes_and_may_be_dropped_at_once() {
    with_managers(|running| {
        let manager = running.connect();
        let list: ListProxy<u32> = manager.list().unwrap();
        let event = manager.event().unwrap();
        let given = (list.clone(), manager.lock().unwrap(), event.clone());
        let child = procession::spawn(use_proxies, given).unwrap();
        let pid = child.child().pid();
        event.set().unwrap();
        assert_eq!(child.join().unwrap(), 1);
        assert_eq!(list.pop().unwrap(), Some(pid));

        let queue = Queue::new().unwrap();
        let child = procession::spawn(use_from_queue, queue.clone()).unwrap();
        queue.put(&list).unwrap();
        let pid = child.child().pid();
        child.join().unwrap();
        assert_eq!(list.snapshot().unwrap(), [pid]);
    });
}

fn proxies_go_on_in_a_forked_process() {
    with_managers(|running| {
        let manager = running.connect();
        let before = manager.number_of_objects().unwrap();
        let list: ListProxy<u32> = manager.list().unwrap();
        list.push(&1).unwrap();
        // Moved into the child, so that this process has dropped it before that uses it.
        let (again, numbers) = (manager.clone(), manager.value(&0).unwrap());
        let event = manager.event().unwrap();
        let in_child = event.clone();
        let child = Builder::new().fork(move || {
            in_child.wait(None).unwrap();
            list.push(&2).unwrap();
            numbers.set(&again.number_of_objects().unwrap()).unwrap();
            list.snapshot().unwrap()
        });
        event.set().unwrap();
        assert_eq!(child.unwrap().join().unwrap(), [1, 2]);
        drop(event);
        if running.is_ours() {
            // A server of the standard library does not notice that the child has ended.
            assert!(wait_until(DEADLOCK, || manager.number_of_objects().unwrap() == before));
        }
    });
}

fn take_proxy_from_pipe(receiver: procession::channel::connection::Receiver<Proxy>) -> String {
    let without_key = receiver.recv().unwrap_err().to_string();
    procession::manager::use_key(KEY);
    receiver.recv().unwrap().call::<_, ()>("append", (7,)).unwrap();
    without_key
}

fn proxy_in_a_message_needs_a_key_that_is_known() {
    with_managers(|running| {
        let manager = running.connect();
        let list: ListProxy<u8> = manager.list().unwrap();
        let (receiver, sender) = pipe_one_way::<Proxy>().unwrap();
        let child = procession::spawn(take_proxy_from_pipe, receiver).unwrap();
        sender.send(list.proxy()).unwrap();
        sender.send(list.proxy()).unwrap();
        let refused = child.join().unwrap();
        assert!(refused.contains("does not know the key of the manager"), "{refused}");
        assert_eq!(list.snapshot().unwrap(), [7]);
    });
    assert!(stop_sharing(None), "a connection was not fetched");
}

fn client_in_python_is_handed_proxies() {
    const CLIENT: &str = "
import multiprocessing, sys
from multiprocessing.managers import BaseManager
multiprocessing.current_process().authkey = b'a key'
class Manager(BaseManager):
    pass
Manager.register('get_tasks')
manager = Manager(address=('127.0.0.1', int(sys.argv[1])), authkey=b'a key')
manager.connect()
name, numbers, event = manager.get_tasks().get()
numbers.append(len(name))
event.set()
";
    with_managers(|running| {
        let Address::Tcp(address) = running.address else { panic!("not at a port") };
        let manager = running.connect();
        let numbers: ListProxy<usize> = manager.list().unwrap();
        let event = manager.event().unwrap();
        let tasks: QueueProxy<(&str, ListProxy<usize>, EventProxy)> =
            manager.proxy("get_tasks").unwrap().into();
        tasks.put(&("four", numbers.clone(), event.clone())).unwrap();
        let client = start(pythons().last().unwrap(), CLIENT, &[&address.port().to_string()]);
        assert!(event.wait(None).unwrap());
        assert_eq!(finish(client), "");
        assert_eq!(numbers.snapshot().unwrap(), [4]);
    });
}

fn calls_of_all_proxies_fail_when_the_server_is_killed() {
    with_managers(|running| {
        let manager = running.connect();
        let (address, name) = (running.address.clone(), running.name.clone());
        let queues: Vec<QueueProxy<u8>> = (0..4).map(|_| manager.queue(0).unwrap()).collect();
        let (sender, receiver) = mpsc::channel();
        let is_gone = |failed: &CallFailed| {
            matches!(failed, CallFailed::ServerGone { pid, .. } if *pid == manager.server())
                && failed.to_string().contains(&address.to_string())
        };
        thread::scope(|scope| {
            let calls: Vec<_> = (0..8)
                .map(|number| {
                    let (queue, sender) = (&queues[number % 4], sender.clone());
                    scope.spawn(move || {
                        queue.is_empty().unwrap();
                        sender.send(()).unwrap();
                        queue.get().unwrap_err()
                    })
                })
                .collect();
            calls.iter().for_each(|_| receiver.recv().unwrap());
            running.child.kill().unwrap();
            running.child.wait().unwrap();
            for call in calls {
                let failed = call.join().unwrap();
                assert!(is_gone(&failed), "{}: {failed:?}", name);
            }
        });
        for queue in &queues {
            let failed = queue.put(&1).unwrap_err();
            assert!(is_gone(&failed), "{}: {failed:?}", name);
        }
        assert!(manager.dummy().is_err());
        drop(queues);
        let again = RemoteManager::connect(address.clone(), KEY).unwrap_err();
        let refused = |error: &CallFailed| {
            matches!(error, CallFailed::NotConnected { source: EndpointError::Refused { .. }, .. })
        };
        assert!(refused(&again), "{again:?}");
    });
}

fn connecting_says_what_stands_in_the_way() {
    with_managers(|running| {
        let error = RemoteManager::connect(running.address.clone(), "another").unwrap_err();
        let expected = EndpointError::Handshake(HandshakeError::Rejected);
        let CallFailed::NotConnected { source, address } = error else { panic!("{error:?}") };
        assert_eq!(format!("{source:?}"), format!("{expected:?}"));
        assert_eq!(address, running.address);
        running.connect().dummy().unwrap();
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(silent.local_addr().unwrap());
    let error = RemoteManager::connect_timeout(address, KEY, Some(SOON)).unwrap_err();
    assert!(matches!(error, CallFailed::NotConnected { .. }), "{error:?}");
    assert!(error.to_string().contains("silent"), "{error}");
}

fn shutdown_ends_the_server() {
    let folder = std::env::temp_dir().join(format!("procession-proxies-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.to_str().unwrap();
    let packages = pythons().map(|python| (python, "multiprocessing"));
    for (python, package) in packages.chain(with_package().map(|python| (python, "procession"))) {
        let mut running = Running::start(python, package, path);
        let manager = running.connect();
        let list: ListProxy<u8> = manager.list().unwrap();
        list.push(&1).unwrap();
        manager.shutdown().unwrap();
        assert!(running.child.wait().unwrap().success(), "{}", running.name);
        let failed = list.push(&2).unwrap_err();
        let CallFailed::ServerGone { .. } = failed else { panic!("{}: {failed:?}", running.name) };
        let _ = std::fs::remove_file(folder.join("socket"));
    }
    std::fs::remove_dir(folder).unwrap();
}

fn die_with(lock: LockProxy) {
    std::mem::forget(lock.lock().unwrap());
    Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
}

/// Not with a server of the standard library, which does not notice.
fn killed_worker_releases_what_it_had_locked() {
    let Some(python) = with_package() else {
        return eprintln!("skipped: this project's package is not built");
    };
    let running = Running::start(python, "procession", "127.0.0.1");
    let lock = running.connect().lock().unwrap();
    let child = procession::spawn(die_with, lock.clone()).unwrap();
    assert!(child.join().is_err());
    let _guard = lock.lock().unwrap();
}
