//! The fork server: what it makes, and what is left when somebody is killed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use procession::channel::Queue;
use procession::process::{
    self, Builder, Exec, ExitStatus, ForkServer, JoinError, JoinHandle, SpawnError, StartMethod,
    Zygote, active_children, announce_exit, spawn, stop_fork_server, take_boot,
};
use procession::shm::{Arena, Parcel, Pins};
use procession_testing::ROLE;
use procession_testing::process::{children, is_running, kill, signal, wait_until};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

/// Only a failure takes this long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    procession_testing::run_by_role(
        other_main,
        process::init,
        procession_testing::tests![
            one_fork_server_makes_all_children,
            fork_server_is_no_active_child_and_its_children_are,
            eight_threads_get_the_same_status,
            eight_threads_start_children_at_once,
            children_have_the_descriptors_they_need_and_no_others,
            interrupt_reaches_the_child_and_not_the_fork_server,
            child_has_a_fork_server_of_its_own,
            forked_copy_forgets_its_siblings_as_a_single_member,
            forked_copy_does_not_use_its_parents_fork_server,
            payload_and_descriptors_arrive_in_order,
            too_many_descriptors_are_refused,
            orders_that_cannot_be_carried_out_are_answered,
            fork_server_that_fails_at_once_is_reported,
            let_go_fork_server_still_reaps_its_children,
            killed_idle_fork_server_is_replaced,
            children_outlive_a_killed_fork_server,
            exit_code_is_known_after_the_fork_server_only_if_announced,
            starts_survive_a_fork_server_that_is_killed_again_and_again,
            daemon_whose_fork_server_was_killed_dies_with_the_client,
            clients_killed_while_they_start_daemons_leave_nothing,
            soak_clients_killed_a_thousand_times_leave_nothing
        ],
    )
}

fn by_fork_server() -> Builder {
    Builder::new().start_method(StartMethod::ForkServer)
}

/// Has the fork server end, which would be there at the end of a test otherwise.
fn end_fork_server() {
    if let Some(server) = stop_fork_server() {
        assert!(server.wait(None).unwrap().success(), "the fork server has failed");
    }
}

/// The fork servers of this process: its children's parent is another one.
fn fork_servers() -> Vec<u32> {
    children(std::process::id())
}

/// Waits until all that the dead held is given back, and returns how many blocks there are: this
/// process is the only one then.
fn blocks_in_use() -> usize {
    let alone = wait_until(LIMIT, || {
        // Whoever starts a process looks for the orphaned dead among the others.
        spawn(nothing, ()).unwrap().join().unwrap();
        Arena::current().unwrap().stats().members == 1
    });
    let stats = Arena::current().unwrap().stats();
    assert!(alone, "processes are left in the arena: {stats:?}");
    stats.blocks
}

fn nothing(_: ()) {}

fn count_to(limit: u64) -> u64 {
    (0..limit).fold(0, |sum, number| std::hint::black_box(sum ^ number))
}

fn parent_in_the_system(_: ()) -> Option<u32> {
    rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn one_fork_server_makes_all_children() {
    let handles: Vec<_> =
        (0..20).map(|_| by_fork_server().spawn(parent_in_the_system, ()).unwrap()).collect();
    let [server] = fork_servers()[..] else { panic!("{:?}", fork_servers()) };
    for handle in handles {
        assert_eq!(handle.join().unwrap(), Some(server));
    }
    assert!(children(server).is_empty(), "zombies are left");
    end_fork_server();
}

/// A child that runs until the returned end of a socket is dropped.
fn child_at_a_gate(builder: Builder) -> (JoinHandle<u32>, UnixStream) {
    let (gate, opener) = UnixStream::pair().unwrap();
    let handle = builder.stdin(gate).spawn(wait_at_the_gate, 5).unwrap();
    (handle, opener)
}

fn wait_at_the_gate(value: u32) -> u32 {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    value
}

fn fork_server_is_no_active_child_and_its_children_are() {
    let (handle, opener) = child_at_a_gate(by_fork_server());
    let active: Vec<_> = active_children().iter().map(|child| child.pid()).collect();
    assert_eq!(active, [handle.pid()]);
    drop(opener);
    assert_eq!(handle.join().unwrap(), 5);
    assert!(active_children().is_empty());
    end_fork_server();
}

fn leave_with(code: i32) {
    std::process::exit(code)
}

fn eight_threads_get_the_same_status() {
    for round in 0..50 {
        let handle = by_fork_server().spawn(leave_with, round).unwrap();
        let child = handle.child();
        thread::scope(|scope| {
            let poll = || loop {
                if let Some(status) = child.try_wait() {
                    return status;
                }
                thread::yield_now();
            };
            let waiters: Vec<_> = (0..8).map(|_| scope.spawn(poll)).collect();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), ExitStatus::Code(round));
            }
        });
    }
    end_fork_server();
}

fn double(number: u64) -> u64 {
    number * 2
}

fn eight_threads_start_children_at_once() {
    thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..10 {
                    let number = thread * 100 + round;
                    let handle = by_fork_server().spawn(double, number).unwrap();
                    assert_eq!(handle.join().unwrap(), number * 2);
                }
            });
        }
    });
    assert_eq!(fork_servers().len(), 1, "one fork server is enough for all threads");
    end_fork_server();
}

fn open_descriptors(_: ()) -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    list.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

fn children_have_the_descriptors_they_need_and_no_others() {
    let (sibling, opener) = child_at_a_gate(by_fork_server());
    let open = by_fork_server().spawn(open_descriptors, ()).unwrap().join().unwrap();
    let count = |text: &str| open.iter().filter(|target| target.contains(text)).count();
    assert_eq!(count("procession-arena"), 1, "{open:?}");
    // The client's, and none of a sibling. Older systems call it otherwise.
    assert!(count("pidfd") <= 1, "{open:?}");
    assert_eq!(count("socket"), 0, "{open:?}");
    assert_eq!(count("eventpoll"), 0, "{open:?}");
    drop(opener);
    sibling.join().unwrap();
    end_fork_server();
}

fn interrupt_reaches_the_child_and_not_the_fork_server() {
    let (handle, opener) = child_at_a_gate(by_fork_server());
    let [server] = fork_servers()[..] else { panic!("{:?}", fork_servers()) };
    signal(server, Signal::INT);
    handle.interrupt().unwrap();
    let status = handle.child().wait(None).unwrap();
    assert_eq!(status, ExitStatus::Signal { signal: 2, core_dumped: false });
    drop(opener);
    let handle = by_fork_server().spawn(parent_in_the_system, ()).unwrap();
    assert_eq!(handle.join().unwrap(), Some(server), "the fork server was interrupted");
    end_fork_server();
}

fn grandchildren(count: u64) -> (Vec<u64>, Option<u32>) {
    let values = (0..count).map(|number| {
        let handle = by_fork_server().spawn(double, number).unwrap();
        handle.join().unwrap()
    });
    (values.collect(), fork_servers().first().copied())
}

fn child_has_a_fork_server_of_its_own() {
    let handle = by_fork_server().spawn(grandchildren, 3).unwrap();
    let (values, below) = handle.join().unwrap();
    assert_eq!(values, [0, 2, 4]);
    let server = below.expect("the child has a fork server");
    assert!(!fork_servers().contains(&server));
    assert!(wait_until(LIMIT, || !is_running(server)), "it outlives its client");
    end_fork_server();
}

fn members_in_forked_copy() -> usize {
    let count = || Arena::current().unwrap().stats().members;
    Builder::new().fork(count).unwrap().join().unwrap()
}

fn forked_copy_forgets_its_siblings_as_a_single_member() {
    blocks_in_use();
    let before = members_in_forked_copy();
    let (sibling, opener) = child_at_a_gate(by_fork_server());
    drop(sibling);
    let server = stop_fork_server().expect("it has made a child");
    // Only the list of children knows of the sibling now, and the copy drops that list. The sibling
    // and the fork server come in addition.
    assert_eq!(members_in_forked_copy(), before + 2);
    drop(opener);
    assert!(server.wait(None).unwrap().success());
    assert!(wait_until(LIMIT, || active_children().is_empty()));
}

fn forked_copy_does_not_use_its_parents_fork_server() {
    let server = ForkServer::start(own_image("answering")).unwrap();
    by_fork_server().spawn(nothing, ()).unwrap().join().unwrap();
    let handle = Builder::new()
        .fork(|| {
            let refused = server.spawn(&Parcel::default(), &[], false);
            let foreign = matches!(refused, Err(SpawnError::ForeignForkServer { .. }));
            let value = by_fork_server().spawn(double, 4).unwrap().join().unwrap();
            end_fork_server();
            (foreign && !server.is_alive(), value)
        })
        .unwrap();
    assert_eq!(handle.join().unwrap(), (true, 8));
    assert!(server.is_alive(), "a copy has let it go");
    end(server);
    end_fork_server();
}

/// Lets a fork server go and waits for its end.
fn end(server: ForkServer) -> ExitStatus {
    let child = server.child().clone();
    drop(server);
    child.wait(None).unwrap()
}

/// This program, as a fork server of its own.
fn own_image(role: &str) -> Exec {
    Exec::new("/proc/self/exe").args([role]).env(ROLE, role)
}

fn parcel(bytes: &[u8]) -> Parcel {
    Parcel::new(bytes.to_vec(), Pins::default())
}

/// The main function of fork servers that are tested by themselves.
fn other_main(role: &str) -> ExitCode {
    if role == "failing" {
        return ExitCode::from(9);
    }
    let boot = take_boot().unwrap().expect("it is a child");
    assert!(boot.is_fork_server());
    let mut zygote = Zygote::from_boot(&boot).unwrap();
    assert!(Zygote::from_boot(&boot).is_err(), "it can be made only once");
    drop(boot);
    while let Some(request) = zygote.next_request().unwrap() {
        match role {
            "refusing" => zygote.failed(request, "no paper"),
            "forgetting" => drop(request),
            _ => {
                let prepared = request.prepare().unwrap();
                // SAFETY: this is the only thread.
                #[allow(unsafe_code)]
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    prepared.in_child(request.is_daemon()).unwrap();
                    let (boot, descriptors) = request.into_child(zygote).unwrap();
                    return echo_payload(boot.payload(), descriptors);
                }
                zygote.forked(request, pid.try_into().unwrap());
            }
        }
    }
    ExitCode::SUCCESS
}

/// Writes the payload and the place of each descriptor to that descriptor.
fn echo_payload(payload: &[u8], descriptors: Vec<OwnedFd>) -> ExitCode {
    for (place, descriptor) in descriptors.into_iter().enumerate() {
        let mut file = std::fs::File::from(descriptor);
        writeln!(file, "{} {place}", String::from_utf8_lossy(payload)).unwrap();
    }
    ExitCode::from(payload.len() as u8)
}

fn payload_and_descriptors_arrive_in_order() {
    let before = blocks_in_use();
    let server = ForkServer::start(own_image("answering")).unwrap();
    for daemon in [false, true] {
        let pipes: Vec<_> = (0..20).map(|_| std::io::pipe().unwrap()).collect();
        let writers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        let child = server.spawn(&parcel(b"hello"), &writers, daemon).unwrap();
        assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(5));
        for (place, (mut reader, writer)) in pipes.into_iter().enumerate() {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("hello {place}\n"));
        }
    }
    assert!(end(server).success());
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

fn too_many_descriptors_are_refused() {
    let server = ForkServer::start(own_image("answering")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let error = server.spawn(&parcel(b""), &vec![writer.as_fd(); 251], false).unwrap_err();
    assert!(matches!(error, SpawnError::TooManyDescriptors { count: 251, limit: 250 }), "{error}");
    let child = server.spawn(&parcel(b"x"), &vec![writer.as_fd(); 250], false).unwrap();
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).unwrap().lines().count(), 250);
    assert_eq!(child.wait(None).unwrap(), ExitStatus::Code(1));
    assert!(end(server).success());
}

fn orders_that_cannot_be_carried_out_are_answered() {
    let before = blocks_in_use();
    for (role, reason) in [("refusing", "no paper"), ("forgetting", "forgot")] {
        let server = ForkServer::start(own_image(role)).unwrap();
        for _ in 0..3 {
            let error = server.spawn(&parcel(b"hello"), &[], false).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, SpawnError::ForkServer { .. }), "{error:?}");
            assert!(text.contains(reason), "{text}");
            assert!(text.contains(&server.child().pid().to_string()), "{text}");
        }
        assert!(end(server).success());
    }
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

fn fork_server_that_fails_at_once_is_reported() {
    let before = blocks_in_use();
    let server = ForkServer::start(own_image("failing")).unwrap();
    match server.spawn(&parcel(b"hello"), &[], false) {
        Err(SpawnError::ForkServerDied { pid, status }) => {
            assert_eq!((pid, status), (server.child().pid(), ExitStatus::Code(9)));
        }
        other => panic!("{other:?}"),
    }
    assert!(!server.is_alive());
    drop(server);
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

fn let_go_fork_server_still_reaps_its_children() {
    let (handle, opener) = child_at_a_gate(by_fork_server());
    let server = stop_fork_server().expect("it has made a child");
    let (second, second_opener) = child_at_a_gate(by_fork_server());
    assert_eq!(fork_servers().len(), 2, "a new one is started for the next child");
    assert!(server.is_alive());
    handle.terminate().unwrap();
    assert_eq!(handle.child().wait(None).unwrap().signal(), Some(15));
    assert!(server.wait(None).unwrap().success());
    drop((opener, second_opener));
    second.join().unwrap();
    end_fork_server();
}

fn killed_idle_fork_server_is_replaced() {
    let before = blocks_in_use();
    for _ in 0..10 {
        assert_eq!(by_fork_server().spawn(double, 4).unwrap().join().unwrap(), 8);
        let [server] = fork_servers()[..] else { panic!("{:?}", fork_servers()) };
        kill(server);
    }
    assert_eq!(by_fork_server().spawn(double, 5).unwrap().join().unwrap(), 10);
    end_fork_server();
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

fn kill_fork_servers() {
    for server in fork_servers() {
        kill(server);
        assert!(wait_until(LIMIT, || !is_running(server)));
    }
}

fn children_outlive_a_killed_fork_server() {
    let before = blocks_in_use();
    let gates: Vec<_> = [true, false]
        .repeat(3)
        .into_iter()
        .map(|daemon| child_at_a_gate(by_fork_server().daemon(daemon)))
        .collect();
    kill_fork_servers();
    for (handle, _) in &gates {
        assert!(handle.is_alive(), "it died with the fork server");
        assert!(handle.join_timeout(Duration::from_millis(1)).unwrap().is_none());
    }
    gates[0].0.kill().unwrap();
    for (number, (handle, opener)) in gates.into_iter().enumerate() {
        drop(opener);
        match handle.join() {
            Ok(value) => assert_eq!(value, 5),
            Err(JoinError::Died { status, .. }) => {
                assert_eq!((number, status), (0, ExitStatus::Unknown), "it was not killed");
            }
            Err(other) => panic!("{other}"),
        }
    }
    drop(stop_fork_server());
    assert!(active_children().is_empty());
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

fn leave_from_the_gate((code, announced): (i32, bool)) {
    wait_at_the_gate(0);
    if announced {
        announce_exit(code);
    }
    std::process::exit(code);
}

fn exit_code_is_known_after_the_fork_server_only_if_announced() {
    let start = |announced| {
        let (gate, opener) = UnixStream::pair().unwrap();
        let builder = by_fork_server().stdin(gate);
        (builder.spawn(leave_from_the_gate, (7, announced)).unwrap(), opener)
    };
    let (announced, opener) = start(true);
    let (silent, other_opener) = start(false);
    kill_fork_servers();
    drop((opener, other_opener));
    assert_eq!(announced.child().wait(None).unwrap(), ExitStatus::Code(7));
    assert_eq!(silent.child().wait(None).unwrap(), ExitStatus::Unknown);
    drop(stop_fork_server());
    // Does nothing here, where nobody waits for it.
    announce_exit(3);
}

fn put((queue, number): (Queue<u64>, u64)) -> u64 {
    queue.put(&number).unwrap();
    number
}

fn starts_survive_a_fork_server_that_is_killed_again_and_again() {
    const STARTS: u64 = 150;
    let queue = Queue::<u64>::new().unwrap();
    // The first value makes room for the others.
    queue.put(&0).unwrap();
    queue.get().unwrap();
    let before = blocks_in_use();
    let mut kills = 0_u32;
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut number = 0;
            while number < STARTS {
                match by_fork_server().spawn(put, (queue.clone(), number)) {
                    // A child that was started runs to its end, whoever made it.
                    Ok(handle) => assert_eq!(handle.join().unwrap(), number),
                    Err(SpawnError::ForkServerDied { .. }) => continue,
                    Err(other) => panic!("{other}"),
                }
                number += 1;
            }
        });
        while !starter.is_finished() {
            count_to(u64::from(kills % 50) * 4_000);
            for server in fork_servers() {
                kill(server);
                kills += 1;
            }
        }
        starter.join().unwrap();
    });
    assert!(kills > 10, "no fork server was killed in time");
    let mut seen = BTreeMap::new();
    while let Ok(number) = queue.try_get() {
        *seen.entry(number).or_insert(0) += 1;
    }
    assert!(seen.into_iter().eq((0..STARTS).map(|number| (number, 1))), "some ran twice or never");
    drop(stop_fork_server());
    assert!(wait_until(LIMIT, || active_children().is_empty() && fork_servers().is_empty()));
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}

/// Says who it is and who its fork server is, and then sends back what it is sent, until the end.
fn echo(_: ()) {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let server = parent_in_the_system(()).unwrap();
    for pid in [std::process::id(), server] {
        stream.write_all(&pid.to_le_bytes()).unwrap();
    }
    let mut answer = stream.try_clone().unwrap();
    std::io::copy(&mut stream, &mut answer).unwrap();
}

/// Has the child of a fork server at its standard input, and waits for it.
fn parent_of_echo(daemon: bool) {
    let stream = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    by_fork_server().daemon(daemon).stdin(stream).spawn(echo, ()).unwrap().join().unwrap();
}

fn read_pid(stream: &mut UnixStream) -> u32 {
    let mut pid = [0; 4];
    stream.read_exact(&mut pid).unwrap();
    u32::from_le_bytes(pid)
}

fn ask(stream: &mut UnixStream) {
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).expect("the other side is gone");
}

fn daemon_whose_fork_server_was_killed_dies_with_the_client() {
    for daemon in [true, false] {
        let (mut stream, there) = UnixStream::pair().unwrap();
        let client = Builder::new().stdin(there).spawn(parent_of_echo, daemon).unwrap();
        let (bottom, server) = (read_pid(&mut stream), read_pid(&mut stream));
        ask(&mut stream);
        kill(server);
        assert!(wait_until(LIMIT, || !is_running(server)));
        ask(&mut stream);
        client.kill().unwrap();
        client.join().unwrap_err();
        if !daemon {
            ask(&mut stream);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        assert!(wait_until(LIMIT, || !is_running(bottom)), "daemon: {daemon}; it lives on");
    }
}

fn wait_for_ever(_: ()) {
    loop {
        thread::park();
    }
}

/// Starts daemons until it is killed.
fn start_daemons() {
    loop {
        let handle = by_fork_server().daemon(true).spawn(wait_for_ever, ()).unwrap();
        if handle.pid().is_multiple_of(3) {
            handle.kill().unwrap();
            handle.join().unwrap_err();
        }
    }
}

fn clients_killed_while_they_start_daemons_leave_nothing() {
    kill_clients(50);
}

fn soak_clients_killed_a_thousand_times_leave_nothing() {
    kill_clients(1_000);
}

fn kill_clients(rounds: u64) {
    let before = blocks_in_use();
    for round in 0..rounds {
        let (reader, writer) = std::io::pipe().unwrap();
        let handle = Builder::new()
            .fork(|| {
                // Inherited by all of them, the fork server included.
                fcntl_setfd(&writer, FdFlags::empty()).unwrap();
                start_daemons();
            })
            .unwrap();
        // A moment that differs from round to round, up to some milliseconds.
        count_to((round % 50) * 30_000);
        handle.kill().unwrap();
        handle.join().unwrap_err();
        drop(writer);
        // The end comes when all of them are dead: none is left to itself.
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }
    assert_eq!(blocks_in_use(), before, "blocks are left in the arena");
}
