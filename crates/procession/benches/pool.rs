//! Tasks that do next to nothing, on two workers: what a task costs by itself.

use std::time::Instant;

use procession::pool::Pool;
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
    report.finish();
}

fn successor(number: u64) -> u64 {
    number + 1
}
