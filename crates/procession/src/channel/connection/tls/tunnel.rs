//! One encrypted socket, and the plain one that it stands behind.
//!
//! What goes through it are messages, and nothing else. So where the encrypted stream is cut
//! between two messages, the plain one is made to end within one: half a header is put in, and
//! whoever reads, in whatever process, is told that the stream is not whole.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustls::Connection;

use crate::channel::connection::frame::{self, Parsed};
use crate::channel::connection::tls::{Cause, TlsError};
use crate::sys::epoll::Interest;
use crate::sys::{fd, stream};

/// Times that a tunnel reads before it is another one's turn.
const ROUNDS: usize = 8;

/// Half a header.
const HALF: &[u8] = &[0xff];

/// A socket as what rustls writes to.
pub(super) struct Wire<'a>(pub(super) BorrowedFd<'a>);

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stream::send_now(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both sockets do not block.
pub(super) struct Tunnel {
    tls: Box<Connection>,
    encrypted: OwnedFd,
    plain: OwnedFd,
    cause: Cause,
    /// Decrypted, and not taken by the program yet from `taken` on.
    inward: Vec<u8>,
    taken: usize,
    place: Place,
    peer: Source,
    program: Source,
    /// Whether more can be written to the peer.
    heard: bool,
    /// What is waited for at `encrypted` and at `plain`.
    pub(super) interests: [Option<Interest>; 2],
}

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    /// It has ended, which has not been passed on.
    Ended,
    /// That has been passed on.
    Done,
}

/// Where in the stream of messages the next byte is.
#[derive(Debug, Default)]
struct Place {
    head: [u8; frame::LONG],
    len: usize,
    /// Bytes of the message that are still to come.
    left: u64,
    /// What came is no message, so that nobody takes it for one.
    nonsense: bool,
}

impl Place {
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.nonsense {
            if self.left > 0 {
                let part = usize::try_from(self.left).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.left -= part as u64;
                bytes = &bytes[part..];
                continue;
            }
            self.head[self.len] = bytes[0];
            self.len += 1;
            bytes = &bytes[1..];
            match frame::parse(&self.head[..self.len]) {
                Parsed::Needs(_) => {}
                Parsed::Length(length) => (self.left, self.len) = (length, 0),
                Parsed::Nonsense => self.nonsense = true,
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.left == 0 && self.len == 0
    }
}

impl Tunnel {
    pub(super) fn new(mut tls: Box<Connection>, encrypted: OwnedFd, plain: OwnedFd) -> Self {
        // Only so much is read from the program that it never has much.
        tls.set_buffer_limit(None);
        let mut tunnel = Self {
            tls,
            encrypted,
            plain,
            cause: Cause::default(),
            inward: Vec::new(),
            taken: 0,
            place: Place::default(),
            peer: Source::Open,
            program: Source::Open,
            heard: true,
            interests: [None, None],
        };
        // What came together with the end of the handshake.
        tunnel.decrypt();
        tunnel
    }

    pub(super) fn cause(&self) -> Cause {
        self.cause.clone()
    }

    pub(super) fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.encrypted.as_fd(), self.plain.as_fd()]
    }

    /// Carries what can be carried without waiting; false once there is nothing more to do. The
    /// scratch memory is overwritten.
    pub(super) fn carry(&mut self, scratch: &mut [u8]) -> bool {
        self.carry_inward(scratch);
        self.carry_outward(scratch);
        !self.is_done()
    }

    /// Whether it only waits for the peer to take what is left.
    pub(super) fn is_closing(&self) -> bool {
        self.program != Source::Open
    }

    /// What is to be waited for at `encrypted` and at `plain`.
    pub(super) fn wanted(&self) -> [Option<Interest>; 2] {
        let has_inward = self.taken < self.inward.len();
        let has_outward = self.heard && self.tls.wants_write();
        let reads_peer = self.peer == Source::Open && !has_inward && self.program == Source::Open;
        let reads_program = self.program == Source::Open && !has_outward;
        [interest(reads_peer, has_outward), interest(reads_program, has_inward)]
    }

    /// Ends the program's part: what it has sent is taken, and nothing after it. False once all is
    /// on its way.
    pub(super) fn finish(&mut self, scratch: &mut [u8]) -> bool {
        while self.program == Source::Open && self.flush() {
            if !self.take_from_program(scratch) {
                self.end_program();
            }
        }
        self.carry_outward(scratch);
        self.heard && self.program != Source::Done
    }

    fn is_done(&self) -> bool {
        self.program == Source::Done || (self.peer == Source::Done && !self.heard)
    }

    // From the program to the peer.

    fn carry_outward(&mut self, scratch: &mut [u8]) {
        for _ in 0..ROUNDS {
            if !self.flush() {
                return;
            }
            match self.program {
                Source::Open => {
                    if !self.take_from_program(scratch) {
                        return;
                    }
                }
                Source::Ended => {
                    // The peer reads its end now; what it sends is for nobody.
                    fd::shut_down_writing(self.encrypted.as_fd());
                    self.program = Source::Done;
                    return;
                }
                Source::Done => return,
            }
        }
    }

    /// Encrypts what is there; false if nothing is.
    fn take_from_program(&mut self, scratch: &mut [u8]) -> bool {
        match stream::read(self.plain.as_fd(), scratch) {
            Ok(0) => self.end_program(),
            Ok(count) => {
                // Without a limit it takes all.
                let _ = self.tls.writer().write_all(&scratch[..count]);
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return false,
                io::ErrorKind::Interrupted => {}
                // It was closed with bytes in it that nobody had read.
                _ => self.end_program(),
            },
        }
        true
    }

    fn end_program(&mut self) {
        self.tls.send_close_notify();
        self.program = Source::Ended;
    }

    /// Sends what is encrypted; true if nothing is left.
    fn flush(&mut self) -> bool {
        while self.heard && self.tls.wants_write() {
            match self.tls.write_tls(&mut Wire(self.encrypted.as_fd())) {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::Interrupted => {}
                    _ => self.stop_outward(),
                },
            }
        }
        self.heard
    }

    /// Lets the program's sends fail: there is nobody to hear it.
    fn stop_outward(&mut self) {
        self.heard = false;
        fd::shut_down_reading(self.plain.as_fd());
        if self.program != Source::Open {
            self.program = Source::Done;
        }
    }

    // From the peer to the program.

    fn carry_inward(&mut self, scratch: &mut [u8]) {
        for _ in 0..ROUNDS {
            if !self.deliver() {
                return;
            }
            match self.peer {
                Source::Open => {
                    if !self.take_from_peer(scratch) {
                        return;
                    }
                }
                Source::Ended => {
                    fd::shut_down_writing(self.plain.as_fd());
                    self.peer = Source::Done;
                    return;
                }
                Source::Done => return,
            }
        }
    }

    /// Decrypts what is there; false if nothing is.
    fn take_from_peer(&mut self, scratch: &mut [u8]) -> bool {
        let count = match stream::read(self.encrypted.as_fd(), scratch) {
            Ok(0) => {
                self.break_off(TlsError::Cut);
                return true;
            }
            Ok(count) => count,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return false,
                io::ErrorKind::Interrupted => return true,
                _ => {
                    self.break_off(TlsError::Cut);
                    return true;
                }
            },
        };
        let mut bytes = &scratch[..count];
        while self.peer == Source::Open && !bytes.is_empty() {
            if let Err(error) = self.tls.read_tls(&mut bytes) {
                self.break_off(TlsError::Broken { why: error.to_string() });
            }
            self.decrypt();
        }
        true
    }

    fn decrypt(&mut self) {
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The alert that says why is sent with the rest.
                self.flush();
                return self.break_off(error.into());
            }
        };
        let start = self.inward.len();
        self.inward.resize(start + state.plaintext_bytes_to_read(), 0);
        let mut len = start;
        while len < self.inward.len() {
            match self.tls.reader().read(&mut self.inward[len..]) {
                Ok(count) if count > 0 => len += count,
                _ => break,
            }
        }
        self.inward.truncate(len);
        self.place.advance(&self.inward[start..]);
        if state.peer_has_closed() && self.peer == Source::Open {
            self.peer = Source::Ended;
        }
    }

    /// Ends the stream before its end, for this reason.
    fn break_off(&mut self, why: TlsError) {
        if self.peer != Source::Open {
            return;
        }
        self.peer = Source::Ended;
        self.cause.set(why);
        if self.place.is_between_messages() {
            self.inward.extend_from_slice(HALF);
        }
        self.stop_outward();
    }

    /// Hands on what is decrypted; true if nothing is left.
    fn deliver(&mut self) -> bool {
        while self.taken < self.inward.len() {
            match stream::send_now(self.plain.as_fd(), &self.inward[self.taken..]) {
                Ok(count) => self.taken += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        // The program has closed its end.
                        self.taken = self.inward.len();
                        self.peer = Source::Done;
                    }
                },
            }
        }
        self.inward.clear();
        self.taken = 0;
        true
    }
}

fn interest(read: bool, write: bool) -> Option<Interest> {
    match (read, write) {
        (false, false) => None,
        (true, false) => Some(Interest::Readable),
        (false, true) => Some(Interest::Writable),
        (true, true) => Some(Interest::Both),
    }
}
