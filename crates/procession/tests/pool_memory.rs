//! A pool in an arena that is too small for what it is given.
#![allow(unsafe_code)] // Sets an environment variable.

use std::collections::BTreeSet;
use std::process::ExitCode;

use procession::pool::{Pool, PoolError, TaskError};
use procession::process;

/// Room for a few tasks of one megabyte, besides what the pool itself needs.
const LIMIT: &str = "16M";
const MEGABYTE: usize = 1 << 20;

fn main() -> ExitCode {
    // SAFETY: this process has one thread. Its children have the variable from it.
    unsafe { std::env::set_var("PROCESSION_ARENA_MAX", LIMIT) };
    procession_testing::run(
        process::init,
        procession_testing::tests![
            arguments_beyond_the_limit_wait_for_their_turn,
            values_beyond_the_limit_wait_for_their_turn,
            both_beyond_the_limit_wait_for_their_turn,
            many_small_tasks_beyond_the_limit_wait_for_their_turn,
            value_that_never_fits_fails_its_task,
            values_that_do_not_fit_together_fail_their_tasks,
            argument_that_never_fits_is_refused
        ],
    )
}

/// Text, which is serialized in one piece, where a `Vec<u8>` goes byte by byte.
fn megabyte(seed: u8) -> String {
    char::from(seed).to_string().repeat(MEGABYTE)
}

/// The seed of an unharmed megabyte.
fn seed(megabyte: &str) -> u8 {
    let bytes = megabyte.as_bytes();
    assert!(bytes.len() == MEGABYTE && bytes.iter().all(|byte| *byte == bytes[0]));
    bytes[0]
}

fn arguments_beyond_the_limit_wait_for_their_turn() {
    let pool = Pool::new(2).unwrap();
    let seeds = pool.map_chunked(1, |text: String| seed(&text), (0..60).map(megabyte));
    assert_eq!(seeds.unwrap(), (0..60).collect::<Vec<_>>());
}

fn values_beyond_the_limit_wait_for_their_turn() {
    let pool = Pool::new(2).unwrap();
    let values = pool.imap_unordered(megabyte, 0..60).unwrap();
    let seeds: BTreeSet<u8> = values.map(|value| seed(&value.unwrap())).collect();
    assert_eq!(seeds, (0..60).collect());
}

fn both_beyond_the_limit_wait_for_their_turn() {
    let pool = Pool::new(2).unwrap();
    let values = pool.imap_unordered(|text: String| text, (0..60).map(megabyte)).unwrap();
    let seeds: BTreeSet<u8> = values.map(|value| seed(&value.unwrap())).collect();
    assert_eq!(seeds, (0..60).collect());
}

fn many_small_tasks_beyond_the_limit_wait_for_their_turn() {
    let pool = Pool::new(2).unwrap();
    let items = (0..40_000_u64).map(|n| (n, "x".repeat(500)));
    let values = pool.map_chunked(1, |(n, text): (u64, String)| n + text.len() as u64, items);
    assert_eq!(values.unwrap(), (500..40_500).collect::<Vec<_>>());
}

fn value_that_never_fits_fails_its_task() {
    let pool = Pool::new(2).unwrap();
    match pool.apply(|len: usize| "x".repeat(len), 100 * MEGABYTE) {
        Err(TaskError::Unsendable { reason }) => assert!(reason.contains("bytes"), "{reason}"),
        other => panic!("{:?}", other.map(|value| value.len())),
    }
    assert_eq!(pool.apply(|x: u8| x, 1).unwrap(), 1);
}

fn values_that_do_not_fit_together_fail_their_tasks() {
    let pool = Pool::new(2).unwrap();
    // All values of a map are there at once.
    assert!(matches!(pool.map_chunked(1, megabyte, 0..60), Err(TaskError::Unsendable { .. })));
    assert_eq!(pool.apply(|x: u8| x, 1).unwrap(), 1);
}

fn argument_that_never_fits_is_refused() {
    let pool = Pool::new(2).unwrap();
    let result = pool.apply(|text: String| text.len(), "x".repeat(100 * MEGABYTE));
    assert!(matches!(result, Err(TaskError::Pool(PoolError::Arena(_)))), "{result:?}");
    assert_eq!(pool.apply(|x: u8| x, 1).unwrap(), 1);
}
