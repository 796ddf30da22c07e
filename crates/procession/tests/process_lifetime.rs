//! Processes: nothing is left behind, whoever is killed.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use procession::process::{
    self, Builder, JoinError, StartMethod, active_children, spawn, stop_fork_server,
};
use procession::shm::Arena;
use procession_testing::process::{children, is_running, kill, wait_until};
use rustix::io::{FdFlags, fcntl_setfd};

/// Only a failure takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Has the fork server end, which would be there at the end of a test otherwise.
fn end_fork_server() {
    if let Some(server) = stop_fork_server() {
        assert!(server.wait(None).unwrap().success(), "the fork server has failed");
    }
}

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            two_hundred_children_leave_nothing,
            dropped_handles_leave_no_zombies,
            children_killed_at_any_moment_are_told_apart,
            parents_killed_while_they_start_children_leave_nothing,
            daemon_dies_when_its_parent_is_killed,
            daemon_that_starts_after_its_parents_death_dies,
            daemon_survives_the_thread_that_started_it,
            child_that_is_no_daemon_survives_its_parent,
            soak_ten_thousand_children_leave_nothing
        ],
    )
}

fn nothing(_: ()) {}

/// Blocks and processes that the arena knows of.
fn in_arena() -> (usize, usize) {
    let stats = Arena::current().unwrap().stats();
    (stats.blocks, stats.members)
}

fn two_hundred_children_leave_nothing() {
    start_and_join(200);
}

fn soak_ten_thousand_children_leave_nothing() {
    start_and_join(10_000);
}

/// Kilobytes of memory of this process, and descriptors that it has open.
fn in_system() -> (u64, usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
    (memory, fs::read_dir("/proc/self/fd").unwrap().count())
}

fn start_and_join(count: usize) {
    const BATCH: usize = 20;
    // The first children set up what stays.
    start_batch(StartMethod::Spawn, BATCH);
    let arena = in_arena();
    for method in StartMethod::ALL {
        start_batch(method, BATCH);
        let (memory, descriptors) = in_system();
        for _ in 0..count / BATCH {
            start_batch(method, BATCH);
        }
        let (memory_now, descriptors_now) = in_system();
        assert_eq!(descriptors_now, descriptors, "{method}: descriptors are left");
        assert!(memory_now < memory + 8_192, "{method}: from {memory} to {memory_now} kB");
        end_fork_server();
        assert!(children(std::process::id()).is_empty(), "{method}: zombies are left");
        assert_eq!(in_arena(), arena, "{method}: blocks or members are left in the arena");
    }
}

fn start_batch(method: StartMethod, count: usize) {
    let start = || Builder::new().start_method(method).spawn(nothing, ()).unwrap();
    let batch: Vec<_> = (0..count).map(|_| start()).collect();
    for handle in batch {
        handle.join().unwrap();
    }
}

fn dropped_handles_leave_no_zombies() {
    let before = in_arena();
    for _ in 0..10 {
        drop(spawn(nothing, ()).unwrap());
    }
    for child in active_children() {
        child.wait(None).unwrap();
    }
    assert!(active_children().is_empty());
    assert!(children(std::process::id()).is_empty(), "zombies are left");
    assert_eq!(in_arena(), before, "blocks or members are left in the arena");
}

fn count_to(limit: u64) -> u64 {
    (0..limit).fold(0, |sum, number| std::hint::black_box(sum ^ number))
}

fn children_killed_at_any_moment_are_told_apart() {
    let before = in_arena();
    let mut died = 0;
    for round in 0..150_u64 {
        let method = StartMethod::ALL[round as usize % 3];
        let handle = Builder::new().start_method(method).spawn(count_to, 20_000).unwrap();
        // A moment that differs from round to round, from right away to after the end.
        count_to(round * 4_000);
        handle.kill().unwrap();
        let pid = handle.pid();
        match handle.join() {
            Ok(value) => assert_eq!(value, count_to(20_000)),
            Err(JoinError::Died { pid: dead, status, .. })
            | Err(JoinError::NeverStarted { pid: dead, status, reason: None, .. }) => {
                assert_eq!((dead, status.signal()), (pid, Some(9)));
                died += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(died > 0, "no child was killed in time");
    end_fork_server();
    assert_eq!(in_arena(), before, "blocks or members are left in the arena");
}

fn parents_killed_while_they_start_children_leave_nothing() {
    spawn(nothing, ()).unwrap().join().unwrap();
    let before = in_arena();
    for round in 0..60_u64 {
        let method = StartMethod::ALL[round as usize % 3];
        let (reader, writer) = std::io::pipe().unwrap();
        let handle = Builder::new()
            .fork(|| -> u32 {
                // Inherited by every child, fresh images included.
                fcntl_setfd(&writer, FdFlags::empty()).unwrap();
                loop {
                    let child = Builder::new().start_method(method).spawn(nothing, ()).unwrap();
                    if child.pid().is_multiple_of(2) {
                        child.join().unwrap();
                    }
                }
            })
            .unwrap();
        count_to(round * 8_000);
        handle.kill().unwrap();
        handle.join().unwrap_err();
        drop(writer);
        // The end comes when the grandchildren have ended as well: none of them hangs.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
    // Whoever starts a process looks for the orphaned dead among the others.
    let cleared = wait_until(LIMIT, || {
        spawn(nothing, ()).unwrap().join().unwrap();
        in_arena() == before
    });
    assert!(cleared, "left in the arena: {:?}, there were {before:?}", in_arena());
}

/// A socket of this test's own, removed on drop.
struct Meeting {
    path: PathBuf,
    listener: UnixListener,
}

impl Meeting {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("procession-test-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        Self { path, listener }
    }

    fn place(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    /// Waits for somebody to come, and returns who that is.
    fn meet(&self) -> (UnixStream, u32) {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        (stream, u32::from_le_bytes(pid))
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

/// Comes to a [`Meeting`], says who it is, and sends back what it is sent, until the end.
fn echo(place: String) {
    let mut stream = UnixStream::connect(place).unwrap();
    stream.write_all(&std::process::id().to_le_bytes()).unwrap();
    let mut answer = stream.try_clone().unwrap();
    std::io::copy(&mut stream, &mut answer).unwrap();
}

fn ask(stream: &mut UnixStream) {
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).expect("the other side is gone");
}

/// Starts an [`echo`] of its own and is an [`echo`] itself.
fn parent_of_echo((place, below, daemon, method): (String, String, bool, String)) {
    let method = method.parse().unwrap();
    let handle = Builder::new().daemon(daemon).start_method(method).spawn(echo, below).unwrap();
    echo(place);
    handle.join().unwrap();
}

/// Has a child with a child of its own, kills the former, and returns the latter.
fn orphan(daemon: bool, method: StartMethod) -> (UnixStream, u32) {
    let (middle, bottom) = (Meeting::new(), Meeting::new());
    let args = (middle.place(), bottom.place(), daemon, method.to_string());
    let handle = spawn(parent_of_echo, args).unwrap();
    let (_stream, _) = middle.meet();
    let (mut stream, pid) = bottom.meet();
    ask(&mut stream);
    handle.kill().unwrap();
    assert!(matches!(handle.join(), Err(JoinError::Died { .. })));
    (stream, pid)
}

fn daemon_dies_when_its_parent_is_killed() {
    for method in StartMethod::ALL {
        let (mut stream, pid) = orphan(true, method);
        // The other end of the socket is closed by the death alone.
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        assert!(wait_until(LIMIT, || !is_running(pid)), "the daemon lives on");
    }
}

fn child_that_is_no_daemon_survives_its_parent() {
    for method in StartMethod::ALL {
        let (mut stream, pid) = orphan(false, method);
        ask(&mut stream);
        assert!(is_running(pid));
        drop(stream);
        assert!(wait_until(LIMIT, || !is_running(pid)), "it does not end by itself");
    }
}

fn daemon_that_starts_after_its_parents_death_dies() {
    let meeting = Meeting::new();
    for method in StartMethod::ALL.repeat(10) {
        // Nobody answers at the meeting, so the daemon would wait there for ever.
        let place = meeting.place();
        let (reader, writer) = std::io::pipe().unwrap();
        let handle = Builder::new()
            .fork(|| {
                // Not closed in a fresh image either: the daemon has it, whichever way it is started.
                fcntl_setfd(&writer, FdFlags::empty()).unwrap();
                let daemon = Builder::new().daemon(true).start_method(method);
                let _handle = daemon.spawn(echo, place).unwrap();
                kill(std::process::id());
            })
            .unwrap();
        handle.join().unwrap_err();
        drop(writer);
        // The end comes when parent and daemon are dead.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
}

fn thread_ids() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn daemon_survives_the_thread_that_started_it() {
    for _ in 0..5 {
        let meeting = Meeting::new();
        let place = meeting.place();
        let (handle, mut stream) = thread::scope(|scope| {
            let starter = scope.spawn(|| {
                let handle = Builder::new().daemon(true).spawn(echo, place).unwrap();
                let (mut stream, _) = meeting.meet();
                ask(&mut stream);
                (handle, stream)
            });
            starter.join().unwrap()
        });
        // The signal goes out before the thread is struck off the list.
        assert!(wait_until(LIMIT, || thread_ids() == 1));
        ask(&mut stream);
        assert!(handle.is_alive(), "the daemon died with the thread");
        drop(stream);
        handle.join().unwrap();
    }
}
