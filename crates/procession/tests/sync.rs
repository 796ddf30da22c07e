//! Locks and their kin between processes.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use procession::process::{self, Builder, JoinHandle, StartMethod};
use procession::sync::{
    Barrier, BarrierError, Condition, Event, Holder, Lock, LockError, LockOutcome, Mutex, RLock,
    Semaphore, WaitError, Wake,
};
use procession_testing::process::wait_until;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);

const METHODS: [StartMethod; 2] = [StartMethod::Fork, StartMethod::Spawn];

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            lock_of_a_killed_process_is_taken_over,
            lock_of_a_process_that_has_ended_stays_held,
            rlock_of_any_process_that_is_gone_is_taken_over,
            terminated_process_counts_as_killed,
            lock_can_be_released_by_another_process,
            rlock_cannot_be_released_by_another_process,
            value_of_a_mutex_is_shared_and_poisoned_by_a_death,
            semaphore_and_event_pass_from_process_to_process,
            notification_reaches_another_process,
            killed_waiter_leaves_its_notification_to_the_next,
            processes_meet_at_a_barrier,
            killed_waiter_breaks_the_barrier,
            soak_slowest_of_eight_gets_its_share_of_a_lock,
            soak_slowest_of_eight_gets_its_share_of_a_semaphore,
            soak_those_who_wait_use_no_processor
        ],
    )
}

fn background(method: StartMethod) -> Builder {
    Builder::new().daemon(true).start_method(method)
}

/// Takes the lock and stays until it is killed.
fn hold_lock((lock, ready): (Lock, Event)) {
    lock.acquire(None).unwrap();
    stay(&ready);
}

fn hold_rlock((lock, ready): (RLock, Event)) {
    lock.acquire(None).unwrap();
    lock.acquire(None).unwrap();
    stay(&ready);
}

fn stay(ready: &Event) {
    ready.set();
    loop {
        thread::park();
    }
}

fn take_lock(lock: Lock) {
    lock.acquire(None).unwrap();
}

fn take_rlock(lock: RLock) {
    lock.acquire(None).unwrap();
}

fn lock_of_a_killed_process_is_taken_over() {
    for method in METHODS {
        let (lock, ready) = (Lock::new().unwrap(), Event::new().unwrap());
        let holder = background(method).spawn(hold_lock, (lock.clone(), ready.clone())).unwrap();
        ready.wait(None).unwrap();
        assert_eq!(lock.holder(), Holder::OtherProcess);
        assert_eq!(lock.acquire_for(Duration::from_millis(50)), Err(WaitError::TimedOut));
        holder.kill().unwrap();
        let dead = lock.owner().unwrap();
        assert_eq!(lock.acquire(None), Ok(LockOutcome::OwnerDied(dead)));
        assert_eq!(lock.holder(), Holder::ThisThread);
        holder.join().unwrap_err();
        assert_eq!(lock.acquire_for(Duration::ZERO), Err(WaitError::TimedOut), "it is held");
    }
}

fn lock_of_a_process_that_has_ended_stays_held() {
    for method in METHODS {
        let lock = Lock::new().unwrap();
        background(method).spawn(take_lock, lock.clone()).unwrap().join().unwrap();
        let short = Duration::from_millis(100);
        assert_eq!(lock.acquire_for(short), Err(WaitError::TimedOut));
        assert!((0..200).all(|_| lock.try_acquire().is_none()), "a try has taken it over");
        assert_eq!((lock.holder(), lock.owner()), (Holder::OtherProcess, None));
        lock.release().unwrap();
        assert_eq!(lock.try_acquire(), Some(LockOutcome::Acquired));
    }
}

fn rlock_of_any_process_that_is_gone_is_taken_over() {
    for method in METHODS {
        let lock = RLock::new().unwrap();
        background(method).spawn(take_rlock, lock.clone()).unwrap().join().unwrap();
        assert!(matches!(lock.acquire(None), Ok(LockOutcome::OwnerDied(_))));
        lock.release().unwrap();

        let ready = Event::new().unwrap();
        let holder = background(method).spawn(hold_rlock, (lock.clone(), ready.clone())).unwrap();
        ready.wait(None).unwrap();
        assert_eq!((lock.depth(), lock.holder()), (2, Holder::OtherProcess));
        holder.kill().unwrap();
        assert!(matches!(lock.acquire(None), Ok(LockOutcome::OwnerDied(_))));
        assert_eq!(lock.depth(), 1);
        holder.join().unwrap_err();
    }
}

fn terminated_process_counts_as_killed() {
    let (lock, ready) = (Lock::new().unwrap(), Event::new().unwrap());
    let args = (lock.clone(), ready.clone());
    let holder = background(StartMethod::Spawn).spawn(hold_lock, args).unwrap();
    ready.wait(None).unwrap();
    holder.terminate().unwrap();
    assert!(matches!(lock.acquire(None), Ok(LockOutcome::OwnerDied(_))));
    holder.join().unwrap_err();
}

fn release(lock: Lock) -> bool {
    lock.release().is_ok()
}

fn lock_can_be_released_by_another_process() {
    for method in METHODS {
        let lock = Lock::new().unwrap();
        lock.acquire(None).unwrap();
        assert!(background(method).spawn(release, lock.clone()).unwrap().join().unwrap());
        assert!(!lock.is_held());
    }
}

fn release_rlock(lock: RLock) -> bool {
    assert_eq!(lock.holder(), Holder::OtherProcess);
    lock.release() == Err(LockError::NotOwner)
}

fn rlock_cannot_be_released_by_another_process() {
    for method in METHODS {
        let lock = RLock::new().unwrap();
        lock.acquire(None).unwrap();
        assert!(background(method).spawn(release_rlock, lock.clone()).unwrap().join().unwrap());
        assert_eq!(lock.holder(), Holder::ThisThread);
    }
}

fn add(mutex: Mutex<[u32; 4]>) {
    mutex.lock().unwrap()[2] += 5;
}

fn die_with((mutex, ready): (Mutex<[u32; 4]>, Event)) {
    let mut value = mutex.lock().unwrap();
    value[0] = 1;
    stay(&ready);
}

fn value_of_a_mutex_is_shared_and_poisoned_by_a_death() {
    for method in METHODS {
        let (mutex, ready) = (Mutex::new([7; 4]).unwrap(), Event::new().unwrap());
        background(method).spawn(add, mutex.clone()).unwrap().join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), [7, 7, 12, 7]);
        let holder = background(method).spawn(die_with, (mutex.clone(), ready.clone())).unwrap();
        ready.wait(None).unwrap();
        holder.kill().unwrap();
        let poisoned = mutex.lock().unwrap_err();
        assert_eq!(Some(poisoned.by()), mutex.poisoned_by());
        let mut value = poisoned.into_inner();
        assert_eq!(*value, [1, 7, 12, 7]);
        value.clear_poison();
        drop(value);
        assert!(mutex.lock().is_ok());
        holder.join().unwrap_err();
    }
}

fn pass_on((first, second, event): (Semaphore, Semaphore, Event)) {
    for _ in 0..100 {
        first.acquire(None).unwrap();
        second.release().unwrap();
    }
    event.wait(None).unwrap();
}

fn semaphore_and_event_pass_from_process_to_process() {
    for method in METHODS {
        let [first, second] = [(); 2].map(|()| Semaphore::bounded(0, 1).unwrap());
        let event = Event::new().unwrap();
        let args = (first.clone(), second.clone(), event.clone());
        let other = background(method).spawn(pass_on, args).unwrap();
        for _ in 0..100 {
            first.release().unwrap();
            second.acquire(None).unwrap();
        }
        assert!(other.is_alive(), "it did not wait for the event");
        event.set();
        other.join().unwrap();
    }
}

fn wait_once((lock, changed, done): (RLock, Condition, Event)) {
    lock.acquire(None).unwrap();
    lock.acquire(None).unwrap();
    assert_eq!(changed.wait(None).unwrap().wake, Wake::Notified);
    assert_eq!((lock.depth(), lock.holder()), (2, Holder::ThisThread));
    done.set();
    lock.release().unwrap();
    lock.release().unwrap();
}

fn notification_reaches_another_process() {
    for method in METHODS {
        let (lock, done) = (RLock::new().unwrap(), Event::new().unwrap());
        let changed = Condition::new(lock.clone()).unwrap();
        let args = (lock.clone(), changed.clone(), done.clone());
        let waiter = background(method).spawn(wait_once, args).unwrap();
        assert!(wait_until(DEADLOCK, || changed.waiters() == 1), "it does not wait");
        lock.acquire(None).unwrap();
        assert_eq!(changed.notify(3), 1, "there is one");
        assert!(!done.is_set(), "it returned without the lock");
        lock.release().unwrap();
        waiter.join().unwrap();
        assert!(done.is_set());
    }
}

fn killed_waiter_leaves_its_notification_to_the_next() {
    let (lock, done) = (RLock::new().unwrap(), Event::new().unwrap());
    let changed = Condition::new(lock.clone()).unwrap();
    let mut waiters = Vec::new();
    for count in 1..=2 {
        let args = (lock.clone(), changed.clone(), done.clone());
        waiters.push(background(StartMethod::Fork).spawn(wait_once, args).unwrap());
        assert!(wait_until(DEADLOCK, || changed.waiters() == count), "it does not wait");
    }
    lock.acquire(None).unwrap();
    assert_eq!(changed.notify(1), 1);
    // With the lock held here, the notified one cannot return.
    waiters[0].kill().unwrap();
    lock.release().unwrap();
    done.wait(None).unwrap();
    let second = waiters.remove(1);
    second.join().unwrap();
    waiters.remove(0).join().unwrap_err();
}

fn meet((barrier, rounds): (Barrier, u32)) -> Vec<usize> {
    (0..rounds).map(|_| barrier.wait(None).unwrap()).collect()
}

fn processes_meet_at_a_barrier() {
    for method in METHODS {
        let barrier = Barrier::new(3).unwrap();
        let others: Vec<_> = (0..2)
            .map(|_| background(method).spawn(meet, (barrier.clone(), 50)).unwrap())
            .collect();
        let mut places = vec![meet((barrier.clone(), 50))];
        places.extend(others.into_iter().map(|other| other.join().unwrap()));
        for round in 0..50 {
            let mut seen: Vec<_> = places.iter().map(|places| places[round]).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
        }
    }
}

fn killed_waiter_breaks_the_barrier() {
    let barrier = Barrier::new(3).unwrap();
    let other = background(StartMethod::Fork).spawn(meet, (barrier.clone(), 1)).unwrap();
    assert!(wait_until(DEADLOCK, || barrier.waiters() == 1), "it has not come");
    other.kill().unwrap();
    assert!(matches!(barrier.wait(None), Err(BarrierError::Broken)));
    assert!(barrier.is_broken());
    other.join().unwrap_err();
}

const CONTENDERS: usize = 8;
const CONTEST: Duration = Duration::from_secs(10);

/// Lets eight processes do the same again and again for ten seconds, and says how often each did.
fn contest(turn: impl Fn()) -> Vec<u64> {
    let barrier = Barrier::new(CONTENDERS as u32).unwrap();
    let contend = || {
        barrier.wait(None).unwrap();
        let (start, mut turns) = (Instant::now(), 0_u64);
        while start.elapsed() < CONTEST {
            turn();
            turns += 1;
        }
        turns
    };
    let contenders: Vec<_> =
        (0..CONTENDERS).map(|_| Builder::new().daemon(true).fork(contend).unwrap()).collect();
    contenders.into_iter().map(|contender| contender.join().unwrap()).collect()
}

fn assert_fair(shares: &[u64]) {
    let average = shares.iter().sum::<u64>() / shares.len() as u64;
    let slowest = *shares.iter().min().unwrap();
    let percent = slowest * 100 / average.max(1);
    eprintln!("turns: {shares:?}; the slowest has {percent} % of the average");
    assert!(percent >= 25, "the slowest of {shares:?} has less than a quarter of the average");
}

fn soak_slowest_of_eight_gets_its_share_of_a_lock() {
    let lock = Lock::new().unwrap();
    assert_fair(&contest(|| {
        lock.acquire(None).unwrap();
        lock.release().unwrap();
    }));
}

fn soak_slowest_of_eight_gets_its_share_of_a_semaphore() {
    let semaphore = Semaphore::new(1).unwrap();
    assert_fair(&contest(|| {
        semaphore.acquire(None).unwrap();
        semaphore.release().unwrap();
    }));
}

/// Time on a processor of a process, in nanoseconds.
fn processor_time(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn soak_those_who_wait_use_no_processor() {
    const WAITERS: usize = 64;
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    let (changed, barrier) =
        (Condition::new(Lock::new().unwrap()).unwrap(), Barrier::new(1 + WAITERS as u32).unwrap());
    let changed_lock = changed.lock().clone();
    lock.acquire(None).unwrap();
    rlock.acquire(None).unwrap();
    let waits: [(&str, &dyn Fn()); 6] = [
        ("lock", &|| lock.acquire(None).map(drop).unwrap()),
        ("rlock", &|| rlock.acquire(None).map(drop).unwrap()),
        ("event", &|| event.wait(None).unwrap()),
        ("semaphore", &|| semaphore.acquire(None).unwrap()),
        ("condition", &|| {
            let procession::sync::ConditionLock::Lock(lock) = &changed_lock else { return };
            lock.acquire(None).unwrap();
            changed.wait(None).map(drop).unwrap();
        }),
        ("barrier", &|| barrier.wait(None).map(drop).unwrap()),
    ];
    for (name, wait) in waits {
        let waiters: Vec<_> =
            (0..WAITERS).map(|_| Builder::new().daemon(true).fork(wait).unwrap()).collect();
        let used = || waiters.iter().map(|waiter| processor_time(waiter.pid())).sum::<u64>();
        // Until all have gone through their first, short slices.
        let settle = Event::new().unwrap();
        assert_eq!(settle.wait_for(Duration::from_secs(3)), Err(WaitError::TimedOut));
        let before = used();
        assert_eq!(settle.wait_for(Duration::from_secs(10)), Err(WaitError::TimedOut));
        let used = (used() - before) / 1_000_000;
        eprintln!("{WAITERS} that wait for a {name} used {used} ms of processor in 10 s");
        assert!(waiters.iter().all(JoinHandle::is_alive), "they do not wait");
        for waiter in waiters {
            waiter.kill().unwrap();
            waiter.join().unwrap_err();
        }
        assert!(used < 1000, "they do not sleep");
    }
}
