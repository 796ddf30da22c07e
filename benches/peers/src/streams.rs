//! One process sends, another one receives as fast as it can.
//!
//! Blocks of bytes are copied in from a buffer of the sender and copied out into one of the
//! receiver, because that is what a program does which keeps what it has got.

use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{BackpressureStrategy, Config, LogLevel, NodeBuilder, set_log_level};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use ipc_channel::ipc;
use procession::channel::{ByteQueue, Queue};

use crate::sides::race;

/// Blocks under way at most, where there is a bound.
const BOUND: usize = 64;

pub(crate) fn queue(count: u64) -> (u64, Duration) {
    let queue = Queue::<u64>::new().expect("shared memory for a queue");
    let send = |queue: &mut &Queue<u64>| {
        (0..count).for_each(|number| queue.put(&number).expect("memory for a message"));
    };
    let receive = |queue: &mut &Queue<u64>| {
        (0..count).for_each(|number| assert_eq!(queue.get().expect("a message"), number));
    };
    (count, race(|| &queue, send, || &queue, receive))
}

pub(crate) fn ipc_channel(count: u64) -> (u64, Duration) {
    let (sender, receiver) = ipc::channel::<u64>().expect("descriptors for a channel");
    let send = |sender: &mut ipc::IpcSender<u64>| {
        (0..count).for_each(|number| sender.send(number).expect("the receiver lives"));
    };
    let receive = |receiver: &mut ipc::IpcReceiver<u64>| {
        (0..count).for_each(|number| assert_eq!(receiver.recv().expect("a message"), number));
    };
    (count, race(|| sender.clone(), send, || receiver, receive))
}

/// Between two threads: nothing is serialized and no process can die alone.
pub(crate) fn crossbeam(count: u64) -> (u64, Duration) {
    let (sender, receiver) = crossbeam_channel::unbounded::<u64>();
    let (go, started) = crossbeam_channel::bounded::<()>(0);
    let thread = std::thread::spawn(move || {
        started.recv().expect("the main thread says go");
        (0..count).for_each(|number| sender.send(number).expect("the receiver lives"));
    });
    go.send(()).expect("the thread lives");
    let start = Instant::now();
    (0..count).for_each(|number| assert_eq!(receiver.recv().expect("a message"), number));
    let time = start.elapsed();
    thread.join().expect("the thread ends well");
    (count, time)
}

pub(crate) fn byte_queue<const SIZE: usize>(count: u64) -> (u64, Duration) {
    through_a_byte_queue::<SIZE>(0, count)
}

pub(crate) fn bounded_byte_queue<const SIZE: usize>(count: u64) -> (u64, Duration) {
    through_a_byte_queue::<SIZE>(BOUND, count)
}

fn through_a_byte_queue<const SIZE: usize>(bound: usize, count: u64) -> (u64, Duration) {
    let queue = ByteQueue::new(bound).expect("shared memory for a queue");
    let block = vec![7_u8; SIZE];
    let send = |queue: &mut &ByteQueue| {
        (0..count).for_each(|_| queue.put(&block, None).expect("memory for a message"));
    };
    let mut target = vec![0_u8; SIZE];
    let receive = |queue: &mut &ByteQueue| {
        (0..count).for_each(|_| target.copy_from_slice(&queue.get(None).expect("a message")));
    };
    let time = race(|| &queue, send, || &queue, receive);
    assert_eq!(target, block, "what comes is what was sent");
    (count, time)
}

pub(crate) fn ipc_bytes<const SIZE: usize>(count: u64) -> (u64, Duration) {
    let (sender, receiver) = ipc::bytes_channel().expect("descriptors for a channel");
    let block = vec![7_u8; SIZE];
    let send = |sender: &mut ipc::IpcBytesSender| {
        (0..count).for_each(|_| sender.send(&block).expect("the receiver lives"));
    };
    // What comes is a vector of the receiver's already: nothing to copy out.
    let mut last = Vec::new();
    let receive = |receiver: &mut ipc::IpcBytesReceiver| {
        (0..count).for_each(|_| last = receiver.recv().expect("a message"));
    };
    let time = race(|| sender.clone(), send, || receiver, receive);
    assert_eq!(last, block, "what comes is what was sent");
    (count, time)
}

pub(crate) fn iceoryx2<const SIZE: usize>(count: u64) -> (u64, Duration) {
    let name = format!("procession-peers-{}", std::process::id());
    let block = vec![7_u8; SIZE];
    let mut target = vec![0_u8; SIZE];
    let time = race(
        || Out::new(&name, SIZE),
        |out| (0..count).for_each(|_| out.send(&block)),
        || In::new(&name),
        |end| (0..count).for_each(|_| end.receive_into(&mut target)),
    );
    assert_eq!(target, block, "what comes is what was sent");
    (count, time)
}

type Ipc = iceoryx2::prelude::ipc::Service;

/// How the names begin of all that iceoryx2 makes here.
const PREFIX: &str = "procession_peers_";

/// A segment about its nodes, which it keeps for the next program.
pub(crate) fn remove_what_iceoryx2_leaves() {
    let Ok(folder) = std::fs::read_dir("/dev/shm") else { return };
    for entry in folder.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            // Gone already: then nothing is left.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Nothing is lost: who publishes waits while the buffer of who subscribed is full.
fn service(name: &str) -> PortFactory<Ipc, [u8], ()> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = PREFIX.try_into().expect("a short name");
    let node = NodeBuilder::new().config(&config).create::<Ipc>().expect("files for a node");
    node.service_builder(&name.try_into().expect("a short name"))
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(BOUND)
        .max_publishers(1)
        .max_subscribers(1)
        .open_or_create()
        .expect("files for a service")
}

/// The publishing end of a service.
pub(crate) struct Out(Publisher<Ipc, [u8], ()>);

impl Out {
    pub(crate) fn new(name: &str, size: usize) -> Self {
        let publisher = service(name)
            .publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create();
        Self(publisher.expect("shared memory for a publisher"))
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        let sample = self.0.loan_slice_uninit(bytes.len()).expect("memory for a message");
        let receivers = sample.write_from_slice(bytes).send().expect("the subscriber lives");
        assert_eq!(receivers, 1, "there is one subscriber");
    }
}

/// The subscribed end of a service.
pub(crate) struct In(Subscriber<Ipc, [u8], ()>);

impl In {
    pub(crate) fn new(name: &str) -> Self {
        let subscriber = service(name).subscriber_builder().buffer_size(BOUND).create();
        Self(subscriber.expect("shared memory for a subscriber"))
    }

    /// Looks again and again until a message has come, which is how one waits for it in the least time.
    pub(crate) fn receive_into(&self, target: &mut [u8]) {
        loop {
            if let Some(sample) = self.0.receive().expect("the publisher lives") {
                return target.copy_from_slice(&sample);
            }
            std::hint::spin_loop();
        }
    }
}
