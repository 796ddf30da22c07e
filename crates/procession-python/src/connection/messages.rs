//! Messages on their way: through the stream, or left in the mailbox of a pipe.

use std::ops::Range;

use procession::channel::Message;
use procession::channel::connection::{ByteConnection, Incoming, Mailbox, Outgoing, RecvError};
use procession::shm::{ArenaError, Pins};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::connection::PyConnection;
use crate::draft::Draft;
use crate::error::{EngineError, EngineResult};
use crate::wait::blocking;

/// Messages up to this size are received straight into a `bytes`, which is filled with zeros
/// before. A peer that only claims to send more must not make this process touch that memory.
const IN_ADVANCE: u64 = 64 << 20;

/// Messages from this size on are left in the mailbox, if there is one, in bytes.
const LEAVE: usize = 16 << 10;

/// Begins a message that is not the object itself but where it was left: the mailbox, the parcel
/// and its weight follow. No pickle begins like that.
const LEFT: &[u8] = b"\xffprocession\0";

/// Length of such a note, in bytes.
const NOTE: usize = LEFT.len() + 24;

/// A message that has begun to come.
pub(super) enum Came<'a> {
    /// It is in the buffer.
    Whole,
    /// It is in shared memory.
    Left(Message),
    /// It is too long for the buffer.
    Underway(Incoming<'a>),
}

impl PyConnection {
    /// Receives a message into `buffer` if it is one of at most `most` bytes; else returns it as it
    /// is about to come.
    fn receive_onto<'a>(
        &self,
        py: Python<'_>,
        end: &'a ByteConnection,
        buffer: &mut Vec<u8>,
        most: u64,
    ) -> EngineResult<Option<Incoming<'a>>> {
        let mut begun: Option<Incoming<'a>> = None;
        let received = blocking(py, || {
            let incoming = match &mut begun {
                Some(incoming) => incoming,
                None => begun.insert(end.start_receiving()?),
            };
            if incoming.len() <= most {
                incoming.read_onto(buffer).map(|()| true)
            } else {
                Ok(false)
            }
        })?;
        match received {
            Ok(true) => Ok(None),
            Ok(false) => Ok(begun),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Receives a message into `buffer` if it is one of at most `most` bytes; else says where it is.
    pub(super) fn receive<'a>(
        &self,
        py: Python<'_>,
        end: &'a ByteConnection,
        buffer: &mut Vec<u8>,
        most: u64,
    ) -> EngineResult<Came<'a>> {
        if let Some(incoming) = self.receive_onto(py, end, buffer, most.max(NOTE as u64))? {
            return Ok(Came::Underway(incoming));
        }
        match buffer.strip_prefix(LEFT) {
            Some(place) if buffer.len() == NOTE => Ok(Came::Left(self.collect(place)?)),
            _ => Ok(Came::Whole),
        }
    }

    /// The message that was left at this place.
    fn collect(&self, place: &[u8]) -> EngineResult<Message> {
        let mut words = place.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let left = (words.next(), words.next(), words.next());
        match (&self.mailbox, left) {
            (Some(mine), (Some(mailbox), Some(parcel), Some(weight))) if mailbox == mine.id() => {
                Ok(mine.collect(parcel, weight)?)
            }
            _ => Err(PyRuntimeError::new_err(
                "the message is in the shared memory of the process tree it comes from, where only \
                 a Connection of that tree that belongs to the same pipe can receive it",
            )
            .into()),
        }
    }

    fn error(&self, error: RecvError) -> EngineError {
        match error {
            RecvError::TooLong { .. } => self.refuse_message().into(),
            other => other.into(),
        }
    }
}

/// Sends a message, which may be in several parts.
pub(super) fn send(py: Python<'_>, end: &ByteConnection, parts: &[&[u8]]) -> EngineResult<()> {
    let length = length_of(parts);
    let mut begun: Option<Outgoing<'_>> = None;
    Ok(blocking(py, || {
        let outgoing = match &mut begun {
            Some(outgoing) => outgoing,
            None => begun.insert(end.start_sending(length)?),
        };
        let result = outgoing.send_parts(parts);
        if !outgoing.is_underway() {
            // A signal handler may want to send on the same connection.
            begun = None;
        }
        result
    })??)
}

/// Reads a message that is too long for the scratch buffer.
pub(super) fn read_bytes<'py>(
    py: Python<'py>,
    mut incoming: Incoming<'_>,
) -> EngineResult<Bound<'py, PyBytes>> {
    if incoming.len() > IN_ADVANCE {
        let mut buffer = Vec::new();
        blocking(py, || incoming.read_onto(&mut buffer))??;
        return Ok(PyBytes::new(py, &buffer));
    }
    let mut outcome = Ok(());
    let bytes = PyBytes::new_with(py, incoming.len() as usize, |buffer| {
        outcome = blocking(py, || incoming.read_into(buffer))
            .map_err(EngineError::from)
            .and_then(|received| received.map_err(EngineError::from));
        Ok(())
    })?;
    outcome.map(|()| bytes)
}

/// Sends an object that was drafted, in the mailbox or through the stream.
pub(super) fn send_draft(
    py: Python<'_>,
    end: &ByteConnection,
    mailbox: &Mailbox,
    draft: &Draft<'_>,
    pins: &Pins,
) -> EngineResult<()> {
    let apart = draft.apart;
    draft.with_parts(|parts| {
        if pins.is_empty() {
            return send_far(py, end, Some(mailbox), parts);
        }
        let weight = length_of(parts) as u64 + apart;
        let parcel = py.detach(|| mailbox.leave(parts, pins, weight))?;
        tell(py, end, mailbox, parcel, weight)
    })
}

/// Sends bytes, in the mailbox if they are long and there is one with room.
pub(super) fn send_far(
    py: Python<'_>,
    end: &ByteConnection,
    mailbox: Option<&Mailbox>,
    parts: &[&[u8]],
) -> EngineResult<()> {
    let length = length_of(parts);
    // What looks like a note must not be taken for one.
    let noted = length == NOTE && parts.concat().starts_with(LEFT);
    let Some(mailbox) = mailbox.filter(|_| noted || length >= LEAVE) else {
        return send(py, end, parts);
    };
    let room = noted || py.detach(|| mailbox.wait_for_room(length as u64));
    py.check_signals()?;
    if !room {
        return send(py, end, parts);
    }
    let weight = length as u64;
    match py.detach(|| mailbox.leave(parts, &Pins::default(), weight)) {
        Ok(parcel) => tell(py, end, mailbox, parcel, weight),
        // The stream needs no shared memory.
        Err(ArenaError::OutOfMemory { .. }) => send(py, end, parts),
        Err(error) => Err(error.into()),
    }
}

/// Tells the other end where a message was left.
fn tell(
    py: Python<'_>,
    end: &ByteConnection,
    mailbox: &Mailbox,
    parcel: u64,
    weight: u64,
) -> EngineResult<()> {
    let mut note = [0; NOTE];
    let words = [mailbox.id(), parcel, weight].map(u64::to_le_bytes);
    note[..LEFT.len()].copy_from_slice(LEFT);
    note[LEFT.len()..].copy_from_slice(words.as_flattened());
    let told = send(py, end, &[&note]);
    if told.is_err() {
        drop(mailbox.collect(parcel, weight));
    }
    told
}

fn length_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// A view of the bytes of any object that has some, whatever it takes them for.
pub(super) fn view_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    PyMemoryView::from(object)?.call_method1(intern!(object.py(), "cast"), ("B",))
}

/// The part of `length` bytes that `send_bytes` is asked for.
pub(super) fn part(length: usize, offset: isize, size: Option<isize>) -> PyResult<Range<usize>> {
    let fail = |text| Err(PyValueError::new_err(text));
    let Ok(offset) = usize::try_from(offset) else { return fail("offset is negative") };
    if length < offset {
        return fail("buffer length < offset");
    }
    let Some(size) = size else { return Ok(offset..length) };
    let Ok(size) = usize::try_from(size) else { return fail("size is negative") };
    match offset.checked_add(size) {
        Some(end) if end <= length => Ok(offset..end),
        _ => fail("buffer length < offset + size"),
    }
}
