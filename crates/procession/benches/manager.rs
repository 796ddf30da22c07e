//! Managers: a server in a process of its own, called from this one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use procession::manager::{Manager, RemoteManager};
use procession::process::StartMethod;
use procession_testing::Report;

fn main() {
    procession::init();
    let mut report = Report::new("manager");
    // Forks come first, while this process has one thread.
    let starts = report.scaled(100);
    report.measure("start, fork, to the first answer", "managers", || start(starts));
    let server = forked();
    let manager = server.connect().expect("the server answers");
    let calls = report.scaled(200_000);
    report.measure("dict, get", "calls", || get(&manager, calls));
    report.measure("dict, insert", "calls", || insert(&manager, calls));
    let objects = report.scaled(20_000);
    report.measure("a new dict, and dropped", "objects", || make_and_drop(&manager, objects));
    let connections = report.scaled(2_000);
    report.measure("connect", "connections", || connect(&server, connections));
    report.finish();
}

fn forked() -> Manager {
    let builder = Manager::builder().start_method(StartMethod::Fork);
    builder.start(|_registry| {}).expect("the server starts")
}

/// Times `call`, done this many times.
fn timed(count: u64, mut call: impl FnMut()) -> (u64, Duration) {
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    (count, start.elapsed())
}

/// Its end is not counted.
fn start(count: u64) -> (u64, Duration) {
    let mut taken = Duration::ZERO;
    for _ in 0..count {
        let start = Instant::now();
        let server = forked();
        let manager = server.connect().expect("the server answers");
        manager.dummy().expect("the server answers");
        taken += start.elapsed();
    }
    (count, taken)
}

fn get(manager: &RemoteManager, count: u64) -> (u64, Duration) {
    let dict = manager.dict::<u64, u64>().expect("the server answers");
    dict.insert(&7, &1).expect("the server answers");
    timed(count, || {
        black_box(dict.get(&7).expect("the server answers"));
    })
}

fn insert(manager: &RemoteManager, count: u64) -> (u64, Duration) {
    let dict = manager.dict::<u64, u64>().expect("the server answers");
    timed(count, || dict.insert(&7, &1).expect("the server answers"))
}

fn make_and_drop(manager: &RemoteManager, count: u64) -> (u64, Duration) {
    timed(count, || drop(manager.dict::<u64, u64>().expect("the server answers")))
}

fn connect(server: &Manager, count: u64) -> (u64, Duration) {
    timed(count, || drop(server.connect().expect("the server answers")))
}
