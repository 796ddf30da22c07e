//! Starting and joining a process that does nothing, by every method, beside the bare system calls.
//!
//! One after the other: each process is joined before the next one is started.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::env;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::{Duration, Instant};

use procession::process::{Builder, StartMethod};
use procession_testing::Report;

/// Given as the argument to images of this program that are to end at once.
const END: &CStr = c"end";

fn main() {
    if env::args_os().nth(1).is_some_and(|argument| argument.as_encoded_bytes() == END.to_bytes()) {
        return;
    }
    procession::init();
    let mut report = Report::new("process");
    let own = env::current_exe().expect("the path of this program");
    let own = CString::new(own.into_os_string().into_encoded_bytes()).expect("no zero byte");
    let count = report.scaled(2_000);
    report.measure("bare fork and waitpid", "processes", || timed(count, bare_fork));
    report.measure("fork", "processes", || timed(count, || start(StartMethod::Fork)));
    report.measure("forkserver", "processes", || timed(count, || start(StartMethod::ForkServer)));
    let count = report.scaled(500);
    report.measure("bare posix_spawn of true", "processes", || {
        timed(count, || bare_spawn(c"/bin/true", c"true"))
    });
    report.measure("bare posix_spawn of itself", "processes", || {
        timed(count, || bare_spawn(&own, END))
    });
    report.measure("spawn", "processes", || timed(count, || start(StartMethod::Spawn)));
    report.finish();
}

fn timed(count: u64, mut start_and_join: impl FnMut()) -> (u64, Duration) {
    // The first one may set up what the others use.
    start_and_join();
    let start = Instant::now();
    for _ in 0..count {
        start_and_join();
    }
    (count, start.elapsed())
}

fn nothing(_: ()) {}

fn start(method: StartMethod) {
    let handle = Builder::new().start_method(method).spawn(nothing, ());
    handle.expect("a process can be started").join().expect("it ends well");
}

fn bare_fork() {
    // SAFETY: this is the only thread, and the child ends at once.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    wait(pid);
}

fn bare_spawn(program: &CStr, argument: &CStr) {
    let arguments = [program.as_ptr().cast_mut(), argument.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: strings that end with a zero byte, lists that end with a null pointer, all of them
    // borrowed for the call; no actions and no attributes.
    let result = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    assert_eq!(result, 0, "{program:?} cannot be started");
    wait(pid);
}

fn wait(pid: i32) {
    let mut status = 0;
    // SAFETY: the status is borrowed for the call.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the process did not end well");
}
