//! Pools told more than what to run: timeouts, cancelling, initializers, limits, numbers.
#![allow(unsafe_code)] // `setpgid`, `kill` of a group and `pause`, to press Ctrl-C by hand.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::Queue;
use procession::pool::{Affinity, Pool, PoolError, Task, TaskError, TryError, WorkerState};
use procession::process::{self, ExitStatus};
use procession_testing::process::{is_running, kill, wait_until};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
/// Shorter than any wait for a task that never ends.
const SHORT: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            task_that_takes_too_long_fails_alone,
            timeout_counts_from_when_the_task_begins,
            timeout_of_a_map_is_for_each_item,
            timed_task_is_run_again_after_a_death,
            timed_task_that_is_done_in_time_leaves_no_trace,
            queued_task_that_is_cancelled_is_never_run,
            running_task_that_is_cancelled_loses_its_worker,
            task_that_is_done_cannot_be_cancelled,
            thousands_of_cancelled_tasks_are_never_run,
            cancelling_at_any_moment_gives_one_outcome,
            cancelled_task_is_not_run_again,
            map_that_fails_fast_ends_with_the_first_failure,
            map_without_fail_fast_runs_every_item,
            error_of_the_function_comes_through_with_its_type,
            retries_of_a_call_count_for_it_alone,
            callback_is_called_with_the_value,
            callback_is_told_of_a_death_and_of_the_end,
            task_is_a_future,
            future_of_a_finished_task_is_ready_at_once,
            imap_keeps_the_order,
            imap_tells_errors_in_their_place,
            imap_draws_no_more_than_its_window,
            dropped_iterator_calls_its_tasks_back,
            map_of_any_size_keeps_the_order,
            map_of_uneven_items_is_complete,
            initializer_runs_once_in_every_worker,
            initializer_that_fails_breaks_the_pool_with_the_cause,
            initializer_that_panics_breaks_the_pool_with_the_cause,
            worker_is_replaced_after_its_tasks,
            worker_that_has_grown_is_replaced,
            workers_run_where_they_are_told_to,
            processor_that_may_not_be_used_is_refused,
            stats_say_what_the_pool_does,
            stats_count_every_end_of_a_task_once,
            interrupt_from_the_terminal_ends_the_program_and_its_workers,
            interrupt_that_the_owner_handles_leaves_the_workers_alone,
            closed_pool_with_cancelled_tasks_ends
        ],
    )
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

/// Blocks for ever at 7.
fn square_or_block(x: u64) -> u64 {
    if x == 7 {
        block_for_ever(());
    }
    x * x
}

/// Says that it was run.
fn note((said, number): (Queue<u32>, u32)) {
    said.put(&number).unwrap();
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

fn task_that_takes_too_long_fails_alone() {
    let pool = pool();
    let timed = pool.timeout(SHORT);
    let tasks: Vec<_> = (0..20).map(|x| pool.submit(square, x).unwrap()).collect();
    let late = timed.submit(block_for_ever, ()).unwrap();
    let begun = Instant::now();
    await_begin(&late);
    match late.get() {
        Err(TaskError::TimedOut(late)) => {
            assert_eq!((late.timeout, late.task), (SHORT, 0));
            assert!(late.name.starts_with("worker-"), "{late}");
            assert!(begun.elapsed() >= SHORT, "it was ended too early");
            assert!(wait_until(DEADLOCK, || !is_running(late.pid)), "the worker goes on");
        }
        other => panic!("{other:?}"),
    }
    for (x, task) in (0..20).zip(tasks) {
        assert_eq!(task.get().unwrap(), x * x);
    }
    let replaced = || pool.worker_pids().len() == 2;
    assert!(wait_until(DEADLOCK, replaced), "the worker was not replaced");
    assert_eq!(pool.stats().unwrap().deaths, 0, "the pool's own doing is no death");
}

fn timeout_counts_from_when_the_task_begins() {
    let pool = Pool::new(1).unwrap();
    let gate = Queue::new().unwrap();
    let first = pool.submit(hold, gate.clone()).unwrap();
    await_begin(&first);
    let waiting = pool.timeout(SHORT).submit(square, 3).unwrap();
    // In the queue for longer than it may run.
    assert!(!waiting.wait_timeout(SHORT * 3));
    gate.put(&0).unwrap();
    assert_eq!(waiting.get().unwrap(), 9);
}

fn timeout_of_a_map_is_for_each_item() {
    let pool = pool();
    let items: Vec<u64> = (0..20).collect();
    let values: Vec<_> = pool.timeout(SHORT * 4).imap(square_or_block, items).unwrap().collect();
    for (x, value) in values.iter().enumerate() {
        match value {
            Ok(value) => assert_eq!(*value, (x * x) as u64),
            Err(TaskError::TimedOut(_)) => assert_eq!(x, 7),
            Err(other) => panic!("{other:?}"),
        }
    }
    let whole = pool.timeout(SHORT).map(square_or_block, 0..20);
    assert!(matches!(whole, Err(TaskError::TimedOut(_))), "{whole:?}");
}

fn timed_task_is_run_again_after_a_death() {
    let pool = Pool::builder().workers(1).retries(3).timeout(DEADLOCK).build().unwrap();
    let begun: Queue<u8> = Queue::new().unwrap();
    let die_twice = |begun: Queue<u8>| {
        begun.put(&1).unwrap();
        if begun.len() < 3 {
            kill(std::process::id());
        }
    };
    pool.apply(die_twice, begun.clone()).unwrap();
    assert_eq!(begun.len(), 3);
}

fn timed_task_that_is_done_in_time_leaves_no_trace() {
    let pool = pool();
    let timed = pool.timeout(SHORT * 4);
    let before = pool.worker_pids();
    for x in 0..200 {
        assert_eq!(timed.apply(square, x).unwrap(), x * x);
    }
    // Longer than the timeout, in tasks that have none.
    let untimed = pool.submit(busy_for, 400_000).unwrap();
    assert_eq!(untimed.get().unwrap(), 400_000);
    assert_eq!(pool.worker_pids(), before);
}

fn queued_task_that_is_cancelled_is_never_run() {
    let pool = Pool::new(1).unwrap();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let first = pool.submit(hold, gate.clone()).unwrap();
    await_begin(&first);
    let before = pool.worker_pids();
    let cancelled = pool.submit(note, (said.clone(), 1)).unwrap();
    let kept = pool.submit(note, (said.clone(), 2)).unwrap();
    assert!(cancelled.cancel().unwrap());
    assert!(cancelled.is_ready(), "the outcome is there at once");
    assert!(!cancelled.cancel().unwrap(), "once is enough");
    assert!(matches!(cancelled.get(), Err(TaskError::Cancelled)));
    gate.put(&0).unwrap();
    kept.get().unwrap();
    first.get().unwrap();
    assert_eq!((said.get().unwrap(), said.len()), (2, 0));
    assert_eq!(pool.worker_pids(), before, "no worker had to go");
    assert_eq!(pool.stats().unwrap().cancelled, 1);
}

fn running_task_that_is_cancelled_loses_its_worker() {
    let pool = pool();
    let running = pool.submit(block_for_ever, ()).unwrap();
    let other = pool.submit(square, 4).unwrap();
    await_begin(&running);
    assert!(running.cancel().unwrap());
    assert!(matches!(running.get_timeout(Duration::ZERO), Err(TaskError::Cancelled)));
    assert_eq!(other.get().unwrap(), 16);
    assert_eq!(pool.map(square, 0..100).unwrap()[99], 99 * 99);
    assert!(wait_until(DEADLOCK, || pool.worker_pids().len() == 2));
}

fn task_that_is_done_cannot_be_cancelled() {
    let pool = pool();
    let task = pool.submit(square, 4).unwrap();
    assert!(task.wait_timeout(DEADLOCK));
    assert!(!task.cancel().unwrap());
    assert_eq!(task.get().unwrap(), 16);
}

fn thousands_of_cancelled_tasks_are_never_run() {
    let pool = pool();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let holding: Vec<_> = (0..2).map(|_| pool.submit(hold, gate.clone()).unwrap()).collect();
    holding.iter().for_each(await_begin);
    let tasks: Vec<Task<()>> =
        (0..5000).map(|number| pool.submit(note, (said.clone(), number)).unwrap()).collect();
    let (odd, even): (Vec<_>, Vec<_>) = (0..5000).zip(tasks).partition(|(n, _)| n % 2 == 1);
    for (_, task) in &odd {
        assert!(task.cancel().unwrap());
    }
    holding.iter().for_each(|_| gate.put(&0).unwrap());
    for (_, task) in even {
        task.get().unwrap();
    }
    for (_, task) in odd {
        assert!(matches!(task.get(), Err(TaskError::Cancelled)));
    }
    let mut ran = BTreeSet::new();
    while let Ok(number) = said.try_get() {
        ran.insert(number);
    }
    assert!(ran.iter().eq((0..5000).step_by(2).collect::<Vec<u32>>().iter()), "{}", ran.len());
}

/// The race of the one who cancels with the worker that is about to be done.
fn cancelling_at_any_moment_gives_one_outcome() {
    let pool = pool();
    let said: Queue<u32> = Queue::new().unwrap();
    let (mut cancelled, mut done) = (0, 0);
    for round in 0..400_u32 {
        let task = pool
            .submit(
                |(said, round): (Queue<u32>, u32)| {
                    busy_for(u64::from(round % 40) * 5);
                    said.put(&round).unwrap();
                    round
                },
                (said.clone(), round),
            )
            .unwrap();
        busy_for(u64::from(round % 23) * 9);
        let was_cancelled = task.cancel().unwrap();
        match task.get() {
            Ok(value) => {
                assert!(!was_cancelled && value == round);
                done += 1;
            }
            Err(TaskError::Cancelled) => {
                assert!(was_cancelled);
                cancelled += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((cancelled + done), 400);
    assert!(cancelled > 0, "not one was cancelled");
    let stats = pool.stats().unwrap();
    assert_eq!((stats.cancelled, stats.deaths, stats.lost), (cancelled, 0, 0));
    assert_eq!(pool.map(square, 0..1000).unwrap().len(), 1000);
}

fn cancelled_task_is_not_run_again() {
    let pool = Pool::builder().workers(1).retries(100).build().unwrap();
    let begun = Queue::new().unwrap();
    let task = pool
        .submit(
            |begun: Queue<u8>| {
                begun.put(&1).unwrap();
                block_for_ever(());
            },
            begun.clone(),
        )
        .unwrap();
    begun.get().unwrap();
    assert!(task.cancel().unwrap());
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    assert!(begun.is_empty(), "the cancelled task was run again");
    assert_eq!(pool.stats().unwrap().retries, 0);
}

fn odd_panics((said, x): (Queue<u32>, u32)) -> u32 {
    said.put(&x).unwrap();
    assert!(x != 3, "{x} is not wanted");
    busy_for(200);
    x
}

fn map_that_fails_fast_ends_with_the_first_failure() {
    let pool = pool();
    for chunk in [0, 1, 2] {
        let said: Queue<u32> = Queue::new().unwrap();
        let items = (0..20_000).map(|x| (said.clone(), x));
        match pool.fail_fast().chunk(chunk).map(odd_panics, items) {
            Err(TaskError::Panicked { message, .. }) => assert_eq!(message, "3 is not wanted"),
            other => panic!("{other:?}"),
        }
        // Whatever was called back comes back before this is taken.
        pool.apply(square, 1).unwrap();
        assert!(said.len() < 19_000, "{} of 20000 were run after the failure", said.len());
    }
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100, "the pool goes on");
}

fn map_without_fail_fast_runs_every_item() {
    let pool = pool();
    let said: Queue<u32> = Queue::new().unwrap();
    let items: Vec<_> = (0..500).map(|x| (said.clone(), x)).collect();
    assert!(matches!(pool.map(odd_panics, items), Err(TaskError::Panicked { .. })));
    assert_eq!(said.len(), 500);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    Odd(u32),
    Large { limit: u32 },
}

fn halve(x: u32) -> Result<u32, Refusal> {
    match x {
        1000.. => Err(Refusal::Large { limit: 1000 }),
        x if x % 2 == 1 => Err(Refusal::Odd(x)),
        x => Ok(x / 2),
    }
}

fn error_of_the_function_comes_through_with_its_type() {
    let pool = pool();
    assert_eq!(pool.try_map(halve, [2, 4, 6]).unwrap(), [1, 2, 3]);
    match pool.try_map(halve, [2, 5, 2000]) {
        Err(TryError::Failed(error)) => assert_eq!(error, Refusal::Odd(5)),
        other => panic!("{other:?}"),
    }
    match pool.fail_fast().chunk(1).try_map(halve, (0..1000).map(|x| x * 2)) {
        Err(TryError::Failed(error)) => assert_eq!(error, Refusal::Large { limit: 1000 }),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.apply(halve, 7).unwrap(), Err(Refusal::Odd(7)));
    match pool.try_map(|_: u32| -> Result<u32, Refusal> { panic!("beyond errors") }, [1]) {
        Err(TryError::Task(TaskError::Panicked { message, .. })) => {
            assert_eq!(message, "beyond errors");
        }
        other => panic!("{other:?}"),
    }
}

fn retries_of_a_call_count_for_it_alone() {
    let pool = Pool::builder().workers(1).retries(2).build().unwrap();
    let die = |attempts: Queue<u8>| {
        attempts.put(&1).unwrap();
        kill(std::process::id());
    };
    for (handle, times) in [(pool.retries(0), 1), (pool.clone(), 3), (pool.retries(4), 5)] {
        let attempts = Queue::new().unwrap();
        match handle.apply(die, attempts.clone()) {
            Err(TaskError::WorkerDied(died)) => {
                assert_eq!(died.attempts, times);
                assert!(!died.out_of_memory, "nobody ran out of memory");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(attempts.len(), times as usize);
    }
    let stats = pool.stats().unwrap();
    assert_eq!((stats.retries, stats.lost, stats.deaths), (6, 3, 9));
}

fn callback_is_called_with_the_value() {
    let pool = pool();
    let (told, heard) = mpsc::channel();
    for x in 0..500_u64 {
        let told = told.clone();
        let call = move |value: Result<u64, _>| told.send((x, value.unwrap())).unwrap();
        pool.submit(square, x).unwrap().then(call);
    }
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let (x, value) = heard.recv_timeout(DEADLOCK).expect("a callback was not called");
        assert_eq!(value, x * x);
        assert!(seen.insert(x), "called twice");
    }
}

fn callback_is_told_of_a_death_and_of_the_end() {
    let pool = Pool::new(1).unwrap();
    let (told, heard) = mpsc::channel();
    let tell = |told: &mpsc::Sender<_>| {
        let told = told.clone();
        move |value: Result<(), TaskError>| told.send(value).unwrap()
    };
    pool.submit(|()| kill(std::process::id()), ()).unwrap().then(tell(&told));
    let died = heard.recv_timeout(DEADLOCK).expect("nobody told of the death");
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    pool.submit(block_for_ever, ()).unwrap().then(tell(&told));
    drop(pool);
    let ended = heard.recv_timeout(DEADLOCK).expect("nobody told of the end");
    assert!(matches!(ended, Err(TaskError::Terminated)), "{ended:?}");
}

/// Runs a future to its end: sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Thread(thread::Thread, AtomicU32);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let woken = Arc::new(Thread(thread::current(), AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    loop {
        let wakes = woken.1.load(Ordering::SeqCst);
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let deadline = Instant::now() + DEADLOCK;
        while woken.1.load(Ordering::SeqCst) == wakes {
            assert!(Instant::now() < deadline, "nobody woke the future");
            thread::park_timeout(DEADLOCK);
        }
    }
}

fn task_is_a_future() {
    let pool = pool();
    let gate = Queue::new().unwrap();
    let sum = async {
        let held = pool.submit(hold, gate.clone())?;
        let first = pool.submit(square, 3)?.await?;
        gate.put(&0).unwrap();
        held.await?;
        let second = pool.submit(square, 4)?.await?;
        Ok::<_, TaskError>(first + second)
    };
    assert_eq!(block_on(sum).unwrap(), 25);
    let failed: Result<(), _> = block_on(pool.submit(fail, ()).unwrap());
    assert!(matches!(failed, Err(TaskError::Panicked { .. })));
    for x in 0..300 {
        assert_eq!(block_on(pool.submit(square, x).unwrap()).unwrap(), x * x);
    }
}

fn future_of_a_finished_task_is_ready_at_once() {
    let task = pool().submit(square, 3);
    let task = task.unwrap();
    // Its pool has ended: there is an outcome, and nobody to wake.
    let mut task = pin!(task);
    let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(9) | Err(TaskError::Terminated))), "{polled:?}");
}

fn imap_keeps_the_order() {
    let pool = pool();
    for chunk in [0, 1, 7] {
        let values: Result<Vec<u64>, _> =
            pool.chunk(chunk).imap(square, 0..3000).unwrap().collect();
        assert_eq!(values.unwrap(), (0..3000).map(square).collect::<Vec<_>>(), "chunk {chunk}");
    }
    assert_eq!(pool.imap(square, []).unwrap().count(), 0);
}

/// Serializes unless it is a multiple of 10, deserializes unless it is one of 15.
#[derive(Debug, PartialEq)]
struct Shy(u32);

impl Serialize for Shy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 10 {
            0 => Err(S::Error::custom("a multiple of 10")),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Shy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            value if value % 15 == 0 => Err(D::Error::custom("a multiple of 15")),
            value => Ok(Self(value)),
        }
    }
}

fn imap_tells_errors_in_their_place() {
    let pool = pool();
    let values: Vec<_> = pool.imap(|x: Shy| x.0, (1..200).map(Shy)).unwrap().collect();
    assert_eq!(values.len(), 199);
    for (x, value) in (1..200_u32).zip(&values) {
        match value {
            Ok(value) => assert!(*value == x && !x.is_multiple_of(10) && !x.is_multiple_of(15)),
            Err(TaskError::Encode { .. }) => assert!(x.is_multiple_of(10), "{x}"),
            Err(TaskError::Decode { .. }) => assert!(x.is_multiple_of(15), "{x}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    let packed: Vec<_> = pool.chunk(6).imap(|x: Shy| x.0, (1..200).map(Shy)).unwrap().collect();
    assert_eq!(packed.len(), 199, "an item without an outcome");
    assert!(matches!(packed[198], Ok(199)));
}

fn imap_draws_no_more_than_its_window() {
    let pool = pool();
    for window in [1, 3] {
        let drawn = AtomicU32::new(0);
        let endless = std::iter::repeat_with(|| {
            drawn.fetch_add(1, Ordering::Relaxed);
            7
        });
        let mut values = pool.window(window).imap(square, endless).unwrap();
        for taken in 1..=50 {
            assert_eq!(values.next().unwrap().unwrap(), 49);
            let most = taken + window as u32 * 2;
            assert!(drawn.load(Ordering::Relaxed) <= most, "window {window}");
        }
    }
}

fn dropped_iterator_calls_its_tasks_back() {
    let pool = Pool::new(1).unwrap();
    let (gate, said) = (Queue::new().unwrap(), Queue::new().unwrap());
    let items = (0..1000).map(|number| (gate.clone(), said.clone(), number));
    let slow = |(gate, said, number): (Queue<u8>, Queue<u32>, u32)| {
        said.put(&number).unwrap();
        if number > 0 {
            gate.get().unwrap();
        }
    };
    let mut values = pool.window(50).imap(slow, items).unwrap();
    values.next().unwrap().unwrap();
    assert!(wait_until(DEADLOCK, || said.len() == 2), "the second item was not begun");
    drop(values);
    gate.put(&0).unwrap();
    assert_eq!(pool.apply(square, 2).unwrap(), 4);
    assert_eq!(said.len(), 2, "tasks of a dropped iterator were run");
}

fn map_of_any_size_keeps_the_order() {
    let pool = pool();
    for count in [0, 1, 2, 3, 5, 17, 1000, 300_000] {
        let expected: Vec<u64> = (0..count).map(square).collect();
        assert_eq!(pool.map(square, 0..count).unwrap(), expected, "{count}");
        // The same without saying how many there are.
        let unknown = (0..count).filter(|_| true);
        assert_eq!(pool.map(square, unknown).unwrap(), expected, "{count}");
    }
}

fn map_of_uneven_items_is_complete() {
    let pool = pool();
    let times: Vec<u64> = (0..400).map(|x| if x % 97 == 0 { 20_000 } else { x % 50 }).collect();
    assert_eq!(pool.map(busy_for, times.clone()).unwrap(), times);
}

static INITIALIZED: AtomicU32 = AtomicU32::new(0);

fn remember((said, value): (Queue<u32>, u32)) {
    INITIALIZED.fetch_add(value, Ordering::SeqCst);
    said.put(&std::process::id()).unwrap();
}

fn initializer_runs_once_in_every_worker() {
    let said: Queue<u32> = Queue::new().unwrap();
    let pool = Pool::builder().workers(2).initializer(remember, (said.clone(), 5)).build().unwrap();
    let remembered = |()| INITIALIZED.load(Ordering::SeqCst);
    assert!((0..20).all(|_| pool.apply(remembered, ()).unwrap() == 5));
    // The one that replaces a dead one runs it too.
    kill(pool.apply(worker_pid, ()).unwrap());
    assert!(wait_until(DEADLOCK, || said.len() == 3), "{} were initialized", said.len());
    assert!((0..20).all(|_| pool.apply(remembered, ()).unwrap() == 5));
}

fn breakage_of(pool: &Pool) -> String {
    match pool.apply(square, 3) {
        Err(TaskError::Pool(PoolError::Broken(breakage))) => breakage.reason.clone(),
        other => panic!("{other:?}"),
    }
}

fn initializer_that_fails_breaks_the_pool_with_the_cause() {
    let fail = |path: String| fs::read(path).map(drop);
    let pool = Pool::builder().workers(2).initializer(fail, "/nowhere".into()).build().unwrap();
    let reason = breakage_of(&pool);
    assert!(reason.contains("the initializer failed: No such file"), "{reason}");
    assert!(matches!(pool.submit(square, 3), Err(TaskError::Pool(PoolError::Broken(_)))));
    assert!(wait_until(DEADLOCK, || pool.worker_pids().is_empty()));
}

fn initializer_that_panics_breaks_the_pool_with_the_cause() {
    let pool = Pool::builder().workers(1).initializer(fail, ()).build().unwrap();
    let reason = breakage_of(&pool);
    assert!(reason.contains("pool_control.rs:") && reason.ends_with("on purpose"), "{reason}");
}

fn worker_is_replaced_after_its_tasks() {
    let pool = Pool::builder().workers(1).max_tasks(3).build().unwrap();
    let pids: Vec<u32> = (0..9).map(|_| pool.apply(worker_pid, ()).unwrap()).collect();
    for three in pids.chunks(3) {
        assert!(three.iter().all(|pid| *pid == three[0]), "{pids:?}");
    }
    assert_eq!(pids.into_iter().collect::<BTreeSet<_>>().len(), 3);
    let stats = pool.stats().unwrap();
    assert_eq!((stats.deaths, stats.lost), (0, 0), "to retire is not to die");
}

/// Keeps so many megabytes for good.
fn grow(megabytes: usize) -> u32 {
    std::mem::forget(vec![1_u8; megabytes << 20]);
    std::process::id()
}

fn worker_that_has_grown_is_replaced() {
    let pool = Pool::builder().workers(1).max_memory(256 << 20).build().unwrap();
    let small = pool.apply(grow, 1).unwrap();
    assert_eq!(pool.apply(grow, 1).unwrap(), small);
    // The first of these may come too soon after the last look.
    let mut large = pool.apply(grow, 400).unwrap();
    assert_eq!(large, small, "it answers before it goes");
    for _ in 0..1000 {
        let next = pool.apply(grow, 1).unwrap();
        if next != large {
            large = next;
            break;
        }
    }
    assert_ne!(large, small, "a worker of 400 MiB was kept");
    assert_eq!(pool.stats().unwrap().deaths, 0);
}

fn processors(_: ()) -> Vec<usize> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

fn workers_run_where_they_are_told_to() {
    let allowed = processors(());
    let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
    let sets = Affinity::Sets(vec![vec![last], vec![first]]);
    let pool = Pool::builder().workers(2).affinity(sets).build().unwrap();
    let seen = Queue::new().unwrap();
    let tell = |seen: Queue<(u32, Vec<usize>)>| {
        seen.put(&(std::process::id(), processors(()))).unwrap();
    };
    let both = || {
        pool.apply(tell, seen.clone()).unwrap();
        let mut places = BTreeSet::new();
        while let Ok(place) = seen.try_get() {
            places.insert(place);
        }
        places
    };
    let mut places = BTreeSet::new();
    assert!(wait_until(DEADLOCK, || {
        places.extend(both());
        places.len() == 2
    }));
    let on: BTreeSet<_> = places.into_iter().map(|(_, place)| place).collect();
    assert_eq!(on, BTreeSet::from([vec![first], vec![last]]));

    let pool = Pool::builder().workers(1).affinity(Affinity::Spread).build().unwrap();
    assert_eq!(pool.apply(processors, ()).unwrap(), [first]);
}

fn processor_that_may_not_be_used_is_refused() {
    let build = |sets| Pool::builder().workers(1).affinity(Affinity::Sets(sets)).build();
    let foreign = build(vec![vec![1023]]);
    assert!(matches!(foreign, Err(PoolError::Affinity { cpu: Some(1023) })), "{foreign:?}");
    for empty in [vec![], vec![vec![]]] {
        assert!(matches!(build(empty), Err(PoolError::Affinity { cpu: None })));
    }
}

fn stats_say_what_the_pool_does() {
    let pool = Pool::builder().workers(2).name("counter").build().unwrap();
    pool.map_chunked(1, square, 0..50).unwrap();
    let gate = Queue::new().unwrap();
    let held: Vec<_> = (0..2).map(|_| pool.submit(hold, gate.clone()).unwrap()).collect();
    held.iter().for_each(await_begin);
    let waiting: Vec<_> = (0..5).map(|x| pool.submit(square, x).unwrap()).collect();
    let stats = pool.stats().unwrap();
    assert_eq!((stats.done, stats.failed, stats.running, stats.waiting), (50, 0, 2, 5));
    assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 50);
    for worker in &stats.workers {
        assert_eq!(worker.state, WorkerState::Running);
        assert!(worker.name.starts_with("counter-") && is_running(worker.pid));
        let since = worker.since.unwrap();
        let later = || pool.stats().unwrap().workers.iter().all(|w| w.since > Some(since));
        assert!(wait_until(DEADLOCK, later), "time stands still");
        assert!(worker.busy >= since);
    }
    held.iter().for_each(|_| gate.put(&0).unwrap());
    waiting.into_iter().for_each(|task| assert!(task.get().is_ok()));
    let idle = || {
        let stats = pool.stats().unwrap();
        stats.done == 57 && stats.workers.iter().all(|worker| worker.state == WorkerState::Idle)
    };
    assert!(wait_until(DEADLOCK, idle), "{:?}", pool.stats());
}

fn stats_count_every_end_of_a_task_once() {
    let pool = Pool::builder().workers(2).build().unwrap();
    pool.map_chunked(1, square, 0..10).unwrap();
    assert!(pool.apply(fail, ()).is_err());
    assert!(pool.apply(|()| kill(std::process::id()), ()).is_err());
    assert!(pool.timeout(SHORT).apply(block_for_ever, ()).is_err());
    let task = pool.submit(block_for_ever, ()).unwrap();
    assert!(task.cancel().unwrap());
    pool.map_chunked(1, square, 0..10).unwrap();
    let settled = || {
        let stats = pool.stats().unwrap();
        (stats.done, stats.failed, stats.lost, stats.timed_out, stats.cancelled) == (20, 1, 1, 1, 1)
            && (stats.deaths, stats.waiting, stats.running) == (1, 0, 0)
    };
    assert!(wait_until(DEADLOCK, settled), "{:?}", pool.stats());
}

/// Makes this process the head of a group of its own, as a shell does, and says who belongs to it.
fn work_in_a_group(told: Queue<Vec<u32>>) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
    let pool = pool();
    pool.map_chunked(1, worker_pid, [(); 20]).unwrap();
    told.put(&pool.worker_pids()).unwrap();
    pool.map_chunked(1, block_for_ever, [(); 100]).unwrap();
}

/// Sends what the terminal sends on Ctrl-C.
fn press_interrupt(group: u32) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::kill(-(group as i32), libc::SIGINT) }, 0);
}

fn interrupt_from_the_terminal_ends_the_program_and_its_workers() {
    let told = Queue::new().unwrap();
    let program = process::spawn(work_in_a_group, told.clone()).unwrap();
    let workers: Vec<u32> = told.get().unwrap();
    let pid = program.pid();
    press_interrupt(pid);
    let ended = wait_until(DEADLOCK, || program.exit_status().is_some());
    assert!(ended, "the program goes on");
    let status = program.exit_status();
    assert!(matches!(status, Some(ExitStatus::Signal { signal: libc::SIGINT, .. })), "{status:?}");
    let gone = || !workers.iter().any(|pid| is_running(*pid));
    assert!(wait_until(DEADLOCK, gone), "a worker was left");
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_interrupt(_signal: i32) {
    INTERRUPTS.fetch_add(1, Ordering::SeqCst);
}

/// Returns what its pool gives after the interrupt, and whether the workers are the same.
fn survive_an_interrupt(told: Queue<Vec<u32>>) -> (Vec<u64>, bool) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
    // SAFETY: the handler adds to an atomic and does nothing else.
    unsafe { libc::signal(libc::SIGINT, count_interrupt as *const () as usize) };
    let pool = pool();
    let everybody = || {
        let pids = pool.map_chunked(1, worker_pid, [(); 50]).unwrap();
        pids.into_iter().collect::<BTreeSet<_>>().len() == 2
    };
    assert!(wait_until(DEADLOCK, everybody));
    let before = pool.worker_pids();
    told.put(&before).unwrap();
    assert!(wait_until(DEADLOCK, || INTERRUPTS.load(Ordering::SeqCst) > 0));
    (pool.map(square, 0..4).unwrap(), pool.worker_pids() == before)
}

fn interrupt_that_the_owner_handles_leaves_the_workers_alone() {
    let told = Queue::new().unwrap();
    let program = process::spawn(survive_an_interrupt, told.clone()).unwrap();
    told.get().unwrap();
    press_interrupt(program.pid());
    assert_eq!(program.join().unwrap(), (vec![0, 1, 4, 9], true));
}

fn closed_pool_with_cancelled_tasks_ends() {
    let pool = pool();
    let tasks: Vec<_> = (0..50).map(|_| pool.submit(block_for_ever, ()).unwrap()).collect();
    pool.close().unwrap();
    for task in &tasks {
        assert!(task.cancel().unwrap());
    }
    pool.join_timeout(DEADLOCK).expect("the pool did not end");
    assert_eq!(pool.worker_pids(), []);
}
