//! What the fuzz targets do with the bytes that they are given.
//!
//! `crates/procession/tests/fuzz_corpus.rs` includes this file, and runs it on the corpus.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use procession::channel::connection::{
    Address, ByteConnection, CHALLENGE, Client, EndpointError, FAILURE, HandshakeError, Listener,
    RecvError, WELCOME, answer,
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
