//! Connections between threads and processes: messages are whole, and nobody is held up.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

use procession::channel::ByteQueue;
use procession::channel::connection::{
    Address, ByteConnection, Client, EndpointError, HandshakeError, Listener, Mailbox, RecvError,
    SendError, byte_pipe, byte_pipe_one_way, pipe, pipe_one_way, wait,
};
use procession::shm::{Arena, ArenaError, Pins, pack};

const KEY: &str = "a key";

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            messages_of_every_size_arrive_whole_and_in_order,
            threads_that_send_and_receive_at_once_never_mix_messages,
            end_between_messages_is_told_from_end_within_one,
            messages_of_a_killed_process_are_whole_up_to_the_last,
            length_over_the_limit_is_refused_before_memory_is_taken,
            message_that_was_given_up_does_not_spoil_the_next,
            send_that_was_given_up_within_a_message_ends_sending,
            one_way_ends_refuse_the_other_direction,
            values_travel_in_both_directions,
            poll_says_what_is_there,
            descriptors_that_do_not_block_deliver_whole_messages,
            descriptors_travel_between_messages,
            wait_tells_which_of_many_are_ready,
            listener_and_client_come_together_at_every_kind_of_address,
            wrong_key_is_an_error_at_both_ends_and_the_next_client_is_served,
            silent_garbage_and_vanished_clients_hold_up_nobody,
            silent_client_is_put_out,
            client_gives_up_at_its_deadline,
            addresses_that_cannot_be_used_are_clear_errors,
            socket_file_goes_with_its_listener,
            message_left_in_a_mailbox_is_collected_once,
            unread_messages_go_with_their_mailbox,
            mailbox_with_much_in_it_has_no_room,
            sender_of_much_waits_until_something_was_collected,
            message_in_many_parts_arrives_as_one,
            bell_wakes_nobody_too_early_and_loses_no_message
        ],
    )
}

/// A message of so many bytes that tells its number and place.
fn message(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at * 7 + at / 251) as u8).collect()
}

fn messages_of_every_size_arrive_whole_and_in_order() {
    const SIZES: [usize; 12] =
        [0, 1, 3, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 0, 1 << 20, 10_000_001];
    for (receiver, sender) in [byte_pipe().unwrap(), byte_pipe_one_way().unwrap()] {
        thread::scope(|scope| {
            scope.spawn(move || {
                for (number, size) in SIZES.into_iter().enumerate() {
                    sender.send(&message(number, size)).unwrap();
                }
            });
            for (number, size) in SIZES.into_iter().enumerate() {
                assert!(receiver.recv().unwrap() == message(number, size), "{size} bytes differ");
            }
            assert!(matches!(receiver.recv(), Err(RecvError::EndOfStream)));
        });
    }
}

fn threads_that_send_and_receive_at_once_never_mix_messages() {
    const SENDERS: usize = 4;
    const EACH: usize = 200;
    // Longer than what the kernel takes at once, so that every send and receive has several steps.
    let size = |number: usize| 100_000 + number * 1000 % 200_000;
    let (here, there) = byte_pipe().unwrap();
    let received = thread::scope(|scope| {
        let there = &there;
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let here = &here;
                scope.spawn(move || {
                    for number in (sender * EACH)..(sender + 1) * EACH {
                        let mut bytes = message(number, size(number));
                        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
                        here.send(&bytes).unwrap();
                    }
                })
            })
            .collect();
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut numbers = Vec::new();
                    loop {
                        let bytes = there.recv().unwrap();
                        if bytes.is_empty() {
                            return numbers;
                        }
                        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
                        assert!(bytes[8..] == message(number, size(number))[8..], "mixed up");
                        numbers.push(number);
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        for _ in &receivers {
            here.send(b"").unwrap();
        }
        receivers.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(received.len(), SENDERS * EACH);
    assert_eq!(received.into_iter().collect::<BTreeSet<_>>().len(), SENDERS * EACH);
}

/// A connection whose other end has sent these bytes and is closed.
fn after(bytes: &[u8]) -> ByteConnection {
    let (mut peer, here) = UnixStream::pair().unwrap();
    peer.write_all(bytes).unwrap();
    ByteConnection::new(here).unwrap()
}

fn end_between_messages_is_told_from_end_within_one() {
    let connection = after(b"\0\0\0\x02ab");
    assert_eq!(connection.recv().unwrap(), b"ab");
    assert!(matches!(connection.recv(), Err(RecvError::EndOfStream)));
    assert!(matches!(connection.recv(), Err(RecvError::EndOfStream)));

    for cut in [&b"\0"[..], b"\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0"] {
        assert!(matches!(after(cut).recv(), Err(RecvError::Truncated { missing: None })));
    }
    let connection = after(b"\0\0\0\x05abc");
    assert!(matches!(connection.recv(), Err(RecvError::Truncated { missing: Some(2) })));
    let long_form = after(b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x03abc");
    assert_eq!(long_form.recv().unwrap(), b"abc");
    let nonsense = after(b"\xff\xff\xff\xfeabc");
    assert!(matches!(nonsense.recv(), Err(RecvError::TooLong { length: 0xffff_fffe, .. })));
}

fn messages_of_a_killed_process_are_whole_up_to_the_last() {
    let (reader, writer) = UnixStream::pair().unwrap();
    // The shell kills itself in the middle of a message.
    let script = r#"printf '\0\0\0\003one\0\0\0\003two\0\0\0\377cut'; kill -KILL $$"#;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .spawn()
        .unwrap();
    let connection = ByteConnection::new(reader).unwrap();
    assert_eq!(connection.recv().unwrap(), b"one");
    assert_eq!(connection.recv().unwrap(), b"two");
    assert!(matches!(connection.recv(), Err(RecvError::Truncated { missing: Some(252) })));
    assert!(!child.wait().unwrap().success());
    assert!(matches!(connection.send(b"anybody?"), Err(SendError::Os { .. })));
}

fn length_over_the_limit_is_refused_before_memory_is_taken() {
    let connection = after(b"\0\0\0\x04four\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0rest");
    connection.set_limit(4);
    assert_eq!(connection.recv().unwrap(), b"four");
    for _ in 0..2 {
        // The same each time: what follows is never taken for a header.
        let result = connection.recv();
        let length = 0x7f << 56;
        assert!(matches!(result, Err(RecvError::TooLong { length: l, limit: 4 }) if l == length));
    }
    let unlimited = after(b"\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0rest");
    assert!(matches!(unlimited.recv(), Err(RecvError::OutOfMemory { .. })));
}

fn message_that_was_given_up_does_not_spoil_the_next() {
    let (here, there) = byte_pipe().unwrap();
    for text in [&b"unwanted"[..], b"", b"wanted"] {
        here.send(text).unwrap();
    }
    assert_eq!(there.start_receiving().unwrap().len(), 8);
    assert!(there.start_receiving().unwrap().is_empty());
    assert_eq!(there.recv().unwrap(), b"wanted");
}

fn send_that_was_given_up_within_a_message_ends_sending() {
    let (here, there) = byte_pipe().unwrap();
    drop(here.start_sending(5).unwrap());
    here.send(b"nothing was sent of that one").unwrap();
    there.recv().unwrap();

    // More than the kernel takes, so that the rest is given up when the other end is closed.
    let cut = vec![7; 10 << 20];
    thread::scope(|scope| {
        let sending = scope.spawn(|| here.send(&cut));
        assert_eq!(there.start_receiving().unwrap().len(), cut.len() as u64);
        drop(there);
        assert!(matches!(sending.join().unwrap(), Err(SendError::Os { .. })));
    });
    assert!(matches!(here.send(b"next"), Err(SendError::Torn)));
}

fn one_way_ends_refuse_the_other_direction() {
    let (reader, writer) = byte_pipe_one_way().unwrap();
    assert!(reader.receives() && !reader.sends() && writer.sends() && !writer.receives());
    assert!(matches!(reader.send(b"x"), Err(SendError::ReceiveOnly)));
    assert!(matches!(writer.recv(), Err(RecvError::SendOnly)));
    assert!(matches!(writer.poll(None), Err(RecvError::SendOnly)));
    let again = ByteConnection::new(OwnedFd::from(reader)).unwrap();
    assert!(again.receives() && !again.sends(), "asked of the descriptor");
}

fn values_travel_in_both_directions() {
    let (one, other) = pipe::<(u32, String), Option<u8>>().unwrap();
    one.send(&(7, "seven".to_owned())).unwrap();
    assert!(other.poll(None).unwrap());
    assert_eq!(other.recv().unwrap(), (7, "seven".to_owned()));
    other.send(&Some(3)).unwrap();
    assert_eq!(one.recv().unwrap(), Some(3));
    other.bytes().send(b"\x09").unwrap();
    assert!(matches!(one.recv(), Err(RecvError::Deserialize(_))));

    let (receiver, sender) = pipe_one_way::<Vec<u64>>().unwrap();
    sender.send(&vec![1, 2, 3]).unwrap();
    assert_eq!(receiver.recv().unwrap(), [1, 2, 3]);
    let (queues, _peer) = pipe::<ByteQueue, ()>().unwrap();
    let refused = queues.send(&ByteQueue::new(0).unwrap());
    assert!(matches!(refused, Err(SendError::Serialize(_))), "nothing would hold the queue");
}

fn poll_says_what_is_there() {
    let (here, there) = byte_pipe().unwrap();
    let none = Some(std::time::Instant::now());
    assert!(!there.poll(none).unwrap());
    here.send(b"").unwrap();
    assert!(there.poll(none).unwrap() && there.poll(None).unwrap());
    there.recv().unwrap();
    assert!(!there.poll(none).unwrap());
    drop(here);
    assert!(there.poll(None).unwrap(), "the end of the stream is there");
}

fn descriptors_that_do_not_block_deliver_whole_messages() {
    let (mut peer, here) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let connection = ByteConnection::new(here).unwrap();
    assert!(matches!(connection.recv(), Err(RecvError::Os { .. })), "between messages it is told");
    peer.write_all(b"\0\0").unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(|| connection.recv().unwrap());
        peer.write_all(b"\0\x03a").unwrap();
        peer.write_all(b"bc").unwrap();
        assert_eq!(received.join().unwrap(), b"abc");
        let sent = scope.spawn(|| connection.send(&message(1, 5 << 20)));
        let mut got = vec![0; 4 + (5 << 20)];
        peer.read_exact(&mut got).unwrap();
        sent.join().unwrap().unwrap();
        assert!(got[4..] == message(1, 5 << 20));
    });
}

fn descriptors_travel_between_messages() {
    let (here, there) = byte_pipe().unwrap();
    let (inner, its_peer) = byte_pipe().unwrap();
    here.send(b"before").unwrap();
    here.send_descriptor(&inner).unwrap();
    here.send(b"after").unwrap();
    drop(inner);

    assert_eq!(there.recv().unwrap(), b"before");
    let inner = ByteConnection::new(there.recv_descriptor().unwrap()).unwrap();
    assert_eq!(there.recv().unwrap(), b"after");
    inner.send(b"through what came").unwrap();
    assert_eq!(its_peer.recv().unwrap(), b"through what came");

    here.send(b"").unwrap();
    assert!(matches!(there.recv_descriptor(), Err(RecvError::NoDescriptor)));
    drop(here);
    let (here, there) = byte_pipe().unwrap();
    drop(here);
    assert!(matches!(there.recv_descriptor(), Err(RecvError::EndOfStream)));
}

fn wait_tells_which_of_many_are_ready() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    let (quiet, _its_peer) = byte_pipe().unwrap();
    let (here, there) = byte_pipe().unwrap();
    // Beyond the highest number that `select` knows.
    let mut objects: Vec<OwnedFd> =
        (0..1100).map(|_| quiet.as_fd().try_clone_to_owned().unwrap()).collect();
    objects.push(there.as_fd().try_clone_to_owned().unwrap());
    objects.insert(5, there.as_fd().try_clone_to_owned().unwrap());
    assert!(wait(&objects, Some(Duration::ZERO)).unwrap().is_empty());
    here.send(b"x").unwrap();
    assert_eq!(wait(&objects, None).unwrap(), [5, 1101]);
    assert_eq!(wait(&objects, None).unwrap(), [5, 1101], "still there");
    assert!(wait::<OwnedFd>(&[], Some(Duration::ZERO)).unwrap().is_empty());
    drop(objects);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

/// A name that nobody else uses.
fn unique(name: &str) -> String {
    format!("procession-test-{}-{name}", process::id())
}

fn socket_path(name: &str) -> PathBuf {
    env::temp_dir().join(unique(name))
}

fn listener(address: Address) -> Listener {
    Listener::builder(address).key(KEY).backlog(16).bind().unwrap()
}

fn listener_and_client_come_together_at_every_kind_of_address() {
    let addresses = [
        Address::tcp("localhost", 0).unwrap(),
        Address::unix(socket_path("every")),
        Address::Abstract(unique("every").into_bytes()),
    ];
    for address in addresses {
        let listener = listener(address);
        let at = listener.address().clone();
        assert_ne!(at, Address::tcp("localhost", 0).unwrap(), "the port that was chosen");
        thread::scope(|scope| {
            scope.spawn(|| {
                let connection = Client::new(at).key(KEY).connect().unwrap();
                let length = connection.recv().unwrap().len();
                connection.send(&message(1, length)).unwrap();
            });
            let (connection, client) = listener.accept_until(None).unwrap();
            match client {
                Address::Tcp(client) => assert!(client.ip().is_loopback()),
                other => assert_eq!(other, Address::Unnamed),
            }
            connection.send(&message(0, 17_000)).unwrap();
            assert!(connection.recv().unwrap() == message(1, 17_000));
        });
    }
}

fn wrong_key_is_an_error_at_both_ends_and_the_next_client_is_served() {
    let listener = listener(Address::tcp("localhost", 0).unwrap());
    let address = listener.address().clone();
    thread::scope(|scope| {
        for wrong in ["another key", ""] {
            let client = Client::new(address.clone()).key(wrong);
            let client = scope.spawn(move || client.connect());
            let refused = listener.accept().unwrap_err();
            assert!(matches!(refused, EndpointError::Handshake(HandshakeError::WrongKey)));
            let rejected = client.join().unwrap().unwrap_err();
            assert!(matches!(rejected, EndpointError::Handshake(HandshakeError::Rejected)));
        }
        let client = Client::new(address.clone()).key(KEY);
        let client = scope.spawn(move || client.connect().unwrap());
        listener.accept().unwrap().send(b"welcome").unwrap();
        assert_eq!(client.join().unwrap().recv().unwrap(), b"welcome");
    });
}

fn silent_garbage_and_vanished_clients_hold_up_nobody() {
    let listener = listener(Address::tcp("localhost", 0).unwrap());
    let Address::Tcp(address) = *listener.address() else { panic!("a TCP address") };
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let mut refused = 0;
            loop {
                match listener.accept() {
                    Ok(connection) => return (connection, refused),
                    Err(EndpointError::Handshake(HandshakeError::Protocol { .. })) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let _silent: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in 0..5 {
            drop(TcpStream::connect(address).unwrap());
        }
        let mut garbage: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for client in &mut garbage {
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            // Until it is put out: the challenge, and then the end.
            let _ = client.read_to_end(&mut Vec::new());
        }
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(b"\0\0\0").unwrap();
        let client = Client::new(Address::Tcp(address)).key(KEY).connect().unwrap();
        let (connection, refused) = served.join().unwrap();
        assert_eq!(refused, 3);
        client.send(b"served").unwrap();
        assert_eq!(connection.recv().unwrap(), b"served");
    });
}

fn silent_client_is_put_out() {
    // The client with the key has to be done in that time, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(2);
    let address = Address::Abstract(unique("silent").into_bytes());
    let listener =
        Listener::builder(address).key(KEY).backlog(4).patience(PATIENCE).bind().unwrap();
    let silent = Client::new(listener.address().clone()).connect().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap());
        assert!(silent.recv().unwrap().starts_with(b"#CHALLENGE#"));
        assert!(matches!(silent.recv(), Err(RecvError::EndOfStream)), "it was put out");
        Client::new(listener.address().clone()).key(KEY).connect().unwrap();
    });
}

fn client_gives_up_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let timeout = Duration::from_millis(20);
    let client = Client::new(Address::Tcp(silent.local_addr().unwrap())).key(KEY).timeout(timeout);
    let error = client.connect().unwrap_err();
    assert!(matches!(error, EndpointError::Handshake(HandshakeError::TimedOut { .. })), "{error}");

    // Nobody accepts, and there is room for one.
    let full = Listener::builder(Address::Abstract(unique("full").into_bytes()))
        .backlog(0)
        .bind()
        .unwrap();
    let client = Client::new(full.address().clone()).timeout(timeout);
    let _waiting = client.connect().unwrap();
    assert!(matches!(client.connect(), Err(EndpointError::TimedOut)));
}

fn addresses_that_cannot_be_used_are_clear_errors() {
    let long = Address::unix("/tmp/".to_owned() + &"x".repeat(200));
    assert!(matches!(Listener::bind(long.clone()), Err(EndpointError::TooLong { limit: 107, .. })));
    assert!(matches!(Client::new(long).connect(), Err(EndpointError::TooLong { .. })));

    let taken = listener(Address::tcp("localhost", 0).unwrap());
    let error = Listener::bind(taken.address().clone()).unwrap_err();
    assert!(matches!(error, EndpointError::InUse { .. }) && error.errno().is_some());
    let address = taken.address().clone();
    drop(taken);
    let error = Client::new(address.clone()).connect().unwrap_err();
    assert!(matches!(&error, EndpointError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "it names the address: {error}");

    let missing = Client::new(Address::unix(socket_path("missing"))).connect().unwrap_err();
    assert!(matches!(missing, EndpointError::Os { call: "connect", .. }));
    let unknown = Address::tcp("no such host.invalid", 1);
    assert!(matches!(unknown, Err(EndpointError::Unresolved { .. })));
}

fn socket_file_goes_with_its_listener() {
    let path = socket_path("file");
    let listener = Listener::bind(Address::unix(&path)).unwrap();
    assert!(path.exists());
    drop(listener);
    assert!(!path.exists());
    drop(Listener::builder(Address::unix(&path)).keep_file().bind().unwrap());
    assert!(path.exists());
    assert!(matches!(Listener::bind(Address::unix(&path)), Err(EndpointError::InUse { .. })));
    fs::remove_file(&path).unwrap();
    assert!(File::open(&path).is_err());
}

fn message_left_in_a_mailbox_is_collected_once() {
    let (mailbox, other) = (Mailbox::new().unwrap(), Mailbox::new().unwrap());
    let queue = ByteQueue::new(0).unwrap();
    queue.put(b"inside", None).unwrap();
    let (raw, pins) = pack(|| queue.note().unwrap());
    let number = mailbox.leave(&[&raw.to_le_bytes()], &pins, 8).unwrap();
    drop((queue, pins));

    assert!(matches!(other.collect(number, 8), Err(ArenaError::Stale { .. })), "not in that one");
    assert!(mailbox.collect(number ^ 1 << 40, 8).is_err(), "no such number");
    let message = mailbox.collect(number, 8).unwrap();
    assert!(matches!(mailbox.collect(number, 8), Err(ArenaError::Stale { .. })), "taken already");
    let queue = ByteQueue::open(u64::from_le_bytes(message[..].try_into().unwrap())).unwrap();
    drop(message);
    assert_eq!(&queue.get(None).unwrap()[..], b"inside");
}

fn unread_messages_go_with_their_mailbox() {
    let blocks = || Arena::current().unwrap().stats().blocks;
    let before = blocks();
    let mailbox = Mailbox::new().unwrap();
    for _ in 0..10 {
        let queue = ByteQueue::new(0).unwrap();
        let (raw, pins) = pack(|| queue.note().unwrap());
        mailbox.leave(&[&raw.to_le_bytes()], &pins, 8).unwrap();
    }
    assert!(blocks() > before + 10);
    drop(mailbox);
    assert_eq!(blocks(), before);
}

fn mailbox_with_much_in_it_has_no_room() {
    let mailbox = Mailbox::new().unwrap();
    let much = 64 << 20;
    assert!(mailbox.has_room());
    let numbers = [1, 1, much].map(|weight| {
        let number = mailbox.leave(&[b"in ", b"parts"], &Pins::default(), weight).unwrap();
        (number, weight)
    });
    assert!(!mailbox.has_room());
    for (number, weight) in numbers {
        assert_eq!(&mailbox.collect(number, weight).unwrap()[..], b"in parts");
    }
    assert!(mailbox.has_room());
    mailbox.tell_stream_is_read();
    assert!(!mailbox.has_room());
    assert!(!mailbox.wait_for_room(much), "waited for what can never be");
}

fn sender_of_much_waits_until_something_was_collected() {
    let mailbox = Mailbox::new().unwrap();
    let much = 64 << 20;
    let number = mailbox.leave(&[b"much"], &Pins::default(), much).unwrap();
    assert!(!mailbox.wait_for_room(1000), "a short message does not wait");
    assert!(!mailbox.wait_for_room(1 << 20), "nobody has collected");
    let collected = thread::scope(|scope| {
        let receiver = scope.spawn(|| mailbox.collect(number, much).unwrap());
        // As often as the receiver needs to begin.
        while !mailbox.wait_for_room(much) {}
        receiver.join().unwrap()
    });
    assert_eq!(&collected[..], b"much");
}

fn message_in_many_parts_arrives_as_one() {
    let (here, there) = byte_pipe().unwrap();
    let parts: Vec<Vec<u8>> = (0..50).map(|number| message(number, number % 7 * 20_000)).collect();
    let whole = parts.concat();
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut outgoing = here.start_sending(whole.len()).unwrap();
            outgoing.send_parts(&slices).unwrap();
        });
        assert_eq!(there.recv().unwrap(), whole);
    });
}

fn bell_wakes_nobody_too_early_and_loses_no_message() {
    const MESSAGES: u32 = 2000;
    let mailbox = Mailbox::new().unwrap();
    let with_bell = |end: ByteConnection| end.with_mailbox(mailbox.clone());
    let (here, there) = byte_pipe().unwrap();
    let (here, there) = (with_bell(here), with_bell(there));
    let (receiver, sender) = byte_pipe_one_way().unwrap();
    let (receiver, sender) = (with_bell(receiver), with_bell(sender));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                assert_eq!(there.recv().unwrap(), number.to_le_bytes());
                sender.send(&number.to_be_bytes()).unwrap();
            }
        });
        for number in 0..MESSAGES {
            here.send(&number.to_le_bytes()).unwrap();
            assert_eq!(receiver.recv().unwrap(), number.to_be_bytes());
        }
    });
    drop((there, sender));
    assert!(receiver.poll(None).unwrap());
    for end in [here, receiver] {
        assert!(matches!(end.recv(), Err(RecvError::EndOfStream)));
    }
}
