//! A received message.

use std::fmt;

use smallvec::SmallVec;

use crate::shm::Arena;
use crate::shm::Handle;

/// Bytes of a message that need no allocation of their own.
const ON_STACK: usize = 48;

/// A message taken from a queue.
///
/// A large one is read where the sender put it, in shared memory that goes back when the message
/// is dropped. Shared objects that the message names live at least as long as it does, so they
/// are to be opened before it is dropped.
pub struct Message(Body);

enum Body {
    Small(SmallVec<[u8; ON_STACK]>),
    /// A parcel that this process owns.
    Parcel(Handle),
}

impl Message {
    pub(super) fn copied(bytes: &[u8]) -> Self {
        Self(Body::Small(SmallVec::from_slice(bytes)))
    }

    pub(super) fn parcel(handle: Handle) -> Self {
        Self(Body::Parcel(handle))
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Body::Small(bytes) => bytes,
            // In a forked copy of the receiver the parcel may be gone; then there are no bytes.
            Body::Parcel(handle) => {
                Arena::current().and_then(|arena| arena.parcel_bytes(*handle)).unwrap_or_default()
            }
        }
    }
}

impl std::ops::Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Body::Parcel(handle) = self.0
            && let Ok(arena) = Arena::current()
        {
            arena.free(handle);
        }
    }
}
