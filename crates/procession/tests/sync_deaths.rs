//! Locks and their kin among processes that are killed at any moment.
//!
//! In each test some processes use one object, and one of them is killed again and again, wherever it
//! happens to be. What the object promises must hold all the time, and nobody may hang.

mod deaths;

use std::process::ExitCode;
use std::time::Duration;

use procession::process::{self, Builder, JoinHandle};
use procession::sync::{
    Barrier, BarrierError, Condition, Event, Lock, LockOutcome, Mutex, RLock, Semaphore,
};
use procession_testing::process::wait_until;

use self::deaths::{kill, work, work_before_kill};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
/// Processes that use an object at a time.
const WORKERS: usize = 4;
/// How many are killed in a quick test, and in a long one.
const KILLS: usize = 50;
const MANY_KILLS: usize = 1000;

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            lock_survives_its_owners,
            rlock_survives_its_owners,
            mutex_survives_its_owners,
            semaphore_loses_no_more_than_the_dead_took,
            event_lets_the_living_through,
            condition_loses_no_notification,
            barrier_breaks_and_is_used_again,
            soak_lock_survives_a_thousand_owners,
            soak_rlock_survives_a_thousand_owners,
            soak_mutex_survives_a_thousand_owners,
            soak_semaphore_survives_a_thousand_kills,
            soak_event_survives_a_thousand_kills,
            soak_condition_survives_a_thousand_kills,
            soak_barrier_survives_a_thousand_kills
        ],
    )
}

/// Processes that do the same until they are told to stop.
struct Crew<'a> {
    stop: Event,
    job: &'a dyn Fn(),
    workers: Vec<JoinHandle<()>>,
}

impl<'a> Crew<'a> {
    fn start(job: &'a dyn Fn()) -> Self {
        let mut crew = Self { stop: Event::new().unwrap(), job, workers: Vec::new() };
        (0..WORKERS).for_each(|_| crew.hire());
        crew
    }

    fn hire(&mut self) {
        let (stop, job) = (&self.stop, self.job);
        let until_stopped = || {
            while !stop.is_set() {
                job();
            }
        };
        self.workers.push(Builder::new().daemon(true).fork(until_stopped).unwrap());
    }

    /// Kills the one that has been there longest, at a moment that differs from kill to kill.
    fn kill(&mut self, number: usize) {
        work_before_kill(number, 60_000);
        kill(self.workers.remove(0));
    }

    /// Tells all to stop, and waits for that. `wake` lets those go on that wait for something.
    fn finish(self, wake: impl Fn()) {
        self.stop.set();
        for worker in self.workers {
            let ended = wait_until(DEADLOCK, || {
                wake();
                worker.exit_status().is_some()
            });
            assert!(ended, "a worker hangs");
            worker.join().unwrap();
        }
    }
}

/// Kills so many of a crew, each replaced by another one.
fn spree(kills: usize, job: &dyn Fn()) {
    let mut crew = Crew::start(job);
    for number in 0..kills {
        crew.kill(number);
        crew.hire();
    }
    crew.finish(|| ());
}

fn lock_survives_its_owners() {
    lock(KILLS);
}

fn soak_lock_survives_a_thousand_owners() {
    lock(MANY_KILLS);
}

fn lock(kills: usize) {
    let (lock, inside, passes) =
        (Lock::new().unwrap(), Event::new().unwrap(), Semaphore::new(0).unwrap());
    spree(kills, &|| {
        let outcome = lock.acquire(None).unwrap();
        enter(outcome, &inside);
        lock.release().unwrap();
        passes.release().unwrap();
    });
    assert!(passes.value() > 0, "nobody ever got the lock");
    assert!(!lock.is_held(), "the last one has released it");
}

/// What the holder of a lock does. Only where the one before was killed it may find it half done.
fn enter(outcome: LockOutcome, inside: &Event) {
    let left_over = matches!(outcome, LockOutcome::OwnerDied(_));
    assert!(left_over || !inside.is_set(), "two hold the lock, or nobody was told of a death");
    inside.set();
    work(200);
    inside.clear();
}

fn rlock_survives_its_owners() {
    rlock(KILLS);
}

fn soak_rlock_survives_a_thousand_owners() {
    rlock(MANY_KILLS);
}

fn rlock(kills: usize) {
    let (lock, inside) = (RLock::new().unwrap(), Event::new().unwrap());
    spree(kills, &|| {
        let outcome = lock.acquire(None).unwrap();
        assert_eq!(lock.acquire(None), Ok(LockOutcome::Acquired));
        assert_eq!(lock.depth(), 2, "it is not what this process has taken");
        enter(outcome, &inside);
        lock.release().unwrap();
        work(50);
        lock.release().unwrap();
    });
    assert!(!lock.is_held(), "the last one has released it");
}

fn mutex_survives_its_owners() {
    mutex(KILLS);
}

fn soak_mutex_survives_a_thousand_owners() {
    mutex(MANY_KILLS);
}

fn mutex(kills: usize) {
    let mutex = Mutex::new([0_u64; 2]).unwrap();
    spree(kills, &|| {
        let mut halves = match mutex.lock() {
            Ok(halves) => halves,
            Err(poisoned) => {
                let mut halves = poisoned.into_inner();
                halves[1] = halves[0];
                halves.clear_poison();
                halves
            }
        };
        assert_eq!(halves[0], halves[1], "half a change, and nobody was told");
        halves[0] += 1;
        work(200);
        halves[1] += 1;
    });
    let halves = mutex.lock().expect("the last one was not killed");
    assert!(halves[0] == halves[1] && halves[0] > 0, "{halves:?}");
}

fn semaphore_loses_no_more_than_the_dead_took() {
    semaphore(KILLS);
}

fn soak_semaphore_survives_a_thousand_kills() {
    semaphore(MANY_KILLS);
}

fn semaphore(kills: usize) {
    let [items, done] = [(); 2].map(|()| Semaphore::new(0).unwrap());
    let mut made = 0;
    let mut make = |count: u32| {
        (0..count).for_each(|_| items.release().unwrap());
        made += count;
    };
    let job = || {
        if items.acquire_for(Duration::from_millis(100)).is_ok() {
            work(50);
            done.release().unwrap();
        }
    };
    let mut crew = Crew::start(&job);
    for number in 0..kills {
        make(5);
        crew.kill(number);
        crew.hire();
    }
    let drained = wait_until(DEADLOCK, || items.value() == 0);
    assert!(drained, "{} items are left, and nobody takes them", items.value());
    crew.finish(|| ());
    assert!(done.value() <= made, "more were taken than there were");
    let lost = (made - done.value()) as usize;
    assert!(lost <= kills, "{lost} items were lost to {kills} deaths");
}

fn event_lets_the_living_through() {
    event(KILLS);
}

fn soak_event_survives_a_thousand_kills() {
    event(MANY_KILLS);
}

fn event(kills: usize) {
    let (event, passes) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    // Each waits for another one's signal, and gives one itself.
    let job = || {
        if event.wait_for(Duration::from_millis(2)).is_ok() {
            event.clear();
            passes.release().unwrap();
        }
        work(50);
        event.set();
    };
    spree(kills, &job);
    assert!(passes.value() > 0, "nobody ever got through");
}

fn condition_loses_no_notification() {
    condition(KILLS);
}

fn soak_condition_survives_a_thousand_kills() {
    condition(MANY_KILLS);
}

fn condition(kills: usize) {
    let lock = Lock::new().unwrap();
    let changed = Condition::new(lock.clone()).unwrap();
    let [items, done, leave] = [(); 3].map(|()| Semaphore::new(0).unwrap());
    let job = || {
        lock.acquire(None).unwrap();
        // The last one makes all go away.
        while leave.value() == 0 && !items.try_acquire() {
            changed.wait(None).unwrap();
        }
        work(50);
        lock.release().unwrap();
        done.release().unwrap();
    };
    let mut crew = Crew::start(&job);
    for number in 0..kills {
        for _ in 0..2 {
            lock.acquire(None).unwrap();
            items.release().unwrap();
            changed.notify(1);
            lock.release().unwrap();
        }
        crew.kill(number);
        // Nobody comes anew who would find the item without having been notified.
        let taken = wait_until(DEADLOCK, || items.value() == 0);
        assert!(taken, "the dead have kept a notification: {changed:?}");
        crew.hire();
    }
    assert!(done.value() > 0, "nobody ever took an item");
    leave.release().unwrap();
    crew.finish(|| {
        lock.acquire(None).unwrap();
        changed.notify_all();
        lock.release().unwrap();
    });
}

fn barrier_breaks_and_is_used_again() {
    barrier(KILLS);
}

fn soak_barrier_survives_a_thousand_kills() {
    barrier(MANY_KILLS);
}

fn barrier(kills: usize) {
    let barrier = Barrier::new(WORKERS as u32).unwrap();
    let passes = Semaphore::new(0).unwrap();
    let job = || match barrier.wait_with(None, || passes.release().unwrap()) {
        Ok(index) => assert!(index < WORKERS),
        Err(BarrierError::Broken) => barrier.reset(),
        Err(other) => panic!("{other}"),
    };
    let mut crew = Crew::start(&job);
    for number in 0..kills {
        crew.kill(number);
        crew.hire();
        let before = passes.value();
        let goes_on = wait_until(DEADLOCK, || passes.value() > before);
        assert!(goes_on, "nobody gets through any more: {barrier:?}");
    }
    crew.finish(|| barrier.abort());
}
