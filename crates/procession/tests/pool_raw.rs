//! The pool in bytes: workers of another kind, breaking, retiring, callbacks.

use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use procession::pool::raw::{
    Frames, Job, LaunchError, Launched, Launcher, Options, Order, Outcome, Phase, PoolError,
    RawPool, Reply, RunStatus, Runner, TaskLost, WorkerBoot, serve,
};
use procession::process::{self, Builder, Exec, ExitStatus};
use procession_testing::process::{kill, wait_until};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            outcomes_come_in_the_order_asked_for,
            kind_and_job_reach_the_runner,
            same_function_is_stored_once,
            failed_task_carries_what_the_runner_wrote,
            one_batch_takes_tasks_many_times,
            frames_keep_nothing_of_a_write_that_failed,
            next_many_takes_what_is_there,
            outcome_is_taken_once,
            worker_that_cannot_start_breaks_the_pool_once,
            worker_that_says_why_it_cannot_start_is_quoted,
            workers_that_cannot_start_later_break_the_pool,
            first_worker_that_cannot_be_launched_is_an_error_of_start,
            launch_that_fails_later_is_tried_again,
            retired_worker_is_replaced,
            callback_is_called_when_nobody_waits,
            callback_is_called_when_the_pool_is_terminated,
            callback_may_end_its_pool,
            dropped_batch_leaves_no_trace,
            status_says_how_far_the_pool_is,
            deadline_in_the_past_only_looks
        ],
    )
}

/// Answers with the kind, the function's bytes and the payload. `fail` fails.
struct Echo {
    runs: usize,
    retire_after: usize,
}

impl Runner for Echo {
    fn run(&mut self, job: Job<'_>, kind: u32, payload: &[u8], reply: &mut Reply) -> RunStatus {
        self.runs += 1;
        if payload == b"die" {
            kill(std::process::id());
        }
        reply.bytes().extend_from_slice(&kind.to_le_bytes());
        reply.bytes().extend_from_slice(job.bytes);
        reply.bytes().extend_from_slice(payload);
        if payload == b"fail" { RunStatus::Failed } else { RunStatus::Done }
    }

    fn retire(&mut self) -> bool {
        self.runs == self.retire_after
    }
}

fn echo(boot: WorkerBoot) {
    serve(&boot, &mut Echo { runs: 0, retire_after: usize::MAX }).unwrap();
}

fn echo_twice(boot: WorkerBoot) {
    serve(&boot, &mut Echo { runs: 0, retire_after: 2 }).unwrap();
}

fn cannot_start(boot: WorkerBoot) {
    boot.start_failed("no luck today");
    exit(4);
}

/// Starts workers that call one of the functions above.
enum Calls {
    Echo,
    EchoTwice,
    CannotStart,
}

impl Launcher for Calls {
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError> {
        let builder = Builder::new().name("raw").daemon(true);
        let handle = match self {
            Self::Echo => builder.spawn(echo, boot)?,
            Self::EchoTwice => builder.spawn(echo_twice, boot)?,
            Self::CannotStart => builder.spawn(cannot_start, boot)?,
        };
        Ok(Launched { name: handle.name().to_owned(), child: handle.into_child() })
    }
}

/// Starts `false`, which knows nothing of pools.
struct False;

impl Launcher for False {
    fn launch(&self, _boot: WorkerBoot) -> Result<Launched, LaunchError> {
        Ok(Launched { child: Exec::new("/bin/false").start()?, name: "false".to_owned() })
    }
}

/// Fails at the launches whose numbers lie in the range, and passes the others on.
struct Failing<L> {
    launches: AtomicUsize,
    failing: std::ops::Range<usize>,
    inner: L,
}

impl<L: Launcher> Launcher for Failing<L> {
    fn launch(&self, boot: WorkerBoot) -> Result<Launched, LaunchError> {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        if self.failing.contains(&number) {
            Err("out of order".into())
        } else {
            self.inner.launch(boot)
        }
    }
}

fn failing<L>(failing: std::ops::Range<usize>, inner: L) -> Box<Failing<L>> {
    Box::new(Failing { launches: AtomicUsize::new(0), failing, inner })
}

fn pool(workers: usize) -> RawPool {
    RawPool::start(Options::new(workers), Box::new(Calls::Echo)).unwrap()
}

fn frames(pool: &RawPool, payloads: &[impl AsRef<[u8]>]) -> Frames {
    let mut frames = Frames::new(&pool.register_job(b"job:", None).unwrap(), 5);
    payloads.iter().for_each(|payload| frames.push(payload.as_ref()));
    frames
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(reply) | Outcome::Failed(reply) => {
            assert_eq!(reply[..4], 5_u32.to_le_bytes(), "the kind got lost");
            String::from_utf8(reply[4..].to_vec()).unwrap()
        }
        Outcome::Lost(lost) => lost.to_string(),
    }
}

fn outcomes_come_in_the_order_asked_for() {
    let pool = pool(2);
    let payloads: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    for order in [Order::Index, Order::Finish] {
        let batch = pool.batch(order).unwrap();
        batch.submit(&mut frames(&pool, &payloads)).unwrap();
        let mut seen = Vec::new();
        while let Some((number, outcome)) = batch.next(None).unwrap() {
            assert_eq!(text(&outcome), format!("job:{number}"));
            seen.push(number);
        }
        if order == Order::Finish {
            seen.sort_unstable();
        }
        assert_eq!(seen, (0..500).collect::<Vec<_>>(), "{order:?}");
    }
}

fn kind_and_job_reach_the_runner() {
    let pool = pool(1);
    for (job, kind) in [("a", 0_u32), ("b", u32::MAX)] {
        let mut frames = Frames::new(&pool.register_job(job.as_bytes(), None).unwrap(), kind);
        frames.push(b"!");
        let batch = pool.batch(Order::Index).unwrap();
        batch.submit(&mut frames).unwrap();
        batch.wait(None).unwrap();
        let Some(Outcome::Done(reply)) = batch.take(0) else { panic!("not done") };
        assert_eq!(reply[..], [&kind.to_le_bytes()[..], job.as_bytes(), b"!"].concat());
    }
}

fn same_function_is_stored_once() {
    let pool = pool(1);
    let bytes = vec![7; 100_000];
    let _first = pool.register_job(&bytes, None).unwrap();
    let arena = procession::shm::Arena::current().unwrap();
    let before = arena.stats().blocks;
    let _others: Vec<_> = (0..100).map(|_| pool.register_job(&bytes, None).unwrap()).collect();
    assert_eq!(arena.stats().blocks, before);
}

fn failed_task_carries_what_the_runner_wrote() {
    let pool = pool(1);
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["fail"])).unwrap();
    batch.wait(None).unwrap();
    let outcome = batch.take(0).unwrap();
    assert!(matches!(outcome, Outcome::Failed(_)));
    assert_eq!(text(&outcome), "job:fail");
}

fn one_batch_takes_tasks_many_times() {
    let pool = pool(2);
    let batch = pool.batch(Order::Finish).unwrap();
    let mut numbers = Vec::new();
    for _ in 0..100 {
        batch.submit(&mut frames(&pool, &["x", "y", "z"])).unwrap();
        numbers.extend(batch.next(None).unwrap().map(|(number, _)| number));
    }
    assert_eq!(batch.len(), 300);
    while let Some((number, _)) = batch.next(None).unwrap() {
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
}

fn frames_keep_nothing_of_a_write_that_failed() {
    let pool = pool(1);
    let mut frames = frames(&pool, &["one"]);
    let failed = frames.push_with(|buffer| {
        buffer.extend_from_slice(b"half");
        Err("no")
    });
    assert_eq!(failed, Err("no"));
    frames
        .push_with(|buffer| {
            buffer.extend_from_slice(b"two");
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(frames.len(), 2);
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames).unwrap();
    assert!(frames.is_empty());
    batch.wait(None).unwrap();
    let texts: Vec<_> = batch.take_all().iter().map(text).collect();
    assert_eq!(texts, ["job:one", "job:two"]);
}

fn next_many_takes_what_is_there() {
    let pool = pool(1);
    let batch = pool.batch(Order::Finish).unwrap();
    batch.submit(&mut frames(&pool, &["x"; 10])).unwrap();
    batch.wait(None).unwrap();
    assert_eq!(batch.next_many(0, None).unwrap().len(), 0);
    assert_eq!(batch.next_many(4, None).unwrap().len(), 4);
    assert_eq!(batch.next_many(100, None).unwrap().len(), 6);
    assert_eq!(batch.next_many(100, None).unwrap().len(), 0);
}

fn outcome_is_taken_once() {
    let pool = pool(1);
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["a", "b", "c"])).unwrap();
    batch.wait(None).unwrap();
    assert_eq!(text(&batch.take(1).unwrap()), "job:b");
    assert!(batch.take(1).is_none());
    assert!(batch.take(3).is_none());
    assert_eq!(batch.next(None).unwrap().map(|(number, _)| number), Some(0));
    assert!(batch.take(0).is_none());
    assert_eq!(batch.take_all().iter().map(text).collect::<Vec<_>>(), ["job:c"]);
    assert!(batch.next(None).unwrap().is_none());
}

/// Submits a task to a pool that must break, and returns why it did.
fn breakage(pool: &RawPool) -> (String, Option<ExitStatus>) {
    // It may be broken already.
    let batch = pool.batch(Order::Index);
    if let Ok(batch) = batch
        && let Ok(job) = pool.register_job(b"", None)
    {
        let mut frames = Frames::new(&job, 0);
        frames.push(b"x");
        if batch.submit(&mut frames).is_ok() {
            batch.wait(Some(Instant::now() + DEADLOCK)).expect("the task was forgotten");
            assert!(matches!(batch.take(0), Some(Outcome::Lost(TaskLost::Broken(_)))));
        }
    }
    let Err(PoolError::Broken(breakage)) = pool.batch(Order::Index) else { panic!("not broken") };
    (breakage.reason.clone(), breakage.status)
}

fn worker_that_cannot_start_breaks_the_pool_once() {
    let launcher = failing(0..0, False);
    let pool = RawPool::start(Options::new(2), launcher).unwrap();
    let (reason, status) = breakage(&pool);
    assert!(reason.contains("exit code 1"), "{reason}");
    assert_eq!(status, Some(ExitStatus::Code(1)));
    pool.join(Some(Instant::now() + DEADLOCK)).unwrap();
    let restarts = pool.status().unwrap().restarts;
    assert!(restarts < 5, "{restarts} workers were started in vain");
}

fn worker_that_says_why_it_cannot_start_is_quoted() {
    let pool = RawPool::start(Options::new(1), Box::new(Calls::CannotStart)).unwrap();
    let (reason, status) = breakage(&pool);
    assert_eq!(reason, "no luck today");
    assert_eq!(status, Some(ExitStatus::Code(4)));
}

fn workers_that_cannot_start_later_break_the_pool() {
    // The first works. What replaces it cannot be launched.
    let pool = RawPool::start(Options::new(1), failing(1..usize::MAX, Calls::Echo)).unwrap();
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["a", "die", "b"])).unwrap();
    batch.wait(None).unwrap();
    assert!(matches!(batch.take(0), Some(Outcome::Done(_))));
    assert!(matches!(batch.take(1), Some(Outcome::Lost(TaskLost::WorkerDied(_)))));
    assert!(matches!(batch.take(2), Some(Outcome::Lost(TaskLost::Broken(_)))));
    assert_eq!(breakage(&pool), ("a worker could not be started: out of order".to_owned(), None));
}

fn first_worker_that_cannot_be_launched_is_an_error_of_start() {
    let error = RawPool::start(Options::new(3), failing(2..3, Calls::Echo)).unwrap_err();
    assert!(matches!(&error, PoolError::Launch(source) if source.to_string() == "out of order"));
    let error = RawPool::start(Options::new(0), Box::new(False)).unwrap_err();
    assert!(matches!(error, PoolError::NoWorkers));
}

fn launch_that_fails_later_is_tried_again() {
    let pool = RawPool::start(Options::new(1), failing(1..3, Calls::Echo)).unwrap();
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["die", "a"])).unwrap();
    batch.wait(None).unwrap();
    assert!(matches!(batch.take(1), Some(Outcome::Done(_))));
}

fn retired_worker_is_replaced() {
    let pool = RawPool::start(Options::new(2), Box::new(Calls::EchoTwice)).unwrap();
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["x"; 50])).unwrap();
    batch.wait(None).unwrap();
    assert!(batch.take_all().iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
    let restarts = || pool.status().unwrap().restarts;
    assert!(wait_until(DEADLOCK, || restarts() >= 24), "only {} restarts", restarts());
}

fn callback_is_called_when_nobody_waits() {
    let pool = pool(1);
    let (call, called) = mpsc::channel();
    for round in 0..3 {
        let batch = Arc::new(pool.batch(Order::Index).unwrap());
        batch.submit(&mut frames(&pool, &["x", "y"])).unwrap();
        let (kept, call) = (Arc::clone(&batch), call.clone());
        drop(batch);
        let inner = Arc::clone(&kept);
        let report = move || call.send(inner.take_all().len() + round).unwrap();
        kept.on_complete(Box::new(report)).unwrap();
        drop(kept);
        assert_eq!(called.recv_timeout(DEADLOCK), Ok(2 + round));
    }
}

fn callback_is_called_when_the_pool_is_terminated() {
    let pool = RawPool::start(Options::new(1), Box::new(Calls::Echo)).unwrap();
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["x"; 100_000])).unwrap();
    let called = Arc::new(AtomicBool::new(false));
    let call = Arc::clone(&called);
    batch.on_complete(Box::new(move || call.store(true, Ordering::SeqCst))).unwrap();
    // A panic in a callback is the callback's.
    batch.on_complete(Box::new(|| panic!("in a callback, as it should be"))).unwrap();
    pool.terminate().unwrap();
    assert!(called.load(Ordering::SeqCst));
}

fn callback_may_end_its_pool() {
    let pool = Arc::new(pool(1));
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["x"])).unwrap();
    let inner = Arc::clone(&pool);
    batch.on_complete(Box::new(move || inner.terminate().unwrap())).unwrap();
    let ended = || matches!(pool.status().unwrap().phase, Phase::Terminated);
    assert!(wait_until(DEADLOCK, ended));
    pool.join(Some(Instant::now() + DEADLOCK)).unwrap();
}

fn dropped_batch_leaves_no_trace() {
    let pool = pool(1);
    let arena = procession::shm::Arena::current().unwrap();
    let large = [0_u8; 100_000];
    let run = || {
        let batch = pool.batch(Order::Index).unwrap();
        batch.submit(&mut frames(&pool, &[&large; 20])).unwrap();
    };
    run();
    let settle = || wait_until(DEADLOCK, || pool.status().unwrap().pending == 0);
    assert!(settle(), "tasks of a dropped batch are pending for ever");
    let before = arena.stats().used;
    for _ in 0..10 {
        run();
        assert!(settle());
    }
    assert!(arena.stats().used <= before + 300_000, "memory was lost");
}

fn status_says_how_far_the_pool_is() {
    let pool = pool(1);
    let status = pool.status().unwrap();
    assert!(matches!(status.phase, Phase::Running) && status.pending == 0 && status.restarts == 0);
    let batch = pool.batch(Order::Index).unwrap();
    batch.submit(&mut frames(&pool, &["x", "die"])).unwrap();
    batch.wait(None).unwrap();
    let restarted = || pool.status().unwrap().restarts == 1;
    assert!(wait_until(DEADLOCK, restarted));
    pool.close().unwrap();
    assert!(matches!(pool.status().unwrap().phase, Phase::Closed));
    pool.join(None).unwrap();
}

fn deadline_in_the_past_only_looks() {
    let pool = pool(1);
    let batch = pool.batch(Order::Index).unwrap();
    let past = Some(Instant::now());
    assert!(batch.wait(past).is_ok(), "there is nothing to wait for");
    assert!(batch.next(past).unwrap().is_none());
    let stopped = pool.worker_pids()[0];
    procession_testing::process::stop(stopped);
    batch.submit(&mut frames(&pool, &["x"])).unwrap();
    assert!(matches!(batch.wait(past), Err(PoolError::TimedOut)));
    assert!(matches!(batch.next(past), Err(PoolError::TimedOut)));
    procession_testing::process::signal(stopped, rustix::process::Signal::CONT);
    // Whoever waits while another leads gets its own.
    thread::scope(|scope| {
        scope.spawn(|| batch.wait(Some(Instant::now() + DEADLOCK)).unwrap());
        batch.wait(Some(Instant::now() + DEADLOCK)).unwrap();
    });
}
