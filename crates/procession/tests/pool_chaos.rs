//! A pool whose workers are killed, stopped, resumed and made to exit at random, while tasks are
//! submitted, cancelled and timed out: every task ends in exactly one way, and nothing piles up.

use std::fs;
use std::process::{ExitCode, exit};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use procession::pool::{Pool, TaskError};
use procession::process;
use procession::shm::Arena;
use procession_testing::process::{is_running, kill, signal, wait_until};
use rustix::process::Signal;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
const WORKERS: usize = 3;

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            every_task_ends_in_one_way_whatever_becomes_of_the_workers,
            soak_chaos,
            soak_flat
        ],
    )
}

/// Numbers that look random, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What may become of a task by its own doing.
fn unsteady(x: u64) -> u64 {
    match x % 5000 {
        1 => exit(3),
        2 => std::process::abort(),
        3 => std::panic::resume_unwind(Box::new("on purpose")),
        _ => x * x,
    }
}

/// Blocks for ever if the number is odd.
fn block_if_odd(x: u64) -> u64 {
    if x.is_multiple_of(2) {
        return x;
    }
    loop {
        thread::park();
    }
}

/// Torments the workers until `over` is closed. Returns how many blows they got.
fn torment(pool: &Pool, over: &Receiver<()>, mut chance: Chance) -> u64 {
    let mut blows = 0;
    let mut stopped = Vec::new();
    while let Err(RecvTimeoutError::Timeout) =
        over.recv_timeout(Duration::from_micros(500 + chance.below(4000) as u64))
    {
        let pids = pool.worker_pids();
        if !pids.is_empty() {
            let pid = pids[chance.below(pids.len())];
            blows += 1;
            match chance.below(3) {
                0 => kill(pid),
                1 => {
                    signal(pid, Signal::STOP);
                    stopped.push(pid);
                }
                _ => {}
            }
        }
        // At most one stands still, or nobody is left to work.
        if stopped.len() > 1 || chance.below(2) == 0 {
            stopped.drain(..).for_each(|pid| signal(pid, Signal::CONT));
        }
    }
    stopped.drain(..).for_each(|pid| signal(pid, Signal::CONT));
    blows
}

/// Submits tasks one by one, and takes some of them back.
fn submit_and_cancel(pool: &Pool, over: &Receiver<()>, mut chance: Chance) -> u64 {
    let mut count = 0;
    let timed = pool.timeout(Duration::from_millis(20));
    while let Err(mpsc::TryRecvError::Empty) = over.try_recv() {
        count += 1;
        let x = chance.below(100) as u64;
        let task = timed.submit(block_if_odd, x).unwrap();
        let cancelled = chance.below(3) == 0 && task.cancel().unwrap();
        match task.get() {
            Ok(value) => assert!(value == x && x.is_multiple_of(2) && !cancelled),
            Err(TaskError::Cancelled) => assert!(cancelled),
            // A stopped worker lets its time pass with any task.
            Err(TaskError::TimedOut(_) | TaskError::WorkerDied(_)) => assert!(!cancelled),
            Err(other) => panic!("{other:?}"),
        }
    }
    count
}

/// What must not pile up.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    descriptors: usize,
    arena: u64,
    resident: u64,
}

impl Footprint {
    fn now() -> Self {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let mut numbers = statm.split(' ').skip(1).map(|number| number.parse::<u64>().unwrap());
        let (resident, shared) = (numbers.next().unwrap(), numbers.next().unwrap());
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            arena: Arena::current().unwrap().stats().used,
            resident: (resident - shared) * 4096,
        }
    }

    /// Fails if there is much more now.
    fn check(self) {
        let now = Self::now();
        assert!(now.descriptors <= self.descriptors + 2 * WORKERS, "{self:?}, now {now:?}");
        assert!(now.arena <= self.arena + (16 << 20), "{self:?}, now {now:?}");
        assert!(now.resident <= self.resident + (32 << 20), "{self:?}, now {now:?}");
    }
}

/// What became of tasks.
#[derive(Debug, Default)]
struct Ends {
    done: u64,
    died: u64,
    panicked: u64,
}

fn run_in_chaos(tasks: u64, seed: u64) {
    let pool = Pool::builder().workers(WORKERS).retries(1).build().unwrap();
    let mut ends = Ends::default();
    let mut before = None;
    let (blows, submitted) = thread::scope(|scope| {
        let (stop_torment, over) = mpsc::channel::<()>();
        let (stop_submits, no_more) = mpsc::channel::<()>();
        let pool = &pool;
        let tormentor = scope.spawn(move || torment(pool, &over, Chance(seed)));
        let submitter = scope.spawn(move || submit_and_cancel(pool, &no_more, Chance(seed + 1)));
        let mut values = pool.window(64).imap(unsteady, 0..tasks).unwrap();
        for x in 0..tasks {
            match values.next().expect("a task has no end") {
                Ok(value) => {
                    assert_eq!(value, x * x);
                    ends.done += 1;
                }
                Err(TaskError::WorkerDied(_)) => ends.died += 1,
                Err(TaskError::Panicked { .. }) => {
                    assert_eq!(x % 5000, 3);
                    ends.panicked += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
            if x == tasks / 4 {
                before = Some(Footprint::now());
            }
        }
        assert!(values.next().is_none(), "a task has two ends");
        drop(stop_submits);
        let submitted = submitter.join().unwrap();
        drop(stop_torment);
        (tormentor.join().unwrap(), submitted)
    });
    assert_eq!(ends.done + ends.died + ends.panicked, tasks);
    assert!(ends.died >= tasks / 5000 * 2, "{ends:?}: exits were not noticed");
    assert!(blows > 0 && submitted > 0);
    before.expect("there were tasks").check();
    let pids = pool.worker_pids();
    drop(pool);
    assert!(wait_until(DEADLOCK, || !pids.iter().any(|pid| is_running(*pid))));
    eprintln!("{tasks} tasks, {ends:?}, {blows} blows, {submitted} submitted one by one");
}

fn every_task_ends_in_one_way_whatever_becomes_of_the_workers() {
    run_in_chaos(20_000, 0x9E37_79B9_7F4A_7C15);
}

fn soak_chaos() {
    for run in 1..=10 {
        run_in_chaos(1_000_000, 0x9E37_79B9_7F4A_7C15 ^ run << 7);
    }
}

fn soak_flat() {
    const TASKS: u64 = 10_000_000;
    let pool = Pool::new(WORKERS).unwrap();
    let mut values = pool.window(256).imap_unordered(successor, 0..TASKS).unwrap();
    let mut sum = 0_u64;
    for value in values.by_ref().take(1_000_000) {
        sum = sum.wrapping_add(value.unwrap());
    }
    let before = Footprint::now();
    for value in values {
        sum = sum.wrapping_add(value.unwrap());
    }
    before.check();
    assert_eq!(sum, TASKS * (TASKS + 1) / 2);
    let stats = pool.stats().unwrap();
    assert_eq!((stats.done, stats.deaths), (TASKS, 0));
}

fn successor(x: u64) -> u64 {
    x + 1
}
