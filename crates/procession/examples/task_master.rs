//! Counts primes with the help of workers, here or on other machines.
//!
//! `cargo run --release --example task_master -- [HOST] [KEY]`
//!
//! Prints the port at which workers find it. A worker is `task_worker.rs`, or
//! `examples/python/task_worker.py`; any number of them may come and go at any time. One that is
//! killed costs the task that it had, so a task without a result is handed out again.
#![allow(clippy::print_stdout, reason = "the results are what this program is for")]

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use procession::channel::connection::Address;
use procession::manager::{Manager, Queue, QueueError};

const LIMIT: u64 = 200_000;
const STEP: u64 = 10_000;
/// Without a result for so long, the tasks that lack one are handed out again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The numbers from the first up to the second, without that.
type Task = (u64, u64);

fn main() -> Result<(), Box<dyn Error>> {
    procession::init();
    let mut arguments = env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "localhost".to_owned());
    let key = arguments.next().unwrap_or_else(|| "example".to_owned());
    let (tasks, results) = (Arc::new(Queue::new(0)), Arc::new(Queue::new(0)));
    let master =
        Manager::builder().address(Address::tcp(&host, 0)?).authkey(key).serve(|registry| {
            registry.object("get_tasks", tasks.clone());
            registry.object("get_results", results.clone());
        })?;
    let Address::Tcp(address) = master.address() else { unreachable!("it was asked for a port") };
    println!("{}", address.port());
    println!("{} primes below {LIMIT}", count_primes(&tasks, &results)?);
    Ok(())
}

fn count_primes(tasks: &Queue, results: &Queue) -> Result<u64, QueueError> {
    let first = (0..LIMIT).step_by(STEP as usize);
    let mut missing: BTreeSet<Task> = first.map(|first| (first, first + STEP)).collect();
    let mut total = 0;
    missing.iter().try_for_each(|task| tasks.put(task))?;
    while !missing.is_empty() {
        match results.get_timeout::<(Task, u64)>(PATIENCE) {
            Ok((task, count)) if missing.remove(&task) => total += count,
            // Of a task that was handed out twice.
            Ok(_) => {}
            Err(QueueError::Empty) => missing.iter().try_for_each(|task| tasks.put(task))?,
            Err(other) => return Err(other),
        }
    }
    Ok(total)
}
