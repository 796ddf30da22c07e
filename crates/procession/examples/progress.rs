//! Looks for prime numbers with a pool of worker processes and shows how far it has come.
//!
//! `cargo run --release --example progress -- [LIMIT]`
//!
//! Shows what a pool of this crate does besides calling functions: values as they come, an initializer, a
//! task that is taken back and one that takes too long, and the numbers that the pool keeps.
#![allow(clippy::print_stdout, reason = "what is found is what this program is for")]

use std::env;
use std::error::Error;
use std::ops::Range;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressIterator, ProgressStyle};
use procession::pool::{Pool, TaskError};

/// Numbers that one task looks at.
const STEP: u64 = 20_000;

/// The primes that every other number is tried by, in each worker.
static SMALL_PRIMES: OnceLock<Vec<u64>> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    procession::init(); // a worker starts this program again and does not get past this line
    let limit = env::args().nth(1).map_or(Ok(2_000_000), |limit| limit.parse())?;
    let pool = Pool::builder().initializer(find_small_primes, limit).build()?;

    let ranges = (0..limit).step_by(STEP as usize).map(|start| start..limit.min(start + STEP));
    let bar = ProgressBar::new(limit.div_ceil(STEP));
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} tasks, {eta} left")?);
    let mut primes = 0;
    for count in pool.imap_unordered(count_primes, ranges)?.progress_with(bar) {
        primes += count?;
    }
    println!("{primes} primes below {limit}");

    let hanging = pool.timeout(Duration::from_millis(100)).apply(hang, ());
    assert!(matches!(hanging, Err(TaskError::TimedOut(_))), "{hanging:?}");
    let unwanted = pool.submit(hang, ())?;
    assert!(unwanted.cancel()?, "it is not done");

    let stats = pool.stats()?;
    println!(
        "{} tasks done, {} timed out, {} cancelled",
        stats.done, stats.timed_out, stats.cancelled
    );
    for worker in stats.workers {
        println!("{} (pid {}): busy for {:?}", worker.name, worker.pid, worker.busy);
    }
    Ok(())
}

/// Gets a worker ready: finds the primes up to the root of the limit.
fn find_small_primes(limit: u64) {
    let root = (limit as f64).sqrt() as u64 + 1;
    let mut primes: Vec<u64> = Vec::new();
    for number in 2..=root {
        if primes.iter().all(|prime| !u64::is_multiple_of(number, *prime)) {
            primes.push(number);
        }
    }
    SMALL_PRIMES.get_or_init(|| primes);
}

fn count_primes(range: Range<u64>) -> usize {
    let small = SMALL_PRIMES.get().expect("the initializer has run");
    let is_prime = |number: &u64| {
        let mut tried = small.iter().take_while(|prime| *prime * *prime <= *number);
        *number > 1 && tried.all(|prime| !number.is_multiple_of(*prime))
    };
    range.filter(is_prime).count()
}

fn hang(_: ()) {
    loop {
        thread::park();
    }
}
