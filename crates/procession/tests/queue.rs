//! Queues among processes: descriptors that say whether there is something to get, and the count of
//! what is not done.

use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use procession::channel::connection::{Waitable, byte_pipe, wait};
use procession::channel::{
    ByteQueue, GetError, JoinableByteQueue, JoinableQueue, Queue, TaskDoneError, TasksError,
};
use procession::process::{self, Builder, JoinHandle};
use procession::sync::Event;
use procession_testing::process::wait_until;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
const NOW: Option<Duration> = Some(Duration::ZERO);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            descriptor_follows_the_queue,
            descriptor_is_readable_when_the_queue_is_closed,
            descriptor_follows_what_other_processes_do,
            forked_child_has_a_descriptor_of_its_own,
            each_of_many_processes_has_a_descriptor,
            descriptor_that_is_let_go_of_is_closed_and_made_anew,
            descriptor_goes_with_the_last_handle,
            wait_takes_queues_beside_other_things,
            wait_on_a_queue_keeps_its_timeout,
            readiness_in_vain_happens_once,
            join_waits_for_all_that_was_put,
            too_many_acknowledgements_are_refused,
            another_process_may_acknowledge,
            join_tells_of_a_killed_consumer,
            joiners_are_told_of_a_loss_and_none_hangs,
            consumer_that_acknowledged_loses_nothing,
            join_with_timeout_gives_up,
            joinable_queue_travels
        ],
    )
}

fn is_readable(object: &impl AsFd) -> bool {
    !wait(&[object.as_fd()], NOW).unwrap().is_empty()
}

fn past() -> Option<Instant> {
    Some(Instant::now())
}

/// Runs `job` in a forked child, to its end.
fn in_child(job: impl FnOnce()) {
    Builder::new().daemon(true).fork(job).unwrap().join().unwrap();
}

/// Starts a child that does `job` and then waits to be killed.
fn doomed(job: impl FnOnce()) -> JoinHandle<()> {
    let ready = Event::new().unwrap();
    let child = Builder::new().daemon(true).fork(|| {
        job();
        ready.set();
        Event::new().unwrap().wait(None).unwrap();
    });
    ready.wait_for(DEADLOCK).expect("the child does its job");
    child.unwrap()
}

fn kill(child: JoinHandle<()>) {
    child.kill().unwrap();
    child.join().unwrap_err();
}

fn descriptor_follows_the_queue() {
    let queue = ByteQueue::new(0).unwrap();
    let readiness = queue.readiness().unwrap();
    assert!(!is_readable(&*readiness));
    for _ in 0..3 {
        queue.put(b"1", None).unwrap();
        queue.put_many([&b"2"[..], b"3"], None).unwrap();
        assert!(is_readable(&*readiness));
        queue.get(None).unwrap();
        assert!(is_readable(&*readiness), "two are left");
        assert_eq!(queue.get_many(5, None).unwrap().len(), 2);
        assert!(!is_readable(&*readiness));
    }
    queue.put(&[0; 100_000], None).unwrap();
    assert!(is_readable(&*readiness));
}

fn descriptor_is_readable_when_the_queue_is_closed() {
    let queue = Queue::<u8>::new().unwrap();
    let readiness = queue.readiness().unwrap();
    queue.close();
    assert!(is_readable(&*readiness));
    assert!(matches!(queue.try_get(), Err(GetError::Closed)));
    assert!(is_readable(&*readiness), "it stays closed");
}

fn descriptor_follows_what_other_processes_do() {
    let queue = ByteQueue::new(0).unwrap();
    let readiness = queue.readiness().unwrap();
    in_child(|| queue.put(b"from the child", None).unwrap());
    assert!(is_readable(&*readiness));
    in_child(|| drop(queue.get(None).unwrap()));
    assert!(!is_readable(&*readiness));
}

fn forked_child_has_a_descriptor_of_its_own() {
    let queue = ByteQueue::new(0).unwrap();
    let parents = queue.readiness().unwrap();
    let (said, say) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Builder::new().daemon(true).fork(|| {
        let own = queue.readiness().unwrap();
        assert_ne!(own.as_raw_fd(), parents.as_raw_fd());
        assert!(!is_readable(&*own));
        said.set();
        say.wait(None).unwrap();
        assert_eq!(wait(&[&*own], Some(DEADLOCK)).unwrap(), [0]);
    });
    said.wait_for(DEADLOCK).unwrap();
    queue.put(b"for both", None).unwrap();
    say.set();
    assert!(is_readable(&*parents));
    child.unwrap().join().unwrap();
    assert!(is_readable(&*parents), "nobody has got it");
}

fn each_of_many_processes_has_a_descriptor() {
    let queue = ByteQueue::new(0).unwrap();
    let arrived = Queue::<u8>::new().unwrap();
    let children: Vec<_> = (0..45)
        .map(|_| {
            let child = Builder::new().daemon(true).fork(|| {
                let own = queue.readiness().unwrap();
                arrived.put(&1).unwrap();
                assert_eq!(wait(&[&*own], Some(DEADLOCK)).unwrap(), [0]);
            });
            child.unwrap()
        })
        .collect();
    (0..45).for_each(|_| assert_eq!(arrived.get_timeout(DEADLOCK).unwrap(), 1));
    queue.put(b"for all", None).unwrap();
    children.into_iter().for_each(|child| child.join().unwrap());
}

fn descriptor_that_is_let_go_of_is_closed_and_made_anew() {
    let queue = ByteQueue::new(0).unwrap();
    let number = queue.readiness().unwrap().as_raw_fd();
    queue.forget_readiness();
    assert!(std::fs::read_link(format!("/proc/self/fd/{number}")).is_err());
    queue.put(b"x", None).unwrap();
    assert!(is_readable(&*queue.readiness().unwrap()));
}

fn descriptor_goes_with_the_last_handle() {
    let queue = ByteQueue::new(0).unwrap();
    let same = queue.clone();
    let number = queue.readiness().unwrap().as_raw_fd();
    assert_eq!(same.readiness().unwrap().as_raw_fd(), number, "one for all handles");
    let path = format!("/proc/self/fd/{number}");
    let pipe = std::fs::read_link(&path).unwrap();
    drop(queue);
    assert_eq!(std::fs::read_link(&path).unwrap(), pipe);
    drop(same);
    assert!(std::fs::read_link(&path).is_err());
}

fn wait_takes_queues_beside_other_things() {
    let queue = ByteQueue::new(0).unwrap();
    let typed = JoinableQueue::<u8>::new().unwrap();
    let (here, there) = byte_pipe().unwrap();
    let all: [&dyn Waitable; 3] = [&queue, &typed, &here];
    assert!(wait(&all, NOW).unwrap().is_empty());
    typed.put(&1).unwrap();
    assert_eq!(wait(&all, None).unwrap(), [1]);
    there.send(b"x").unwrap();
    queue.put(b"x", None).unwrap();
    assert_eq!(wait(&all, None).unwrap(), [0, 1, 2]);
    assert_eq!(wait(&[&queue, &queue.clone()], None).unwrap(), [0, 1]);
}

fn wait_on_a_queue_keeps_its_timeout() {
    let queue = Queue::<u8>::new().unwrap();
    let start = Instant::now();
    assert!(wait(&[&queue], Some(Duration::from_millis(20))).unwrap().is_empty());
    assert!(start.elapsed() >= Duration::from_millis(20));
}

/// Whatever a killed process leaves, the first get that finds nothing puts it right.
fn readiness_in_vain_happens_once() {
    let queue = ByteQueue::new(0).unwrap();
    let readiness = queue.readiness().unwrap();
    // As a producer leaves it that is killed before it publishes.
    use std::io::Write;
    let mut pipe = std::fs::File::from(readiness.writable().try_clone_to_owned().unwrap());
    pipe.write_all(&[1]).unwrap();
    queue.put(b"x", None).unwrap();
    queue.get(None).unwrap();
    assert!(!is_readable(&*readiness), "all bytes are taken out");
    assert!(wait(&[&queue], NOW).unwrap().is_empty());
}

fn join_waits_for_all_that_was_put() {
    let queue = JoinableQueue::new().unwrap();
    queue.join().unwrap();
    (0..100_u32).for_each(|number| queue.put(&number).unwrap());
    let children: Vec<_> = (0..3)
        .map(|_| {
            let child = Builder::new().daemon(true).fork(|| {
                while queue.try_get().is_ok() {
                    queue.task_done().unwrap();
                }
            });
            child.unwrap()
        })
        .collect();
    queue.join().unwrap();
    assert_eq!(queue.unfinished(), 0);
    assert!(queue.is_empty());
    children.into_iter().for_each(|child| child.join().unwrap());
}

fn too_many_acknowledgements_are_refused() {
    let queue = JoinableByteQueue::new(0).unwrap();
    assert!(matches!(queue.task_done(), Err(TaskDoneError::TooMany)));
    queue.put(b"x", None).unwrap();
    queue.task_done().unwrap();
    assert!(matches!(queue.task_done(), Err(TaskDoneError::TooMany)));
    assert_eq!((queue.len(), queue.unfinished()), (1, 0), "it need not have been taken");
}

fn another_process_may_acknowledge() {
    let queue = JoinableByteQueue::new(0).unwrap();
    queue.put_many([&b"1"[..], b"2", b"3"], None).unwrap();
    in_child(|| assert_eq!(queue.get_many(3, None).unwrap().len(), 3));
    (0..3).for_each(|_| queue.task_done().unwrap());
    queue.join(None).unwrap();
}

fn join_tells_of_a_killed_consumer() {
    let queue = JoinableByteQueue::new(0).unwrap();
    queue.put_many([&b"1"[..], b"2", b"3", b"4"], None).unwrap();
    let child = doomed(|| {
        queue.get_many(3, None).unwrap();
        queue.task_done().unwrap();
    });
    let pid = child.pid();
    kill(child);
    match queue.join(None) {
        Err(TasksError::Lost { pid: of, tasks: 2 }) if of == pid => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(queue.unfinished(), 1, "the one that nobody has taken");
    queue.get(None).unwrap();
    queue.task_done().unwrap();
    queue.join(None).unwrap();
    assert!(matches!(queue.task_done(), Err(TaskDoneError::TooMany)));
}

fn joiners_are_told_of_a_loss_and_none_hangs() {
    let queue = JoinableByteQueue::new(0).unwrap();
    queue.put(b"1", None).unwrap();
    let child = doomed(|| drop(queue.get(None).unwrap()));
    std::thread::scope(|scope| {
        let joiners: Vec<_> = (0..3).map(|_| scope.spawn(|| queue.join(None))).collect();
        let asleep = || std::fs::read_dir("/proc/self/task").unwrap().count() > 3;
        assert!(wait_until(DEADLOCK, asleep));
        kill(child);
        let told = joiners
            .into_iter()
            .map(|joiner| joiner.join().unwrap())
            .filter(|result| matches!(result, Err(TasksError::Lost { tasks: 1, .. })))
            .count();
        assert!(told >= 1);
    });
}

fn consumer_that_acknowledged_loses_nothing() {
    let queue = JoinableByteQueue::new(0).unwrap();
    queue.put(b"1", None).unwrap();
    kill(doomed(|| {
        queue.get(None).unwrap();
        queue.task_done().unwrap();
    }));
    queue.join(None).unwrap();
}

fn join_with_timeout_gives_up() {
    let queue = JoinableQueue::<u8>::new().unwrap();
    queue.put(&1).unwrap();
    let result = queue.join_timeout(Duration::from_millis(5));
    assert!(matches!(result, Err(TasksError::TimedOut)));
}

fn joinable_queue_travels() {
    let outer = Queue::<JoinableQueue<u8>>::new().unwrap();
    let inner = JoinableQueue::new().unwrap();
    inner.put(&7).unwrap();
    outer.put(&inner).unwrap();
    let same = outer.get().unwrap();
    assert_eq!(same.get().unwrap(), 7);
    same.task_done().unwrap();
    inner.join().unwrap();
    assert!(matches!(inner.get_timeout(Duration::ZERO), Err(GetError::Empty)));
    let plain = ByteQueue::new(0).unwrap();
    assert!(matches!(plain.get(past()), Err(GetError::Empty)));
}
