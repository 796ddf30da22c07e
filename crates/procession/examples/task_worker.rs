//! Counts primes for a master in Python: `examples/python/task_master.py`.
//!
//! `cargo run --release --example task_worker -- PORT [HOST] [KEY]`
//!
//! The master may run on another machine, under Python's standard library or `procession`. This
//! works until it is gone; it has all results then.
#![allow(clippy::print_stdout, reason = "what became of it is what this program says")]

use std::env;
use std::error::Error;
use std::process::ExitCode;

use procession::channel::connection::Address;
use procession::manager::proxies::QueueProxy;
use procession::manager::{CallFailed, RemoteManager};

/// The numbers from the first up to the second, without that.
type Task = (u64, u64);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task_worker: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let port = arguments.next().ok_or("usage: task_worker PORT [HOST] [KEY]")?.parse()?;
    let host = arguments.next().unwrap_or_else(|| "localhost".to_owned());
    let key = arguments.next().unwrap_or_else(|| "example".to_owned());
    let master = RemoteManager::connect(Address::tcp(&host, port)?, key)?;
    let tasks = master.proxy("get_tasks")?.into();
    let results = master.proxy("get_results")?.into();
    match work(&tasks, &results) {
        CallFailed::ServerGone { .. } => println!("the master is gone"),
        other => return Err(other.into()),
    }
    Ok(())
}

/// Works until that fails.
fn work(tasks: &QueueProxy<Task>, results: &QueueProxy<(Task, usize)>) -> CallFailed {
    loop {
        let done = tasks.get().and_then(|(first, end)| {
            let count = (first..end).filter(|number| is_prime(*number)).count();
            results.put(&((first, end), count))
        });
        if let Err(failed) = done {
            return failed;
        }
    }
}

fn is_prime(number: u64) -> bool {
    let mut factors = (2..).take_while(|factor| factor * factor <= number);
    number > 1 && !factors.any(|factor| number.is_multiple_of(factor))
}
