//! Queues among processes that are killed at any moment.
//!
//! Producers and consumers use one queue, and one of them is killed every few milliseconds, wherever
//! it happens to be. Messages carry numbers, so that it can be said of each whether it arrived once.

mod deaths;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use procession::channel::connection::wait;
use procession::channel::{ByteQueue, GetError, JoinableByteQueue, PutError, TasksError};
use procession::process::{self, Builder, JoinHandle};
use procession::shm::Arena;
use procession::sync::Event;
use procession_testing::process::wait_until;

use self::deaths::{kill, work_before_kill};

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(60);
const PRODUCERS: usize = 2;
const CONSUMERS: usize = 2;
/// How many are killed in a quick test.
const KILLS: usize = 200;
/// Rounds of work from kill to kill, at most.
const MOST_WORK: usize = 300_000;
/// For how long they are in a long one.
const SOAK: Duration = Duration::from_secs(60);
/// As short as makes a consumer come back to look whether it is to end.
const SHORT: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    procession_testing::run(
        process::init,
        procession_testing::tests![
            messages_survive_their_senders_and_receivers,
            descriptors_survive_whoever_sets_them,
            count_of_unfinished_survives_consumers,
            soak_messages_survive_a_minute_of_kills,
            soak_descriptors_survive_a_minute_of_kills,
            soak_count_of_unfinished_survives_a_minute_of_kills
        ],
    )
}

/// When a test has killed enough.
#[derive(Clone, Copy)]
enum Until {
    Kills(usize),
    Time(Instant),
}

impl Until {
    fn reached(self, kills: usize) -> bool {
        match self {
            Self::Kills(most) => kills >= most,
            Self::Time(end) => Instant::now() >= end,
        }
    }
}

fn soak() -> Until {
    Until::Time(Instant::now() + SOAK)
}

fn past() -> Option<Instant> {
    Some(Instant::now())
}

/// Message `number` of a producer: who, which, and bytes that show whether it is whole. Some are
/// too large for a record and travel as a parcel.
fn message(producer: u64, number: u64) -> Vec<u8> {
    let len = match number % 8 {
        0 => 20_000 + number as usize % 50_000,
        _ => number as usize * 37 % 3000,
    };
    let mut bytes = vec![number as u8; 16 + len];
    bytes[..8].copy_from_slice(&producer.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn name_of(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

/// The producer and number of a message, which must be as it was sent.
fn check(bytes: &[u8]) -> (u64, u64) {
    let (producer, number) = name_of(bytes);
    assert!(bytes == message(producer, number), "message {number} of {producer} is not whole");
    (producer, number)
}

/// Processes that are killed and replaced.
struct Crew<'a> {
    job: &'a dyn Fn(u64),
    hired: u64,
    workers: Vec<JoinHandle<()>>,
}

impl<'a> Crew<'a> {
    fn start(size: usize, job: &'a dyn Fn(u64)) -> Self {
        let mut crew = Self { job, hired: 0, workers: Vec::new() };
        (0..size).for_each(|_| crew.hire());
        crew
    }

    fn hire(&mut self) {
        self.hired += 1;
        let (job, number) = (self.job, self.hired);
        self.workers.push(Builder::new().daemon(true).fork(|| job(number)).unwrap());
    }

    fn replace_oldest(&mut self) {
        kill(self.workers.remove(0));
        self.hire();
    }

    /// Waits for all to end by themselves.
    fn join(self) {
        for worker in self.workers {
            assert!(wait_until(DEADLOCK, || worker.exit_status().is_some()), "a worker hangs");
            worker.join().unwrap();
        }
    }
}

/// Kills one after the other, of both crews in turn; returns how many consumers.
fn spree(producers: &mut Crew<'_>, consumers: &mut Crew<'_>, until: Until) -> usize {
    let mut kills = 0;
    while !until.reached(kills) {
        work_before_kill(kills, MOST_WORK);
        if kills % 2 == 0 {
            producers.replace_oldest()
        } else {
            consumers.replace_oldest()
        }
        kills += 1;
    }
    kills / 2
}

/// Checks that of each producer's messages all have come but `may_lack` in total, none twice.
fn audit(log: &ByteQueue, may_lack: usize) -> usize {
    let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
    while let Ok(name) = log.get(past()) {
        let (producer, number) = name_of(&name);
        seen.entry(producer).or_default().push(number);
    }
    let mut lacking = 0;
    let mut total = 0;
    for (producer, mut numbers) in seen {
        total += numbers.len();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "a message of {producer} came twice");
        // The last one of a producer is not known; all before have been put.
        lacking += numbers[count - 1] as usize + 1 - count;
    }
    assert!(lacking <= may_lack, "{lacking} are lost, and {may_lack} consumers were killed");
    total
}

fn messages_survive_their_senders_and_receivers() {
    messages(Until::Kills(KILLS), false);
}

fn soak_messages_survive_a_minute_of_kills() {
    messages(soak(), false);
}

fn descriptors_survive_whoever_sets_them() {
    messages(Until::Kills(KILLS), true);
}

fn soak_descriptors_survive_a_minute_of_kills() {
    messages(soak(), true);
}

fn messages(until: Until, with_descriptors: bool) {
    let stop = Event::new().unwrap();
    let blocks = Arena::current().unwrap().stats().blocks;
    let queue = ByteQueue::new(64).unwrap();
    let log = ByteQueue::new(0).unwrap();
    let own = with_descriptors.then(|| queue.readiness().unwrap());
    let produce = |producer: u64| {
        for number in 0.. {
            loop {
                if stop.is_set() {
                    return;
                }
                match queue.put(&message(producer, number), Some(Instant::now() + SHORT)) {
                    Ok(()) => break,
                    Err(PutError::Full) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let consume = |_| {
        while !stop.is_set() {
            if with_descriptors {
                wait(&[&queue], Some(SHORT)).unwrap();
            }
            match queue.get(Some(Instant::now() + SHORT)) {
                Ok(message) => {
                    let (producer, number) = check(&message);
                    let name = [producer.to_le_bytes(), number.to_le_bytes()].concat();
                    log.put(&name, None).unwrap();
                }
                Err(GetError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut producers = Crew::start(PRODUCERS, &produce);
    let mut consumers = Crew::start(CONSUMERS, &consume);
    let killed = spree(&mut producers, &mut consumers, until);
    stop.set();
    producers.join();
    consumers.join();
    if let Some(own) = &own {
        let waited = wait(&[&**own], Some(Duration::ZERO)).unwrap();
        assert!(!waited.is_empty() || queue.is_empty(), "there is something, and nobody says so");
    }
    while let Ok(message) = queue.get(past()) {
        let (producer, number) = check(&message);
        let name = [producer.to_le_bytes(), number.to_le_bytes()].concat();
        log.put(&name, None).unwrap();
    }
    if let Some(own) = &own {
        assert!(wait(&[&**own], Some(Duration::ZERO)).unwrap().is_empty(), "readable for ever");
        queue.put(&message(0, 0), None).unwrap();
        assert_eq!(wait(&[&**own], None).unwrap(), [0]);
        queue.get(None).unwrap();
        assert!(wait(&[&**own], Some(Duration::ZERO)).unwrap().is_empty());
    }
    let total = audit(&log, killed);
    assert!(total > killed, "{total} messages were too few to say anything");
    drop((own, queue, log));
    no_more_blocks_than(blocks);
}

/// Burials may take a moment.
fn no_more_blocks_than(before: usize) {
    let blocks = || Arena::current().unwrap().stats().blocks;
    assert!(
        wait_until(DEADLOCK, || blocks() <= before),
        "{} blocks, and {before} before",
        blocks()
    );
}

fn count_of_unfinished_survives_consumers() {
    count(Until::Kills(KILLS));
}

fn soak_count_of_unfinished_survives_a_minute_of_kills() {
    count(soak());
}

fn count(until: Until) {
    let queue = JoinableByteQueue::new(0).unwrap();
    let stop = Event::new().unwrap();
    let consume = |_| {
        while !stop.is_set() {
            match queue.get(Some(Instant::now() + SHORT)) {
                Ok(message) => {
                    check(&message);
                    queue.task_done().unwrap();
                }
                Err(GetError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut consumers = Crew::start(CONSUMERS, &consume);
    let (mut kills, mut lost, mut next) = (0, 0, 0);
    while !until.reached(kills) {
        for _ in 0..50 {
            queue.put(&message(1, next), None).unwrap();
            next += 1;
        }
        work_before_kill(kills, MOST_WORK);
        consumers.replace_oldest();
        kills += 1;
        lost += lost_until_done(&queue);
        assert_eq!(queue.unfinished(), 0);
        assert!(queue.is_empty(), "what is in the queue is not done");
        assert!(lost <= kills as u64, "{lost} lost to {kills} deaths of one task each");
    }
    stop.set();
    consumers.join();
}

fn lost_until_done(queue: &JoinableByteQueue) -> u64 {
    let mut lost = 0;
    loop {
        match queue.join(Some(Instant::now() + DEADLOCK)) {
            Ok(()) => return lost,
            Err(TasksError::Lost { tasks, .. }) => lost += tasks,
            Err(error) => panic!("{error}: {queue:?}"),
        }
    }
}
