//! What workers begin with, where they run and when they are replaced.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use procession::channel::Queue;
use procession::pool::{Affinity, Pool, PoolError, TaskError};
use procession_testing::process::{kill, wait_until};

use crate::{DEADLOCK, fail, square, worker_pid};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    initializer_runs_once_in_every_worker,
    initializer_that_fails_breaks_the_pool_with_the_cause,
    initializer_that_panics_breaks_the_pool_with_the_cause,
    worker_is_replaced_after_its_tasks,
    worker_that_has_grown_is_replaced,
    workers_run_where_they_are_told_to,
    processor_that_may_not_be_used_is_refused,
];

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
    assert!(reason.contains("pool_control/main.rs:") && reason.ends_with("on purpose"), "{reason}");
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
