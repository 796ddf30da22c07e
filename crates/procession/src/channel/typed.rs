//! The queue of typed values.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::bytes::ByteQueue;
use crate::channel::connection;
use crate::channel::error::{GetError, PutError};
use crate::channel::message::Message;
use crate::channel::watch::Readiness;
use crate::shm::{ArenaError, Pins, pack, typed_handle};

/// Values whose serialized form is longer are serialized once more, on the heap.
const ON_STACK: usize = 96;

/// A queue of values of type `T` between the processes of a tree.
///
/// Values are serialized with serde when they are put in and deserialized when they are taken
/// out; what has been put in does not change any more. A `T` may contain shared objects, other
/// queues for instance. For the rest see [`ByteQueue`], on which it is built.
///
/// # Examples
///
/// ```
/// use procession::channel::Queue;
///
/// let queue = Queue::new()?;
/// queue.put(&("answer".to_owned(), 42))?;
/// assert_eq!(queue.get()?, ("answer".to_owned(), 42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T> {
    pub(super) bytes: ByteQueue,
    values: PhantomData<fn(T) -> T>,
}

/// The deadline of a call that must not block.
fn at_once() -> Option<Instant> {
    Some(Instant::now())
}

/// `None`, no limit, if the time is too far away to be told.
fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

impl<T> Queue<T> {
    /// Makes an empty queue that only memory limits.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new() -> Result<Self, ArenaError> {
        Self::bounded(0)
    }

    /// Makes an empty queue that holds at most `max_items` values; 0 means no limit but memory.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn bounded(max_items: usize) -> Result<Self, ArenaError> {
        ByteQueue::new(max_items).map(Self::on)
    }

    pub(super) fn on(bytes: ByteQueue) -> Self {
        Self { bytes, values: PhantomData }
    }

    /// A descriptor that polls readable while there is something to get; see
    /// [`ByteQueue::readiness`].
    ///
    /// # Errors
    ///
    /// As [`ByteQueue::readiness`].
    pub fn readiness(&self) -> io::Result<Arc<Readiness>> {
        self.bytes.readiness()
    }

    /// Number of values in the queue. Exact while nobody else puts or gets.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no value in the queue. Exact while nobody else puts or gets.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a put would have to wait. Exact while nobody else puts or gets.
    pub fn is_full(&self) -> bool {
        self.bytes.is_full()
    }

    /// Ends the queue for all processes: further puts are refused, and gets as well once it is
    /// empty. Whoever waits is woken.
    pub fn close(&self) {
        self.bytes.close();
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts a value in; blocks while the queue is full. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`PutError::Serialize`], [`PutError::Closed`], or [`PutError::Arena`] when shared memory is
    /// at its limit. Nothing was put in then.
    pub fn put(&self, value: &T) -> Result<(), PutError> {
        self.put_until(value, None)
    }

    /// Puts a value in if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError::Full`], else as [`put`](Self::put).
    pub fn try_put(&self, value: &T) -> Result<(), PutError> {
        self.put_until(value, at_once())
    }

    /// Puts a value in; blocks while the queue is full, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`PutError::Full`] after that time, else as [`put`](Self::put).
    pub fn put_timeout(&self, value: &T, timeout: Duration) -> Result<(), PutError> {
        self.put_until(value, after(timeout))
    }

    fn put_until(&self, value: &T, deadline: Option<Instant>) -> Result<(), PutError> {
        let mark = connection::mark();
        let put = self.put_short(value, mark, deadline);
        if put.is_err() {
            connection::withdraw(mark);
        }
        put
    }

    #[inline]
    fn put_short(&self, value: &T, mark: u64, deadline: Option<Instant>) -> Result<(), PutError> {
        let mut buffer = [0; ON_STACK];
        let (written, pins) =
            pack(|| postcard::to_slice(value, &mut buffer).map(|bytes| bytes.len()));
        match written {
            Ok(len) => self.put_bytes(&buffer[..len], &pins, deadline),
            Err(postcard::Error::SerializeBufferFull) => {
                // Descriptors are shared anew for the message that will be read.
                connection::withdraw(mark);
                self.put_long(value, deadline)
            }
            Err(error) => Err(PutError::Serialize(connection::text_of_postcard(&error))),
        }
    }

    #[cold]
    fn put_long(&self, value: &T, deadline: Option<Instant>) -> Result<(), PutError> {
        let (serialized, pins) = pack(|| postcard::to_allocvec(value));
        let bytes = serialized
            .map_err(|error| PutError::Serialize(connection::text_of_postcard(&error)))?;
        self.put_bytes(&bytes, &pins, deadline)
    }

    fn put_bytes(
        &self,
        bytes: &[u8],
        pins: &Pins,
        deadline: Option<Instant>,
    ) -> Result<(), PutError> {
        loop {
            match self.bytes.put_pinned(bytes, pins, deadline) {
                Err(PutError::Interrupted) => {}
                result => return result,
            }
        }
    }

    /// Puts values in, in order, and returns how many: all of them, unless shared memory came to
    /// its limit in between.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), if not even the first one could be put in.
    pub fn put_many<'a>(&self, values: impl IntoIterator<Item = &'a T>) -> Result<usize, PutError>
    where
        T: 'a,
    {
        let mut put = 0;
        for value in values {
            match self.put(value) {
                Ok(()) => put += 1,
                Err(error) => return if put > 0 { Ok(put) } else { Err(error) },
            }
        }
        Ok(put)
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the oldest value out; blocks while there is none. A signal does not end the wait.
    ///
    /// # Errors
    ///
    /// [`GetError::Closed`] when the queue is empty and closed, [`GetError::Deserialize`] when the
    /// message, which is gone then, is no `T`.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(None)
    }

    /// Takes the oldest value out if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`], else as [`get`](Self::get).
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_until(at_once())
    }

    /// Takes the oldest value out; blocks while there is none, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] after that time, else as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(after(timeout))
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<T, GetError> {
        loop {
            match self.bytes.get(deadline) {
                Ok(message) => return decode(&message),
                Err(GetError::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes out what is there, at most `max` values; blocks while there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); a message that is no `T` loses the others of this call too.
    pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetError> {
        loop {
            match self.bytes.get_many(max, None) {
                Ok(messages) => return messages.iter().map(decode).collect(),
                Err(GetError::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn decode<T: DeserializeOwned>(message: &Message) -> Result<T, GetError> {
    postcard::from_bytes(message)
        .map_err(|error| GetError::Deserialize(connection::text_of_postcard(&error)))
}

typed_handle!(Queue<T>, bytes: ByteQueue, values);
