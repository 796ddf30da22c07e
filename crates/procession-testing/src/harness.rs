//! The main function of a test program whose tests start processes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::leaks::LeakCheck;
use crate::watchdog::Watchdog;
use crate::{interrupt, process};

/// Only a deadlock takes this long. `PROCESSION_TEST_TIMEOUT`, in seconds, overrides it.
const DEADLOCK: Duration = Duration::from_secs(300);

/// What a test leaves behind is a leak if it is still there after a quarter of its limit. A machine with
/// much to do takes its time to end a killed process.
const SETTLE: u32 = 4;

/// Runs the listed tests on the main thread, one after the other, and reports them in the way of
/// the built-in test main.
///
/// `init` is called before anything else. Around each test a [`Watchdog`] is armed, and a test
/// that leaves a child process, a thread, a descriptor or a name in `/dev/shm` fails. Processes
/// that a failed test left are killed, so that they do not spoil the next one.
///
/// A test whose name begins with `soak_` takes minutes; it runs with `--include-ignored` only.
///
/// # Panics
///
/// Panics if no test is listed, or if `PROCESSION_TEST_TIMEOUT` is not a number of seconds.
#[must_use]
pub fn run(init: fn(), tests: &[(&'static str, fn())]) -> ExitCode {
    interrupt::heed();
    init();
    assert!(!tests.is_empty(), "a test program without tests tests nothing");
    let mut arguments = Arguments::from_args();
    // One thread means the main thread, without any other: only then may a test fork.
    arguments.test_threads.get_or_insert(1);
    let limit = limit();
    let trials = tests.iter().map(|&(name, test)| trial(name, test, limit)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Says, as a variable of the environment, what an image of a test program does instead of testing.
pub const ROLE: &str = "PROCESSION_TEST_ROLE";

/// Calls `other` with what [`ROLE`] says, first thing; [`run`]s the tests in an image without it.
///
/// # Panics
///
/// As [`run`].
#[must_use]
pub fn run_by_role(
    other: fn(&str) -> ExitCode,
    init: fn(),
    tests: &[(&'static str, fn())],
) -> ExitCode {
    match std::env::var(ROLE) {
        Ok(role) => other(&role),
        Err(_) => run(init, tests),
    }
}

fn trial(name: &str, test: fn(), limit: Duration) -> Trial {
    Trial::test(name, move || guarded(test, limit)).with_ignored_flag(name.starts_with("soak_"))
}

fn limit() -> Duration {
    match std::env::var("PROCESSION_TEST_TIMEOUT") {
        Ok(seconds) => Duration::from_secs(
            seconds.parse().expect("PROCESSION_TEST_TIMEOUT is a whole number of seconds"),
        ),
        Err(_) => DEADLOCK,
    }
}

fn guarded(test: fn(), limit: Duration) -> Result<(), Failed> {
    let _watchdog = Watchdog::arm(limit);
    let check = LeakCheck::begin();
    let outcome = catch_unwind(AssertUnwindSafe(test));
    let leaks = if outcome.is_ok() { check.finish(limit / SETTLE) } else { Ok(()) };
    if outcome.is_err() || leaks.is_err() {
        for pid in check.new_children() {
            process::kill(pid);
            process::reap(pid);
        }
    }
    match outcome {
        Ok(()) => Ok(leaks?),
        Err(panic) => resume_unwind(panic),
    }
}
