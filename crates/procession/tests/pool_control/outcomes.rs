//! How the outcome of a task is told: errors, callbacks, futures.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use procession::channel::Queue;
use procession::pool::{Pool, TaskError, TryError};
use procession_testing::process::kill;
use serde::{Deserialize, Serialize};

use crate::{DEADLOCK, block_for_ever, fail, hold, pool, square};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    error_of_the_function_comes_through_with_its_type,
    retries_of_a_call_count_for_it_alone,
    callback_is_called_with_the_value,
    callback_is_told_of_a_death_and_of_the_end,
    task_is_a_future,
    future_of_a_finished_task_is_ready_at_once,
];

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
