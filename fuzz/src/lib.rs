//! What the fuzz targets do with the bytes that they are given.
//!
//! `crates/procession/tests/fuzz_corpus.rs` includes this file, and runs it on the corpus.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use procession::channel::connection::{
    Address, ByteConnection, CHALLENGE, Client, EndpointError, FAILURE, HandshakeError, Listener,
    RecvError, WELCOME, answer,
};
use procession::manager::{
    After, Call, Client as Caller, Greeting, Handler, Properly, Server, Worker, greet,
};
use procession::pickle::{self, Value};

/// The longest message that is received, in bytes.
const LIMIT: u64 = 1 << 16;

/// Bytes that go into a socket without somebody who reads them.
const ROOM: usize = 1 << 16;

/// Takes the bytes behind the first for a stream of messages. If the first is odd, every second
/// message is given up.
///
/// # Panics
///
/// Panics if more is received than was sent, or if the end is not told.
pub fn frame(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else { return };
    let stream = &stream[..stream.len().min(ROOM)];
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    there.write_all(stream).expect("there is room");
    drop(there);
    let connection = ByteConnection::new(here).expect("a connection");
    connection.set_limit(LIMIT);
    let (mut received, mut number) = (0, 0);
    let end = loop {
        number += 1;
        let gives_up = first % 2 == 1 && number % 2 == 0;
        let result = if gives_up {
            connection.start_receiving().map(drop)
        } else {
            connection.recv().map(|message| received += 4 + message.len())
        };
        if let Err(error) = result {
            break error;
        }
    };
    assert!(received <= stream.len(), "more has come than was sent");
    match end {
        RecvError::EndOfStream | RecvError::Truncated { .. } => {}
        RecvError::TooLong { length, limit } => assert!(length > limit, "{length} is allowed"),
        error => panic!("{error}"),
    }
}

/// Reads the bytes as a pickle. What can be read can be written, and reads as the same.
///
/// # Panics
///
/// Panics if it does not.
pub fn pickle(bytes: &[u8]) {
    let Ok(value) = Value::from_pickle(bytes) else { return };
    let written = value.to_pickle().expect("what was read can be written");
    let again = Value::from_pickle(&written).expect("what was written can be read");
    assert_eq!(again.to_pickle().as_ref(), Ok(&written), "it is another value now");
    // Comparing bytes, as a NaN is not equal to itself.
    let by_serde: Value = pickle::from_value(again).expect("every value is a value");
    assert_eq!(pickle::to_vec(&by_serde), Ok(written), "serde makes another value of it");
}

const KEY: &[u8] = b"a key";

/// How long the end that connects waits for the peer's first message: not long, as none will come.
const PATIENCE: Duration = Duration::from_millis(1);

/// An odd first byte lets the peer be the one that listens, an even one the one that connects. From
/// the others it makes what it sends: see [`Peer::step`].
///
/// # Panics
///
/// Panics if a peer is trusted that has not shown that it knows the key.
pub fn handshake(bytes: &[u8]) {
    match bytes.split_first() {
        Some((role, script)) if role % 2 == 0 => connecting_peer(script),
        Some((_, script)) => listening_peer(script),
        None => {}
    }
}

fn connecting_peer(script: &[u8]) {
    let name = unused_name();
    let listener = Listener::builder(Address::Abstract(name.clone())).key(KEY).bind();
    let listener = listener.expect("a listener");
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let stream = UnixStream::connect_addr(&address).expect("a connection");
    let mut peer = Peer::new(stream, script);
    loop {
        match listener.accept_until(Some(Instant::now())) {
            Ok(_) => return assert!(peer.has_shown_key, "a stranger was let in"),
            Err(EndpointError::TimedOut) => {}
            // The fuzzer looks at the time now and then.
            Err(EndpointError::Interrupted) => continue,
            Err(EndpointError::Handshake(_)) => return,
            Err(error) => panic!("{error}"),
        }
        if !peer.step() {
            return;
        }
    }
}

fn listening_peer(script: &[u8]) {
    let name = unused_name();
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a listener");
    let client = Client::new(Address::Abstract(name)).key(KEY).timeout(PATIENCE);
    let mut connecting = client.start().expect("a socket");
    let mut peer = None;
    loop {
        match connecting.finish() {
            Ok(_) => {
                let known = peer.is_some_and(|peer: Peer| peer.has_shown_key);
                return assert!(known, "a stranger was trusted");
            }
            Err(EndpointError::Handshake(HandshakeError::TimedOut { .. })) => {}
            Err(EndpointError::Interrupted) => continue,
            // On a busy machine it has not even connected in time.
            Err(EndpointError::TimedOut | EndpointError::Handshake(_)) => return,
            Err(error) => panic!("{error}"),
        }
        let peer = peer.get_or_insert_with(|| {
            let (stream, _) = listener.accept().expect("a connection");
            Peer::new(stream, script)
        });
        if !peer.step() {
            return;
        }
    }
}

fn unused_name() -> Vec<u8> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("procession-fuzz-{}-{count}", process::id()).into_bytes()
}

/// Somebody at the other end of a handshake.
struct Peer<'a> {
    stream: UnixStream,
    script: &'a [u8],
    /// What has come and is no whole message yet.
    received: Vec<u8>,
    /// The last challenge that has come.
    challenge: Vec<u8>,
    has_shown_key: bool,
}

impl<'a> Peer<'a> {
    fn new(stream: UnixStream, script: &'a [u8]) -> Self {
        stream.set_nonblocking(true).expect("a socket");
        Self { stream, script, received: Vec::new(), challenge: Vec::new(), has_shown_key: false }
    }

    /// Reads what has come and sends one thing more; false at the end of the script.
    fn step(&mut self) -> bool {
        self.receive();
        let Some(code) = self.take_byte() else { return false };
        match code % 8 {
            0 => self.show_key(),
            1 => self.send(WELCOME),
            2 => self.send(FAILURE),
            3 => self.send(&[CHALLENGE, b"{sha256}", &[7; 40]].concat()),
            4 => self.send(&[CHALLENGE, &[7; 20]].concat()),
            5 => {
                let rest = self.take_some();
                self.send(&[CHALLENGE, rest].concat());
            }
            6 => {
                let message = self.take_some();
                self.send(message);
            }
            _ => {
                let bytes = self.take_some();
                self.send_raw(bytes);
            }
        }
        true
    }

    fn take_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.script.split_first()?;
        self.script = rest;
        Some(*byte)
    }

    fn take_some(&mut self) -> &'a [u8] {
        let count = usize::from(self.take_byte().unwrap_or(0));
        let (some, rest) = self.script.split_at(count.min(self.script.len()));
        self.script = rest;
        some
    }

    fn show_key(&mut self) {
        if let Ok(answer) = answer(KEY, &self.challenge) {
            self.has_shown_key = true;
            self.send(&answer);
        }
    }

    fn send(&mut self, message: &[u8]) {
        self.send_raw(&[&(message.len() as u32).to_be_bytes(), message].concat());
    }

    fn send_raw(&mut self, bytes: &[u8]) {
        // The other end may be gone, or so slow that there is no room.
        let _ = self.stream.write_all(bytes);
    }

    fn receive(&mut self) {
        // What has come before an error, such as that there is no more, is kept.
        let _ = self.stream.read_to_end(&mut self.received);
        while let Some((length, rest)) = self.received.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(message) = rest.get(..length) else { return };
            if let Some(challenge) = message.strip_prefix(CHALLENGE) {
                self.challenge = challenge.to_owned();
            }
            self.received.drain(..4 + length);
        }
    }
}

/// The longest request that the server takes, in bytes.
const LONGEST_REQUEST: u64 = 1 << 12;

/// Bytes sent to a server at once, which a socket takes without somebody who reads.
const MOST_SENT: usize = 1 << 12;

/// What a client of this crate says first: `(None, 'procession_hello', (1,), {})`.
const HELLO: &[u8] = b"\x80\x04(N\x8c\x10procession_helloK\x01\x85}t.";

/// Sends the bytes behind the first to a manager's server, as a client that has shown the key. If
/// the first is odd, it speaks the form of this crate, else Python's. With the second bit the bytes
/// are sent as they are, without it as messages, each behind a byte for its length.
///
/// # Panics
///
/// Panics if another client is not served any more, or if a reference is left.
pub fn request(bytes: &[u8]) {
    let Some((first, script)) = bytes.split_first() else { return };
    let script = &script[..script.len().min(MOST_SENT)];
    let running = Holding::new();
    let witness = running.client();
    assert_eq!(witness.call(1, b"m\x01").expect("a reply"), [1]);

    let mut stranger = running.stranger(first % 2 == 1);
    // The server may have closed already.
    let _ = if first & 2 == 0 {
        stranger.write_all(&framed(script))
    } else {
        stranger.write_all(script)
    };
    let _ = stranger.shutdown(Shutdown::Write);
    let _ = stranger.read_to_end(&mut Vec::new());

    if !running.handler.is_stopped() {
        assert_eq!(witness.call(1, b"e").expect("a reply"), b"e");
        // Those of nobody in particular are made by clients of Python's form, and stay.
        let start = Instant::now();
        while first % 2 == 1 && running.server.all_references() != [(1, 1)] {
            assert!(start.elapsed() < Duration::from_secs(10), "a reference is left");
            thread::yield_now();
        }
    }
}

/// The script as messages.
fn framed(mut script: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = script.split_first() {
        let (message, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        messages.extend((message.len() as u32).to_be_bytes());
        messages.extend(message);
        script = rest;
    }
    messages.truncate(MOST_SENT);
    messages
}

/// A server for one client that may send anything.
struct Holding {
    server: Arc<Server>,
    handler: Arc<Objects>,
}

/// Answers with the request, after what its first byte says.
#[derive(Default)]
struct Objects {
    server: Mutex<Option<Arc<Server>>>,
    made: Mutex<BTreeSet<u64>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    stopped: Mutex<bool>,
}

impl Objects {
    fn is_stopped(&self) -> bool {
        *self.stopped.lock().expect("nobody panics")
    }
}

impl Handler for Objects {
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After {
        assert!(request.len() as u64 <= LONGEST_REQUEST, "a request is too long");
        let server = self.server.lock().expect("nobody panics").clone().expect("a server");
        match request {
            [b'm', object, ..] => {
                let client = call.is_ours().then(|| call.client());
                self.made.lock().expect("nobody panics").insert(u64::from(*object));
                server.refer(client, u64::from(*object));
                reply.push(*object);
            }
            [b'b', ..] => server.may_block(),
            [b'c', ..] => return After::Close,
            [b's', ..] => {
                *self.stopped.lock().expect("nobody panics") = true;
                return After::Stop;
            }
            _ => reply.extend_from_slice(request),
        }
        After::Serve
    }

    fn restore(&self, _call: &Call<'_>, _object: u64) -> bool {
        false
    }

    fn released(&self, objects: &[u64]) {
        let mut made = self.made.lock().expect("nobody panics");
        objects.iter().for_each(|object| assert!(made.remove(object), "it was never made"));
    }

    fn gone(&self, _client: u64, _properly: Properly) {}

    fn work(&self, worker: Worker) {
        let thread = thread::spawn(|| worker.run());
        self.threads.lock().expect("nobody panics").push(thread);
    }
}

impl Holding {
    fn new() -> Self {
        let server = Server::builder(Address::Abstract(unused_name()), KEY)
            .longest_request(LONGEST_REQUEST)
            .bind();
        let server = Arc::new(server.expect("a server"));
        let handler = Arc::new(Objects::default());
        *handler.server.lock().expect("nobody panics") = Some(server.clone());
        server.start(handler.clone());
        Self { server, handler }
    }

    fn connect(&self) -> ByteConnection {
        Client::new(self.server.address().clone()).key(KEY).connect().expect("a connection")
    }

    fn client(&self) -> Caller {
        match greet(self.connect(), self.server.address().clone()).expect("a server") {
            Greeting::Ours(client) => *client,
            Greeting::Plain => panic!("the server does not speak our form"),
        }
    }

    fn stranger(&self, is_ours: bool) -> UnixStream {
        let connection = self.connect();
        if is_ours {
            connection.send(HELLO).expect("it is sent");
            connection.recv().expect("a welcome");
        }
        UnixStream::from(OwnedFd::from(connection))
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.server.stop();
        self.handler.server.lock().expect("nobody panics").take();
        let threads = std::mem::take(&mut *self.handler.threads.lock().expect("nobody panics"));
        threads.into_iter().for_each(|thread| thread.join().expect("a handler has panicked"));
    }
}
