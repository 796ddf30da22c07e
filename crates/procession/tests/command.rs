//! External commands: what they are given, what comes back, and how their ends are reported.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, iter};

use procession::command::{CommandError, RunningCommand, Stdio, command};
use procession::process::{self, Builder, ExitStatus, SpawnError, active_children};
use procession_testing::process::{children, descendants, is_running, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Resource;

/// Only a failure takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(300);
/// Longer than a shell takes to begin, however busy the machine is.
const AMPLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            output_and_status_come_back,
            large_streams_in_all_directions_do_not_block_each_other,
            input_that_nobody_reads_is_no_error,
            run_reads_nothing_by_default,
            errors_can_be_merged_into_the_output,
            streams_can_be_files_and_nothing,
            environment_and_folder_are_those_asked_for,
            failure_tells_the_command_its_status_and_its_errors,
            death_by_a_signal_is_a_failure,
            missing_program_is_named,
            missing_folder_is_told_from_a_missing_program,
            program_that_may_not_be_run_is_named,
            missing_interpreter_is_told_from_a_missing_program,
            unusable_argument_is_reported,
            signals_do_not_end_the_waiting,
            lack_of_descriptors_is_reported_and_leaves_nothing,
            timeout_kills_the_tree_and_keeps_the_output,
            timeout_ends_a_command_that_never_stops_writing,
            timeout_says_when_only_a_background_process_is_left,
            call_waits_and_times_out_too,
            command_that_closes_its_output_is_waited_for,
            running_command_can_be_watched_and_ended,
            sentinel_is_readable_at_the_end,
            communicate_goes_on_after_its_time_ran_out,
            input_without_a_pipe_is_refused,
            pipes_can_be_taken,
            wait_closes_the_input,
            kill_tree_ends_what_the_command_started,
            status_collected_as_a_child_is_the_same,
            two_hundred_dropped_commands_leave_no_zombies,
            daemon_dies_with_its_parent,
            command_that_is_no_daemon_survives_its_parent,
            commands_run_in_forked_children
        ],
    )
}

fn sh(script: &str) -> procession::command::Command {
    command("sh").args(["-c", script])
}

/// Bytes that differ all along, so that none can be lost unnoticed.
fn bytes(count: usize) -> Vec<u8> {
    let words = (0_u64..).flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    words.take(count).collect()
}

fn output_and_status_come_back() {
    let output = sh("echo out; echo err >&2; exit 7").run().unwrap();
    assert_eq!(output.status, ExitStatus::Code(7));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert!(output.pid() > 0);
}

fn large_streams_in_all_directions_do_not_block_each_other() {
    let (input, errors) = (bytes(6 << 20), bytes(5 << 20));
    let folder = Folder::new("large");
    fs::write(folder.path("errors"), &errors).unwrap();
    let script = || sh("cat errors >&2 & exec cat").current_dir(&folder.0);
    let output = script().input(input.clone()).check().unwrap();
    assert!(output.stdout == input && output.stderr == errors, "bytes were lost");

    let script = script().stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
    let mut running = script.start().unwrap();
    let output = running.communicate(&input, None).unwrap();
    assert!(output.status.success());
    assert!(output.stdout == input && output.stderr == errors, "bytes were lost through pipes");
}

fn input_that_nobody_reads_is_no_error() {
    let output = sh(":").input(bytes(1 << 20)).run().unwrap();
    assert!(output.status.success());
    let mut running = sh(":").stdin(Stdio::Piped).start().unwrap();
    assert!(running.communicate(&bytes(1 << 20), None).unwrap().status.success());
}

fn run_reads_nothing_by_default() {
    assert!(command("cat").check().unwrap().stdout.is_empty());
}

fn errors_can_be_merged_into_the_output() {
    let script = "echo 1; echo 2 >&2; echo 3";
    let output = sh(script).merge_stderr().check().unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"1\n2\n3\n"[..], &b""[..]));

    let (mut reader, writer) = std::io::pipe().unwrap();
    sh(script).stdout(writer).merge_stderr().call().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n3\n");

    let output = sh(script).merge_stderr().stderr(Stdio::Null).check().unwrap();
    assert_eq!(output.stdout, b"1\n3\n", "the last call wins");
}

fn streams_can_be_files_and_nothing() {
    let folder = Folder::new("streams");
    let path = folder.path("file");
    let output = sh("echo kept; echo lost >&2")
        .stdout(File::create(&path).unwrap())
        .stderr(Stdio::Null)
        .run()
        .unwrap();
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    let output = command("cat").stdin(File::open(&path).unwrap()).check().unwrap();
    assert_eq!(output.stdout, b"kept\n");
}

fn environment_and_folder_are_those_asked_for() {
    let script = "echo $ONE-$TWO-$PWD";
    let output = sh(script).env("ONE", "1").env("TWO", "2").env_remove("TWO").current_dir("/");
    assert_eq!(output.check().unwrap().stdout, b"1--/\n");
    let path = env::var_os("PATH").unwrap();
    let output = sh("echo $ONE-$TWO").env("ONE", "1").env_clear().env("TWO", "2").env("PATH", path);
    assert_eq!(output.check().unwrap().stdout, b"-2\n");
}

fn failure_tells_the_command_its_status_and_its_errors() {
    let error = sh("echo quiet; echo 'no such thing' >&2; exit 4").check().unwrap_err();
    let text = error.to_string();
    let CommandError::Failed { pid, status, stderr, .. } = error else { panic!("{text}") };
    assert_eq!((status.code(), stderr.as_str()), (Some(4), "no such thing"));
    assert!(
        text.contains(&format!("(process {pid}) failed, exit code 4: no such thing")),
        "{text}"
    );
    assert!(text.starts_with("command sh -c "), "{text}");
}

fn death_by_a_signal_is_a_failure() {
    let error = sh("kill -SEGV $$").check().unwrap_err();
    assert!(error.to_string().contains("killed by signal 11 (SIGSEGV)"), "{error}");
}

fn missing_program_is_named() {
    for program in ["no-such-program-anywhere", "/proc/no/such/program"] {
        let starts: [fn(&str) -> CommandError; 3] = [
            |program| command(program).run().unwrap_err(),
            |program| command(program).call().unwrap_err(),
            |program| command(program).current_dir("/").start().unwrap_err(),
        ];
        for start in starts {
            let error = start(program);
            let text = error.to_string();
            assert!(matches!(error, CommandError::NotFound { .. }), "{error:?}");
            assert!(text.contains(program), "{text}");
            assert_eq!(error.pid(), None);
        }
    }
}

fn missing_folder_is_told_from_a_missing_program() {
    for (folder, errno) in
        [("/proc/no-such-folder", libc::ENOENT), ("/proc/self/stat", libc::ENOTDIR)]
    {
        let error = sh(":").current_dir(folder).run().unwrap_err();
        let text = error.to_string();
        let CommandError::Directory { path, source } = error else { panic!("{error:?}") };
        assert_eq!((path.as_path(), source.raw_os_error()), (Path::new(folder), Some(errno)));
        assert!(text.contains(folder), "{text}");
    }
}

fn program_that_may_not_be_run_is_named() {
    let folder = Folder::new("not-executable");
    let path = folder.file("plain", "text", 0o644);
    for program in [path.as_path(), Path::new("/")] {
        let error = command(program).run().unwrap_err();
        assert!(matches!(error, CommandError::PermissionDenied { .. }), "{error:?}");
        assert!(error.to_string().contains(program.to_str().unwrap()), "{error}");
    }
}

fn missing_interpreter_is_told_from_a_missing_program() {
    let folder = Folder::new("interpreter");
    let path = folder.file("script", "#!/no/such/interpreter\n", 0o755);
    let error = command(&path).run().unwrap_err();
    assert!(matches!(error, CommandError::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("but not the interpreter"), "{error}");
}

fn unusable_argument_is_reported() {
    let error = command("echo").arg("a\0b").run().unwrap_err();
    let CommandError::Start { program, source } = error else { panic!("{error:?}") };
    assert_eq!(program, "echo");
    assert!(matches!(source, SpawnError::Os { .. }));
}

fn signals_do_not_end_the_waiting() {
    // A daemonic child has a handler for this signal, which does nothing while its parent lives.
    let signal = libc::SIGRTMIN() + 12;
    let script = format!("i=0; while [ $i -lt 500 ]; do kill -{signal} $PPID; i=$(($i+1)); done");
    let child = Builder::new()
        .daemon(true)
        .fork(|| {
            let run = sh(&script).check().map(drop);
            let waited = sh(&script).start().map(|mut shell| shell.wait());
            (run.map_err(|error| error.to_string()), waited.unwrap().code())
        })
        .unwrap();
    assert_eq!(child.join().unwrap(), (Ok(()), Some(0)));
}

fn lack_of_descriptors_is_reported_and_leaves_nothing() {
    // The arena's descriptor is there already.
    sh(":").check().unwrap();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let mut few = limit;
    few.current = Some(File::open("/dev/null").map(number_of).unwrap() + 1);
    rustix::process::setrlimit(Resource::Nofile, few).unwrap();
    let error = sh(":").run().unwrap_err();
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    assert!(error.to_string().contains("too many open files"), "{error}");
    sh(":").check().unwrap();
}

fn number_of(fd: impl std::os::fd::AsRawFd) -> u64 {
    u64::try_from(fd.as_raw_fd()).unwrap()
}

fn timeout_kills_the_tree_and_keeps_the_output() {
    // Nobody here ends when it is asked to.
    let script = "trap '' TERM INT; echo begun; echo trouble >&2
        ( trap '' TERM; sleep 1000 & wait; sleep 1000 ) & wait; wait";
    let start = Instant::now();
    let error = sh(script).timeout(AMPLE).run().unwrap_err();
    assert!(start.elapsed() >= AMPLE);
    let text = error.to_string();
    let CommandError::TimedOut { pid, after, output, .. } = error else { panic!("{error:?}") };
    assert_eq!(
        (after, &output.stdout[..], &output.stderr[..]),
        (AMPLE, &b"begun\n"[..], &b"trouble\n"[..])
    );
    assert_eq!(output.status.unwrap().signal(), Some(9));
    assert_eq!((output.killed.len(), output.killed[0]), (3, pid));
    assert!(output.killed.iter().all(|pid| !is_running(*pid)), "some of the tree is left");
    assert!(text.contains("timed out after 2s; it was killed, and 2 more below it"), "{text}");
}

fn timeout_ends_a_command_that_never_stops_writing() {
    let error = sh("while :; do echo more; done").timeout(AMPLE).run().unwrap_err();
    let CommandError::TimedOut { output, .. } = error else { panic!("{error:?}") };
    assert!(output.stdout.starts_with(b"more\nmore\n"));
}

fn timeout_says_when_only_a_background_process_is_left() {
    let error = sh("sleep 1000 & echo $!; exit 3").timeout(AMPLE).run().unwrap_err();
    let text = error.to_string();
    let CommandError::TimedOut { output, .. } = error else { panic!("{error:?}") };
    let straggler = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    procession_testing::process::kill(straggler);
    assert_eq!(output.status, Some(ExitStatus::Code(3)));
    assert!(text.contains("it has ended (exit code 3), but a process that it started"), "{text}");
}

fn call_waits_and_times_out_too() {
    assert_eq!(sh("exit 5").call().unwrap().code(), Some(5));
    let piped = sh("while [ ${#x} -lt 4096 ]; do x=x$x$x; done; for i in 1 2 3 4 5 6 7 8 9 0; do
        for j in 1 2 3 4 5 6 7 8 9 0; do echo $x; done; done");
    assert!(piped.stdout(Stdio::Piped).call().unwrap().success(), "unread output blocks");
    let error = sh("sleep 1000").timeout(SOON).call().unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { .. }), "{error:?}");
}

fn command_that_closes_its_output_is_waited_for() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let script = "exec >&- 2>&-; read line; exit 6";
    let mut running = sh(script)
        .stdin(Stdio::from(reader.try_clone().unwrap()))
        .stdout(Stdio::Piped)
        .stderr(Stdio::Piped)
        .start()
        .unwrap();
    let error = running.communicate(b"", Some(SOON)).unwrap_err();
    let CommandError::TimedOut { output, .. } = error else { panic!("{error:?}") };
    assert_eq!((output.status, output.killed), (None, vec![]), "it does not run on");
    (&writer).write_all(b"go\n").unwrap();
    assert_eq!(running.communicate(b"", None).unwrap().status.code(), Some(6));
    drop(writer);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
}

fn running_command_can_be_watched_and_ended() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        let end = |command: &RunningCommand| match signal {
            libc::SIGTERM => command.terminate(),
            libc::SIGINT => command.interrupt(),
            _ => command.kill(),
        };
        let mut sleep = command("sleep").arg("1000").start().unwrap();
        assert!(sleep.is_alive() && sleep.try_wait().is_none());
        assert_eq!(sleep.wait_timeout(Duration::ZERO), None);
        assert_eq!(sleep.command(), "sleep 1000");
        assert!(active_children().iter().any(|child| child.pid() == sleep.pid()));
        end(&sleep).unwrap();
        assert_eq!(sleep.wait().signal(), Some(signal));
        assert_eq!(sleep.wait_timeout(LIMIT).unwrap().signal(), Some(signal), "not remembered");
        end(&sleep).unwrap();
        assert!(!sleep.is_alive());
    }
}

fn sentinel_is_readable_at_the_end() {
    let mut cat = command("cat").stdin(Stdio::Piped).start().unwrap();
    let ready = |cat: &RunningCommand, timeout: Option<Timespec>| {
        let sentinel = cat.sentinel();
        let mut polled = [PollFd::new(&sentinel, PollFlags::IN)];
        rustix::event::poll(&mut polled, timeout.as_ref()).unwrap()
    };
    assert_eq!(ready(&cat, Some(Timespec::default())), 0);
    drop(cat.stdin());
    assert_eq!(ready(&cat, None), 1);
    assert_eq!(cat.try_wait(), Some(ExitStatus::Code(0)));
}

fn communicate_goes_on_after_its_time_ran_out() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut running = sh("echo begun; cat; exit 2")
        .stdin(Stdio::from(reader))
        .stdout(Stdio::Piped)
        .start()
        .unwrap();
    let mut seen = Vec::new();
    while seen != b"begun\n" {
        let error = running.communicate(b"", Some(Duration::from_millis(20))).unwrap_err();
        let CommandError::TimedOut { output, .. } = error else { panic!("{error:?}") };
        assert!(output.stdout.starts_with(&seen), "what was read before is gone");
        seen = output.stdout;
    }
    (&writer).write_all(b"more").unwrap();
    drop(writer);
    let output = running.communicate(b"", None).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b"begun\nmore"[..]));
}

fn input_without_a_pipe_is_refused() {
    let mut running = command("cat").stdin(Stdio::Null).start().unwrap();
    let error = running.communicate(b"text", None).unwrap_err();
    assert!(matches!(error, CommandError::NoInput { .. }), "{error:?}");
    assert_eq!(error.pid(), Some(running.pid()));
    assert!(running.communicate(b"", None).unwrap().status.success());
}

fn pipes_can_be_taken() {
    let mut cat = command("cat").stdin(Stdio::Piped).stdout(Stdio::Piped).start().unwrap();
    // These make the pipes such that reading from them does not block, until they are taken.
    cat.communicate(&bytes(1 << 20), Some(Duration::ZERO)).unwrap_err();
    let mut input = cat.stdin().unwrap();
    let mut output = BufReader::new(cat.stdout().unwrap());
    assert!(cat.stdin().is_none() && cat.stdout().is_none() && cat.stderr().is_none());
    input.write_all(b"\nlast line\n").unwrap();
    drop(input);
    let lines: Vec<_> = iter::from_fn(|| {
        let mut line = Vec::new();
        (output.read_until(b'\n', &mut line).unwrap() > 0).then_some(line)
    })
    .collect();
    assert_eq!(lines.last().unwrap(), b"last line\n");
    assert!(cat.wait().success());
}

fn wait_closes_the_input() {
    let mut cat = command("cat").stdin(Stdio::Piped).stdout(Stdio::Null).start().unwrap();
    assert!(cat.wait().success());
}

fn kill_tree_ends_what_the_command_started() {
    let mut running =
        sh("( trap '' TERM; echo; sleep 1000 ) & wait").stdout(Stdio::Piped).start().unwrap();
    let mut output = BufReader::new(running.stdout().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let below = descendants(running.pid());
    let killed = running.kill_tree().unwrap();
    assert!(killed.len() >= 2 && below.iter().all(|pid| !is_running(*pid)), "{killed:?}");
    assert_eq!(running.wait().signal(), Some(9));
}

fn status_collected_as_a_child_is_the_same() {
    let running = sh("exit 8").start().unwrap();
    let child = running.child().clone();
    let status = wait_until(LIMIT, || active_children().is_empty()).then(|| child.try_wait());
    assert_eq!(status, Some(Some(ExitStatus::Code(8))));
    assert_eq!(running.try_wait(), Some(ExitStatus::Code(8)));
}

fn two_hundred_dropped_commands_leave_no_zombies() {
    let (reader, writer) = std::io::pipe().unwrap();
    for _ in 0..200 {
        drop(command("cat").stdin(Stdio::from(reader.try_clone().unwrap())).start().unwrap());
    }
    assert_eq!(children(std::process::id()).len(), 200);
    drop((reader, writer));
    assert!(wait_until(LIMIT, || children(std::process::id()).iter().all(|pid| !is_running(*pid))));
    sh(":").check().unwrap();
    assert!(children(std::process::id()).is_empty(), "zombies are left");
}

/// Starts `cat` from a process of its own, kills that, and says whether `cat` was killed too.
fn dies_with_its_parent(daemon: bool) -> bool {
    let (reader, writer) = std::io::pipe().unwrap();
    let (mut ready, is_ready) = std::io::pipe().unwrap();
    let parent = Builder::new()
        .fork(move || {
            let cat = command("sh").args(["-c", "echo ready; exec cat >/dev/null"]);
            let cat = cat.stdin(reader).stdout(is_ready).daemon(daemon).start().unwrap();
            cat.child().wait(None).unwrap();
        })
        .unwrap();
    ready.read_exact(&mut [0; 6]).unwrap();
    let cat = children(parent.pid());
    assert_eq!(cat.len(), 1);
    parent.kill().unwrap();
    parent.join().unwrap_err();
    let died = if daemon {
        wait_until(LIMIT, || !is_running(cat[0]))
    } else {
        // Still there to be told to end.
        !is_running(cat[0])
    };
    drop(writer);
    assert!(wait_until(LIMIT, || !is_running(cat[0])));
    died
}

fn daemon_dies_with_its_parent() {
    assert!(dies_with_its_parent(true));
}

fn command_that_is_no_daemon_survives_its_parent() {
    assert!(!dies_with_its_parent(false));
}

fn commands_run_in_forked_children() {
    let mut older = command("sleep").arg("1000").start().unwrap();
    let child = Builder::new().fork(|| sh("echo below; exit 1").run().unwrap().stdout).unwrap();
    assert_eq!(child.join().unwrap(), b"below\n");
    assert!(older.is_alive());
    older.kill().unwrap();
    older.wait();
}

/// A folder of this test program; removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("procession-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
