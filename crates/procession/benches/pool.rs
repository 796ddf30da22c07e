//! What a task costs by itself, what a second worker brings, and what a pool costs by itself.

use std::time::Instant;

use procession::pool::Pool;
use procession::process::StartMethod;
use procession_testing::Report;

const WORKERS: usize = 2;

fn main() {
    procession::init();
    let pool = Pool::new(WORKERS).expect("the pool starts");
    let mut report = Report::new("pool");

    let count = report.scaled(200_000);
    for (name, chunk) in [("map, one item per task", 1), ("map, 64 items per task", 64)] {
        report.measure(name, "items", || {
            let start = Instant::now();
            let results = pool.map_chunked(chunk, successor, 0..count).expect("no task fails");
            let time = start.elapsed();
            assert!(results.into_iter().eq(1..=count), "results come in order");
            (count, time)
        });
    }

    report.measure("imap_unordered", "tasks", || {
        let start = Instant::now();
        let results = pool.imap_unordered(successor, 0..count).expect("the pool is open");
        let sum: u64 = results.map(|result| result.expect("no task fails")).sum();
        let time = start.elapsed();
        assert_eq!(sum, (1..=count).sum(), "every result comes once");
        (count, time)
    });

    let count = report.scaled(50_000);
    report.measure("apply, there and back", "calls", || {
        let start = Instant::now();
        for number in 0..count {
            assert_eq!(pool.apply(successor, number).expect("no task fails"), number + 1);
        }
        (count, start.elapsed())
    });

    // Its thread would forbid to fork.
    drop(pool);
    let calls = report.scaled(50);
    for workers in [1, 2] {
        let pool = Pool::new(workers).expect("the pool starts");
        pool.map_chunked(1, count_primes, [10; 8]).expect("no task fails");
        report.measure(format!("processor-bound tasks, workers: {workers}"), "tasks", || {
            let start = Instant::now();
            let items = std::iter::repeat_n(20_000, calls as usize);
            pool.map_chunked(1, count_primes, items).expect("no task fails");
            (calls, start.elapsed())
        });
    }

    let pools = report.scaled(20);
    for (name, method) in [("spawn", StartMethod::Spawn), ("fork", StartMethod::Fork)] {
        report.measure(format!("pool of two, one task, join: {name}"), "pools", || {
            let start = Instant::now();
            for _ in 0..pools {
                let pool = Pool::builder().workers(WORKERS).start_method(method);
                let pool = pool.build().expect("the pool starts");
                assert_eq!(pool.apply(successor, 1).expect("no task fails"), 2);
                pool.close().expect("it is this process's pool");
                pool.join().expect("it is closed");
            }
            (pools, start.elapsed())
        });
    }
    report.finish();
}

/// Keeps a processor busy for a while.
fn count_primes(limit: u64) -> usize {
    (2..limit)
        .filter(|number| (2..=number.isqrt()).all(|factor| !number.is_multiple_of(factor)))
        .count()
}

fn successor(number: u64) -> u64 {
    number + 1
}
