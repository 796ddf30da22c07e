//! What a process finds around it: environment, folder, standard descriptors, its parent; and the
//! events that its start and end give.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use procession::WaitError;
use procession::process::{
    self, Builder, JoinError, JoinHandle, SpawnError, StartMethod, Stdio, stop_fork_server,
};
use procession_testing::process::{is_running, kill, wait_until};
use rustix::event::{PollFd, PollFlags};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Only a failure takes this long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            variables_are_set_removed_and_cleared_in_order,
            impossible_variables_are_refused_at_the_start,
            folder_is_the_one_asked_for,
            folder_is_that_of_the_starting_process_by_default,
            missing_folder_is_reported_by_join,
            standard_descriptors_can_be_replaced,
            null_gives_nothing_and_takes_all,
            reader_sees_the_end_when_the_child_has_ended,
            interrupt_ends_a_child_by_its_signal,
            root_has_no_parent,
            child_knows_its_parent,
            child_sees_the_end_of_its_parent,
            events_tell_of_start_end_and_death
        ],
    )
}

/// Builders for each method; the fork server of the last one ends with the list.
fn each_method(test: impl Fn(&dyn Fn() -> Builder, StartMethod)) {
    for method in StartMethod::ALL {
        test(&|| Builder::new().start_method(method), method);
    }
    if let Some(server) = stop_fork_server() {
        assert!(server.wait(None).unwrap().success(), "the fork server has failed");
    }
}

fn variables(_: ()) -> BTreeMap<String, String> {
    env::vars().filter(|(name, _)| name.starts_with("PROCESSION_SETUP") || name == "PATH").collect()
}

fn variables_are_set_removed_and_cleared_in_order() {
    each_method(|builder, method| {
        let start = |builder: Builder| builder.spawn(variables, ()).unwrap().join().unwrap();
        let path = env::var("PATH").unwrap();

        let set =
            start(builder().env("PROCESSION_SETUP_A", "1").envs([("PROCESSION_SETUP_B", "")]));
        let [a, b] = ["PROCESSION_SETUP_A", "PROCESSION_SETUP_B"].map(str::to_owned);
        let with_path = ("PATH".to_owned(), path);
        assert_eq!(
            set,
            [with_path, (a.clone(), "1".into()), (b, String::new())].into(),
            "{method}"
        );

        assert!(start(builder().env_remove("PATH")).is_empty(), "{method}");
        let cleared = builder().env("PROCESSION_SETUP_B", "2").env_clear();
        let cleared = start(cleared.env("PROCESSION_SETUP_A", "1").env("PROCESSION_SETUP_A", "2"));
        assert_eq!(cleared, [(a, "2".into())].into(), "{method}");
    });
    assert!(env::var_os("PROCESSION_SETUP_A").is_none(), "this process was changed");
}

fn impossible_variables_are_refused_at_the_start() {
    each_method(|builder, method| {
        let error = builder().env("A=B", "1").spawn(variables, ()).unwrap_err();
        assert!(matches!(&error, SpawnError::VariableName { name } if name == "A=B"), "{method}");
        let error = builder().env("A", "x\0").spawn(variables, ()).unwrap_err();
        assert!(
            matches!(&error, SpawnError::ZeroByte { text } if text == "x"),
            "{method}: {error}"
        );
    });
}

fn folder(_: ()) -> String {
    env::current_dir().unwrap().to_str().unwrap().to_owned()
}

fn folder_is_the_one_asked_for() {
    each_method(|builder, method| {
        let handle = builder().current_dir("/proc").spawn(folder, ()).unwrap();
        assert_eq!(handle.join().unwrap(), "/proc", "{method}");
    });
}

fn folder_is_that_of_the_starting_process_by_default() {
    each_method(|builder, method| {
        builder().spawn(folder, ()).unwrap().join().unwrap();
        let before = env::current_dir().unwrap();
        env::set_current_dir("/proc").unwrap();
        let handle = builder().spawn(folder, ()).unwrap();
        env::set_current_dir(before).unwrap();
        assert_eq!(handle.join().unwrap(), "/proc", "{method}");
    });
}

fn missing_folder_is_reported_by_join() {
    each_method(|builder, method| {
        let handle = builder().current_dir("/nowhere/at/all").spawn(folder, ()).unwrap();
        match handle.join() {
            Err(JoinError::NeverStarted { reason: Some(reason), .. }) => {
                assert!(reason.contains("/nowhere/at/all"), "{method}: {reason}");
                assert!(reason.contains("No such file"), "{method}: {reason}");
            }
            other => panic!("{method}: {other:?}"),
        }
    });
}

/// Copies its input to its output, and says so on standard error.
fn copy_all(_: ()) -> u64 {
    let count = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).unwrap();
    eprintln!("copied {count}");
    count
}

fn standard_descriptors_can_be_replaced() {
    each_method(|builder, method| {
        let (input, mut give) = std::io::pipe().unwrap();
        let (take, output) = UnixStream::pair().unwrap();
        let (errors, error) = std::io::pipe().unwrap();
        give.write_all(b"some text").unwrap();
        drop(give);
        let builder = builder().stdin(input).stdout(output).stderr(error);
        let handle = builder.spawn(copy_all, ()).unwrap();
        assert_eq!(std::io::read_to_string(take).unwrap(), "some text", "{method}");
        assert_eq!(std::io::read_to_string(errors).unwrap(), "copied 9\n", "{method}");
        assert_eq!(handle.join().unwrap(), 9, "{method}");
    });
}

fn null_gives_nothing_and_takes_all() {
    each_method(|builder, method| {
        let builder = builder().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(builder.spawn(copy_all, ()).unwrap().join().unwrap(), 0, "{method}");
    });
}

fn reader_sees_the_end_when_the_child_has_ended() {
    each_method(|builder, method| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let handle = builder().stdout(writer).spawn(close_output_and_wait, ()).unwrap();
        // Neither this process nor the child has another copy of the writer.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{method}");
        handle.kill().unwrap();
        handle.join().unwrap_err();
    });
}

fn close_output_and_wait(_: ()) {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    // SAFETY: both are open, and nobody minds where standard output goes.
    #[allow(unsafe_code)]
    let copied = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), 1) };
    assert_eq!(copied, 1);
    wait_for_ever(());
}

fn wait_for_ever(_: ()) {
    loop {
        std::thread::park();
    }
}

fn interrupt_ends_a_child_by_its_signal() {
    each_method(|builder, method| {
        let handle = builder().spawn(wait_for_ever, ()).unwrap();
        handle.interrupt().unwrap();
        let status = handle.child().wait(None).unwrap();
        assert_eq!(status.signal(), Some(2), "{method}");
        assert_eq!(handle.child().exit_status(), Some(status));
    });
}

fn root_has_no_parent() {
    assert!(process::parent().is_none());
}

fn about_parent(_: ()) -> (String, u32, bool, bool) {
    let parent = process::parent().unwrap();
    let mut poll = [PollFd::from_borrowed_fd(parent.sentinel().unwrap(), PollFlags::IN)];
    let ended = rustix::event::poll(&mut poll, Some(&rustix::event::Timespec::default())).unwrap();
    let timed_out = parent.wait(Some(Instant::now())) == Err(WaitError::TimedOut);
    (parent.name().to_owned(), parent.pid(), parent.is_alive(), ended == 0 && timed_out)
}

fn about_parent_below(method: String) -> (String, u32, bool, bool) {
    let method = method.parse().unwrap();
    Builder::new().start_method(method).spawn(about_parent, ()).unwrap().join().unwrap()
}

fn child_knows_its_parent() {
    each_method(|builder, method| {
        let here = ("main".to_owned(), std::process::id(), true, true);
        assert_eq!(builder().spawn(about_parent, ()).unwrap().join().unwrap(), here, "{method}");
        for below in StartMethod::ALL {
            let middle = builder().name("middle");
            let middle = middle.spawn(about_parent_below, below.to_string()).unwrap();
            let expected = ("middle".to_owned(), middle.pid(), true, true);
            assert_eq!(middle.join().unwrap(), expected, "{below} below {method}");
        }
    });
}

/// Says who it is, waits for the end of its parent, and says what it sees then.
fn outlive_parent(_: ()) {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let parent = process::parent().unwrap();
    stream.write_all(&std::process::id().to_le_bytes()).unwrap();
    parent.wait(None).unwrap();
    let sentinel_later = process::parent().unwrap();
    let dead = !parent.is_alive() && !sentinel_later.is_alive();
    let seen = dead && sentinel_later.wait(None).is_ok() && sentinel_later.sentinel().is_ok();
    stream.write_all(&[u8::from(seen)]).unwrap();
}

fn parent_of_outlive_parent(method: String) {
    let stream = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let builder = Builder::new().start_method(method.parse().unwrap()).stdin(stream);
    let _handle: JoinHandle<()> = builder.spawn(outlive_parent, ()).unwrap();
    wait_for_ever(());
}

fn child_sees_the_end_of_its_parent() {
    for method in StartMethod::ALL {
        let (mut stream, there) = UnixStream::pair().unwrap();
        let middle = Builder::new().stdin(there);
        let middle = middle.spawn(parent_of_outlive_parent, method.to_string()).unwrap();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        let pid = u32::from_le_bytes(pid);
        kill(middle.pid());
        middle.join().unwrap_err();
        let mut seen = [0];
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(seen, [1], "{method}: it sees its parent alive");
        assert!(wait_until(LIMIT, || !is_running(pid)));
    }
}

/// Writes down all events: level, and fields by name.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Recorded>>>);

type Recorded = (Level, BTreeMap<String, String>);

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").replace('"', ""));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("procession")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn events_tell_of_start_end_and_death() {
    each_method(|builder, method| {
        let recorder = Recorder::default();
        let (ended, killed) = tracing::subscriber::with_default(recorder.clone(), || {
            let ended = builder().name("scribe").spawn(folder, ()).unwrap();
            let killed = builder().name("victim").spawn(wait_for_ever, ()).unwrap();
            killed.kill().unwrap();
            killed.child().wait(None).unwrap();
            ended.child().wait(None).unwrap();
            (ended.pid().to_string(), killed.pid().to_string())
        });
        let events = recorder.0.lock().unwrap();
        for (name, pid, level, status) in [
            ("scribe", ended, Level::DEBUG, "exit code 0"),
            ("victim", killed, Level::WARN, "killed by signal 9 (SIGKILL)"),
        ] {
            let about: Vec<_> = events
                .iter()
                .filter(|(_, fields)| fields.get("name").is_some_and(|called| called == name))
                .collect();
            assert!(about.iter().all(|(_, fields)| fields["pid"] == pid), "{method}: {about:?}");
            let levels: Vec<_> = about.iter().map(|(level, _)| *level).collect();
            assert_eq!(levels, [Level::DEBUG, level], "{method}: {about:?}");
            assert_eq!(about[1].1["status"], status, "{method}: {about:?}");
        }
    });
}
