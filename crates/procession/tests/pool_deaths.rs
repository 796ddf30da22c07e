//! Pools whose workers die, by their own hand or another's.

use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::Queue;
use procession::pool::{Pool, PoolError, Task, TaskError};
use procession::process::{self, ExitStatus};
use procession_testing::process::{is_running, kill, wait_until};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
/// How often a worker is killed.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// And how many at most: where each dies before it has done anything, nothing would ever be done.
const KILLS: u32 = 100;

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            killed_worker_fails_exactly_its_task,
            exit_in_a_task_is_reported,
            task_is_run_again_as_often_as_allowed,
            task_that_dies_once_is_done_on_the_second_attempt,
            every_item_of_a_lost_task_fails,
            killed_idle_worker_is_replaced,
            map_survives_a_killing_spree_with_retries,
            pool_goes_on_through_a_killing_spree_without_retries,
            imap_unordered_survives_a_killing_spree,
            large_tasks_survive_a_killing_spree,
            closed_pool_finishes_although_workers_die,
            stopped_workers_do_not_keep_the_pool_from_ending,
            main_that_kills_every_worker_at_once_gets_its_values
        ],
    )
}

fn square(x: u64) -> u64 {
    x * x
}

/// Kills its worker if the number is a multiple of 10.
fn square_or_die(x: u64) -> u64 {
    if x.is_multiple_of(10) {
        kill(std::process::id());
    }
    x * x
}

fn leave(code: i32) {
    exit(code);
}

/// Keeps the worker busy for a while, without sleeping.
fn work(x: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(150) {
        std::hint::spin_loop();
    }
    x * x
}

fn killed_worker_fails_exactly_its_task() {
    let pool = Pool::new(2).unwrap();
    let tasks: Vec<Task<u64>> = (1..50).map(|x| pool.submit(square_or_die, x).unwrap()).collect();
    for (x, task) in (1_u64..50).zip(tasks) {
        match task.get() {
            Ok(value) => assert!(!x.is_multiple_of(10) && value == x * x, "{x} gave {value}"),
            Err(TaskError::WorkerDied(died)) => {
                assert!(x.is_multiple_of(10), "{x} failed with another's death: {died}");
                assert!(matches!(died.status, ExitStatus::Signal { signal: 9, .. }), "{died}");
                assert!(died.name.starts_with("worker-") && died.attempts == 1, "{died}");
                assert!(!is_running(died.pid));
            }
            Err(other) => panic!("{x}: {other:?}"),
        }
    }
}

fn exit_in_a_task_is_reported() {
    let pool = Pool::new(1).unwrap();
    match pool.apply(leave, 3) {
        Err(TaskError::WorkerDied(died)) => assert_eq!(died.status, ExitStatus::Code(3)),
        other => panic!("{other:?}"),
    }
    match pool.apply(leave, 0) {
        Err(TaskError::WorkerDied(died)) => assert_eq!(died.status, ExitStatus::Code(0)),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
}

fn task_is_run_again_as_often_as_allowed() {
    let pool = Pool::builder().workers(2).retries(2).build().unwrap();
    let attempts = Queue::new().unwrap();
    let die = |attempts: Queue<u8>| {
        attempts.put(&1).unwrap();
        kill(std::process::id());
    };
    match pool.apply(die, attempts.clone()) {
        Err(TaskError::WorkerDied(died)) => assert_eq!(died.attempts, 3),
        other => panic!("{other:?}"),
    }
    assert_eq!(attempts.len(), 3);
}

fn task_that_dies_once_is_done_on_the_second_attempt() {
    let pool = Pool::builder().workers(1).retries(1).build().unwrap();
    let first = Queue::new().unwrap();
    first.put(&1).unwrap();
    let die_once = |first: Queue<u8>| {
        if first.try_get().is_ok() {
            kill(std::process::id());
        }
        7
    };
    assert_eq!(pool.apply(die_once, first).unwrap(), 7);
}

fn every_item_of_a_lost_task_fails() {
    let pool = Pool::builder().workers(2).chunk(3).build().unwrap();
    let values: Vec<_> = pool.imap_unordered(square_or_die, 1..13).unwrap().collect();
    // 1 to 3, 4 to 6, 7 to 9, and 10 to 12, which dies at the first item.
    let failed =
        values.iter().filter(|value| matches!(value, Err(TaskError::WorkerDied(_)))).count();
    assert_eq!((values.len(), failed), (12, 3));
}

fn killed_idle_worker_is_replaced() {
    let pool = Pool::new(2).unwrap();
    pool.apply(square, 1).unwrap();
    let before = pool.worker_pids();
    before.iter().for_each(|pid| kill(*pid));
    let replaced = || {
        let now = pool.worker_pids();
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    };
    assert!(wait_until(DEADLOCK, replaced), "still {:?}", pool.worker_pids());
    assert_eq!(pool.apply(square, 9).unwrap(), 81);
}

/// Kills a worker of the pool now and then while `work` runs. Returns how many.
fn with_killer<R>(pool: &Pool, work: impl FnOnce() -> R) -> (R, u32) {
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            let mut killed = 0;
            while killed < KILLS
                && stopped.recv_timeout(KILL_EVERY) == Err(mpsc::RecvTimeoutError::Timeout)
            {
                let pids = pool.worker_pids();
                if !pids.is_empty() {
                    kill(pids[(killed as usize * 7) % pids.len()]);
                    killed += 1;
                }
            }
            killed
        });
        let result = work();
        drop(stop);
        (result, killer.join().unwrap())
    })
}

/// Tasks of about 150 µs each: some seconds of work for two workers.
const SPREE: u64 = 20_000;

fn map_survives_a_killing_spree_with_retries() {
    let pool = Pool::builder().workers(2).retries(KILLS).build().unwrap();
    let (values, killed) = with_killer(&pool, || pool.map_chunked(1, work, 0..SPREE));
    assert!(killed > 10, "only {killed} workers were killed");
    assert_eq!(values.unwrap(), (0..SPREE).map(square).collect::<Vec<_>>());
}

fn pool_goes_on_through_a_killing_spree_without_retries() {
    let pool = Pool::new(2).unwrap();
    let tasks: Vec<Task<u64>> = (0..SPREE / 4).map(|x| pool.submit(work, x).unwrap()).collect();
    let (lost, killed) = with_killer(&pool, || {
        let mut lost = 0;
        for (x, task) in (0..).zip(tasks) {
            match task.get() {
                Ok(value) => assert_eq!(value, x * x),
                Err(TaskError::WorkerDied(_)) => lost += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        lost
    });
    assert!(lost <= killed, "{lost} tasks were lost to {killed} deaths");
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

fn imap_unordered_survives_a_killing_spree() {
    let pool = Pool::builder().workers(2).retries(KILLS).build().unwrap();
    let (mut values, _) = with_killer(&pool, || {
        pool.imap_unordered(work, 0..SPREE / 4).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    });
    values.sort_unstable();
    assert_eq!(values, (0..SPREE / 4).map(square).collect::<Vec<_>>());
}

fn large_tasks_survive_a_killing_spree() {
    let pool = Pool::builder().workers(2).retries(KILLS).build().unwrap();
    let texts = (0..500).map(|n| format!("{n} ").repeat(20_000));
    let expected: Vec<String> = texts.clone().map(|text| text.to_uppercase()).collect();
    let (values, _) =
        with_killer(&pool, || pool.map_chunked(1, |text: String| text.to_uppercase(), texts));
    assert!(values.unwrap() == expected, "a text came back changed");
}

fn closed_pool_finishes_although_workers_die() {
    let pool = Pool::builder().workers(2).retries(KILLS).build().unwrap();
    let tasks: Vec<Task<u64>> = (0..2000).map(|x| pool.submit(work, x).unwrap()).collect();
    pool.close().unwrap();
    let (joined, _) = with_killer(&pool, || pool.join_timeout(DEADLOCK));
    joined.unwrap();
    for (x, task) in (0..).zip(tasks) {
        assert_eq!(task.get().unwrap(), x * x);
    }
}

fn stopped_workers_do_not_keep_the_pool_from_ending() {
    let pool = Pool::new(2).unwrap();
    pool.apply(square, 1).unwrap();
    for pid in pool.worker_pids() {
        procession_testing::process::stop(pid);
    }
    let task = pool.submit(square, 2).unwrap();
    drop(pool);
    assert!(matches!(task.get(), Err(TaskError::Terminated)));
}

fn main_that_kills_every_worker_at_once_gets_its_values() {
    let pool = Pool::builder().workers(4).retries(KILLS).build().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5 {
                wait_until(Duration::from_millis(50), || done.load(Ordering::Relaxed));
                pool.worker_pids().into_iter().for_each(kill);
            }
        });
        let values = pool.map_chunked(1, work, 0..3000);
        done.store(true, Ordering::Relaxed);
        assert_eq!(values.unwrap(), (0..3000).map(square).collect::<Vec<_>>());
    });
    pool.close().unwrap();
    assert!(matches!(pool.apply(square, 1), Err(TaskError::Pool(PoolError::Closed))));
}
