//! The helpers find what they are there to find.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;

use procession_testing::process;
use procession_testing::{LeakCheck, Watchdog};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(30);

/// How long is waited for what does not go away.
const SETTLE: Duration = Duration::from_secs(1);

/// Says in the environment what this program is to do in place of the tests.
const ROLE: &str = "PROCESSION_TESTING_ROLE";

fn main() -> ExitCode {
    procession_testing::run(
        take_role,
        procession_testing::tests![
            leak_check_finds_nothing_where_nothing_is_left,
            leak_check_finds_an_open_descriptor,
            leak_check_finds_a_zombie,
            leak_check_finds_a_thread,
            leak_check_finds_a_name_in_shared_memory,
            leak_check_leaves_out_a_name_that_another_program_has_open,
            descendants_are_found_through_their_parents,
            killed_process_no_longer_runs,
            watchdog_called_off_does_nothing,
            watchdog_ends_a_hung_process_and_shows_its_stacks,
            watchdog_kills_what_the_hung_process_started,
            failing_test_fails_the_program_and_spares_the_next,
            leaking_test_fails,
            filter_selects_tests_by_name,
        ],
    )
}

/// What the program does when a test has started it again.
#[allow(clippy::zombie_processes, reason = "the watchdog is to find the child")]
fn take_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("hang") => hang(),
        Ok("hang with a child") => {
            let child = sleeper();
            eprintln!("started {}", child.id());
            hang();
        }
        Ok("fail") => std::process::exit(i32::from(inner_tests() != ExitCode::SUCCESS)),
        _ => {}
    }
}

fn hang() -> ! {
    let _watchdog = Watchdog::arm(Duration::from_millis(100));
    let other = std::thread::Builder::new().name("the-other".into()).spawn(park_for_ever);
    drop(other);
    park_for_ever()
}

fn park_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

fn inner_tests() -> ExitCode {
    procession_testing::run(|| {}, procession_testing::tests![panics, leaks, succeeds])
}

#[allow(clippy::zombie_processes, reason = "the harness is to find the child")]
fn panics() {
    let child = sleeper();
    panic!("the child {} is left running", child.id());
}

fn leaks() {
    drop(sleeper());
}

fn succeeds() {}

/// This program again, in another role.
fn start_again(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // A leak is one after a quarter of the limit.
    command.env(ROLE, role).env("PROCESSION_TEST_TIMEOUT", "12");
    command
}

/// A child that does nothing until it is killed.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn leak_check_finds_nothing_where_nothing_is_left() {
    let check = LeakCheck::begin();
    assert!(Command::new("true").status().unwrap().success());
    std::thread::spawn(|| {}).join().unwrap();
    drop(File::open("/dev/null").unwrap());
    check.finish(DEADLOCK).unwrap();
}

fn leak_check_finds_an_open_descriptor() {
    let check = LeakCheck::begin();
    let _file = File::open("/dev/null").unwrap();
    let leaks = check.finish(SETTLE).unwrap_err();
    assert!(leaks.to_string().contains("/dev/null"), "it does not say what is open: {leaks}");
}

fn leak_check_finds_a_zombie() {
    let check = LeakCheck::begin();
    let mut child = Command::new("true").spawn().unwrap();
    let leaks = check.finish(SETTLE).unwrap_err();
    assert_eq!(leaks.children, [child.id()], "the zombie is the only child that was left");
    child.wait().unwrap();
}

fn leak_check_finds_a_thread() {
    let check = LeakCheck::begin();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("left-over".into())
        .spawn(move || stopped.recv().unwrap_err())
        .unwrap();
    let leaks = check.finish(SETTLE).unwrap_err();
    assert!(leaks.to_string().contains("left-over"), "it does not name the thread: {leaks}");
    drop(stop);
    thread.join().unwrap();
}

fn leak_check_finds_a_name_in_shared_memory() {
    let check = LeakCheck::begin();
    let name = format!("procession-testing-{}", std::process::id());
    let path = format!("/dev/shm/{name}");
    drop(File::create(&path).unwrap());
    let leaks = check.finish(SETTLE).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert!(leaks.shared_memory.contains(&name), "the name was not found: {leaks}");
}

fn leak_check_leaves_out_a_name_that_another_program_has_open() {
    let check = LeakCheck::begin();
    let path = format!("/dev/shm/procession-testing-{}-open", std::process::id());
    drop(File::create(&path).unwrap());
    // Its parent has ended when the shell has, so that it is no descendant of this program.
    let script = format!("sh -c 'echo $$; exec sleep 1000' 3<{path} &");
    let mut shell =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    shell.wait().unwrap();
    let found = check.finish(SETTLE);
    process::kill(pid.trim().parse().unwrap());
    std::fs::remove_file(path).unwrap();
    found.unwrap();
}

fn descendants_are_found_through_their_parents() {
    let mut shell = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
    let found = process::wait_until(DEADLOCK, || process::descendants(shell.id()).len() == 1);
    assert!(found, "the shell's child was not found");
    for pid in process::descendants(shell.id()) {
        process::kill(pid);
    }
    shell.wait().unwrap();
}

fn killed_process_no_longer_runs() {
    let mut child = sleeper();
    assert!(process::is_running(child.id()), "a process that sleeps counts as running");
    process::kill(child.id());
    let gone = process::wait_until(DEADLOCK, || !process::is_running(child.id()));
    assert!(gone, "a zombie counts as running");
    child.wait().unwrap();
    process::kill(child.id()); // is gone, which is no error
}

fn watchdog_called_off_does_nothing() {
    let watchdog = Watchdog::arm(Duration::from_millis(20));
    drop(watchdog);
    assert!(!process::wait_until(Duration::from_millis(60), || false), "nothing to wait for");
}

fn watchdog_ends_a_hung_process_and_shows_its_stacks() {
    let output = start_again("hang").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc_sigabrt()), "the process was not aborted");
    let report = text(&output);
    assert!(report.contains("the-other"), "no line for the second thread: {report}");
    let stacks = report.matches("park_for_ever").count();
    assert!(stacks >= 2, "{stacks} of 2 stacks in the report: {report}");
}

fn watchdog_kills_what_the_hung_process_started() {
    let output = start_again("hang with a child").output().unwrap();
    let report = text(&output);
    let pid = report.lines().find_map(|line| line.strip_prefix("started ")).unwrap();
    let pid = pid.parse().unwrap();
    let gone = process::wait_until(DEADLOCK, || !process::is_running(pid));
    assert!(gone, "process {pid} outlived the watchdog");
}

fn failing_test_fails_the_program_and_spares_the_next() {
    let output = start_again("fail").output().unwrap();
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "a failed test was not reported: {report}");
    assert!(report.contains("1 passed; 2 failed"), "wrong counts: {report}");
}

fn leaking_test_fails() {
    let output = start_again("fail").args(["--exact", "leaks"]).output().unwrap();
    let report = text(&output);
    assert!(report.contains("left behind: child processes"), "not reported: {report}");
}

fn filter_selects_tests_by_name() {
    let output = start_again("fail").arg("succ").output().unwrap();
    let report = text(&output);
    assert_eq!(output.status.code(), Some(0), "the only test selected succeeds: {report}");
    assert!(report.contains("1 passed; 0 failed"), "wrong counts: {report}");
}

/// The number of `SIGABRT`, without a dependency for it.
fn libc_sigabrt() -> i32 {
    6
}
