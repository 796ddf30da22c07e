//! Tasks that take too long.

use std::time::Instant;

use procession::channel::Queue;
use procession::pool::{Pool, TaskError};
use procession_testing::process::{is_running, kill, wait_until};

use crate::{AMPLE, DEADLOCK, SHORT, await_begin, block_for_ever, busy_for, hold, pool, square};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    task_that_takes_too_long_fails_alone,
    timeout_counts_from_when_the_task_begins,
    timeout_of_a_map_is_for_each_item,
    timed_task_is_run_again_after_a_death,
    timed_task_that_is_done_in_time_leaves_no_trace,
];

/// Blocks for ever at 7.
fn square_or_block(x: u64) -> u64 {
    if x == 7 {
        block_for_ever(());
    }
    x * x
}

fn task_that_takes_too_long_fails_alone() {
    let pool = pool();
    let timed = pool.timeout(SHORT);
    let tasks: Vec<_> = (0..20).map(|x| pool.submit(square, x).unwrap()).collect();
    let begun = Instant::now();
    let late = timed.submit(block_for_ever, ()).unwrap();
    match late.get() {
        Err(TaskError::TimedOut(late)) => {
            assert_eq!((late.timeout, late.task), (SHORT, 0));
            assert!(late.name.starts_with("worker-"), "{late}");
            assert!(begun.elapsed() >= SHORT, "it was ended too early");
            assert!(wait_until(DEADLOCK, || !is_running(late.pid)), "the worker goes on");
        }
        other => panic!("{other:?}"),
    }
    for (x, task) in (0..20).zip(tasks) {
        assert_eq!(task.get().unwrap(), x * x);
    }
    let replaced = || pool.worker_pids().len() == 2;
    assert!(wait_until(DEADLOCK, replaced), "the worker was not replaced");
    assert_eq!(pool.stats().unwrap().deaths, 0, "the pool's own doing is no death");
}

fn timeout_counts_from_when_the_task_begins() {
    let pool = Pool::new(1).unwrap();
    let gate = Queue::new().unwrap();
    let first = pool.submit(hold, gate.clone()).unwrap();
    await_begin(&first);
    let waiting = pool.timeout(AMPLE).submit(square, 3).unwrap();
    // In the queue for longer than it may run.
    assert!(!waiting.wait_timeout(AMPLE + SHORT));
    gate.put(&0).unwrap();
    assert_eq!(waiting.get().unwrap(), 9);
}

fn timeout_of_a_map_is_for_each_item() {
    let pool = pool();
    let items: Vec<u64> = (0..20).collect();
    let values: Vec<_> = pool.timeout(AMPLE).imap(square_or_block, items).unwrap().collect();
    for (x, value) in values.iter().enumerate() {
        match value {
            Ok(value) => assert_eq!(*value, (x * x) as u64),
            Err(TaskError::TimedOut(_)) => assert_eq!(x, 7),
            Err(other) => panic!("{other:?}"),
        }
    }
    let whole = pool.timeout(SHORT).map(square_or_block, 0..20);
    assert!(matches!(whole, Err(TaskError::TimedOut(_))), "{whole:?}");
}

fn timed_task_is_run_again_after_a_death() {
    let pool = Pool::builder().workers(1).retries(3).timeout(DEADLOCK).build().unwrap();
    let begun: Queue<u8> = Queue::new().unwrap();
    let die_twice = |begun: Queue<u8>| {
        begun.put(&1).unwrap();
        if begun.len() < 3 {
            kill(std::process::id());
        }
    };
    pool.apply(die_twice, begun.clone()).unwrap();
    assert_eq!(begun.len(), 3);
}

fn timed_task_that_is_done_in_time_leaves_no_trace() {
    let pool = pool();
    let timed = pool.timeout(AMPLE);
    let before = pool.worker_pids();
    for x in 0..200 {
        assert_eq!(timed.apply(square, x).unwrap(), x * x);
    }
    // Longer than the timeout, in tasks that have none.
    let longer = (AMPLE + SHORT).as_micros() as u64;
    let untimed = pool.submit(busy_for, longer).unwrap();
    assert_eq!(untimed.get().unwrap(), longer);
    assert_eq!(pool.worker_pids(), before);
}
