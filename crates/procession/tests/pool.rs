//! Pools: what they return, in which order, and how they end.
#![allow(unsafe_code)] // `fork` and `_exit`, to be the child of a process with threads.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use procession::channel::Queue;
use procession::pool::{Pool, PoolError, Task, TaskError};
use procession::process::{self, StartMethod};
use procession_testing::process::{is_running, kill, wait_until};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            map_keeps_the_order,
            map_of_nothing_is_nothing,
            map_takes_items_of_unknown_number,
            map_reports_the_first_item_without_a_value,
            apply_returns_the_value,
            tasks_are_done_in_any_order_and_read_in_any,
            value_can_be_read_again,
            task_is_not_ready_before_it_is_done,
            dropped_task_is_run_nevertheless,
            imap_unordered_gives_every_value_once,
            imap_unordered_draws_no_more_than_its_window,
            imap_unordered_goes_on_after_a_panic,
            imap_unordered_packs_items_into_tasks,
            forked_workers_run_tasks,
            large_arguments_and_values_travel,
            shared_objects_travel_in_arguments_and_values,
            more_functions_than_are_remembered,
            many_threads_use_one_pool,
            panic_comes_back_with_message_and_place,
            argument_that_does_not_serialize_submits_nothing,
            value_that_does_not_serialize_fails_its_task,
            pool_without_workers_is_refused,
            closed_pool_finishes_its_tasks_and_takes_no_more,
            join_before_close_is_refused,
            join_timeout_gives_up,
            terminated_pool_fails_what_is_not_done,
            dropped_pool_ends_busy_workers,
            idle_workers_use_no_cpu,
            forked_child_cannot_use_the_pool,
            workers_die_with_the_owner
        ],
    )
}

fn square(x: u64) -> u64 {
    x * x
}

fn halve(x: u32) -> u32 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x / 2
}

/// Blocks until the queue has a message.
fn hold((gate, value): (Queue<u8>, u32)) -> u32 {
    gate.get().unwrap();
    value
}

fn block_for_ever(_: ()) {
    loop {
        thread::park();
    }
}

fn worker_pid(_: ()) -> u32 {
    std::process::id()
}

fn pool() -> Pool {
    Pool::new(2).unwrap()
}

fn map_keeps_the_order() {
    let pool = pool();
    let expected: Vec<u64> = (0..10_000).map(square).collect();
    assert_eq!(pool.map(square, 0..10_000).unwrap(), expected);
    for chunk in [1, 7, 20_000] {
        assert_eq!(pool.map_chunked(chunk, square, 0..10_000).unwrap(), expected, "chunk {chunk}");
    }
}

fn map_of_nothing_is_nothing() {
    assert_eq!(pool().map(square, []).unwrap(), []);
}

fn map_takes_items_of_unknown_number() {
    let odd = (0..100).filter(|x| x % 2 == 1);
    assert_eq!(pool().map(square, odd).unwrap().len(), 50);
}

fn map_reports_the_first_item_without_a_value() {
    let pool = pool();
    match pool.map_chunked(2, halve, [2, 4, 5, 6, 7]) {
        Err(TaskError::Panicked { message, .. }) => assert_eq!(message, "5 is odd"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.map(halve, [8]).unwrap(), [4], "the pool must go on");
}

fn apply_returns_the_value() {
    let pool = pool();
    assert_eq!(pool.apply(square, 12).unwrap(), 144);
    assert_eq!(
        pool.apply(|(a, b): (String, u8)| format!("{a}{b}"), ("x".into(), 7)).unwrap(),
        "x7"
    );
    pool.apply(|()| (), ()).unwrap();
}

fn tasks_are_done_in_any_order_and_read_in_any() {
    let pool = pool();
    let tasks: Vec<Task<u64>> = (0..200).map(|x| pool.submit(square, x).unwrap()).collect();
    for (x, task) in tasks.into_iter().enumerate().rev() {
        assert_eq!(task.get().unwrap(), (x * x) as u64);
    }
}

fn value_can_be_read_again() {
    let task = pool().submit(square, 3);
    // The pool is gone: the value was there before, or the task was not done.
    let task = task.unwrap();
    let first = task.get_timeout(DEADLOCK);
    let second = task.get_timeout(Duration::ZERO);
    match (first, second) {
        (Ok(Some(first)), Ok(Some(second))) => assert_eq!(first, second),
        (Err(TaskError::Terminated), Err(TaskError::Terminated)) => {}
        other => panic!("{other:?}"),
    }
}

fn task_is_not_ready_before_it_is_done() {
    let pool = pool();
    let gate = Queue::new().unwrap();
    let task = pool.submit(hold, (gate.clone(), 5)).unwrap();
    assert!(!task.is_ready());
    assert!(!task.wait_timeout(Duration::ZERO));
    assert!(task.get_timeout(Duration::from_millis(10)).unwrap().is_none());
    gate.put(&0).unwrap();
    assert!(task.wait_timeout(DEADLOCK), "the task was never done");
    assert!(task.is_ready());
    assert_eq!(task.get().unwrap(), 5);
}

fn dropped_task_is_run_nevertheless() {
    let pool = pool();
    let said = Queue::new().unwrap();
    drop(pool.submit(|said: Queue<u8>| said.put(&1).unwrap(), said.clone()).unwrap());
    assert_eq!(said.get().unwrap(), 1);
    pool.apply(square, 2).unwrap();
}

fn imap_unordered_gives_every_value_once() {
    let pool = pool();
    let values: Result<BTreeSet<u64>, _> = pool.imap_unordered(square, 0..5000).unwrap().collect();
    assert_eq!(values.unwrap(), (0..5000).map(square).collect());
    assert_eq!(pool.imap_unordered(square, []).unwrap().count(), 0);
}

fn imap_unordered_draws_no_more_than_its_window() {
    let pool = pool();
    let drawn = Cell::new(0);
    let endless = std::iter::repeat_with(|| {
        drawn.set(drawn.get() + 1);
        7
    });
    let mut values = pool.imap_unordered(square, endless).unwrap();
    assert_eq!(drawn.get(), 0, "nothing was asked for");
    for taken in 1..=100 {
        assert_eq!(values.next().unwrap().unwrap(), 49);
        assert!(drawn.get() <= taken + 4 * pool.workers(), "drew {} for {taken}", drawn.get());
    }
}

fn imap_unordered_goes_on_after_a_panic() {
    let pool = pool();
    let (good, bad): (Vec<_>, Vec<_>) =
        pool.imap_unordered(halve, 0..100).unwrap().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (50, 50));
}

fn imap_unordered_packs_items_into_tasks() {
    let pool = Pool::builder().workers(2).chunk(7).build().unwrap();
    let values: Result<BTreeSet<u64>, _> = pool.imap_unordered(square, 0..100).unwrap().collect();
    assert_eq!(values.unwrap(), (0..100).map(square).collect());
}

fn forked_workers_run_tasks() {
    let pool = Pool::builder().workers(2).start_method(StartMethod::Fork).build().unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(square).collect::<Vec<_>>());
    // The one that replaces it cannot be forked any more.
    kill(pool.apply(worker_pid, ()).unwrap());
    assert_eq!(pool.map(square, 0..100).unwrap(), (0..100).map(square).collect::<Vec<_>>());
}

fn large_arguments_and_values_travel() {
    let pool = pool();
    let megabytes: Vec<u32> = (0..1_000_000).collect();
    let doubled = pool.apply(|x: Vec<u32>| x.iter().map(|x| x * 2).collect::<Vec<_>>(), megabytes);
    assert_eq!(doubled.unwrap()[999_999], 1_999_998);
    let lengths =
        pool.map_chunked(1, |text: String| text.len(), (0..50).map(|n| "x".repeat(n * 1000)));
    assert_eq!(lengths.unwrap(), (0..50).map(|n| n * 1000).collect::<Vec<_>>());
}

fn shared_objects_travel_in_arguments_and_values() {
    let pool = pool();
    let queue = Queue::new().unwrap();
    let queues = vec![queue.clone(); 10];
    pool.map_chunked(1, |queue: Queue<u32>| queue.put(&7).unwrap(), queues).unwrap();
    assert_eq!(queue.len(), 10);
    let made = pool.apply(
        |value: u32| {
            let queue = Queue::new().unwrap();
            queue.put(&value).unwrap();
            queue
        },
        8,
    );
    assert_eq!(made.unwrap().get().unwrap(), 8, "the queue outlives its maker's handle");
}

fn more_functions_than_are_remembered() {
    /// One function for each `N`.
    fn add<const N: u64>(x: u64) -> u64 {
        x + N
    }
    macro_rules! add_all {
        ($pool:expr, $($n:literal)*) => { $( assert_eq!($pool.apply(add::<$n>, 1).unwrap(), 1 + $n); )* };
    }
    let pool = pool();
    for _ in 0..3 {
        add_all!(pool, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29
            30 31 32 33 34 35 36 37 38 39);
    }
}

fn many_threads_use_one_pool() {
    let pool = pool();
    thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..50 {
                    let x = thread * 100 + round;
                    assert_eq!(pool.apply(square, x).unwrap(), x * x);
                }
                assert_eq!(pool.map(square, 0..100).unwrap()[99], 99 * 99);
                assert_eq!(pool.imap_unordered(square, 0..50).unwrap().count(), 50);
            });
        }
    });
}

fn panic_comes_back_with_message_and_place() {
    match pool().apply(halve, 3) {
        Err(TaskError::Panicked { message, location: Some(place) }) => {
            assert_eq!(message, "3 is odd");
            assert!(place.contains("pool.rs:"), "{place}");
        }
        other => panic!("{other:?}"),
    }
}

/// Serializes only as long as it is small.
#[derive(Debug, Deserialize)]
struct Shy(u32);

impl Serialize for Shy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 < 10 { self.0.serialize(serializer) } else { Err(S::Error::custom("too big")) }
    }
}

fn argument_that_does_not_serialize_submits_nothing() {
    let pool = pool();
    let seen = Queue::new().unwrap();
    let items = [1, 2, 50].map(|x| (Shy(x), seen.clone()));
    let result = pool.map_chunked(1, |(_, seen): (Shy, Queue<u8>)| seen.put(&0).unwrap(), items);
    assert!(matches!(result, Err(TaskError::Encode { .. })), "{result:?}");
    pool.close().unwrap();
    pool.join().unwrap();
    assert!(seen.is_empty(), "a task of the refused map was run");
}

fn value_that_does_not_serialize_fails_its_task() {
    let pool = pool();
    let values: Vec<_> = pool.imap_unordered(Shy, [1, 50, 2]).unwrap().collect();
    let failed: Vec<_> = values.iter().filter_map(|value| value.as_ref().err()).collect();
    assert!(matches!(failed[..], [TaskError::Unsendable { .. }]), "{failed:?}");
}

fn pool_without_workers_is_refused() {
    assert!(matches!(Pool::new(0), Err(PoolError::NoWorkers)));
}

fn closed_pool_finishes_its_tasks_and_takes_no_more() {
    let pool = pool();
    let tasks: Vec<Task<u64>> = (0..1000).map(|x| pool.submit(square, x).unwrap()).collect();
    pool.close().unwrap();
    assert!(matches!(pool.apply(square, 1), Err(TaskError::Pool(PoolError::Closed))));
    pool.join().unwrap();
    assert_eq!(pool.worker_pids(), []);
    for (x, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.get().unwrap(), (x * x) as u64);
    }
}

fn join_before_close_is_refused() {
    assert!(matches!(pool().join(), Err(PoolError::NotClosed)));
}

fn join_timeout_gives_up() {
    let pool = pool();
    let gate = Queue::new().unwrap();
    let task = pool.submit(hold, (gate.clone(), 1)).unwrap();
    pool.close().unwrap();
    assert!(matches!(pool.join_timeout(Duration::from_millis(20)), Err(PoolError::TimedOut)));
    gate.put(&0).unwrap();
    pool.join_timeout(DEADLOCK).unwrap();
    assert_eq!(task.get().unwrap(), 1);
}

fn terminated_pool_fails_what_is_not_done() {
    let pool = pool();
    let done = pool.submit(square, 5).unwrap();
    assert!(done.wait_timeout(DEADLOCK));
    let tasks: Vec<Task<()>> = (0..10).map(|_| pool.submit(block_for_ever, ()).unwrap()).collect();
    pool.terminate().unwrap();
    assert_eq!(done.get().unwrap(), 25);
    for task in tasks {
        assert!(matches!(task.get(), Err(TaskError::Terminated)));
    }
    assert!(matches!(pool.apply(square, 1), Err(TaskError::Pool(PoolError::Closed))));
    pool.terminate().unwrap();
    pool.join().unwrap();
}

fn dropped_pool_ends_busy_workers() {
    let pool = pool();
    let task = pool.submit(block_for_ever, ()).unwrap();
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 2);
    drop(pool);
    assert!(!pids.into_iter().any(is_running), "a worker outlived its pool");
    assert!(matches!(task.get(), Err(TaskError::Terminated)));
}

/// Time that a process has spent on the CPU so far, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn idle_workers_use_no_cpu() {
    let pool = Pool::new(64).unwrap();
    let mut pids: Vec<u32> = pool.worker_pids();
    pids.push(std::process::id());
    // Every worker has had a task, so all are up.
    let seen =
        || pool.map_chunked(1, worker_pid, [(); 640]).unwrap().into_iter().collect::<BTreeSet<_>>();
    assert!(wait_until(DEADLOCK, || seen().len() > 32), "most workers never came up");
    let used = || pids.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    // Those that had no task yet may still be starting. What is measured is a quiet second.
    let quiet = (0..10).any(|_| {
        let before = used();
        wait_until(Duration::from_secs(1), || false);
        used() - before <= 8
    });
    assert!(quiet, "64 idle workers use the CPU");
}

fn forked_child_cannot_use_the_pool() {
    let pool = pool();
    let task = pool.submit(square, 2).unwrap();
    // SAFETY: the child only looks at the pool, which does not lock or allocate much, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(pool.close(), Err(PoolError::WrongProcess { .. }))
            && matches!(
                pool.apply(square, 2),
                Err(TaskError::Pool(PoolError::WrongProcess { .. }))
            )
            && matches!(task.get(), Err(TaskError::Pool(PoolError::WrongProcess { .. })));
        drop(pool);
        // SAFETY: ends the child without running what the parent will run.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child could use the pool");
    assert_eq!(task.get().unwrap(), 4);
    assert_eq!(pool.apply(square, 3).unwrap(), 9, "the child ended the workers");
}

fn own_a_pool(pids: Queue<u32>) {
    let pool = pool();
    pool.worker_pids().into_iter().for_each(|pid| pids.put(&pid).unwrap());
    pool.apply(block_for_ever, ()).unwrap();
}

fn workers_die_with_the_owner() {
    let pids = Queue::new().unwrap();
    let owner = process::spawn(own_a_pool, pids.clone()).unwrap();
    let workers = [pids.get().unwrap(), pids.get().unwrap()];
    owner.kill().unwrap();
    assert!(owner.join().is_err());
    let gone = || !workers.into_iter().any(is_running);
    assert!(wait_until(DEADLOCK, gone), "a worker outlived the owner of its pool");
}
