//! Descriptors and connections in arguments and messages: they arrive, or it is said why not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use procession::channel::Queue;
use procession::channel::connection::{
    Address, ByteConnection, Client, Connection, Fd, Listener, Nothing, Redeem, RedeemError,
    Sender, byte_pipe, byte_pipe_one_way, pipe, pipe_one_way, share, stop_sharing,
};
use procession::pool::Pool;
use procession::process::{Builder, StartMethod};
use serde::{Deserialize, Serialize};

const KEY: &[u8] = b"a key";
const PATIENCE: Duration = Duration::from_secs(30);
const METHODS: [StartMethod; 3] = [StartMethod::Fork, StartMethod::Spawn, StartMethod::ForkServer];

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            connections_are_arguments_with_every_start_method,
            descriptors_are_arguments,
            connections_travel_in_queues_and_pipes,
            long_message_shares_its_descriptor_once,
            connections_are_arguments_of_tasks,
            descriptor_of_a_process_that_has_died_is_an_error,
            number_is_good_for_one_time,
            wrong_key_and_unknown_numbers_are_refused,
            clients_that_are_silent_or_send_garbage_hold_up_nobody,
            fork_is_possible_while_descriptors_are_shared,
            message_that_is_not_sent_shares_nothing,
            stop_closes_what_nobody_has_fetched
        ],
    )
}

fn number(request: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(request.try_into().ok()?))
}

fn redeem(address: &Address, key: &[u8], request: &[u8]) -> Result<OwnedFd, RedeemError> {
    Redeem::start(address, key, request, PATIENCE)?.finish()
}

/// Whether the end of a stream is seen, since no copy of the other end is left.
fn is_at_its_end(connection: &ByteConnection) -> bool {
    connection.recv().is_err()
}

fn double((input, output): (Connection<Nothing, u32>, Sender<u32>)) -> u32 {
    let mut count = 0;
    while let Ok(value) = input.recv() {
        output.send(&(2 * value)).unwrap();
        count += 1;
    }
    count
}

fn connections_are_arguments_with_every_start_method() {
    for method in METHODS {
        let (input, to_child) = pipe_one_way::<u32>().unwrap();
        let (from_child, output) = pipe_one_way::<u32>().unwrap();
        if method == StartMethod::Fork {
            // A closure takes what it captures along, and both ends of the pipe with it.
            let handle =
                Builder::new().fork(|| output.send(&(2 * input.recv().unwrap())).unwrap()).unwrap();
            to_child.send(&21).unwrap();
            assert_eq!(from_child.recv().unwrap(), 42);
            handle.join().unwrap();
            continue;
        }
        let args = (input, output);
        let handle = Builder::new().start_method(method).spawn(double, args).unwrap();
        for value in 0..3 {
            to_child.send(&value).unwrap();
            assert_eq!(from_child.recv().unwrap(), 2 * value);
        }
        drop(to_child);
        assert_eq!(handle.join().unwrap(), 3, "the child sees the end of the stream");
    }
    assert!(stop_sharing(None));
    procession::process::stop_fork_server().unwrap().wait(None).unwrap();
}

fn write_and_read((to, from): (Fd, Fd)) -> String {
    File::from(OwnedFd::from(to)).write_all(b"from the child").unwrap();
    let mut text = String::new();
    File::from(OwnedFd::from(from)).read_to_string(&mut text).unwrap();
    text
}

fn descriptors_are_arguments() {
    let (mut here, there) = UnixStream::pair().unwrap();
    let file = File::open("/proc/self/cmdline").unwrap();
    let args = (Fd::from(OwnedFd::from(there)), Fd::from(OwnedFd::from(file)));
    let handle = procession::spawn(write_and_read, args).unwrap();
    let mut text = String::new();
    here.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the child");
    assert!(handle.join().unwrap().contains("connection_share"));
    assert!(stop_sharing(None));
}

#[derive(Serialize, Deserialize)]
struct Order {
    padding: Vec<u8>,
    reply: Connection<String, Nothing>,
}

fn serve((orders, more): (Queue<Order>, Connection<Nothing, Order>)) {
    for _ in 0..2 {
        let order = orders.get().unwrap();
        order.reply.send(&format!("{} bytes", order.padding.len())).unwrap();
    }
    more.recv().unwrap().reply.send(&"through a pipe".to_owned()).unwrap();
}

fn connections_travel_in_queues_and_pipes() {
    let orders = Queue::new().unwrap();
    let (more, to_child) = pipe_one_way::<Order>().unwrap();
    let handle = procession::spawn(serve, (orders.clone(), more)).unwrap();
    for length in [0, 5000] {
        let (receiver, reply) = pipe_one_way::<String>().unwrap();
        orders.put(&Order { padding: vec![0; length], reply }).unwrap();
        assert_eq!(receiver.recv().unwrap(), format!("{length} bytes"));
        assert!(is_at_its_end(receiver.bytes()), "a copy of the sending end is left");
    }
    let (receiver, reply) = pipe_one_way::<String>().unwrap();
    to_child.send(&Order { padding: Vec::new(), reply }).unwrap();
    assert_eq!(receiver.recv().unwrap(), "through a pipe");
    handle.join().unwrap();
    assert!(stop_sharing(None));
}

fn long_message_shares_its_descriptor_once() {
    let queue = Queue::new().unwrap();
    let (here, there) = byte_pipe().unwrap();
    // Too long for the stack, so that it is serialized twice.
    queue.put(&(there, vec![7_u8; 1000])).unwrap();
    let (there, bytes): (ByteConnection, Vec<u8>) = queue.get().unwrap();
    assert_eq!(bytes.len(), 1000);
    there.send(b"still whole").unwrap();
    assert_eq!(here.recv().unwrap(), b"still whole");
    drop(there);
    assert!(is_at_its_end(&here), "the first attempt has left a copy");
    assert!(stop_sharing(None));
}

fn reply_to((output, value): (Sender<u32>, u32)) {
    output.send(&(value + 1)).unwrap();
}

fn connections_are_arguments_of_tasks() {
    let pool = Pool::new(2).unwrap();
    let (receivers, tasks): (Vec<_>, Vec<_>) = (0..4)
        .map(|value| {
            let (receiver, sender) = pipe_one_way::<u32>().unwrap();
            (receiver, (sender, value))
        })
        .unzip();
    pool.map(reply_to, tasks).unwrap();
    for (value, receiver) in receivers.iter().enumerate() {
        assert_eq!(receiver.recv().unwrap(), value as u32 + 1);
        assert!(is_at_its_end(receiver.bytes()));
    }
    drop(pool);
    assert!(stop_sharing(None));
}

fn share_and_die(queue: Queue<Fd>) {
    let file = File::open("/dev/null").unwrap();
    queue.put(&Fd::from(OwnedFd::from(file))).unwrap();
    procession_testing::process::kill(std::process::id());
}

fn descriptor_of_a_process_that_has_died_is_an_error() {
    let queue = Queue::new().unwrap();
    let handle = procession::spawn(share_and_die, queue.clone()).unwrap();
    assert!(handle.join().is_err());
    let error = queue.get().unwrap_err().to_string();
    assert!(error.contains("has died"), "{error}");
}

fn number_is_good_for_one_time() {
    let (here, there) = byte_pipe().unwrap();
    let (address, which) = share(there.into(), KEY, number).unwrap();
    let request = which.to_le_bytes();
    let fetched = ByteConnection::new(redeem(&address, KEY, &request).unwrap()).unwrap();
    let again = redeem(&address, KEY, &request).unwrap_err();
    assert!(matches!(again, RedeemError::Withdrawn { .. }), "{again}");
    drop(fetched);
    assert!(is_at_its_end(&here));
    assert!(stop_sharing(None));
    let gone = redeem(&address, KEY, &request).unwrap_err();
    assert!(matches!(gone, RedeemError::Gone { .. }), "{gone}");
}

fn wrong_key_and_unknown_numbers_are_refused() {
    let (here, there) = byte_pipe().unwrap();
    let (address, which) = share(there.into(), KEY, number).unwrap();
    let request = which.to_le_bytes();
    let refused = redeem(&address, b"another key", &request).unwrap_err();
    assert!(matches!(refused, RedeemError::Endpoint(_)), "{refused}");
    for wrong in [&b""[..], b"too long for a number", &(which + 1).to_le_bytes()] {
        let refused = redeem(&address, KEY, wrong).unwrap_err();
        assert!(matches!(refused, RedeemError::Withdrawn { .. }), "{refused}");
    }
    drop(redeem(&address, KEY, &request).unwrap());
    assert!(is_at_its_end(&here));
    assert!(stop_sharing(None));
}

fn clients_that_are_silent_or_send_garbage_hold_up_nobody() {
    let (here, there) = byte_pipe().unwrap();
    let (address, which) = share(there.into(), KEY, number).unwrap();
    // Without a key nothing is said by the client.
    let silent: Vec<_> = (0..300)
        .map(|_| Client::new(address.clone()).timeout(PATIENCE).connect().unwrap())
        .collect();
    for client in &silent[..20] {
        // The server may have put it out by now.
        let _ = client.send(&[0xFF; 300]);
    }
    // This one knows the key, and then says nothing.
    let mute = Client::new(address.clone()).key(KEY).connect().unwrap();
    drop(redeem(&address, KEY, &which.to_le_bytes()).unwrap());
    assert!(is_at_its_end(&here));
    drop((silent, mute));
    assert!(stop_sharing(None));
}

fn fork_is_possible_while_descriptors_are_shared() {
    let (here, there) = byte_pipe().unwrap();
    let (address, which) = share(there.into(), KEY, number).unwrap();
    let (ready, go) = byte_pipe().unwrap();
    let handle = Builder::new()
        .fork(|| {
            ready.recv().unwrap();
            // The child shares by itself, at another address.
            let (reader, writer) = byte_pipe_one_way().unwrap();
            let (own, which) = share(writer.into(), KEY, number).unwrap();
            drop(redeem(&own, KEY, &which.to_le_bytes()).unwrap());
            is_at_its_end(&reader)
        })
        .unwrap();
    // The thread goes on here.
    drop(redeem(&address, KEY, &which.to_le_bytes()).unwrap());
    assert!(is_at_its_end(&here), "the child has a copy");
    assert!(stop_sharing(None));
    let gone = redeem(&address, KEY, &which.to_le_bytes()).unwrap_err();
    assert!(matches!(gone, RedeemError::Gone { .. }), "the child listens there: {gone}");
    go.send(b"go").unwrap();
    assert!(handle.join().unwrap());
}

/// Has a part that cannot be serialized, behind one that can.
#[derive(Serialize)]
struct Unsendable {
    connection: ByteConnection,
    #[serde(serialize_with = "refuse")]
    nothing: (),
}

fn refuse<S: serde::Serializer>((): &(), _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom("it is one of those"))
}

fn message_that_is_not_sent_shares_nothing() {
    let (here, there) = byte_pipe().unwrap();
    let message = Unsendable { connection: there, nothing: () };
    Queue::new().unwrap().put(&message).unwrap_err();
    let (ours, _theirs) = pipe::<Unsendable, u8>().unwrap();
    ours.send(&message).unwrap_err();
    drop(message);
    assert!(is_at_its_end(&here), "a copy is left");

    let (here, there) = byte_pipe().unwrap();
    let listener = Listener::bind(Address::tcp("localhost", 0).unwrap()).unwrap();
    let client = Client::new(listener.address().clone()).connect().unwrap();
    let far: Connection<ByteConnection, u8> = client.into();
    let error = far.send(&there).unwrap_err().to_string();
    assert!(error.contains("another machine"), "{error}");
    assert!(postcard::to_stdvec(&there).is_err(), "nobody could fetch it");
    drop(there);
    assert!(is_at_its_end(&here), "a copy is left");
    assert!(stop_sharing(None));
}

fn stop_closes_what_nobody_has_fetched() {
    for _ in 0..2 {
        let (here, there) = byte_pipe().unwrap();
        share(there.as_fd().try_clone_to_owned().unwrap(), KEY, number).unwrap();
        share(there.into(), b"a key of its own", number).unwrap();
        assert!(stop_sharing(Some(PATIENCE)));
        assert!(is_at_its_end(&here));
    }
    assert!(stop_sharing(Some(Duration::ZERO)), "there is nothing to stop");
}
