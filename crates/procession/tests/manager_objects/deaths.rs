//! What happens when a client, or the manager itself, dies.

use std::sync::Arc;
use std::thread;

use procession::channel::Queue as Pipe;
use procession::channel::connection::Address;
use procession::manager::{CallFailed, Manager, Proxy, Queue, RemoteManager, ServingManager};
use procession_testing::process::{is_running, kill, wait_until};

use crate::{DEADLOCK, counter, register, serving};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    manager_ends_with_the_process_that_started_it,
    killed_client_lets_go_of_its_locks_and_waits_no_longer,
    dead_waiters_take_no_notification_and_break_the_barrier,
    item_is_not_handed_to_a_client_that_died,
    calls_fail_when_the_manager_is_killed,
];

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

type Taken = ([Proxy; 2], Proxy, Pipe<u32>);

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

type Waited = (Proxy, Proxy, Pipe<u32>);

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
