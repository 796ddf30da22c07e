//! Processes: what they return, and how their ends are reported.

use std::env;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use procession::process::{
    self, BOOT_VARIABLE, Builder, Exec, ExitStatus, JoinError, JoinHandle, PreparedFork,
    SpawnError, StartMethod, active_children, spawn, stop_fork_server,
};
use procession::shm::Arena;
use procession_testing::ROLE;
use procession_testing::process::{children, kill, reap};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn main() -> ExitCode {
    procession_testing::run_by_role(
        other_main,
        process::init,
        procession_testing::tests![
            spawned_function_returns_its_value,
            closure_that_captures_nothing_can_be_spawned,
            forked_closure_sees_what_it_captured,
            function_can_be_started_by_every_method,
            panic_comes_back_with_message_and_place,
            exit_inside_the_function_is_reported,
            killed_child_is_reported_with_its_signal,
            child_that_dies_while_reading_its_arguments_never_started,
            arguments_that_do_not_deserialize_are_reported,
            arguments_that_do_not_serialize_start_nothing,
            value_that_does_not_serialize_is_reported,
            value_that_does_not_deserialize_is_reported,
            fork_is_refused_while_other_threads_run,
            children_are_called_after_their_place_in_the_tree,
            join_timeout_gives_nothing_before_the_end_and_the_value_after,
            every_thread_that_waits_gets_the_status,
            status_collected_by_somebody_else_is_unknown,
            sibling_can_be_waited_for_in_a_forked_child,
            ignored_child_signal_hides_the_status_and_not_the_value,
            fork_by_other_means_gives_a_child_to_wait_for,
            abandoned_fork_leaves_nothing,
            own_sentinel_tells_a_child_of_the_end,
            signals_to_an_ended_child_do_nothing,
            boot_variable_is_seen_by_nobody_else,
            descriptors_are_inherited_only_on_request,
            missing_program_is_reported_at_start,
            image_that_forgot_init_cannot_start_processes,
            payload_of_another_build_is_refused,
            forked_child_flushes_once_and_runs_no_exit_handlers,
            large_values_travel_both_ways
        ],
    )
}

fn add((a, b): (u64, u64)) -> u64 {
    a + b
}

fn spawned_function_returns_its_value() {
    let handle = spawn(add, (40, 2)).unwrap();
    assert_ne!(handle.pid(), std::process::id(), "it must run in another process");
    assert_eq!(handle.join().unwrap(), 42);
}

fn closure_that_captures_nothing_can_be_spawned() {
    let handle = spawn(|text: String| text.len(), "four".to_owned()).unwrap();
    assert_eq!(handle.join().unwrap(), 4);
}

fn forked_closure_sees_what_it_captured() {
    let words = ["one".to_owned(), "two".to_owned()];
    let handle = Builder::new().fork(|| words.join(" ")).unwrap();
    assert_eq!(handle.join().unwrap(), "one two");
}

fn function_can_be_started_by_every_method() {
    for (_, outcome) in outcomes(add, (1, 2)) {
        assert_eq!(outcome.unwrap(), 3);
    }
}

fn fail_with(text: String) -> u32 {
    panic!("cannot: {text}")
}

/// Starts `function` by each method and joins it.
fn outcomes<F, A, R>(function: F, args: A) -> [(u32, Result<R, JoinError>); 3]
where
    F: Fn(A) -> R + Copy + Send + 'static,
    A: Serialize + DeserializeOwned + Clone,
    R: Serialize + DeserializeOwned,
{
    let outcomes = StartMethod::ALL.map(|method| {
        let handle = Builder::new().start_method(method).spawn(function, args.clone()).unwrap();
        (handle.pid(), handle.join())
    });
    end_fork_server();
    outcomes
}

/// Has the fork server end, which would be there at the end of a test otherwise.
fn end_fork_server() {
    if let Some(server) = stop_fork_server() {
        let status = server.wait(None).unwrap();
        // Unknown where a test has the system ignore the ends of children.
        assert!(matches!(status, ExitStatus::Code(0) | ExitStatus::Unknown), "{status}");
    }
}

fn panic_comes_back_with_message_and_place() {
    for (started, outcome) in outcomes(fail_with, "no paper".to_owned()) {
        let error = outcome.unwrap_err();
        let text = error.to_string();
        let JoinError::Panicked { pid, message, location, .. } = error else {
            panic!("not a panic: {text}");
        };
        assert_eq!((pid, message.as_str()), (started, "cannot: no paper"));
        assert!(location.unwrap().contains("process.rs:"), "the place is missing: {text}");
        assert!(text.contains("no paper") && text.contains("process-"), "{text}");
    }
}

fn leave_with(code: i32) -> u32 {
    std::process::exit(code)
}

fn exit_inside_the_function_is_reported() {
    for code in [0, 3] {
        for (started, outcome) in outcomes(leave_with, code) {
            match outcome {
                Err(JoinError::Died { pid, status, .. }) => {
                    assert_eq!((pid, status), (started, ExitStatus::Code(code)));
                }
                other => panic!("exit code {code} became {other:?}"),
            }
        }
    }
}

fn shoot_myself(_: ()) -> u32 {
    kill(std::process::id());
    unreachable!("the signal cannot be ignored")
}

fn killed_child_is_reported_with_its_signal() {
    for (started, outcome) in outcomes(shoot_myself, ()) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, JoinError::Died { pid, .. } if pid == started), "{error:?}");
        assert!(error.to_string().contains("SIGKILL"), "{error}");
        assert!(error.to_string().contains(&started.to_string()), "{error}");
    }
}

/// Does something unusual while it is serialized or deserialized.
#[derive(Debug, Clone, Copy)]
enum Trick {
    RefuseToWrite,
    RefuseToRead,
    PanicInReading,
    DieInReading,
}

impl Serialize for Trick {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::RefuseToWrite => Err(S::Error::custom("not for export")),
            Self::RefuseToRead => serializer.serialize_u8(0),
            Self::PanicInReading => serializer.serialize_u8(1),
            Self::DieInReading => serializer.serialize_u8(2),
        }
    }
}

impl<'de> Deserialize<'de> for Trick {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => panic!("not my taste"),
            2 => std::process::exit(9),
            _ => Err(D::Error::custom("not for import")),
        }
    }
}

fn take(_: Trick) {}

fn give(_: ()) -> Trick {
    Trick::RefuseToWrite
}

fn give_unreadable(_: ()) -> Trick {
    Trick::RefuseToRead
}

fn child_that_dies_while_reading_its_arguments_never_started() {
    let error = spawn(take, Trick::DieInReading).unwrap().join().unwrap_err();
    match &error {
        JoinError::NeverStarted { status: ExitStatus::Code(9), reason: None, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains("procession::init()"), "{error}");
}

fn arguments_that_do_not_deserialize_are_reported() {
    let tricks = [(Trick::RefuseToRead, "deserialized"), (Trick::PanicInReading, "not my taste")];
    for (trick, expected) in tricks {
        match spawn(take, trick).unwrap().join() {
            Err(JoinError::NeverStarted { reason: Some(reason), .. }) => {
                assert!(reason.contains(expected), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn arguments_that_do_not_serialize_start_nothing() {
    let before = children(std::process::id());
    let error = spawn(take, Trick::RefuseToWrite).unwrap_err();
    assert!(matches!(error, SpawnError::Encode { .. }), "{error:?}");
    assert_eq!(children(std::process::id()), before);
}

fn value_that_does_not_serialize_is_reported() {
    for (_, outcome) in outcomes(give, ()) {
        assert!(matches!(outcome, Err(JoinError::Unsendable { .. })), "{outcome:?}");
    }
}

fn value_that_does_not_deserialize_is_reported() {
    for (_, outcome) in outcomes(give_unreadable, ()) {
        assert!(matches!(outcome, Err(JoinError::Decode { .. })), "{outcome:?}");
    }
}

fn fork_is_refused_while_other_threads_run() {
    let (finish, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv());
    let error = Builder::new().fork(|| ()).unwrap_err();
    assert!(matches!(error, SpawnError::Threads { count: 2 }), "{error:?}");
    drop(finish);
    other.join().unwrap().unwrap_err();
    // A thread that was joined is not in the way, even if the system still lists it.
    Builder::new().fork(|| ()).unwrap().join().unwrap();
}

fn own_name(_: ()) -> String {
    process::current().name().to_owned()
}

fn names_below(_: ()) -> (String, Vec<String>) {
    let spawned = spawn(own_name, ()).unwrap().join().unwrap();
    let forked = Builder::new().fork(|| own_name(())).unwrap().join().unwrap();
    (own_name(()), vec![spawned, forked])
}

fn children_are_called_after_their_place_in_the_tree() {
    assert_eq!(own_name(()), "main");
    for (_, outcome) in outcomes(names_below, ()) {
        let (name, below) = outcome.unwrap();
        assert!(name.strip_prefix("process-").unwrap().parse::<u32>().is_ok(), "{name}");
        assert_eq!(below, [format!("{name}:1"), format!("{name}:2")]);
    }
    let handle = Builder::new().name("scribe").spawn(names_below, ()).unwrap();
    assert_eq!(handle.name(), "scribe");
    let (name, below) = handle.join().unwrap();
    assert_eq!(name, "scribe");
    assert!(below[0].ends_with(":1") && below[0].starts_with("process-"), "{below:?}");
}

/// A forked child that runs until the returned end of a pipe is dropped.
fn child_at_a_gate() -> (JoinHandle<u32>, std::io::PipeWriter) {
    let (mut gate, opener) = std::io::pipe().unwrap();
    let opener_here = opener.as_raw_fd();
    let handle = Builder::new()
        .fork(|| {
            // The child has a copy of the opener, which it must close to see that ours is closed.
            close(opener_here);
            std::io::copy(&mut gate, &mut std::io::sink()).unwrap();
            5
        })
        .unwrap();
    (handle, opener)
}

/// Closes a descriptor that a fork has duplicated along with its owner.
fn close(descriptor: i32) {
    // SAFETY: the owner's drop does not run in this process, which ends without unwinding.
    #[allow(unsafe_code)]
    unsafe {
        rustix::io::close(descriptor);
    }
}

fn join_timeout_gives_nothing_before_the_end_and_the_value_after() {
    let (handle, opener) = child_at_a_gate();
    assert!(handle.join_timeout(Duration::ZERO).unwrap().is_none());
    assert!(handle.join_timeout(Duration::from_millis(5)).unwrap().is_none());
    assert!(handle.is_alive() && handle.exit_status().is_none());
    drop(opener);
    assert_eq!(handle.join_timeout(Duration::MAX).unwrap(), Some(5));
    assert_eq!(handle.join_timeout(Duration::ZERO).unwrap(), Some(5), "it can be had again");
    assert_eq!(handle.exit_status(), Some(ExitStatus::Code(0)));
    assert_eq!(handle.join().unwrap(), 5);
}

fn every_thread_that_waits_gets_the_status() {
    let (handle, opener) = child_at_a_gate();
    let child = handle.child();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| child.wait(None).unwrap())).collect();
        child.terminate().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().signal(), Some(15));
        }
    });
    drop(opener);
}

fn status_collected_by_somebody_else_is_unknown() {
    let (handle, opener) = child_at_a_gate();
    drop(opener);
    reap(handle.pid());
    assert_eq!(handle.child().wait(None).unwrap(), ExitStatus::Unknown);
    assert_eq!(handle.exit_status().unwrap().python_exitcode(), 255);
    assert_eq!(handle.join().unwrap(), 5, "the value is there all the same");
}

fn sibling_can_be_waited_for_in_a_forked_child() {
    let (sibling, opener) = child_at_a_gate();
    let opener_here = opener.as_raw_fd();
    let watcher = Builder::new()
        .fork(|| {
            close(opener_here);
            let alive = sibling.is_alive();
            sibling.kill().unwrap();
            (alive, sibling.child().wait(None).unwrap().python_exitcode())
        })
        .unwrap();
    assert_eq!(watcher.join().unwrap(), (true, 255));
    assert_eq!(sibling.child().wait(None).unwrap().signal(), Some(9));
    drop(opener);
}

fn ignored_child_signal_hides_the_status_and_not_the_value() {
    /// Sets what is done about `SIGCHLD`.
    fn set(action: libc::sighandler_t) {
        // SAFETY: neither the default action nor ignoring runs any code of ours.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(libc::SIGCHLD, action);
        }
    }
    set(libc::SIG_IGN);
    for (_, outcome) in outcomes(add, (2, 3)) {
        assert_eq!(outcome.unwrap(), 5);
    }
    let handle = spawn(leave_with, 1).unwrap();
    let error = handle.join().unwrap_err();
    set(libc::SIG_DFL);
    assert!(matches!(error, JoinError::Died { status: ExitStatus::Unknown, .. }), "{error:?}");
}

fn fork_by_other_means_gives_a_child_to_wait_for() {
    let prepared = PreparedFork::prepare().unwrap();
    let (mut gate, opener) = std::io::pipe().unwrap();
    // SAFETY: this is the only thread.
    #[allow(unsafe_code)]
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(opener);
        prepared.in_child(false).unwrap();
        // Until the parent has seen that it lives.
        std::io::copy(&mut gate, &mut std::io::sink()).unwrap();
        let started = Builder::new().fork(|| 7).unwrap().join();
        // SAFETY: ends the process, which is a copy that must not return into the tests.
        #[allow(unsafe_code)]
        unsafe {
            libc::_exit(started.unwrap_or(1));
        }
    }
    let child = prepared.in_parent(pid.try_into().unwrap()).unwrap();
    assert_eq!(active_children().len(), 1);
    drop(opener);
    assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(7));
    assert!(active_children().is_empty());
}

fn abandoned_fork_leaves_nothing() {
    let members = || Arena::current().unwrap().stats().members;
    drop(PreparedFork::prepare().unwrap());
    let before = members();
    PreparedFork::prepare().unwrap().abandon();
    assert_eq!(members(), before);
}

fn own_sentinel_tells_a_child_of_the_end() {
    let sentinel = process::own_sentinel().unwrap();
    let ended = |sentinel: &OwnedFd| {
        let mut poll = [PollFd::new(sentinel, PollFlags::IN)];
        rustix::event::poll(&mut poll, Some(&Timespec::default())).unwrap() == 1
    };
    assert!(!ended(&sentinel));
    let handle = Builder::new()
        .fork(|| {
            let parent = process::own_sentinel().unwrap();
            let child = Builder::new().fork(|| !ended(&sentinel) && !ended(&parent)).unwrap();
            child.join().unwrap()
        })
        .unwrap();
    assert!(handle.join().unwrap());
}

fn signals_to_an_ended_child_do_nothing() {
    let handle = spawn(add, (1, 1)).unwrap();
    let child = handle.child().clone();
    handle.join().unwrap();
    child.terminate().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(0));
}

fn environment(_: ()) -> (bool, String) {
    let output = Command::new("env").output().unwrap();
    (env::var_os(BOOT_VARIABLE).is_some(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn boot_variable_is_seen_by_nobody_else() {
    for (_, outcome) in outcomes(environment, ()) {
        let (in_child, in_grandchild) = outcome.unwrap();
        assert!(!in_child, "the child still has the variable");
        assert!(!in_grandchild.contains(BOOT_VARIABLE), "{in_grandchild}");
    }
    assert!(env::var_os(BOOT_VARIABLE).is_none(), "the parent has the variable");
}

fn open_descriptors(_: ()) -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    list.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

fn descriptors_are_inherited_only_on_request() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (sibling, gate) = child_at_a_gate();
    let open = spawn(open_descriptors, ()).unwrap().join().unwrap();
    let arenas = open.iter().filter(|target| target.contains("procession-arena")).count();
    assert_eq!(arenas, 1, "{open:?}");
    assert!(!open.iter().any(|target| target.contains("pidfd")), "{open:?}");
    drop(gate);
    sibling.join().unwrap();

    let script = format!("echo hello >&{}", writer.as_raw_fd());
    let child = Exec::new("/bin/sh")
        .args(["sh", "-c", &script])
        .inherit([writer.as_raw_fd()])
        .start()
        .unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "hello\n");
    assert!(child.wait(None).unwrap().success());
    let error = Exec::new("/bin/true").inherit([999_999]).start().unwrap_err();
    assert!(matches!(error, SpawnError::Os { call: "fcntl", .. }), "{error:?}");
}

fn missing_program_is_reported_at_start() {
    match Exec::new("/nowhere/at-all").args(["at-all"]).start() {
        Err(SpawnError::Os { source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

fn image_that_forgot_init_cannot_start_processes() {
    let child = Exec::new(env::current_exe().unwrap())
        .args(["forgetful"])
        .env(ROLE, "forgetful")
        .start()
        .unwrap();
    assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(42));
}

fn payload_of_another_build_is_refused() {
    // An offset of zero, and a build id that is not ours.
    let mut foreign = vec![0];
    foreign.extend([0xEE; 16]);
    let payload = procession::shm::Parcel::new(foreign, procession::shm::Pins::default());
    let child = Exec::new("/proc/self/exe").args(["child"]).payload(payload).start().unwrap();
    assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(1));
}

fn forked_child_flushes_once_and_runs_no_exit_handlers() {
    let output = Command::new(env::current_exe().unwrap()).env(ROLE, "printing").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "before child after exit");
    assert!(output.status.success());
}

fn double((numbers, factor): (Vec<u64>, u64)) -> Vec<u64> {
    numbers.into_iter().map(|number| number * factor).collect()
}

fn large_values_travel_both_ways() {
    let numbers: Vec<u64> = (0..300_000).collect();
    for (_, outcome) in outcomes(double, (numbers.clone(), 2)) {
        assert!(outcome.unwrap().into_iter().eq(numbers.iter().map(|number| number * 2)));
    }
}

/// The main function of images that are no tests.
fn other_main(role: &str) -> ExitCode {
    match role {
        "forgetful" => {
            // Does not call `init`, and tries to start a process by each way there is.
            let spawned = spawn(add, (1, 2)).map(drop);
            let forked = Builder::new().fork(|| ()).map(drop);
            let executed = Exec::new("/bin/true").start().map(drop);
            let refused = [spawned, forked, executed]
                .iter()
                .all(|result| matches!(result, Err(SpawnError::NotInitialized)));
            ExitCode::from(if refused { 42 } else { 1 })
        }
        "printing" => printing_main(),
        other => panic!("no role is called {other}"),
    }
}

#[allow(clippy::print_stdout, reason = "what is printed is the test")]
fn printing_main() -> ExitCode {
    extern "C" fn at_exit() {
        print!(" exit");
        std::io::Write::flush(&mut std::io::stdout()).unwrap();
    }
    process::init();
    // SAFETY: the handler is a plain function that may run at any time.
    #[allow(unsafe_code)]
    unsafe {
        libc::atexit(at_exit);
    }
    print!("before");
    Builder::new().fork(|| print!(" child")).unwrap().join().unwrap();
    print!(" after");
    ExitCode::SUCCESS
}
