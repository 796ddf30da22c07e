//! Pools told more than what to run: timeouts, cancelling, initializers, limits, numbers.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::Queue;
use procession::pool::{Pool, Task};
use procession_testing::process::wait_until;

mod cancel;
mod interrupts;
mod maps;
mod outcomes;
mod stats;
mod timeouts;
mod workers;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
/// Shorter than any wait for a task that never ends.
const SHORT: Duration = Duration::from_millis(50);
/// Longer than a task that does nothing takes, however busy the machine is.
const AMPLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let tests = [
        timeouts::TESTS,
        cancel::TESTS,
        outcomes::TESTS,
        maps::TESTS,
        workers::TESTS,
        stats::TESTS,
        interrupts::TESTS,
    ];
    procession_testing::run(procession::init, &tests.concat())
}

fn square(x: u64) -> u64 {
    x * x
}

fn worker_pid(_: ()) -> u32 {
    std::process::id()
}

fn fail(_: ()) {
    panic!("on purpose");
}

fn block_for_ever(_: ()) {
    loop {
        thread::park();
    }
}

/// Blocks until the queue has a message.
fn hold(gate: Queue<u8>) {
    gate.get().unwrap();
}

fn busy_for(micros: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    micros
}

fn pool() -> Pool {
    Pool::new(2).unwrap()
}

/// Waits until a worker has begun the task.
fn await_begin<R>(task: &Task<R>) {
    assert!(wait_until(DEADLOCK, || task.is_running()), "nobody took the task");
}
