//! A stream of bytes cut into messages, and messages sent. The sockets do not block.

use std::io::{self, IoSlice};
use std::ops::{Deref, Range};
use std::os::fd::BorrowedFd;

use crate::channel::connection::frame::{self, Header, Parsed};
use crate::sys::{fd, stream};

/// Room for what comes next where nothing is known of it, in bytes.
const ROOM: usize = 16 << 10;

/// The most that is reserved for a message of which little has come, in bytes.
const IN_ADVANCE: usize = 64 << 20;

/// Messages up to this size are sent in one piece with their header, in bytes.
const IN_ONE: usize = 16 << 10;

/// Why the bytes that came are no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong {
    /// Length of the message, in bytes.
    pub(super) length: u64,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// What has come and has not been taken yet.
#[derive(Debug)]
pub(super) struct Inflow {
    bytes: Vec<u8>,
    /// Where the first message that was not taken begins.
    start: usize,
    /// Longest message, in bytes.
    limit: u64,
}

impl Inflow {
    pub(super) fn new(limit: u64) -> Self {
        Self { bytes: Vec::new(), start: 0, limit }
    }

    /// Reads what is there, as much as there is room for; zero is the end of the stream.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let missing = self.missing().clamp(1, IN_ADVANCE);
        self.bytes.try_reserve(missing)?;
        stream::read_onto(socket, &mut self.bytes)
    }

    /// Takes the next message, if all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Message>, TooLong> {
        let Some(range) = self.whole()? else { return Ok(None) };
        if range.end == self.bytes.len() {
            self.start = 0;
            return Ok(Some(Message { bytes: std::mem::take(&mut self.bytes), range }));
        }
        self.start = range.end;
        let bytes = self.bytes[range].to_vec();
        Ok(Some(Message { range: 0..bytes.len(), bytes }))
    }

    /// Whether there is a message to take, or an error to be told.
    pub(super) fn has_next(&self) -> bool {
        !matches!(self.whole(), Ok(None))
    }

    /// Where the next message lies, if all of it has come.
    fn whole(&self) -> Result<Option<Range<usize>>, TooLong> {
        let bytes = &self.bytes[self.start..];
        match frame::parse(bytes) {
            Parsed::Needs(_) => Ok(None),
            Parsed::Nonsense => Err(TooLong { length: u64::MAX }),
            Parsed::Length(length) if length > self.limit => Err(TooLong { length }),
            Parsed::Length(length) => {
                let begin = self.start + header_len(bytes);
                let fits = usize::try_from(length).ok().and_then(|len| begin.checked_add(len));
                match fits {
                    Some(end) if end <= self.bytes.len() => Ok(Some(begin..end)),
                    _ => Ok(None),
                }
            }
        }
    }

    /// How many bytes to read at least.
    fn missing(&self) -> usize {
        let Parsed::Length(length) = frame::parse(&self.bytes) else { return ROOM };
        let all = length.saturating_add(header_len(&self.bytes) as u64);
        let missing = all.saturating_sub(self.bytes.len() as u64);
        // What follows the message may be read with it, unless the message is long.
        usize::try_from(missing).map_or(usize::MAX, |missing| missing.max(ROOM))
    }
}

fn header_len(bytes: &[u8]) -> usize {
    if bytes.starts_with(&[0xff; frame::SHORT]) { frame::LONG } else { frame::SHORT }
}

/// Appends a message with its header.
pub(super) fn append(out: &mut Vec<u8>, message: &[u8]) {
    out.extend_from_slice(Header::of(message.len()).bytes());
    out.extend_from_slice(message);
}

/// Appends the header of a message that has two parts, and the first part; the second one too if
/// it is short. Says whether it was.
pub(super) fn append_parts(out: &mut Vec<u8>, head: &[u8], rest: &[u8]) -> bool {
    out.extend_from_slice(Header::of(head.len() + rest.len()).bytes());
    out.extend_from_slice(head);
    let short = rest.len() <= IN_ONE;
    if short {
        out.extend_from_slice(rest);
    }
    short
}

/// Sends all of two pieces, one after the other; blocks while the peer takes nothing. `blocked`
/// is called before that, once.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    pieces: [&[u8]; 2],
    blocked: impl FnOnce(),
) -> io::Result<()> {
    let total = pieces[0].len() + pieces[1].len();
    let mut sent = 0;
    let mut blocked = Some(blocked);
    while sent < total {
        let rest = match sent.checked_sub(pieces[0].len()) {
            None => [IoSlice::new(&pieces[0][sent..]), IoSlice::new(pieces[1])],
            Some(more) => [IoSlice::new(&pieces[1][more..]), IoSlice::new(&[])],
        };
        match stream::send_some(socket, &rest) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(blocked) = blocked.take() {
                    blocked();
                }
                wait_writable(socket)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A message is sent to its end whatever signal comes: half of one would end the connection.
fn wait_writable(socket: BorrowedFd<'_>) -> io::Result<()> {
    match fd::poll_writable(socket, None) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_in_any_pieces_come_out_whole() {
        let (here, there) = stream::stream_pair().unwrap();
        stream::set_blocking(there.as_fd(), false).unwrap();
        let mut wire = Vec::new();
        let messages: Vec<Vec<u8>> =
            [0, 1, 5, 70_000, 3].iter().map(|len| vec![*len as u8; *len]).collect();
        for message in &messages {
            append(&mut wire, message);
        }
        let mut inflow = Inflow::new(u64::MAX);
        let mut came = Vec::new();
        for piece in wire.chunks(997) {
            send(here.as_fd(), [piece, &[]], || ()).unwrap();
            while inflow.fill(there.as_fd()).is_ok_and(|count| count > 0) {
                while let Some(message) = inflow.next().unwrap() {
                    came.push(message.to_vec());
                }
            }
        }
        assert_eq!(came, messages);
        assert!(!inflow.has_next());
    }

    #[test]
    fn long_and_senseless_messages_are_refused_before_memory_is_taken() {
        for (header, length) in [(1001_i32, 1001), (-2, u64::MAX)] {
            let (here, there) = stream::stream_pair().unwrap();
            send(here.as_fd(), [&header.to_be_bytes(), &[]], || ()).unwrap();
            let mut inflow = Inflow::new(1000);
            inflow.fill(there.as_fd()).unwrap();
            assert_eq!(inflow.next().unwrap_err(), TooLong { length });
            assert!(inflow.has_next());
        }
    }
}
