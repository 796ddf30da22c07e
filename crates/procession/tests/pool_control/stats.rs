//! The numbers of a pool.

use procession::channel::Queue;
use procession::pool::{Pool, WorkerState};
use procession_testing::process::{is_running, kill, wait_until};

use crate::{DEADLOCK, SHORT, await_begin, block_for_ever, fail, hold, square};

pub(crate) const TESTS: &[(&str, fn())] =
    procession_testing::tests![stats_say_what_the_pool_does, stats_count_every_end_of_a_task_once,];

fn stats_say_what_the_pool_does() {
    let pool = Pool::builder().workers(2).name("counter").build().unwrap();
    pool.map_chunked(1, square, 0..50).unwrap();
    let gate = Queue::new().unwrap();
    let held: Vec<_> = (0..2).map(|_| pool.submit(hold, gate.clone()).unwrap()).collect();
    held.iter().for_each(await_begin);
    let waiting: Vec<_> = (0..5).map(|x| pool.submit(square, x).unwrap()).collect();
    let stats = pool.stats().unwrap();
    assert_eq!((stats.done, stats.failed, stats.running, stats.waiting), (50, 0, 2, 5));
    assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 50);
    for worker in &stats.workers {
        assert_eq!(worker.state, WorkerState::Running);
        assert!(worker.name.starts_with("counter-") && is_running(worker.pid));
        let since = worker.since.unwrap();
        let later = || pool.stats().unwrap().workers.iter().all(|w| w.since > Some(since));
        assert!(wait_until(DEADLOCK, later), "time stands still");
        assert!(worker.busy >= since);
    }
    held.iter().for_each(|_| gate.put(&0).unwrap());
    waiting.into_iter().for_each(|task| assert!(task.get().is_ok()));
    let idle = || {
        let stats = pool.stats().unwrap();
        stats.done == 57 && stats.workers.iter().all(|worker| worker.state == WorkerState::Idle)
    };
    assert!(wait_until(DEADLOCK, idle), "{:?}", pool.stats());
}

fn stats_count_every_end_of_a_task_once() {
    let pool = Pool::builder().workers(2).build().unwrap();
    pool.map_chunked(1, square, 0..10).unwrap();
    assert!(pool.apply(fail, ()).is_err());
    assert!(pool.apply(|()| kill(std::process::id()), ()).is_err());
    assert!(pool.timeout(SHORT).apply(block_for_ever, ()).is_err());
    let task = pool.submit(block_for_ever, ()).unwrap();
    assert!(task.cancel().unwrap());
    pool.map_chunked(1, square, 0..10).unwrap();
    let settled = || {
        let stats = pool.stats().unwrap();
        (stats.done, stats.failed, stats.lost, stats.timed_out, stats.cancelled) == (20, 1, 1, 1, 1)
            && (stats.deaths, stats.waiting, stats.running) == (1, 0, 0)
    };
    assert!(wait_until(DEADLOCK, settled), "{:?}", pool.stats());
}
