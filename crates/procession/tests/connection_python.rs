//! Connections with the standard library of Python at the other end, in both roles.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

use procession::channel::connection::{
    Address, ByteConnection, Client, EndpointError, HandshakeError, Listener, byte_pipe,
};

use crate::python::{
    CONNECT, FAMILIES, LISTEN, accept, connect, finish, newest, pythons, read_line, start,
};

mod python;

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            client_here_and_listener_in_python_understand_each_other,
            listener_here_and_client_in_python_understand_each_other,
            wrong_key_is_noticed_whoever_listens,
            empty_key_is_a_key_and_no_key_is_none,
            soak_messages_of_more_than_two_gib,
            descriptors_are_exchanged_with_python
        ],
    )
}

const SIZES: [usize; 9] = [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 3_000_000];

/// Sends back what comes, until nothing does.
const ECHO: &str = "
def serve(connection):
    while True:
        try:
            connection.send_bytes(connection.recv_bytes())
        except EOFError:
            break
";

fn exchange(connection: &ByteConnection) {
    for size in SIZES {
        let message: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| connection.send(&message).unwrap());
            assert!(connection.recv().unwrap() == message, "{size} bytes differ");
        });
    }
}

fn client_here_and_listener_in_python_understand_each_other() {
    for python in pythons() {
        for family in FAMILIES {
            let (child, connection) = connect(python, ECHO, family, ["a key"; 2]);
            exchange(&connection.unwrap());
            assert_eq!(finish(child), "");
        }
    }
}

fn listener_here_and_client_in_python_understand_each_other() {
    for python in pythons() {
        for family in FAMILIES {
            let (child, connection) = accept(python, ECHO, family, ["a key"; 2]);
            exchange(&connection.unwrap());
            assert_eq!(finish(child), "");
        }
    }
}

fn wrong_key_is_noticed_whoever_listens() {
    for python in pythons() {
        for family in FAMILIES {
            let (child, connection) = connect(python, ECHO, family, ["another key", "a key"]);
            let error = connection.unwrap_err();
            assert!(matches!(error, EndpointError::Handshake(HandshakeError::Rejected)), "{error}");
            assert_eq!(finish(child), "refused");

            let (child, connection) = accept(python, ECHO, family, ["another key", "a key"]);
            let error = connection.unwrap_err();
            assert!(matches!(error, EndpointError::Handshake(HandshakeError::WrongKey)), "{error}");
            assert_eq!(finish(child), "refused");
        }
    }
}

/// Some versions of Python take an empty key for none when they listen, though not when they connect.
fn empty_key_is_a_key_and_no_key_is_none() {
    const CHALLENGES: &str = "
import inspect, multiprocessing.connection
accept = inspect.getsource(multiprocessing.connection.Listener.accept)
print('is not None' in accept, flush=True)
";
    for python in pythons() {
        let (child, connection) = accept(python, ECHO, "AF_INET", [""; 2]);
        exchange(&connection.unwrap());
        assert_eq!(finish(child), "");

        let challenges = finish(start(python, CHALLENGES, &[])) == "True";
        let mut child = start(python, &format!("{ECHO}{LISTEN}"), &["AF_INET", "", ""]);
        let port = read_line(&mut child).parse().unwrap();
        let client = Client::new(Address::tcp("localhost", port).unwrap());
        let client = if challenges { client.key("") } else { client };
        exchange(&client.connect().unwrap());
        assert_eq!(finish(child), "");

        let without = CONNECT.replace("authkey=key", "authkey=None");
        let listener = Listener::bind(Address::tcp("localhost", 0).unwrap()).unwrap();
        let Address::Tcp(address) = listener.address() else { panic!("a TCP address") };
        let arguments = ["AF_INET", &address.port().to_string(), ""];
        let child = start(python, &format!("{ECHO}{without}"), &arguments);
        exchange(&listener.accept().unwrap());
        assert_eq!(finish(child), "");
    }
}

/// The first length that needs the long form of a header, in both directions.
fn soak_messages_of_more_than_two_gib() {
    const LENGTH: usize = (1 << 31) + 5;
    const NEEDED: u64 = 7 << 30;
    if available_memory() < NEEDED {
        eprintln!("skipped: it needs {NEEDED} bytes of memory");
        return;
    }
    const SUMMARY: &str = "
def serve(connection):
    message = connection.recv_bytes()
    connection.send_bytes(b'%d %d %d' % (len(message), message[0], message[-1]))
    connection.send_bytes(message)
";
    let (child, connection) = connect(newest(), SUMMARY, "AF_UNIX", ["a key"; 2]);
    let connection = connection.unwrap();
    let mut message = vec![7; LENGTH];
    message[0] = 1;
    message[LENGTH - 1] = 2;
    connection.send(&message).unwrap();
    drop(message);
    assert_eq!(connection.recv().unwrap(), format!("{LENGTH} 1 2").into_bytes());
    let message = connection.recv().unwrap();
    assert_eq!((message.len(), message[0], message[LENGTH - 1]), (LENGTH, 1, 2));
    let sevens = vec![7; 1 << 20];
    let mut middle = message[1..LENGTH - 1].chunks(sevens.len());
    assert!(middle.all(|part| *part == sevens[..part.len()]), "the middle differs");
    assert_eq!(finish(child), "");
}

/// In bytes, without what would have to be swapped out.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn descriptors_are_exchanged_with_python() {
    // Only up to 3.13: later versions wait for an acknowledgement, which nobody else sends.
    const PROGRAM: &str = "
import os, socket, sys
from multiprocessing.connection import Connection
from multiprocessing import reduction
reduction.ACKNOWLEDGE = False
with socket.socket(fileno=os.dup(0)) as standard_input:
    connection = Connection(standard_input.detach())
os.write(reduction.recv_handle(connection), b'written by Python')
reader, writer = os.pipe()
reduction.send_handle(connection, reader, None)
os.write(writer, b'read by Rust')
";
    use std::os::fd::OwnedFd;
    let (here, there) = byte_pipe().unwrap();
    let child = Command::new(newest())
        .args(["-c", PROGRAM])
        .stdin(Stdio::from(OwnedFd::from(there)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    here.send_descriptor(&writer).unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "written by Python");
    let mut received = std::fs::File::from(here.recv_descriptor().unwrap());
    text.clear();
    received.read_to_string(&mut text).unwrap();
    assert_eq!(text, "read by Rust");
    assert_eq!(finish(child), "");
}
