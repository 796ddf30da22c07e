//! Tasks that are called back: one by one, with the first failure, with their pool.

use std::collections::BTreeSet;
use std::time::Duration;

use procession::channel::Queue;
use procession::pool::{Pool, Task, TaskError};
use procession_testing::process::wait_until;

use crate::{DEADLOCK, await_begin, block_for_ever, busy_for, hold, pool, square};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    queued_task_that_is_cancelled_is_never_run,
    running_task_that_is_cancelled_loses_its_worker,
    task_that_is_done_cannot_be_cancelled,
    thousands_of_cancelled_tasks_are_never_run,
    cancelling_at_any_moment_gives_one_outcome,
    cancelled_task_is_not_run_again,
    map_that_fails_fast_ends_with_the_first_failure,
    map_without_fail_fast_runs_every_item,
    closed_pool_with_cancelled_tasks_ends,
];

/// Says that it was run.
fn note((said, number): (Queue<u32>, u32)) {
    said.put(&number).unwrap();
}

fn queued_task_that_is_cancelled_is_never_run() {
    let pool = Pool::new(1).unwrap();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let first = pool.submit(hold, gate.clone()).unwrap();
    await_begin(&first);
    let before = pool.worker_pids();
    let cancelled = pool.submit(note, (said.clone(), 1)).unwrap();
    let kept = pool.submit(note, (said.clone(), 2)).unwrap();
    assert!(cancelled.cancel().unwrap());
    assert!(cancelled.is_ready(), "the outcome is there at once");
    assert!(!cancelled.cancel().unwrap(), "once is enough");
    assert!(matches!(cancelled.get(), Err(TaskError::Cancelled)));
    gate.put(&0).unwrap();
    kept.get().unwrap();
    first.get().unwrap();
    assert_eq!((said.get().unwrap(), said.len()), (2, 0));
    assert_eq!(pool.worker_pids(), before, "no worker had to go");
    assert_eq!(pool.stats().unwrap().cancelled, 1);
}

fn running_task_that_is_cancelled_loses_its_worker() {
    let pool = pool();
    let running = pool.submit(block_for_ever, ()).unwrap();
    let other = pool.submit(square, 4).unwrap();
    await_begin(&running);
    assert!(running.cancel().unwrap());
    assert!(matches!(running.get_timeout(Duration::ZERO), Err(TaskError::Cancelled)));
    assert_eq!(other.get().unwrap(), 16);
    assert_eq!(pool.map(square, 0..100).unwrap()[99], 99 * 99);
    assert!(wait_until(DEADLOCK, || pool.worker_pids().len() == 2));
}

fn task_that_is_done_cannot_be_cancelled() {
    let pool = pool();
    let task = pool.submit(square, 4).unwrap();
    assert!(task.wait_timeout(DEADLOCK));
    assert!(!task.cancel().unwrap());
    assert_eq!(task.get().unwrap(), 16);
}

fn thousands_of_cancelled_tasks_are_never_run() {
    let pool = pool();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let holding: Vec<_> = (0..2).map(|_| pool.submit(hold, gate.clone()).unwrap()).collect();
    holding.iter().for_each(await_begin);
    let tasks: Vec<Task<()>> =
        (0..5000).map(|number| pool.submit(note, (said.clone(), number)).unwrap()).collect();
    let (odd, even): (Vec<_>, Vec<_>) = (0..5000).zip(tasks).partition(|(n, _)| n % 2 == 1);
    for (_, task) in &odd {
        assert!(task.cancel().unwrap());
    }
    holding.iter().for_each(|_| gate.put(&0).unwrap());
    for (_, task) in even {
        task.get().unwrap();
    }
    for (_, task) in odd {
        assert!(matches!(task.get(), Err(TaskError::Cancelled)));
    }
    let mut ran = BTreeSet::new();
    while let Ok(number) = said.try_get() {
        ran.insert(number);
    }
    assert!(ran.iter().eq((0..5000).step_by(2).collect::<Vec<u32>>().iter()), "{}", ran.len());
}

/// The race of the one who cancels with the worker that is about to be done.
fn cancelling_at_any_moment_gives_one_outcome() {
    let pool = pool();
    let said: Queue<u32> = Queue::new().unwrap();
    let (mut cancelled, mut done) = (0, 0);
    for round in 0..400_u32 {
        let task = pool
            .submit(
                |(said, round): (Queue<u32>, u32)| {
                    busy_for(u64::from(round % 40) * 5);
                    said.put(&round).unwrap();
                    round
                },
                (said.clone(), round),
            )
            .unwrap();
        busy_for(u64::from(round % 23) * 9);
        let was_cancelled = task.cancel().unwrap();
        match task.get() {
            Ok(value) => {
                assert!(!was_cancelled && value == round);
                done += 1;
            }
            Err(TaskError::Cancelled) => {
                assert!(was_cancelled);
                cancelled += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((cancelled + done), 400);
    assert!(cancelled > 0, "not one was cancelled");
    let stats = pool.stats().unwrap();
    assert_eq!((stats.cancelled, stats.deaths, stats.lost), (cancelled, 0, 0));
    assert_eq!(pool.map(square, 0..1000).unwrap().len(), 1000);
}

fn cancelled_task_is_not_run_again() {
    let pool = Pool::builder().workers(1).retries(100).build().unwrap();
    let begun = Queue::new().unwrap();
    let task = pool
        .submit(
            |begun: Queue<u8>| {
                begun.put(&1).unwrap();
                block_for_ever(());
            },
            begun.clone(),
        )
        .unwrap();
    begun.get().unwrap();
    assert!(task.cancel().unwrap());
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    assert!(begun.is_empty(), "the cancelled task was run again");
    assert_eq!(pool.stats().unwrap().retries, 0);
}

fn odd_panics((said, x): (Queue<u32>, u32)) -> u32 {
    said.put(&x).unwrap();
    assert!(x != 3, "{x} is not wanted");
    busy_for(200);
    x
}

fn map_that_fails_fast_ends_with_the_first_failure() {
    let pool = pool();
    for chunk in [0, 1, 2] {
        let said: Queue<u32> = Queue::new().unwrap();
        let items = (0..20_000).map(|x| (said.clone(), x));
        match pool.fail_fast().chunk(chunk).map(odd_panics, items) {
            Err(TaskError::Panicked { message, .. }) => assert_eq!(message, "3 is not wanted"),
            other => panic!("{other:?}"),
        }
        // Whatever was called back comes back before this is taken.
        pool.apply(square, 1).unwrap();
        assert!(said.len() < 19_000, "{} of 20000 were run after the failure", said.len());
    }
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100, "the pool goes on");
}

fn map_without_fail_fast_runs_every_item() {
    let pool = pool();
    let said: Queue<u32> = Queue::new().unwrap();
    let items: Vec<_> = (0..500).map(|x| (said.clone(), x)).collect();
    assert!(matches!(pool.map(odd_panics, items), Err(TaskError::Panicked { .. })));
    assert_eq!(said.len(), 500);
}

fn closed_pool_with_cancelled_tasks_ends() {
    let pool = pool();
    let tasks: Vec<_> = (0..50).map(|_| pool.submit(block_for_ever, ()).unwrap()).collect();
    pool.close().unwrap();
    for task in &tasks {
        assert!(task.cancel().unwrap());
    }
    pool.join_timeout(DEADLOCK).expect("the pool did not end");
    assert_eq!(pool.worker_pids(), []);
}
