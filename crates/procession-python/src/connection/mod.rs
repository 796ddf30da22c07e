//! `multiprocessing.connection`: connections, waiting for them, and listeners.

mod handshake;
mod listener;
mod messages;
mod ready;
mod sharer;
mod tls;

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procession::channel::connection::{
    ByteConnection, Mailbox, adopt_number, byte_pipe, byte_pipe_one_way,
};
use procession::shm;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PySlice};

pub(crate) use self::handshake::{answer, challenge, verify};
pub(crate) use self::listener::{PyListener, connect, connector, to_address, to_python};
use self::messages::{Came, part, read_bytes, send, send_draft, send_far, view_of};
pub(crate) use self::ready::wait;
pub(crate) use self::sharer::{is_packing, redeem, share, stop_sharing};
pub(crate) use self::tls::{PyTls, finish_tunnels};
use crate::draft::{with_draft, with_scratch};
use crate::error::{EngineResult, buffer_too_short};
use crate::number;
use crate::pickling::{
    dump_draft, dump_outside, in_one_piece, load, load_within_tree, unpickle_bytes,
};
use crate::wait::{at_once, blocking, deadline_after};

/// Messages up to this size are received into memory that is used again, in bytes.
const IN_SCRATCH: u64 = 4 << 20;

/// One end of a pipe or of a connection with a listener.
#[pyclass(name = "Connection", module = "procession.connection", subclass, frozen, dict, weakref)]
pub(crate) struct PyConnection {
    end: Mutex<End>,
    readable: AtomicBool,
    writable: AtomicBool,
    /// Keeps messages that are long or name shared objects; only a pipe within the tree has one.
    mailbox: Option<Mailbox>,
}

/// What a connection is at.
enum End {
    Open(Arc<ByteConnection>),
    /// A number that was no open descriptor when it was given.
    Bad(RawFd),
    Closed,
}

impl PyConnection {
    fn with(connection: ByteConnection, mailbox: Option<Mailbox>) -> Self {
        let connection = equip(connection, mailbox.as_ref());
        Self {
            readable: AtomicBool::new(connection.receives()),
            writable: AtomicBool::new(connection.sends()),
            end: Mutex::new(End::Open(Arc::new(connection))),
            mailbox,
        }
    }

    fn state(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connection.
    fn end(&self) -> PyResult<Arc<ByteConnection>> {
        match &*self.state() {
            End::Open(connection) => Ok(connection.clone()),
            End::Bad(number) => Err(PyOSError::new_err((
                9, // EBADF
                format!("{number} is not an open descriptor"),
            ))),
            End::Closed => Err(PyOSError::new_err("handle is closed")),
        }
    }

    /// The connection, open and for receiving.
    fn receiving(&self) -> PyResult<Arc<ByteConnection>> {
        let end = self.end()?;
        if self.readable.load(Ordering::Relaxed) {
            Ok(end)
        } else {
            Err(PyOSError::new_err("connection is write-only"))
        }
    }

    /// The connection, open and for sending.
    fn sending(&self) -> PyResult<Arc<ByteConnection>> {
        let end = self.end()?;
        if self.writable.load(Ordering::Relaxed) {
            Ok(end)
        } else {
            Err(PyOSError::new_err("connection is read-only"))
        }
    }

    /// Draws the line under what is received: what follows is the middle of a message.
    fn refuse_message(&self) -> PyErr {
        if self.writable.load(Ordering::Relaxed) {
            self.readable.store(false, Ordering::Relaxed);
        } else {
            *self.state() = End::Closed;
        }
        PyOSError::new_err("bad message length")
    }
}

/// Makes a connection of a descriptor that the program gives away.
fn adopt(number: RawFd, readable: bool, writable: bool) -> io::Result<ByteConnection> {
    Ok(ByteConnection::with_directions(adopt_number(number)?, readable, writable))
}

/// Gives the connection its mailbox.
fn equip(connection: ByteConnection, mailbox: Option<&Mailbox>) -> ByteConnection {
    match mailbox {
        Some(mailbox) => connection.with_mailbox(mailbox.clone()),
        None => connection,
    }
}

#[pymethods]
impl PyConnection {
    #[new]
    #[pyo3(signature = (handle, readable=true, writable=true, *, mailbox=None))]
    fn py_new(
        handle: RawFd,
        readable: bool,
        writable: bool,
        mailbox: Option<u64>,
    ) -> EngineResult<Self> {
        if handle < 0 {
            return Err(PyValueError::new_err("invalid handle").into());
        }
        if !readable && !writable {
            let text = "at least one of `readable` and `writable` must be True";
            return Err(PyValueError::new_err(text).into());
        }
        let mailbox = mailbox.map(Mailbox::open).transpose()?;
        let end = match adopt(handle, readable, writable) {
            Ok(connection) => End::Open(Arc::new(equip(connection, mailbox.as_ref()))),
            // As in the original, it is the first use that fails.
            Err(_) => End::Bad(handle),
        };
        Ok(Self {
            end: Mutex::new(end),
            readable: AtomicBool::new(readable),
            writable: AtomicBool::new(writable),
            mailbox,
        })
    }

    /// The class that `isinstance` is told.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class_of = CLASS_OF.import(slf.py(), "procession.connection", "_class_of")?;
        class_of.call1((slf.get_type(),))
    }

    /// True if the connection is closed.
    #[getter]
    fn closed(&self) -> bool {
        matches!(*self.state(), End::Closed)
    }

    /// True if the connection is readable.
    #[getter]
    fn readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    /// True if the connection is writable.
    #[getter]
    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// The longest message that is received, in bytes, or None.
    #[getter]
    fn max_message(&self) -> PyResult<Option<u64>> {
        let limit = self.end()?.limit();
        Ok((limit != u64::MAX).then_some(limit))
    }

    #[setter]
    fn set_max_message(&self, bytes: &Bound<'_, PyAny>) -> PyResult<()> {
        self.end()?.set_limit(number::max_message(bytes)?.unwrap_or(u64::MAX));
        Ok(())
    }

    /// The number of the descriptor, or None.
    #[getter(_handle)]
    fn handle(&self) -> Option<RawFd> {
        match &*self.state() {
            End::Open(connection) => Some(connection.as_raw_fd()),
            End::Bad(number) => Some(*number),
            End::Closed => None,
        }
    }

    /// Let go of the descriptor without closing it, and take another one, or none.
    #[setter(_handle)]
    fn set_handle(&self, handle: Option<RawFd>) {
        let new = match handle {
            None => End::Closed,
            Some(number) => match adopt(number, self.readable(), self.writable()) {
                Ok(connection) => End::Open(Arc::new(connection)),
                Err(_) => End::Bad(number),
            },
        };
        let old = std::mem::replace(&mut *self.state(), new);
        if let End::Open(connection) = old
            && let Some(connection) = Arc::into_inner(connection)
        {
            // Whoever sets this attribute has taken the descriptor into his own hands.
            let _ = OwnedFd::from(connection).into_raw_fd();
        }
    }

    /// The number of the mailbox for the other process, if one is being told.
    fn _note_mailbox(&self) -> Option<u64> {
        if shm::is_packing() { self.mailbox.as_ref()?.note().ok() } else { None }
    }

    /// File descriptor of the connection.
    fn fileno(&self) -> PyResult<RawFd> {
        // Whoever asks may read it by himself.
        if let Some(mailbox) = &self.mailbox {
            mailbox.tell_stream_is_read();
        }
        match &*self.state() {
            End::Open(connection) => Ok(connection.as_raw_fd()),
            End::Bad(number) => Ok(*number),
            End::Closed => Err(PyOSError::new_err("handle is closed")),
        }
    }

    /// Close the connection.
    fn close(&self) {
        let end = std::mem::replace(&mut *self.state(), End::Closed);
        drop(end);
    }

    /// Send a (picklable) object.
    fn send(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> EngineResult<()> {
        let end = self.sending()?;
        with_draft(|draft| {
            match &self.mailbox {
                None => dump_outside(obj, draft)?,
                Some(mailbox) => {
                    let pins = dump_draft(obj, draft, mailbox.has_room())?.unwrap_or_default();
                    return send_draft(py, &end, mailbox, draft, &pins);
                }
            }
            draft.with_parts(|parts| send(py, &end, parts))
        })
    }

    /// Receive an object.
    fn recv<'py>(&self, py: Python<'py>) -> EngineResult<Bound<'py, PyAny>> {
        let end = self.receiving()?;
        with_scratch(|message| match self.receive(py, &end, message, IN_SCRATCH)? {
            Came::Whole => Ok(load(py, message)?),
            Came::Left(message) => load_within_tree(py, &message),
            Came::Underway(incoming) => Ok(unpickle_bytes(read_bytes(py, incoming)?)?),
        })
    }

    /// Send the bytes of a bytes-like object.
    #[pyo3(signature = (buf, offset=0, size=None))]
    fn send_bytes(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: isize,
        size: Option<isize>,
    ) -> EngineResult<()> {
        let end = self.sending()?;
        if let Ok(bytes) = buf.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            let bytes = &bytes[part(bytes.len(), offset, size)?];
            return send_far(py, &end, self.mailbox.as_ref(), &[bytes]);
        }
        let buffer = PyBuffer::<u8>::get(&view_of(buf)?)?;
        let range = part(buffer.len_bytes(), offset, size)?;
        with_scratch(|message| {
            // Somebody may write to the object while the interpreter is let go of.
            message.resize(buffer.len_bytes(), 0);
            buffer.copy_to_slice(py, message)?;
            send_far(py, &end, self.mailbox.as_ref(), &[&message[range]])
        })
    }

    /// Receive bytes data as a bytes object.
    #[pyo3(signature = (maxlength=None))]
    fn recv_bytes<'py>(
        &self,
        py: Python<'py>,
        maxlength: Option<isize>,
    ) -> EngineResult<Bound<'py, PyBytes>> {
        let end = self.receiving()?;
        let limit = match maxlength.map(u64::try_from) {
            None => u64::MAX,
            Some(Ok(limit)) => limit,
            Some(Err(_)) => return Err(PyValueError::new_err("negative maxlength").into()),
        };
        with_scratch(|message| {
            let came = self.receive(py, &end, message, limit.min(IN_SCRATCH / 64))?;
            let bytes = match came {
                Came::Underway(incoming) if incoming.len() > limit => {
                    return Err(self.refuse_message().into());
                }
                Came::Underway(incoming) => return read_bytes(py, incoming),
                Came::Left(message) => in_one_piece(py, &message)?,
                Came::Whole => PyBytes::new(py, message),
            };
            if bytes.as_bytes().len() as u64 > limit {
                return Err(self.refuse_message().into());
            }
            Ok(bytes)
        })
    }

    /// Receive bytes data into a writeable bytes-like object and return how many bytes there are.
    #[pyo3(signature = (buf, offset=0))]
    fn recv_bytes_into(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: isize,
    ) -> EngineResult<usize> {
        let end = self.receiving()?;
        let view = view_of(buf)?;
        let buffer = PyBuffer::<u8>::get(&view)?;
        let fail = |text| Err(PyValueError::new_err(text).into());
        let Ok(offset) = usize::try_from(offset) else { return fail("negative offset") };
        if offset > buffer.len_bytes() {
            return fail("offset too large");
        }
        if buffer.readonly() {
            // Before the message is received, which would be lost.
            return Err(PyTypeError::new_err("cannot modify read-only memory").into());
        }
        with_scratch(|message| {
            let left;
            let message = match self.receive(py, &end, message, IN_SCRATCH)? {
                Came::Whole => message.as_slice(),
                Came::Underway(mut incoming) => {
                    blocking(py, || incoming.read_onto(message))??;
                    message.as_slice()
                }
                Came::Left(message) => {
                    left = in_one_piece(py, &message)?;
                    left.as_bytes()
                }
            };
            if buffer.len_bytes() - offset < message.len() {
                return Err(buffer_too_short(PyBytes::new(py, message)));
            }
            let part = PySlice::new(py, offset as isize, (offset + message.len()) as isize, 1);
            PyBuffer::<u8>::get(&view.get_item(part)?)?.copy_from_slice(py, message)?;
            Ok(message.len())
        })
    }

    /// Say whether there is any input available to be read.
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> EngineResult<bool> {
        let end = self.receiving()?;
        match end.poll(at_once()) {
            Ok(false) if timeout != Some(0.0) => {
                let deadline = deadline_after(timeout);
                Ok(blocking(py, || end.poll(deadline))??)
            }
            result => Ok(result?),
        }
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc_value, exc_tb))]
    fn __exit__(
        &self,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        exc_tb: &Bound<'_, PyAny>,
    ) {
        let _ = (exc_type, exc_value, exc_tb);
        self.close();
    }
}

/// Make two connected ends; without `duplex` the first only receives and the second only sends.
#[pyfunction]
#[pyo3(signature = (duplex=true))]
pub(crate) fn pipe(duplex: bool) -> EngineResult<(PyConnection, PyConnection)> {
    let (one, other) = if duplex { byte_pipe() } else { byte_pipe_one_way() }?;
    let mailbox = Mailbox::new()?;
    Ok((PyConnection::with(one, Some(mailbox.clone())), PyConnection::with(other, Some(mailbox))))
}
