//! This process's ends of a command's pipes: all of them served at once.
//!
//! A command that waits to be read while it is being written to would wait for ever if its streams
//! were served one after the other. So whichever is ready is served, and none is ever waited for
//! alone.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use crate::sys::command::{Interest, poll, set_nonblocking};

/// Most that is read or written in one go, in bytes: as much as a pipe usually holds.
const AT_ONCE: usize = 64 * 1024;

/// Most goes at a stream whose writer may go on for ever.
const LAST_READS: usize = 16;

/// The ends that are open, what is to be sent, and what has come.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<PipeWriter>,
    input: Vec<u8>,
    /// How much of the input has been sent.
    sent: usize,
    pub(super) stdout: Incoming,
    pub(super) stderr: Incoming,
}

/// A stream that the command writes.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) end: Option<PipeReader>,
    pub(super) bytes: Vec<u8>,
}

impl Streams {
    pub(super) fn new(
        stdin: Option<PipeWriter>,
        stdout: Option<PipeReader>,
        stderr: Option<PipeReader>,
    ) -> Self {
        let incoming = |end| Incoming { end, bytes: Vec::new() };
        Self { stdin, stdout: incoming(stdout), stderr: incoming(stderr), ..Self::default() }
    }

    /// Adds to what is to be sent. There must be a pipe to send it through.
    pub(super) fn push(&mut self, input: &[u8]) {
        self.input.extend_from_slice(input);
    }

    /// Sends the input and its end, and reads until all streams have ended. `false` when the deadline
    /// passed first; a later call goes on from there.
    pub(super) fn transfer(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        self.never_block()?;
        let mut buffer = vec![0; AT_ONCE];
        let mut looked = false;
        loop {
            if self.sent == self.input.len() {
                self.stdin = None;
                self.input = Vec::new();
                self.sent = 0;
            }
            if self.stdin.is_none() && self.stdout.end.is_none() && self.stderr.end.is_none() {
                return Ok(true);
            }
            // Also when there is always something to read.
            if looked && deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(false);
            }
            self.await_any(deadline)?;
            self.send()?;
            self.stdout.receive(&mut buffer)?;
            self.stderr.receive(&mut buffer)?;
            looked = true;
        }
    }

    /// Reads what has been written already, of a command that was killed.
    pub(super) fn drain(&mut self) {
        let mut buffer = vec![0; AT_ONCE];
        for stream in [&mut self.stdout, &mut self.stderr] {
            for _ in 0..LAST_READS {
                // What cannot be read any more is not there; there is an error already.
                if !stream.receive(&mut buffer).unwrap_or(false) {
                    break;
                }
            }
        }
    }

    fn never_block(&self) -> io::Result<()> {
        if let Some(stdin) = &self.stdin {
            set_nonblocking(stdin.as_fd(), true)?;
        }
        for end in [&self.stdout.end, &self.stderr.end].into_iter().flatten() {
            set_nonblocking(end.as_fd(), true)?;
        }
        Ok(())
    }

    fn await_any(&self, deadline: Option<Instant>) -> io::Result<()> {
        let writer = self.stdin.as_ref().map(|end| (end.as_fd(), Interest::Write));
        let readers = [&self.stdout.end, &self.stderr.end].into_iter().flatten();
        let readers = readers.map(|end| (end.as_fd(), Interest::Read));
        let fds: Vec<_> = writer.into_iter().chain(readers).collect();
        match poll(&fds, deadline) {
            // A signal handler ran: the caller looks at the streams, and at the clock, and waits on.
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        let end = self.input.len().min(self.sent + AT_ONCE);
        match stdin.write(&self.input[self.sent..end]) {
            Ok(count) => self.sent += count,
            Err(error) if is_not_yet(&error) => {}
            // The command does not want to read more. That is its business.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.sent = self.input.len();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Incoming {
    /// Takes what is there, and says whether there may be more. Closes the stream at its end.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(end) = &mut self.end else { return Ok(false) };
        match end.read(buffer) {
            Ok(0) => {
                self.end = None;
                Ok(false)
            }
            Ok(count) => {
                self.bytes.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if is_not_yet(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
