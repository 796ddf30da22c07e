//! Trees of processes: all of them end, and nobody else does.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use procession::command::{RunningCommand, Stdio, command};
use procession::process::{
    self, Builder, TreeError, TreeGuard, active_children, kill_process_tree,
};
use procession_testing::ROLE;
use procession_testing::process::{children, descendants, is_running, kill, signal, wait_until};
use rustix::process::Signal;

/// Only a failure takes this long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run_by_role(
        other_main,
        process::init,
        procession_testing::tests![
            tree_ends_to_its_last_leaf_and_siblings_live_on,
            process_can_be_spared_with_only_its_tree_ended,
            tree_that_grows_while_it_is_killed_ends,
            tree_that_grows_from_many_threads_ends,
            tree_of_a_session_leader_ends,
            stopped_tree_ends,
            killed_killer_leaves_a_tree_that_can_be_ended,
            larger_trees_than_there_are_descriptors_end,
            own_descendants_end_and_the_caller_lives,
            caller_that_is_included_ends_last,
            process_that_has_ended_is_not_found,
            processes_that_are_needed_are_refused,
            guard_ends_what_was_started_since,
            guard_that_is_called_off_ends_nothing,
            guard_in_a_forked_child_ends_nothing
        ],
    )
}

/// A shell that runs `script` and had written a line when this returns; and what it writes later.
fn ready_shell(script: &str) -> (RunningCommand, BufReader<PipeReader>) {
    let shell = command("sh").args(["-c", script]).stdin(Stdio::Piped).stdout(Stdio::Piped);
    let mut shell = shell.start().unwrap();
    let mut output = BufReader::new(shell.stdout().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "the script did not get so far");
    (shell, output)
}

/// Every process of the tree holds the writing end, so its end is the end of them all.
fn assert_all_ended(mut output: impl Read) {
    output.read_to_end(&mut Vec::new()).unwrap();
}

/// Four shells, one below the other, none of which ends when it is asked to.
fn deep_tree() -> (RunningCommand, BufReader<PipeReader>) {
    let script = "trap '' TERM
        level() {
            if [ $1 = 0 ]; then echo ready; exec sleep 1000; fi
            ( level $(($1 - 1)) ) & sleep 1000 & wait
        }
        level 4";
    ready_shell(script)
}

fn tree_ends_to_its_last_leaf_and_siblings_live_on() {
    let mut sibling = command("sleep").arg("1000").start().unwrap();
    let (mut root, output) = deep_tree();
    let below = descendants(root.pid());
    assert!(below.len() >= 5, "the tree is not deep: {below:?}");

    let killed = kill_process_tree(root.pid(), true).unwrap();

    assert_eq!(killed[0], root.pid());
    assert!(killed.len() > below.len());
    let killed: BTreeSet<u32> = killed.into_iter().collect();
    assert!(below.iter().all(|pid| killed.contains(pid)), "{below:?} without {killed:?}");
    assert!(killed.iter().all(|pid| !is_running(*pid)), "it returned too early");
    assert_all_ended(output);
    assert_eq!(root.wait().signal(), Some(9));
    assert!(sibling.is_alive(), "the sibling was killed");
    sibling.kill().unwrap();
    sibling.wait();
}

fn process_can_be_spared_with_only_its_tree_ended() {
    let (mut root, mut output) = ready_shell("sleep 1000 & echo ready; wait; echo alone; read x");
    let below = descendants(root.pid());
    assert_eq!(kill_process_tree(root.pid(), false).unwrap(), below);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "alone\n");
    assert!(kill_process_tree(root.pid(), false).unwrap().is_empty());
    root.kill().unwrap();
    root.wait();
}

fn tree_that_grows_while_it_is_killed_ends() {
    for _ in 0..5 {
        // Three processes that start others as fast as they can, which start one each.
        let grow = "while :; do ( sleep 1000 & wait ) & done";
        let script = format!("( {grow} ) & ( {grow} ) & echo ready; {grow}");
        let (mut root, output) = ready_shell(&script);
        let killed = kill_process_tree(root.pid(), true).unwrap();
        assert!(killed.iter().all(|pid| !is_running(*pid)));
        assert_all_ended(output);
        assert_eq!(root.wait().signal(), Some(9));
    }
}

fn tree_that_grows_from_many_threads_ends() {
    for _ in 0..5 {
        let mut root = command(env::current_exe().unwrap())
            .env(ROLE, "grow")
            .stdout(Stdio::Piped)
            .start()
            .unwrap();
        let mut output = root.stdout().unwrap();
        output.read_exact(&mut [0; 6]).unwrap();
        kill_process_tree(root.pid(), true).unwrap();
        assert_all_ended(output);
        assert_eq!(root.wait().signal(), Some(9));
    }
}

/// What this program does when it is started with a role.
fn other_main(role: &str) -> ExitCode {
    match role {
        "grow" => grow(),
        "lead a session" => lead_a_session(),
        _ => panic!("no role {role:?}"),
    }
}

/// Starts processes from many threads, for ever.
fn grow() -> ! {
    let start = || loop {
        // The system may have no room for one more.
        let _ = std::process::Command::new("sleep").arg("1000").spawn().map(|child| child.id());
    };
    for _ in 0..3 {
        thread::spawn(start);
    }
    io::stdout().write_all(b"ready\n").unwrap();
    start()
}

/// Becomes a shell that leads a session, with a shell below it that does not want to end.
fn lead_a_session() -> ! {
    rustix::process::setsid().unwrap();
    let script = "( trap '' HUP TERM; echo ready; while :; do sleep 1000 & wait; done ) & wait";
    panic!("{}", std::process::Command::new("sh").args(["-c", script]).exec())
}

fn tree_of_a_session_leader_ends() {
    // The end of such a leader wakes up what is stopped in the groups that it leaves behind.
    let leader = command(env::current_exe().unwrap()).env(ROLE, "lead a session");
    let mut root = leader.stdout(Stdio::Piped).start().unwrap();
    let mut output = BufReader::new(root.stdout().unwrap());
    output.read_line(&mut String::new()).unwrap();
    kill_process_tree(root.pid(), true).unwrap();
    assert_all_ended(output);
    root.wait();
}

fn stopped_tree_ends() {
    let (mut root, output) = deep_tree();
    for pid in descendants(root.pid()) {
        signal(pid, Signal::STOP);
    }
    kill_process_tree(root.pid(), true).unwrap();
    assert_all_ended(output);
    root.wait();
}

fn killed_killer_leaves_a_tree_that_can_be_ended() {
    for round in 0..20_u32 {
        let (mut root, output) = deep_tree();
        let pid = root.pid();
        let killer = Builder::new().fork(move || kill_process_tree(pid, true).is_ok()).unwrap();
        // A moment that differs from round to round.
        for _ in 0..round * 50 {
            thread::yield_now();
        }
        killer.kill().unwrap();
        let _ = killer.join();
        match kill_process_tree(pid, true) {
            Ok(_) | Err(TreeError::NotFound { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        assert_eq!(root.wait().signal(), Some(9));
        // The root may have been the last to die: the killer ends its children first.
        assert_all_ended(output);
    }
}

fn larger_trees_than_there_are_descriptors_end() {
    let script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$(($i+1)); done; echo ready; wait";
    let (mut root, output) = ready_shell(script);
    let pid = root.pid();
    let few = Builder::new()
        .fork(move || {
            let highest = output.get_ref().as_fd();
            let resource = rustix::process::Resource::Nofile;
            let mut limit = rustix::process::getrlimit(resource);
            limit.current = Some(number_of(highest) + 8);
            rustix::process::setrlimit(resource, limit).unwrap();
            let killed = kill_process_tree(pid, true).unwrap().len();
            assert_all_ended(output);
            killed
        })
        .unwrap();
    assert_eq!(few.join().unwrap(), 61);
    root.wait();
}

fn number_of(fd: impl std::os::fd::AsRawFd) -> u64 {
    u64::try_from(fd.as_raw_fd()).unwrap()
}

fn own_descendants_end_and_the_caller_lives() {
    let (root, output) = deep_tree();
    let (other, other_output) = ready_shell("sleep 1000 & echo ready; wait");
    let killed = kill_process_tree(std::process::id(), false).unwrap();
    assert!(killed.contains(&root.pid()) && killed.contains(&other.pid()));
    assert!(!killed.contains(&std::process::id()));
    assert_all_ended(output);
    assert_all_ended(other_output);
    assert_eq!(root.try_wait().unwrap().signal(), Some(9));
    assert!(children(std::process::id()).is_empty(), "zombies are left");
}

fn caller_that_is_included_ends_last() {
    let (reader, writer) = io::pipe().unwrap();
    let child = Builder::new()
        .fork(move || {
            let tail = command("sleep").arg("1000").stdout(writer).start().unwrap();
            assert!(tail.is_alive());
            kill_process_tree(std::process::id(), true).map_err(|error| error.to_string())
        })
        .unwrap();
    assert_all_ended(reader);
    match child.join() {
        Err(process::JoinError::Died { status, .. }) => assert_eq!(status.signal(), Some(9)),
        other => panic!("{other:?}"),
    }
}

fn process_that_has_ended_is_not_found() {
    let ended = command("sleep").arg("1000").start().unwrap();
    let pid = ended.pid();
    kill(pid);
    assert!(wait_until(LIMIT, || !is_running(pid)));
    let not_found = |pid| {
        let error = kill_process_tree(pid, true).unwrap_err();
        assert_eq!(error.errno(), Some(3));
        assert!(matches!(error, TreeError::NotFound { pid: missing } if missing == pid));
    };
    not_found(pid); // a zombie
    assert!(ended.kill_tree().unwrap().is_empty());
    assert_eq!(ended.try_wait().unwrap().signal(), Some(9));
    not_found(pid);
    assert!(ended.kill_tree().unwrap().is_empty());
    not_found(u32::MAX);
}

fn processes_that_are_needed_are_refused() {
    for including_parent in [false, true] {
        for pid in [0, 1] {
            let error = kill_process_tree(pid, including_parent).unwrap_err();
            assert!(matches!(error, TreeError::Refused { .. }), "{error}");
        }
    }
    let me = std::process::id();
    let child = Builder::new()
        .fork(move || match kill_process_tree(me, true) {
            Err(error @ TreeError::Refused { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert!(child.join().unwrap().contains("the calling process is below it"));
}

fn guard_ends_what_was_started_since() {
    let (mut before, before_output) = ready_shell("sleep 1000 & echo ready; wait");
    let old = descendants(before.pid());
    let guard = TreeGuard::new().unwrap();
    let (mut during, output) = deep_tree();
    drop(guard);
    assert_all_ended(output);
    assert_eq!(during.wait().signal(), Some(9));
    assert!(before.is_alive() && old.iter().all(|pid| is_running(*pid)), "older ones were killed");

    let guard = TreeGuard::new().unwrap();
    assert!(guard.kill().unwrap().is_empty());
    assert_eq!(before.kill_tree().unwrap().len(), 1 + old.len());
    assert_all_ended(before_output);
    before.wait();
}

fn guard_that_is_called_off_ends_nothing() {
    let guard = TreeGuard::new().unwrap();
    let mut sleep = command("sleep").arg("1000").start().unwrap();
    guard.disarm();
    assert!(sleep.is_alive());
    sleep.kill().unwrap();
    sleep.wait();
    assert!(active_children().is_empty());
}

fn guard_in_a_forked_child_ends_nothing() {
    let mut guard = Some(TreeGuard::new().unwrap());
    let child = Builder::new()
        .fork(|| {
            let mut sleep = command("sleep").arg("1000").start().unwrap();
            drop(guard.take());
            let alive = sleep.is_alive();
            sleep.kill().unwrap();
            sleep.wait();
            alive
        })
        .unwrap();
    assert!(child.join().unwrap(), "the copy of a guard has killed something");
    assert!(guard.is_some_and(|guard| guard.kill().unwrap().is_empty()));
}
