//! Two processes that start at the same moment.

use std::time::{Duration, Instant};

use procession::process::Builder;
use procession::sync::Event;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Runs `far` in a copy of this process and `near` here, each on what `make_far` and `make_near`
/// make in its own process, and times `near`. What was made is dropped when both are done.
pub(crate) fn race<F, N>(
    make_far: impl FnOnce() -> F,
    far: impl FnOnce(&mut F),
    make_near: impl FnOnce() -> N,
    near: impl FnOnce(&mut N),
) -> Duration {
    let [ready, go, done] = [(); 3].map(|()| Event::new().expect("shared memory for an event"));
    let child = Builder::new().fork(|| {
        let mut end = make_far();
        ready.set();
        go.wait(None).expect("the parent says go");
        far(&mut end);
        done.wait(None).expect("the parent has read everything");
    });
    let child = child.expect("the child starts");
    let mut end = make_near();
    ready.wait(None).expect("the child is ready");
    let start = Instant::now();
    go.set();
    near(&mut end);
    let time = start.elapsed();
    done.set();
    child.join().expect("the child ends well");
    time
}

/// Lets this process run on one processor only: the first, or the `number`-th after it, of those
/// that the program was given.
pub(crate) fn stay_on(number: usize) {
    let given = sched_getaffinity(None).expect("the system tells the processors");
    let mut numbers = (0..CpuSet::MAX_CPU).filter(|&cpu| given.is_set(cpu));
    let cpu = numbers.nth(number).expect("round trips between two cores need two processors");
    let mut chosen = CpuSet::new();
    chosen.set(cpu);
    sched_setaffinity(None, &chosen).expect("a processor out of those given");
}
