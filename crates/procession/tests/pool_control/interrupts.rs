//! Ctrl-C in the terminal of a program with a pool.
#![allow(unsafe_code)] // Listed in SAFETY.md: `setpgid`, `kill` of a group and `pause`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use procession::channel::Queue;
use procession::process::{self, ExitStatus};
use procession_testing::process::{is_running, wait_until};

use crate::{DEADLOCK, block_for_ever, pool, square, worker_pid};

pub(crate) const TESTS: &[(&str, fn())] = procession_testing::tests![
    interrupt_from_the_terminal_ends_the_program_and_its_workers,
    interrupt_that_the_owner_handles_leaves_the_workers_alone,
];

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
