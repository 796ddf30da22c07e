//! Locks and their kin: alone, and between two processes.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use procession::process::{Builder, JoinHandle};
use procession::sync::{Barrier, Condition, Event, Lock, Mutex, RLock, Semaphore};
use procession_testing::Report;

fn main() {
    procession::init();
    let mut report = Report::new("sync");
    let count = report.scaled(20_000_000);
    alone(&mut report, count);
    let rounds = report.scaled(500_000);
    report.measure("ping-pong, semaphore", "round trips", || semaphore(rounds));
    report.measure("ping-pong, event", "round trips", || event(rounds));
    report.measure("ping-pong, condition", "round trips", || condition(rounds));
    report.measure("ping-pong, barrier", "meetings", || barrier(rounds));
    report.measure("ping-pong, futex by hand", "round trips", || futex(rounds));
    report.measure("two contend for a lock", "turns", || contention(rounds * 4));
    report.finish();
}

/// Times a call that needs nobody else.
fn timed(count: u64, mut call: impl FnMut()) -> (u64, Duration) {
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    (count, start.elapsed())
}

fn alone(report: &mut Report, count: u64) {
    let lock = Lock::new().expect("shared memory");
    report.measure("lock and unlock", "pairs", || {
        timed(count, || {
            lock.acquire(None).expect("nobody has it");
            lock.release().expect("it is held");
        })
    });
    let rlock = RLock::new().expect("shared memory");
    report.measure("lock and unlock, recursive", "pairs", || {
        timed(count, || {
            rlock.acquire(None).expect("nobody has it");
            rlock.release().expect("it is held");
        })
    });
    let mutex = Mutex::new(0_u64).expect("shared memory");
    report.measure("mutex: add one", "additions", || {
        timed(count, || *mutex.lock().expect("nobody died") += 1)
    });
    let semaphore = Semaphore::new(1).expect("shared memory");
    report.measure("semaphore down and up", "pairs", || {
        timed(count, || {
            semaphore.acquire(None).expect("it is up");
            semaphore.release().expect("it is down");
        })
    });
    let event = Event::new().expect("shared memory");
    report.measure("event set and clear", "pairs", || {
        timed(count, || {
            event.set();
            event.clear();
        })
    });
}

/// Runs one side in a copy of this process, and times the other.
fn against(count: u64, other: impl Fn(), mine: impl Fn()) -> (u64, Duration) {
    let ready = Event::new().expect("shared memory");
    let child: JoinHandle<()> = Builder::new()
        .fork(|| {
            ready.set();
            (0..count).for_each(|_| other());
        })
        .expect("the child starts");
    ready.wait(None).expect("the child is ready");
    let result = timed(count, mine);
    child.join().expect("the child ends well");
    result
}

fn semaphore(rounds: u64) -> (u64, Duration) {
    let [there, back] = [(); 2].map(|()| Semaphore::new(0).expect("shared memory"));
    let pass = |from: &Semaphore, to: &Semaphore| {
        from.acquire(None).expect("the other releases");
        to.release().expect("it is down");
    };
    back.release().expect("it is down");
    against(rounds, || pass(&there, &back), || pass(&back, &there))
}

fn event(rounds: u64) -> (u64, Duration) {
    let [there, back] = [(); 2].map(|()| Event::new().expect("shared memory"));
    let pass = |from: &Event, to: &Event| {
        from.wait(None).expect("the other sets it");
        from.clear();
        to.set();
    };
    back.set();
    against(rounds, || pass(&there, &back), || pass(&back, &there))
}

fn condition(rounds: u64) -> (u64, Duration) {
    let lock = Lock::new().expect("shared memory");
    let changed = Condition::new(lock.clone()).expect("shared memory");
    // Whose turn it is, under the lock.
    let turn = Event::new().expect("shared memory");
    let pass = |mine: bool| {
        lock.acquire(None).expect("the other releases it");
        while turn.is_set() != mine {
            changed.wait(None).expect("the lock is held");
        }
        if mine {
            turn.clear()
        } else {
            turn.set()
        }
        changed.notify(1);
        lock.release().expect("it is held");
    };
    against(rounds, || pass(true), || pass(false))
}

fn barrier(rounds: u64) -> (u64, Duration) {
    let barrier = Barrier::new(2).expect("shared memory");
    let meet = || {
        barrier.wait(None).expect("the other comes");
    };
    against(rounds, meet, meet)
}

/// What the system can do, without any care: a word each way, sleeping at once.
fn futex(rounds: u64) -> (u64, Duration) {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    use rustix::thread::futex::{Flags, wait, wake};

    let flags = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the system's choice, which is never taken away.
    let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, flags.0, flags.1) };
    let memory = memory.expect("a page of memory").cast::<[AtomicU32; 2]>();
    // SAFETY: zeroed, aligned to a page, alive until the process ends, and only touched as atomics.
    let [there, back] = unsafe { &*memory };
    let pass = |from: &AtomicU32, to: &AtomicU32| {
        while from.swap(0, Ordering::SeqCst) == 0 {
            // Woken, or not asleep at all: look again.
            let _ = wait(from, Flags::empty(), 0, None);
        }
        to.store(1, Ordering::SeqCst);
        wake(to, Flags::empty(), 1).expect("the word is there");
    };
    back.store(1, Ordering::SeqCst);
    against(rounds, || pass(there, back), || pass(back, there))
}

fn contention(turns: u64) -> (u64, Duration) {
    let lock = Lock::new().expect("shared memory");
    let turn = || {
        lock.acquire(None).expect("the other releases it");
        lock.release().expect("it is held");
    };
    against(turns, turn, turn)
}
