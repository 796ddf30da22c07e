//! Connections with the standard library of Python at the other end, in both roles.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use procession::channel::connection::{
    Address, ByteConnection, Client, EndpointError, HandshakeError, Listener, byte_pipe,
};

fn main() -> ExitCode {
    procession_testing::run(
        procession::init,
        procession_testing::tests![
            client_here_and_listener_in_python_understand_each_other,
            listener_here_and_client_in_python_understand_each_other,
            wrong_key_is_noticed_whoever_listens,
            descriptors_are_exchanged_with_python
        ],
    )
}

/// Every Python from 3.8 on that is found; at least one.
fn pythons() -> Vec<String> {
    let found: Vec<_> = ["python3".to_owned()]
        .into_iter()
        .chain((8..20).map(|minor| format!("python3.{minor}")))
        .filter(|name| {
            let quiet = Command::new(name).args(["-c", ""]).stderr(Stdio::null()).status();
            quiet.is_ok_and(|status| status.success())
        })
        .collect();
    assert!(!found.is_empty(), "these tests need an interpreter called python3");
    found
}

/// A Python process; its standard input and output are pipes.
fn start(python: &str, program: &str, arguments: &[&str]) -> Child {
    Command::new(python)
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn read_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "the Python program failed");
    rest.trim_end().to_owned()
}

const SIZES: [usize; 9] = [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 3_000_000];

/// Sends back what comes, until nothing does.
const ECHO: &str = "
def echo(connection):
    while True:
        try:
            connection.send_bytes(connection.recv_bytes())
        except EOFError:
            break
";

const LISTEN: &str = "
import sys
from multiprocessing.connection import Listener
from multiprocessing import AuthenticationError
family, address, key = sys.argv[1], sys.argv[2], sys.argv[3].encode()
with Listener(('localhost', 0) if family == 'AF_INET' else address, family, authkey=key) as listener:
    print(listener.address[1] if family == 'AF_INET' else 'ready', flush=True)
    try:
        connection = listener.accept()
    except AuthenticationError:
        print('refused', flush=True)
    else:
        echo(connection)
";

const CONNECT: &str = "
import sys
from multiprocessing.connection import Client
from multiprocessing import AuthenticationError
family, address, key = sys.argv[1], sys.argv[2], sys.argv[3].encode()
try:
    connection = Client(('localhost', int(address)) if family == 'AF_INET' else address, authkey=key)
except AuthenticationError:
    print('refused', flush=True)
else:
    echo(connection)
";

fn socket_path(name: &str) -> PathBuf {
    env::temp_dir().join(format!("procession-test-{}-{name}", std::process::id()))
}

fn exchange(connection: &ByteConnection) {
    for size in SIZES {
        let message: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| connection.send(&message).unwrap());
            assert!(connection.recv().unwrap() == message, "{size} bytes differ");
        });
    }
}

/// What Python is told, and what stands for the same address here.
fn families(name: &str) -> [(&'static str, String, Address); 2] {
    let path = socket_path(name);
    let text = path.to_str().unwrap().to_owned();
    [
        ("AF_INET", String::new(), Address::tcp("localhost", 0).unwrap()),
        ("AF_UNIX", text, Address::unix(path)),
    ]
}

fn client_here_and_listener_in_python_understand_each_other() {
    for python in pythons() {
        for (family, text, address) in families("python-listens") {
            let program = format!("{ECHO}{LISTEN}");
            let mut child = start(&python, &program, &[family, &text, "a key"]);
            let line = read_line(&mut child);
            let address = match address {
                Address::Tcp(_) => Address::tcp("localhost", line.parse().unwrap()).unwrap(),
                unix => unix,
            };
            let connection = Client::new(address).key("a key").connect().unwrap();
            exchange(&connection);
            drop(connection);
            assert_eq!(finish(child), "");
        }
    }
}

fn listener_here_and_client_in_python_understand_each_other() {
    for python in pythons() {
        for (family, text, address) in families("python-connects") {
            let listener = Listener::builder(address).key("a key").bind().unwrap();
            let text = match listener.address() {
                Address::Tcp(address) => address.port().to_string(),
                _ => text,
            };
            let program = format!("{ECHO}{CONNECT}");
            let child = start(&python, &program, &[family, &text, "a key"]);
            let connection = listener.accept().unwrap();
            exchange(&connection);
            drop(connection);
            assert_eq!(finish(child), "");
        }
    }
}

fn wrong_key_is_noticed_whoever_listens() {
    for python in pythons() {
        let mut child = start(&python, &format!("{ECHO}{LISTEN}"), &["AF_INET", "", "another key"]);
        let port = read_line(&mut child).parse().unwrap();
        let client = Client::new(Address::tcp("localhost", port).unwrap()).key("a key");
        let error = client.connect().unwrap_err();
        assert!(matches!(error, EndpointError::Handshake(HandshakeError::Rejected)), "{error}");
        assert_eq!(finish(child), "refused");

        let listener = Listener::builder(Address::tcp("localhost", 0).unwrap());
        let listener = listener.key("a key").bind().unwrap();
        let Address::Tcp(address) = listener.address() else { panic!("a TCP address") };
        let port = address.port().to_string();
        let program = format!("{ECHO}{CONNECT}");
        let child = start(&python, &program, &["AF_INET", &port, "another key"]);
        let error = listener.accept().unwrap_err();
        assert!(matches!(error, EndpointError::Handshake(HandshakeError::WrongKey)), "{error}");
        assert_eq!(finish(child), "refused");
    }
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
    let child = Command::new("python3")
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
