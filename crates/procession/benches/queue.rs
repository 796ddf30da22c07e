//! A queue between two processes: the child puts, this process gets.

use std::time::{Duration, Instant};

use procession::channel::{ByteQueue, Queue};
use procession::process::spawn;
use procession_testing::Report;

/// How many values the batch calls move at once.
const BATCH: usize = 64;

fn main() {
    procession::init();
    let mut report = Report::new("queue");
    let count = report.scaled(5_000_000);
    report.measure("u64, one at a time", "messages", || one_at_a_time(count));
    report.measure("u64, batches of 64", "messages", || in_batches(count));
    for (name, size, count) in
        [("1 KiB", 1 << 10, 500_000), ("64 KiB", 1 << 16, 50_000), ("1 MiB", 1 << 20, 2_000)]
    {
        let count = report.scaled(count);
        report.measure(name, "messages", || blocks(size, count));
    }
    report.finish();
}

/// Both sides are ready before the clock starts.
struct Race<Q> {
    channel: Q,
    ready: Queue<()>,
    go: Queue<()>,
}

impl<Q> Race<Q> {
    fn new(channel: Q) -> Self {
        Self {
            channel,
            ready: Queue::new().expect("shared memory for a queue"),
            go: Queue::new().expect("shared memory for a queue"),
        }
    }

    fn start(&self) -> Instant {
        self.ready.get().expect("the child is ready");
        let start = Instant::now();
        self.go.put(&()).expect("the child is waiting");
        start
    }
}

fn wait_for_go(ready: &Queue<()>, go: &Queue<()>) {
    ready.put(&()).expect("the parent is waiting");
    go.get().expect("the parent says go");
}

fn put_each((channel, ready, go, count): (Queue<u64>, Queue<()>, Queue<()>, u64)) {
    wait_for_go(&ready, &go);
    for number in 0..count {
        channel.put(&number).expect("room in the queue");
    }
}

fn one_at_a_time(count: u64) -> (u64, Duration) {
    let race = Race::new(Queue::new().expect("shared memory for a queue"));
    let args = (race.channel.clone(), race.ready.clone(), race.go.clone(), count);
    let child = spawn(put_each, args).expect("the child starts");
    let start = race.start();
    for expected in 0..count {
        let number = race.channel.get().expect("the child sends");
        assert_eq!(number, expected, "numbers come in order");
    }
    let time = start.elapsed();
    child.join().expect("the child ends well");
    (count, time)
}

fn put_batches((channel, ready, go, count): (Queue<u64>, Queue<()>, Queue<()>, u64)) {
    wait_for_go(&ready, &go);
    let numbers: Vec<u64> = (0..count).collect();
    for batch in numbers.chunks(BATCH) {
        channel.put_many(batch).expect("room in the queue");
    }
}

fn in_batches(count: u64) -> (u64, Duration) {
    let race = Race::new(Queue::new().expect("shared memory for a queue"));
    let args = (race.channel.clone(), race.ready.clone(), race.go.clone(), count);
    let child = spawn(put_batches, args).expect("the child starts");
    let start = race.start();
    let mut left = count;
    while left > 0 {
        left -= race.channel.get_many(BATCH).expect("the child sends").len() as u64;
    }
    let time = start.elapsed();
    child.join().expect("the child ends well");
    (count, time)
}

fn put_blocks((channel, ready, go, size, count): (ByteQueue, Queue<()>, Queue<()>, usize, u64)) {
    let block = vec![7; size];
    wait_for_go(&ready, &go);
    for _ in 0..count {
        channel.put(&block, None).expect("room in the queue");
    }
}

fn blocks(size: usize, count: u64) -> (u64, Duration) {
    let race = Race::new(ByteQueue::new(0).expect("shared memory for a queue"));
    let args = (race.channel.clone(), race.ready.clone(), race.go.clone(), size, count);
    let child = spawn(put_blocks, args).expect("the child starts");
    let start = race.start();
    for _ in 0..count {
        let message = race.channel.get(None).expect("the child sends");
        assert_eq!(message.as_ref().len(), size, "blocks come whole");
    }
    let time = start.elapsed();
    child.join().expect("the child ends well");
    (count, time)
}
